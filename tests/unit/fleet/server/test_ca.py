"""Who signs for whom: requests that no CA signs, what stands in a certificate, the list of revoked ones, step-ca."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ConfigError
from appliance.fleet.keys import DeviceKey
from appliance.fleet.server.ca import DEV_NAME, AuthorityDown, DevCa, RequestFault, Revoked, is_issued_by, read_request
from appliance.fleet.server.step_ca import Provisioner, StepCa

pytestmark = pytest.mark.req("R-FLEET-20")

BOX = "box-aaaaaaaaaaaaaaaa"
PEM = serialization.Encoding.PEM
NOW = dt.datetime.now(dt.timezone.utc)


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return DevCa.open(tmp_path_factory.mktemp("ca"))


def csr(key, *names):
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in names])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm).public_bytes(PEM)


def resigned(pem, old, new):
    """The same request with other bytes in it, under the signature of before."""
    der = x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    assert old in der
    text = base64.encodebytes(der.replace(old, new)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n".encode()


CN = NameOID.COMMON_NAME


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (csr(rsa.generate_private_key(public_exponent=65537, key_size=2048), (CN, BOX)), "P-256"),
        (csr(ec.generate_private_key(ec.SECP384R1()), (CN, BOX)), "P-256"),
        (csr(ed25519.Ed25519PrivateKey.generate(), (CN, BOX)), "P-256"),
        (DeviceKey.generate().csr("box-bbbbbbbbbbbbbbbb"), "does not name"),
        (csr(ec.generate_private_key(ec.SECP256R1())), "does not name"),
        (csr(ec.generate_private_key(ec.SECP256R1()), (CN, BOX), (CN, "box-bbbbbbbbbbbbbbbb")), "does not name"),
        (csr(ec.generate_private_key(ec.SECP256R1()), (CN, BOX), (NameOID.ORGANIZATION_NAME, "x")), "does not name"),
        (resigned(DeviceKey.generate().csr("box-bbbbbbbbbbbbbbbb"), b"box-b", b"box-a"), "own key"),
        (
            resigned(DeviceKey.generate().csr(BOX), b"\x55\x04\x03", b"\x55\x04\x06"),
            "own key",
        ),  # a country of 20 letters
        (b"x" * 9000, "too large"),
    ],
)
def test_what_is_not_p256_signed_by_itself_and_named_as_the_server_says_is_signed_by_nobody(pem, why):
    with pytest.raises(RequestFault, match=why):
        read_request(pem, BOX)


@given(st.binary(max_size=600), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_for_a_request_are_a_fault_and_never_a_crash(noise, at, byte):
    pem = DeviceKey.generate().csr(BOX)
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[at % len(der)] ^= byte or 1
    head, tail = b"-----BEGIN CERTIFICATE REQUEST-----\n", b"-----END CERTIFICATE REQUEST-----\n"
    for body in (noise, bytes(der)):
        with pytest.raises(RequestFault):
            read_request(head + base64.encodebytes(body) + tail, BOX)


def test_a_certificate_is_for_this_box_alone_for_90_days_and_for_clients(ca):
    key = DeviceKey.generate()
    found = x509.load_pem_x509_certificate(ca.issue(read_request(key.csr(BOX), BOX), BOX, 90))
    assert [(name.oid, name.value) for name in found.subject] == [(CN, BOX)]
    assert key.fits(found.public_key())
    life = found.not_valid_after_utc - found.not_valid_before_utc
    assert dt.timedelta(days=90) <= life <= dt.timedelta(days=90, minutes=10)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert is_issued_by(found.public_bytes(PEM), ca.root())


def test_the_built_in_ca_says_in_every_certificate_that_it_is_for_development(ca):
    found = x509.load_pem_x509_certificate(ca.issue(read_request(DeviceKey.generate().csr(BOX), BOX), BOX, 90))
    assert DEV_NAME in found.issuer.rfc4514_string()
    assert "DEVELOPMENT" in DEV_NAME


def test_the_ca_is_the_same_after_a_restart_and_its_key_is_its_owners_alone(tmp_path):
    first = DevCa.open(tmp_path)
    assert DevCa.open(tmp_path).root() == first.root()
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0
    other = tmp_path / "other"
    DevCa.open(other)
    (tmp_path / "ca.key").write_bytes((other / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match="not the key"):
        DevCa.open(tmp_path)


def test_neither_another_ca_nor_a_box_can_issue(ca, tmp_path):
    stranger = DevCa.open(tmp_path)
    forged = stranger.issue(read_request(DeviceKey.generate().csr(BOX), BOX), BOX, 90)
    assert not is_issued_by(forged, ca.root())
    box = DeviceKey.generate()
    chain = ca.issue(read_request(box.csr("box-bbbbbbbbbbbbbbbb"), "box-bbbbbbbbbbbbbbbb"), "box-bbbbbbbbbbbbbbbb", 90)
    leaf = x509.load_pem_x509_certificate(chain)
    by_a_box = DevCa(box._key, leaf).issue(read_request(DeviceKey.generate().csr(BOX), BOX), BOX, 90)
    assert not is_issued_by(by_a_box + chain, ca.root())
    assert not is_issued_by(b"no certificate", ca.root())


def test_the_list_names_who_is_revoked_and_no_other(ca):
    found = x509.load_pem_x509_crl(ca.crl([Revoked("ab12", NOW), Revoked("7", NOW)], NOW))
    assert {entry.serial_number for entry in found} == {0xAB12, 7}
    assert found.is_signature_valid(x509.load_pem_x509_certificate(ca.root()).public_key())
    assert found.next_update_utc > NOW + dt.timedelta(days=29)


# step-ca -------------------------------------------------------------------------------------------------------------


class FakeStep(BaseHTTPRequestHandler):
    """Of step-ca's API what ``StepCa`` calls; checks the token as step-ca does."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        claims = self._claims(asked["ott"])
        if claims is None or claims["aud"] != f"{self.server.url}{self.path}":
            return self._say(401, {"status": 401})
        if self.path == "/1.0/sign":
            request = x509.load_pem_x509_csr(asked["csr"].encode())
            assert claims["sans"] == [claims["sub"]] == [request.subject.rfc4514_string().removeprefix("CN=")]
            assert asked["notAfter"] == "2160h"
            leaf = self.server.ca.issue(request, claims["sub"], 90).decode()
            root = self.server.ca.root().decode()
            return self._say(201, {"crt": leaf, "ca": root, "certChain": [leaf, root]})
        assert claims["sub"] == asked["serial"]
        if asked["serial"] in self.server.revoked:
            return self._say(400, {"status": 400})
        self.server.revoked.append(asked["serial"])
        return self._say(200, {"status": "ok"})

    def do_GET(self):
        rows = [Revoked(f"{int(serial):x}", NOW) for serial in self.server.revoked]
        crl = x509.load_pem_x509_crl(self.server.ca.crl(rows, NOW))
        self._say(200, crl.public_bytes(serialization.Encoding.DER))

    def _claims(self, token):
        head, body, signature = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        told = token.rpartition(".")[0].encode()
        self.server.provisioner.public_key().verify(encode_dss_signature(r, s), told, ec.ECDSA(hashes.SHA256()))
        claims = json.loads(body)
        root = x509.load_pem_x509_certificate(self.server.ca.root())
        known = json.loads(head) == {"alg": "ES256", "kid": "kid-1", "typ": "JWT"} and claims["iss"] == "fleet"
        fresh = claims["jti"] not in self.server.seen and claims["nbf"] <= time.time() < claims["exp"]
        self.server.seen.add(claims["jti"])
        return claims if known and fresh and claims["sha"] == root.fingerprint(hashes.SHA256()).hex() else None

    def _say(self, status, document):
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def step(tmp_path):
    ca = DevCa.open(tmp_path / "step")
    key, certificate = ca.issue_server(("127.0.0.1",), 2)
    (tmp_path / "pair.pem").write_bytes(key + certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeStep)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.ca, server.revoked, server.seen = ca, [], set()
    server.provisioner = ec.generate_private_key(ec.SECP256R1())
    server.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def jwk(key, path):
    numbers = key.private_numbers()
    parts = {"x": numbers.public_numbers.x, "y": numbers.public_numbers.y, "d": numbers.private_value}
    told = {name: base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for name, n in parts.items()}
    path.write_text(json.dumps({"use": "sig", "kty": "EC", "kid": "kid-1", "crv": "P-256", "alg": "ES256", **told}))
    return path


