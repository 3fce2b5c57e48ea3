"""Packages and their engines: what runs, how it fares, and who let it. Acts are those of ``scanside model``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import ApplianceError, ConflictError, NotFoundError
from appliance.records import Actor, UserRole
from appliance.screen.context import Context
from appliance.screen.parts_of_admin import LONGEST_REASON, NO_REASON, stamp
from appliance.screen.tools import EngineState
from appliance.store.figure_rows import read_table
from appliance.store.figures import Replayed, Scale
from appliance.store.model_figures import AlertsPerDay, Day, ModelFigures
from appliance.store.package_rows import PackageRow, PackageState
from appliance.store.package_rules import Terms
from appliance.store.packages import Agreement, Soak
from appliance.web.access import ADMINISTRATORS, KEEPERS, Guarded, caller_of
from appliance.web.app import Form, read_form
from appliance.web.i18n import N_
from engines.errors import EngineError
from engines.manifest import Finding, Manifest
from engines.package import parse_manifest

STATES = {
    PackageState.INSTALLED: N_("Installed, does not run"),
    PackageState.SILENT: N_("Silent"),
    PackageState.SHADOW: N_("Shadow"),
    PackageState.LIVE: N_("LIVE"),
    PackageState.RETIRED: N_("Retired"),
    PackageState.WITHDRAWN: N_("OUT OF SERVICE"),
}
MEANINGS = {
    PackageState.INSTALLED: N_("It lies here and analyses nothing."),
    PackageState.SILENT: N_("It analyses, and nobody is told."),
    PackageState.SHADOW: N_("It runs beside the live version; only whether they agree is kept."),
    PackageState.LIVE: N_("Its findings raise alerts and are sent."),
    PackageState.RETIRED: N_("It served until another version took over."),
    PackageState.WITHDRAWN: N_("Somebody took it out of service."),
}
STATUSES = {
    "demonstrator": N_("Demonstrator, not for patient care"),
    "research": N_("Research, not for patient care"),
    "cleared": N_("Cleared"),
}
USES = {
    "triage": N_("Triage: which study first"),
    "detection": N_("Detection: shows the place"),
    "measurement": N_("Measurement"),
    "quality": N_("Image quality"),
}
ENGINES = {
    "none": N_("Needs none: ONNX Runtime runs its graph"),
    "missing": N_("Missing: not built yet"),
    "building": N_("Building. Scanning goes on with what served before."),
    "verifying": N_("Being compared with the reference"),
    "ready": N_("Ready"),
    "rejected": N_("Rejected"),
}
WRONG_NAME = N_("Type the package's name as it stands there.")
NO_ENGINE = N_("Its engine is missing or rejected. Build it first; until then it cannot go live.")
NO_TIME = N_("Give some days or studies; or put it live by name.")
SPARK = (140, 34)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One version as the page shows it."""

    row: PackageRow
    #: None: this software no longer understands it.
    manifest: Manifest | None
    engine: EngineState
    figures: ModelFigures
    soak: Soak | None
    agreement: Agreement | None
    spark_p50: str
    spark_p95: str

    def point(self, finding: Finding) -> str:
        """The operating point in use."""
        return self.row.operating_points.get(finding.id) or finding.default_point.name


