"""What simulators need beside the box's own upper layer (appliance/dicom): any command set, any fragments, a socket.

What they send on purpose wrong, they make from these pieces byte by byte.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence

from appliance.dicom.commands import decode_command_set, encode_command_set, us
from appliance.dicom.pdus import HEADER, PDV_HEADER_BYTES, fragment_header

#: Elements of a command set whose value is text: UIDs, AE titles, the error comment (PS3.7 Annex E).
_TEXTS = {0x0002, 0x0003, 0x0600, 0x0902, 0x1000, 0x1001, 0x1030}


def command(values: Mapping[int, int | str]) -> bytes:
    """A command set of any elements: numbers as US, texts as UI."""
    return encode_command_set((element, _raw(values[element])) for element in sorted(values))


def _raw(value: int | str) -> bytes:
    if isinstance(value, int):
        return us(value)
    text = value.encode()
    return text + b"\0" * (len(text) % 2)


def parse_command(raw: bytes) -> dict[int, int | str]:
    """Read a command set: UIDs and AE titles as text, the rest as numbers."""
    return {
        element: value.decode("ascii", "replace").strip(" \0") if element in _TEXTS else int.from_bytes(value, "little")
        for element, value in decode_command_set(raw, strict=False).items()
    }


def fragments(
    context_id: int, message: bytes | memoryview, *, is_command: bool, max_pdu: int
) -> Iterator[Sequence[bytes | memoryview]]:
    """P-DATA-TF PDUs of one fragment each, as (header, fragment); an empty message is one empty fragment."""
    room = max(max_pdu - PDV_HEADER_BYTES, 1) if max_pdu else 1 << 20
    view = memoryview(message)
    for start in range(0, max(len(view), 1), room):
        part = view[start : start + room]
        is_last = start + room >= len(view)
        yield fragment_header(context_id, len(part), is_command=is_command, is_last=is_last), part


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """The next PDU as (type, payload); ``(0, b"")`` when the peer has closed the connection."""
    head = _read(connection, HEADER.size)
    if len(head) < HEADER.size:
        return 0, b""
    kind, length = HEADER.unpack(head)
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
