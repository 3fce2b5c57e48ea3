"""Screens at scanners: a browser becomes one by a code that an administrator reads out, or by a link alone."""

from __future__ import annotations

import re
import secrets
from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import ConflictError
from appliance.records import UserRole
from appliance.screen.context import Context
from appliance.screen.parts_of_admin import LONGEST_REASON, NO_REASON
from appliance.web.access import ADMINISTRATORS, ANYBODY, Caller, Guarded, caller_of
from appliance.web.app import read_form
from appliance.web.i18n import N_
from appliance.web.sign_in import address_of
from appliance.web.throttle import Rate

NAME = re.compile(r"[^\W_][\w. -]{0,63}")
BAD_NAME = N_("1 to 64 letters, digits, blanks and . _ -, beginning with a letter or digit.")
BAD_SOURCE = N_("This source is not in the configuration.")
WRONG_CODE = N_("This code pairs no screen. Type it again, or ask an administrator for a new one.")
USED_LINK = N_("This link has been used, or its time is over. Ask an administrator for a new one.")


def new_code() -> str:
    """Six digits to read out; they hold for a quarter of an hour and are guessed at a bounded rate."""
    return f"{secrets.randbelow(1_000_000):06d}"


def new_ticket() -> str:
    """256 random bits for a link."""
    return secrets.token_urlsafe(32)


def pairing_path(ticket: str) -> str:
    """The address that makes the browser that opens it a screen."""
    return f"/pair?{urlencode({'ticket': ticket})}"


class ScreensPages:
    """The list for administrators, and the page where a browser is paired."""

    def __init__(self, context: Context) -> None:
        """Act on the screens of the store."""
        self._context = context
        self._screens = context.store.screens
        self._sources = tuple(source.name for source in context.config.sources)
        clock = context.store.db.clock
        self._wrong_here = Rate(clock, 5, 60.0)
        self._wrong_at_all = Rate(clock, 20, 3600.0)

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/screens", self.page, roles=ADMINISTRATORS),
            Guarded("/screens", self.offer, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/screens/{screen_id:int}/revoke", self.revoke, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/pair", self.pair_page, roles=ANYBODY),
            Guarded("/pair", self.pair, roles=ANYBODY, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """All screens."""
        return await self._list(request)

    async def offer(self, request: Request) -> Response:
        """A code for a screen; of a name that is there already, for the panel that replaces it."""
        given = await read_form(request)
        name, sources = given.get("name", "").strip(), given.getlist("source")
        wrong = {}
        if not NAME.fullmatch(name):
            wrong["name"] = BAD_NAME
        if not set(sources) <= set(self._sources):
            wrong["source"] = BAD_SOURCE
        if wrong:
            return await self._list(request, status=422, wrong=wrong, given=given)
        code = new_code()
        try:
            await self._context.pool.run(self._screens.offer, name, sources, code, caller_of(request).actor)
        except ConflictError as error:
            return await self._list(request, status=409, trouble=str(error), given=given)
        return await self._list(request, told=(name, f"{code[:3]} {code[3:]}"))

    async def revoke(self, request: Request) -> Response:
        """The screen shows nothing any more."""
        reason = (await read_form(request)).get("reason", "").strip()[:LONGEST_REASON]
        if not reason:
            return await self._list(request, status=422, trouble=NO_REASON)
        screen_id, actor = request.path_params["screen_id"], caller_of(request).actor
        await self._context.pool.run(partial(self._screens.revoke, screen_id, actor, reason=reason))
        return RedirectResponse("/screens", 303)

    async def pair_page(self, request: Request) -> Response:
        """Type the code here; or, with a ticket in the address, nothing at all."""
        caller: Caller | None = request.state.caller
        ticket = request.query_params.get("ticket", "")
        if not ticket:
            return self._form(request)
        if caller is not None and caller.role is UserRole.SCREEN:
            # A kiosk opens the same link at every start.
            return RedirectResponse("/alert", 303)
        if request.method != "GET" or "prefetch" in request.headers.get("sec-purpose", ""):
            return Response(status_code=204)  # only looked at: the link is not used up
        return await self._pair(request, ticket, USED_LINK)

    async def pair(self, request: Request) -> Response:
        """The code that was typed."""
        code = re.sub(r"\D", "", (await read_form(request)).get("code", ""))
        return await self._pair(request, code, WRONG_CODE)

    async def _pair(self, request: Request, secret: str, said: str) -> Response:
        address, is_code = address_of(request), len(secret) < 20
        wait_s = self._wrong_here.take(address)
        if not wait_s and is_code and (wait_s := self._wrong_at_all.take()):
            self._wrong_here.give_back(address)
        if wait_s:
            answer = self._form(request, status=429, wait_s=int(wait_s) + 1)
            answer.headers["Retry-After"] = str(int(wait_s) + 1)
            return answer
        try:
            screen = await self._context.pool.run(self._screens.pair, secret)
        except ConflictError:
            await self._context.callers.door.tell_failed(request, "pairing")
            return self._form(request, status=422, error=said)
        self._wrong_here.give_back(address)
        if is_code:
            self._wrong_at_all.give_back()
        # Not a redirect: one that began on another site's page would come without the new cookie.
        response = self._context.callers.onward(request, "/alert")
        await self._context.callers.begin(request, response, screen, "pairing")
        return response

    def _form(self, request: Request, *, status: int = 200, **values: Any) -> Response:
        shown = {"error": "", "wait_s": 0} | values
        return self._context.pages.page(request, "pair.html", status=status, **shown)

    async def _list(self, request: Request, *, status: int = 200, **values: Any) -> Response:
        screens = await self._context.pool.run(self._screens.all)
        shown: dict[str, Any] = {"wrong": {}, "given": {}, "told": None, "trouble": ""}
        shown |= {"screens": screens, "sources": self._sources, "base": f"{request.url.scheme}://{request.url.netloc}"}
        return self._context.pages.page(request, "screens.html", status=status, **(shown | values))
