"""Rows of the store as cards of the screen: what is told of one study, and how far."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from appliance.records import AlertStep, Outcome, Role
from appliance.screen.model import Activity, Card, Facts, Level, Line, Mark, Overdue, Told
from appliance.screen.packages import PackageText, text_of
from appliance.screen.people import masked
from appliance.store.readmodels import AlertView, AnalysisView, FindingView, StudyView
from appliance.store.rejections import is_rejection


class Cards:
    """Makes cards and activities of the store's rows."""

    def __init__(
        self, facts: Facts, packages: Mapping[str, PackageText], withholds: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Take studies from ``facts`` and texts from ``packages``.

        ``withholds`` says of which packages the reader is told that a radiologist must look, and no more.
        """
        self._facts = facts
        self._packages = packages
        self._withholds = withholds

    def alerts(self, alerts: Iterable[AlertView]) -> list[Card]:
        """Cards of alerts, in the same order."""
        studies = self._facts.studies
        return [self._card(studies[a.study_id], a, a.raised_at) for a in alerts if a.study_id in studies]

    def study(self, study: StudyView) -> Card:
        """The card of a study that has ended, as it stands now."""
        alert = study.alert if study.outcome is Outcome.FINDING else None
        return self._card(study, alert, study.outcome_at or study.last_at)

    def warnings(self, study_ids: Iterable[int]) -> list[Card]:
        """Cards of open quality warnings, one for each study, in the same order."""
        studies = self._facts.studies
        return [card for i in study_ids if i in studies for card in self._warning(studies[i])]

    def overdue(self, mine: Iterable[int]) -> Iterable[Overdue]:
        """Alerts that nobody acknowledges, of any source; ``mine`` are those of this reader."""
        own = set(mine)
        for alert in self._facts.overdue:
            study = self._facts.studies.get(alert.study_id)
            if study is not None:
                yield Overdue(
                    alert_id=alert.id,
                    person=masked(study),
                    source=study.source,
                    raised_at=alert.raised_at,
                    is_mine=alert.id in own,
                )

    def receiving(self) -> Iterable[Activity]:
        """Studies that are arriving."""
        for item in self._facts.box.receiving:
            study = self._facts.studies.get(item.study_id)
            if study is not None:
                yield self._activity(study, None, item.since_at, None)

    def analysing(self) -> Iterable[Activity]:
        """Studies that are in the worker."""
        for item in self._facts.box.analysing:
            study = self._facts.studies.get(item.study_id)
            if study is not None:
                yield self._activity(study, self._package(item.package).title, item.started_at, item.usual_s)

    def _package(self, name: str, version: str = "") -> PackageText:
        return text_of(self._packages, name, version)

    def _activity(
        self, study: StudyView, package: Mapping[str, str] | None, since_at: datetime, usual_s: float | None
    ) -> Activity:
        return Activity(
            person=masked(study),
            about=_about(study),
            source=study.source,
            images=study.images,
            package=package,
            since_at=since_at,
            usual_s=usual_s,
        )

    def _card(self, study: StudyView, alert: AlertView | None, at: datetime) -> Card:
        live = study.live
        ended = [a for a in live if a.outcome in {Outcome.FINDING, Outcome.NOTHING_FLAGGED}]
        done = [self._package(a.package, a.package_version) for a in ended]
        missed = next((a for a in live if a.outcome is Outcome.NOT_ANALYSED and a.reason is study.reason), None)
        lead = next((a for a in study.analyses if alert and a.id == alert.analysis_id), None)
        withheld = alert is not None and any(self._withholds(told.package) for told in alert.findings)
        steps = self._facts.steps.get(alert.id, {}) if alert and alert.is_open else {}
        return Card(
            study_id=study.id,
            alert_id=alert.id if alert else None,
            level=_level(study, alert),
            alert_state=alert.state if alert else None,
            lines=tuple(self._lines(study, alert)) if alert and not withheld else (),
            reason=study.reason,
            details=missed.details if missed and not alert else (),
            looked_for=() if withheld else tuple(package.looked_for for package in done),
            not_looked_for=()
            if withheld
            else tuple(package.not_looked_for for package in done if package.not_looked_for),
            person=masked(study),
            about=_about(study),
            source=study.source,
            received_at=study.last_at,
            at=at,
            seen_by=alert.acknowledged_by if alert else "",
            seen_at=alert.acknowledged_at if alert else None,
            withdrawn_why=alert.withdrawn_why if alert else "",
            marks=tuple(_marks(study, alert, lead)),
            warnings=tuple(warning for a in live for warning in a.warnings),
            picture=not withheld
            and bool(lead and lead.pictures and self._package(lead.package, lead.package_version).shows_place),
            exposures=tuple(exposure for a in live for exposure in a.exposures),
            procedure=study.order.procedure_description if study.order else "",
            priority=_priority(study),
            is_rejected=missed is not None and is_rejection(missed.details),
            withheld=withheld,
            flagged_before=self._facts.flagged_before.get(alert.id) if alert else None,
            not_in_pacs=study.id in self._facts.not_in_pacs,
            overdue=AlertStep.OVERDUE in steps,
            reminded=AlertStep.REMIND in steps,
            told=self._told(alert) if alert else None,
            decided_by=alert.decided_by if alert else "",
            decided_at=alert.decided_at if alert else None,
            taken_at=_taken_at(study.study_time),
        )

    def _told(self, alert: AlertView) -> Told | None:
        lines = self._facts.told.get(alert.id)
        if not lines:
            return None
        last = lines[-1]
        return Told(received_by=last.received_by, at=last.received_at, method=last.method, read_back=last.read_back)

    def _warning(self, study: StudyView) -> Iterable[Card]:
        warning = [a for a in study.live if a.quality_warnings and a.choice is None]
        if not warning:  # decided between two questions to the store
            return
        card = self._card(study, None, max(a.done_at or a.ready_at for a in warning))
        is_late = any(a.late for a in warning)
        yield replace(
            card,
            level=Level.QUALITY,
            lines=tuple(self._line(a, finding) for a in warning for finding in a.quality_warnings),
            marks=tuple(mark for mark in card.marks if mark is not Mark.LATE) + ((Mark.LATE,) if is_late else ()),
            analyses=tuple(a.id for a in warning),
        )

    def _line(self, analysis: AnalysisView, finding: FindingView) -> Line:
        title, advice = self._package(analysis.package, analysis.package_version).words(finding.id)
        return Line(title=title, advice=advice, volume_ml=None, slices=())

    def _lines(self, study: StudyView, alert: AlertView) -> Iterable[Line]:
        # Of several versions the one whose result is told: a silent or shadow one is never shown.
        told_of = [a for a in study.analyses if a.role is Role.LIVE and a.outcome is Outcome.FINDING]
        flagged = {(finding.package, finding.id): finding for analysis in told_of for finding in analysis.findings}
        versions = {analysis.package: analysis.package_version for analysis in told_of}
        for told in alert.findings:
            package = self._package(told.package, versions.get(told.package, ""))
            title, advice = package.words(told.finding)
            result = flagged.get((told.package, told.finding)) if package.shows_place else None
            yield Line(
                title=title,
                advice=advice,
                volume_ml=_millilitres(result),
                slices=tuple(s.instance_number for s in result.key_slices if s.instance_number)[:3] if result else (),
            )


def _level(study: StudyView, alert: AlertView | None) -> Level:
    if alert is not None:
        if not alert.active:
            return Level.NOTE
        return {1: Level.URGENT, 2: Level.PRIORITY}.get(alert.category, Level.NOTE)
    if study.outcome is Outcome.NOT_ANALYSED:
        return Level.NOT_ANALYSED
    return Level.NOTE if study.outcome is Outcome.FINDING else Level.NOTHING_FLAGGED


def _marks(study: StudyView, alert: AlertView | None, lead: AnalysisView | None) -> Iterable[Mark]:
    if lead.late if lead else any(a.late for a in study.live):
        yield Mark.LATE
    if (alert and alert.identity_revision > 1) or (not alert and study.identity_revision > 1):
        yield Mark.CORRECTED
    if any(a.predecessor is not None for a in study.live):
        yield Mark.REVISED
    if lead is not None and lead.superseded_by is not None and any(a.outcome is None for a in study.live):
        yield Mark.AGAIN


def _millilitres(finding: FindingView | None) -> float | None:
    volume = finding.volume if finding else None
    if volume is None:
        return None
    return volume.value / 1000 if volume.unit.lower() == "mm3" else volume.value


def _priority(study: StudyView) -> str:
    """STAT or HIGH, as the order says; a source or sender that asks to go first is STAT."""
    if study.order is not None and study.order.is_stat:
        return study.order.priority
    return "STAT" if study.stat else ""


def _taken_at(study_time: str) -> str:
    """DICOM's HHMMSS as a person reads it: the scanner's own clock, so without a zone (PS3.5 §6.2 TM)."""
    match = re.match(r"([01]\d|2[0-3])([0-5]\d)", study_time)
    return f"{match.group(1)}:{match.group(2)}" if match else ""


def _about(study: StudyView) -> str:
    """Modality and description, as the scanner named them."""
    modality = "/".join(study.modalities)
    return f"{modality} {study.description}".strip()
