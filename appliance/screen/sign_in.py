"""Signing in and out, and what a person may change of their own account."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.screen.context import Context
from appliance.web.access import ANYBODY, PEOPLE, Caller, Guarded, caller_of, local_target
from appliance.web.app import read_form
from appliance.web.i18n import N_
from appliance.web.passwords import SHORTEST, fault
from appliance.web.sign_in import WaitFirst

#: One sentence for every way of being wrong: it tells nobody which names exist.
WRONG = N_("Name or password is wrong, or the account is switched off.")
NOT_YOURS = N_("This is not your present password.")
DIFFER = N_("The two are not the same.")
SAME = N_("This is the password that you have now.")


async def sign_in_form(
    context: Context, request: Request, target: str, *, status: int = 200, **values: Any
) -> Response:
    """The page with the form; also where somebody was refused in another way."""
    shown = {"name": "", "error": "", "wait_s": 0, "next": target, "oidc": context.config.screen.oidc is not None}
    shown |= {"again": False, "over": False}
    shown["nobody"] = not await context.pool.run(context.store.accounts.has_administrator)
    return context.pages.page(request, "sign-in.html", status=status, **(shown | values))


class SignInPages:
    """The door of the pages."""

    def __init__(self, context: Context) -> None:
        """Ask the callers' door."""
        self._context = context
        self._callers = context.callers
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/sign-in", self.page, roles=ANYBODY),
            Guarded("/sign-in", self.sign_in, roles=ANYBODY, methods=["POST"]),
            Guarded("/sign-out", self.sign_out, roles=PEOPLE, methods=["POST"]),
            Guarded("/account", self.account, roles=PEOPLE),
            Guarded("/account/password", self.change, roles=PEOPLE, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """The form; who is signed in already goes on, unless they are to prove themselves again."""
        target = local_target(request.query_params.get("next", "/"))
        again = request.query_params.get("again") == "1"
        caller: Caller | None = request.state.caller
        if caller is not None and caller.account is not None and not again:
            return RedirectResponse(target, 303)
        # A cookie that names nobody any more; signing out takes it.
        over = caller is None and self._callers.cookie in request.cookies
        return await self._form(request, target, again=again, over=over)

    async def sign_in(self, request: Request) -> Response:
        """Name and password against a session."""
        given = await read_form(request)
        target, name = local_target(given.get("next", "/")), given.get("name", "").strip()
        try:
            account = await self._callers.door.check(request, name, given.get("password", ""))
        except WaitFirst as wait:
            answer = await self._form(request, target, status=429, name=name, wait_s=wait.wait_s)
            answer.headers["Retry-After"] = str(wait.wait_s)
            return answer
        if account is None:
            return await self._form(request, target, status=401, name=name, error=WRONG)
        response = RedirectResponse("/account" if account.must_change else target, 303)
        await self._callers.begin(request, response, account, "password")
        return response

    async def sign_out(self, request: Request) -> Response:
        """End this browser's session."""
        session = caller_of(request).session
        if session is not None:
            await self._context.pool.run(self._store.sessions.end, session)
        response = RedirectResponse("/sign-in", 303)
        self._callers.forget(response)
        return response

    async def account(self, request: Request) -> Response:
        """Who one is here."""
        return self._account(request, done=request.query_params.get("done", ""))

    async def change(self, request: Request) -> Response:
        """Another password; the old one is asked for, lest a browser left alone is taken over for good."""
        account = caller_of(request).account
        if account is None or not account.has_password:
            return self._account(request, status=409)
        given = await read_form(request)
        old, new = given.get("old", ""), given.get("new", "")
        wrong: dict[str, str] = {}
        if said := fault(new, account.name):
            wrong["new"] = said
        elif new != given.get("again", ""):
            wrong["again"] = DIFFER
        elif new == old:
            wrong["new"] = SAME
        if not wrong:
            try:
                if await self._callers.door.check(request, account.name, old) is None:
                    wrong["old"] = NOT_YOURS
            except WaitFirst as wait:
                answer = self._account(request, status=429, wait_s=wait.wait_s)
                answer.headers["Retry-After"] = str(wait.wait_s)
                return answer
        if wrong:
            return self._account(request, status=422, wrong=wrong)
        await self._callers.door.change(account, new, caller_of(request).actor, must_change=False)
        response = RedirectResponse("/account?done=password", 303)
        await self._callers.begin(request, response, account, "password")
        return response

    async def _form(self, request: Request, target: str, *, status: int = 200, **values: Any) -> Response:
        return await sign_in_form(self._context, request, target, status=status, **values)

    def _account(self, request: Request, *, status: int = 200, **values: Any) -> Response:
        shown = {"wrong": {}, "done": "", "wait_s": 0, "shortest": SHORTEST} | values
        return self._context.pages.page(request, "account.html", status=status, **shown)
