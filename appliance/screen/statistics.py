"""Local figures: how often a package flags here, how often radiologists agree, what is not known. No reader's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from appliance.records import UserRole
from appliance.screen.context import Context
from appliance.screen.packages import text_of
from appliance.store.figures import FEWEST, Figure, Replayed, read_table
from appliance.store.package_rows import PackageState
from appliance.web.access import Guarded, caller_of
from appliance.web.i18n import language_tag
from engines.errors import PackageError
from engines.manifest import Finding
from engines.package import parse_manifest

READERS = frozenset({UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR})
DAYS = (30, 90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finding of one package, with what its other operating points would have flagged."""

    figure: Figure
    package: Mapping[str, str]
    title: Mapping[str, str]
    replayed: list[Replayed]
    #: The operating point that serves now; empty where the package is gone.
    point: str


class StatisticsPages:
    """One page."""

    def __init__(self, context: Context) -> None:
        """Read from ``context.store``."""
        self._context = context
        #: Findings of a package's row; the manifest of a row never changes.
        self._declared: dict[int, Mapping[str, Finding]] = {}

    def routes(self) -> list[Guarded]:
        """The address."""
        return [Guarded("/statistics", self.page, roles=READERS)]

    async def page(self, request: Request) -> Response:
        """The figures of 30 or 90 days."""
        tag = language_tag(self._context.locale(request))
        html = await self._context.pool.run(self._html, request)
        return HTMLResponse(html, headers={"Content-Language": tag})

    def _html(self, request: Request) -> str:
        context, days = self._context, 90 if request.query_params.get("days") == "90" else DAYS[0]
        context.store.audit.accessed("statistics", caller_of(request).actor)
        table = read_table(context.store.db, context.clock.now() - timedelta(days=days))
        rows = []
        for figure in table.figures:
            text = text_of(context.packages, figure.package)
            declared, point = self._finding(figure.package, figure.finding)
            points = {one.name: one.threshold for one in declared.operating_points} if declared else {}
            rows.append(
                Row(
                    figure=figure,
                    package=text.title,
                    title=text.words(figure.finding)[0],
                    replayed=table.replay(figure.package, figure.finding, points),
                    point=point,
                )
            )
        return context.pages.html(request, "statistics.html", rows=rows, days=days, spans=DAYS, fewest=FEWEST)

    def _finding(self, package: str, finding: str) -> tuple[Finding | None, str]:
        """What the version that serves declares of a finding, and the operating point in use."""
        live = [row for row in self._context.store.packages.all(package) if row.state is PackageState.LIVE]
        if not live:
            return None, ""
        row = live[-1]
        if row.id not in self._declared:
            try:
                manifest = parse_manifest(self._context.store.packages.manifest(row.id).encode())
                self._declared[row.id] = {one.id: one for one in manifest.findings}
            except PackageError:
                self._declared[row.id] = {}
        declared = self._declared[row.id].get(finding)
        if declared is None:
            return None, ""
        return declared, row.operating_points.get(finding) or declared.default_point.name
