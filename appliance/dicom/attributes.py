"""Typed values of elements, read where they lie; garbage is absence and never an exception."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from appliance.dicom import elements
from appliance.dicom.charsets import decode_text
from appliance.dicom.elements import Encoding, Place
from appliance.dicom.source import Source

#: Bytes that change places in Explicit VR Big Endian.
_WORD = {b"US": 2, b"SS": 2, b"OW": 2, b"AT": 2, b"UL": 4, b"SL": 4, b"FL": 4, b"OF": 4, b"OL": 4, b"FD": 8, b"OD": 8}


class Attributes:
    """Typed values of the elements of one data set; what is absent or cannot be read is empty or ``None``."""

    __slots__ = ("_order", "_places", "_source", "encoding")

    def __init__(self, source: Source, encoding: Encoding, places: dict[int, Place]) -> None:
        """Read ``places``, of the top level or of an item, from ``source``."""
        self._source, self._places = source, places
        self.encoding = encoding
        self._order = "big" if encoding.big else "little"

    def raw(self, tag: int, limit: int = 1 << 16) -> bytes:
        """The value's bytes, at most ``limit``; empty for a sequence of undefined length."""
        place = self._places.get(tag)
        if place is None or place.length == elements.UNDEFINED:
            return b""
        return self._source.read(place.offset, min(place.length, limit))

    def ascii(self, tag: int) -> str:
        """A code string or other text of the default repertoire."""
        return decode_text(self.raw(tag), "", "CS")

    def short(self, tag: int, *, signed: bool = False) -> int | None:
        """The first 16-bit number of an element (VR US or SS)."""
        raw = self.raw(tag, 2)
        return int.from_bytes(raw, self._order, signed=signed) if len(raw) == 2 else None  # type: ignore[arg-type]

    def decimals(self, tag: int) -> tuple[float, ...]:
        """The numbers of a decimal string; empty if one of them is none."""
        return decimals(self.raw(tag, 1024))

    def decimal(self, tag: int) -> float | None:
        """The first number of a decimal string."""
        return next(iter(self.decimals(tag)), None)

    def integer(self, tag: int) -> int | None:
        """The first number of an integer string, if it fits 32 bits as PS3.5 §6.2 asks."""
        number = self.decimal(tag)
        return int(number) if number is not None and number == int(number) and abs(number) < 1 << 31 else None

    def items(self, tag: int) -> list[Attributes]:
        """The items of a sequence with the leaves below each, flat.

        Raises:
            RejectedInstance: the sequence cannot be read.
        """
        place = self._places.get(tag)
        encoding = elements.IMPLICIT_LE if place and place.vr == b"UN" else self.encoding
        return [
            Attributes(self._source, encoding, item) for item in elements.flatten(self._source, place, self.encoding)
        ]

    def canonical(self, tag: int) -> bytes:
        """The value, at most 1 MiB, with its byte order undone: one value has the same bytes in all syntaxes."""
        raw = self.raw(tag, 1 << 20)
        word = _WORD.get(self._places[tag].vr, 1) if self.encoding.big else 1
        return raw if word == 1 else b"".join(raw[i : i + word][::-1] for i in range(0, len(raw), word))

    def __contains__(self, tag: int) -> bool:
        """Whether the element is there, be it empty."""
        return tag in self._places

    def __iter__(self) -> Iterator[int]:
        """The tags."""
        return iter(self._places)


def decimals(raw: bytes) -> tuple[float, ...]:
    """The numbers of a decimal or integer string; empty if one of them is none."""
    if not raw or b"_" in raw:  # Python reads 1_000, DICOM does not
        return ()
    try:
        numbers = tuple(float(part) for part in raw.rstrip(b"\0 ").split(b"\\"))
    except ValueError:
        return ()
    return numbers if all(isfinite(number) for number in numbers) else ()
