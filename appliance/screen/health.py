"""How the box fares: a sentence, what is wrong and how to mend it, plots, and a bundle for the service team."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from appliance.records import Issue, Severity
from appliance.screen import words
from appliance.screen.bundle import make_bundle
from appliance.screen.context import Context
from appliance.screen.issue_acts import SHELVES, IssueActs
from appliance.screen.parts_of_admin import stamp
from appliance.store.database import from_iso
from appliance.store.facts import Kind
from appliance.store.fares import fares
from appliance.store.health_samples import METRICS, Point
from appliance.web.access import KEEPERS, Guarded, caller_of
from appliance.web.i18n import N_

RANGES = {
    "1h": (timedelta(hours=1), N_("1 hour")),
    "24h": (timedelta(hours=24), N_("24 hours")),
    "7d": (timedelta(days=7), N_("7 days")),
    "30d": (timedelta(days=30), N_("30 days")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot: its title, unit, and the metrics that are its lines."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    #: What a value is divided by before it is shown.
    scale: float = 1.0


PLOTS = (
    Plot(title=N_("Studies per hour"), unit="", lines=(("studies", N_("studies")),)),
    Plot(
        title=N_("From the last image to the result"),
        unit="s",
        lines=(
            ("end_to_end_p50_ms", N_("half are faster (p50)")),
            ("end_to_end_p95_ms", N_("19 of 20 are faster (p95)")),
        ),
        scale=1000.0,
    ),
    Plot(
        title=N_("Oldest object that waits for a destination"),
        unit="min",
        lines=(("queue_age_s", N_("age")),),
        scale=60.0,
    ),
    Plot(title=N_("Analyses that wait"), unit="", lines=(("analyses_waiting", N_("waiting")),)),
    Plot(title=N_("Processor"), unit="%", lines=(("cpu_percent", N_("busy")),)),
    Plot(title=N_("Memory"), unit="%", lines=(("memory_percent", N_("used")),)),
    Plot(title=N_("Disk"), unit="%", lines=(("disk_percent", N_("used")),)),
    Plot(
        title=N_("Network"),
        unit="MB/s",
        lines=(("network_in_bytes_s", N_("received")), ("network_out_bytes_s", N_("sent"))),
        scale=1e6,
    ),
    Plot(
        title=N_("Temperature"),
        unit="°C",
        lines=(("temperature_c", N_("hottest sensor")), ("gpu_temperature_c", N_("GPU"))),
    ),
    Plot(title=N_("Held back by heat or power"), unit="", lines=(("throttled", N_("1 = held back")),)),
    Plot(title=N_("Disk, used up of its life"), unit="%", lines=(("disk_wear_percent", N_("used up")),)),
    Plot(title="GPU", unit="%", lines=(("gpu_percent", N_("busy")), ("gpu_memory_percent", N_("memory used")))),
)

CLOCKS = {
    "ntp": N_("Kept by a time server"),
    "rtc": N_("Kept by the machine itself: no time server is known"),
    "none": N_("Kept by nobody: times may be wrong"),
}
MODEL_ROLES = {"live": N_("Live"), "silent": N_("Silent"), "shadow": N_("Shadow")}
#: No issue, for nothing has failed; and yet nobody must read that all works.
NO_PACKAGE = (
    N_("No AI package is in service. No study is analysed."),
    N_("Open Models and let a package run, or name one under Settings."),
)

#: What a person can do about each issue there is.
MENDING: dict[str, str] = {
    "AI_UNAVAILABLE": N_("Read every study as usual. If it lasts for minutes, restart the box, then tell service."),
    "DISK_RESERVE": N_(
        "Free space on the box's disk: see which destination has not taken its objects, or call service."
    ),
    "DISK_FAULT": N_("The disk or its file system fails. Call service now; images are refused rather than lost."),
    "CERTIFICATE_INVALID": N_(
        "Check the box's clock. Put a certificate that holds in place of the file, then restart the box: it is read at"
        " the start."
    ),
    "CERTIFICATE_ENDS": N_(
        "Put a new certificate in place of the file, then restart the box: it is read at the start."
    ),
    "IMAGES_MISSING": N_("Send the study again from the scanner, or read the series as one that lacks images."),
    "DESTINATION_UNREACHABLE": N_("Open Destinations and test the connection; its administrator can mend it there."),
    "DELIVERY_PARKED": N_("Open Destinations, read why, mend it there, then send all again."),
    "DESTINATION_PAUSED": N_("Open Destinations and resume it when its reason is over."),
    "SCREEN_SOURCE_GONE": N_("Pair the screen anew with the sources that it is to show, or name the source again."),
    "ESCALATION_NOWHERE": N_("Name alert_sinks or paired screens under screen.escalation in the configuration."),
    "DESTINATION_GONE": N_("Name the destination again under Settings, or give up what it is owed."),
    "SETTINGS_BROKEN": N_("Open Settings, mend or undo the last change, then restart the box."),
    "JOURNAL_BROKEN": N_(
        "Keep the database as it is, export the audit, and call service: somebody may have changed it."
    ),
    "PACKAGE_WITHDRAWN": N_("Open Models and let another version serve, if there is one."),
    "PACKAGE_REFUSED": N_("Open Models or the log; its maker must give a new version."),
    "ENGINE_FALLBACK": N_("Results are the same and may come later. Open Models and build the engine again."),
    "ENGINE_NOT_BUILT": N_("Results are the same and may come later. Open Models and build the engine again."),
    "RESULT_NOT_BUILT": N_("Open Destinations and send all again; tell service if it comes back."),
    "VERSION_CONFLICT": N_("Open the study and choose which images hold."),
    "STAGE_FAILING": N_("Restart the box; tell service if it comes back."),
    "DATABASE_REBUILT": N_("Nothing to do. Images were kept; what the box said before may be missing from its lists."),
    "WORKLIST_UNREACHABLE": N_("Ask the RIS's administrator; studies are analysed without their orders."),
    "WORKLIST_MISMATCH": N_(
        "Open the study and compare it with the order in the RIS. Correct the wrong one there; the order is not used."
    ),
    "STUDY_UID_SHARED": N_(
        "Nothing is mixed here. Tell those who keep scanner and RIS: the PACS may show both as one study."
    ),
    "VERSION_COMPARING": N_("Nothing to do: it ends by itself within minutes. Tell service if it does not."),
    "COMMITMENT_REFUSED": N_(
        "Ask the PACS's administrator to allow storage commitment for this box, or switch it off for the destination."
    ),
    "COMMITMENT_UNANSWERED": N_(
        "Ask the PACS's administrator whether it can reach this box's port, or switch commitment off for the"
        " destination."
    ),
    "COMMITMENT_FAILED": N_("Open Destinations and send again; ask the PACS's administrator if it comes back."),
    "COMMITMENT_UNREPORTED": N_("Check address and port of the scanner for its storage commitment; tell service."),
    "SPOOL_CORRUPT": N_("Send the study again from the scanner or the PACS, and call service: the disk may fail."),
    "SPOOL_MISSING": N_("Send the study again from the scanner or the PACS, and call service: the disk may fail."),
    "PACKAGE_TEMPLATE": N_("Take it out of the settings, or install a trained version of it."),
    "KSERVE_DEGRADED": N_("Results are the same and may come later. Tell those who keep the site's AI server."),
    "ALERT_SINK_FAILING": N_("Look at its power, cable and network. Until it works, alerts are on the screens alone."),
    "CLOCK_OFF": N_("Let the hospital's time server keep this box's clock; times of results and of the audit are off."),
    "MACHINE_THROTTLED": N_("Look at its fans, its vents and its room; tell service if it does not end."),
    "DISK_WORN": N_("Call service: the disk should be replaced before it fails."),
    "FLEET_APPROVAL": N_("Open Fleet and say yes or no, with a reason."),
    "FLEET_UNREACHABLE": N_("Nothing is lost: it is told later. Check the network, or ask the service team."),
    "FLEET_REFUSED": N_("Tell the service team: this box's rights at the fleet's broker are wrong."),
    "FLEET_IDENTITY_TWICE": N_("Tell the service team now: a disk was copied, or somebody else has this box's key."),
    "FLEET_IDENTITY_BROKEN": N_("The log names the file. The service team must give this box its certificate anew."),
    "FLEET_FOREIGN": N_("Tell the service team: somebody else writes to this box at the broker."),
    "SOURCE_SILENT": N_(
        "Ask whether the scanner works and sends to this box; if it does, check its network and the log."
    ),
    "FLEET_NOT_ENROLLED": N_("The service team must enrol this box. Studies are analysed all the same."),
    "FLEET_FORGED": N_("Tell the service team now: somebody may write to this box in the fleet's name."),
    "SCORE_DRIFT": N_(
        "Ask what has changed: scanner, protocol or patients. Look at Local figures, and tell the package's maker."
    ),
    "FLEET_ROW_UNFIT": N_("Nothing to do here. Tell the service team; a new version of the software mends it."),
}


class HealthPages:
    """One page, its numbers, and the bundle."""

    def __init__(self, context: Context) -> None:
        """Read issues and samples of the store."""
        self._context = context
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/health", self.page, roles=KEEPERS),
            Guarded("/health/series", self.series, roles=KEEPERS),
            Guarded("/health/series.csv", self.table, roles=KEEPERS),
            Guarded("/health/bundle.zip", self.bundle, roles=KEEPERS),
            *IssueActs(self._context).routes(),
        ]

    async def page(self, request: Request) -> Response:
        """Summary, issues, plots."""
        chosen = _range(request, "24h")
        issues, since, points = await self._context.pool.run(self._state, chosen)
        has_no_package = self._context.feed.snapshot.board.ai == "none"
        return self._context.pages.page(
            request,
            "health.html",
            issues=issues,
            has_no_package=has_no_package,
            no_package=NO_PACKAGE,
            problems=len(issues) + has_no_package,
            since=since,
            ranges=RANGES,
            chosen=chosen,
            plots=PLOTS,
            points=points,
            rows=rows(points),
            has=_present(points),
            words=words,
            mending=MENDING,
            shelves=SHELVES,
            fares=await self._context.pool.run(fares, self._store.db, self._context.clock.now()),
            clocks=CLOCKS,
            model_roles=MODEL_ROLES,
            stamp=stamp,
        )

    async def series(self, request: Request) -> Response:
        """The samples of a range as columns, for the plots."""
        chosen = _range(request, "24h")
        table = rows(await self._context.pool.run(self._points, chosen))
        columns = {name: [values[name] for _, values in table] for name in METRICS}
        now = self._context.clock.now()
        offset = now.astimezone().utcoffset() or timedelta()
        span = {
            "from": int((now - RANGES[chosen][0]).timestamp()),
            "to": int(now.timestamp()),
            "offset_min": int(offset.total_seconds() // 60),
        }
        return JSONResponse({**span, "at": [int(at.timestamp()) for at, _ in table], **columns})

    async def table(self, request: Request) -> Response:
        """The same as a table in CSV."""
        points = await self._context.pool.run(self._points, _range(request, "24h"))
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["at", *("studies_per_hour" if name == "studies" else name for name in METRICS)])
        for at, values in rows(points):
            writer.writerow([at.isoformat(), *("" if values[name] is None else values[name] for name in METRICS)])
        return _download(out.getvalue().encode(), "text/csv; charset=utf-8", "health.csv")

    async def bundle(self, request: Request) -> Response:
        """For the service team: nothing of a patient, no secrets, no addresses."""
        await self._context.pool.run(self._store.audit.accessed, "support bundle", caller_of(request).actor)
        probing, tools = self._context.probing, self._context.tools
        data = await probing.run(make_bundle, self._store, self._context.config, tools.doctor)
        return _download(data, "application/zip", f"scanside-support-{self._context.clock.now():%Y%m%d-%H%M}.zip")

    def _state(self, chosen: str) -> tuple[list[Issue], datetime, list[Point]]:
        issues = sorted(self._store.issues.open(), key=_weight)
        cleared = self._store.db.one("SELECT max(cleared_at) AS at FROM issue")
        started = self._store.db.one(
            "SELECT at FROM journal WHERE study_id IS NULL AND kind = ? ORDER BY seq DESC LIMIT 1",
            (str(Kind.DAEMON_STARTED),),
        )
        times = [from_iso(row["at"]) for row in (cleared, started) if row is not None and row["at"]]
        return issues, max(times, default=self._store.db.made_at), self._points(chosen)

    def _points(self, chosen: str) -> list[Point]:
        now = self._context.clock.now()
        return self._store.health.between(now - RANGES[chosen][0], now)


def _weight(issue: Issue) -> tuple[bool, int, datetime]:
    """Where an issue stands in the list: faults first, then in the order of ``words.ISSUES``, then the oldest."""
    codes = list(words.ISSUES)
    place = codes.index(issue.code) if issue.code in codes else len(codes)
    return issue.severity is not Severity.FAULT, place, issue.since_at


def rows(points: Sequence[Point]) -> list[tuple[datetime, dict[str, float | None]]]:
    """Points as rows; studies are counted by the hour whatever the points' width."""
    width = min((b.at - a.at for a, b in pairwise(points)), default=timedelta(minutes=1))
    out = []
    for point in points:
        values = asdict(point.sample)
        if values["studies"] is not None:
            values["studies"] = round(values["studies"] * (timedelta(hours=1) / width), 2)
        out.append((point.at, values))
    return out


def _range(request: Request, default: str) -> str:
    chosen = request.query_params.get("range", default)
    if chosen not in RANGES:
        raise HTTPException(400, f"range is one of {', '.join(RANGES)}")
    return chosen


def _present(points: Sequence[Point]) -> set[str]:
    return {name for name in METRICS if any(getattr(point.sample, name) is not None for point in points)}


def _download(data: bytes, media_type: str, name: str) -> Response:
    headers: dict[str, Any] = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=media_type, headers=headers)
