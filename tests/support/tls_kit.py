"""Certificate authorities of a test, and certificates with every fault that one can have."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import ipaddress
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

_NOW = dt.datetime.now(dt.timezone.utc)
_DAY = dt.timedelta(days=1)


@functools.lru_cache(maxsize=8)
def _key(number):
    """RSA, as DCMTK's suites want it; making one takes time, so tests share a few."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path
    serial: int


@dataclass
class Authority:
    """A CA; ``path`` is its certificate."""

    folder: Path
    name: str
    number: int = 0
    _revoked: list[int] = field(default_factory=list)

    def __post_init__(self):
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self._key = _key(self.number)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._subject)
            .issuer_name(self._subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW - 30 * _DAY)
            .not_valid_after(_NOW + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.path = self.folder / f"{self.name}.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name, *, names=("localhost",), addresses=("127.0.0.1",), days=(-1, 2), key=10, tag=""):
        """A certificate for ``name``, valid from and to so many days from now."""
        own = _key(key)
        san = [x509.DNSName(text) for text in names]
        san += [x509.IPAddress(ipaddress.ip_address(text)) for text in addresses]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW + days[0] * _DAY)
            .not_valid_after(_NOW + days[1] * _DAY)
        )
        if san:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = f"{self.name}-{name}{tag}"
        pair = Pair(self.folder / f"{stem}.pem", self.folder / f"{stem}.key", certificate.serial_number)
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pair

    def with_crl(self, *serials):
        """A file with the CA's certificate and a CRL that revokes these."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._subject)
            .last_update(_NOW - _DAY)
            .next_update(_NOW + 2 * _DAY)
        )
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_NOW - _DAY).build()
            builder = builder.add_revoked_certificate(revoked)
        crl = builder.sign(self._key, hashes.SHA256())
        path = self.folder / f"{self.name}-crl.pem"
        path.write_bytes(self.path.read_bytes() + crl.public_bytes(serialization.Encoding.PEM))
        return path


def server_side(pair, *, client_ca=None, versions=None, ciphers=""):
    """The context of a server in a test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    if ciphers:
        context.set_ciphers(ciphers)
    if versions is not None:
        context.minimum_version, context.maximum_version = versions
    return context


@contextlib.contextmanager
def tls_front(context, port):
    """A proxy that ends TLS before a server on loopback, as sites have one; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            start(serve, connection)

    def start(target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        threads.append(thread)
        thread.start()

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(60)
            with (
                context.wrap_socket(connection, server_side=True) as outside,
                socket.create_connection(("127.0.0.1", port)) as inside,
            ):
                back = threading.Thread(target=pump, args=(inside, outside), daemon=True)
                back.start()
                pump(outside, inside)
                back.join(60)

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sink, socket.SHUT_RDWR)

    start(accept)
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(60)
