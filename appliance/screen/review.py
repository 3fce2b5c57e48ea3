"""The review of a study by a radiologist, and the queue of those that wait for one.

That somebody looked cannot be proven to a server: the page opens its decisions after an image of each judged series was
on the screen, tells how many there were, and the journal keeps what it told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from appliance.errors import NotFoundError
from appliance.records import (
    FindingResult,
    ReviewedFinding,
    UserRole,
)
from appliance.screen import people
from appliance.screen import told as telling
from appliance.screen.context import Context
from appliance.screen.packages import text_of
from appliance.screen.review_draft import FINDING_CODES, code_text, draft_of, reading_of
from appliance.screen.review_words import REVIEW_WORDS, WAITS
from appliance.screen.told import told
from appliance.screen.viewer import READS_FIRST, viewer_context
from appliance.store.readmodels import StudyView
from appliance.store.review_cases import Case, Waiting
from appliance.store.review_rules import NOTE_MAX, Judged, ReviewRefusedError
from appliance.store.reviews import ReviewConflictError
from appliance.web.access import RADIOLOGISTS, Caller, Guarded, caller_of
from appliance.web.app import read_form, read_json
from appliance.web.i18n import language_of, language_tag
from appliance.web.sign_in import WaitFirst

#: Who may ask for a radiologist's word.
ASKERS = frozenset({UserRole.TECHNOLOGIST, UserRole.RADIOLOGIST})
#: A password that was given longer ago is asked for again before something is signed.
PROOF_HOLDS = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingLine:
    """One finding of one analysis, in words."""

    analysis: int
    finding: str
    title: Mapping[str, str]
    flagged: bool
    category: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidLine:
    """What a review says of one finding, in words."""

    title: Mapping[str, str]
    said: ReviewedFinding


class ReviewPages:
    """Queue, review, signature."""

    def __init__(self, context: Context) -> None:
        """Show and sign in ``context.store``."""
        self._context = context
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """The addresses."""
        review = "/studies/{study_id:int}/review"
        return [
            Guarded("/reviews", self.queue, roles=RADIOLOGISTS),
            Guarded(review, self.page, roles=RADIOLOGISTS),
            Guarded(review, self.sign, roles=RADIOLOGISTS, methods=["POST"]),
            Guarded(f"{review}/preview", self.preview, roles=RADIOLOGISTS, methods=["POST"]),
            Guarded(f"{review}/ask", self.ask, roles=ASKERS, methods=["POST"]),
        ]

    # Pages -----------------------------------------------------------------------------------------------------

    async def queue(self, request: Request) -> Response:
        """What waits; the next case is offered and never opened by itself."""
        return await self._html(request, self._queue)

    async def page(self, request: Request) -> Response:
        """One case."""
        return await self._html(request, self._page)

    async def preview(self, request: Request) -> Response:
        """What a draft would say and send, as a part of the page; 422 while it is not whole."""
        given, study_id = await read_json(request), request.path_params["study_id"]
        try:
            return await self._html(request, lambda _: self._preview(request, study_id, given))
        except ReviewRefusedError as error:
            return JSONResponse({"error": str(error)}, status_code=422)

    # Acts ------------------------------------------------------------------------------------------------------

    async def sign(self, request: Request) -> Response:
        """Sign a version; 403 with ``proof`` where the password is needed, 409 where somebody was faster."""
        given, study_id, caller = await read_json(request), request.path_params["study_id"], caller_of(request)
        refusal = await self._unproven(request, str(given.get("password", "")))
        if refusal is not None:
            return refusal
        config, store, is_test = self._context.config, self._store, self._is_test(caller)

        def act() -> int:
            review = store.reviews.sign(
                study_id,
                draft_of(store, study_id, given),
                str(given.get("etag", "")),
                caller.actor,
                reading_of(given),
                organization=config.review.organization or config.site.name,
                counts=not is_test,
            )
            return review.version

        try:
            version = await self._context.pool.run(act)
        except ReviewConflictError as conflict:
            standing = conflict.standing
            body = {
                "error": str(conflict),
                "conflict": True,
                "by": standing.reviewer if standing else "",
                "at": standing.signed_at.astimezone().strftime("%H:%M") if standing else "",
                "version": standing.version if standing else 0,
            }
            return JSONResponse(body, status_code=409)
        except ReviewRefusedError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        return JSONResponse({"version": version})

    async def ask(self, request: Request) -> Response:
        """Somebody wants a radiologist's word."""
        await read_form(request)
        study_id = request.path_params["study_id"]
        await self._context.pool.run(self._store.reviews.ask, study_id, caller_of(request).actor)
        return RedirectResponse(f"/studies/{study_id}", 303)

    # Parts -----------------------------------------------------------------------------------------------------

    async def _unproven(self, request: Request, password: str) -> Response | None:
        """Why nothing can be signed yet: it is too long ago that the person proved who they are."""
        caller = caller_of(request)
        session = caller.session
        if session is not None and self._context.clock.now() - session.proved_at <= PROOF_HOLDS:
            return None
        if caller.account is None or not caller.account.has_password:
            # Their password is their provider's: a new session is the proof.
            return JSONResponse({"error": "sign in again, then sign", "proof": "sign-in"}, status_code=403)
        if not password:
            return JSONResponse({"error": "give your password to sign", "proof": "password"}, status_code=403)
        try:
            if await self._context.callers.prove(request, password):
                return None
        except WaitFirst as wait:
            body = {"error": f"too many attempts; wait {wait.wait_s} s", "proof": "wait", "wait_s": wait.wait_s}
            return JSONResponse(body, status_code=429)
        return JSONResponse({"error": "this is not your password", "proof": "wrong"}, status_code=403)

    async def _html(self, request: Request, make: Any) -> Response:
        tag = language_tag(self._context.locale(request))
        html = await self._context.pool.run(make, request)
        return HTMLResponse(html, headers={"Content-Language": tag})

    def _queue(self, request: Request) -> str:
        context, caller = self._context, caller_of(request)
        context.store.audit.accessed("reviews", caller.actor)
        waiting = context.store.reviews.queue()
        language = language_of(context.locale(request))
        rows = {row.study.id: row for row in context.store.worklist.rows([one.study_id for one in waiting])}
        lines: list[tuple[Waiting, Any]] = [
            (one, told(rows[one.study_id], context, caller.role, language)) for one in waiting if one.study_id in rows
        ]
        done = request.query_params.get("done", "")
        return context.pages.html(
            request,
            "reviews.html",
            lines=lines,
            waits=WAITS,
            telling=telling,
            read_first=_reads_first(request),
            done=done if done.isdecimal() else "",
        )

    def _page(self, request: Request) -> str:
        context, caller = self._context, caller_of(request)
        study, case = self._study(request.path_params["study_id"])
        context.store.audit.accessed("study", caller.actor, study_id=study.id)
        locale = context.locale(request)
        lines = self._lines(case)
        flagged = [line for line in lines if line.flagged]
        return context.pages.html(
            request,
            "review.html",
            study=study,
            case=case,
            person=people.whole(study, language_of(locale)),
            packages=[(one, text_of(context.packages, one.package, one.package_version)) for one in case.basis],
            lines=lines,
            flagged=flagged,
            missable=[line for line in lines if not line.flagged],
            codes={name: code_text(name) for name in FINDING_CODES},
            history=[(one, self._said(case, one.findings)) for one in reversed(case.reviews)],
            read_first=_reads_first(request),
            facts=json.dumps(
                {"study": study.id, "etag": case.etag, "series": [str(one) for one in case.series]}, sort_keys=True
            ),
            note_max=NOTE_MAX,
            **REVIEW_WORDS,
            **viewer_context(context, caller, study, locale=locale, editable=True, reads_first=_reads_first(request)),
        )

    def _preview(self, request: Request, study_id: int, given: Mapping[str, Any]) -> str:
        _, case = self._study(study_id)
        draft, is_test = draft_of(self._store, study_id, given), self._is_test(caller_of(request))
        said, lines = self._store.reviews.will_send(study_id, draft, counts=not is_test)
        return self._context.pages.html(
            request,
            "review-sending.html",
            said=self._said(case, said),
            sendings=lines,
            is_test=is_test,
            **REVIEW_WORDS,
        )

    def _is_test(self, caller: Caller) -> bool:
        return caller.account is not None and caller.account.name in self._context.config.review.test_accounts

    def _study(self, study_id: int) -> tuple[StudyView, Case]:
        study = self._store.views.some([study_id]).get(study_id)
        if study is None:
            raise NotFoundError(f"study {study_id} does not exist")
        return study, self._store.reviews.case(study_id)

    def _lines(self, case: Case) -> list[FindingLine]:
        return [self._line(one, finding) for one in case.basis for finding in one.result.findings]

    def _line(self, one: Judged, finding: FindingResult) -> FindingLine:
        text = text_of(self._context.packages, one.package, one.package_version)
        title, _ = text.words(finding.id)
        return FindingLine(
            analysis=one.analysis_id,
            finding=finding.id,
            title=title,
            flagged=finding.flagged,
            category=finding.category,
        )

    def _said(self, case: Case, findings: tuple[ReviewedFinding, ...]) -> list[SaidLine]:
        basis = {one.analysis_id: one for one in case.basis}
        found = []
        for said in findings:
            judged = basis.get(said.analysis_id)
            if said.code:
                title: Mapping[str, str] = code_text(said.code)
            elif judged is not None:
                text = text_of(self._context.packages, judged.package, judged.package_version)
                title, _ = text.words(said.finding)
            else:
                title = {"en": said.finding, "zh_Hans": said.finding}
            found.append(SaidLine(title=title, said=said))
        return found


def _reads_first(request: Request) -> bool:
    return request.query_params.get(READS_FIRST) == "1"
