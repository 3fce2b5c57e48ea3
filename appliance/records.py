"""The facts that the parts of the box hand to one another: frozen, checked, without behaviour.

Words are those of DESIGN §2; fields equal to a DICOM attribute carry its keyword in snake_case. Times are aware
datetimes (``*_at``) or monotonic seconds (``*_mono``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

Vector = tuple[float, float, float]
#: The source of the box's own test studies: they are nobody's, so they are in no figure, and nobody is called for them.
#: No source of the configuration can have this name, since it has a blank in it.
SELF_TEST_SOURCE = "self test"
_PLACE = re.compile(r"\{(\w+)\}")


class Word(str, Enum):
    """An enum whose members are their text (``enum.StrEnum`` came with Python 3.11; JetPack 6 has 3.10)."""

    def __str__(self) -> str:
        """The bare value, as it stands in the journal and in JSON."""
        return str(self.value)


class Outcome(Word):
    """How an analysis, and by the rule in ``triage.verdict`` a study, ended. Never "normal" or "negative"."""

    FINDING = "FINDING"
    NOTHING_FLAGGED = "NOTHING_FLAGGED"
    NOT_ANALYSED = "NOT_ANALYSED"
    #: Of a study only: no live package claims it. Quiet, counted, no object sent.
    NOT_APPLICABLE = "NOT_APPLICABLE"


class Reason(Word):
    """Why something was not analysed. The order is the order in which a study shows them (DESIGN §2)."""

    OUT_OF_ENVELOPE = "out_of_envelope"
    QUALITY = "quality"
    CANNOT_DECODE = "cannot_decode"
    INCOMPLETE = "incomplete"
    UNRELIABLE_OUTPUT = "unreliable_output"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    AI_UNAVAILABLE = "ai_unavailable"
    WITHDRAWN = "withdrawn"


class Role(Word):
    """What a package's analyses may do. Silent and shadow ones make no outcome, alert or delivery."""

    LIVE = "live"
    SILENT = "silent"
    SHADOW = "shadow"


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


class AnalysisState(Word):
    """Where one package's work on its series revisions stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class AlertState(Word):
    """Where one study's alert stands. Only the first two call for somebody; nothing but the last takes it back."""

    RAISED = "raised"
    PRESENTED = "presented"
    ACKNOWLEDGED = "acknowledged"
    COMMUNICATED = "communicated"
    #: A radiologist has said what it is.
    DECIDED = "decided"
    WITHDRAWN = "withdrawn"


class AlertStep(Word):
    """What happens about an alert that nobody acknowledges, and what a sink outside the screens is told."""

    #: Only for sinks that call from the first second, as a light.
    RAISED = "raised"
    #: The chime is repeated.
    REPEAT = "repeat"
    #: Further targets are told.
    TELL = "tell"
    #: Every screen says so.
    OVERDUE = "overdue"
    #: Category 2: a passive reminder.
    REMIND = "remind"
    #: Somebody tries whether alerts arrive.
    TEST = "test"
    #: What a sink was told of calls no longer.
    CLEARED = "cleared"


class CommunicationMethod(Word):
    """How a finding was told to a person (ACR)."""

    PHONE = "phone"
    IN_PERSON = "in_person"
    MESSAGE = "message"


class DeliveryState(Word):
    """Where one object owed to one destination stands. Nothing owed is ever deleted."""

    #: Waiting for something of ours: the object is not built, or a comparison is not finished.
    HELD = "held"
    OWED = "owed"
    SENT = "sent"
    #: The peer refuses this very object for good; a person must look. Others go on.
    PARKED = "parked"
    #: It is not sent any more, since what it says holds no longer. Where it was built, the destination may have it.
    REPLACED = "replaced"
    #: Its destination is no longer configured, and a person has ended what was owed to it.
    FORGOTTEN = "forgotten"


class DeliveryKind(Word):
    """What a delivery carries."""

    ORIGINAL = "original"
    SR = "sr"
    SEG = "seg"
    GSPS = "gsps"
    KO = "ko"
    SC = "sc"
    #: Of ours: that objects which were sent hold no longer (IHE IOCM).
    REJECTION_NOTE = "rejection_note"
    #: The result as plain values, out of which HL7 messages and webhooks are written.
    STATEMENT = "statement"


