"""The PDUs of the DICOM upper layer (PS3.8 §9.3) as pure functions, for acceptor and requestor.

There are seven, and five of them are ten bytes. ``strict`` readers, of the box's acceptor, refuse what does not fit its
frame; others, of who awaits an answer or simulates, take what there is of it. Tests hold this file against pynetdicom's
encoders and decoders.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from appliance.dicom.implementation import BOX, Implementation

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
#: Context ids are the odd numbers of one byte.
MAX_CONTEXTS = 128
#: Reasons of our A-ABORT (PS3.8 Table 9-26).
UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 1, 2, 6

#: PDU type and length, before every PDU.
HEADER = struct.Struct(">BxL")
_ITEM = struct.Struct(">BxH")
_PDV = struct.Struct(">LBB")
_DATA_HEADER = struct.Struct(">BxLLBB")
#: What is no fragment in the P-DATA-TF of one fragment, as its maximum length counts.
PDV_HEADER_BYTES = _PDV.size
#: AE titles and reserved bytes of the two A-ASSOCIATE PDUs end here, the items begin.
_FIXED_BYTES = 68


class ProtocolError(Exception):
    """The peer sent what the standard forbids here; ``reason`` is that of our A-ABORT."""

    def __init__(self, message: str, reason: int = INVALID_PARAMETER) -> None:
        """Say what was wrong, without the peer's bytes."""
        super().__init__(message)
        self.reason = reason


class Result(IntEnum):
    """Result of one presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """One presentation context of an A-ASSOCIATE-RQ."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextAnswer:
    """One presentation context of an A-ASSOCIATE-AC; ``transfer_syntax`` means something only where it is accepted."""

    context_id: int
    result: int
    transfer_syntax: str

    @property
    def accepted(self) -> bool:
        """Whether messages may come on it."""
        return self.result == Result.ACCEPTANCE


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """Who is what on the contexts of one class (PS3.7 §D.3.3.4); without it the requestor is the SCU."""

    sop_class_uid: str
    is_scu: bool
    is_scp: bool


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
    #: The longest P-DATA-TF that the peer takes; 0 is without limit.
    max_pdu_bytes: int
    #: What the requestor would be.
    roles: tuple[RoleSelection, ...] = ()


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """An A-ASSOCIATE-AC (PS3.8 §9.3.3)."""

    contexts: tuple[ContextAnswer, ...]
    #: The longest P-DATA-TF that the peer takes; 0 is without limit.
    max_pdu_bytes: int


# -- association -----------------------------------------------------------------------------------------------------


def encode_associate_request(
    called_ae: str,
    calling_ae: str,
    contexts: Iterable[ProposedContext],
    max_pdu_bytes: int,
    implementation: Implementation = BOX,
    *,
    roles: Iterable[RoleSelection] = (),
) -> bytes:
    """The A-ASSOCIATE-RQ (PS3.8 §9.3.2). What is no ASCII becomes "?", which the peer refuses."""
    items = []
    for context in contexts:
        syntaxes = b"".join(_item(0x40, _ascii(syntax)) for syntax in context.transfer_syntaxes)
        named = _item(0x30, _ascii(context.abstract_syntax)) + syntaxes
        items.append(_item(0x20, bytes((context.context_id, 0, 0, 0)) + named))
    titles = _ascii(called_ae)[:16].ljust(16) + _ascii(calling_ae)[:16].ljust(16)
    return _associate(ASSOCIATE_RQ, titles + bytes(32), items, max_pdu_bytes, implementation, roles)


def encode_associate_accept(
    request: AssociateRequest,
    answers: Iterable[ContextAnswer],
    max_pdu_bytes: int,
    implementation: Implementation = BOX,
    *,
    roles: Iterable[RoleSelection] = (),
) -> bytes:
    """The A-ASSOCIATE-AC (PS3.8 §9.3.3), with our maximum length and implementation (PS3.7 §D.3.3)."""
    items = [
        _item(0x21, bytes((answer.context_id, 0, answer.result, 0)) + _item(0x40, _ascii(answer.transfer_syntax)))
        for answer in answers
    ]
    return _associate(ASSOCIATE_AC, request.repeated, items, max_pdu_bytes, implementation, roles)


def _associate(
    kind: int,
    titles: bytes,
    contexts: list[bytes],
    max_pdu_bytes: int,
    by: Implementation,
    roles: Iterable[RoleSelection],
) -> bytes:
    user = _item(0x51, struct.pack(">L", max_pdu_bytes)) + _item(0x52, by.class_uid.encode())
    for role in roles:
        uid = _ascii(role.sop_class_uid)
        user += _item(0x54, struct.pack(">H", len(uid)) + uid + bytes((role.is_scu, role.is_scp)))
    if by.version_name:
        user += _item(0x55, by.version_name.encode())
    items = [_item(0x10, APPLICATION_CONTEXT.encode()), *contexts, _item(0x50, user)]
    return encode_pdu(kind, struct.pack(">HH", 1, 0) + titles + b"".join(items))


