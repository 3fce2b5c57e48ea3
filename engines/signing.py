"""Signed bytes: DSSE v1 envelopes (github.com/secure-systems-lab/dsse) with Ed25519 (RFC 8032). Nothing else.

One file for packages and for jobs. The rules:
- what is signed is the payload's type and its bytes, never a re-written form of them; the caller parses only what
  ``verify`` returned;
- a key id is a hint and proves nothing; a threshold counts different keys, not signatures;
- an envelope is small, its JSON is strict (no key twice), and whatever is wrong with it is a ``SignatureError``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engines.errors import SignatureError

MAX_ENVELOPE_BYTES = 1024 * 1024
_MAX_SIGNATURES = 16
_MAX_KEY_BYTES = 16 * 1024
_OTHERS_MAY_READ = 0o077


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that somebody trusts.

    Attributes:
        name: What people call it; proves nothing.
        raw: The 32 bytes of RFC 8032.
    """

    name: str
    raw: bytes

    @property
    def keyid(self) -> str:
        """First 16 hex digits of the SHA-256 of ``raw``."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def pem(self) -> str:
        """As PEM (SubjectPublicKeyInfo), which ``load_public`` reads."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return key.public_bytes(serialization.Encoding.PEM, form).decode()


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that signs. ``raw`` is the secret: 32 bytes, never shown by ``repr``."""

    name: str
    raw: bytes = field(repr=False)
    #: What others need to trust it.
    public: PublicKey = field(init=False, repr=False, compare=False)
    # Kept, as making it from ``raw`` costs more than a signature, and a fleet server signs thousands a second.
    _key: Ed25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the key."""
        key = Ed25519PrivateKey.from_private_bytes(self.raw)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "public", PublicKey(self.name, key.public_key().public_bytes_raw()))

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of a signature."""
        return self._key.sign(message)

    def pem(self) -> str:
        """As PEM (PKCS 8, not encrypted), which ``load_private`` reads."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


@dataclass(frozen=True, slots=True)
class Verified:
    """The bytes that were signed, and the ids of the trusted keys that signed them, sorted."""

    payload: bytes
    keyids: tuple[str, ...]


def generate(name: str = "") -> PrivateKey:
    """Make a new key."""
    return PrivateKey(name, Ed25519PrivateKey.generate().private_bytes_raw())


def load_public(source: Path | str, name: str = "") -> PublicKey:
    """Read a public key.

    Args:
        source: A PEM file, or the PEM text itself.
        name: What people call it; a file's stem where it is empty.

    Raises:
        SignatureError: There is no file, or it holds no Ed25519 public key.
    """
    text, shown = _pem(source)
    if b"PRIVATE KEY" in text:
        raise SignatureError(f"{shown} is a private key; trust its public half, and keep this file away from boxes")
    try:
        key = serialization.load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{shown} is no public key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{shown} is no Ed25519 key; 'scanside model sign --new-key FILE' makes one")
    return PublicKey(name or (source.stem if isinstance(source, Path) else ""), key.public_bytes_raw())


def load_private(path: Path) -> PrivateKey:
    """Read a private key, which only its owner may be able to read.

    Raises:
        SignatureError: There is no file, others may read it, or it holds no Ed25519 private key without a passphrase.
    """
    text, shown = _pem(path)
    if path.stat().st_mode & _OTHERS_MAY_READ:
        raise SignatureError(f"{shown} can be read by others; call 'chmod 600 {shown}', and make a new key if it left")
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{shown} is no private key in PEM form without a passphrase: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{shown} is no Ed25519 key; 'scanside model sign --new-key FILE' makes one")
    return PrivateKey(path.stem, key.private_bytes_raw())


def sign(payload_type: str, payload: bytes, keys: Sequence[PrivateKey]) -> bytes:
    """Put bytes into an envelope, signed by every key.

    Args:
        payload_type: Media type; part of what is signed, so that an envelope of one kind never passes for another.
        payload: Any bytes.
        keys: At least one.
    """
    if not keys:
        raise SignatureError("nothing was signed: no key was given")
    message = pre_authentication_encoding(payload_type, payload)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [
            {"keyid": key.public.keyid, "sig": base64.b64encode(key.sign(message)).decode()} for key in keys
        ],
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"