class RejectionTitle(Word):
    """Document titles of Key Object Selections that reject what they name (IHE IOCM; codes of DCM, CID 7010)."""

    QUALITY = "113001"
    PATIENT_SAFETY = "113037"
    WORKLIST_ENTRY = "113038"
    RETENTION_EXPIRED = "113039"


class OrderState(Word):
    """What the RIS said of the order of a study."""

    #: It knows none; asked again for a while.
    NONE = "none"
    FOUND = "found"
    #: It knows several that these images may belong to.
    SEVERAL = "several"
    #: The order under this accession number is another patient's: a person must look.
    OTHER_PATIENT = "other_patient"


class StepState(Word):
    """Where a performed procedure step stands (PS3.3 C.4.14, Performed Procedure Step Status)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class Severity(Word):
    """How loudly an issue is shown."""

    WARNING = "warning"
    #: The box does not do its work, or cannot promise to.
    FAULT = "fault"


class QualityChoice(Word):
    """What a technologist did about a quality warning. The box never advises which."""

    ACCEPTED_AS_IS = "accepted_as_is"
    IMAGE_ADDED = "image_added"


class QualityReason(Word):
    """Why, by the categories of a reject analysis, so that a site can count them as it counts its rejects.

    They follow AAPM Report 305 (Little et al., Guidance for standardization of vendor-neutral reject analysis in
    radiography, J Appl Clin Med Phys 24(5), 2023, e13938) at its coarsest level. The codes are ours: a site that sends
    them elsewhere maps them to the report's own list first.
    """

    POSITIONING = "positioning"
    ANATOMY_CUTOFF = "anatomy_cutoff"
    MOTION = "motion"
    EXPOSURE = "exposure"
    ARTIFACT = "artifact"
    MARKER = "marker"
    WRONG_EXAMINATION = "wrong_examination"
    EQUIPMENT = "equipment"
    PATIENT = "patient"
    OTHER = "other"
    #: The person saw nothing of what the warning said: what a false warning looks like in the statistics.
    NO_FAULT_SEEN = "no_fault_seen"


class UserRole(Word):
    """What somebody may do at the screens. No role includes another; ``web.access`` says who may what."""

    #: A paired screen at the scanner: alerts of its sources, and what is done about them. Nobody has signed in.
    SCREEN = "screen"
    #: Reads.
    VIEWER = "viewer"
    TECHNOLOGIST = "technologist"
    RADIOLOGIST = "radiologist"
    #: Of the hospital: accounts, settings, destinations, models.
    ADMINISTRATOR = "administrator"
    #: Of the vendor: health, engines, destinations; never a patient.
    SERVICE = "service"


class ActorKind(Word):
    """Who did what a journal row tells."""

    SYSTEM = "system"
    PERSON = "person"
    FLEET = "fleet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acted; stands in every journal row."""

    kind: ActorKind = ActorKind.SYSTEM
    name: str = ""
    role: str = ""


SYSTEM = Actor()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A place in one source image, for a person's eye and for the SR. Never made for a ``triage`` package's screen.

    ``kind`` is ``box`` or ``point``; ``points`` are (column, row) in the source image, 0-based pixel centres.
    """

    sop_instance_uid: str
    kind: str
    points: tuple[tuple[float, float], ...]
    frame_number: int | None = None
    finding: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with its UCUM unit."""

    name: str
    value: float
    unit: str
    sd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingResult:
    """What a package says of one of its findings in one analysis; scores of findings that are not flagged too."""

    id: str
    score: float
    #: Name of the operating point that was used, and its threshold.
    operating_point: str
    threshold: float
    flagged: bool
    #: Urgency of the finding as its package declares it: 1 minutes, 2 hours, 3 days (CID 7035).
    category: int = 3
    measurements: tuple[Measurement, ...] = ()
    #: SOP Instance UIDs of the slices that show it best, most telling first.
    key_instances: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True, slots=True)
class Detail:
    """One sentence for a person beside an outcome, kept apart from its numbers so that every screen can translate it.

    Attributes:
        text: English with named ``{placeholders}``, a literal in the code: the id of its translations.
        values: What stands in the placeholders: numbers and names, no words of a language, no patient data.
    """

    text: str
    values: Mapping[str, str | int | float] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        """In English."""
        return self.told()

    def told(self, gettext: Callable[[str], str] = str) -> str:
        """The sentence in the language of ``gettext``.

        Placeholders are replaced by name and nothing else: what a worker sent is no format to be carried out.
        """
        return _PLACE.sub(lambda place: _shown(self.values.get(place[1], place[0])), gettext(self.text))


