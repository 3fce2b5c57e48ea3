"""Who did what on this server, and whether any of it was changed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select
from starlette.requests import Request
from starlette.responses import Response

from appliance.fleet.server import tables as t
from appliance.fleet.server.console import rollout_words
from appliance.fleet.server.console.callers import caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.roles import AUDITORS, OPERATORS
from appliance.fleet.server.registry import Scope, broken_audit
from appliance.web.access import Guarded
from appliance.web.i18n import N_

_PAGE = 100
_LONGEST = 80
ACTS: dict[str, str] = {
    "sign-in": N_("signed in"),
    "sign-in.failed": N_("could not sign in"),
    "denied": N_("was refused by role"),
    "user.add": N_("added a user"),
    "user.password": N_("changed a password"),
    "user.on": N_("switched a user on"),
    "user.off": N_("switched a user off"),
    "job.make": N_("made a job"),
    "job.why": N_("said why"),
    "job.approve": N_("signed a job"),
    "job.cancel": N_("took a job back"),
    "twin.set": N_("changed the desired document"),
    "issue.acknowledge": N_("saw an issue"),
    "issue.shelve": N_("put an issue off"),
    "device.replace": N_("replaced a box"),
    "device.disable": N_("disabled a box"),
    "device.enable": N_("enabled a box"),
    "upload.take": N_("took logs as a file"),
    "model.init": N_("made the repository of models"),
    "model.add": N_("let boxes fetch a model"),
    "model.withdraw": N_("let no box fetch a model any more"),
    "results.export": N_("took results as a file"),
    "tenant.add": N_("added a tenant"),
    "site.add": N_("added a site"),
    "key.add": N_("added a release key"),
    "key.retire": N_("retired a release key"),
    "key.publish": N_("published the trusted keys"),
    "key.rotate": N_("changed the server's key"),
    "stick.take": N_("took in a file from a box"),
    "token.make": N_("let a box enrol"),
    "upload.keep": N_("took in logs of a box"),
    **rollout_words.ACTS,
}


class AuditPages:
    """The audit of what somebody may see. Rows of no tenant are the platform's."""

    def __init__(self, context: Context) -> None:
        """Ask ``context``."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/audit", self.page, roles=AUDITORS),
            Guarded("/audit/chain", self.chain, roles=OPERATORS, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """The newest rows, or those before a number."""
        return await self._page(request, None)

    async def chain(self, request: Request) -> Response:
        """Check every row against the one before; the page says what came of it."""
        broken = await self._context.read(broken_audit)
        return await self._page(request, (broken,))

    async def _page(self, request: Request, checked: tuple[int | None] | None) -> Response:
        text = request.query_params.get("before", "")
        before = int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None
        subject = request.query_params.get("subject", "")[:_LONGEST].strip()
        rows = await self._context.read(audit_page, caller_of(request).scope, before=before, subject=subject)
        return self._context.pages.page(
            request,
            "audit.html",
            rows=rows,
            acts=ACTS,
            checked=checked,
            subject=subject,
            may_check=caller_of(request).role in OPERATORS,
            further=rows[-1].number if len(rows) == _PAGE else None,
        )


def audit_page(connection: Connection, scope: Scope, *, before: int | None = None, subject: str = "") -> list[Row[Any]]:
    """Rows of tenants in the scope, the newest first; those of none belong to the platform."""
    c = t.audit.c
    asked = select(t.audit).where(scope.holds(c.tenant))
    if before is not None:
        asked = asked.where(c.number < before)
    if subject:
        asked = asked.where(c.subject == subject)
    return list(connection.execute(asked.order_by(c.number.desc()).limit(_PAGE)))
