"""The journal for the hospital's own audit: who saw and did what, whether the chain holds, and an export."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from appliance.screen.audit_words import KINDS, LOOKED_AT
from appliance.screen.context import Context
from appliance.screen.days import midnight
from appliance.screen.parts_of_admin import stamp
from appliance.store.audit_log import AuditFilter, as_csv, as_jsonl
from appliance.store.database import from_iso
from appliance.store.facts import Kind
from appliance.store.journal import Fact
from appliance.web.access import ADMINISTRATORS, Guarded, caller_of
from appliance.web.i18n import N_

WHO = {
    "person": N_("People"),
    "system": N_("The box itself"),
    "fleet": N_("Fleet"),
    "": N_("Everybody"),
}
_END: list[tuple[Fact, str]] = []


class AuditPages:
    """Pages of the journal. To look at it is itself a fact."""

    def __init__(self, context: Context) -> None:
        """Read the journal of the store."""
        self._context = context
        self._store = context.store

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/audit", self.page, roles=ADMINISTRATORS),
            Guarded("/audit/chain", self.chain, roles=ADMINISTRATORS),
            Guarded("/audit/chain", self.again, roles=ADMINISTRATORS, methods=["POST"]),
            Guarded("/audit/export", self.export, roles=ADMINISTRATORS),
        ]

    async def page(self, request: Request) -> Response:
        """The newest rows that fit the filter, or those before a number."""
        asked = dict(request.query_params)
        wrong = _wrong_days(asked)
        wanted = _filter({name: text for name, text in asked.items() if name not in wrong})
        before = _number(asked, "before")
        await self._context.pool.run(self._store.audit.accessed, "audit", caller_of(request).actor)
        found = await self._context.pool.run(self._store.audit_log.page, wanted, before)
        return self._context.pages.page(
            request,
            "audit.html",
            status=400 if wrong else 200,
            wrong=wrong,
            facts=found.facts,
            before=found.before,
            asked={"who": "person"} | asked,
            who=WHO,
            kinds=KINDS,
            looked_at=LOOKED_AT,
            chain=self._store.chain.state,
            when=lambda fact: stamp(from_iso(fact.at)),
            particulars=particulars,
        )

    async def chain(self, request: Request) -> Response:
        """How far the check of the chain is; the page asks until it is at the end."""
        return self._context.pages.page(request, "audit-chain.html", chain=self._store.chain.state)

    async def again(self, _: Request) -> Response:
        """Check the whole chain anew, beside everything else."""
        self._store.chain.restart()
        return RedirectResponse("/audit", 303)

    async def export(self, request: Request) -> Response:
        """All rows of a filter, oldest first, as they are read: a year does not fit into memory."""
        asked = dict(request.query_params)
        wanted = _filter(asked)
        form = asked.get("form", "jsonl")
        if form not in ("jsonl", "csv"):
            raise HTTPException(400, "form is jsonl or csv")
        await self._context.pool.run(self._store.audit.accessed, "audit export", caller_of(request).actor)
        batches = self._store.audit_log.export(wanted)
        name = f"scanside-audit-{self._context.clock.now():%Y%m%d-%H%M}.{form}"
        return StreamingResponse(
            self._lines(batches, form),
            media_type="text/csv; charset=utf-8" if form == "csv" else "application/jsonl; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def _lines(self, batches: Iterator[list[tuple[Fact, str]]], form: str) -> AsyncIterator[bytes]:
        if form == "csv":
            yield as_csv((), head=True).encode()
        write = as_csv if form == "csv" else as_jsonl
        while batch := await self._context.pool.run(next, batches, _END):
            yield write(batch).encode()


def particulars(fact: Fact) -> list[tuple[str, str]]:
    """The body as names and short values."""
    return [(name, _short(value)) for name, value in fact.body.items() if value not in (None, "", [], {})]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."


def _filter(asked: dict[str, str]) -> AuditFilter:
    kind = asked.get("kind", "")
    if wrong := _wrong_days(asked):
        raise HTTPException(400, f"{wrong[0]} is a day, as 2026-01-31")
    if kind and kind not in set(map(str, Kind)):
        raise HTTPException(400, "no fact is of this kind")
    who = asked.get("who", "person")
    if who not in WHO:
        raise HTTPException(400, "who is person, system, fleet or nothing")
    until = midnight(asked.get("until", ""))
    return AuditFilter(
        who=who,
        name=asked.get("name", "").strip()[:64],
        study_id=_number(asked, "study"),
        kind=Kind(kind) if kind else None,
        since=midnight(asked.get("since", "")),
        until=until + timedelta(days=1) if until else None,
    )


def _number(asked: dict[str, str], name: str) -> int | None:
    text = asked.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(400, f"{name} is a number")
    return int(text)


def _wrong_days(asked: dict[str, str]) -> list[str]:
    """Which of the fields for days hold something else."""
    return [name for name in ("since", "until") if asked.get(name, "").strip() and midnight(asked[name]) is None]
