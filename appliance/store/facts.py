"""Every kind of fact that the journal can hold, with its body.

Bodies carry local row ids, codes and numbers: never patient text, never a DICOM UID (DESIGN §5).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from appliance.records import QualityChoice, QualityReason, Word


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
    IMAGES_REJECTED = "images_rejected"
    PERFORMED_STEP = "performed_step"
    ORDER_ASKED = "order_asked"
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
    QUALITY_DECIDED = "quality_decided"
    DELIVERY_OWED = "delivery_owed"
    RESULT_REISSUED = "result_reissued"
    DELIVERY_BUILT = "delivery_built"
    DELIVERY_SENT = "delivery_sent"
    DELIVERY_FAILED = "delivery_failed"
    DELIVERY_PARKED = "delivery_parked"
    DELIVERY_RETRIED = "delivery_retried"
    COMMITMENT_ASKED = "commitment_asked"
    COMMITMENT_NOT_ASKED = "commitment_not_asked"
    COMMITMENT_ANSWERED = "commitment_answered"
    COMMITMENT_FAILED = "commitment_failed"
    COMMITMENT_REQUESTED = "commitment_requested"
    COMMITMENT_REPORTED = "commitment_reported"
    COMMITMENT_NOT_REPORTED = "commitment_not_reported"
    IMAGES_REMOVED = "images_removed"
    IMAGE_RESTORED = "image_restored"
    RESULTS_REMOVED = "results_removed"
    LEFTOVERS_REMOVED = "leftovers_removed"
    ISSUE_RAISED = "issue_raised"
    ISSUE_CLEARED = "issue_cleared"
    PACKAGE_CONFIGURED = "package_configured"
    PACKAGE_INSTALLED = "package_installed"
    PACKAGE_ACTIVATED = "package_activated"
    PACKAGE_LIVE = "package_live"
    PACKAGE_WITHDRAWN = "package_withdrawn"
    PACKAGE_ROLLED_BACK = "package_rolled_back"
    OPERATING_POINT_CHANGED = "operating_point_changed"
    SHADOW_AGREEMENT = "shadow_agreement"
    WORKER_STARTED = "worker_started"
    WORKER_ENDED = "worker_ended"
    ENGINE_BUILD_ASKED = "engine_build_asked"
    ENGINE_CANCEL_ASKED = "engine_cancel_asked"
    ENGINE_BUILDING = "engine_building"
    ENGINE_READY = "engine_ready"
    ENGINE_REJECTED = "engine_rejected"
    ENGINE_SERVES = "engine_serves"
    ENGINE_CHECKED = "engine_checked"
    ENGINE_FALLBACK = "engine_fallback"


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
    #: Title of the rejection note that named it before it came; empty for all others.
    rejected: str = ""


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


class ImagesRejected(Body):
    """A rejection note took images of a study back. ``note``: its version; ``images``: how many of the study's.

    ``source`` sent the note; where the note names nothing that is here, the fact stands at the note's own study.
    """

    kind = Kind.IMAGES_REJECTED
    note: int
    title: str
    source: str
    images: int
    series: tuple[int, ...] = ()


class PerformedStep(Body):
    """A modality reported where a procedure step stands, and how many images it lists in how many series."""

    kind = Kind.PERFORMED_STEP
    step: int
    source: str
    state: str
    series: int = 0
    images: int = 0


class OrderAsked(Body):
    """The RIS was asked for the order of a study; ``fills``: results carry its accession number from now on."""

    kind = Kind.ORDER_ASKED
    state: str
    entries: int
    by: str
    priority: str = ""
    raised: bool = False
    fills: bool = False


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


class QualityDecided(Body):
    """What a person did about the quality warnings of a study, and why. A later one corrects it."""

    kind = Kind.QUALITY_DECIDED
    analyses: tuple[int, ...]
    choice: QualityChoice
    reason: QualityReason


class DeliveryOwed(Body):  # noqa: D101
    kind = Kind.DELIVERY_OWED
    delivery: int
    destination: str
    object: str
    analysis: int | None = None


class ResultReissued(Body):  # noqa: D101
    kind = Kind.RESULT_REISSUED
    analysis: int
    object: str
    deliveries: int
    identity_revision: int


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


class CommitmentAsked(Body):
    """A destination was asked to commit to objects that it has stored; ``commitment`` is the transaction's row."""

    kind = Kind.COMMITMENT_ASKED
    commitment: int
    destination: str
    objects: int


class CommitmentNotAsked(Body):
    """It does not take the request, and is asked again. Only the first and every tenth in a row are journalled."""

    kind = Kind.COMMITMENT_NOT_ASKED
    commitment: int
    destination: str
    times: int
    error: str


class CommitmentAnswered(Body):
    """A report of a destination: how many objects it now keeps for good, and how many it does not."""

    kind = Kind.COMMITMENT_ANSWERED
    commitment: int
    destination: str
    committed: int
    failed: int


class CommitmentFailed(Body):
    """The destination does not commit to this object. ``owed_again``: it has lost it, so it is sent once more."""

    kind = Kind.COMMITMENT_FAILED
    delivery: int
    destination: str
    object: str
    reason: int
    owed_again: bool


class CommitmentRequested(Body):
    """A scanner asks us to commit to images."""

    kind = Kind.COMMITMENT_REQUESTED
    request: int
    source: str
    objects: int
    association: int


class CommitmentReported(Body):
    """The scanner has taken the report on its request."""

    kind = Kind.COMMITMENT_REPORTED
    request: int
    source: str
    committed: int
    failed: int