@pytest.fixture
def client(step, tmp_path):
    provisioner = Provisioner.load("fleet", jwk(step.provisioner, tmp_path / "jwk.json"))
    return StepCa(step.url, tmp_path / "step" / "ca.crt", provisioner)


def test_step_ca_issues_revokes_and_lists(client, step, tmp_path):
    key = DeviceKey.generate()
    chain = client.issue(read_request(key.csr(BOX), BOX), BOX, 90)
    assert is_issued_by(chain, client.root())
    assert chain.count(b"BEGIN") == 1  # the root is the box's already
    serial = f"{x509.load_pem_x509_certificate(chain).serial_number:x}"
    for _ in range(2):
        found = x509.load_pem_x509_crl(client.crl([Revoked(serial, NOW)], NOW))
        assert [f"{entry.serial_number:x}" for entry in found] == [serial]
    assert len(step.revoked) == 1
    again = StepCa(step.url, tmp_path / "step" / "ca.crt", client._provisioner)  # after a restart it tells it anew
    assert len(list(x509.load_pem_x509_crl(again.crl([Revoked(serial, NOW)], NOW)))) == 1


def test_a_step_ca_that_is_away_or_refuses_is_said_to_be_so_and_nothing_is_issued(client, step, tmp_path):
    request = read_request(DeviceKey.generate().csr(BOX), BOX)
    other = Provisioner("somebody", "kid-1", client._provisioner.key)
    refused = StepCa(step.url, tmp_path / "step" / "ca.crt", other)
    with pytest.raises(AuthorityDown, match="401"):
        refused.issue(request, BOX, 90)
    away = StepCa("https://127.0.0.1:9", tmp_path / "step" / "ca.crt", other)
    with pytest.raises(AuthorityDown, match="does not answer"):
        away.issue(request, BOX, 90)
    stranger = DevCa.open(tmp_path / "stranger")
    step.ca = stranger
    with pytest.raises(AuthorityDown):
        client.issue(request, BOX, 90)


def test_a_provisioner_key_that_is_none_is_told_with_its_file(tmp_path):
    path = tmp_path / "jwk.json"
    path.write_text(json.dumps({"kty": "RSA", "n": hashlib.sha256().hexdigest()}))
    with pytest.raises(ConfigError, match=r"jwk\.json.*step crypto jwk decrypt"):
        Provisioner.load("fleet", path)
