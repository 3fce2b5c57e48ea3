"""One study as worklist and study page tell it: whole names, since those who see them have signed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.records import AnalysisState, DeliveryKind, DeliveryState, Outcome, Reason, Role, UserRole, Word
from appliance.screen import people
from appliance.screen.context import Context
from appliance.screen.model import knows_findings
from appliance.screen.packages import text_of
from appliance.screen.people import Person
from appliance.store.readmodels import AlertView, DeliveryView, StudyView
from appliance.store.rejections import is_rejection
from appliance.store.worklist import WorklistRow
from appliance.web.i18n import N_


class Status(Word):
    """Where the AI's work on a study stands."""

    SUBMITTED = "submitted"
    IN_PROGRESS = "in-progress"
    DONE = "done"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"


STATUSES: dict[Status, str] = {
    Status.SUBMITTED: N_("Submitted"),
    Status.IN_PROGRESS: N_("In progress"),
    Status.DONE: N_("Complete"),
    Status.FAILED: N_("Failed"),
    Status.NOT_APPLICABLE: N_("Not applicable"),
}
#: Levels in words, as the alert screen says them.
LEVELS: dict[str, str] = {
    "urgent": N_("URGENT"),
    "priority": N_("PRIORITY"),
    "note": N_("For information"),
    "quality": N_("Image quality"),
    "not-analysed": N_("Not analysed"),
    "nothing-flagged": N_("Nothing flagged"),
    "quiet": N_("Not for the AI"),
    "open": N_("No result yet"),
}
#: What is said in place of a finding to those whom the site tells the priority alone.
PRIORITY_ONLY = N_("Prioritised by the AI")
SENT: dict[str, str] = {
    DeliveryState.SENT: N_("sent"),
    DeliveryState.OWED: N_("waiting"),
    DeliveryState.PARKED: N_("refused"),
    DeliveryState.FORGOTTEN: N_("given up"),
}
#: The same and the others, of single objects.
DELIVERIES: dict[str, str] = {
    **SENT,
    DeliveryState.HELD: N_("is being made"),
    DeliveryState.REPLACED: N_("not sent any more"),
}
#: Older studies have a date alone.
_RECENT = timedelta(hours=24)
_WORST: tuple[DeliveryState, ...] = (
    DeliveryState.PARKED,
    DeliveryState.OWED,
    DeliveryState.FORGOTTEN,
    DeliveryState.SENT,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one destination has got of a study."""

    destination: str
    #: PARKED, OWED (held ones too), FORGOTTEN or SENT.
    state: DeliveryState
    #: Objects in that state.
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One study in words' reach; texts are message ids or bilingual."""

    id: int
    level: str
    #: 1 and 2: nobody has acknowledged its alert of that category; 9 all others. The list's order.
    rank: int
    alert: AlertView | None
    #: STAT or HIGH; empty for all others.
    priority: str
    name: str
    patient_id: str
    birth_date: str
    accession_number: str
    person: Person
    #: Body part and view as the headers say them, then the description.
    part: str
    description: str
    modality: str
    source: str
    images: int
    is_receiving: bool
    status: Status
    #: Of a study that was not analysed: what is wrong and what to do.
    reason: str
    is_rejected: bool
    #: What was flagged, bilingual; empty with ``is_hidden`` where the reader is told the priority alone.
    titles: tuple[Mapping[str, str], ...]
    is_hidden: bool
    warnings: tuple[Mapping[str, str], ...]
    is_late: bool
    review: str
    sent: tuple[Sent, ...]
    received_at: datetime
    #: Whether it is still told how long ago that was.
    is_recent: bool
    #: Whether nothing of it will change by itself any more.
    is_settled: bool


def told(row: WorklistRow, context: Context, role: UserRole, language: str) -> Told:
    """How a row is told to somebody of a role, in a language of names."""
    study = row.study
    whole = people.whole(study, language)
    level = level_of(study)
    alert = study.alert if study.outcome is Outcome.FINDING else None
    lead = next((a for a in study.live if a.outcome is Outcome.NOT_ANALYSED and a.reason is study.reason), None)
    titles = tuple(_titles(study, context))
    is_hidden = bool(titles) and hides_findings(study, context, role)
    sent = tuple(sent_of(study.deliveries))
    status = status_of(study, is_receiving=row.is_receiving)
    return Told(
        id=study.id,
        level=level,
        rank=rank_of(alert),
        alert=alert,
        priority=priority_of(study),
        name=whole["name"],
        patient_id=whole["patient_id"],
        birth_date=whole["birth_date"],
        accession_number=whole["accession_number"] or (study.order.accession_number if study.order else ""),
        person=people.masked(study),
        part=" ".join(filter(None, ["/".join(row.body_parts), "/".join(row.view_positions)])),
        description=study.description,
        modality="/".join(study.modalities),
        source=study.source,
        images=study.images,
        is_receiving=row.is_receiving,
        status=status,
        reason=str(study.reason or Reason.FAILED) if study.outcome is Outcome.NOT_ANALYSED else "",
        is_rejected=lead is not None and is_rejection(lead.details),
        titles=() if is_hidden else titles,
        is_hidden=is_hidden,
        warnings=tuple(_warnings(study, context)),
        is_late=any(a.late for a in study.live),
        review=row.review,
        sent=sent,
        received_at=study.last_at,
        is_recent=context.clock.now() - study.last_at < _RECENT,
        is_settled=status not in {Status.SUBMITTED, Status.IN_PROGRESS}
        and not row.is_receiving
        and all(one.state is not DeliveryState.OWED for one in sent),
    )


def status_of(study: StudyView, *, is_receiving: bool) -> Status:
    """Where the AI stands: what is at work now speaks before what has ended."""
    states = {a.state for a in study.live}
    if AnalysisState.RUNNING in states:
        return Status.IN_PROGRESS
    if AnalysisState.QUEUED in states or study.outcome is None:
        return Status.SUBMITTED
    if study.outcome is Outcome.NOT_APPLICABLE:
        return Status.SUBMITTED if is_receiving else Status.NOT_APPLICABLE
    return Status.FAILED if study.outcome is Outcome.NOT_ANALYSED else Status.DONE


def level_of(study: StudyView) -> str:
    """How loudly the study is drawn; a warning of quality is drawn where nothing else is to be told."""
    alert = study.alert
    if study.outcome is Outcome.FINDING:
        if alert is None or not alert.active:
            return "note"
        return {1: "urgent", 2: "priority"}.get(alert.category, "note")
    if study.outcome is Outcome.NOT_ANALYSED:
        return "not-analysed"
    if any(a.quality_warnings and a.choice is None for a in study.live):
        return "quality"
    if study.outcome is None:
        return "open"
    return "quiet" if study.outcome is Outcome.NOT_APPLICABLE else "nothing-flagged"


def rank_of(alert: AlertView | None) -> int:
    """The place of a study in the list, as ``store.worklist`` orders it."""
    if alert is not None and alert.is_open and alert.active and alert.category in {1, 2}:
        return alert.category
    return 9


def priority_of(study: StudyView) -> str:
    """STAT or HIGH, as the order says; a source or sender that asks to go first is STAT."""
    if study.order is not None and study.order.is_stat:
        return study.order.priority
    return "STAT" if study.stat else ""


def hides_findings(study: StudyView, context: Context, role: UserRole) -> bool:
    """Whether the reader is told only that the study goes first: what a site says of a package."""
    if knows_findings(role):
        return False
    packages = {flagged.package for flagged in study.alert.findings} if study.alert else set()
    packages |= {a.package for a in study.live if a.outcome is Outcome.FINDING}
    return any(context.config.technologist_detail(package) == "priority_only" for package in packages)


def sent_of(deliveries: Iterable[DeliveryView]) -> Iterable[Sent]:
    """What stands worst, by destination: a refused object is not hidden by nine that arrived."""
    counts: dict[str, dict[DeliveryState, int]] = {}
    for one in deliveries:
        if one.state is DeliveryState.REPLACED or one.kind is DeliveryKind.REJECTION_NOTE:
            continue
        state = DeliveryState.OWED if one.state is DeliveryState.HELD else one.state
        by_state = counts.setdefault(one.destination, {})
        by_state[state] = by_state.get(state, 0) + one.count
    for destination, by_state in counts.items():
        worst = next(one for one in _WORST if one in by_state)
        yield Sent(destination=destination, state=worst, count=by_state[worst])


def _titles(study: StudyView, context: Context) -> Iterable[Mapping[str, str]]:
    """What was flagged, most urgent first, as the alert told it; what no alert told, as the analyses found it."""
    if study.outcome is not Outcome.FINDING:
        return
    ended = [a for a in study.analyses if a.role is Role.LIVE and a.outcome is Outcome.FINDING]
    versions = {a.package: a.package_version for a in ended}
    pairs = [(one.package, one.finding) for one in study.alert.findings] if study.alert else []
    pairs = pairs or [(a.package, f.id) for a in ended if a.counts for f in a.findings if f.flagged]
    for package, finding in dict.fromkeys(pairs):
        yield text_of(context.packages, package, versions.get(package, "")).words(finding)[0]


def _warnings(study: StudyView, context: Context) -> Iterable[Mapping[str, str]]:
    for analysis in study.live:
        if analysis.choice is None:
            for finding in analysis.quality_warnings:
                yield text_of(context.packages, analysis.package, analysis.package_version).words(finding.id)[0]