class CommitmentNotReported(Body):
    """The scanner did not take the report; it is tried again. Only the first and every tenth try are journalled."""

    kind = Kind.COMMITMENT_NOT_REPORTED
    request: int
    source: str
    attempt: int
    error: str


class ImagesRemoved(Body):
    """Retention took the image files of a study from this box; nothing of it was owed any more."""

    kind = Kind.IMAGES_REMOVED
    images: int
    size: int


class ImageRestored(Body):
    """A source sent an image again whose file retention had removed: it is here once more, nothing else follows."""

    kind = Kind.IMAGE_RESTORED
    association: int
    version: int


class ResultsRemoved(Body):
    """The time of an analysis' pictures, masks and result objects is over; what it said stays."""

    kind = Kind.RESULTS_REMOVED
    analysis: int
    files: int


class LeftoversRemoved(Body):
    """Files among results and pictures that no row names any more, as of a report that was built anew."""

    kind = Kind.LEFTOVERS_REMOVED
    files: int
    size: int


class IssueRaised(Body):  # noqa: D101
    kind = Kind.ISSUE_RAISED
    code: str
    severity: str
    detail: dict[str, Any] = {}


class IssueCleared(Body):  # noqa: D101
    kind = Kind.ISSUE_CLEARED
    code: str


class PackageConfigured(Body):
    """What the configuration says of a package that came with this software is new or has changed."""

    kind = Kind.PACKAGE_CONFIGURED
    package: str
    version: str
    digest: str
    state: str
    operating_points: dict[str, str] = {}


class PackageInstalled(Body):
    """A signed package lies in its slot and runs nowhere yet. ``replaced``: the versions that gave way."""

    kind = Kind.PACKAGE_INSTALLED
    package: str
    version: str
    digest: str
    signed_by: tuple[str, ...]
    p95_ms: float | None
    replaced: tuple[str, ...] = ()


class PackageActivated(Body):
    """A version begins its silent time, or runs as shadow."""

    kind = Kind.PACKAGE_ACTIVATED
    package: str
    version: str
    state: str
    days: float | None = None
    studies: int | None = None
    operating_points: dict[str, str] = {}
    why: str = ""


class PackageLive(Body):
    """From now on a version serves. ``days``, ``studies``: how long it was silent."""

    kind = Kind.PACKAGE_LIVE
    package: str
    version: str
    previous: str = ""
    days: float = 0.0
    studies: int = 0


class PackageWithdrawn(Body):
    """A version was taken out of service at once; ``analyses`` that were open ended NOT_ANALYSED(withdrawn)."""

    kind = Kind.PACKAGE_WITHDRAWN
    package: str
    version: str
    was: str
    why: str
    analyses: int


class PackageRolledBack(Body):
    """The previous version serves again, at once."""

    kind = Kind.PACKAGE_ROLLED_BACK
    package: str
    from_version: str
    version: str
    why: str


class OperatingPointChanged(Body):  # noqa: D101
    kind = Kind.OPERATING_POINT_CHANGED
    package: str
    version: str
    finding: str
    before: str
    point: str
    reason: str


class ShadowAgreement(Body):
    """What a shadow version said of a study beside the one that serves: all that its work leads to."""

    kind = Kind.SHADOW_AGREEMENT
    package: str
    live_version: str
    shadow_version: str
    same_outcome: bool
    #: finding: score of the shadow minus score of the live version.
    score_differences: dict[str, float] = {}
    #: Findings that only one of the two flagged.
    flagged_by_one: tuple[str, ...] = ()


class WorkerStarted(Body):  # noqa: D101
    kind = Kind.WORKER_STARTED
    pid: int
    packages: dict[str, str]


class WorkerEnded(Body):  # noqa: D101
    kind = Kind.WORKER_ENDED
    pid: int
    why: str
    analysis: int | None = None


class EngineBuildAsked(Body):
    """A person wants an engine now. The daemon has the worker build it."""

    kind = Kind.ENGINE_BUILD_ASKED
    package: str
    flavour: str
    precision: str


class EngineCancelAsked(Body):  # noqa: D101
    kind = Kind.ENGINE_CANCEL_ASKED


class EngineBuilding(Body):
    """A build began, or begins its next step; ``share`` in tenths where the builder tells how far it is."""

    kind = Kind.ENGINE_BUILDING
    package: str
    flavour: str
    precision: str
    step: str
    share: float | None = None


class EngineReady(Body):
    """An engine was built and accepted; ``differences``: the largest to the reference, by what was compared."""

    kind = Kind.ENGINE_READY
    package: str
    engine_digest: str
    flavour: str
    precision: str
    ms: float
    differences: dict[str, float] = {}


class EngineRejected(Body):
    """No engine came of a build: what ``why`` says. What served goes on serving."""

    kind = Kind.ENGINE_REJECTED
    package: str
    flavour: str
    precision: str
    cause: str
    why: str


class EngineServes(Body):
    """From now on results of the package come from this engine."""

    kind = Kind.ENGINE_SERVES
    package: str
    engine_digest: str
    backend: str
    precision: str


class EngineChecked(Body):
    """A spot check: a golden case on what serves, against the reference."""

    kind = Kind.ENGINE_CHECKED
    package: str
    engine_digest: str
    ok: bool
    why: str = ""


class EngineFallback(Body):
    """Not the wished engine serves but another, or ONNX Runtime on the CPU."""

    kind = Kind.ENGINE_FALLBACK
    package: str
    engine_digest: str
    backend: str
    precision: str
    why: str


BODIES: dict[Kind, type[Body]] = {body.kind: body for body in Body.__subclasses__()}