def _shown(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def in_english(details: Iterable[Detail]) -> str:
    """Details as one line, for logs, JSON and reports."""
    return "; ".join(map(str, details))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisResult:
    """What the worker and the verdict say of one analysis (DESIGN §5, analysis row)."""

    outcome: Outcome
    reason: Reason | None = None
    #: For a person, beside the reason.
    details: tuple[Detail, ...] = ()
    findings: tuple[FindingResult, ...] = ()
    #: What the result leaves out, and what else limits it.
    caveats: tuple[Detail, ...] = ()
    #: What the package warns of.
    warnings: tuple[Detail, ...] = ()
    package_digest: str = ""
    engine_digest: str = ""
    backend: str = ""
    precision: str = ""
    #: Key pictures in the spool, relative paths, in the order of the key instances.
    pictures: tuple[str, ...] = ()
    #: The findings' masks in the spool (``engines.overlay``), of packages that may show places.
    masks: str | None = None
    #: Milliseconds per hop, as measured in the worker and the daemon.
    hops_ms: dict[str, float] = field(default_factory=dict)
    #: What the head measured besides the findings (slice count, spacing, brain volume, ...), for drift and replay.
    numbers: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A result that says NOT_ANALYSED without a reason, or a reason without NOT_ANALYSED, cannot exist."""
        if (self.outcome is Outcome.NOT_ANALYSED) != (self.reason is not None):
            msg = f"outcome {self.outcome} with reason {self.reason}"
            raise ValueError(msg)
        if self.outcome is Outcome.NOT_APPLICABLE:
            msg = "NOT_APPLICABLE is an outcome of a study, not of an analysis"
            raise ValueError(msg)

    @property
    def detail(self) -> str:
        """The details in English."""
        return in_english(self.details)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """A coded health fact with since-when; the same on screen, CLI and fleet."""

    code: str
    subject: str
    severity: Severity
    since_at: datetime
    detail: dict[str, Any] = field(default_factory=dict)
    study_id: int | None = None


class ReviewDecision(Word):
    """What a radiologist says of a study's results, as a whole."""

    AGREE = "agree"
    DISAGREE = "disagree"
    AMEND = "amend"
    CANNOT_JUDGE = "cannot_judge"


class ReviewReason(Word):
    """Why a radiologist disagrees."""

    ARTEFACT = "artefact"
    ANATOMY = "anatomy"
    #: It is there, and it is not new.
    OLD_FINDING = "old_finding"
    #: Another patient, or another part of the body, than was analysed.
    WRONG_SUBJECT = "wrong_subject"
    OTHER = "other"


class Presence(Word):
    """Whether a finding is there, as a person signed it (CID 240). The box itself never says absent."""

    PRESENT = "present"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"


class Side(Word):
    """Laterality (CID 244)."""

    LEFT = "left"
    RIGHT = "right"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedFinding:
    """What a person says of one finding of one analysis, or of one that no analysis gave."""

    analysis_id: int
    #: Of the package; empty where ``code`` is none of the package's.
    finding: str
    presence: Presence
    #: Whether the package flagged it.
    flagged: bool
    #: Whether what the package said of it stands: flagged and there, or not flagged and not there. None: not known.
    is_right: bool | None
    #: The person added it.
    added: bool = False
    #: Name in ``codes.yaml``, of a finding that is none of the package's.
    code: str = ""
    side: Side | None = None
    #: The person's, where it is another than the package's.
    category: int | None = None
    #: A box that the person drew; it takes the place of what the package marked.
    region: Region | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReview:
    """One version of what a radiologist signed about a study. Nothing of it is ever changed."""

    version: int
    decision: ReviewDecision
    reason: ReviewReason | None
    #: The person's own words.
    note: str
    reviewer: str
    role: str
    organization: str
    signed_at: datetime
    findings: tuple[ReviewedFinding, ...]

    def of(self, analysis_id: int) -> tuple[ReviewedFinding, ...]:
        """What it says of one analysis."""
        return tuple(one for one in self.findings if one.analysis_id == analysis_id)
