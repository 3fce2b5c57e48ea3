"""DIMSE command sets as pure functions, of the services that the box uses or gives (PS3.7 §6.3, §9.3, §10.3, Annex E).

Command sets are implicit VR little endian whatever the context says, and their elements have no nested items, so a
flat loop reads them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

C_STORE_RQ, C_FIND_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0020, 0x0030, 0x0FFF
N_EVENT_REPORT_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ = 0x0100, 0x0120, 0x0130, 0x0140
RESPONSE = 0x8000
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
CLASS_NOT_SUPPORTED = 0x0122
INVALID_ATTRIBUTE_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_INSTANCE = 0x0112
INVALID_ARGUMENT = 0x0115
NO_SUCH_ACTION = 0x0123
INVALID_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
UNRECOGNIZED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213
#: A match of a C-FIND, and one with keys that were not matched (PS3.4 §C.4.1.1.4).
PENDING = frozenset({0xFF00, 0xFF01})

#: Element numbers of group 0000 (PS3.7 Annex E).
SOP_CLASS_UID, COMMAND_FIELD, MESSAGE_ID, ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
PRIORITY, DATA_SET_TYPE, STATUS, SOP_INSTANCE_UID = 0x0700, 0x0800, 0x0900, 0x1000
ERROR_COMMENT, ERROR_ID = 0x0902, 0x0903
#: N-ACTION and N-SET name what they ask for in "Requested", all else names it in "Affected" elements.
REQUESTED_CLASS_UID, REQUESTED_INSTANCE_UID, EVENT_TYPE, ACTION_TYPE = 0x0003, 0x1001, 0x1002, 0x1008
_TYPES = {N_EVENT_REPORT_RQ: EVENT_TYPE, N_ACTION_RQ: ACTION_TYPE}
#: Values of Command Data Set Type (anything else than the first says that one follows) and Priority.
NO_DATA_SET, DATA_SET = 0x0101, 0x0001
PRIORITY_MEDIUM, PRIORITY_HIGH = 0x0000, 0x0001

_ELEMENT = struct.Struct("<HHL")
_GROUP_LENGTH = struct.Struct("<HHLL")
_US = struct.Struct("<H")
#: What every response has, in one piece: it is written for each image.
_ANSWER = struct.Struct("<" + 4 * "HHLH")
_UID = re.compile(r"[0-9.]{1,64}\Z")


class Failure(int):
    """A status with what a response may say besides it (PS3.7 Annex C): why, and which error of the service it is."""

    comment: str
    error_id: int | None

    def __new__(cls, status: int, comment: str = "", *, error_id: int | None = None) -> Failure:  # noqa: PYI034
        """``comment``: ASCII, 64 characters at most, and nothing of a patient."""
        failure = super().__new__(cls, status)
        failure.comment, failure.error_id = comment[:64], error_id
        return failure


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
    #: Event Type ID of an N-EVENT-REPORT, Action Type ID of an N-ACTION.
    type_id: int | None = None


def encode_command_set(elements: Iterable[tuple[int, bytes]]) -> bytes:
    """A command set of these elements, in ascending order, behind their group length."""
    return _with_length(b"".join([_element(element, value) for element, value in elements]))


def decode_command_set(data: bytes, *, strict: bool = True) -> dict[int, bytes]:
    """The elements by number; if not ``strict``, of what is cut off only what there is.

    Raises:
        CommandError: ``strict``, and it is cut off or has an element of another group.
    """
    elements: dict[int, bytes] = {}
    at, size = 0, len(data)
    while at < size:
        if at + 8 > size:
            if strict:
                raise CommandError("cut off inside an element header")
            break
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += 8
        if strict and (group != 0 or length > size - at):
            raise CommandError(f"element ({group:04x},{element:04x}) of length {length} does not fit a command set")
        elements[element] = data[at : at + length]
        at += length
    return elements


def us(value: int) -> bytes:
    """A value of VR US."""
    return _US.pack(value)


def ui(uid: str) -> bytes:
    """A value of VR UI. What is no ASCII becomes "?", which the peer refuses: one bad row must not stop the others."""
    value = uid.encode("ascii", "replace")
    return value + b"\0" * (len(value) % 2)


def number(elements: dict[int, bytes], element: int) -> int | None:
    """A value of VR US; None where it is missing or malformed."""
    value = elements.get(element, b"")
    return int(_US.unpack(value)[0]) if len(value) == 2 else None


def text(elements: dict[int, bytes], element: int) -> str:
    """A value of VR UI without its padding; empty where it is missing."""
    return elements.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")


def is_uid(text: str) -> bool:
    """Digits and dots, 1 to 64 of them: the alphabet that can do no harm anywhere (PS3.5 §9.1)."""
    return _UID.match(text) is not None


def encode_request(
    command_field: int,
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str = "",
    *,
    type_id: int | None = None,
    has_data_set: bool = False,
) -> bytes:
    """Any request (PS3.7 §9.3, §10.3); those with a priority have it medium.

    Args:
        command_field: Which.
        message_id: Ours.
        sop_class_uid: Affected, or requested.
        sop_instance_uid: The same; empty where the request has none.
        type_id: Of the event or action.
        has_data_set: Whether one follows; a C-STORE and a C-FIND always have one.
    """
    is_requested = command_field in {N_SET_RQ, N_ACTION_RQ}
    with_data = has_data_set or command_field in {C_STORE_RQ, C_FIND_RQ}
    elements = [
        (REQUESTED_CLASS_UID if is_requested else SOP_CLASS_UID, ui(sop_class_uid)),
        (COMMAND_FIELD, us(command_field)),
        (MESSAGE_ID, us(message_id)),
        (DATA_SET_TYPE, us(DATA_SET if with_data else NO_DATA_SET)),
    ]
    if command_field in {C_STORE_RQ, C_FIND_RQ}:
        elements.append((PRIORITY, us(PRIORITY_MEDIUM)))
    if sop_instance_uid:
        elements.append((REQUESTED_INSTANCE_UID if is_requested else SOP_INSTANCE_UID, ui(sop_instance_uid)))
    if type_id is not None:
        elements.append((_TYPES[command_field], us(type_id)))
    return encode_command_set(sorted(elements))


def parse_request(data: bytes) -> Request:
    """Read the command set of a request.

    Raises:
        CommandError: It is no command set, or has no command field or message id.
    """
    elements = decode_command_set(data)
    command_field = number(elements, COMMAND_FIELD)
    message_id = number(elements, MESSAGE_ID)
    if command_field is None or message_id is None:
        raise CommandError("no Command Field or no Message ID")
    return Request(
        command_field=command_field,
        message_id=message_id,
        sop_class_uid=text(elements, SOP_CLASS_UID) or text(elements, REQUESTED_CLASS_UID),
        sop_instance_uid=text(elements, SOP_INSTANCE_UID) or text(elements, REQUESTED_INSTANCE_UID),
        has_data_set=number(elements, DATA_SET_TYPE) not in {None, NO_DATA_SET},
        high_priority=number(elements, PRIORITY) == PRIORITY_HIGH,
        type_id=number(elements, _TYPES[command_field]) if command_field in _TYPES else None,
    )


def encode_response(request: Request, status: int) -> bytes:
    """The command set of the response; UIDs are repeated only where they are well-formed."""
    body = _ANSWER.pack(
        *(0, COMMAND_FIELD, 2, request.command_field | RESPONSE),
        *(0, ANSWERED_ID, 2, request.message_id),
        *(0, DATA_SET_TYPE, 2, NO_DATA_SET),
        *(0, STATUS, 2, status),
    )
    if is_uid(request.sop_class_uid):
        body = _element(SOP_CLASS_UID, ui(request.sop_class_uid)) + body
    if isinstance(status, Failure):
        if status.comment:
            words = status.comment.encode("ascii", "replace")
            body += _element(ERROR_COMMENT, words + b" " * (len(words) % 2))
        if status.error_id is not None:
            body += _element(ERROR_ID, us(status.error_id))
    if is_uid(request.sop_instance_uid):
        body += _element(SOP_INSTANCE_UID, ui(request.sop_instance_uid))
    if request.type_id is not None:
        body += _element(_TYPES[request.command_field], us(request.type_id))
    return _with_length(body)


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _with_length(body: bytes) -> bytes:
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body