def add_signature(envelope: bytes, payload_type: str, key: PrivateKey) -> bytes:
    """Sign what an envelope holds once more, with another key; one that signed it before changes nothing.

    Raises:
        SignatureError: It is no envelope, of another type, or has all the signatures that are read.
    """
    found, payload, signatures = _open(envelope)
    if found != payload_type:
        raise SignatureError(f"signed as {found!r}, expected {payload_type!r}")
    message = pre_authentication_encoding(payload_type, payload)
    if any(_holds(key.public, signature, message) for _, signature in signatures):
        return envelope
    if len(signatures) == _MAX_SIGNATURES:
        raise SignatureError(f"{_MAX_SIGNATURES} signatures stand in it already; no more are read")
    document = parse_strict(envelope)
    document["signatures"].append({"keyid": key.public.keyid, "sig": base64.b64encode(key.sign(message)).decode()})
    return json.dumps(document, indent=1).encode() + b"\n"


def verify(envelope: bytes, payload_type: str, trusted: Sequence[PublicKey], *, threshold: int = 1) -> Verified:
    """Open an envelope.

    Args:
        envelope: Foreign bytes.
        payload_type: The only type that is taken.
        trusted: The keys that count.
        threshold: How many different ones of them must have signed.

    Raises:
        SignatureError: It is no envelope, of another type, or fewer trusted keys than ``threshold`` signed it.
    """
    if threshold < 1:
        raise SignatureError(f"a threshold of {threshold} would trust anything")
    found, payload, signatures = _open(envelope)
    if found != payload_type:
        raise SignatureError(f"signed as {found!r}, expected {payload_type!r}")
    message = pre_authentication_encoding(payload_type, payload)
    keys = {key.raw: key for key in trusted}
    signed_by = sorted(key.keyid for key in keys.values() if any(_holds(key, s, message) for _, s in signatures))
    if len(signed_by) < threshold:
        claimed = ", ".join(sorted({keyid for keyid, _ in signatures if keyid})) or "none"
        known = ", ".join(f"{k.keyid} ({k.name})" if k.name else k.keyid for k in keys.values()) or "none"
        raise SignatureError(
            f"{len(signed_by)} of {threshold} needed signatures hold; signed by {claimed}, trusted are {known}"
        )
    return Verified(payload, tuple(signed_by))


def parse_strict(data: bytes) -> Any:
    """JSON where no key stands twice and every number is one, so that two readers cannot read two things.

    Raises:
        ValueError: It is no such JSON, or nested too deep.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """PAE of DSSE v1 (protocol.md): lengths before contents, so that no two pairs give the same bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _open(envelope: bytes) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise SignatureError(f"an envelope of {len(envelope)} bytes; at most {MAX_ENVELOPE_BYTES} are read")
    try:
        return _parts(parse_strict(envelope))
    except KeyError as error:
        raise SignatureError(f"no DSSE envelope: {error} is missing") from error
    except (ValueError, TypeError) as error:
        raise SignatureError(f"no DSSE envelope: {error}") from error


def _parts(document: Any) -> tuple[str, bytes, list[tuple[str, bytes]]]:
    kind, payload, signatures = document["payloadType"], document["payload"], document["signatures"]
    if not isinstance(kind, str) or not isinstance(signatures, list):
        raise TypeError("payloadType is text and signatures is a list")
    if not 1 <= len(signatures) <= _MAX_SIGNATURES:
        raise ValueError(f"{len(signatures)} signatures; 1 to {_MAX_SIGNATURES} are read")
    return kind, _base64(payload), [(_keyid(one), _base64(one["sig"])) for one in signatures]


def _keyid(signature: dict[str, Any]) -> str:
    keyid = signature.get("keyid", "") if isinstance(signature, dict) else None
    # It is shown to people, so it must be nothing that a terminal acts on.
    if not isinstance(keyid, str) or len(keyid) > 128 or not (keyid.isprintable() and keyid.isascii()):
        raise ValueError("a signature is {keyid, sig}, and a key id is short plain text")
    return keyid


def _base64(text: Any) -> bytes:
    """Standard or URL-safe, as DSSE wants of verifiers; padded, and nothing between the letters."""
    if not isinstance(text, str):
        raise TypeError("expected base64 text")
    try:
        return base64.b64decode(text.translate({ord("-"): "+", ord("_"): "/"}).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64: {error}") from error


def _holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _pem(source: Path | str) -> tuple[bytes, str]:
    if isinstance(source, str):
        return source.encode(), "the key"
    try:
        if source.stat().st_size > _MAX_KEY_BYTES:
            raise SignatureError(f"{source} is too large for a key")
        return source.read_bytes(), str(source)
    except OSError as error:
        raise SignatureError(f"{source} cannot be read: {error.strerror}") from error
