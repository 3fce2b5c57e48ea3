"""The alert screen: the board of a reader, its events, and what a tap reveals. The acts are in ``alert_acts``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from appliance.errors import NotFoundError
from appliance.records import UserRole
from appliance.screen import people, words
from appliance.screen.context import Context
from appliance.screen.feed import Snapshot
from appliance.screen.live import news
from appliance.screen.model import Scope, knows_findings
from appliance.screen.packages import text_of
from appliance.store.readmodels import to_json
from appliance.web import sse
from appliance.web.access import WATCHING, Caller, Guarded, caller_of
from appliance.web.i18n import language_of, language_tag

_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
#: Boards kept drawn: one for each scope and language that is shown.
_DRAWN = 64


def scope_of(context: Context, caller: Caller) -> Scope:
    """What a caller's board is made of: a screen's sources, and findings in words where they are theirs to know."""
    escalation = context.config.screen.escalation
    return Scope(
        sources=tuple(sorted(caller.sources)),
        escalated=bool(caller.sources and caller.screen and caller.screen.name in escalation.screens),
        told=knows_findings(caller.role),
    )


class AlertPages:
    """The board for screens across a room."""

    def __init__(self, context: Context) -> None:
        """Show what the feed holds."""
        self._context = context
        self.feed = context.feed
        self.pool = context.pool
        self._store = context.store
        self._site = context.config.site
        self._packages = context.packages
        self._templates = context.templates
        #: Boards in HTML by scope and locale, with the version that each shows.
        self._painted: dict[tuple[Scope, str], tuple[int, str]] = {}

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/alert", self.page, roles=WATCHING),
            Guarded("/events", self.events, roles=WATCHING),
            Guarded("/api/board", self.board, roles=WATCHING),
            Guarded("/alerts/{alert_id:int}/picture", self.picture, roles=WATCHING),
            Guarded("/studies/{study_id:int}/identity", self.identity, roles=WATCHING),
        ]

    async def page(self, request: Request) -> Response:
        """The page, with the board as it is."""
        locale, caller = self._context.locale(request), caller_of(request)
        scope = scope_of(self._context, caller)
        snapshot = await self.pool.run(self.feed.of, scope)
        return HTMLResponse(
            self._templates.render(
                locale,
                "alert.html",
                board_html=await self.pool.run(self._html, snapshot, scope, locale),
                seq=snapshot.seq,
                site=self._site,
                csrf=request.state.csrf,
                caller=caller,
                is_person=caller.role is not UserRole.SCREEN,
                may_test=caller.role in {UserRole.TECHNOLOGIST, UserRole.ADMINISTRATOR},
                nav=self._context.pages.nav_of(caller),
                sources=[source.name for source in self._context.config.sources],
                repeat_every_s=self._context.config.screen.escalation.repeat_every_s,
                state=str(snapshot.board.state),
                words=words,
            ),
            headers={"Content-Language": language_tag(locale)},
        )

    async def events(self, request: Request) -> Response:
        """The board whenever there is another one, told facts, and beats."""
        locale, scope = self._context.locale(request), scope_of(self._context, caller_of(request))
        after = sse.resume_after(request, (await self.pool.run(self.feed.of, scope)).seq)

        def told(snapshot: Snapshot, after: int, is_another: bool) -> list[bytes]:  # noqa: FBT001 - as every ``Tell``
            # Where the journal went on and the board looks the same, nobody is told of those rows.
            return [self._board_event(snapshot, scope, locale, after)] if is_another else []

        return sse.EventStream(news(self._context, after, told, board=scope))

    async def board(self, request: Request) -> Response:
        """The board as JSON."""
        snapshot = await self.pool.run(self.feed.of, scope_of(self._context, caller_of(request)))
        return JSONResponse({"seq": snapshot.seq, "stream": self._store.db.stream, **to_json(snapshot.board)})

    async def picture(self, request: Request) -> Response:
        """The key picture of an alert, where its package may show one."""
        data, media_type = await self.pool.run(self._picture, caller_of(request), request.path_params["alert_id"])
        return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=30"})

    async def identity(self, request: Request) -> Response:
        """Whose study it is, whole. That somebody asked stands in the journal."""
        language = language_of(self._context.locale(request))
        return JSONResponse(
            await self.pool.run(self._identity, caller_of(request), request.path_params["study_id"], language)
        )

    def _board_event(self, snapshot: Snapshot, scope: Scope, locale: str, after: int) -> bytes:
        told = [
            {"seq": fact.seq, "kind": str(fact.kind), "study": fact.study_id, "alert": fact.body.get("alert")}
            for fact in self.feed.missed(after, snapshot.seq, scope=scope)
        ]
        data = {"seq": snapshot.seq, "facts": told, "html": self._html(snapshot, scope, locale)}
        return sse.event("board", data, seq=snapshot.seq)

    def _html(self, snapshot: Snapshot, scope: Scope, locale: str) -> str:
        version, html = self._painted.get((scope, locale), (0, ""))
        if version != snapshot.version:
            html = self._templates.render(
                locale,
                "board.html",
                board=snapshot.board,
                watched=scope.sources,
                evaluation=self._site.mode == "evaluation",
                site=self._site,
                words=words,
            )
            if len(self._painted) >= _DRAWN:
                self._painted.clear()
            self._painted[scope, locale] = (snapshot.version, html)
        return html

    def _identity(self, caller: Caller, study_id: int, language: str) -> dict[str, str]:
        study = self._store.views.some([study_id]).get(study_id)
        if study is None or not self.feed.sees(scope_of(self._context, caller), study_id):
            raise NotFoundError(f"study {study_id} does not exist")
        self._store.audit.accessed("identity", caller.actor, study_id=study_id)
        return people.whole(study, language)

    def _picture(self, caller: Caller, alert_id: int) -> tuple[bytes, str]:
        """The key picture of the analysis that an alert rests on; a ``triage`` package has none to show.

        A paired screen shows it by itself, which the journal has as the alert's being shown; whoever else sees it is
        told there by name.
        """
        scope = scope_of(self._context, caller)
        alert = self._store.views.alert(alert_id)
        study = self._store.views.some([alert.study_id])[alert.study_id]
        lead = next((a for a in study.analyses if a.id == alert.analysis_id), None)
        if lead is not None and lead.files_removed:
            raise NotFoundError(f"the picture of alert {alert_id} was removed from this box: its time was over")
        is_withheld = any(self.feed.withholds(scope, told.package) for told in alert.findings)
        if lead is not None and lead.pictures and not is_withheld and self.feed.sees(scope, study.id):
            package = text_of(self._packages, lead.package, lead.package_version)
            if package.shows_place:
                data = self._read(lead.pictures[0])
                media_type = next((kind for magic, kind in _PICTURES.items() if data.startswith(magic)), None)
                if media_type is not None:
                    if caller.screen is None:
                        self._store.audit.accessed("picture", caller.actor, study_id=study.id)
                    return data, media_type
        raise NotFoundError(f"alert {alert_id} has no picture that may be shown here")

    def _read(self, relative: str) -> bytes:
        try:
            return self._store.spool.path(relative).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"{relative} is no longer in the spool") from error
