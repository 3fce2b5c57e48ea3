"""Users of the console: who is what where."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import people, words
from appliance.fleet.server.console.callers import caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.roles import DUTIES, OPERATORS, FleetRole
from appliance.web.access import Guarded
from appliance.web.app import Form, read_form
from appliance.web.passwords import Passwords, one_time


class UsersPages:
    """Of the operator alone."""

    def __init__(self, context: Context, hasher: Passwords) -> None:
        """Ask ``context``; ``hasher`` makes what is kept of passwords."""
        self._context = context
        self._hasher = hasher
        self._slow = context.pool.beside(1, "console-users")

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/users", self.page, roles=OPERATORS),
            Guarded("/users", self.add, roles=OPERATORS, methods=["POST"]),
            Guarded("/users/{number:int}/switch", self.switch, roles=OPERATORS, methods=["POST"]),
            Guarded("/users/{number:int}/password", self.password, roles=OPERATORS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """All of them, and a form for another."""
        return await self._page(request)

    async def add(self, request: Request) -> Response:
        """Add one; the password is shown once."""
        form = await read_form(request)
        role = next((one for one in FleetRole if str(one) == form.get("role")), FleetRole.VIEWER)
        password = one_time()
        kept = await self._slow.run(self._hasher.hashed, password)
        name = form.get("name", "").strip()
        try:
            is_new = await self._context.write(self._add, request, form, name, role, kept)
        except (ConflictError, NotFoundError) as error:
            return await self._page(request, trouble=str(error), given=form, status=409)
        return await self._page(request, told=(name, password) if is_new else None)

    async def switch(self, request: Request) -> Response:
        """Let one in, or no more."""
        form = await read_form(request)
        caller = caller_of(request)
        try:
            await self._context.write(
                people.switch,
                request.path_params["number"],
                on=form.get("on") == "1",
                now=self._context.clock.now(),
                actor=caller.account.name,
                by=caller.account.number,
            )
        except ConflictError as error:
            return await self._page(request, trouble=str(error), status=409)
        return RedirectResponse("/users", 303)

    async def password(self, request: Request) -> Response:
        """Give one a password that must be changed; it is shown once."""
        number = request.path_params["number"]
        if number == caller_of(request).account.number:
            raise HTTPException(409, "change your own password on the page 'My account'")
        password = one_time()
        kept = await self._slow.run(self._hasher.hashed, password)
        name = await self._context.write(self._set, request, number, kept)
        return await self._page(request, told=(name, password))

    def _add(self, connection: Connection, request: Request, form: Form, name: str, role: FleetRole, kept: str) -> bool:
        caller = caller_of(request)
        is_new = people.by_name(connection, name) is None
        people.add_person(
            connection,
            name,
            form.get("full_name", ""),
            form.get("tenant", "").strip(),
            role,
            kept,
            now=self._context.clock.now(),
            actor=caller.account.name,
            by=caller.account.number,
        )
        return is_new

    def _set(self, connection: Connection, request: Request, number: int, kept: str) -> str:
        caller, person = caller_of(request), people.by_number(connection, number)
        people.set_password(
            connection,
            person,
            kept,
            must_change=True,
            now=self._context.clock.now(),
            actor=caller.account.name,
            by=caller.account.number,
        )
        return person.name

    async def _page(self, request: Request, *, status: int = 200, **values: Any) -> Response:
        found = await self._context.read(people.everybody)
        tenants = await self._context.read(_tenants)
        given: dict[str, Any] = {"told": None, "trouble": "", "given": {}} | values
        return self._context.pages.page(
            request,
            "users.html",
            status=status,
            people=found,
            tenants=tenants,
            roles=list(FleetRole),
            duties=DUTIES,
            kinds=words.TENANTS,
            **given,
        )


def _tenants(connection: Connection) -> list[Any]:
    return list(connection.execute(select(t.tenant).order_by(t.tenant.c.path).limit(2000)))
