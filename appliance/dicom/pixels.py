"""From a file to numbers that a model may see; called by the worker alone.

One decoder for each transfer syntax, pinned: two decoders that disagree by one grey value would make two results of
one image. Attributes are read by our own walker, so that no library parses a hostile data set; only code streams
reach the decoders. Whatever fails is ``NotAnalysable(CANNOT_DECODE)`` and never a half-filled array.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.dicom import elements, headers, luts, tags
from appliance.dicom.attributes import Attributes
from appliance.dicom.elements import DataSet
from appliance.dicom.geometry import SlicePlace
from appliance.dicom.source import Source, open_source
from appliance.errors import NotAnalysable, RejectedInstance
from appliance.records import Reason

#: The decoding plugin of pydicom for each encapsulated transfer syntax.
DECODERS = {
    "1.2.840.10008.1.2.5": "pydicom",  # RLE Lossless
    "1.2.840.10008.1.2.4.50": "gdcm",  # JPEG Baseline, 8 bit
    "1.2.840.10008.1.2.4.51": "gdcm",  # JPEG Extended; gdcm refuses 12 bit
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG Lossless, selection value 1
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS Near-lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.203": "pylibjpeg",  # HTJ2K
}
#: Decoded size of one object that a worker takes on: 2,000 CT slices.
MAX_DECODED_BYTES = 1 << 30

_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@dataclass(frozen=True, slots=True)
class Decoded:
    """The stored values of one object."""

    #: (frames, rows, columns) or (frames, rows, columns, samples); may be read-only.
    frames: NDArray[Any]
    #: True where a stored value is Pixel Padding (PS3.3 §C.7.5.1.1.2); ``None`` if the object declares none.
    padding: NDArray[np.bool_] | None
    #: Of ``frames``: colour models of the code stream are undone.
    photometric_interpretation: str


@dataclass(frozen=True, slots=True)
class HuSlices:
    """The slices of one CT object, in the order of its frames."""

    #: (frames, rows, columns) int16, whole Hounsfield units, not below -1024.
    hu: NDArray[np.int16]
    places: tuple[SlicePlace, ...]
    #: Distance between rows, distance between columns (PS3.3 §10.7.1.3).
    pixel_spacing_mm: tuple[float, float]


def decode(path: Path) -> Decoded:
    """The stored values, with unused bits cleared.

    Raises:
        NotAnalysable: CANNOT_DECODE.
        OSError: the file cannot be read.
    """
    with _open(path) as image:
        return image.decode()


def same_pixels(path_a: Path, path_b: Path) -> bool:
    """Whether two objects hold the same values, whatever their transfer syntaxes.

    Raises:
        NotAnalysable: CANNOT_DECODE, one of them.
        OSError: a file cannot be read.
    """
    a, b = decode(path_a).frames, decode(path_b).frames
    return a.shape == b.shape and bool(np.array_equal(a, b))


def hu_slices(path: Path) -> HuSlices:
    """Hounsfield units and places of a CT object, single-frame or enhanced multi-frame.

    Slope and intercept are those of each slice or frame; padding and everything below air becomes -1024.

    Raises:
        NotAnalysable: CANNOT_DECODE, or OUT_OF_ENVELOPE for an object without HU or without a place.
        OSError: the file cannot be read.
    """
    with _open(path) as image:
        if tags.MODALITY_LUT_SEQUENCE in image.attributes:
            raise NotAnalysable(
                Reason.OUT_OF_ENVELOPE, "a CT image with a Modality LUT Sequence has no Hounsfield units"
            )
        frames = image.frame_attributes()
        places = tuple(_place(frame) for frame in frames)
        spacings = {_numbers(frame, tags.PIXEL_SPACING, 2, "Pixel Spacing") for frame in frames}
        if len(spacings) != 1:
            raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "the frames differ in Pixel Spacing")
        rescales = [_rescale(frame) for frame in frames]
        decoded = image.decode()
    if decoded.frames.ndim != 3 or len(frames) != len(decoded.frames):
        raise NotAnalysable(
            Reason.OUT_OF_ENVELOPE,
            "{places} places for {frames} frames, or a colour image",
            places=len(frames),
            frames=len(decoded.frames),
        )
    hu = np.empty(decoded.frames.shape, dtype=np.int16)
    for number, (slope, intercept) in enumerate(rescales):
        hu[number] = luts.hounsfield(decoded.frames[number], slope, intercept)
    if decoded.padding is not None:
        hu[decoded.padding] = luts.AIR_HU
    row_mm, column_mm = spacings.pop()
    return HuSlices(hu, places, (row_mm, column_mm))


def frames_of_enhanced(path: Path) -> tuple[SlicePlace, ...]:
    """Where the frames of an enhanced multi-frame object lie (one place for a single-frame one), from its header.

    Raises:
        NotAnalysable: OUT_OF_ENVELOPE, a frame without a place; CANNOT_DECODE, a header that cannot be read.
        OSError: the file cannot be read.
    """
    with _open(path) as image:
        return tuple(_place(frame) for frame in image.frame_attributes())


def xray_image(path: Path) -> NDArray[np.float32]:
    """A projection image as a reader sees it, (rows, columns) float32 from 0 (black, air) to 1 (white, bone).

    Modality LUT or rescale, then VOI LUT or the first window (else the whole range), then polarity
    (PS3.4 §N.2); padding is black.

    Raises:
        NotAnalysable: CANNOT_DECODE; OUT_OF_ENVELOPE for colour, several frames, or a polarity that contradicts itself.
        OSError: the file cannot be read.
    """
    with _open(path) as image:
        attributes = image.attributes
        inverted = luts.is_inverted(attributes)
        decoded = image.decode()
        if decoded.frames.ndim != 3 or len(decoded.frames) != 1:
            raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "not a single grey-scale frame")
        padding = None if decoded.padding is None else decoded.padding[0]
        values = luts.modality_values(decoded.frames[0], attributes)
        shown = luts.values_of_interest(values, attributes, padding)
    if inverted:
        shown = np.subtract(np.float32(1), shown)
    if padding is not None:
        shown[padding] = 0
    return shown


def picture(image: NDArray[Any], window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """An 8-bit picture of HU (with a window) or of values from 0 to 1 (without).

    Args:
        image: Any shape.
        window: Centre and width, VOI LUT function LINEAR (PS3.3 §C.11.2.1.2).
    """
    values = np.asarray(image, dtype=np.float32)
    if window is not None:
        values = luts.window_values(values, *window)
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


class _Image:
    """One object that is open."""

    def __init__(self, source: Source, syntax: str, ds: DataSet) -> None:
        self._source, self._syntax, self._ds = source, syntax, ds
        self.attributes = Attributes(source, ds.encoding, ds.places)

    def frame_attributes(self) -> list[list[Attributes]]:
        """For each frame where its attributes stand, nearest first (PS3.3 §C.7.6.16)."""
        frames = self.attributes.items(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
        shared = self.attributes.items(tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
        return [[frame, *shared] for frame in frames] or [[self.attributes]]

    def decode(self) -> Decoded:
        place = headers.pixel_place(self._ds)
        if place is None:
            raise NotAnalysable(Reason.CANNOT_DECODE, "the object has no pixel data")
        options = self._options()
        signed = options["pixel_representation"] == 1
        if self._ds.fragments is not None:
            code = self._source.read(place.offset, self._ds.fragments.end - place.offset)
            frames, photometric = self._library(code, options, DECODERS.get(self._syntax))
            return Decoded(frames, _padding(frames, self.attributes, signed=signed), photometric)
        raw, photometric = self._native(options, place.offset, place.length)
        frames = raw
        if raw.dtype.kind in "iu" and options["bits_allocated"] > 1:
            frames = _stored_bits(raw, options["bits_stored"], self.attributes.short(tags.HIGH_BIT))
        padding = _padding(frames, self.attributes, signed=signed)
        beyond = None if frames is raw else _padding(raw, self.attributes, signed=signed)
        if padding is not None and beyond is not None:
            # A padding value may need more bits than Bits Stored has: -2000 beside 12 bits without sign.
            padding |= beyond
        return Decoded(frames, padding, photometric)

    def _options(self) -> dict[str, Any]:
        """Image Pixel module (PS3.3 §C.7.6.3), checked before one byte is allocated for it."""
        attributes = self.attributes
        tag = next(tag for tag in tags.ALL_PIXEL_DATA if tag in attributes)
        allocated, samples = attributes.short(tags.BITS_ALLOCATED), attributes.short(tags.SAMPLES_PER_PIXEL)
        options: dict[str, Any] = {
            "rows": attributes.short(tags.ROWS),
            "columns": attributes.short(tags.COLUMNS),
            "samples_per_pixel": 1 if samples is None else samples,
            "bits_allocated": allocated,
            "bits_stored": attributes.short(tags.BITS_STORED) or allocated,
            "pixel_representation": attributes.short(tags.PIXEL_REPRESENTATION) or 0,
            "photometric_interpretation": attributes.ascii(tags.PHOTOMETRIC_INTERPRETATION),
            "number_of_frames": max(attributes.integer(tags.NUMBER_OF_FRAMES) or 1, 1),
            "planar_configuration": attributes.short(tags.PLANAR_CONFIGURATION) or 0,
            "pixel_keyword": _PIXEL_KEYWORDS[tags.ALL_PIXEL_DATA.index(tag)],
        }
        if not options["rows"] or not options["columns"] or allocated not in {1, 8, 16, 32, 64}:
            raise NotAnalysable(Reason.CANNOT_DECODE, "Rows, Columns or Bits Allocated are missing or out of range")
        if options["samples_per_pixel"] not in {1, 3} or options["pixel_representation"] > 1:
            raise NotAnalysable(Reason.CANNOT_DECODE, "Samples per Pixel or Pixel Representation are out of range")
        if not 1 <= options["bits_stored"] <= allocated:
            raise NotAnalysable(
                Reason.CANNOT_DECODE,
                "{stored} bits stored in {allocated} bits allocated",
                stored=options["bits_stored"],
                allocated=allocated,
            )
        values = options["rows"] * options["columns"] * options["samples_per_pixel"] * options["number_of_frames"]
        if values * max(allocated // 8, 1) > MAX_DECODED_BYTES:
            raise NotAnalysable(
                Reason.CANNOT_DECODE, "the decoded object is larger than {most} MiB", most=MAX_DECODED_BYTES >> 20
            )
        return options

    def _native(self, options: dict[str, Any], offset: int, length: int) -> tuple[NDArray[Any], str]:
        if self._syntax not in headers.NATIVE:
            raise NotAnalysable(
                Reason.CANNOT_DECODE, "the pixel data are neither encapsulated nor of a native transfer syntax"
            )
        photometric, frames = options["photometric_interpretation"], options["number_of_frames"]
        expected = headers.native_bytes(photometric, options, frames)
        # Trailing padding is harmless; a whole frame more means that an attribute does not tell the truth.
        if expected is None or not expected <= length < expected + max(expected // frames, 2):
            raise NotAnalysable(
                Reason.CANNOT_DECODE,
                "{length} bytes of pixel data where {expected} are expected",
                length=length,
                expected="?" if expected is None else expected,
            )
        raw = self._source.read(offset, length)
        big, bits = self._ds.encoding.big, options["bits_allocated"]
        words_of_bytes = big and bits == 8 and self._ds.places[tags.PIXEL_DATA].vr == b"OW"
        if options["samples_per_pixel"] > 1 or bits == 1 or words_of_bytes:
            return self._library(raw, {**options, "be_swap_ow": words_of_bytes}, "")
        kind = "f" if "Float" in options["pixel_keyword"] else "ui"[options["pixel_representation"]]
        dtype = np.dtype(f"{'>' if big else '<'}{kind}{bits // 8}")
        array = np.frombuffer(raw, dtype=dtype, count=expected // dtype.itemsize)
        array = array.reshape(frames, options["rows"], options["columns"])
        return array.astype(dtype.newbyteorder("="), copy=False), photometric

    def _library(self, code: bytes, options: dict[str, Any], plugin: str | None) -> tuple[NDArray[Any], str]:
        """Decode with pydicom's decoder of the syntax and the pinned plugin."""
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        syntax = UID(self._syntax)
        if plugin is None:
            raise NotAnalysable(Reason.CANNOT_DECODE, "no decoder for transfer syntax {syntax}", syntax=syntax.name)
        if tags.EXTENDED_OFFSET_TABLE in self.attributes:
            tables = (tags.EXTENDED_OFFSET_TABLE, tags.EXTENDED_OFFSET_TABLE_LENGTHS)
            options = {**options, "extended_offsets": tuple(self.attributes.raw(tag, 1 << 20) for tag in tables)}
        try:
            with warnings.catch_warnings():
                # Warnings quote the data set; what they complain about is checked by us.
                warnings.simplefilter("ignore")
                array, properties = get_decoder(syntax).as_array(code, decoding_plugin=plugin, **options)
        except Exception as error:  # foreign bytes in foreign code: any error is an image we cannot read
            raise NotAnalysable(
                Reason.CANNOT_DECODE,
                "{syntax}: the code stream cannot be decoded by {decoder}",
                syntax=syntax.name,
                decoder=plugin or "pydicom",
            ) from error
        shape = [options["number_of_frames"], options["rows"], options["columns"]]
        if options["samples_per_pixel"] > 1:
            shape.append(options["samples_per_pixel"])
        if array.size != math.prod(shape):
            raise NotAnalysable(
                Reason.CANNOT_DECODE,
                "{count} decoded values where {expected} are expected",
                count=array.size,
                expected=math.prod(shape),
            )
        return array.reshape(shape), str(properties["photometric_interpretation"])


