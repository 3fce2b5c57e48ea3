"""The journal for the hospital's own audit: who saw and did what, whether the chain holds, and an export."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, time, timedelta
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from appliance.screen.context import Context
from appliance.screen.parts_of_admin import stamp
from appliance.store.audit_log import AuditFilter
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
_COLUMNS = ("seq", "at", "kind", "study", "subject", "actor_kind", "actor_name", "actor_role", "body", "hash")
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
        wanted = _filter(asked)
        before = _number(asked, "before")
        await self._context.pool.run(self._store.audit.accessed, "audit", caller_of(request).actor)
        found = await self._context.pool.run(self._store.audit_log.page, wanted, before)
        return self._context.pages.page(
            request,
            "audit.html",
            facts=found.facts,
            before=found.before,
            asked={"who": "person"} | asked,
            who=WHO,
            kinds=sorted(map(str, Kind)),
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
            yield _csv([_COLUMNS])
        while True:
            batch = await self._context.pool.run(next, batches, _END)
            if not batch:
                return
            if form == "csv":
                yield _csv([_row(fact, digest) for fact, digest in batch])
            else:
                yield "".join(json.dumps(_document(*one), ensure_ascii=False) + "\n" for one in batch).encode()


def particulars(fact: Fact) -> list[tuple[str, str]]:
    """The body as names and short values."""
    return [(name, _short(value)) for name, value in fact.body.items() if value not in (None, "", [], {})]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."


def _document(fact: Fact, digest: str) -> dict[str, Any]:
    return {
        "seq": fact.seq,
        "at": fact.at,
        "mono_ms": fact.mono_ms,
        "boot": fact.boot,
        "kind": str(fact.kind),
        "study_id": fact.study_id,
        "subject": fact.subject,
        "actor": fact.actor,
        "body": fact.body,
        "hash": digest,
    }


def _row(fact: Fact, digest: str) -> tuple[Any, ...]:
    actor, body = fact.actor, json.dumps(fact.body, ensure_ascii=False)
    who = (actor.get("kind", ""), _plain(actor.get("name", "")), actor.get("role", ""))
    return (fact.seq, fact.at, str(fact.kind), fact.study_id, _plain(fact.subject), *who, body, digest)


def _plain(text: str) -> str:
    """A cell that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text


def _csv(rows: list[tuple[Any, ...]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def _filter(asked: dict[str, str]) -> AuditFilter:
    kind = asked.get("kind", "")
    if kind and kind not in set(map(str, Kind)):
        raise HTTPException(400, "no fact is of this kind")
    who = asked.get("who", "person")
    if who not in WHO:
        raise HTTPException(400, "who is person, system, fleet or nothing")
    until = _day(asked, "until")
    return AuditFilter(
        who=who,
        name=asked.get("name", "").strip()[:64],
        study_id=_number(asked, "study"),
        kind=Kind(kind) if kind else None,
        since=_day(asked, "since"),
        until=until + timedelta(days=1) if until else None,
    )


def _number(asked: dict[str, str], name: str) -> int | None:
    text = asked.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise HTTPException(400, f"{name} is a number")
    return int(text)


def _day(asked: dict[str, str], name: str) -> datetime | None:
    """The begin of a day in the box's time zone."""
    text = asked.get(name, "").strip()
    if not text:
        return None
    try:
        return datetime.combine(datetime.fromisoformat(text).date(), time()).astimezone()
    except ValueError as error:
        raise HTTPException(400, f"{name} is a day, as 2026-01-31") from error
