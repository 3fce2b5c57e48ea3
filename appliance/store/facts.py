"""Every kind of fact that the journal can hold, with its body.

Bodies carry local row ids, codes and numbers: never patient text, never a DICOM UID (DESIGN §5).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from appliance.records import Word


class Kind(Word):
    """What happened."""

    DATABASE_CREATED = "database_created"
    DATABASE_REBUILT = "database_rebuilt"
    JOURNAL_PRUNED = "journal_pruned"
    DAEMON_STARTED = "daemon_started"
    DAEMON_STOPPED = "daemon_stopped"
    CLOCK_JUMPED = "clock_jumped"
    ASSOCIATION_OPENED = "association_opened"
    ASSOCIATION_CLOSED = "association_closed"
    REFUSED = "refused"
    INSTANCE_STORED = "instance_stored"
    INSTANCE_REPEATED = "instance_repeated"
    VERSION_STORED = "version_stored"
    VERSION_COMPARED = "version_compared"
    VERSION_CHOSEN = "version_chosen"
    IDENTITY_CORRECTED = "identity_corrected"
    SERIES_READY = "series_ready"
    SERIES_LEFT_OUT = "series_left_out"
    ANALYSIS_QUEUED = "analysis_queued"
    ANALYSIS_STARTED = "analysis_started"
    ANALYSIS_RETURNED = "analysis_returned"
    ANALYSIS_DONE = "analysis_done"
    ANALYSIS_SUPERSEDED = "analysis_superseded"
    STUDY_OUTCOME = "study_outcome"
    STUDY_REPROCESSED = "study_reprocessed"
    BACKLOG_DONE = "backlog_done"
    ALERT_RAISED = "alert_raised"
    ALERT_UPDATED = "alert_updated"
    ALERT_PRESENTED = "alert_presented"
    ALERT_ACKNOWLEDGED = "alert_acknowledged"
    ALERT_WITHDRAWN = "alert_withdrawn"
    DELIVERY_OWED = "delivery_owed"
    DELIVERY_BUILT = "delivery_built"
    DELIVERY_SENT = "delivery_sent"
    DELIVERY_FAILED = "delivery_failed"
    DELIVERY_PARKED = "delivery_parked"
    DELIVERY_RETRIED = "delivery_retried"
    ISSUE_RAISED = "issue_raised"
    ISSUE_CLEARED = "issue_cleared"
    WORKER_STARTED = "worker_started"
    WORKER_ENDED = "worker_ended"


class Body(BaseModel):
    """The particulars of one fact."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[Kind]


class DatabaseCreated(Body):  # noqa: D101
    kind = Kind.DATABASE_CREATED
    stream: str


class DatabaseRebuilt(Body):  # noqa: D101
    kind = Kind.DATABASE_REBUILT
    why: str
    set_aside: str
    instances: int
    journal_rows_carried: int
    stream: str


class JournalPruned(Body):
    """The checkpoint that stands for one day's rows: up to ``through``, whose hash the next row is chained to."""

    kind = Kind.JOURNAL_PRUNED
    day: str
    rows: int
    through: int
    hash: str


class DaemonStarted(Body):  # noqa: D101
    kind = Kind.DAEMON_STARTED
    version: str
    mode: str
    recovered: dict[str, int] = {}


class DaemonStopped(Body):  # noqa: D101
    kind = Kind.DAEMON_STOPPED
    why: str


class ClockJumped(Body):  # noqa: D101
    kind = Kind.CLOCK_JUMPED
    by_s: float


class AssociationOpened(Body):  # noqa: D101
    kind = Kind.ASSOCIATION_OPENED
    association: int
    source: str


class AssociationClosed(Body):  # noqa: D101
    kind = Kind.ASSOCIATION_CLOSED
    association: int
    source: str
    how: str
    images: int


class Refused(Body):
    """An association or an object was not taken. ``times`` counts equal refusals since the last such row."""

    kind = Kind.REFUSED
    source: str
    status: int
    message: str
    association: int | None = None
    times: int = 1


class InstanceStored(Body):
    """A new image lies on disk for good. ``owed``: the destinations that the original is owed to."""

    kind = Kind.INSTANCE_STORED
    association: int
    source: str
    series: int
    version: int
    size: int
    owed: tuple[str, ...] = ()


class InstanceRepeated(Body):
    """The same bytes under the same SOP Instance UID again: success, no new work."""

    kind = Kind.INSTANCE_REPEATED
    association: int
    version: int


class VersionStored(Body):
    """Another data set under a known SOP Instance UID. ``why``: identity, attributes, syntax, pixels or comparing."""

    kind = Kind.VERSION_STORED
    association: int
    version: int
    n: int
    why: str


class VersionCompared(Body):  # noqa: D101
    kind = Kind.VERSION_COMPARED
    version: int
    same_pixels: bool


