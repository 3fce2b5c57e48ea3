"""The addresses of the alert screen."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from appliance.clock import Clock
from appliance.config import Site
from appliance.errors import NotFoundError
from appliance.records import Actor, ActorKind, QualityChoice, QualityReason
from appliance.screen import people, words
from appliance.screen.feed import Feed, Snapshot
from appliance.screen.packages import PackageText, text_of
from appliance.store import Store
from appliance.store.readmodels import to_json
from appliance.web import sse
from appliance.web.app import Pool, locale_of, make_app, read_json, remember_locale
from appliance.web.assets import Assets
from appliance.web.i18n import Catalogues, language_of
from appliance.web.templates import Templates

BEAT_S = 2.0
_HERE = Path(__file__).parent
_WEB = _HERE.parent / "web"
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,64}")
_SCREEN = re.compile(r"[A-Za-z0-9._-]{0,32}")
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def screen_app(store: Store, site: Site, packages: Mapping[str, PackageText], clock: Clock) -> Starlette:
    """The application of the alert screen, to be served by ``WebServer``.

    Args:
        store: Read for every board; the acts of the screen write alerts.
        site: Name, mode and language.
        packages: Texts by package name. The daemon may change the mapping while the screen runs.
        clock: The daemon's clock.

    Raises:
        ConfigError: A message catalogue is missing or damaged.
    """
    screen = _Screen(store, site, packages, clock)
    return make_app(
        screen.routes(), screen.pool, on_start=screen.feed.start, on_stop=screen.feed.stop, on_end=screen.feed.join
    )


class _Screen:
    def __init__(self, store: Store, site: Site, packages: Mapping[str, PackageText], clock: Clock) -> None:
        self.pool = Pool()
        self.feed = Feed(store, packages, clock)
        self._store = store
        self._site = site
        self._packages = packages
        self._clock = clock
        self._assets = Assets((_WEB / "static", _HERE / "static"))
        self._templates = Templates((_HERE / "templates",), self._assets, Catalogues())
        #: The board in HTML by locale, with the version that it shows.
        self._painted: dict[str, tuple[int, str]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/", self.home),
            Route("/alert", self.page),
            Route("/events", self.events),
            Route("/api/board", self.board),
            Route("/alerts/{alert_id:int}/acknowledge", self.acknowledge, methods=["POST"]),
            Route("/alerts/{alert_id:int}/presented", self.presented, methods=["POST"]),
            Route("/alerts/{alert_id:int}/picture", self.picture),
            Route("/studies/{study_id:int}/identity", self.identity),
            Route("/studies/{study_id:int}/quality", self.quality, methods=["POST"]),
            self._assets.route(),
        ]

    async def home(self, _: Request) -> Response:
        return RedirectResponse("/alert", 307)

    async def page(self, request: Request) -> Response:
        locale = locale_of(request, self._site.language)
        if "lang" in request.query_params:
            screen = _screen_name(request)
            response: Response = RedirectResponse(f"/alert?screen={screen}" if screen else "/alert", 303)
            remember_locale(response, locale)
            return response
        snapshot = self.feed.snapshot
        return HTMLResponse(
            self._templates.render(
                locale,
                "alert.html",
                board_html=await self.pool.run(self._html, snapshot, locale),
                seq=snapshot.seq,
                site=self._site,
                csrf=request.state.csrf,
                screen=_screen_name(request),
                state=str(snapshot.board.state),
                words=words,
            ),
            headers={"Content-Language": locale.replace("_", "-")},
        )

    async def events(self, request: Request) -> Response:
        locale = locale_of(request, self._site.language)
        return sse.EventStream(self._events(locale, sse.resume_after(request, self.feed.snapshot.seq)))

    async def board(self, _: Request) -> Response:
        snapshot = self.feed.snapshot
        return JSONResponse({"seq": snapshot.seq, "stream": self._store.db.stream, **to_json(snapshot.board)})

    async def acknowledge(self, request: Request) -> Response:
        actor = _person(await read_json(request))
        await self.pool.run(self._store.alerts.acknowledge, request.path_params["alert_id"], actor)
        return Response(status_code=204)

    async def quality(self, request: Request) -> Response:
        """What a technologist did about the quality warnings that they were shown of a study."""
        given = await read_json(request)
        actor, seen = _person(given), given.get("analyses")
        try:
            choice, reason = QualityChoice(given.get("choice")), QualityReason(given.get("reason"))
        except ValueError as error:
            raise HTTPException(400, f"choice and reason come from closed lists: {error}") from error
        if not isinstance(seen, list) or not all(type(number) is int for number in seen):
            raise HTTPException(400, "name the analyses that warn, as a list of numbers")
        study_id = request.path_params["study_id"]
        await self.pool.run(self._store.quality.decide, study_id, choice, reason, actor, seen=seen)
        return Response(status_code=204)

    async def presented(self, request: Request) -> Response:
        screen = str((await read_json(request)).get("screen", ""))
        if not _SCREEN.fullmatch(screen):
            raise HTTPException(400, "a screen's name has up to 32 letters, digits, dots, dashes or underscores")
        await self.pool.run(self._store.alerts.presented, request.path_params["alert_id"], screen)
        return Response(status_code=204)

    async def picture(self, request: Request) -> Response:
        data, media_type = await self.pool.run(self._picture, request.path_params["alert_id"])
        return Response(data, media_type=media_type, headers={"Cache-Control": "private, max-age=30"})

    async def identity(self, request: Request) -> Response:
        language = language_of(locale_of(request, self._site.language))
        study_id = request.path_params["study_id"]
        study = (await self.pool.run(self._store.views.some, [study_id])).get(study_id)
        if study is None:
            raise NotFoundError(f"study {study_id} does not exist")
        return JSONResponse(people.whole(study, language))

    async def _events(self, locale: str, seq: int) -> AsyncIterator[bytes]:
        """The board whenever there is another one, with the told facts since the last; a beat every two seconds."""
        version = 0
        next_beat = time.monotonic()
        while not self.feed.is_stopping:
            snapshot = self.feed.snapshot
            if snapshot.version != version:
                version = snapshot.version
                yield await self.pool.run(self._board_event, snapshot, locale, seq)
                seq = snapshot.seq
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + BEAT_S
                if self.feed.is_fresh:
                    yield sse.event("beat", self._beat())
            await self.feed.changed(version, max(next_beat - time.monotonic(), 0.01))

    def _board_event(self, snapshot: Snapshot, locale: str, after: int) -> bytes:
        told = [
            {"seq": fact.seq, "kind": str(fact.kind), "study": fact.study_id, "alert": fact.body.get("alert")}
            for fact in self.feed.missed(after, snapshot.seq)
        ]
        data = {"seq": snapshot.seq, "facts": told, "html": self._html(snapshot, locale)}
        return sse.event("board", data, seq=snapshot.seq)

    def _beat(self) -> dict[str, Any]:
        now = self._clock.now().astimezone()
        offset = now.utcoffset()
        return {
            "now": int(now.timestamp() * 1000),
            "offset_min": int(offset.total_seconds() // 60) if offset else 0,
            "ai": "down" if self.feed.snapshot.board.ai_down_since else "ready",
            "stream": self._store.db.stream,
            "build": self._assets.build,
        }

    def _html(self, snapshot: Snapshot, locale: str) -> str:
        version, html = self._painted.get(locale, (0, ""))
        if version != snapshot.version:
            html = self._templates.render(
                locale,
                "board.html",
                board=snapshot.board,
                evaluation=self._site.mode == "evaluation",
                words=words,
            )
            self._painted[locale] = (snapshot.version, html)
        return html

    def _picture(self, alert_id: int) -> tuple[bytes, str]:
        """The key picture of the analysis that an alert rests on; a ``triage`` package has none to show."""
        alert = self._store.views.alert(alert_id)
        study = self._store.views.some([alert.study_id])[alert.study_id]
        lead = next((a for a in study.analyses if a.id == alert.analysis_id), None)
        if lead is not None and lead.files_removed:
            raise NotFoundError(f"the picture of alert {alert_id} was removed from this box: its time was over")
        if lead is not None and lead.pictures:
            package = text_of(self._packages, lead.package, lead.package_version)
            if package.shows_place:
                data = self._read(lead.pictures[0])
                media_type = next((kind for magic, kind in _PICTURES.items() if data.startswith(magic)), None)
                if media_type is not None:
                    return data, media_type
        raise NotFoundError(f"alert {alert_id} has no picture that may be shown here")

    def _read(self, relative: str) -> bytes:
        try:
            return self._store.spool.path(relative).read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"{relative} is no longer in the spool") from error


def _person(given: Mapping[str, Any]) -> Actor:
    name = str(given.get("name", "")).strip()
    if not _NAME.fullmatch(name):
        raise HTTPException(400, "give the name of the person who does this, 1 to 64 characters")
    return Actor(kind=ActorKind.PERSON, name=name)


def _screen_name(request: Request) -> str:
    name = request.query_params.get("screen", "")
    return name if _SCREEN.fullmatch(name) else ""
