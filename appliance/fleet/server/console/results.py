"""Results by model and by site: what was flagged, what was not analysed, and on how many studies that stands."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from appliance.fleet.server.console import figures, sums, words
from appliance.fleet.server.console.callers import FleetCaller, caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.figures import Period, SiteFigures, Sums, Wanted
from appliance.fleet.server.console.roles import EVERYBODY
from appliance.fleet.server.registry import Scope, write_audit
from appliance.store.drift import LIMIT
from appliance.store.figures import FEWEST
from appliance.web.access import Guarded
from appliance.web.i18n import N_
from appliance.web.spreadsheet import safe

_TEXTS = ("package", "version", "role", "site")
_LONGEST = 80
COLUMNS = (
    N_("Site"),
    N_("Id"),
    N_("Tenant"),
    N_("Model"),
    N_("Version"),
    N_("Role"),
    N_("Mode of the boxes"),
    N_("From"),
    N_("Time zone"),
    N_("Boxes"),
    N_("Analyses"),
    N_("Not analysed"),
    N_("Not analysed, by reason"),
    N_("Not flagged"),
    N_("Finding"),
    N_("Suspected"),
    N_("Of those analysed"),
    N_("Share, %"),
    N_("95 percent interval, from"),
    N_("95 percent interval, to"),
    N_("Not told anew"),
    N_("Reviewed"),
    N_("Reader agreed"),
    N_("p95, ms"),
    N_("p95 of the slowest hour, ms"),
    N_("Drift (PSI)"),
)


class ResultsPages:
    """Counts and shares of what somebody may see."""

    def __init__(self, context: Context) -> None:
        """Ask ``context``."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/results", self.page, roles=EVERYBODY),
            Guarded("/results.csv", self.export, roles=EVERYBODY),
        ]

    async def page(self, request: Request) -> Response:
        """By model over all sites, then site by site."""
        scope, now, wanted = caller_of(request).scope, self._context.clock.now(), _wanted(request)
        after = request.query_params.get("after", "")[:_LONGEST]
        read = await self._context.read(_read, scope, wanted, after, now)
        asked = {"days": str(wanted.period), **{name: getattr(wanted, name) for name in _TEXTS}}
        kept = {name: value for name, value in asked.items() if value and (name, value) != ("days", "7")}

        def address(path: str = "/results", **changes: str) -> str:
            pairs = {name: value for name, value in {**kept, **changes}.items() if value}
            return path + ("?" + urlencode(pairs) if pairs else "")

        return self._context.pages.page(
            request,
            "results.html",
            asked=asked,
            address=address,
            is_first=not after,
            is_filtered=any(asked[name] for name in _TEXTS),
            fewest=FEWEST,
            limit=LIMIT,
            now=now,
            periods=words.PERIODS,
            w=words,
            **read,
        )

    async def export(self, request: Request) -> Response:
        """The same as CSV (RFC 4180), all sites, a row for each finding; with a mark by which UTF-8 is known."""
        caller, now, wanted = caller_of(request), self._context.clock.now(), _wanted(request)
        lines = await self._context.write(_exported, caller, wanted, now)
        text = _csv(lines, wanted, now, self._context.gettext(request))
        name = f"results_{now.astimezone():%Y-%m-%d}_{wanted.period}-days.csv"
        return Response(
            text.encode("utf-8-sig"),
            media_type="text/csv; charset=utf-8; header=present",
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
        )


def _read(connection: Connection, scope: Scope, wanted: Wanted, after: str, now: datetime) -> dict[str, Any]:
    sites, further = sums.by_site(connection, scope, wanted, now=now, after=after)
    packages = sums.packages_of(connection, scope)
    return {
        "sites": sites,
        "further": further,
        "all": [] if after else sums.over_all(connection, scope, wanted, now=now),
        "packages": sorted({name for name, _ in packages}),
        "versions": [version for name, version in packages if name == wanted.package],
    }


def _exported(connection: Connection, caller: FleetCaller, wanted: Wanted, now: datetime) -> list[SiteFigures]:
    write_audit(
        connection,
        act="results.export",
        subject=f"{wanted.period} days",
        actor=caller.account.name,
        account=caller.account.number,
        tenant_id=caller.session.member.tenant,
        now=now,
        detail={name: getattr(wanted, name) for name in _TEXTS if getattr(wanted, name)},
    )
    return sums.everything_by_site(connection, caller.scope, wanted, now=now)


def _csv(lines: list[SiteFigures], wanted: Wanted, now: datetime, gettext: Callable[[str], str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([gettext(column) for column in COLUMNS])
    for line in lines:
        begin = figures.first_hour(line.site.zone, wanted.period, now)
        for one in line.sums:
            for cells in _rows(line, one, begin, gettext):
                writer.writerow([safe(cell) for cell in cells])
    return out.getvalue()


def _rows(line: SiteFigures, one: Sums, begin: datetime, gettext: Callable[[str], str]) -> Iterator[list[str]]:
    for finding in sorted(one.flagged) or [""]:
        rate = one.flag_rate(finding)
        shares = ["", "", ""] if rate is None else [f"{100 * x:.2f}" for x in (rate.value, rate.low, rate.high)]
        mode = words.MODES.get(one.mode, "")
        yield [
            line.site.name,
            line.site.id,
            line.site.tenant,
            one.package,
            one.version,
            gettext(words.PACKAGE_ROLES.get(one.role, one.role)),
            gettext(mode) if mode else "",
            f"{begin:%Y-%m-%d}",
            line.site.zone,
            str(one.boxes),
            str(one.n),
            str(one.n - one.analysed),
            "; ".join(f"{reason} {n}" for reason, n in sorted(one.not_analysed.items())),
            str(one.nothing_flagged),
            finding,
            str(one.flagged.get(finding, 0)) if finding else "",
            str(one.analysed),
            *shares,
            str(one.suppressed),
            str(one.reviewed),
            str(one.agreed),
            "" if one.typical_ms is None else f"{one.typical_ms:.0f}",
            "" if one.slowest_ms is None else f"{one.slowest_ms:.0f}",
            f"{one.psi[finding]:.3f}" if finding in one.psi else "",
        ]


def _wanted(request: Request) -> Wanted:
    asked = request.query_params
    days = asked.get("days", "")
    return Wanted(
        period=Period(days) if days in set(map(str, Period)) else Period.WEEK,
        **{name: asked.get(name, "")[:_LONGEST] for name in _TEXTS},
    )