class VersionChosen(Body):  # noqa: D101
    kind = Kind.VERSION_CHOSEN
    version: int
    n: int


class IdentityCorrected(Body):  # noqa: D101
    kind = Kind.IDENTITY_CORRECTED
    identity_revision: int


class SeriesReady(Body):
    """A series was taken as whole: by which rule, on which facts (issue "From the scanner to the alert" §3)."""

    kind = Kind.SERIES_READY
    series: int
    revision: int
    n: int
    images: int
    rule: str
    facts: dict[str, Any] = {}


class SeriesLeftOut(Body):  # noqa: D101
    kind = Kind.SERIES_LEFT_OUT
    series: int
    n: int
    why: str
    package: str = ""


class AnalysisQueued(Body):  # noqa: D101
    kind = Kind.ANALYSIS_QUEUED
    analysis: int
    package: str
    version: str
    role: str
    revisions: dict[str, int]
    predecessor: int | None = None


class AnalysisStarted(Body):  # noqa: D101
    kind = Kind.ANALYSIS_STARTED
    analysis: int
    attempt: int


class AnalysisReturned(Body):
    """The analysis goes back to the queue: its worker ended, or the daemon was restarted under it."""

    kind = Kind.ANALYSIS_RETURNED
    analysis: int
    attempt: int
    why: str


class AnalysisDone(Body):  # noqa: D101
    kind = Kind.ANALYSIS_DONE
    analysis: int
    package: str
    version: str
    role: str
    outcome: str
    reason: str | None = None
    late: bool = False
    carried: bool = False
    scores: dict[str, float] = {}
    hops_ms: dict[str, float] = {}
    backend: str = ""
    precision: str = ""
    engine_digest: str = ""


class AnalysisSuperseded(Body):  # noqa: D101
    kind = Kind.ANALYSIS_SUPERSEDED
    analysis: int
    by: int | None = None


class StudyOutcome(Body):  # noqa: D101
    kind = Kind.STUDY_OUTCOME
    outcome: str
    reason: str | None = None


class StudyReprocessed(Body):  # noqa: D101
    kind = Kind.STUDY_REPROCESSED
    why: str


class BacklogDone(Body):
    """The AI is back and has caught up: one summary line instead of many alerts."""

    kind = Kind.BACKLOG_DONE
    studies: int
    findings: int
    since: str


class AlertRaised(Body):  # noqa: D101
    kind = Kind.ALERT_RAISED
    alert: int
    analysis: int
    category: int
    active: bool
    chime: bool
    predecessor: int | None = None


class AlertUpdated(Body):
    """The alert now rests on another analysis of the same findings: nothing new to tell, no chime."""

    kind = Kind.ALERT_UPDATED
    alert: int
    analysis: int


class AlertPresented(Body):  # noqa: D101
    kind = Kind.ALERT_PRESENTED
    alert: int
    screen: str = ""


class AlertAcknowledged(Body):  # noqa: D101
    kind = Kind.ALERT_ACKNOWLEDGED
    alert: int


class AlertWithdrawn(Body):  # noqa: D101
    kind = Kind.ALERT_WITHDRAWN
    alert: int
    why: str


class DeliveryOwed(Body):  # noqa: D101
    kind = Kind.DELIVERY_OWED
    delivery: int
    destination: str
    object: str
    analysis: int | None = None


class DeliveryBuilt(Body):  # noqa: D101
    kind = Kind.DELIVERY_BUILT
    analysis: int
    object: str
    size: int
    ms: float


class DeliverySent(Body):  # noqa: D101
    kind = Kind.DELIVERY_SENT
    delivery: int
    destination: str
    object: str
    attempt: int
    status: int


class DeliveryFailed(Body):
    """A try failed and will be made again. Only the first and every tenth of one delivery are journalled."""

    kind = Kind.DELIVERY_FAILED
    delivery: int
    destination: str
    object: str
    attempt: int
    error: str


class DeliveryParked(Body):  # noqa: D101
    kind = Kind.DELIVERY_PARKED
    delivery: int
    destination: str
    object: str
    status: int | None
    error: str


class DeliveryRetried(Body):  # noqa: D101
    kind = Kind.DELIVERY_RETRIED
    destination: str
    deliveries: int


class IssueRaised(Body):  # noqa: D101
    kind = Kind.ISSUE_RAISED
    code: str
    severity: str
    detail: dict[str, Any] = {}


class IssueCleared(Body):  # noqa: D101
    kind = Kind.ISSUE_CLEARED
    code: str


class WorkerStarted(Body):  # noqa: D101
    kind = Kind.WORKER_STARTED
    pid: int
    packages: dict[str, str]


class WorkerEnded(Body):  # noqa: D101
    kind = Kind.WORKER_ENDED
    pid: int
    why: str
    analysis: int | None = None


BODIES: dict[Kind, type[Body]] = {body.kind: body for body in Body.__subclasses__()}
