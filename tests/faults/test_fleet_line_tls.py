"""A box on a line that is not its broker's: it says nothing there, whatever answers (T43, the box's side of MQTT).

The broker's side (no certificate, another CA, over, revoked, old TLS, weak suites): test_fleet_up.py.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import warnings

import pytest
from fleet_kit import FleetCa
from fleet_link_kit import Authority, enrol

from appliance.fleet.device.identity import Broker
from appliance.fleet.device.transport import Connected, Disconnected, PahoTransport
from engines import signing

pytestmark = [pytest.mark.fault("T43"), pytest.mark.req("R-FLEET-08", "R-FAULT-T43")]
#: An MQTT 5 broker that takes whoever asks.
CONNACK = b"\x20\x03\x00\x00\x00"
OLD = {"TLS 1.0": ssl.TLSVersion.TLSv1, "TLS 1.1": ssl.TLSVersion.TLSv1_1}


@pytest.fixture(scope="module")
def cas(tmp_path_factory):
    return {name: FleetCa(tmp_path_factory.mktemp("ca"), name) for name in ("own", "stranger")}


def context_for(fault, cas):
    """TLS of a broker that is wrong in one thing; None: it speaks none."""
    if fault == "none":
        return None
    ca = cas["stranger" if fault == "another CA" else "own"]
    days = (-9, -1) if fault == "over" else (2, 9) if fault == "not begun" else (-1, 5)
    names = ("broker.example",) if fault == "wrong SAN" else ("localhost",)
    issued = ca.issue(f"broker-{fault.replace(' ', '-')}", server=True, days=days, names=names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    if fault in OLD:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = OLD[fault]
    elif fault == "weak suite":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0")
    return context


@contextlib.contextmanager
def listening(context):
    """A broker that answers one connection; ``heard`` is what came after the handshake."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve():
            with contextlib.suppress(OSError):
                raw, _ = listener.accept()
                raw.settimeout(30)
                with raw, contextlib.suppress(OSError):
                    line = raw if context is None else context.wrap_socket(raw, server_side=True)
                    with line:
                        if context is None:
                            line.sendall(CONNACK)
                        while said := line.recv(4096):
                            heard.append(said)
                            line.sendall(CONNACK)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.close()
        thread.join(30)


@pytest.mark.parametrize(
    "fault",
    ["as it should be", "none", "TLS 1.0", "TLS 1.1", "weak suite", "another CA", "over", "not begun", "wrong SAN"],
)
def test_a_box_says_nothing_to_who_is_not_its_broker(fault, cas, tmp_path):
    with listening(context_for(fault, cas)) as (port, heard):
        identity = enrol(tmp_path / "fleet", Authority(), signing.generate("online"))
        identity.ca_path.write_bytes(cas["own"].path.read_bytes())
        transport = PahoTransport(identity, Broker(host="localhost", port=port), lambda: None)
        transport.connect(b"{}", ["scanside/v1/+/+/dn/+"])
        event = transport.events.get(timeout=30)
        transport.close(politely=False)
        transport.join(30)
    if fault == "as it should be":
        assert isinstance(event, Connected), "else this test would find fault with everybody"
        assert heard
        return
    assert isinstance(event, Disconnected)
    # Without TLS its hello and an alert are all that is heard, and those are no MQTT.
    assert [said for said in heard if said[:2] not in (b"\x16\x03", b"\x15\x03")] == []
