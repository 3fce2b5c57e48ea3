"""The page of a site, and holds: a clinical freeze of a box or of a whole site, put and lifted by people."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import lists, words
from appliance.fleet.server.console.callers import FleetCaller, caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.freezes import held_of, holds_over
from appliance.fleet.server.console.roles import EVERYBODY, HANDS
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout.holds import Kind, add_hold, lift_hold
from appliance.web.access import Guarded
from appliance.web.app import Form, read_form

_LONGEST_WHY = 200
#: For how many days a hold is put; 0: until somebody lifts it.
DAYS = (0, 1, 7, 30)


class SitePages:
    """Sites of those that somebody may see."""

    def __init__(self, context: Context) -> None:
        """Ask ``context``."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/sites/{site}", self.page, roles=EVERYBODY),
            Guarded("/sites/{site}/holds", self.hold_site, roles=HANDS, methods=["POST"]),
            Guarded("/devices/{device}/holds", self.hold_device, roles=HANDS, methods=["POST"]),
            Guarded("/holds/{number:int}/lift", self.lift, roles=HANDS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """Its boxes, what holds it, what serves there."""
        return await self._page(request)

    async def hold_site(self, request: Request) -> Response:
        """Nothing new is installed at any box of it."""
        site = str(request.path_params["site"])
        if not await self._hold(request, "site", site):
            return await self._page(request, wrong=True, status=400)
        return RedirectResponse(f"/sites/{site}#holds", 303)

    async def hold_device(self, request: Request) -> Response:
        """Nothing new is installed at that box."""
        device = str(request.path_params["device"])
        done = await self._hold(request, "device", device)
        return RedirectResponse(f"/devices/{device}{'' if done else '?wrong=hold'}#holds", 303)

    async def lift(self, request: Request) -> Response:
        """It is over; then back to where it stood."""
        form = await read_form(request)
        caller, number = caller_of(request), int(request.path_params["number"])
        if not _why(form):
            raise HTTPException(400, "give a reason")
        back = await self._context.write(self._lift, caller, number, _why(form))
        return RedirectResponse(f"{back}#holds", 303)

    async def _hold(self, request: Request, kind: Kind, subject: str) -> bool:
        form = await read_form(request)
        days = next((n for n in DAYS if str(n) == form.get("days", "0")), None)
        if not _why(form) or days is None:
            return False
        caller, now = caller_of(request), self._context.clock.now()
        until = now + timedelta(days=days) if days else None
        await self._context.write(
            add_hold,
            self._context.keys,
            caller.scope,
            kind,
            subject,
            why=_why(form),
            actor=caller.account.name,
            now=now,
            account=caller.account.number,
            until=until,
        )
        return True

    def _lift(self, connection: Connection, caller: FleetCaller, number: int, why: str) -> str:
        account, now = caller.account, self._context.clock.now()
        row = connection.execute(select(t.hold).where(t.hold.c.number == number)).first()
        keys, scope = self._context.keys, caller.scope
        lift_hold(connection, keys, scope, number, why=why, actor=account.name, now=now, account=account.number)
        if row is None or row.tenant is not None:
            return "/"
        return f"/sites/{row.site}" if row.site else f"/devices/{row.device}"

    async def _page(self, request: Request, *, wrong: bool = False, status: int = 200) -> Response:
        caller, now = caller_of(request), self._context.clock.now()
        read = await self._context.read(_site, caller.scope, str(request.path_params["site"]), now)
        return self._context.pages.page(
            request,
            "site.html",
            status=status,
            now=now,
            wrong=wrong,
            may_act=caller.role in HANDS,
            hold_days=DAYS,
            w=words,
            **read,
        )


def _site(connection: Connection, scope: Scope, ident: str, now: datetime) -> dict[str, Any]:
    s = t.site.c
    site = connection.execute(
        select(t.site, t.tenant.c.name.label("tenant_name"))
        .join(t.tenant, t.tenant.c.id == s.tenant)
        .where(s.id == ident, scope.holds(s.tenant))
    ).first()
    if site is None:
        raise NotFoundError(f"there is no site {ident!r}")
    shown = lists.boxes_at(connection, scope, ident, now=now)
    return {
        "place": site,
        "lines": shown,
        "held": held_of(connection, [line.row.id for line in shown], now=now),
        "holds": holds_over(connection, site.tenant, site.id, None, now=now),
    }


def _why(form: Form) -> str:
    return form.get("why", "").strip()[:_LONGEST_WHY]
