"""The link against a real mosquitto over TLS with client certificates, with a server that acknowledges in the test."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import warnings
from types import SimpleNamespace

import pytest
from box_kit import box_config
from fleet_kit import SERVER, FleetCa, Mosquitto
from fleet_line_kit import Box, ServerStandIn
from fleet_link_kit import (
    TENANT,
    ConnectProxy,
    enrol_with,
)

from appliance.daemon import Daemon
from appliance.fleet.device.identity import Broker
from appliance.fleet.device.transport import Arrived, Connected, Disconnected, PahoTransport, Published
from appliance.fleet.keys import DeviceKey
from appliance.fleet.wire import Address, Down, Status, Up, unpack
from appliance.fleet.wire_records import Health
from engines import signing

#: mosquitto's own default: what it holds goes to disk every half hour. And a listener for WebSockets.
_DEFAULTS = "autosave_on_changes false\nautosave_interval 1800\n"
_WEB = (
    "listener {web} 127.0.0.1\nprotocol websockets\ncafile {{ca}}\ncertfile {{certificate}}\nkeyfile {{key}}\n"
    "require_certificate true\nuse_identity_as_username true\n"
)


@pytest.fixture(scope="module")
def broker(free_port):
    web_port = free_port()
    broker = Mosquitto(more=_DEFAULTS + _WEB.format(web=web_port))
    broker.web_port = web_port
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    """What a box takes seconds for; but on a busy machine its goodbye may take longer than it has."""
    monkeypatch.setattr("appliance.fleet.device.link._LOOK_AT_FILES_S", 0.1)
    monkeypatch.setattr("appliance.fleet.device.link._STOP_S", 30.0)


@pytest.fixture(scope="module")
def server_key():
    return signing.generate("online")


@pytest.fixture
def box_at(tmp_path, broker, server_key):
    made = []

    def make(**more):
        made.append(Box(tmp_path / f"box{len(made)}", broker, server_key, **more))
        return made[-1]

    yield make
    for box in made:
        with contextlib.suppress(Exception):
            box.stop(politely=False)


def said_of(server, address):
    """The statuses of one box, as they came: those of the tests before and their wills come as well."""
    return [Status.unpack(m.payload) for m in server.of(Up.STATUS) if m.topic == address.topic(Up.STATUS)]


@pytest.mark.req("R-FLEET-01", "R-FLEET-02")
def test_birth_rows_acknowledgement_and_a_graceful_end_over_mtls(box_at, broker, server_key, wait_until):
    box = box_at(device="box-birth-01")
    server = ServerStandIn(broker, server_key, box)
    try:
        told = box.tell(250)
        wait_until(lambda: box.cursor >= told[-1])
        assert sorted(seq for _, seq in server.rows) == told
        assert server.forged == 0
        wait_until(lambda: said_of(server, box.address))
        assert said_of(server, box.address)[0].online
        assert box.store.issues.open() == []
        box.stop()
        wait_until(lambda: said_of(server, box.address)[-1].why == "stop")
        assert not said_of(server, box.address)[-1].online
    finally:
        server.close()
    # Who comes later finds the last word, retained.
    late = broker.client(broker.server, f"{SERVER}.late", listen=[box.address.topic(Up.STATUS)])
    assert Status.unpack(late.inbox.get(timeout=30).payload).why == "stop"
    late.close()


@pytest.mark.req("R-FLEET-01")
def test_a_box_that_vanishes_leaves_its_last_will(tmp_path, broker, server_key, wait_until, monkeypatch):
    monkeypatch.setattr("appliance.fleet.device.transport.WILL_DELAY_S", 1)
    box = Box(tmp_path / "b", broker, server_key, device="box-will-001")
    try:
        wait_until(lambda: box.link.is_connected)
        server = ServerStandIn(broker, server_key, box)
        box.stop(politely=False)
        wait_until(lambda: any(one.why == "lwt" for one in said_of(server, box.address)))
        server.close()
    finally:
        box.stop(politely=False)


@pytest.mark.req("R-FLEET-03")
@pytest.mark.fault("T36")
def test_a_broker_that_is_killed_and_forgets_everything_loses_no_row(
    box_at, broker, server_key, wait_until, monkeypatch
):
    # What was sent while nobody listened goes again, though the broker answered for it: after ten seconds else.
    monkeypatch.setattr("appliance.fleet.device.outbox._RESEND_S", 0.2)
    box = box_at(device="box-kill-001")
    server = ServerStandIn(broker, server_key, box, acks=False)
    told = box.tell(300)
    wait_until(lambda: len(set(server.batches)) >= 3)
    assert box.cursor == 0  # the broker has answered for all of it; the server has not
    server.close()
    for _ in range(2):
        broker.kill()
        for kept in broker.folder.glob("mosquitto.db*"):
            kept.unlink()
        wait_until(lambda: not box.link.is_connected)
        told += box.tell(60)
        broker.start()
        wait_until(lambda: box.link.is_connected)
    server = ServerStandIn(broker, server_key, box)
    try:
        wait_until(lambda: box.cursor >= told[-1], 60)
        assert sorted(seq for _, seq in server.rows) == told
        assert box.store.fleet.place().batches == ()
    finally:
        server.close()


@pytest.mark.req("R-FLEET-03")
@pytest.mark.fault("T36")
def test_a_slow_server_whose_broker_drops_what_it_took_gets_every_row(tmp_path, server_key, wait_until, monkeypatch):
    monkeypatch.setattr("appliance.fleet.device.outbox._RESEND_S", 0.2)
    small = Mosquitto(more="max_inflight_messages 2\nmax_queued_messages 3\n").start()
    box = Box(tmp_path / "b", small, server_key, device="box-slow-001")
    go_on = threading.Event()
    server = ServerStandIn(small, server_key, box)
    take = server.client.client.on_message

    def slowly(*given):
        go_on.wait(60)
        take(*given)

    server.client.client.on_message = slowly
    try:
        told = box.tell(1500)
        outbox = box.link._talk._outbox
        # The broker has said of all fifteen batches that it has them; most of them it has thrown away.
        wait_until(lambda: sum(flight.taken for flight in list(outbox._flights.values())) >= 15)
        assert box.cursor == 0
        go_on.set()
        wait_until(lambda: box.cursor >= told[-1], 60)
        assert sorted(seq for _, seq in server.rows) == told
        wait_until(lambda: not outbox._flights)  # a moment after the cursor has moved
        assert "exceed" in (small.folder / "log").read_text() or len(set(server.batches)) == len(outbox._flights) + 15
    finally:
        go_on.set()
        server.close()
        box.stop(politely=False)
        small.close()


@pytest.mark.req("R-FLEET-06")
def test_a_broker_that_refuses_rows_is_an_issue_and_not_a_loop(box_at, broker, server_key, wait_until):
    acl = broker.folder / "acl"
    before = acl.read_text()
    acl.write_text(before.replace("pattern write scanside/v1/+/%u/up/#", "pattern write scanside/v1/+/%u/up/status"))
    broker.kill()
    broker.start()
    try:
        box = box_at(device="box-denied-1")
        box.tell(3)
        wait_until(lambda: "FLEET_REFUSED" in {issue.code for issue in box.store.issues.open()})
        subjects = {issue.subject for issue in box.store.issues.open() if issue.code == "FLEET_REFUSED"}
        assert subjects & {"up/rec", "up/get", "up/health"}
        assert box.cursor == 0
        sessions = int(box.store.fleet.state("sess"))
        assert sessions < 50  # each is one attempt; the tests' chance makes waits short
    finally:
        acl.write_text(before)
        broker.kill()
        broker.start()


@pytest.mark.req("R-FLEET-05")
def test_two_boxes_with_one_identity_throw_each_other_out_until_one_waits(box_at, broker, server_key, wait_until):
    one = box_at(device="box-twice-01")
    wait_until(lambda: one.link.is_connected)
    other = box_at(device="box-twice-01")
    wait_until(
        lambda: any(issue.code == "FLEET_IDENTITY_TWICE" for box in (one, other) for issue in box.store.issues.open()),
        120,  # they meet three times, each time after a handshake of TLS
    )


@pytest.mark.req("R-FLEET-08")
@pytest.mark.parametrize("kind", ["tls", "wss", "alpn"])
def test_every_way_to_the_broker_leads_there_through_a_proxy_that_wants_a_password(
    kind, tmp_path, broker, server_key, wait_until
):
    proxy = ConnectProxy(credentials="box:se cret")
    port = broker.web_port if kind == "wss" else broker.port
    url = proxy.url.replace("http://", "http://box:se%20cret@")
    box = Box(
        tmp_path / "b",
        broker,
        server_key,
        device=f"box-{kind}-0001",
        ways=[Broker(kind=kind, host="localhost", port=port)],
        proxy_url=None,
    )
    box.stop()
    heard = []
    transport = PahoTransport(box.identity, box.identity.enrolment.brokers[0], lambda: None, proxy_url=url)
    try:
        transport.connect(b"{}", [f"scanside/v1/{TENANT}/{box.address.device}/dn/+"])
        heard.append(transport.events.get(timeout=30))
        assert isinstance(heard[0], Connected)
        token = transport.publish(box.address.topic(Up.STATUS), b"{}", properties={"schema": "status/1"})
        assert transport.events.get(timeout=30) == Published(token)
        server = broker.client(broker.server, SERVER)
        server.publish(box.address.topic(Down.ACK), b"hello", {"ce": "x"})
        assert transport.events.get(timeout=30) == Arrived(box.address.topic(Down.ACK), b"hello", {"ce": "x"})
        server.close()
    finally:
        transport.close()
        transport.join(20)
        proxy.close()
    assert transport.events.get(timeout=30) == Disconnected("closed")
    assert [head[0] for head in proxy.asked] == [f"CONNECT localhost:{port} HTTP/1.1"]


@pytest.mark.req("R-FLEET-08")
def test_the_link_goes_through_the_proxy_of_the_configuration(box_at, wait_until):
    proxy = ConnectProxy()
    try:
        box = box_at(device="box-proxy-01", proxy_url=proxy.url)
        wait_until(lambda: box.link.is_connected)
        assert len(proxy.asked) == int(box.store.fleet.state("sess")), "no connection went past it"
        box.stop()
    finally:
        proxy.close()


@pytest.mark.req("R-FLEET-09")
def test_a_renewed_certificate_is_used_without_a_restart_of_the_box(box_at, broker, server_key, wait_until):
    box = box_at(device="box-renew-01")
    wait_until(lambda: box.link.is_connected)
    before = int(box.store.fleet.state("sess"))
    fresh = DeviceKey.generate()
    box.identity.renew(fresh, broker.ca.issue("box-renew-01", key=fresh).pem.encode())
    old, box.key = box.key, fresh
    wait_until(lambda: int(box.store.fleet.state("sess")) > before and box.link.is_connected)
    server = ServerStandIn(broker, server_key, box)
    told = box.tell(3)
    wait_until(lambda: box.cursor >= told[-1])
    assert server.forged == 0
    assert old is not fresh
    assert not (box.identity.folder / "before").exists()
    server.close()


@pytest.mark.req("R-FLEET-01", "R-FLEET-02")
def test_a_whole_box_reports_its_start_and_how_it_fares(tmp_path, broker, server_key, wait_until):
    device, key, state = "box-whole-01", DeviceKey.generate(), tmp_path / "state"
    chain = broker.ca.issue(device, key=key).pem.encode()
    ways = [Broker(host="localhost", port=broker.port)]
    enrol_with(state / "fleet", key, chain, broker.ca.path.read_bytes(), server_key, ways, device=device)
    config = box_config(state, packages=(), fleet={"backlog_rows": 1000}, triage={"spawn_worker": False})
    stand_in = SimpleNamespace(key=key, address=Address(TENANT, device))
    server = ServerStandIn(broker, server_key, stand_in)
    daemon = Daemon(config, fleet_within_s=0)
    daemon.start()
    try:
        wait_until(lambda: any(record.d.k == "daemon" for record in server.records))
        wait_until(lambda: server.of(Up.HEALTH))
        wait_until(lambda: daemon.store.journal.cursor("fleet") > 0)
        told = next(m for name, m, _ in server.seen if name == Up.HEALTH)
        packed = dict(getattr(told.properties, "UserProperty", ())).get("ce") == "gzip"
        assert unpack(Health, told.payload, packed=packed).mode == "evaluation"
        assert "FLEET" not in " ".join(issue.code for issue in daemon.store.issues.open())
    finally:
        daemon.stop()
        wait_until(lambda: said_of(server, stand_in.address)[-1].why == "stop")
        server.close()


@pytest.mark.fault("T43")
@pytest.mark.req("R-FLEET-08")
@pytest.mark.parametrize("fault", ["stranger's broker", "stranger's box", "another name", "old protocol"])
def test_a_link_that_is_not_safe_is_no_link(fault, tmp_path, broker, server_key):
    stranger = FleetCa(tmp_path, "stranger")
    key = DeviceKey.generate()
    issuer = stranger if fault == "stranger's box" else broker.ca
    ca = stranger.path if fault == "stranger's broker" else broker.ca.path
    host = "127.0.0.2" if fault == "another name" else "localhost"
    port, closing = broker.port, contextlib.nullcontext()
    if fault == "old protocol":
        listener, port = old_server(tmp_path, broker.ca)
        closing = contextlib.closing(listener)
    chain = issuer.issue("box-unsafe-1", key=key).pem.encode()
    identity = enrol_with(
        tmp_path / "f", key, chain, ca.read_bytes(), server_key, [Broker(host=host, port=port)], device="box-unsafe-1"
    )
    transport = PahoTransport(identity, identity.enrolment.brokers[0], lambda: None)
    with closing:
        transport.connect(b"{}", ["scanside/v1/+/+/dn/+"])
        event = transport.events.get(timeout=30)
    assert isinstance(event, Disconnected)
    # TLS 1.3 tells a client that it is not wanted only after its handshake. 127.0.0.2: nobody listens there.
    assert event.why in {"tls", "lost", "unreachable"}
    transport.join(20)


def old_server(folder, ca):
    """Somebody who speaks nothing newer than TLS 1.1."""
    issued = ca.issue("localhost", server=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            line, _ = listener.accept()
            with contextlib.suppress(OSError), line:
                line.settimeout(20)
                context.wrap_socket(line, server_side=True)

    threading.Thread(target=serve, daemon=True).start()
    return listener, listener.getsockname()[1]
