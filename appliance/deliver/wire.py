"""The bytes of an association's requestor (PS3.8 §9.3, PS3.7 §6.3, §9.3): encoding and reading, no sockets."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
C_STORE_RQ, C_ECHO_RQ, RESPONSE = 0x0001, 0x0030, 0x8000
#: Message control header of a fragment (PS3.8 §E.2).
COMMAND_PDV, LAST_PDV = 0x01, 0x02
#: Context ids are the odd numbers of one byte.
MAX_CONTEXTS = 128
PDU_HEADER = struct.Struct(">BxL")
PDV_HEADER = struct.Struct(">LBB")

#: Pairs of SOP Class and Transfer Syntax UID.
Context = tuple[str, str]

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_NO_DATA_SET, _DATA_SET, _PRIORITY_MEDIUM = 0x0101, 0x0001, 0x0000
_ITEM_HEADER = struct.Struct(">BxH")
_ELEMENT_HEADER = struct.Struct("<HHL")


def associate_request(called_ae: str, calling_ae: str, contexts: Sequence[Context], max_pdu: int) -> bytes:
    """The A-ASSOCIATE-RQ (PS3.8 §9.3.2): context id 2n+1 is the n-th pair, each with that one syntax.

    Raises:
        ValueError: No context, or more than ``MAX_CONTEXTS``.
    """
    if not 0 < len(contexts) <= MAX_CONTEXTS:
        raise ValueError(f"{len(contexts)} presentation contexts; 1 to {MAX_CONTEXTS} fit one association")
    items = [_item(0x10, _APPLICATION_CONTEXT.encode())]
    for index, (sop_class_uid, transfer_syntax_uid) in enumerate(contexts):
        syntaxes = _item(0x30, _ascii(sop_class_uid)) + _item(0x40, _ascii(transfer_syntax_uid))
        items.append(_item(0x20, bytes((2 * index + 1, 0, 0, 0)) + syntaxes))
    user = (
        _item(0x51, struct.pack(">L", max_pdu))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    )
    titles = _ascii(called_ae)[:16].ljust(16) + _ascii(calling_ae)[:16].ljust(16)
    return pdu(ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + titles + bytes(32) + b"".join(items) + _item(0x50, user))


def read_accept(body: bytes, contexts: Sequence[Context]) -> tuple[dict[Context, int], dict[Context, int], int]:
    """The A-ASSOCIATE-AC (PS3.8 §9.3.3); what is cut off is left out.

    Returns:
        Context id of each accepted pair, result of each refused one (PS3.8 Table 9-18), the peer's maximum length.
    """
    accepted, refused, max_pdu = {}, {}, 0
    for kind, value in _items(body[68:]):
        if kind == 0x21 and len(value) >= 4 and value[0] % 2 and value[0] // 2 < len(contexts):
            context = contexts[value[0] // 2]
            if value[2] == 0:
                accepted[context] = value[0]
            else:
                refused[context] = value[2]
        elif kind == 0x50:
            lengths = [struct.unpack(">L", v)[0] for k, v in _items(value) if k == 0x51 and len(v) == 4]
            max_pdu = lengths[0] if lengths else 0
    return accepted, refused, max_pdu


def command_set(command: int, message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """The C-STORE-RQ (PS3.7 Table 9.3-1) or C-ECHO-RQ (Table 9.3-12)."""
    elements = [(0x0002, _uid(sop_class_uid)), (0x0100, _us(command)), (0x0110, _us(message_id))]
    if command == C_STORE_RQ:
        elements += [(0x0700, _us(_PRIORITY_MEDIUM)), (0x0800, _us(_DATA_SET)), (0x1000, _uid(sop_instance_uid))]
    else:
        elements += [(0x0800, _us(_NO_DATA_SET))]
    body = b"".join(_ELEMENT_HEADER.pack(0, element, len(value)) + value for element, value in elements)
    return _ELEMENT_HEADER.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def read_command_set(data: bytes) -> dict[int, bytes]:
    """Elements by number: implicit VR little endian, never nested (PS3.7 §6.3.1); what is cut off is left out."""
    found = {}
    at = 0
    while at + _ELEMENT_HEADER.size <= len(data):
        _, element, length = _ELEMENT_HEADER.unpack_from(data, at)
        at += _ELEMENT_HEADER.size
        found[element] = data[at : at + length]
        at += length
    return found


def number(elements: dict[int, bytes], element: int) -> int | None:
    """An US value of a command set; None where it is missing or malformed."""
    value = elements.get(element, b"")
    return int(struct.unpack("<H", value)[0]) if len(value) == 2 else None


def text(elements: dict[int, bytes], element: int) -> str:
    """An UI value of a command set without its padding."""
    return elements.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")


def pdu(kind: int, body: bytes) -> bytes:
    """A whole PDU."""
    return PDU_HEADER.pack(kind, len(body)) + body


def pdv(context_id: int, flags: int, data: bytes) -> bytes:
    """A P-DATA-TF with one fragment (PS3.8 §9.3.5)."""
    return pdu(DATA_TF, PDV_HEADER.pack(len(data) + 2, context_id, flags) + data)


def read_pdvs(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Message control header and bytes of each fragment of a P-DATA-TF."""
    at = 0
    while at + PDV_HEADER.size <= len(body):
        length, _, flags = PDV_HEADER.unpack_from(body, at)
        at += PDV_HEADER.size
        end = at + max(0, length - 2)
        yield flags, body[at:end]
        at = end


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM_HEADER.pack(kind, len(value)) + value


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ITEM_HEADER.size <= len(data):
        kind, length = _ITEM_HEADER.unpack_from(data, at)
        at += _ITEM_HEADER.size
        yield kind, data[at : at + length]
        at += length


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def _uid(value: str) -> bytes:
    encoded = _ascii(value)
    return encoded + b"\0" * (len(encoded) % 2)


def _ascii(value: str) -> bytes:
    """What is no ASCII becomes "?", which the peer refuses: one bad row must not stop the others."""
    return value.encode("ascii", "replace")
