"""The bytes of the DICOM upper layer, both ways: PDUs (PS3.8 §9.3), PDVs (Annex E), command sets (PS3.7 §6.3, Annex E).

Written by hand so that the simulators can send what no library would, and keep what arrives byte by byte. What the
box itself uses is pynetdicom; that the two understand each other is a test of both.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
IMPLEMENTATION_UID = "2.25.150713219203457283902374562019283740011"

#: Elements of group 0000 by their element number (PS3.7 Annex E).
CLASS_UID, FIELD, MESSAGE_ID, ANSWERED_ID, PRIORITY = 0x0002, 0x0100, 0x0110, 0x0120, 0x0700
DATA_SET_TYPE, STATUS, INSTANCE_UID = 0x0800, 0x0900, 0x1000
#: Elements whose value is text: UIDs, AE titles, the error comment.
_TEXTS = {0x0002, 0x0003, 0x0600, 0x0902, 0x1000, 0x1001, 0x1030}
NO_DATA_SET = 0x0101
C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030


class Pdu(IntEnum):
    """PDU types."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context as proposed."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What an A-ASSOCIATE-RQ says."""

    calling: str
    called: str
    contexts: dict[int, Context]
    #: The longest P-DATA-TF payload that the peer takes; 0 is without limit.
    max_pdu: int


def pdu(kind: int, payload: bytes) -> bytes:
    """A PDU of any kind around ``payload``."""
    return struct.pack(">BBI", kind, 0, len(payload)) + payload


def _item(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(payload)) + payload


def _title(ae_title: str) -> bytes:
    return ae_title.encode("ascii", "replace")[:16].ljust(16)


def _user(max_pdu: int) -> bytes:
    """User Information: maximum length and implementation class (PS3.7 Annex D.3)."""
    return _item(0x50, _item(0x51, struct.pack(">I", max_pdu)) + _item(0x52, IMPLEMENTATION_UID.encode()))


def associate_rq(calling: str, called: str, contexts: Mapping[int, Context], max_pdu: int) -> bytes:
    """A-ASSOCIATE-RQ with these presentation contexts."""
    proposed = b"".join(
        _item(
            0x20,
            struct.pack(">BBBB", number, 0, 0, 0)
            + _item(0x30, context.abstract_syntax.encode())
            + b"".join(_item(0x40, syntax.encode()) for syntax in context.transfer_syntaxes),
        )
        for number, context in contexts.items()
    )
    head = struct.pack(">HH", 1, 0) + _title(called) + _title(calling) + bytes(32)
    return pdu(Pdu.ASSOCIATE_RQ, head + _item(0x10, APPLICATION_CONTEXT.encode()) + proposed + _user(max_pdu))


def associate_ac(request: Request, accepted: Mapping[int, str | None], max_pdu: int) -> bytes:
    """A-ASSOCIATE-AC; a context whose syntax is ``None`` is refused (4, transfer syntaxes not supported)."""
    answered = b"".join(
        _item(
            0x21,
            struct.pack(">BBBB", number, 0, 0 if syntax else 4, 0) + _item(0x40, (syntax or IMPLICIT_LE).encode()),
        )
        for number, syntax in accepted.items()
    )
    head = struct.pack(">HH", 1, 0) + _title(request.called) + _title(request.calling) + bytes(32)
    return pdu(Pdu.ASSOCIATE_AC, head + _item(0x10, APPLICATION_CONTEXT.encode()) + answered + _user(max_pdu))


def _items(payload: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + 4 <= len(payload):
        kind, _, length = struct.unpack_from(">BBH", payload, place)
        yield kind, payload[place + 4 : place + 4 + length]
        place += 4 + length


def _text(payload: bytes) -> str:
    return payload.decode("ascii", "replace").strip(" \0")


def _max_pdu(user: bytes) -> int:
    return next((int.from_bytes(value, "big") for kind, value in _items(user) if kind == 0x51), 0)


def parse_request(payload: bytes) -> Request:
    """Read an A-ASSOCIATE-RQ."""
    contexts: dict[int, Context] = {}
    max_pdu = 0
    for kind, value in _items(payload[68:]):
        if kind == 0x20:
            parts = list(_items(value[4:]))
            abstract = next((_text(v) for k, v in parts if k == 0x30), "")
            contexts[value[0]] = Context(abstract, tuple(_text(v) for k, v in parts if k == 0x40))
        elif kind == 0x50:
            max_pdu = _max_pdu(value)
    return Request(_text(payload[20:36]), _text(payload[4:20]), contexts, max_pdu)


def parse_accepted(payload: bytes) -> tuple[dict[int, str], int]:
    """Read an A-ASSOCIATE-AC: the accepted contexts with their transfer syntax, and the peer's maximum length."""
    accepted: dict[int, str] = {}
    max_pdu = 0
    for kind, value in _items(payload[68:]):
        if kind == 0x21 and value[2] == 0:
            accepted[value[0]] = next((_text(v) for k, v in _items(value[4:]) if k == 0x40), "")
        elif kind == 0x50:
            max_pdu = _max_pdu(value)
    return accepted, max_pdu


def command(values: Mapping[int, int | str]) -> bytes:
    """A command set: numbers as US, texts as UI, with its group length; always implicit VR little endian."""
    body = b""
    for element in sorted(values):
        value = values[element]
        raw = struct.pack("<H", value) if isinstance(value, int) else value.encode() + b"\0" * (len(value) % 2)
        body += struct.pack("<HHI", 0, element, len(raw)) + raw
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def parse_command(raw: bytes) -> dict[int, int | str]:
    """Read a command set: UIDs and AE titles as text, the rest as numbers."""
    values: dict[int, int | str] = {}
    place = 0
    while place + 8 <= len(raw):
        _, element, length = struct.unpack_from("<HHI", raw, place)
        value = raw[place + 8 : place + 8 + length]
        values[element] = _text(value) if element in _TEXTS else int.from_bytes(value, "little")
        place += 8 + length
    return values


def fragments(
    context_id: int, message: bytes | memoryview, *, is_command: bool, max_pdu: int
) -> Iterator[Sequence[bytes | memoryview]]:
    """P-DATA-TF PDUs of one fragment each, as (header, fragment); an empty message is one empty fragment."""
    room = max(max_pdu - 6, 1) if max_pdu else 1 << 20
    view = memoryview(message)
    for start in range(0, max(len(view), 1), room):
        part = view[start : start + room]
        control = is_command | (2 if start + room >= len(view) else 0)
        yield struct.pack(">BBIIBB", Pdu.DATA, 0, len(part) + 6, len(part) + 2, context_id, control), part


def pdvs(payload: bytes | memoryview) -> Iterator[tuple[int, bool, bool, memoryview]]:
    """The fragments of a P-DATA-TF payload as (context id, is command, is last, bytes)."""
    view = memoryview(payload)
    place = 0
    while place + 6 <= len(view):
        length, context_id, control = struct.unpack_from(">IBB", view, place)
        yield context_id, bool(control & 1), bool(control & 2), view[place + 6 : place + 4 + length]
        place += 4 + max(length, 2)


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """The next PDU as (type, payload); ``(0, b"")`` when the peer has closed the connection."""
    head = _read(connection, 6)
    if len(head) < 6:
        return 0, b""
    kind, _, length = struct.unpack(">BBI", head)
    payload = _read(connection, length)
    return (kind, payload) if len(payload) == length else (0, b"")


def _read(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), 1 << 20))
        if not part:
            break
        parts += part
    return bytes(parts)
