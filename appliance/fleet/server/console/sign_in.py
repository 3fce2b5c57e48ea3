"""Signing in and out, one's own password, and as what one looks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.fleet.server.console import people, sessions
from appliance.fleet.server.console.callers import caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.roles import EVERYBODY
from appliance.fleet.server.registry import write_audit
from appliance.web import passwords
from appliance.web.access import ANYBODY, Guarded, local_target
from appliance.web.app import read_form
from appliance.web.i18n import N_
from appliance.web.passwords import Passwords
from appliance.web.sign_in import WaitFirst, address_of
from appliance.web.throttle import Rate, SignInThrottle

_WRONG = N_("Name or password is wrong.")
_OTHER = N_("The two are not the same.")
_NOT_OLD = N_("This is not your present password.")


class SignInPages:
    """Checks passwords; hashing has a pool of its own, so whoever tries many only makes others wait there."""

    def __init__(self, context: Context, hasher: Passwords) -> None:
        """Ask ``context``; ``hasher`` is shared with who makes accounts."""
        self._context = context
        self._hasher = hasher
        self._slow = context.pool.beside(2, "console-password")
        self._throttle = SignInThrottle(context.clock)
        self._told = Rate(context.clock, 1, 1.0)

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/sign-in", self.form, roles=ANYBODY),
            Guarded("/sign-in", self.sign_in, roles=ANYBODY, methods=["POST"]),
            Guarded("/sign-out", self.sign_out, roles=EVERYBODY, methods=["POST"]),
            Guarded("/account", self.account, roles=EVERYBODY),
            Guarded("/account/password", self.change, roles=EVERYBODY, methods=["POST"]),
            Guarded("/account/tenant", self.look_as, roles=EVERYBODY, methods=["POST"]),
        ]

    async def form(self, request: Request) -> Response:
        """Where one signs in."""
        return await self._form(request, request.query_params.get("next", "/"))

    async def sign_in(self, request: Request) -> Response:
        """Always a new session; the one that the browser had ends."""
        form = await read_form(request)
        name, target = form.get("name", "").strip(), local_target(form.get("next", "/"))
        try:
            person = await self._check(request, name, form.get("password", ""))
        except WaitFirst as wait:
            return await self._form(request, target, name=name, wait_s=wait.wait_s, status=429)
        if person is None or not person.members:
            return await self._form(request, target, name=name, error=_WRONG, status=401)
        before = request.state.caller
        cookie = await self._context.write(self._open, person, before.session.digest if before else "")
        response = RedirectResponse("/account" if person.must_change else target, 303)
        self._context.callers.remember(response, cookie)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End this browser's session."""
        await self._context.write(sessions.end_session, caller_of(request).session.digest)
        response = RedirectResponse("/sign-in", 303)
        self._context.callers.forget(response)
        return response

    async def account(self, request: Request) -> Response:
        """Who one is, and one's password."""
        return self._account(request, done=request.query_params.get("done", ""))

    async def change(self, request: Request) -> Response:
        """Choose another password: other browsers are signed out, this one goes on."""
        form = await read_form(request)
        person = caller_of(request).account
        old, new = form.get("old", ""), form.get("new", "")
        wrong = {}
        if fault := passwords.fault(new, person.name):
            wrong["new"] = fault
        elif form.get("again", "") != new:
            wrong["again"] = _OTHER
        if wrong:
            return self._account(request, wrong=wrong, status=400)
        try:
            fits = await self._check(request, person.name, old)
        except WaitFirst as wait:
            return self._account(request, wait_s=wait.wait_s, status=429)
        if fits is None:
            return self._account(request, wrong={"old": _NOT_OLD}, status=400)
        kept = await self._slow.run(self._hasher.hashed, new)
        cookie = await self._context.write(self._change, person, kept)
        response = RedirectResponse("/account?done=password", 303)
        self._context.callers.remember(response, cookie)
        return response

    async def look_as(self, request: Request) -> Response:
        """As what one is in another tenant."""
        form = await read_form(request)
        await self._context.write(sessions.look_as, caller_of(request).session, form.get("tenant", ""))
        return RedirectResponse("/", 303)

    # Off the event loop ----------------------------------------------------------------------------------------------

    async def _check(self, request: Request, name: str, password: str) -> people.Person | None:
        address = address_of(request)
        if wait_s := self._throttle.attempt(name, address):
            raise WaitFirst(wait_s)
        found = await self._context.read(people.by_name, name)
        kept = found[1] if found else ""
        fits = await self._slow.run(self._hasher.fits, kept, password)
        if found is None or not fits or not found[0].is_active:
            if not self._told.take(address):
                await self._context.write(self._failed, found[0].name if found else "")
            return None
        self._throttle.succeeded(name, address)
        if self._hasher.is_outdated(kept):
            new = await self._slow.run(self._hasher.hashed, password)
            await self._context.write(people.rehash, found[0].number, kept, new)
        return found[0]

    def _open(self, connection: Connection, person: people.Person, before: str) -> str:
        now = self._context.clock.now()
        if before:
            sessions.end_session(connection, before)
        cookie = sessions.open_session(connection, person, now)
        self._audit(connection, "sign-in", person.name, person)
        return cookie

    def _change(self, connection: Connection, person: people.Person, kept: str) -> str:
        now = self._context.clock.now()
        people.set_password(connection, person, kept, must_change=False, now=now, actor=person.name, by=person.number)
        return sessions.open_session(connection, person, now)

    def _failed(self, connection: Connection, name: str) -> None:
        # A name that is none may be a password in the wrong field, so it stands nowhere.
        self._audit(connection, "sign-in.failed", name, None)

    def _audit(self, connection: Connection, act: str, subject: str, person: people.Person | None) -> None:
        write_audit(
            connection,
            act=act,
            subject=subject,
            actor=person.name if person else "nobody",
            account=person.number if person else None,
            tenant_id=person.members[0].tenant if person else None,
            now=self._context.clock.now(),
        )

    async def _form(self, request: Request, target: str, *, status: int = 200, **values: Any) -> Response:
        there_is = await self._context.read(people.is_there_an_operator)
        given = {"name": "", "error": "", "wait_s": 0, "next": local_target(target), "nobody": not there_is} | values
        return self._context.pages.page(request, "sign-in.html", status=status, **given)

    def _account(self, request: Request, *, status: int = 200, **values: Any) -> Response:
        given: dict[str, Any] = {"wrong": {}, "done": "", "wait_s": 0} | values
        return self._context.pages.page(request, "account.html", status=status, **given)
