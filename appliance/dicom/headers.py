"""From a Part 10 file to a ``records.Header``, or to a refusal (PS3.3 Annex C.7, PS3.10 §7).

The header decides whose images these are, whether they are all there and whether they were here before. It is read
while the scanner waits for its answer: header bytes only, never the pixels, no library that trusts what it reads.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, NoReturn

from appliance.dicom import elements, tags
from appliance.dicom.attributes import Attributes
from appliance.dicom.charsets import decode_text
from appliance.dicom.elements import DataSet, Encoding, Place
from appliance.dicom.meaning import meaning_digest
from appliance.dicom.rejection import read_rejection
from appliance.dicom.source import CANNOT_UNDERSTAND, Source, open_source
from appliance.errors import RejectedInstance
from appliance.records import Header, Identity

DOES_NOT_MATCH = 0xA900

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
#: Transfer syntaxes whose pixel data are not encapsulated.
NATIVE = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN})
#: Encapsulated syntaxes with a codestream of its own for each frame, so that frames can be counted (PS3.5 §A.4).
_ONE_STREAM_A_FRAME = re.compile(r"1\.2\.840\.10008\.1\.2\.(5|4\.(5\d|57|70|80|81|90|91|20[123]))$")

#: A UID as far as it matters here; anything else is a way into a path, a query or a log.
UID = re.compile(r"[0-9.]{1,64}")

_UIDS = {
    "sop_class_uid": (0x00080016, "SOP Class UID"),
    "sop_instance_uid": (0x00080018, "SOP Instance UID"),
    "study_instance_uid": (0x0020000D, "Study Instance UID"),
    "series_instance_uid": (0x0020000E, "Series Instance UID"),
}
_IDENTITY = {
    "patient_id": (0x00100020, "LO"),
    "issuer_of_patient_id": (0x00100021, "LO"),
    "patient_name": (0x00100010, "PN"),
    "patient_birth_date": (0x00100030, "DA"),
    "patient_sex": (0x00100040, "CS"),
    "accession_number": (0x00080050, "SH"),
    "study_id": (0x00200010, "SH"),
    "referring_physician_name": (0x00080090, "PN"),
}
_TEXTS = {
    "modality": (0x00080060, "CS"),
    "series_description": (0x0008103E, "LO"),
    "study_description": (0x00081030, "LO"),
    "study_date": (0x00080020, "DA"),
    "study_time": (0x00080030, "TM"),
    "protocol_name": (0x00181030, "LO"),
    "body_part_examined": (0x00180015, "CS"),
    "view_position": (0x00185101, "CS"),
    "patient_age": (0x00101010, "AS"),
    "manufacturer": (0x00080070, "LO"),
    "manufacturer_model_name": (0x00081090, "LO"),
    "station_name": (0x00081010, "SH"),
    "device_serial_number": (0x00181000, "LO"),
    "convolution_kernel": (0x00181210, "SH"),
    "contrast_bolus_agent": (0x00180010, "LO"),
    "presentation_intent_type": (0x00080068, "CS"),
    "burned_in_annotation": (0x00280301, "CS"),
    "lossy_image_compression": (0x00282110, "CS"),
    "photometric_interpretation": (tags.PHOTOMETRIC_INTERPRETATION, "CS"),
}
_LISTS = {"patient_orientation": tags.PATIENT_ORIENTATION, "image_type": 0x00080008}
_NUMBERS = {
    "series_number": 0x00200011,
    "instance_number": 0x00200013,
    "acquisition_number": 0x00200012,
    "number_of_frames": tags.NUMBER_OF_FRAMES,
}
_SHORTS = {
    "rows": tags.ROWS,
    "columns": tags.COLUMNS,
    "samples_per_pixel": tags.SAMPLES_PER_PIXEL,
    "bits_allocated": tags.BITS_ALLOCATED,
    "bits_stored": tags.BITS_STORED,
    "pixel_representation": tags.PIXEL_REPRESENTATION,
}
#: Attributes of one number (VR DS, VM 1) with the least and the greatest value that can be meant. An index is never
#: zero, though some devices write that for "not known"; a deviation of 50 is a factor of 100,000.
_EXPOSURE = {
    "exposure_index": (0x00181411, 1e-6, 1e6),
    "target_exposure_index": (0x00181412, 1e-6, 1e6),
    "deviation_index": (0x00181413, -50.0, 50.0),
}
_IMAGE_LATERALITY, _LATERALITY = 0x00200062, 0x00200060
_FRAME_OF_REFERENCE_UID = 0x00200052
_REQUEST_ATTRIBUTES, _REQUESTED_PROCEDURE_ID = 0x00400275, 0x00401001
_UNREPEATED = frozenset(
    [*(tag for tag, _ in _UIDS.values()), *(tag for tag, _ in _IDENTITY.values()), *tags.ALL_PIXEL_DATA],
)


def read_header(path: Path, *, assume_charset: str = "") -> Header:
    """Read and check the header of a Part 10 file.

    Args:
        path: The file.
        assume_charset: What the source really sends where it declares nothing (``charsets.decode_text``).

    Raises:
        RejectedInstance: 0xC000; the message says what is wrong and holds no patient data.
        OSError: the file cannot be read.
    """
    with open_source(path) as source:
        syntax, ds = _walk(source)
        return _Reader(source, ds, assume_charset).header(syntax)


def check_against_command(header: Header, affected_sop_class_uid: str, affected_sop_instance_uid: str) -> None:
    """The data set must be the object that the C-STORE request announced (PS3.4 §B.2.3).

    Raises:
        RejectedInstance: 0xA900.
    """
    for what, ours, theirs in (
        ("SOP Class UID", header.sop_class_uid, affected_sop_class_uid),
        ("SOP Instance UID", header.sop_instance_uid, affected_sop_instance_uid),
    ):
        if ours != str(theirs).rstrip("\0 "):
            raise RejectedInstance(DOES_NOT_MATCH, f"the {what} of the data set is not that of the C-STORE request")


def data_set_offset(path: Path) -> int:
    """Where the data set starts in a Part 10 file: what lies behind is what came over the wire.

    Raises:
        RejectedInstance: 0xC000; this is no Part 10 file.
        OSError: the file cannot be read.
    """
    with open_source(path) as source:
        return elements.read_meta(source)[1]


def pixel_sha256(path: Path) -> str:
    """SHA-256 of the pixel data's value bytes, streamed; empty for an object without pixels.

    Of encapsulated pixel data the fragments alone count: offset table and item headers may differ between two ways.

    Raises:
        RejectedInstance: 0xC000; the file cannot be read as a data set.
        OSError: the file cannot be read.
    """
    with open_source(path) as source:
        _, ds = _walk(source)
        place = pixel_place(ds)
        if place is None:
            return ""
        spans = ds.fragments.items if ds.fragments else ((place.offset, place.length),)
        digest = hashlib.sha256()
        for offset, length in spans:
            for chunk in source.chunks(offset, length):
                digest.update(chunk)
        return digest.hexdigest()


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """How the data set of a transfer syntax is written; private ones are taken for Explicit VR Little Endian.

    Raises:
        RejectedInstance: Deflated, which is not accepted: a few bytes could fill the memory (T21).
    """
    if transfer_syntax_uid == DEFLATED:
        _refuse("Deflated Explicit VR Little Endian is not accepted; let the sender propose an undeflated syntax")
    if transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN:
        return elements.IMPLICIT_LE
    return elements.EXPLICIT_BE if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else elements.EXPLICIT_LE


def pixel_place(ds: DataSet) -> Place | None:
    """The pixel data element, be it integer, float or double."""
    return next((ds.places[tag] for tag in tags.ALL_PIXEL_DATA if tag in ds.places), None)


def _walk(source: Source) -> tuple[str, DataSet]:
    syntax, offset = elements.read_meta(source)
    return syntax, elements.walk(source, offset, encoding_of(syntax))


class _Reader:
    """Builds the header of one data set."""

    def __init__(self, source: Source, ds: DataSet, assume_charset: str) -> None:
        self._ds = ds
        self._assume_charset = assume_charset
        self._attributes = Attributes(source, ds.encoding, ds.places)
        self._charset = self._attributes.ascii(0x00080005)

    def header(self, syntax: str) -> Header:
        attributes = self._attributes
        if repeated := self._ds.repeated & _UNREPEATED:
            _refuse(f"element {tags.name(min(repeated))} stands twice in the data set")
        uids = {field: self._uid(tag, what) for field, (tag, what) in _UIDS.items()}
        frames = attributes.integer(_NUMBERS["number_of_frames"])
        shorts = {field: attributes.short(tag) for field, tag in _SHORTS.items()}
        _check_pixels(self._ds, syntax, attributes.ascii(tags.PHOTOMETRIC_INTERPRETATION), shorts, frames)
        position = attributes.decimals(tags.IMAGE_POSITION_PATIENT)
        orientation = attributes.decimals(tags.IMAGE_ORIENTATION_PATIENT)
        spacing = attributes.decimals(tags.PIXEL_SPACING)
        frame_of_reference = attributes.ascii(_FRAME_OF_REFERENCE_UID)
        fields: dict[str, Any] = {
            **{field: self._text(tag, vr) for field, (tag, vr) in _TEXTS.items()},
            **{field: self._list(tag) for field, tag in _LISTS.items()},
            **{field: attributes.integer(tag) for field, tag in _NUMBERS.items()},
            **{field: self._number(*place) for field, place in _EXPOSURE.items()},
            **shorts,
        }
        return Header(
            sop_class_uid=uids["sop_class_uid"],
            sop_instance_uid=uids["sop_instance_uid"],
            series_instance_uid=uids["series_instance_uid"],
            transfer_syntax_uid=syntax,
            identity=Identity(
                study_instance_uid=uids["study_instance_uid"],
                requested_procedure_id=self._requested_procedure_id(),
                **{field: self._text(tag, vr) for field, (tag, vr) in _IDENTITY.items()},
            ),
            specific_character_set=self._charset,
            laterality=attributes.ascii(_IMAGE_LATERALITY) or attributes.ascii(_LATERALITY),
            frame_of_reference_uid=frame_of_reference if UID.fullmatch(frame_of_reference) else "",
            image_position_patient=position if len(position) == 3 else None,
            image_orientation_patient=orientation if len(orientation) == 6 else None,
            pixel_spacing_mm=spacing if len(spacing) == 2 else None,
            slice_thickness_mm=attributes.decimal(tags.SLICE_THICKNESS),
            has_pixels=pixel_place(self._ds) is not None,
            meaning_digest=meaning_digest(attributes, native=syntax in NATIVE),
            rejection=read_rejection(attributes, uids["sop_class_uid"]),
            **fields,
        )

    def _uid(self, tag: int, what: str) -> str:
        raw = self._attributes.raw(tag, 66).rstrip(b"\0 ")
        if not raw:
            _refuse(f"{what} {tags.name(tag)} is missing or empty")
        text = raw.decode("ascii", "replace")
        if not UID.fullmatch(text):
            _refuse(f"{what} {tags.name(tag)} is no UID: 1 to 64 characters of digits and dots are allowed")
        return text

    def _text(self, tag: int, vr: str) -> str:
        return decode_text(self._attributes.raw(tag), self._charset, vr, self._assume_charset)

    def _number(self, tag: int, least: float, greatest: float) -> float | None:
        numbers = self._attributes.decimals(tag)
        return numbers[0] if len(numbers) == 1 and least <= numbers[0] <= greatest else None

    def _list(self, tag: int) -> tuple[str, ...]:
        text = self._attributes.ascii(tag)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def _requested_procedure_id(self) -> str:
        if text := self._text(_REQUESTED_PROCEDURE_ID, "SH"):
            return text
        for item in self._attributes.items(_REQUEST_ATTRIBUTES):
            return decode_text(item.raw(_REQUESTED_PROCEDURE_ID), self._charset, "SH", self._assume_charset)
        return ""


def _check_pixels(
    ds: DataSet, syntax: str, photometric: str, shorts: dict[str, int | None], number_of_frames: int | None
) -> None:
    """Pixel data that are cut short are refused while the sender still has the whole (PS3.5 §8.1.1, §A.4)."""
    place = pixel_place(ds)
    if place is None:
        return
    frames = max(number_of_frames or 1, 1)
    if ds.fragments is not None:
        if syntax in NATIVE:
            _refuse("the pixel data are encapsulated, the transfer syntax is not")
        filled = sum(1 for _, length in ds.fragments.items if length)
        needed = frames if _ONE_STREAM_A_FRAME.match(syntax) else 1
        if filled < needed:
            _refuse(f"truncated: {filled} filled fragments of pixel data for {needed} frames")
        return
    if place.length == elements.UNDEFINED:
        _refuse("pixel data of undefined length without fragments")
    if _ONE_STREAM_A_FRAME.match(syntax):
        _refuse("the transfer syntax is encapsulated, the pixel data are not")
    expected = native_bytes(photometric, shorts, frames)
    if syntax in NATIVE and expected is not None and place.length < expected:
        _refuse(f"truncated: {place.length} bytes of pixel data, {expected} are needed")


def native_bytes(photometric: str, shorts: dict[str, int | None], frames: int) -> int | None:
    """How many bytes native pixel data must have; ``None`` where the attributes do not say.

    Args:
        photometric: Photometric Interpretation; sub-sampled chroma takes fewer bytes (PS3.3 §C.7.6.3.1.2).
        shorts: rows, columns, samples_per_pixel, bits_allocated by these names.
        frames: Number of Frames.
    """
    rows, columns, bits = shorts["rows"], shorts["columns"], shorts["bits_allocated"]
    samples = shorts["samples_per_pixel"]
    if not rows or not columns or not bits:
        return None
    values = rows * columns * (1 if samples is None else samples) * frames
    if samples == 3:
        if photometric.endswith("_422"):
            values = values * 2 // 3
        elif photometric.endswith("_420"):
            values //= 2
    return (values * bits + 7) // 8


def _refuse(message: str) -> NoReturn:
    raise RejectedInstance(CANNOT_UNDERSTAND, message)
