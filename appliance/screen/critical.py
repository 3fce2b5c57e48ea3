"""The register of critical values: who was told of which urgent finding, and of which nobody was told yet.

It shows whole names: only those who tell, are told, or answer for it have it, and each look and each export is a fact
of the journal.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from appliance.dicom.charsets import display_name
from appliance.records import AlertState, UserRole
from appliance.screen import people, words
from appliance.screen.alert import scope_of
from appliance.screen.alert_acts import WITHHELD
from appliance.screen.context import Context
from appliance.screen.model import Scope
from appliance.screen.packages import text_of
from appliance.store.communications import Communication
from appliance.store.readmodels import AlertView, Flagged, StudyView
from appliance.web.access import Guarded, caller_of
from appliance.web.i18n import N_, language_of
from appliance.web.spreadsheet import safe

CRITICAL = frozenset({UserRole.TECHNOLOGIST, UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR})
#: A page shows so many lines, the newest; the export holds all of the range.
PAGE_LINES = 300
#: The longest range of one export: a year and a day.
LONGEST = timedelta(days=366)
_USUAL = timedelta(days=6)
_EXPORT_LINES = 100_000

COLUMNS = (
    N_("No."),
    N_("Patient"),
    N_("Sex"),
    N_("Age"),
    N_("Patient ID"),
    N_("Accession number"),
    N_("Examination"),
    N_("Scanner"),
    N_("Finding"),
    N_("Found at"),
    N_("Told by"),
    N_("Told to"),
    N_("Told at"),
    N_("Method"),
    N_("Read back"),
    N_("Minutes"),
    N_("Note"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line as the page shows it, in the reader's language; times are the box's."""

    number: int
    study_id: int
    name: str
    sex: str
    age: str
    patient_id: str
    accession_number: str
    exam: str
    source: str
    finding: str
    found_at: datetime
    told_by: str
    received_by: str
    received_at: datetime | None
    method: str
    read_back: bool
    #: From the finding to the person who was told.
    minutes: int | None
    is_demonstration: bool
    is_withdrawn: bool