@contextmanager
def _open(path: Path) -> Iterator[_Image]:
    with open_source(path) as source:
        try:
            syntax, offset = elements.read_meta(source)
            yield _Image(source, syntax, elements.walk(source, offset, headers.encoding_of(syntax)))
        except RejectedInstance as refused:
            raise NotAnalysable(
                Reason.CANNOT_DECODE, "the object cannot be read: {fault}", fault=str(refused)
            ) from refused


def _stored_bits(frames: NDArray[Any], bits_stored: int, high_bit: int | None) -> NDArray[Any]:
    """Clear what old scanners kept above Bits Stored (overlays), and extend the sign (PS3.5 §8.1.1)."""
    allocated = frames.dtype.itemsize * 8
    if bits_stored >= allocated:
        return frames
    if high_bit is None or not bits_stored - 1 <= high_bit < allocated:
        high_bit = bits_stored - 1
    # Left drops the bits above; right, in the array's own sign, drops those below.
    shifted: NDArray[Any] = np.right_shift(np.left_shift(frames, allocated - 1 - high_bit), allocated - bits_stored)
    return shifted


def _padding(frames: NDArray[Any], attributes: Attributes, *, signed: bool) -> NDArray[np.bool_] | None:
    value = attributes.short(tags.PIXEL_PADDING_VALUE, signed=signed)
    if value is None or frames.ndim != 3 or frames.dtype.kind not in "iu":
        return None
    limit = attributes.short(tags.PIXEL_PADDING_RANGE_LIMIT, signed=signed)
    if limit is None or limit == value:
        equal: NDArray[np.bool_] = frames == value
        return equal
    between: NDArray[np.bool_] = (frames >= min(value, limit)) & (frames <= max(value, limit))
    return between