def decode_associate_request(body: bytes | memoryview, *, strict: bool = True) -> AssociateRequest:
    """Read what follows the PDU length.

    Raises:
        ProtocolError: ``strict``, and it is cut off or has more contexts than there are ids.
    """
    data = bytes(body)
    if strict and len(data) < _FIXED_BYTES:
        raise ProtocolError("A-ASSOCIATE-RQ is cut off")
    application_context = ""
    contexts = []
    max_pdu_bytes = 0
    roles: tuple[RoleSelection, ...] = ()
    for kind, value in _items(data[_FIXED_BYTES:], strict=strict):
        if kind == 0x10:
            application_context = _text(value)
        elif kind == 0x20 and len(value) >= 4:
            contexts.append(_context(value, strict=strict))
        elif kind == 0x20 and strict:
            raise ProtocolError("a presentation context is cut off")
        elif kind == 0x50:
            max_pdu_bytes, roles = _max_pdu_bytes(value), _roles(value)
    if strict and len(contexts) > MAX_CONTEXTS:
        raise ProtocolError(f"more than {MAX_CONTEXTS} presentation contexts")
    return AssociateRequest(
        protocol_version=int.from_bytes(data[:2], "big"),
        application_context=application_context,
        called_ae=_text(data[4:20]),
        calling_ae=_text(data[20:36]),
        repeated=data[4:_FIXED_BYTES].ljust(_FIXED_BYTES - 4, b"\0"),
        contexts=tuple(contexts),
        max_pdu_bytes=max_pdu_bytes,
        roles=roles,
    )


def decode_associate_accept(body: bytes) -> AssociateAccept:
    """Read what follows the PDU length; what is cut off is left out, and nothing is held against the request."""
    contexts = []
    max_pdu_bytes = 0
    for kind, value in _items(body[_FIXED_BYTES:], strict=False):
        if kind == 0x21 and len(value) >= 4:
            syntax = next((_text(name) for item, name in _items(value[4:], strict=False) if item == 0x40), "")
            contexts.append(ContextAnswer(value[0], value[2], syntax))
        elif kind == 0x50:
            max_pdu_bytes = _max_pdu_bytes(value)
    return AssociateAccept(tuple(contexts), max_pdu_bytes)


def _context(value: bytes, *, strict: bool) -> ProposedContext:
    abstract_syntax = ""
    transfer_syntaxes = []
    for kind, name in _items(value[4:], strict=strict):
        if kind == 0x30:
            abstract_syntax = _text(name)
        elif kind == 0x40:
            transfer_syntaxes.append(_text(name))
    return ProposedContext(value[0], abstract_syntax, tuple(transfer_syntaxes))


def _max_pdu_bytes(user: bytes) -> int:
    """Never strict: an acceptor of single fragments has no use for it, so no scanner is refused for it."""
    lengths = (value for kind, value in _items(user, strict=False) if kind == 0x51 and len(value) == 4)
    return int.from_bytes(next(lengths, b""), "big")


def _roles(user: bytes) -> tuple[RoleSelection, ...]:
    """Never strict: one that cannot be read selects nothing, and the requestor is the SCU."""
    found = []
    for kind, value in _items(user, strict=False):
        size = int.from_bytes(value[:2], "big")
        if kind == 0x54 and len(value) == size + 4:
            found.append(RoleSelection(_text(value[2 : size + 2]), bool(value[-2]), bool(value[-1])))
    return tuple(found)


def _items(data: bytes, *, strict: bool) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            if strict:
                raise ProtocolError("an item of the A-ASSOCIATE-RQ is cut off")
            return
        kind, length = _ITEM.unpack_from(data, at)
        at += 4
        if strict and at + length > len(data):
            raise ProtocolError("an item of the A-ASSOCIATE-RQ is longer than the PDU")
        yield kind, data[at : at + length]
        at += length


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def _ascii(value: str) -> bytes:
    return value.encode("ascii", "replace")


# -- the short ones --------------------------------------------------------------------------------------------------


def encode_pdu(kind: int, body: bytes) -> bytes:
    """Any PDU around its body."""
    return HEADER.pack(kind, len(body)) + body


def encode_associate_reject(result: int, source: int, reason: int) -> bytes:
    """The A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""
    return encode_pdu(ASSOCIATE_RJ, bytes((0, result, source, reason)))


def encode_abort(source: int, reason: int) -> bytes:
    """The A-ABORT (PS3.8 §9.3.8); source 0 is the service user, 2 the provider."""
    return encode_pdu(ABORT, bytes((0, 0, source, reason)))


#: A-RELEASE-RQ and A-RELEASE-RP (PS3.8 §9.3.6, §9.3.7).
RELEASE_REQUEST, RELEASE_REPLY = (encode_pdu(kind, bytes(4)) for kind in (RELEASE_RQ, RELEASE_RP))


# -- data ------------------------------------------------------------------------------------------------------------


def fragment_header(context_id: int, length: int, *, is_command: bool, is_last: bool) -> bytes:
    """What stands before a fragment of ``length`` bytes that is alone in its P-DATA-TF (PS3.8 §9.3.5, §E.2)."""
    return _DATA_HEADER.pack(DATA_TF, length + 6, length + 2, context_id, is_command | is_last << 1)


def encode_fragment(context_id: int, fragment: bytes, *, is_command: bool, is_last: bool) -> bytes:
    """A P-DATA-TF with this fragment alone; the caller keeps within the peer's maximum length."""
    return fragment_header(context_id, len(fragment), is_command=is_command, is_last=is_last) + fragment


def iter_pdvs(body: memoryview, *, strict: bool = True) -> Iterator[tuple[int, bool, bool, memoryview]]:
    """The fragments of a P-DATA-TF (PS3.8 §9.3.5, §E.2).

    Yields:
        Context id, whether it is of a command set, whether it is the last of its kind, its bytes.

    Raises:
        ProtocolError: ``strict``, and a length does not fit.
    """
    at, size = 0, len(body)
    while at < size:
        if at + 6 > size:
            if strict:
                raise ProtocolError("a presentation data value is cut off")
            return
        length, context_id, flags = _PDV.unpack_from(body, at)
        end = at + 4 + length
        if length < 2 or end > size:
            if strict:
                raise ProtocolError("a presentation data value does not fit its PDU")
            end = at + 4 + max(length, 2)
        yield context_id, bool(flags & 1), bool(flags & 2), body[at + 6 : end]
        at = end
