"""The bytes around a data set: DIMSE command sets of C-STORE and C-ECHO, and the file meta information we add.

Command sets are implicit VR little endian whatever the context says, and their elements have no nested items, so a
flat loop reads them (PS3.7 §6.3, §9.3, §E).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

#: Root 2.25 (a UUID written as a number, PS3.5 §B.2): needs no registration.
IMPLEMENTATION_CLASS_UID = "2.25.96972698741689914135749239764466984865"
IMPLEMENTATION_VERSION_NAME = "SCANSIDE_1"

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
RESPONSE = 0x8000
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
_NO_DATA_SET = 0x0101
_PRIORITY_HIGH = 0x0001

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")
_UID = re.compile(r"[0-9.]{1,64}\Z")


class CommandError(ValueError):
    """The bytes are no command set; the association cannot go on."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as far as we act on it."""

    command_field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool
    high_priority: bool


def parse_request(data: bytes) -> Request:
    """Read a command set.

    Raises:
        CommandError: It is cut off, or has no command field or message id.
    """
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise CommandError("cut off inside an element header")
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += 8
        if group != 0 or length > len(data) - at:
            raise CommandError(f"element ({group:04x},{element:04x}) of length {length} does not fit a command set")
        elements[element] = data[at : at + length]
        at += length
    command_field = _number(elements, 0x0100)
    message_id = _number(elements, 0x0110)
    if command_field is None or message_id is None:
        raise CommandError("no Command Field or no Message ID")
    return Request(
        command_field=command_field,
        message_id=message_id,
        sop_class_uid=_text(elements, 0x0002),
        sop_instance_uid=_text(elements, 0x1000),
        has_data_set=_number(elements, 0x0800) not in {None, _NO_DATA_SET},
        high_priority=_number(elements, 0x0700) == _PRIORITY_HIGH,
    )


def is_uid(text: str) -> bool:
    """Digits and dots, 1 to 64 of them: the alphabet that can do no harm anywhere (PS3.5 §9.1)."""
    return _UID.match(text) is not None


def encode_response(request: Request, status: int) -> bytes:
    """The command set of the response; UIDs are repeated only where they are well-formed."""
    body = b""
    if is_uid(request.sop_class_uid):
        body += _element(0x0002, _padded(request.sop_class_uid))
    body += _element(0x0100, _US.pack(request.command_field | RESPONSE))
    body += _element(0x0120, _US.pack(request.message_id))
    body += _element(0x0800, _US.pack(_NO_DATA_SET))
    body += _element(0x0900, _US.pack(status))
    if is_uid(request.sop_instance_uid):
        body += _element(0x1000, _padded(request.sop_instance_uid))
    return _element(0x0000, struct.pack("<L", len(body))) + body


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _padded(text: str) -> bytes:
    value = text.encode("ascii")
    return value + b"\0" * (len(value) % 2)


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int(_US.unpack(value)[0]) if len(value) == 2 else None


def _text(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")


def file_meta(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, calling_ae: str, called_ae: str
) -> bytes:
    """Preamble and file meta information of a received object (PS3.10 §7.1).

    The AE titles tell a rebuild of the database which source it was.
    """
    uid = "UI"
    elements = [
        _explicit(0x0001, "OB", b"\0\1"),
        _explicit(0x0002, uid, _padded(sop_class_uid)),
        _explicit(0x0003, uid, _padded(sop_instance_uid)),
        _explicit(0x0010, uid, _padded(transfer_syntax)),
        _explicit(0x0012, uid, _padded(IMPLEMENTATION_CLASS_UID)),
        _explicit(0x0013, "SH", _spaced(IMPLEMENTATION_VERSION_NAME)),
        _explicit(0x0016, "AE", _spaced(calling_ae)),
        _explicit(0x0018, "AE", _spaced(called_ae)),
    ]
    body = b"".join(elements)
    return b"\0" * 128 + b"DICM" + _explicit(0x0000, "UL", struct.pack("<L", len(body))) + body


def _explicit(element: int, vr: str, value: bytes) -> bytes:
    if vr == "OB":
        return struct.pack("<HH2sHL", 2, element, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr.encode(), len(value)) + value


def _spaced(text: str) -> bytes:
    value = text.encode("ascii", "replace")
    return value + b" " * (len(value) % 2)