def _numbers(groups: list[Attributes], tag: int, count: int, what: str) -> tuple[float, ...]:
    for attributes in groups:
        if tag in attributes:
            numbers = attributes.decimals(tag)
            if len(numbers) == count:
                return numbers
    raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "{attribute} is missing or unreadable", attribute=what)


def _place(groups: list[Attributes]) -> SlicePlace:
    x, y, z = _numbers(groups, tags.IMAGE_POSITION_PATIENT, 3, "Image Position (Patient)")
    a, b, c, d, e, f = _numbers(groups, tags.IMAGE_ORIENTATION_PATIENT, 6, "Image Orientation (Patient)")
    thickness = next((group.decimal(tags.SLICE_THICKNESS) for group in groups if tags.SLICE_THICKNESS in group), None)
    return SlicePlace((x, y, z), (a, b, c, d, e, f), thickness)


def _rescale(groups: list[Attributes]) -> tuple[float, float]:
    kind = next((group.ascii(tags.RESCALE_TYPE) for group in groups if tags.RESCALE_TYPE in group), "")
    if kind not in {"", "HU"}:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "Rescale Type is {kind}, not HU", kind=kind[:16])
    (slope,) = _numbers(groups, tags.RESCALE_SLOPE, 1, "Rescale Slope")
    (intercept,) = _numbers(groups, tags.RESCALE_INTERCEPT, 1, "Rescale Intercept")
    if slope <= 0:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "Rescale Slope is not above 0")
    return slope, intercept
