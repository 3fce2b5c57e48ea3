"""T43 on the DICOM listener: whoever is not allowed to speak TLS with us, or to bear that title, gets no association.

Revocation is checked by the CRL that stands in the CA's file; the box asks nobody over the network (OCSP).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
import warnings

import pytest
from scp_kit import RawPeer, running_scp
from tls_kit import Authority

from appliance.deliver.wire import associate_request
from appliance.dicom import pdus
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from appliance.intake.contract import TlsSettings

pytestmark = [pytest.mark.fault("T43"), pytest.mark.req("R-INTAKE-06")]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("hospital"), "hospital")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger", number=1)


def settings(hospital, **more):
    box = hospital.issue("box")
    fields = {"certificate_path": box.certificate, "key_path": box.key, "client_ca_path": hospital.path}
    return TlsSettings(**{**fields, **more})


def client(pair=None, *, versions=None, ciphers=""):
    """A scanner that trusts everybody: what it is refused for is its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    if ciphers:
        context.set_ciphers(ciphers)
    if versions is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version, context.maximum_version = versions
    return context


def associates(port, context, calling="CT1"):
    """Whether an association comes about: (kind of the PDU that answers, version of TLS), or None."""
    request = associate_request("SCANSIDE", calling, [(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)], 16384)
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), 60) as plain,
        context.wrap_socket(plain) as secured,
    ):
        secured.sendall(request)
        head = secured.recv(6)
        if len(head) == 6:
            return struct.unpack(">BxL", head)[0], secured.version()
    return None


TLS12 = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
TLS13 = (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)


@pytest.mark.parametrize(("versions", "name"), [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")])
def test_a_scanner_with_a_good_certificate_is_served_by_tls_of_today(tmp_path, hospital, versions, name):
    with running_scp(tmp_path, tls=settings(hospital)) as box:
        assert associates(box.port, client(hospital.issue("CT1"), versions=versions)) == (pdus.ASSOCIATE_AC, name)


@pytest.mark.parametrize("fault", ["none", "expired", "future", "stranger", "self-signed"])
def test_a_bad_certificate_or_none_is_refused_and_recorded(tmp_path, hospital, stranger, fault):
    pair = {
        "none": lambda: None,
        "expired": lambda: hospital.issue("CT1", days=(-9, -2), tag="-expired"),
        "future": lambda: hospital.issue("CT1", days=(2, 9), tag="-future"),
        "stranger": lambda: stranger.issue("CT1"),
        # Claims the name of the hospital's own CA.
        "self-signed": lambda: Authority(tmp_path, "hospital", number=2).issue("CT1"),
    }[fault]()
    with running_scp(tmp_path, tls=settings(hospital)) as box:
        assert associates(box.port, client(pair)) is None
        box.sink.wait_for(lambda sink: sink.refusals)
        assert "client certificate" in box.sink.refusals[0].message
        assert box.sink.opened == []


def test_a_revoked_certificate_is_refused_where_the_ca_file_holds_the_crl(tmp_path, hospital):
    bad, good = hospital.issue("CT1", tag="-revoked"), hospital.issue("CT1", tag="-good")
    with running_scp(tmp_path, tls=settings(hospital, client_ca_path=hospital.with_crl(bad.serial))) as box:
        assert associates(box.port, client(bad)) is None
        box.sink.wait_for(lambda sink: sink.refusals)
        assert associates(box.port, client(good))[0] == pdus.ASSOCIATE_AC


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_tls_before_1_2_is_refused(tmp_path, hospital, version):
    old = client(hospital.issue("CT1"), versions=(version, version), ciphers="DEFAULT:@SECLEVEL=0")
    with running_scp(tmp_path, tls=settings(hospital)) as box:
        assert associates(box.port, old) is None
        box.sink.wait_for(lambda sink: sink.refusals)
        assert box.sink.opened == []


@pytest.mark.parametrize(
    "suite",
    [
        "AES128-SHA",  # no forward secrecy, CBC
        "AES256-GCM-SHA384",  # no forward secrecy
        "ECDHE-RSA-AES128-SHA",  # CBC with SHA-1
        "ECDHE-RSA-AES256-SHA384",  # CBC
        "AECDH-AES128-SHA",  # nobody proves anything
        "NULL-SHA256",  # not even encrypted
    ],
)
def test_a_weak_suite_is_refused(tmp_path, hospital, suite):
    weak = client(hospital.issue("CT1"), versions=TLS12, ciphers=f"{suite}:@SECLEVEL=0")
    with running_scp(tmp_path, tls=settings(hospital)) as box:
        assert associates(box.port, weak) is None
        box.sink.wait_for(lambda sink: sink.refusals)
        assert box.sink.opened == []


def test_a_good_certificate_of_another_scanner_does_not_lend_its_title(tmp_path, hospital):
    with running_scp(tmp_path, tls=settings(hospital, ae_in_certificate=True)) as box:
        by_san = hospital.issue("device-7", names=("CT1",), addresses=(), tag="-san")
        assert associates(box.port, client(by_san))[0] == pdus.ASSOCIATE_AC
        other = hospital.issue("DX9", names=("DX9",), addresses=(), tag="-other")
        assert associates(box.port, client(other), "CT1")[0] == pdus.ASSOCIATE_RJ
        # A name that only begins alike is another name.
        alike = hospital.issue("CT10", names=("CT1.example",), addresses=(), tag="-alike")
        assert associates(box.port, client(alike), "CT1")[0] == pdus.ASSOCIATE_RJ
        box.sink.wait_for(lambda sink: len(sink.refusals) == 2)


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + bytes(64),
        b"\x80\x2e\x01\x00\x02",  # SSLv2
        b"\x16\x03\x01\x00\x01\x01",
        bytes(6),
    ],
    ids=["http", "huge record", "sslv2", "cut hello", "zeros"],
)
def test_what_is_no_handshake_is_ended_and_the_next_scanner_is_served(tmp_path, hospital, hello):
    with running_scp(tmp_path, tls=settings(hospital)) as box:
        with socket.create_connection(("127.0.0.1", box.port), 60) as raw:
            try:
                raw.sendall(hello)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(4096):
                    pass
            except OSError as error:  # the box may hang up before we do; a silence of a minute is a failure
                if error.errno not in {errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE}:
                    raise
        assert associates(box.port, client(hospital.issue("CT1")))[0] == pdus.ASSOCIATE_AC


def test_plain_dicom_gets_no_answer_that_tells_anything(tmp_path, hospital):
    with running_scp(tmp_path, tls=settings(hospital)) as box, RawPeer(box.port) as peer:
        answer = peer.associate()
        assert answer is None or answer[0] != pdus.ASSOCIATE_AC
        box.sink.wait_for(lambda sink: sink.refusals)
        assert box.sink.opened == []
