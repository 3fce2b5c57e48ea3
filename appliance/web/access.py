"""Who may what: every address names its roles, and whoever is not among them is refused (default deny).

A browser is known by a cookie whose digest is a row of the store; a program by ``Authorization: Bearer``. Neither is
looked at before the route is found, so that an address without roles cannot exist: ``make_app`` refuses it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route

from appliance.records import Actor, UserRole, Word
from appliance.store.accounts import Account
from appliance.store.screens import ScreenView
from appliance.store.sessions import SessionView
from appliance.web.sse import EventStream, event

Endpoint = Callable[[Request], Awaitable[Response]]

#: How often at most an endless answer asks whether its session still holds: before what it sends. Whoever was signed
#: out, or a screen that was taken away, is sent nothing more than a second after that; and since there is a beat every
#: two seconds, the stream ends within three.
LEASE_S = 1.0

#: What programs may ask; everything else is for browsers.
API = "/api/v1/"
#: Signed in or not: sign-in itself, assets, whether the server lives.
ANYBODY: frozenset[UserRole] | None = None
EVERYONE = frozenset(UserRole)
#: Who has signed in.
PEOPLE = EVERYONE - {UserRole.SCREEN}
#: Who sees patients.
CLINICAL = frozenset({UserRole.VIEWER, UserRole.TECHNOLOGIST, UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR})
#: Who answers alerts: a paired screen asks for the name.
ALERTED = frozenset({UserRole.SCREEN, UserRole.TECHNOLOGIST, UserRole.RADIOLOGIST})
#: Who may look at the alert screen.
WATCHING = ALERTED | CLINICAL
#: Who keeps the box.
KEEPERS = frozenset({UserRole.ADMINISTRATOR, UserRole.SERVICE})
ADMINISTRATORS = frozenset({UserRole.ADMINISTRATOR})
RADIOLOGISTS = frozenset({UserRole.RADIOLOGIST})
#: What somebody may do who still has the password that another person gave them.
BEFORE_CHANGE = frozenset({"/account", "/account/password", "/sign-out"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks."""

    role: UserRole
    actor: Actor
    #: Of a browser; None for a program.
    session: SessionView | None = None
    account: Account | None = None
    screen: ScreenView | None = None
    #: The sources that a screen or program is bound to; empty: all.
    sources: tuple[str, ...] = ()


class Owner(Protocol):
    """An account, as far as a route asks."""

    @property
    def must_change(self) -> bool:
        """Whether somebody else chose the password."""


class Known(Protocol):
    """A caller, as far as a route asks: of the box, or of the fleet server with accounts and roles of its own."""

    @property
    def role(self) -> Word:
        """What they may is said by it."""

    @property
    def session(self) -> object | None:
        """Of a browser; None for a program."""

    @property
    def account(self) -> Owner | None:
        """Of a person."""


C = TypeVar("C", bound=Known)


class Access(Protocol[C]):
    """How the application knows its callers."""

    async def caller(self, request: Request) -> C | None:
        """Who asks; None for somebody unknown."""

    async def denied(self, request: Request, caller: C, route: str) -> Response:
        """Record and say that the role does not have this."""

    async def unknown(self, request: Request) -> Response:
        """Where somebody unknown goes: to sign in, or away."""

    async def unchanged(self, request: Request) -> Response:
        """Where somebody goes who must first choose a password of their own."""

    async def holds(self, request: Request, caller: C) -> bool:
        """Whether what a caller was let in with still holds; asking does not make it last longer."""


class Guarded(Route):
    """A route that only some roles have."""

    def __init__(
        self, path: str, endpoint: Endpoint, *, roles: frozenset[Word] | None, methods: Sequence[str] = ("GET",)
    ) -> None:
        """Answer ``path`` for ``roles``; ``ANYBODY`` for those too who are not signed in."""
        self.roles = roles
        self.inner = endpoint

        async def checked(request: Request) -> Response:
            access: Access[Any] = request.app.state.access
            caller = await access.caller(request)
            request.state.caller = caller
            if roles is not None and caller is None:
                return await access.unknown(request)
            if roles is not None and caller is not None:
                # A program has the API alone: pages show names, and their acts are a person's.
                is_elsewhere = caller.session is None and not path.startswith(API)
                if is_elsewhere or caller.role not in roles:
                    return await access.denied(request, caller, path)
            must_change = caller is not None and caller.account is not None and caller.account.must_change
            if roles is not None and must_change and path not in BEFORE_CHANGE:
                return await access.unchanged(request)
            answer = await self.inner(request)
            if isinstance(answer, EventStream) and caller is not None:
                answer.body_iterator = _while_it_holds(answer.body_iterator, access, request, caller)
            return answer

        super().__init__(path, checked, methods=list(methods))


def caller_of(request: Request) -> Caller:
    """Who asks, where the route has made sure that somebody known does."""
    caller = request.state.caller
    assert isinstance(caller, Caller)  # noqa: S101 - Guarded put it there
    return caller


async def _while_it_holds(
    events: AsyncIterable[Any], access: Access[Any], request: Request, caller: Known
) -> AsyncIterator[Any]:
    """An endless answer ends soon after the session that asked for it has, and says so to the page."""
    next_look = time.monotonic() + LEASE_S
    async for item in events:
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + LEASE_S
            if not await access.holds(request, caller):
                yield event("over", {})
                return
        yield item


def to_sign_in(request: Request) -> Response:
    """To the sign-in page, and after it back to the page that was asked for.

    After a form there is no page of its address to go back to: then it is the nearest one above.
    """
    target = request.url.path
    if request.method == "POST":
        target = _page_above(request)
    elif request.url.query:
        target += f"?{request.url.query}"
    return RedirectResponse(f"/sign-in?{urlencode({'next': target})}", 303)


def _page_above(request: Request) -> str:
    path = request.url.path
    while path not in {"", "/"}:
        for route in request.app.routes:
            fits, _ = route.matches({"type": "http", "path": path, "method": "GET"})
            if fits is Match.FULL:
                return path
        path = path.rpartition("/")[0]
    return "/"


def local_target(text: str) -> str:
    """An address of this server to go to after signing in; the front door for anything else (no open redirect)."""
    is_local = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if is_local else "/"


def wants_page(request: Request) -> bool:
    """Whether the answer is for a person's eyes; scripts and programs get JSON."""
    return "text/html" in request.headers.get("accept", "") and "hx-request" not in request.headers
