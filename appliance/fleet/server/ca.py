"""Who issues the certificates of boxes: a small CA of our own for development, or an installation of step-ca.

Both answer to ``CertAuthority``. What a request must be is one rule for all of them (``read_request``): P-256, signed
by its own key, and named as the server says.
"""

from __future__ import annotations

import ipaddress
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.errors import ApplianceError, ConfigError, TransientError
from engines.durable import write_private

#: A box whose clock is a little behind takes its certificate at once.
_BEFORE = timedelta(minutes=5)
_CA_LIFE = timedelta(days=3650)
_CRL_LIFE = timedelta(days=30)
_MOST_REQUEST_BYTES = 8 * 1024
#: It stands in every certificate, so that nobody takes such an installation for a finished one.
DEV_NAME = "Scanside DEVELOPMENT CA"


class RequestFault(ApplianceError):  # noqa: N818 - a fact about foreign bytes
    """A request for a certificate that nobody signs; the text says why."""


class AuthorityDown(TransientError):  # noqa: N818 - a state of a neighbour
    """The CA does not answer, or does not sign; try again later."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that no broker takes any more; ``serial`` in hex."""

    serial: str
    at: datetime


class CertAuthority(Protocol):
    """Signs for boxes, and says which certificates hold no more. May wait for a network."""

    def root(self) -> bytes:
        """What boxes and the broker trust, PEM."""
        ...

    def issue(self, request: x509.CertificateSigningRequest, device: str, days: int) -> bytes:
        """A certificate for a box, whose only name is the device id, with its chain below the root, PEM.

        Raises:
            AuthorityDown: It does not answer, or does not sign.
        """
        ...

    def crl(self, revoked: Sequence[Revoked], now: datetime) -> bytes:
        """The list of revoked certificates for the broker, PEM.

        Raises:
            AuthorityDown: It does not answer.
        """
        ...


def read_request(pem: bytes, device: str) -> x509.CertificateSigningRequest:
    """A request that may be signed for ``device``.

    Raises:
        RequestFault: It is none, of another kind of key, not signed by its own key, or names somebody else.
    """
    if len(pem) > _MOST_REQUEST_BYTES:
        raise RequestFault("the request is too large")
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        is_own = request.is_signature_valid
        # Read of a request that is whole alone: of others the library would warn in our log.
        names = [(attribute.oid, attribute.value) for attribute in request.subject] if is_own else []
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise RequestFault("no certificate request that can be read; send PKCS 10 in PEM form, EC P-256") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestFault("the key of a device is EC P-256")
    if not is_own:
        raise RequestFault("the request is not signed by its own key")
    if names != [(NameOID.COMMON_NAME, device)]:
        raise RequestFault(f"the request does not name {device} alone")
    return request


def spki(key: object) -> bytes:
    """The bytes of a public key, for comparing two."""
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - read_request and public_of let no other through
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def is_issued_by(chain_pem: bytes, root_pem: bytes) -> bool:
    """Whether a chain leads from its first certificate to the root; times and names are the caller's to check."""
    try:
        links = [*x509.load_pem_x509_certificates(chain_pem), x509.load_pem_x509_certificate(root_pem)]
        for below, above in itertools.pairwise(links):
            below.verify_directly_issued_by(above)
        # A box must not have issued another's.
        for above in links[1:]:
            if not above.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                return False
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return len(links) <= 5


class DevCa:
    """A CA whose key lies in a file beside the database: for development and demonstrations."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        """Use ``open``."""
        self._key = key
        self._certificate = certificate

    @classmethod
    def open(cls, folder: Path, now: datetime | None = None) -> DevCa:
        """Read it; the first time, make it.

        Raises:
            ConfigError: Key and certificate are there and do not belong together.
        """
        key_path, path = folder / "ca.key", folder / "ca.crt"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            cls._make(key_path, path, now or datetime.now(timezone.utc))
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{folder}: the CA cannot be read: {error}; put it back from a backup") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or spki(key.public_key()) != spki(certificate.public_key()):
            raise ConfigError(f"{folder}: ca.key is not the key of ca.crt; put both back from one backup")
        return cls(key, certificate)

    @staticmethod
    def _make(key_path: Path, path: Path, now: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{DEV_NAME} {secrets.token_hex(4)}")
        builder = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - _BEFORE)
            .not_valid_after(now + _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        write_private(key_path, _private_pem(key))
        write_private(path, _pem(builder.sign(key, hashes.SHA256())))

    def root(self) -> bytes:
        """Its own certificate, PEM."""
        return _pem(self._certificate)

    def issue(self, request: x509.CertificateSigningRequest, device: str, days: int) -> bytes:
        """A certificate for a box."""
        builder = self._builder(_name(device), request.public_key(), timedelta(days=days)).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        return _pem(builder.sign(self._key, hashes.SHA256()))

    def issue_server(self, names: Sequence[str], days: int) -> tuple[bytes, bytes]:
        """Key and certificate of a server that is reached under these names and addresses, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(names[0][:64]), key.public_key(), timedelta(days=days))
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        ).add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        return _private_pem(key), _pem(builder.sign(self._key, hashes.SHA256()))

    def crl(self, revoked: Sequence[Revoked], now: datetime) -> bytes:
        """The list, for 30 days: a broker that reads an older one refuses every box, loudly."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - _BEFORE)
            .next_update(now + _CRL_LIFE)
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        )
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16)).revocation_date(one.at)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _builder(self, name: x509.Name, key: object, life: timedelta) -> x509.CertificateBuilder:
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - read_request lets no other through
        now = datetime.now(timezone.utc)
        above = self._certificate.public_key()
        assert isinstance(above, ec.EllipticCurvePublicKey)  # noqa: S101 - open made sure
        return (
            x509.CertificateBuilder(self._certificate.subject, name, key, x509.random_serial_number())
            .not_valid_before(now - _BEFORE)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above), critical=False)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Of a box or server, which signs its handshakes; or of the CA, which signs certificates and lists."""
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