class CriticalPages:
    """The register and its export."""

    def __init__(self, context: Context) -> None:
        """Read the store's register."""
        self._context = context
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/critical-values", self.page, roles=CRITICAL),
            Guarded("/critical-values.csv", self.export, roles=CRITICAL),
        ]

    async def page(self, request: Request) -> Response:
        """Lines and open alerts of a range of days, for the screen and for paper."""
        start, end = self._range(request)
        scope, language = scope_of(self._context, caller_of(request)), self._language(request)
        read = self._context.pool.run
        await read(self._store.audit.accessed, "register", caller_of(request).actor)
        missing = await read(self._missing, scope, language, start, end)
        lines = await read(self._lines, scope, language, start, end, PAGE_LINES + 1)
        return self._context.pages.page(
            request,
            "critical.html",
            missing=missing,
            lines=lines[:PAGE_LINES],
            is_cut=len(lines) > PAGE_LINES,
            first=start.date().isoformat(),
            last=(end - timedelta(days=1)).date().isoformat(),
            printed_at=self._context.clock.now(),
            methods=words.METHODS,
        )

    async def export(self, request: Request) -> Response:
        """The same range as CSV (RFC 4180), with a mark by which spreadsheets know UTF-8."""
        start, end = self._range(request)
        scope = scope_of(self._context, caller_of(request))
        await self._context.pool.run(self._store.audit.accessed, "register export", caller_of(request).actor)
        text = await self._context.pool.run(self._csv, scope, self._context.locale(request), start, end)
        name = f"critical-values_{start:%Y-%m-%d}_{end - timedelta(days=1):%Y-%m-%d}.csv"
        return Response(
            text.encode("utf-8-sig"),
            media_type="text/csv; charset=utf-8; header=present",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    # Blocking ----------------------------------------------------------------------------------------------------

    def _lines(self, scope: Scope, language: str, start: datetime, end: datetime, limit: int) -> list[Line]:
        return [
            _told(one, self._finding(scope, one.findings, language, one.titles), language)
            for one in self._store.communications.between(start, end, limit)
        ]

    def _missing(self, scope: Scope, language: str, start: datetime, end: datetime) -> list[Line]:
        alerts = self._store.communications.missing(start, end, PAGE_LINES)
        studies = self._store.views.some({alert.study_id for alert in alerts})
        return [self._open(scope, alert, studies[alert.study_id], language) for alert in alerts]

    def _open(self, scope: Scope, alert: AlertView, study: StudyView, language: str) -> Line:
        whole = people.whole(study, language)
        return Line(
            number=alert.id,
            study_id=study.id,
            name=whole["name"],
            sex=study.identity.patient_sex,
            age=_age(study.patient_age),
            patient_id=whole["patient_id"],
            accession_number=whole["accession_number"],
            exam=f"{'/'.join(study.modalities)} {study.description}".strip(),
            source=study.source,
            finding=self._finding(scope, alert.findings, language),
            found_at=alert.raised_at,
            told_by="",
            received_by="",
            received_at=None,
            method="",
            read_back=False,
            minutes=int((self._context.clock.now() - alert.raised_at).total_seconds() // 60),
            is_demonstration=self._context.config.site.mode == "evaluation",
            is_withdrawn=False,
        )

    def _finding(
        self, scope: Scope, findings: Sequence[Flagged], language: str, titles: Sequence[Mapping[str, str]] = ()
    ) -> str:
        """Findings in words, as they were told or as packages say them; not for whom the site withholds them from."""
        if any(self._context.feed.withholds(scope, one.package) for one in findings):
            locale = "zh_Hans_CN" if language.startswith("zh") else "en"
            return self._context.templates.translated(locale, WITHHELD)
        known = [text_of(self._context.packages, one.package).words(one.finding)[0] for one in findings]
        return _joined(titles or known, language)

    def _csv(self, scope: Scope, locale: str, start: datetime, end: datetime) -> str:
        def said(text: str) -> str:
            return self._context.templates.translated(locale, text)

        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow([said(column) for column in COLUMNS])
        for line in reversed(self._lines(scope, language_of(locale), start, end, _EXPORT_LINES)):
            notes = [N_("Demonstration")] * line.is_demonstration + [N_("Withdrawn since")] * line.is_withdrawn
            writer.writerow(
                safe(cell)
                for cell in (
                    str(line.number),
                    line.name,
                    said({"M": N_("M"), "F": N_("F"), "O": N_("Other sex")}.get(line.sex, "")) if line.sex else "",
                    line.age,
                    line.patient_id,
                    line.accession_number,
                    line.exam,
                    line.source,
                    line.finding,
                    _stamp(line.found_at),
                    line.told_by,
                    line.received_by,
                    _stamp(line.received_at),
                    said(words.METHODS[line.method]),
                    said(N_("yes")) if line.read_back else said(N_("no")),
                    "" if line.minutes is None else str(line.minutes),
                    "; ".join(said(note) for note in notes),
                )
            )
        return out.getvalue()

    def _range(self, request: Request) -> tuple[datetime, datetime]:
        """From the first day's midnight to the midnight after the last, in the box's time zone."""
        today = self._context.clock.now().astimezone()
        try:
            last = date.fromisoformat(request.query_params.get("to") or today.date().isoformat())
            first = date.fromisoformat(request.query_params.get("from") or (last - _USUAL).isoformat())
            is_range = first <= last and last - first <= LONGEST and 1971 < first.year < 9990
        except ValueError:
            is_range = False
        if not is_range:
            raise HTTPException(400, f"give days as 2026-01-31, at most {LONGEST.days} of them")
        start = datetime(first.year, first.month, first.day).astimezone()
        after = last + timedelta(days=1)
        return start, datetime(after.year, after.month, after.day).astimezone()

    def _language(self, request: Request) -> str:
        return language_of(self._context.locale(request))


def _told(one: Communication, finding: str, language: str) -> Line:
    identity = one.identity
    return Line(
        number=one.id,
        study_id=one.study_id,
        name=display_name(identity.patient_name, language),
        sex=identity.patient_sex,
        age=_age(one.age),
        patient_id=identity.patient_id,
        accession_number=identity.accession_number,
        exam=one.exam,
        source=one.source,
        finding=finding,
        found_at=one.found_at,
        told_by=one.told_by,
        received_by=one.received_by,
        received_at=one.received_at,
        method=str(one.method),
        read_back=one.read_back,
        minutes=max(int((one.received_at - one.found_at).total_seconds() // 60), 0),
        is_demonstration=one.evaluation,
        is_withdrawn=one.alert_state is AlertState.WITHDRAWN,
    )


def _joined(titles: Sequence[Mapping[str, str]], language: str) -> str:
    return "; ".join(title.get(language) or title.get("en", "") for title in titles)


def _age(text: str) -> str:
    """PS3.5 §6.2 AS without its leading zeros; years have no letter."""
    age = text.strip().lstrip("0")
    return age.removesuffix("Y")


def _stamp(at: datetime | None) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M") if at else ""
