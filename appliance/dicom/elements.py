"""Where the elements of a data set lie, found without trusting one byte of it (PS3.5 §7, Annex A).

The walker reads element headers only. It does not recurse, does not allocate by an announced length and does not
touch pixel bytes, so that a C-STORE can be answered at once and a hostile file costs a bounded time:

- every length is checked against the file: a shortfall is a truncated object;
- sequences may nest 64 deep, a data set may hold a million elements;
- a sequence of *defined* length whose inside is broken is passed over by its length, as every other reader does;
- whatever cannot be passed over is refused with ``RejectedInstance`` 0xC000, naming the tag and never the value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple, NoReturn

from appliance.dicom.source import CANNOT_UNDERSTAND, Source
from appliance.dicom.tags import PIXEL_DATA, name
from appliance.errors import RejectedInstance

MAX_DEPTH = 64
MAX_TOP_LEVEL_ELEMENTS = 65_536
WINDOW_BYTES = 8_192

UNDEFINED = 0xFFFFFFFF

_FIRST_DELIMITER = 0xFFFE0000
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_ITEM_BYTES = b"\xfe\xff\x00\xe0"
_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split(),
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_FRAGMENTED_VRS = frozenset({b"OB", b"OW"})


class Encoding(NamedTuple):
    """How element headers are written."""

    explicit: bool
    big: bool


EXPLICIT_LE = Encoding(explicit=True, big=False)
IMPLICIT_LE = Encoding(explicit=False, big=False)
EXPLICIT_BE = Encoding(explicit=True, big=True)

_HEADER = {False: Struct("<HH2sH"), True: Struct(">HH2sH")}
_PLAIN = {False: Struct("<HHL"), True: Struct(">HHL")}
_LONG = {False: Struct("<L"), True: Struct(">L")}


class Place(NamedTuple):
    """One element: its VR (empty in implicit VR), where its value starts, and how long it is (or ``UNDEFINED``)."""

    vr: bytes
    offset: int
    length: int


class Fragments(NamedTuple):
    """Encapsulated pixel data: the items after the Basic Offset Table, and where the sequence delimiter ends."""

    items: tuple[tuple[int, int], ...]
    end: int


@dataclass(slots=True)
class DataSet:
    """The top-level elements of one data set."""

    encoding: Encoding
    places: dict[int, Place] = field(default_factory=dict)
    #: Tags that stand more than once; ``places`` keeps the first.
    repeated: set[int] = field(default_factory=set)
    #: Set when the Pixel Data element has undefined length.
    fragments: Fragments | None = None


def read_meta(source: Source) -> tuple[str, int]:
    """The Transfer Syntax UID of a Part 10 file and the offset of its data set (PS3.10 §7.1).

    Raises:
        RejectedInstance: this is no Part 10 file, or its file meta information is broken.
    """
    if source.read(128, 4) != b"DICM":
        _refuse("not a DICOM Part 10 file: 'DICM' is missing at byte 128")
    syntax = ""
    pos = 132
    while True:
        header = source.read(pos, 12)
        if len(header) < 8 or header[:2] != b"\x02\x00":
            break
        source.spend(1)
        tag, _, offset, length = _explicit_header(header, 0, pos, big=False)
        if length > source.size - offset:
            _refuse(f"truncated: file meta element {name(tag)} claims {length} bytes")
        if tag == 0x00020010:
            syntax = source.read(offset, min(length, 65)).rstrip(b"\0 ").decode("ascii", "replace")
        pos = offset + length
    if not syntax:
        _refuse("the file meta information names no Transfer Syntax UID (0002,0010)")
    return syntax, pos


def walk(source: Source, start: int, encoding: Encoding) -> DataSet:
    """Find every top-level element from ``start`` to the end of the source.

    Raises:
        RejectedInstance: 0xC000; truncated, nested deeper than 64, or not a data set in this encoding.
    """
    found = DataSet(encoding)
    places, size = found.places, source.size
    explicit, big = encoding
    window, base, pos = source.head, 0, start
    visited = 0
    while pos < size:
        visited += 1
        if visited > MAX_TOP_LEVEL_ELEMENTS:
            _refuse(f"the data set has more than {MAX_TOP_LEVEL_ELEMENTS} top-level elements")
        at = pos - base
        if at + 16 > len(window) and base + len(window) < size:
            window, base, at = source.read(pos, WINDOW_BYTES), pos, 0
        if len(window) - at < 8:
            _refuse(f"truncated: {size - pos} stray bytes at the end")
        if explicit:
            tag, vr, offset, length = _explicit_header(window, at, pos, big=big)
            nested = vr == b"SQ"
            if vr == b"UN" and _starts_with_item(window, offset - base, length):
                nested = True
        else:
            tag, vr, offset, length = _plain_header(window, at, pos, big=big)
            nested = tag != PIXEL_DATA and _starts_with_item(window, at + 8, length)
        if tag >= _FIRST_DELIMITER:
            _refuse(f"{name(tag)} stands outside a sequence")
        place = Place(vr, offset, length)
        if length == UNDEFINED:
            if tag == PIXEL_DATA:
                found.fragments = _fragments(source, offset, size, big=big)
                pos = found.fragments.end
            else:
                pos = _scan(source, place, encoding, None)
        elif length > size - offset:
            _refuse(f"truncated: element {name(tag)} claims {length} bytes, {size - offset} are left")
        elif nested:
            pos = _scan(source, place, encoding, None)
        else:
            pos = offset + length
        if tag in places:
            found.repeated.add(tag)
        else:
            places[tag] = place
    source.spend(visited)
    return found


def flatten(source: Source, place: Place | None, encoding: Encoding) -> list[dict[int, Place]]:
    """The leaves of each item of a sequence, by tag, whatever public sequence below they stand in.

    Enough for functional groups, LUTs and request attributes, where a tag has one meaning in an item. Of a repeated
    tag the first stands. Leaves below private sequences are left out: vendors keep whole data sets there.

    Raises:
        RejectedInstance: the sequence cannot be read.
    """
    items: list[dict[int, Place]] = []
    if place is not None:
        _scan(source, place, encoding, items)
    return items


class _BrokenError(Exception):
    """The inside of a sequence is no sequence; the message says where."""


def _scan(source: Source, place: Place, encoding: Encoding, items: list[dict[int, Place]] | None) -> int:
    """Pass over a sequence and, if asked, collect its leaves; returns the offset after it.

    Containers alternate on the stack: sequence, item, sequence, ... so that its length tells where we are.
    """
    size = source.size
    inner = IMPLICIT_LE if place.vr == b"UN" else encoding  # PS3.5 §6.2.2 note 2
    stack = [_Container(place.offset, place.length, size, inner, public=True)]
    window, base, pos, visited = b"", 0, place.offset, 0
    while stack:
        top = stack[-1]
        if pos == top.end:
            stack.pop()
            continue
        visited += 1
        try:
            top.need_header(pos)
            at = pos - base
            if at < 0 or at + 16 > len(window):
                window, base, at = source.read(pos, WINDOW_BYTES), pos, 0
            if len(stack) % 2:
                pos = _step_in_sequence(window, at, pos, stack, items)
            else:
                pos = _step_in_item(source, window, at, pos, stack, items)
        except _BrokenError as broken:
            while stack and stack[-1].end < 0:
                stack.pop()
            if not stack:
                _refuse(f"truncated or malformed: {broken}")
            pos = stack.pop().end
        if visited >= 4096:
            source.spend(visited)
            visited = 0
    source.spend(visited)
    return pos


class _Container:
    """A sequence or an item that is open; ``end`` is -1 for undefined length, ``limit`` what it may not pass."""

    __slots__ = ("encoding", "end", "limit", "public")

    def __init__(self, offset: int, length: int, limit: int, encoding: Encoding, *, public: bool) -> None:
        self.encoding, self.public = encoding, public
        if length == UNDEFINED:
            self.end, self.limit = -1, limit
        elif length > limit - offset:
            raise _BrokenError(f"a sequence or item at byte {offset} is longer than what it stands in")
        else:
            self.end = self.limit = offset + length

    def need_header(self, pos: int) -> None:
        """An element or item header must fit before the end."""
        if pos > self.limit - 8:
            raise _BrokenError(f"the bytes end inside a sequence at byte {pos}")


def _step_in_sequence(
    window: bytes, at: int, pos: int, stack: list[_Container], items: list[dict[int, Place]] | None
) -> int:
    """An item opens, or the sequence ends."""
    top = stack[-1]
    tag, _, offset, length = _plain_header(window, at, pos, big=top.encoding.big)
    if tag == _ITEM:
        stack.append(_Container(offset, length, top.limit, top.encoding, public=top.public))
        if items is not None and len(stack) == 2:
            items.append({})
    elif tag == _SEQUENCE_END and top.end < 0:
        stack.pop()
    else:
        raise _BrokenError(f"{name(tag)} where an item of a sequence is expected, at byte {pos}")
    return offset


def _step_in_item(
    source: Source, window: bytes, at: int, pos: int, stack: list[_Container], items: list[dict[int, Place]] | None
) -> int:
    """An element of an item: a leaf is passed over, a sequence opens, or the item ends."""
    top = stack[-1]
    explicit, big = top.encoding
    tag, vr, offset, length = _plain_header(window, at, pos, big=big)
    if tag >= _FIRST_DELIMITER:
        if tag == _ITEM_END and top.end < 0:
            stack.pop()
            return offset
        raise _BrokenError(f"{name(tag)} inside an item at byte {pos}")
    if explicit:
        try:
            tag, vr, offset, length = _explicit_header(window, at, pos, big=big)
        except RejectedInstance as refused:
            raise _BrokenError(str(refused)) from refused
    if length == UNDEFINED and (vr in _FRAGMENTED_VRS or tag == PIXEL_DATA):
        return _fragments(source, offset, top.limit, big=big).end
    if (
        length == UNDEFINED
        or vr == b"SQ"
        or (vr in {b"", b"UN"} and tag != PIXEL_DATA and _starts_with_item(window, offset - pos + at, length))
    ):
        encoding = IMPLICIT_LE if vr == b"UN" else top.encoding
        container = _Container(offset, length, top.limit, encoding, public=top.public and not tag & 0x10000)
        if len(stack) // 2 + 1 > MAX_DEPTH:
            _refuse(f"sequences nest deeper than {MAX_DEPTH}")
        stack.append(container)
        return offset
    if length > top.limit - offset:
        raise _BrokenError(f"element {name(tag)} claims {length} bytes, {top.limit - offset} are left")
    if items is not None and top.public:
        items[-1].setdefault(tag, Place(vr, offset, length))
    return offset + length


def _plain_header(window: bytes, at: int, pos: int, *, big: bool) -> tuple[int, bytes, int, int]:
    """Tag, no VR, offset and length of an element in implicit VR, of an item or of a delimiter (PS3.5 §7.1.3, §7.5)."""
    group, element, length = _PLAIN[big].unpack_from(window, at)
    return group << 16 | element, b"", pos + 8, length


def _explicit_header(window: bytes, at: int, pos: int, *, big: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR, offset and length of an element in explicit VR (PS3.5 §7.1.2)."""
    group, element, vr, length = _HEADER[big].unpack_from(window, at)
    tag = group << 16 | element
    if vr in _SHORT_VRS:
        return tag, vr, pos + 8, length
    if vr in _LONG_VRS or (vr.isalpha() and vr.isupper()):  # VRs to come have the long form, PS3.5 §6.2
        if len(window) - at < 12:
            _refuse(f"truncated: the file ends in the header of element {name(tag)}")
        return tag, vr, pos + 12, _LONG[big].unpack_from(window, at + 8)[0]
    return _refuse(f"element {name(tag)} at byte {pos} has no Value Representation")


def _starts_with_item(window: bytes, at: int, length: int) -> bool:
    """Whether a value whose VR does not say so is a sequence."""
    return length >= 8 and window[at : at + 4] == _ITEM_BYTES


def _fragments(source: Source, offset: int, limit: int, *, big: bool) -> Fragments:
    """The fragments of encapsulated pixel data (PS3.5 §A.4)."""
    items: list[tuple[int, int]] = []
    pos = offset
    while True:
        header = source.read(pos, 8) if pos <= limit - 8 else b""
        if len(header) < 8:
            _refuse("truncated: encapsulated pixel data end without a sequence delimiter")
        tag, _, pos, length = _plain_header(header, 0, pos, big=big)
        if tag == _SEQUENCE_END:
            return Fragments(tuple(items[1:]), pos)
        if tag != _ITEM:
            _refuse(f"{name(tag)} where a fragment of encapsulated pixel data is expected")
        if length > limit - pos:  # an undefined length too
            _refuse(f"truncated: a fragment of pixel data claims {length} bytes, {limit - pos} are left")
        items.append((pos, length))
        source.spend(1)
        pos += length


def _refuse(message: str) -> NoReturn:
    raise RejectedInstance(CANNOT_UNDERSTAND, message)