class ModelPages:
    """A page of packages, one of operating points, and acts."""

    def __init__(self, context: Context) -> None:
        """Show the packages of the store."""
        self._context = context
        self._store = context.store
        self._is_clinical = context.config.site.mode == "clinical"

    def routes(self) -> list[Guarded]:
        """The addresses."""
        acts = {
            "activate": self.activate,
            "live": self.live,
            "withdraw": self.withdraw,
            "rollback": self.rollback,
            "build": self.build,
        }
        one = "/models/{name}/{version}"
        return [
            Guarded("/models", self.page, roles=KEEPERS),
            *(Guarded(f"{one}/{act}", call, roles=ADMINISTRATORS, methods=["POST"]) for act, call in acts.items()),
            Guarded("/models/cancel-build", self.cancel, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded(f"{one}/points/{{finding}}", self.points, roles=KEEPERS),
            Guarded(f"{one}/points/{{finding}}", self.choose, roles=ADMINISTRATORS, methods=["POST"]),
        ]

    # Pages -----------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """Every version that has a slot."""
        return await self._page(request)

    async def points(self, request: Request) -> Response:
        """The operating points of one finding, with what each would have flagged here."""
        return await self._points(request)

    # Acts ------------------------------------------------------------------------------------------------------

    async def activate(self, request: Request) -> Response:
        """Let a version begin its silent time, or run as shadow."""
        given = await read_form(request)
        is_shadow = given.get("as") == "shadow"
        terms = (
            Terms(shadow=True)
            if is_shadow
            else Terms(days=_amount(given, "days"), studies=int(_amount(given, "studies")))
        )
        if terms.is_at_once:
            return await self._page(
                request, status=422, trouble=N_("Give some days or studies; or put it live by name.")
            )
        return await self._started(request, given, terms)

    async def live(self, request: Request) -> Response:
        """Live at once: only for who types its name, and never without a proven engine."""
        given = await read_form(request)
        if given.get("typed", "").strip() != request.path_params["name"]:
            return await self._page(request, status=422, trouble=WRONG_NAME)
        engine = (await self._context.pool.run(self._engines)).get(self._key(request))
        if engine is not None and not engine.may_serve:
            return await self._page(request, status=409, trouble=NO_ENGINE)
        return await self._started(request, given, Terms(days=0, studies=0))

    async def withdraw(self, request: Request) -> Response:
        """Take a version out of service now."""
        name, version = self._key(request)
        return await self._reasoned(
            request,
            lambda why, actor, seen: self._store.packages.withdraw(
                name, why, version=version, owed=self._context.tools.owed, actor=actor, seen=seen
            ),
        )

    async def rollback(self, request: Request) -> Response:
        """Let the version before serve again."""
        name, _ = self._key(request)
        return await self._reasoned(
            request,
            lambda why, actor, seen: self._store.packages.roll_back(
                name, why, owed=self._context.tools.owed, actor=actor, seen=seen
            ),
        )

    async def build(self, request: Request) -> Response:
        """Ask for its engine; scanning goes on meanwhile."""
        engine = (await self._context.pool.run(self._engines)).get(self._key(request))
        if engine is None or engine.state == "none":
            return await self._page(request, status=409, trouble=ENGINES["none"])
        flavour, _, precision = engine.wanted.partition(" ")
        name, version = self._key(request)
        actor = caller_of(request).actor
        return await self._did(
            request, partial(self._store.engines.ask_build, f"{name}@{version}", flavour, precision, actor)
        )

    async def cancel(self, request: Request) -> Response:
        """End the build that runs."""
        return await self._did(request, partial(self._store.engines.ask_cancel, caller_of(request).actor))

    async def choose(self, request: Request) -> Response:
        """Another operating point, with a reason."""
        given = await read_form(request)
        reason, point = given.get("reason", "").strip()[:LONGEST_REASON], given.get("point", "")
        if not reason:
            return await self._points(request, status=422, trouble=NO_REASON)
        name, version = self._key(request)
        finding, actor = request.path_params["finding"], caller_of(request).actor
        act = partial(
            self._store.packages.choose_point,
            *(name, finding, point, reason),
            version=version,
            clinical=self._is_clinical,
            actor=actor,
            seen=given.get("seen", ""),
        )
        try:
            await self._context.pool.run(act)
        except (ConflictError, NotFoundError) as error:
            return await self._points(request, status=409, trouble=str(error))
        return RedirectResponse(f"/models/{name}/{version}/points/{finding}", 303)

    # Inside ----------------------------------------------------------------------------------------------------

    async def _started(self, request: Request, given: Form, terms: Terms) -> Response:
        name, version = self._key(request)
        why, actor = given.get("reason", "").strip()[:LONGEST_REASON], caller_of(request).actor
        if not why:
            return await self._page(request, status=422, trouble=NO_REASON)
        return await self._did(
            request,
            partial(
                self._store.packages.activate,
                *(name, terms),
                version=version,
                clinical=self._is_clinical,
                owed=self._context.tools.owed,
                actor=actor,
                why=why,
                seen=given.get("seen", ""),
            ),
        )

    async def _reasoned(self, request: Request, act: Callable[[str, Actor, str], Any]) -> Response:
        given = await read_form(request)
        why = given.get("reason", "").strip()[:LONGEST_REASON]
        if not why:
            return await self._page(request, status=422, trouble=NO_REASON)
        return await self._did(request, partial(act, why, caller_of(request).actor, given.get("seen", "")))

    async def _did(self, request: Request, act: Callable[[], Any]) -> Response:
        try:
            await self._context.pool.run(act)
        except ApplianceError as error:
            return await self._page(request, status=409, trouble=str(error))
        return RedirectResponse("/models", 303)

    async def _page(self, request: Request, *, status: int = 200, trouble: str = "") -> Response:
        cards = await self._context.pool.run(self._cards)
        return self._context.pages.page(
            request,
            "models.html",
            status=status,
            cards=cards,
            trouble=trouble,
            may_act=caller_of(request).role is UserRole.ADMINISTRATOR,
            is_clinical=self._is_clinical,
            can_roll_back={card.row.name for card in cards if card.row.state is PackageState.RETIRED},
            building=any(card.engine.state == "building" for card in cards),
            states=STATES,
            meanings=MEANINGS,
            statuses=STATUSES,
            uses=USES,
            engines=ENGINES,
            spark=SPARK,
            stamp=stamp,
            built=lambda text: stamp(datetime.fromisoformat(text.replace("Z", "+00:00")))[:16],
        )

    async def _points(self, request: Request, *, status: int = 200, trouble: str = "") -> Response:
        name, version = self._key(request)
        row, manifest, finding, told, replayed = await self._context.pool.run(
            self._point_figures, name, version, request.path_params["finding"]
        )
        return self._context.pages.page(
            request,
            "model-points.html",
            status=status,
            trouble=trouble,
            row=row,
            manifest=manifest,
            finding=finding,
            used=row.operating_points.get(finding.id) or finding.default_point.name,
            told=told,
            replayed=replayed,
            may_act=caller_of(request).role is UserRole.ADMINISTRATOR,
            is_clinical=self._is_clinical,
        )

    def _point_figures(
        self, name: str, version: str, finding_id: str
    ) -> tuple[PackageRow, Manifest, Finding, AlertsPerDay, dict[str, Replayed]]:
        row = next((one for one in self._store.packages.all(name) if one.version == version), None)
        if row is None:
            raise NotFoundError(f"{name} {version} is not here")
        manifest = _manifest(self._store.packages.manifest(row.id), row)
        finding = next((one for one in manifest.findings if one.id == finding_id), None) if manifest else None
        if manifest is None or finding is None:
            raise NotFoundError(f"{name} {version} has no finding {finding_id!r}")
        points = {point.name: point.threshold for point in finding.operating_points}
        told = self._store.models.alerts_per_day(name, version, finding_id, points)
        mode = self._context.config.site.mode
        table = read_table(self._store.db, self._context.clock.now() - timedelta(days=30), mode)
        scale = Scale(package=name, version=version, finding=finding_id, mode=mode)
        replayed = dict(zip(points, table.replay(scale, points), strict=True))
        return row, manifest, finding, told, replayed

    def _engines(self) -> dict[tuple[str, str], EngineState]:
        return {(one.package, one.version): one for one in self._context.tools.engines()}

    def _cards(self) -> list[Card]:
        engines = self._engines()
        packages = self._store.packages
        cards = []
        for row in packages.all():
            if row.state is PackageState.REMOVED or not row.chosen:
                continue
            figures = self._store.models.figures(row.name, row.version)
            cards.append(
                Card(
                    row=row,
                    manifest=_manifest(packages.manifest(row.id), row),
                    engine=engines.get(
                        (row.name, row.version),
                        EngineState(package=row.name, version=row.version, wanted="", state="none"),
                    ),
                    figures=figures,
                    soak=packages.soak(row) if row.state is PackageState.SILENT else None,
                    agreement=packages.agreement(row) if row.state is PackageState.SHADOW else None,
                    spark_p50=_spark(figures.days, [day.p50_ms for day in figures.days]),
                    spark_p95=_spark(figures.days, [day.p95_ms for day in figures.days]),
                )
            )
        order = list(STATES)
        return sorted(cards, key=lambda card: (card.row.name, -order.index(card.row.state)))

    @staticmethod
    def _key(request: Request) -> tuple[str, str]:
        return request.path_params["name"], request.path_params["version"]


def _manifest(text: str, row: PackageRow) -> Manifest | None:
    try:
        return parse_manifest(text.encode(), f"{row.name} {row.version}")
    except EngineError:
        return None


def _spark(days: Sequence[Day], values: Sequence[float | None]) -> str:
    """The path of an SVG over seven days, all lines of one picture to the same scale."""
    top = max((day.p95_ms or 0.0 for day in days), default=0.0)
    if top <= 0:
        return ""
    width, height = SPARK
    path, pen = "", "M"
    for n, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        x, y = 2 + n * (width - 4) / 6, height - 3 - value / top * (height - 6)
        path += f"{pen}{x:.1f} {y:.1f}" + ("h0" if pen == "M" else "")  # a day alone is a dot
        pen = "L"
    return path


def _amount(given: Form, name: str) -> float:
    try:
        value = float(given.get(name, ""))
    except ValueError as error:
        raise HTTPException(400, f"{name} is a number") from error
    if not 0 <= value <= 10_000:
        raise HTTPException(400, f"{name} is between 0 and 10000")
    return value
