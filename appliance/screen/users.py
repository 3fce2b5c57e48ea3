"""Who may use the box: for its administrators."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import ConflictError
from appliance.records import UserRole
from appliance.screen.context import Context
from appliance.web.access import ADMINISTRATORS, PEOPLE, Guarded, caller_of
from appliance.web.app import Form, read_form
from appliance.web.i18n import N_
from appliance.web.passwords import one_time

#: What is typed at every sign-in: no blanks, no marks that two keyboards write differently.
NAME = re.compile(r"[^\W_][\w.@-]{0,63}")
FULL_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,64}")
ROLES = tuple(role for role in UserRole if role in PEOPLE)

#: What each role is for, in a line.
DUTIES = {
    UserRole.VIEWER: N_("Sees alerts and studies."),
    UserRole.TECHNOLOGIST: N_("Answers alerts and quality warnings."),
    UserRole.RADIOLOGIST: N_("Answers alerts, reviews and corrects."),
    UserRole.ADMINISTRATOR: N_("Keeps accounts, screens, settings, destinations and models."),
    UserRole.SERVICE: N_("Keeps the machine: health, engines, destinations. Never sees a patient."),
}
BAD_NAME = N_("1 to 64 letters, digits and . _ - @, beginning with a letter or digit.")
BAD_FULL_NAME = N_("1 to 64 characters.")
NO_REASON = N_("Say why; it stands in the journal.")


class UsersPages:
    """Accounts are added, changed and switched off; never deleted, for the journal names them."""

    def __init__(self, context: Context) -> None:
        """Act on the accounts of the store."""
        self._context = context
        self._accounts = context.store.accounts

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/users", self.page, roles=ADMINISTRATORS),
            Guarded("/users", self.add, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/users/{account_id:int}", self.one, roles=ADMINISTRATORS),
            Guarded("/users/{account_id:int}/role", self.role, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/users/{account_id:int}/active", self.active, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/users/{account_id:int}/password", self.password, roles=ADMINISTRATORS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """Everybody."""
        return await self._list(request)

    async def add(self, request: Request) -> Response:
        """A new account, with a password that is shown once and holds until its owner chooses another."""
        given = await read_form(request)
        name, full_name = given.get("name", "").strip(), given.get("full_name", "").strip()
        wrong: dict[str, str] = {}
        if not NAME.fullmatch(name):
            wrong["name"] = BAD_NAME
        if not FULL_NAME.fullmatch(full_name):
            wrong["full_name"] = BAD_FULL_NAME
        if wrong:
            return await self._list(request, status=422, wrong=wrong, given=given)
        password = one_time()
        kept = await self._context.callers.door.hashed(password)
        try:
            await self._context.pool.run(
                self._accounts.add, name, full_name, _role(given), kept, caller_of(request).actor, must_change=True
            )
        except ConflictError as error:
            return await self._list(request, status=409, trouble=str(error), given=given)
        return await self._list(request, told=(name, password))

    async def one(self, request: Request) -> Response:
        """One account and what can be done about it."""
        return await self._one(request)

    async def role(self, request: Request) -> Response:
        """Another role, with a reason; whoever is signed in with the account is signed out."""
        given = await read_form(request)
        return await self._changed(request, given, self._accounts.set_role, _role(given), was=given.get("was", ""))

    async def active(self, request: Request) -> Response:
        """Switch an account off, or on again."""
        given = await read_form(request)
        return await self._changed(request, given, self._accounts.set_active, active=given.get("to") == "on")

    async def password(self, request: Request) -> Response:
        """A new password, shown once; the old one holds no more, and every browser of the account is signed out."""
        await read_form(request)
        account = await self._context.pool.run(self._accounts.get, request.path_params["account_id"])
        password = one_time()
        await self._context.callers.door.change(account, password, caller_of(request).actor, must_change=True)
        return await self._one(request, told=(account.name, password))

    async def _changed(
        self, request: Request, given: Form, act: Callable[..., None], *values: Any, **more: Any
    ) -> Response:
        reason = given.get("reason", "").strip()[:500]
        if not reason:
            return await self._one(request, status=422, trouble=NO_REASON)
        account_id, actor = request.path_params["account_id"], caller_of(request).actor
        try:
            await self._context.pool.run(partial(act, account_id, *values, actor, reason=reason, **more))
        except ConflictError as error:
            return await self._one(request, status=409, trouble=str(error))
        return RedirectResponse(f"/users/{account_id}", 303)

    async def _list(self, request: Request, *, status: int = 200, **values: Any) -> Response:
        accounts = await self._context.pool.run(self._accounts.all)
        shown = {"wrong": {}, "given": {}, "told": None, "trouble": "", "people": accounts, "roles": ROLES} | values
        return self._context.pages.page(request, "users.html", status=status, duties=DUTIES, **shown)

    async def _one(self, request: Request, *, status: int = 200, **values: Any) -> Response:
        account = await self._context.pool.run(self._accounts.get, request.path_params["account_id"])
        shown = {"told": None, "trouble": "", "person": account, "roles": ROLES, "duties": DUTIES} | values
        return self._context.pages.page(request, "user.html", status=status, **shown)


def _role(given: Form) -> UserRole:
    try:
        return UserRole(given.get("role", ""))
    except ValueError as error:
        raise HTTPException(400, "role comes from a closed list") from error
