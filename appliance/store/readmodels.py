"""What screens and commands are told of the store: frozen, without behaviour beyond small readings of their own fields.

They hold whole identities. Who shows them decides what is masked; ``to_json`` writes all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from appliance.records import (
    AlertState,
    AnalysisState,
    DeliveryKind,
    DeliveryState,
    Detail,
    Identity,
    Issue,
    Measurement,
    Outcome,
    QualityChoice,
    QualityReason,
    Reason,
    Role,
)
from appliance.store.orders import OrderView

#: ``withdrawn_why`` of an alert whose images a rejection note took back.
REJECTED = "rejected"
#: The issue that says that no study is being analysed.
AI_UNAVAILABLE = "AI_UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySlice:
    """An image that shows a finding; ``instance_number`` is what a person finds in the series."""

    sop_instance_uid: str
    instance_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    """One finding of one analysis, flagged or not."""

    package: str
    id: str
    category: int
    flagged: bool
    score: float
    operating_point: str
    threshold: float
    measurements: tuple[Measurement, ...]
    key_slices: tuple[KeySlice, ...]

    @property
    def volume(self) -> Measurement | None:
        """Its volume, where the package measured one."""
        units = {"ml", "cm3", "mm3"}
        return next((m for m in self.measurements if m.unit.lower() in units), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureView:
    """How one projection image was exposed, as its header says (IEC 62494-1); at least one number is there."""

    instance_number: int | None
    exposure_index: float | None
    target_exposure_index: float | None
    deviation_index: float | None

    @property
    def percent_of_target(self) -> float | None:
        """What the deviation index means: the share of the target exposure that reached the detector."""
        return None if self.deviation_index is None else 100 * 10 ** (self.deviation_index / 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceView:
    """What a technologist did about the quality warnings of an analysis."""

    choice: QualityChoice
    reason: QualityReason
    decided_at: datetime
    decided_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisView:
    """One package's work on a study."""

    id: int
    package: str
    package_version: str
    role: Role
    state: AnalysisState
    notify: str
    intended_use: str
    outcome: Outcome | None
    reason: Reason | None
    #: ``details`` in English.
    detail: str
    details: tuple[Detail, ...]
    findings: tuple[FindingView, ...]
    caveats: tuple[Detail, ...]
    warnings: tuple[Detail, ...]
    late: bool
    superseded_by: int | None
    predecessor: int | None
    ready_at: datetime
    started_at: datetime | None
    done_at: datetime | None
    #: Per hop: completeness (last image to READY), queued, worker, total (last image to result); then the worker's own.
    hops_ms: Mapping[str, float]
    #: Key pictures, paths in the spool.
    pictures: tuple[str, ...]
    #: Of a ``quality`` package: how the images that it saw were exposed, where their headers say so.
    exposures: tuple[ExposureView, ...]
    #: Of one that warns: what was done about it; None while that is open.
    choice: ChoiceView | None
    #: Whether retention has removed its pictures, masks and result objects.
    files_removed: bool = False

    @property
    def counts(self) -> bool:
        """Whether the study's outcome rests on it."""
        return self.role is Role.LIVE and self.superseded_by is None

    @property
    def quality_warnings(self) -> tuple[FindingView, ...]:
        """What it warns the technologist of; the outcome is NOTHING_FLAGGED all the same (DESIGN §2)."""
        if not self.counts or self.intended_use != "quality" or self.outcome is not Outcome.NOTHING_FLAGGED:
            return ()
        return tuple(finding for finding in self.findings if finding.flagged)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """Objects of one kind owed to one destination, in one state; results of an analysis stand one by one."""

    destination: str
    kind: DeliveryKind
    state: DeliveryState
    count: int
    attempt: int
    error: str
    sent_at: datetime | None
    sop_instance_uid: str
    analysis_id: int | None
    #: How many of them the destination has committed to, by storage commitment.
    committed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flagged:
    """A finding that an alert tells."""

    package: str
    finding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertView:
    """What a person is, or was, shown of a study."""

    id: int
    study_id: int
    analysis_id: int
    state: AlertState
    category: int
    active: bool
    chime: bool
    findings: tuple[Flagged, ...]
    identity_revision: int
    raised_at: datetime
    presented_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str
    withdrawn_at: datetime | None
    withdrawn_why: str
    predecessor: int | None
    #: When it was first recorded that somebody was told.
    communicated_at: datetime | None = None
    decided_at: datetime | None = None
    decided_by: str = ""
    #: Code of the review.
    decision: str = ""

    @property
    def is_open(self) -> bool:
        """Whether nobody has acknowledged it yet."""
        return self.state in {AlertState.RAISED, AlertState.PRESENTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """One study with its analyses, its newest alert and, where asked for, its deliveries."""

    id: int
    study_instance_uid: str
    source: str
    identity: Identity
    identity_revision: int
    patient_age: str
    modalities: tuple[str, ...]
    description: str
    study_date: str
    study_time: str
    stat: bool
    images: int
    first_at: datetime
    last_at: datetime
    outcome: Outcome | None
    reason: Reason | None
    outcome_at: datetime | None
    analyses: tuple[AnalysisView, ...]
    alert: AlertView | None
    deliveries: tuple[DeliveryView, ...]
    #: What the RIS said of its order; None where it was not asked.
    order: OrderView | None = None
    #: When retention last removed image files of it from this box; None while all are here.
    images_removed_at: datetime | None = None

    @property
    def live(self) -> tuple[AnalysisView, ...]:
        """The analyses that the outcome rests on."""
        return tuple(analysis for analysis in self.analyses if analysis.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionView:
    """What a series consisted of when it was taken as whole, and why it was."""

    n: int
    images: int
    evidence: Mapping[str, Any]
    ready_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionView:
    """One of several data sets under one SOP Instance UID; instances with a single one are only counted."""

    id: int
    sop_instance_uid: str
    n: int
    state: str
    transfer_syntax_uid: str
    size: int
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesView:
    """One series of a study."""

    id: int
    series_instance_uid: str
    sop_class_uid: str
    modality: str
    number: int | None
    description: str
    body_part: str
    images: int
    #: Of these, images that a rejection note took back.
    rejected: int
    left_out: str
    revisions: tuple[RevisionView, ...]
    versions: tuple[VersionView, ...]
    exposures: tuple[ExposureView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FactView:
    """A journal row about a study."""

    seq: int
    at: datetime
    kind: str
    actor: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDetail:
    """Everything that the store knows of one study."""

    study: StudyView
    series: tuple[SeriesView, ...]
    alerts: tuple[AlertView, ...]
    facts: tuple[FactView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiving:
    """A study of which images are arriving."""

    study_id: int
    source: str
    images: int
    since_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysing:
    """A live analysis that is in the worker now."""

    study_id: int
    analysis_id: int
    package: str
    started_at: datetime
    #: Median of the package's last analyses; ``None`` before the first.
    usual_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxState:
    """What the box does at this moment."""

    receiving: tuple[Receiving, ...]
    analysing: tuple[Analysing, ...]
    queued: int
    issues: tuple[Issue, ...]

    @property
    def ai_down_since(self) -> datetime | None:
        """Since when no study is analysed; ``None`` while the AI works."""
        return next((issue.since_at for issue in self.issues if issue.code == AI_UNAVAILABLE), None)


def to_json(value: Any) -> Any:
    """Read models, records and their fields as what ``json.dumps`` takes; times as ISO 8601 UTC, details in English."""
    if isinstance(value, Detail):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value
