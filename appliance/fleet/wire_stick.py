"""Files on a stick, for a box without any network: what it would have published, and what it would have been sent.

An export holds the very messages of the link, each as it would stand in its topic, in one envelope that the device's
key has signed. An import holds envelopes of the server as they would come by MQTT; one envelope alone is one too.
Nothing is checked less than on the wire.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from appliance.fleet.keys import DeviceKey, holds
from appliance.fleet.wire import MAX_PACKED_BYTES, Id, Message, Ulid, WireError
from appliance.fleet.wire_records import Clk
from engines.signing import parse_strict

EXPORT_TYPE = "application/vnd.scanside.stick.v1+json"
IMPORT_FORMAT = "scanside-fleet-import/1"
MOST_EXPORT_BYTES = 64 * 1024 * 1024
MOST_IMPORT_BYTES = 64 * 1024 * 1024
_MOST_ENVELOPES = 10_000


class Letter(Message):
    """One message of the link. ``payload``: base64 of its bytes; its signature stands in ``properties``, as on MQTT."""

    topic: str = Field(max_length=200)
    properties: dict[str, str] = Field(default_factory=dict)
    payload: str = Field(max_length=MAX_PACKED_BYTES * 4 // 3 + 8)

    @property
    def data(self) -> bytes:
        """The bytes.

        Raises:
            WireError: They are no base64.
        """
        try:
            return base64.b64decode(self.payload, validate=True)
        except (binascii.Error, ValueError):
            raise WireError("a letter of the file is damaged") from None


class Export(Message):
    """What a box brings.

    Attributes:
        ts: The box's wall clock, UTC milliseconds; never used to order or to expire.
        nonce: A job for this box must name it where ``clk`` is none.
        letters: In the order in which they would have gone.
        more: The file was full; another export goes on from here.
    """

    tenant: Id
    device: Id
    stream: Ulid
    ts: int
    clk: Clk
    nonce: str = Field(pattern=r"^[0-9a-f]{0,32}$")
    letters: tuple[Letter, ...] = Field(max_length=100_000)
    more: bool = False


def seal(export: Export, key: DeviceKey) -> bytes:
    """The file, signed by the device's key."""
    payload = export.model_dump_json().encode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": EXPORT_TYPE,
        "signatures": [{"keyid": export.device, "sig": key.sign(EXPORT_TYPE, payload)}],
    }
    return json.dumps(envelope).encode() + b"\n"


def claimed_sender(data: bytes) -> str:
    """Whose file it says to be, so that the key can be looked up; proves nothing.

    Raises:
        WireError: It is no export.
    """
    return _sealed(data)[1]


def unseal(data: bytes, public: ec.EllipticCurvePublicKey) -> Export:
    """Read an export that the key of ``public`` signed.

    Raises:
        WireError: It is none, damaged, or somebody else's.
    """
    payload, keyid, signature = _sealed(data)
    if not holds(public, EXPORT_TYPE, payload, signature):
        raise WireError("the file is not signed by this device")
    try:
        export = Export.model_validate(parse_strict(payload), extra="ignore")
    except ValueError:  # pydantic's too
        raise WireError("the file is of another version") from None
    if export.device != keyid:
        raise WireError("the file is not signed by this device")
    return export


def bundle(envelopes: Sequence[bytes]) -> bytes:
    """A file of several envelopes, for ``scanside fleet import``."""
    told = {"format": IMPORT_FORMAT, "envelopes": [base64.b64encode(one).decode() for one in envelopes]}
    return json.dumps(told, indent=1).encode() + b"\n"


def split(data: bytes) -> list[tuple[str, bytes]]:
    """The envelopes of a file for import, each with the type that it claims; or the one envelope that the file is.

    Raises:
        WireError: It is neither, or too large.
    """
    document = _parsed(data, MOST_IMPORT_BYTES)
    if document.get("format") != IMPORT_FORMAT:
        return [(_type_of(document), data)]
    envelopes = document.get("envelopes")
    if not isinstance(envelopes, list) or len(envelopes) > _MOST_ENVELOPES:
        raise WireError(f"a file for import holds at most {_MOST_ENVELOPES} envelopes")
    found = []
    for one in envelopes:
        try:
            envelope = base64.b64decode(str(one), validate=True)
        except (binascii.Error, ValueError):
            raise WireError("an envelope of the file is damaged") from None
        found.append((_type_of(_parsed(envelope, MAX_PACKED_BYTES)), envelope))
    return found


def _parsed(data: bytes, most: int) -> dict[str, Any]:
    if len(data) > most:
        raise WireError(f"larger than {most} bytes")
    try:
        document = parse_strict(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise WireError("the file is none of this software's, or damaged")
    return document


def _type_of(document: dict[str, Any]) -> str:
    found = document.get("payloadType")
    if not isinstance(found, str):
        raise WireError("the file is none of this software's, or damaged")
    return found


def _sealed(data: bytes) -> tuple[bytes, str, str]:
    document = _parsed(data, 2 * MOST_EXPORT_BYTES)
    try:
        (signature,) = document["signatures"]
        payload = base64.b64decode(document["payload"], validate=True)
        keyid, sig = signature["keyid"], signature["sig"]
    except (KeyError, TypeError, ValueError):  # binascii's too
        raise WireError("the file is no export of a box") from None
    if _type_of(document) != EXPORT_TYPE or not isinstance(keyid, str) or not isinstance(sig, str):
        raise WireError("the file is no export of a box")
    return payload, keyid, sig
