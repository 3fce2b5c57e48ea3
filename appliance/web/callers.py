"""Knows callers by the store: the session behind a cookie."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.records import Actor, ActorKind
from appliance.store import Store
from appliance.store.accounts import Account
from appliance.store.screens import ScreenView
from appliance.web.access import Caller, caller_of, local_target, to_sign_in, wants_page
from appliance.web.pages import Pages
from appliance.web.pool import Pool
from appliance.web.sign_in import Door
from appliance.web.throttle import Rate

#: The header of what a page asks by itself: nobody touched anything, so it keeps nobody signed in.
BACKGROUND = "X-Background"


class Callers:
    """``Access`` of the box."""

    def __init__(self, store: Store, pool: Pool, *, secure: bool) -> None:
        """Ask ``store``.

        Args:
            store: Sessions, accounts, screens.
            pool: Where the store is asked.
            secure: Whether the server speaks TLS; then the cookie never goes out without it.
        """
        self._store = store
        self._pool = pool
        self._secure = secure
        #: Checks passwords: at sign-in, and again before what is signed.
        self.door = Door(store, pool)
        # A page that asks every second for what its role lost fills no journal.
        self._denied = Rate(store.db.clock, 1, 60.0)
        # __Host-: no other port's or subdomain's page can plant it.
        self.cookie = "__Host-scanside_session" if secure else "scanside_session"

    async def caller(self, request: Request) -> Caller | None:
        """The program of a token, else the session of the cookie."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            program = await self._pool.run(self._program, token.strip())
            if program is None:
                await self.door.tell_failed(request, "token")
            return program
        cookie = request.cookies.get(self.cookie, "")
        used = BACKGROUND not in request.headers and "text/event-stream" not in request.headers.get("accept", "")
        session = await self._pool.run(self._store.sessions.find, cookie, used=used) if cookie else None
        if session is None:
            return None
        return Caller(
            role=session.role,
            actor=session.actor,
            session=session,
            account=session.account,
            screen=session.screen,
            sources=session.screen.sources if session.screen else (),
        )

    def _program(self, token: str) -> Caller | None:
        view = self._store.tokens.find(token)
        if view is None:
            return None
        actor = Actor(kind=ActorKind.SYSTEM, name=view.name, role=str(view.role))
        return Caller(role=view.role, actor=actor, sources=view.sources)

    async def denied(self, request: Request, caller: Caller, route: str) -> Response:
        """403, and a journal fact: one a minute of each caller and route."""
        asked = f"{request.method} {route}"
        if not self._denied.take(f"{caller.actor.name} {asked}"):
            await self._pool.run(self._store.audit.denied, asked, caller.actor)
        raise HTTPException(403, "your role does not have this; ask an administrator")

    async def unknown(self, request: Request) -> Response:
        """To the sign-in page; 401 for scripts.

        Who follows a link on somebody else's page (a PACS calls a study up) comes without the cookie, which is strict.
        A page of ours that loads the address again brings it.
        """
        if wants_page(request):
            if request.headers.get("sec-fetch-site") == "cross-site" and request.method == "GET":
                return self.onward(request, request.url.path + (f"?{request.url.query}" if request.url.query else ""))
            return to_sign_in(request)
        raise HTTPException(401, "nobody is signed in here, or the time is over; sign in again")

    async def unchanged(self, request: Request) -> Response:
        """To the page where a password is chosen; 403 for scripts."""
        if wants_page(request):
            return RedirectResponse("/account", 303)
        raise HTTPException(403, "choose a password of your own first, on the page 'My account'")

    async def holds(self, request: Request, caller: Caller) -> bool:
        """Whether the caller's session or token still holds."""
        if caller.session is None:
            return await self.caller(request) is not None
        return await self._pool.run(self._store.sessions.holds, caller.session)

    async def prove(self, request: Request, password: str) -> bool:
        """Whether the person at this session gave their password again; the session remembers when.

        Raises:
            WaitFirst: Too many attempts.
        """
        caller = caller_of(request)
        if caller.account is None or caller.session is None:
            return False
        if await self.door.check(request, caller.account.name, password) is None:
            return False
        await self._pool.run(self._store.sessions.prove, caller.session)
        return True

    async def begin(
        self,
        request: Request,
        response: Response,
        owner: Account | ScreenView,
        how: str,
        proved_at: datetime | None = None,
    ) -> None:
        """Open a session, always a new one, and end the one that this browser had."""
        caller: Caller | None = request.state.caller
        if caller is not None and caller.session is not None:
            await self._pool.run(self._store.sessions.end, caller.session)
        cookie = await self._pool.run(self._store.sessions.open, owner, how, proved_at)
        self.remember(response, cookie, lasting=isinstance(owner, ScreenView))

    def onward(self, request: Request, target: str) -> Response:
        """A page that goes on to an address of ours by itself: from here the browser sends strict cookies again."""
        pages: Pages = request.app.state.pages
        return pages.page(request, "onward.html", target=local_target(target))

    def remember(self, response: Response, cookie: str, *, lasting: bool) -> None:
        """Give a browser its session: for as long as it is open, or, for a paired screen, for years."""
        attributes: dict[str, Any] = {"max_age": 315_360_000} if lasting else {}
        response.set_cookie(
            self.cookie, cookie, path="/", httponly=True, samesite="strict", secure=self._secure, **attributes
        )

    def forget(self, response: Response) -> None:
        """Take the session from the browser."""
        response.delete_cookie(self.cookie, path="/", httponly=True, samesite="strict", secure=self._secure)
