"""What people do about issues on the page of health: say that they have seen one, or hear of it again later."""

from __future__ import annotations

import contextlib
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import NotFoundError
from appliance.screen.context import Context
from appliance.web.access import KEEPERS, Guarded, caller_of
from appliance.web.app import read_form
from appliance.web.i18n import N_

#: For how long an issue may be put on the shelf, by what the form says.
SHELVES: dict[str, tuple[timedelta, str]] = {
    "8": (timedelta(hours=8), N_("8 hours")),
    "24": (timedelta(hours=24), N_("24 hours")),
    "168": (timedelta(days=7), N_("7 days")),
    "720": (timedelta(days=30), N_("30 days")),
}


class IssueActs:
    """Two acts; neither ends an issue, and both are the same as on the command line."""

    def __init__(self, context: Context) -> None:
        """Act on the issues of the store."""
        self._context = context
        self._issues = context.store.issues

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/health/acknowledge", self.acknowledge, roles=KEEPERS, methods=["POST"]),
            Guarded("/health/shelve", self.shelve, roles=KEEPERS, methods=["POST"]),
        ]

    async def acknowledge(self, request: Request) -> Response:
        """Somebody has seen it."""
        given = await read_form(request)
        code, subject = given.get("code", ""), given.get("subject", "")
        with contextlib.suppress(NotFoundError):  # it has ended meanwhile, which the page shows
            await self._context.pool.run(self._issues.acknowledge, code, subject, caller_of(request).actor)
        return RedirectResponse("/health", 303)

    async def shelve(self, request: Request) -> Response:
        """Somebody wants to hear of it again after a time."""
        given = await read_form(request)
        code, subject, hours = given.get("code", ""), given.get("subject", ""), given.get("hours", "")
        if hours not in SHELVES:
            raise HTTPException(400, f"hours is one of {', '.join(SHELVES)}")
        until = self._context.clock.now() + SHELVES[hours][0]
        with contextlib.suppress(NotFoundError):
            await self._context.pool.run(self._issues.shelve, code, subject, until, caller_of(request).actor)
        return RedirectResponse("/health", 303)
