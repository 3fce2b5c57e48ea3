"""Local figures: how often a package flags here, how often radiologists agree, what is not known. No reader's name.

Evaluation and clinical use, versions of a package and operating points stand apart and are never added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from appliance.records import UserRole
from appliance.screen.context import Context
from appliance.screen.packages import text_of
from appliance.store.figure_rows import read_table
from appliance.store.figures import FEWEST, Figure, Replayed, Scale
from appliance.store.package_rows import PackageRow, PackageState
from appliance.web.access import Guarded, caller_of
from appliance.web.i18n import N_, language_tag
from engines.errors import PackageError
from engines.manifest import Finding
from engines.package import parse_manifest

READERS = frozenset({UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR})
DAYS = (30, 90)
MODES: dict[str, str] = {
    "clinical": N_("Clinical use"),
    "evaluation": N_("Evaluation"),
    "": N_("Clinical use or evaluation: not recorded"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One finding of one version in one mode, with what its other operating points would have flagged.

    Attributes:
        scale: What the figures share.
        figures: One for each operating point that was used, that of the newest case first.
        package: Its title.
        title: Of the finding.
        replayed: Empty where the version's own list of points is gone.
        point: The operating point that serves now; empty where this version does not.
    """

    scale: Scale
    figures: tuple[Figure, ...]
    package: Mapping[str, str]
    title: Mapping[str, str]
    replayed: list[Replayed]
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
        mode = context.config.site.mode
        table = read_table(context.store.db, context.clock.now() - timedelta(days=days), mode)
        known = {(row.name, row.version): row for row in context.store.packages.all()}
        figures: dict[Scale, list[Figure]] = {}
        for figure in table.figures:
            figures.setdefault(figure.setting.scale, []).append(figure)
        rows = []
        for scale, ones in figures.items():
            text = text_of(context.packages, scale.package, scale.version)
            package = known.get((scale.package, scale.version))
            declared = self._declares(package).get(scale.finding) if package else None
            points = {one.name: one.threshold for one in declared.operating_points} if declared else {}
            rows.append(
                Row(
                    scale=scale,
                    figures=tuple(ones),
                    package=text.title,
                    title=text.words(scale.finding)[0],
                    replayed=table.replay(scale, points),
                    point=_point(package, declared) if scale.mode == mode else "",
                )
            )
        return context.pages.html(
            request, "statistics.html", rows=rows, days=days, spans=DAYS, fewest=FEWEST, modes=MODES
        )

    def _declares(self, row: PackageRow) -> Mapping[str, Finding]:
        """The findings that a version's own manifest declares."""
        if row.id not in self._declared:
            try:
                manifest = parse_manifest(self._context.store.packages.manifest(row.id).encode())
                self._declared[row.id] = {one.id: one for one in manifest.findings}
            except PackageError:
                self._declared[row.id] = {}
        return self._declared[row.id]


def _point(row: PackageRow | None, declared: Finding | None) -> str:
    """The operating point in use, where this version serves."""
    if row is None or declared is None or row.state is not PackageState.LIVE:
        return ""
    return row.operating_points.get(declared.id) or declared.default_point.name
