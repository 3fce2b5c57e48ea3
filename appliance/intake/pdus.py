"""The PDUs of the DICOM upper layer that an acceptor reads and writes (PS3.8 §9.3), as pure functions.

There are seven, and five of them are ten bytes. Tests hold this file against pynetdicom's encoders and decoders.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from appliance.intake.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from appliance.intake.negotiation import ContextResult, ProposedContext

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
RELEASE_REPLY = struct.pack(">BBLL", RELEASE_RP, 0, 4, 0)
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
#: Reasons of our A-ABORT (PS3.8 Table 9-26).
UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 1, 2, 6

#: PDU type and length, before every PDU.
HEADER = struct.Struct(">BxL")
_ITEM = struct.Struct(">BxH")
_PDV = struct.Struct(">LBB")


class ProtocolError(Exception):
    """The peer sent what the standard forbids here; ``reason`` is that of our A-ABORT."""

    def __init__(self, message: str, reason: int = INVALID_PARAMETER) -> None:
        """Say what was wrong, without the peer's bytes."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ (PS3.8 §9.3.2)."""

    protocol_version: int
    application_context: str
    called_ae: str
    calling_ae: str
    #: The fields that the answer repeats: both AE titles as they came, and 32 reserved bytes.
    repeated: bytes
    contexts: tuple[ProposedContext, ...]


def decode_associate_request(body: memoryview) -> AssociateRequest:
    """Read what follows the PDU length.

    Raises:
        ProtocolError: It is cut off, or has more contexts than there are ids.
    """
    data = bytes(body)
    if len(data) < 68:
        raise ProtocolError("A-ASSOCIATE-RQ is cut off")
    application_context = ""
    contexts = []
    for kind, value in _items(data[68:]):
        if kind == 0x10:
            application_context = _text(value)
        elif kind == 0x20:
            contexts.append(_context(value))
    if len(contexts) > 128:
        raise ProtocolError("more than 128 presentation contexts")
    return AssociateRequest(
        protocol_version=int.from_bytes(data[:2], "big"),
        application_context=application_context,
        called_ae=_text(data[4:20]),
        calling_ae=_text(data[20:36]),
        repeated=data[4:68],
        contexts=tuple(contexts),
    )


def _context(value: bytes) -> ProposedContext:
    if len(value) < 4:
        raise ProtocolError("a presentation context is cut off")
    abstract_syntax = ""
    transfer_syntaxes = []
    for kind, name in _items(value[4:]):
        if kind == 0x30:
            abstract_syntax = _text(name)
        elif kind == 0x40:
            transfer_syntaxes.append(_text(name))
    return ProposedContext(value[0], abstract_syntax, tuple(transfer_syntaxes))


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise ProtocolError("an item of the A-ASSOCIATE-RQ is cut off")
        kind, length = _ITEM.unpack_from(data, at)
        at += 4
        if at + length > len(data):
            raise ProtocolError("an item of the A-ASSOCIATE-RQ is longer than the PDU")
        yield kind, data[at : at + length]
        at += length


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def encode_associate_accept(request: AssociateRequest, results: Sequence[ContextResult], max_pdu_bytes: int) -> bytes:
    """The A-ASSOCIATE-AC (PS3.8 §9.3.3), with our maximum length and implementation (PS3.7 §D.3.3)."""
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    for result in results:
        syntax = _item(0x40, result.transfer_syntax.encode())
        items.append(_item(0x21, bytes((result.context_id, 0, result.result, 0)) + syntax))
    user = (
        _item(0x51, struct.pack(">L", max_pdu_bytes))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    )
    body = struct.pack(">HH", 1, 0) + request.repeated + b"".join(items) + _item(0x50, user)
    return HEADER.pack(ASSOCIATE_AC, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def encode_associate_reject(result: int, source: int, reason: int) -> bytes:
    """The A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""
    return struct.pack(">BBLBBBB", ASSOCIATE_RJ, 0, 4, 0, result, source, reason)


def encode_abort(source: int, reason: int) -> bytes:
    """The A-ABORT (PS3.8 §9.3.8); source 0 is the service user, 2 the provider."""
    return struct.pack(">BBLBBBB", ABORT, 0, 4, 0, 0, source, reason)


def encode_command(context_id: int, command_set: bytes) -> bytes:
    """A P-DATA-TF with one whole command set; ours are far below any maximum length."""
    length = len(command_set) + 2
    return HEADER.pack(DATA_TF, length + 4) + _PDV.pack(length, context_id, 0x03) + command_set


def iter_pdvs(body: memoryview) -> Iterator[tuple[int, bool, bool, memoryview]]:
    """The fragments of a P-DATA-TF (PS3.8 §9.3.5, §E.2).

    Yields:
        Context id, whether it is of a command set, whether it is the last of its kind, its bytes.

    Raises:
        ProtocolError: A length does not fit.
    """
    at = 0
    while at < len(body):
        if at + _PDV.size > len(body):
            raise ProtocolError("a presentation data value is cut off")
        length, context_id, flags = _PDV.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > len(body):
            raise ProtocolError("a presentation data value does not fit its PDU")
        yield context_id, bool(flags & 1), bool(flags & 2), body[at + _PDV.size : end]
        at = end
