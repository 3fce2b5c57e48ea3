"""The first step of the set-up: a code that the box printed makes its first administrator, once."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import ConflictError
from appliance.screen.context import Context
from appliance.screen.sign_in import DIFFER
from appliance.screen.users import BAD_FULL_NAME, BAD_NAME, FULL_NAME, NAME
from appliance.store.setup import CLOSED
from appliance.web.access import ANYBODY, Guarded
from appliance.web.app import read_form
from appliance.web.i18n import N_
from appliance.web.passwords import fault
from appliance.web.sign_in import address_of
from appliance.web.throttle import Rate

STEPS: tuple[tuple[str, str], ...] = (
    ("account", N_("Language and administrator")),
    ("site", N_("Site and time")),
    ("receive", N_("Reception of images")),
    ("pacs", N_("PACS")),
    ("models", N_("Models")),
    ("screen", N_("Alert screen and sound")),
    ("test", N_("Test study")),
)
ORDER = tuple(name for name, _ in STEPS)


class SetupFirst:
    """Works only while there is no administrator; from the second step on, one is signed in."""

    def __init__(self, context: Context) -> None:
        """Make accounts in the store."""
        self._context = context
        self._store = context.store
        self._rate = Rate(context.clock, 20, 60.0)

    def routes(self) -> list[Guarded]:
        """The address."""
        return [
            Guarded("/setup", self.begin, roles=ANYBODY),
            Guarded("/setup", self.first, roles=ANYBODY, methods=["POST"]),
        ]

    async def begin(self, request: Request) -> Response:
        """The code and the first administrator; for whom is signed in, the first step that is not done."""
        if await self._context.pool.run(self._store.setup.is_open):
            return self._first(request)
        done = await self._context.pool.run(self._store.setup.steps)
        following = next((name for name in ORDER[1:] if name not in done), "test")
        return RedirectResponse(f"/setup/{following}", 303)

    async def first(self, request: Request) -> Response:
        """Use the code up and sign the administrator in; nothing dear is done for who does not have it."""
        if wait_s := self._rate.take(address_of(request)):
            answer = self._first(request, status=429, wait_s=int(wait_s) + 1)
            answer.headers["Retry-After"] = str(int(wait_s) + 1)
            return answer
        given = await read_form(request)
        if not await self._context.pool.run(self._store.setup.is_open):
            return self._first(request, status=409, trouble=CLOSED)
        name, full_name = given.get("name", "").strip(), given.get("full_name", "").strip()
        password = given.get("password", "")
        wrong: dict[str, str] = {}
        if not NAME.fullmatch(name):
            wrong["name"] = BAD_NAME
        if not FULL_NAME.fullmatch(full_name):
            wrong["full_name"] = BAD_FULL_NAME
        if said := fault(password, name):
            wrong["password"] = said
        elif password != given.get("again", ""):
            wrong["again"] = DIFFER
        if wrong:
            return self._first(request, status=422, wrong=wrong, given=given)
        door = self._context.callers.door
        try:
            await self._context.pool.run(self._store.setup.check, given.get("code", ""))
        except ConflictError as error:
            await door.tell_failed(request, "setup")
            return self._first(request, status=409, trouble=str(error), given=given)
        kept = await door.hashed(password)
        try:
            account_id = await self._context.pool.run(
                self._store.setup.begin, given.get("code", ""), name, full_name, kept
            )
        except ConflictError as error:
            return self._first(request, status=409, trouble=str(error), given=given)
        account = await self._context.pool.run(self._store.accounts.get, account_id)
        response = RedirectResponse("/setup/site", 303)
        await self._context.callers.begin(request, response, account, "setup code")
        return response

    def _first(self, request: Request, *, status: int = 200, **values: Any) -> Response:
        shown: dict[str, Any] = {"wrong": {}, "given": {}, "trouble": "", "wait_s": 0} | values
        return self._context.pages.page(
            request, "setup-account.html", status=status, steps=STEPS, step="account", done={}, **shown
        )
