"""Knows the console's callers: the session behind a cookie. There are no programs here."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.clock import Clock
from appliance.fleet.server.console.people import Person
from appliance.fleet.server.console.roles import FleetRole
from appliance.fleet.server.console.sessions import Session, find_session
from appliance.fleet.server.db import write
from appliance.fleet.server.registry import Scope, write_audit
from appliance.records import Actor, ActorKind
from appliance.web.access import to_sign_in, wants_page
from appliance.web.pool import Pool
from appliance.web.throttle import Rate

#: The header of what a page asks by itself: nobody touched anything, so it keeps nobody signed in.
BACKGROUND = "X-Background"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCaller:
    """Who asks, as what, and what they may see."""

    role: FleetRole
    actor: Actor
    session: Session
    account: Person
    scope: Scope


class FleetCallers:
    """``Access`` of the console."""

    def __init__(self, engine: Engine, pool: Pool, clock: Clock, *, secure: bool) -> None:
        """Ask ``engine`` in ``pool``; ``secure``: the cookie never goes out without TLS."""
        self._engine = engine
        self._pool = pool
        self._clock = clock
        self._secure = secure
        self._told = Rate(clock, 1, 60.0)
        self.cookie = "__Host-scanside_fleet" if secure else "scanside_fleet"

    async def caller(self, request: Request) -> FleetCaller | None:
        """The session of the cookie."""
        cookie = request.cookies.get(self.cookie, "")
        if not cookie:
            return None
        used = BACKGROUND not in request.headers
        session = await self._pool.run(find_session, self._engine, cookie, self._clock.now(), used=used)
        if session is None:
            return None
        role = session.member.role
        actor = Actor(kind=ActorKind.PERSON, name=session.person.full_name, role=str(role))
        return FleetCaller(role=role, actor=actor, session=session, account=session.person, scope=session.scope)

    async def denied(self, request: Request, caller: FleetCaller, route: str) -> Response:
        """403, and an audit row: one a minute of each account and route."""
        asked = f"{request.method} {route}"
        if not self._told.take(f"{caller.account.number} {asked}"):
            await self._pool.run(self._tell, caller, asked)
        raise HTTPException(403, "your role does not have this; ask an operator")

    async def unknown(self, request: Request) -> Response:
        """To the sign-in page; 401 for scripts."""
        if wants_page(request):
            return to_sign_in(request)
        raise HTTPException(401, "nobody is signed in here, or the time is over; sign in again")

    async def unchanged(self, request: Request) -> Response:
        """To the page where a password is chosen; 403 for scripts."""
        if wants_page(request):
            return RedirectResponse("/account", 303)
        raise HTTPException(403, "choose a password of your own first, on the page 'My account'")

    async def holds(self, request: Request, caller: FleetCaller) -> bool:
        """Whether the session is still there."""
        found = await self.caller(request)
        return found is not None and found.account.number == caller.account.number

    def remember(self, response: Response, cookie: str) -> None:
        """Give a browser its session, for as long as it is open."""
        response.set_cookie(self.cookie, cookie, path="/", httponly=True, samesite="strict", secure=self._secure)

    def forget(self, response: Response) -> None:
        """Take the session from the browser."""
        response.delete_cookie(self.cookie, path="/", httponly=True, samesite="strict", secure=self._secure)

    def _tell(self, caller: FleetCaller, asked: str) -> None:
        with write(self._engine) as connection:
            write_audit(
                connection,
                act="denied",
                subject=asked,
                actor=caller.account.name,
                account=caller.account.number,
                tenant_id=caller.session.member.tenant,
                now=self._clock.now(),
            )


def caller_of(request: Request) -> FleetCaller:
    """Who asks, where the route has made sure that somebody known does."""
    caller = request.state.caller
    assert isinstance(caller, FleetCaller)  # noqa: S101 - Guarded put it there
    return caller
