"""One study: what was found and looked for, where its time went, what was sent, what happened to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from appliance.errors import ConflictError, NotFoundError
from appliance.records import QualityChoice, QualityReason, Role, UserRole, VersionState
from appliance.screen import told as telling
from appliance.screen import words
from appliance.screen.context import Context
from appliance.screen.history import LEFT_OUT, OBJECTS, ORDERS, Sentence, history
from appliance.screen.result import ResultCard, cards_of, expected, series_lines
from appliance.screen.review import ASKERS
from appliance.screen.timing import HOPS, WIDTH, TimingView, timing_view
from appliance.screen.told import told
from appliance.screen.viewer import viewer_context
from appliance.screen.worklist import REVIEWS
from appliance.store.forwarding import originals_for
from appliance.store.readmodels import StudyDetail
from appliance.store.short_series import IMAGES_MISSING
from appliance.web.access import ADMINISTRATORS, CLINICAL, RADIOLOGISTS, Caller, Guarded, caller_of
from appliance.web.app import read_form
from appliance.web.i18n import N_, language_of, language_tag
from engines.errors import PackageError

#: Who says which of two versions of an image is the right one, and who answers quality warnings.
CHOOSERS = frozenset({UserRole.TECHNOLOGIST, UserRole.ADMINISTRATOR})
ANSWERERS = frozenset({UserRole.TECHNOLOGIST, UserRole.RADIOLOGIST})

#: What the box does with a version of an image.
VERSIONS: dict[str, str] = {
    VersionState.CURRENT: N_("analysed and shown"),
    VersionState.KEPT: N_("kept"),
    VersionState.CONFLICT: N_("waits for the choice"),
    VersionState.COMPARING: N_("being compared"),
    VersionState.REJECTED: N_("rejected"),
}

_NOT_DONE = N_("This was not done: things have changed meanwhile. Look again.")
_NO_IMAGES = N_("This was not done: images of this study are no longer on this box. Send the study again first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFacts:
    """What only the manifest of a package says."""

    #: Market, class and number.
    registrations: tuple[tuple[str, str, str], ...]
    #: Titles of its measurements.
    measures: Mapping[str, Mapping[str, str]]


class StudyPages:
    """The page of a study, and what is done at it."""

    def __init__(self, context: Context) -> None:
        """Show ``context.store``."""
        self._context = context
        #: By row of a package; a row's manifest never changes.
        self._manifests: dict[int, PackageFacts] = {}

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/studies/{study_id:int}", self.page, roles=CLINICAL),
            Guarded("/studies/{study_id:int}/reprocess", self.reprocess, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/studies/{study_id:int}/version", self.choose, roles=CHOOSERS, methods=["POST"]),
            Guarded("/studies/{study_id:int}/warnings", self.answer, roles=ANSWERERS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """The study as it stands."""
        return await self._page(request)

    async def reprocess(self, request: Request) -> Response:
        """Analyse it again."""
        store, actor = self._context.store, caller_of(request).actor
        return await self._act(request, lambda study_id: store.analyses.reprocess(study_id, actor), _NO_IMAGES)

    async def choose(self, request: Request) -> Response:
        """Take this version of an image from now on."""
        context, actor = self._context, caller_of(request).actor
        version = _number((await read_form(request)).get("version", ""))

        def act(study_id: int) -> None:
            series = context.store.views.study(study_id).series
            if version not in {one.id for item in series for one in item.versions}:
                raise HTTPException(400, f"study {study_id} has no version {version}; reload the page")
            context.store.studies.choose(version, lambda source: originals_for(context.config, source), actor)

        return await self._act(request, act)

    async def answer(self, request: Request) -> Response:
        """Say what was done about the quality warnings."""
        form, store, actor = await read_form(request), self._context.store, caller_of(request).actor
        try:
            choice, reason = QualityChoice(form.get("choice", "")), QualityReason(form.get("reason", ""))
        except ValueError as error:
            raise HTTPException(400, f"choice and reason come from closed lists: {error}") from error
        seen = [_number(one) for one in form.getlist("analysis")]
        return await self._act(
            request, lambda study_id: store.quality.decide(study_id, choice, reason, actor, seen=seen)
        )

    async def _act(self, request: Request, act: Callable[[int], object], refusal: str = _NOT_DONE) -> Response:
        """Do it and go back to the page; where it cannot be done, the page says so."""
        study_id = request.path_params["study_id"]
        await self._context.pool.run(self._detail, study_id, caller_of(request))
        try:
            await self._context.pool.run(act, study_id)
        except ConflictError:
            return await self._page(request, status=409, refusal=refusal)
        return RedirectResponse(f"/studies/{study_id}", 303)

    async def _page(self, request: Request, *, status: int = 200, refusal: str = "") -> Response:
        locale = self._context.locale(request)
        html = await self._context.pool.run(self._html, request, caller_of(request), locale, refusal)
        return HTMLResponse(html, status_code=status, headers={"Content-Language": language_tag(locale)})

    def _html(self, request: Request, caller: Caller, locale: str, refusal: str) -> str:
        context = self._context
        seq = context.store.journal.last_seq()  # before the reading: the page may know more, never less
        detail = self._detail(request.path_params["study_id"], caller)
        context.store.audit.accessed("study", caller.actor, study_id=detail.study.id)
        (row,) = context.store.worklist.rows([detail.study.id])
        hides = telling.hides_findings(detail.study, context, caller.role)
        cards = cards_of(detail.study, context.packages, hides=hides)
        return context.pages.html(
            request,
            "study.html",
            seq=seq,
            study=detail.study,
            one=told(row, context, caller.role, language_of(locale)),
            cards=[card for card in cards if card.is_current],
            earlier=[card for card in cards if not card.is_current],
            known=self._known(cards),
            shows_scores=caller.role is UserRole.ADMINISTRATOR,
            timings=self._timings(detail),
            series=series_lines(detail),
            short=self._short(detail.study.id),
            conflicts=_conflicts(detail),
            case=context.store.reviews.case(detail.study.id),
            history=_history(detail),
            retention_hours=context.config.retention.images_h,
            may={
                "reprocess": caller.role in ADMINISTRATORS and detail.study.images_removed_at is None,
                "choose": caller.role in CHOOSERS,
                "answer": caller.role in ANSWERERS,
                "review": caller.role in RADIOLOGISTS,
                "ask": caller.role in ASKERS,
            },
            refusal=refusal,
            words=words,
            telling=telling,
            reviews=REVIEWS,
            hops=HOPS,
            bar_width=WIDTH,
            left_out=LEFT_OUT,
            orders=ORDERS,
            objects=OBJECTS,
            states=telling.DELIVERIES,
            version_states=VERSIONS,
            **viewer_context(context, caller, detail.study, locale=locale),
        )

    def _detail(self, study_id: int, caller: Caller) -> StudyDetail:
        """The study; to somebody bound to sources, one of another source does not exist."""
        detail = self._context.store.views.study(study_id)
        if caller.sources and detail.study.source not in caller.sources:
            raise NotFoundError(f"study {study_id} does not exist")
        return detail

    def _short(self, study_id: int) -> list[Sentence]:
        """Series with a finding of which the scanner listed more, later, than came."""
        issues = [one for one in self._context.store.issues.open() if one.study_id == study_id]
        return [
            expected(one.detail["listed"] - one.detail["missing"], one.detail["listed"])
            for one in issues
            if one.code == IMAGES_MISSING
        ]

    def _timings(self, detail: StudyDetail) -> dict[int, TimingView]:
        timings = self._context.store.timings
        return {
            analysis_id: timing_view(timing, timings.usual(timing.package))
            for analysis_id, timing in timings.of_study(detail.study.id).items()
        }

    def _known(self, cards: Iterable[ResultCard]) -> Mapping[tuple[str, str], PackageFacts]:
        """What their manifests say of the packages that the cards speak of, by name and version."""
        wanted = {(card.package, card.version) for card in cards}
        found = {}
        for name in {name for name, _ in wanted}:
            for row in self._context.store.packages.all(name):
                if (row.name, row.version) in wanted:
                    if row.id not in self._manifests:
                        self._manifests[row.id] = _facts(self._context.store.packages.manifest(row.id), row.name)
                    found[row.name, row.version] = self._manifests[row.id]
        return found


def _facts(manifest: str, name: str) -> PackageFacts:
    # Here, because it brings numpy with it, and every page imports this.
    from engines.package import parse_manifest

    try:
        read = parse_manifest(manifest.encode(), name)
    except PackageError:  # of an earlier version of this software: its results are told all the same
        return PackageFacts(registrations=(), measures={})
    return PackageFacts(
        registrations=tuple((market, one.class_, one.number) for market, one in read.regulatory.items()),
        measures={
            measure.name: {"en": measure.title.en, "zh_Hans": measure.title.zh_Hans}
            for finding in read.findings
            for measure in finding.measurements
        },
    )


def _number(text: object) -> int:
    if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 19:
        return int(text)
    raise HTTPException(400, f"{json.dumps(str(text)[:20])} is no number of ours; reload the page")


def _conflicts(detail: StudyDetail) -> list[list[Any]]:
    """Images of which a person must choose a version: all versions of each."""
    images: dict[str, list[Any]] = {}
    for series in detail.series:
        for version in series.versions:
            images.setdefault(version.sop_instance_uid, []).append(version)
    return [versions for versions in images.values() if any(one.state == "conflict" for one in versions)]


def _history(detail: StudyDetail) -> list[Any]:
    analyses = detail.study.analyses
    hidden = frozenset(one.id for one in analyses if one.role is not Role.LIVE)
    return history(detail.facts, {one.id: one.package for one in analyses}, hidden)
