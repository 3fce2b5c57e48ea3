"""The results of a study as cards, and its series with why each was taken as whole; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.records import Detail, Outcome, Reason, Role
from appliance.screen.history import RULES, Sentence, said_of
from appliance.screen.packages import PackageText, text_of
from appliance.store.readmodels import (
    AnalysisView,
    ChoiceView,
    ExposureView,
    FindingView,
    RevisionView,
    SeriesView,
    StudyDetail,
    StudyView,
)
from appliance.store.rejections import is_rejection
from appliance.web.i18n import N_

Text = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingLine:
    """One finding of a card. Place and size only where the package's intended use allows it."""

    title: Text
    advice: Text
    level: str
    flagged: bool
    measurements: tuple[tuple[str, str], ...]
    slices: tuple[int, ...]
    #: Of the administrator alone.
    score: float
    threshold: float
    operating_point: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCard:
    """What one live analysis said."""

    analysis_id: int
    package: str
    version: str
    title: Text
    level: str
    outcome: Outcome | None
    reason: Reason | None
    is_rejected: bool
    details: tuple[Detail, ...]
    #: What was flagged; or, of a quality package, what it warns of.
    findings: tuple[FindingLine, ...]
    #: The others, which it looked for and did not flag.
    quiet: tuple[FindingLine, ...]
    #: Something was flagged that this reader is told the priority of, and no more.
    is_hidden: bool
    looked_for: Text
    not_looked_for: Text
    caveats: tuple[Detail, ...]
    warnings: tuple[Detail, ...]
    exposures: tuple[ExposureView, ...]
    warns: bool
    choice: ChoiceView | None
    is_late: bool
    is_current: bool
    done_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLine:
    """One series, and what the box thinks of it."""

    series: SeriesView
    #: Why it was taken as whole, of its newest revision; then what is missing.
    whole: tuple[Sentence, ...]
    is_incomplete: bool
    is_open: bool


def cards_of(study: StudyView, packages: Mapping[str, PackageText], *, hides: bool = False) -> list[ResultCard]:
    """A card for each live analysis, most urgent first; those that were replaced come last.

    Args:
        study: The study.
        packages: Their texts.
        hides: Whether findings of active packages are told by their priority alone.
    """
    cards = [_card(one, text_of(packages, one.package, one.package_version), hides=hides) for one in _live(study)]
    order = ("urgent", "priority", "note", "quality", "not-analysed", "open", "nothing-flagged")
    return sorted(cards, key=lambda card: (not card.is_current, order.index(card.level), card.analysis_id))


def series_lines(detail: StudyDetail) -> list[SeriesLine]:
    """The series in the order of their numbers."""
    lines = [_series(one) for one in detail.series]
    return sorted(lines, key=lambda line: (line.series.number is None, line.series.number or 0, line.series.id))


def evidence(revision: RevisionView) -> tuple[Sentence, ...]:
    """Why a revision was taken as whole, and what its evidence says is missing."""
    facts: Mapping[str, Any] = revision.evidence
    rule = str(facts.get("rule", ""))
    said = [said_of(N_("Taken as whole: %(rule)s"), facts, rule=RULES)]
    if is_incomplete(revision):
        listed, missing = int(facts["listed"]), int(facts["missing"])
        said.insert(0, expected(listed - missing, listed))
    if facts.get("not_listed"):
        said.append(Sentence(N_("%(count)s images that the scanner does not list"), {"count": facts["not_listed"]}))
    if facts.get("discontinued"):
        said.append(Sentence(N_("The examination was discontinued at the scanner; images may be missing")))
    if rule == "quiet" and facts.get("contiguous") is False:
        said.append(Sentence(N_("The numbers of the images have gaps")))
    if facts.get("taken_back"):
        said.append(Sentence(N_("%(count)s images were taken back"), {"count": facts["taken_back"]}))
    return tuple(said)


def expected(here: int, listed: int) -> Sentence:
    """How many images came of those that the modality lists."""
    return Sentence(N_("Incomplete: %(here)s of %(listed)s expected"), {"here": here, "listed": listed})


def is_incomplete(revision: RevisionView) -> bool:
    """Whether the modality lists images that did not come."""
    return bool(revision.evidence.get("missing")) and "listed" in revision.evidence


def _series(series: SeriesView) -> SeriesLine:
    newest = series.revisions[-1] if series.revisions else None
    return SeriesLine(
        series=series,
        whole=evidence(newest) if newest else (),
        is_incomplete=newest is not None and is_incomplete(newest),
        is_open=newest is None or newest.images + series.rejected < series.images,
    )


def _live(study: StudyView) -> Iterable[AnalysisView]:
    return (one for one in study.analyses if one.role is Role.LIVE)


def _card(analysis: AnalysisView, package: PackageText, *, hides: bool) -> ResultCard:
    warns = bool(analysis.quality_warnings)
    hides = hides and analysis.intended_use != "quality"
    flagged = tuple(f for f in analysis.findings if f.flagged)
    others = tuple(f for f in analysis.findings if not f.flagged)
    return ResultCard(
        analysis_id=analysis.id,
        package=analysis.package,
        version=analysis.package_version,
        title=package.title,
        level=_level(analysis, flagged),
        outcome=analysis.outcome,
        reason=analysis.reason,
        is_rejected=is_rejection(analysis.details),
        details=analysis.details,
        findings=() if hides else tuple(_line(f, analysis, package) for f in flagged),
        quiet=() if hides else tuple(_line(f, analysis, package) for f in others),
        is_hidden=hides and bool(flagged),
        looked_for=package.looked_for,
        not_looked_for=package.not_looked_for,
        caveats=analysis.caveats,
        warnings=analysis.warnings,
        exposures=analysis.exposures,
        warns=warns,
        choice=analysis.choice,
        is_late=analysis.late,
        is_current=analysis.superseded_by is None,
        done_at=analysis.done_at,
    )


def _level(analysis: AnalysisView, flagged: tuple[FindingView, ...]) -> str:
    if analysis.outcome is None:
        return "open"
    if analysis.outcome is Outcome.NOT_ANALYSED:
        return "not-analysed"
    if analysis.outcome is Outcome.FINDING:
        return _urgency(min((f.category for f in flagged), default=3), analysis)
    return "quality" if analysis.quality_warnings else "nothing-flagged"


def _urgency(category: int, analysis: AnalysisView) -> str:
    return {1: "urgent", 2: "priority"}.get(category, "note") if analysis.notify == "active" else "note"


def _line(finding: FindingView, analysis: AnalysisView, package: PackageText) -> FindingLine:
    title, advice = package.words(finding.id)
    shows = package.shows_place
    return FindingLine(
        title=title,
        advice=advice,
        level=_urgency(finding.category, analysis),
        flagged=finding.flagged,
        measurements=tuple((m.name, f"{m.value:.4g} {m.unit}") for m in finding.measurements) if shows else (),
        slices=tuple(s.instance_number for s in finding.key_slices if s.instance_number is not None) if shows else (),
        score=finding.score,
        threshold=finding.threshold,
        operating_point=finding.operating_point,
    )
