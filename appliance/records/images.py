"""What arrives: instances, whose they are, where they come from, and how one picture of them is called."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.records.word import Word

Vector = tuple[float, float, float]
#: The source of the box's own test studies: they are nobody's, so they are in no figure, and nobody is called for them.
#: No source of the configuration can have this name, since it has a blank in it.
SELF_TEST_SOURCE = "self test"


class SourceMode(Word):
    """How a scanner uses the box (DESIGN §1.2)."""

    #: The scanner sends to the PACS itself; the box is a second destination and owes it no originals.
    PARALLEL = "parallel"
    #: The box is in the path: it forwards every image untouched, retried for ever.
    INLINE = "inline"


class VersionState(Word):
    """What the box does with one received version of an instance."""

    #: The version that is analysed and shown.
    CURRENT = "current"
    #: An earlier version, or one whose difference does not matter to the analysis; kept and forwarded.
    KEPT = "kept"
    #: Other pixels than the current version: not analysed, not forwarded until a person chooses.
    CONFLICT = "conflict"
    #: Another transfer syntax: the worker is comparing the decoded values; not forwarded yet.
    COMPARING = "comparing"
    #: The version that would be current, had a rejection note not taken it back: kept and forwarded, never analysed.
    REJECTED = "rejected"


class RejectionTitle(Word):
    """Document titles of Key Object Selections that reject what they name (IHE IOCM; codes of DCM, CID 7010)."""

    QUALITY = "113001"
    PATIENT_SAFETY = "113037"
    WORKLIST_ENTRY = "113038"
    RETENTION_EXPIRED = "113039"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose images these are and under which order. Text is decoded; empty where the header has none.

    ``patient_name`` keeps the DICOM form (PS3.5 §6.2.1): component groups alphabetic=ideographic=phonetic.
    """

    study_instance_uid: str
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_id: str = ""
    requested_procedure_id: str = ""
    referring_physician_name: str = ""

    @property
    def patient_key(self) -> tuple[str, str, str, str]:
        """What must agree between two data sets of one Study Instance UID for them to be one patient's."""
        return (self.issuer_of_patient_id, self.patient_id, self.patient_name, self.patient_birth_date)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """What a rejection note says: these instances are not to be used, for this reason."""

    title: RejectionTitle
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the box reads of one instance before its pixels. Missing attributes are empty, ``None`` or ``()``."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    series_instance_uid: str
    identity: Identity
    specific_character_set: str = ""
    modality: str = ""
    series_number: int | None = None
    series_description: str = ""
    study_description: str = ""
    study_date: str = ""
    study_time: str = ""
    protocol_name: str = ""
    body_part_examined: str = ""
    view_position: str = ""
    patient_age: str = ""
    patient_orientation: tuple[str, ...] = ()
    laterality: str = ""
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    station_name: str = ""
    device_serial_number: str = ""
    image_type: tuple[str, ...] = ()
    convolution_kernel: str = ""
    contrast_bolus_agent: str = ""
    presentation_intent_type: str = ""
    burned_in_annotation: str = ""
    lossy_image_compression: str = ""
    photometric_interpretation: str = ""
    instance_number: int | None = None
    acquisition_number: int | None = None
    number_of_frames: int | None = None
    frame_of_reference_uid: str = ""
    image_position_patient: Vector | None = None
    image_orientation_patient: tuple[float, float, float, float, float, float] | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    slice_thickness_mm: float | None = None
    #: Of a projection image, as its detector reports them (IEC 62494-1): what reached the detector, what should have,
    #: and ten times the decimal logarithm of the one over the other.
    exposure_index: float | None = None
    target_exposure_index: float | None = None
    deviation_index: float | None = None
    rows: int | None = None
    columns: int | None = None
    samples_per_pixel: int | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    #: False for SR, presentation states, RT plans and other objects without pixel data.
    has_pixels: bool = False
    #: SHA-256 over everything that gives the pixel bytes their meaning: photometric interpretation, rescale, LUTs,
    #: bits, rows, columns, position, orientation, spacing. Equal pixels under another digest are other pixels.
    meaning_digest: str = ""
    #: Of a Key Object Selection that is a rejection note; no column of the database holds it.
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One object that lies on disk for good, about to be recorded and then acknowledged."""

    header: Header
    #: Path of the Part 10 file, relative to the spool.
    path: str
    size: int
    #: SHA-256 of the data set as it came over the wire (without preamble and file meta information).
    data_sha256: str
    association_id: int
    source: str
    #: DIMSE priority HIGH of the C-STORE request, or the source's own setting.
    stat: bool
    received_mono: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRef:
    """Where an association comes from, as far as completeness, forwarding and screens must know."""

    name: str
    mode: SourceMode
    stat: bool = False
    assume_charset: str = ""
    #: False of a destination that calls back with a report: it is no scanner.
    may_store: bool = True


#: Stands between SOP Instance UID and frame number in the id of a picture; no UID can hold it.
_FRAME = "#"


def slice_id(sop_instance_uid: str, frame_number: int | None = None) -> str:
    """The id of a picture: of a single-frame object its UID, of a multi-frame object with the frame's number from 1."""
    return sop_instance_uid if frame_number is None else f"{sop_instance_uid}{_FRAME}{frame_number}"


def split_id(slice_id: str) -> tuple[str, int | None]:
    """SOP Instance UID and frame number (from 1; None for a single-frame object) of a picture's id."""
    uid, _, frame = slice_id.partition(_FRAME)
    return uid, int(frame) if frame else None
