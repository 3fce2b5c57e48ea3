"""The key of a device: ECDSA P-256, in the certificate that opens the broker and under every batch that it sends.

A hostile broker could otherwise forge a healthy box and open the gate of a roll-out. What the server sends is signed
with Ed25519 in DSSE envelopes (``engines.signing``).
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.errors import ApplianceError
from engines.durable import write_private
from engines.signing import pre_authentication_encoding

_ALGORITHM = ec.ECDSA(hashes.SHA256())


class KeyFault(ApplianceError):  # noqa: N818 - a fact about a file, not a failure of the caller
    """A key, a certificate or a signature that does not hold; the text says which and how to mend it."""


class DeviceKey:
    """A private key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Use ``generate`` or ``load``."""
        self._key = key

    @classmethod
    def generate(cls) -> DeviceKey:
        """A new one."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path) -> DeviceKey:
        """Read one.

        Raises:
            KeyFault: There is none, or it is another kind of key.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise KeyFault(f"{path}: no private key of this device; enrol it anew: scanside fleet enrol") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise KeyFault(f"{path}: not an EC key; enrol the device anew: scanside fleet enrol")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write it for its owner alone, on disk for good."""
        form = serialization.PrivateFormat.PKCS8
        pem = self._key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        write_private(path, pem)

    def csr(self, device: str) -> bytes:
        """A request for a certificate (PKCS 10, PEM) whose common name is the device id."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self._key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM)

    def fits(self, public: ec.EllipticCurvePublicKey) -> bool:
        """Whether it is the private half of that key."""
        return self._key.public_key().public_numbers() == public.public_numbers()

    def sign(self, kind: str, payload: bytes) -> str:
        """A detached signature over what it is (a topic) and its bytes, in base64."""
        return base64.b64encode(self._key.sign(pre_authentication_encoding(kind, payload), _ALGORITHM)).decode()


def public_of(certificate_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a certificate.

    Raises:
        KeyFault: It is no certificate, or of another kind of key.
    """
    try:
        key = x509.load_pem_x509_certificate(certificate_pem).public_key()
    except ValueError as error:
        raise KeyFault("no certificate in PEM form") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise KeyFault("the certificate is not of an EC key")
    return key


def holds(key: ec.EllipticCurvePublicKey, kind: str, payload: bytes, signature: str) -> bool:
    """Whether ``DeviceKey.sign`` of that key made the signature."""
    try:
        key.verify(base64.b64decode(signature, validate=True), pre_authentication_encoding(kind, payload), _ALGORITHM)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
