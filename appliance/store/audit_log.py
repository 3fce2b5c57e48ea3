"""The journal as a person reads it: newest first, filtered, page by page, and whole for an export."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.store.database import Database, iso
from appliance.store.facts import Kind
from appliance.store.journal import Fact, fact_of

#: A page looks at no more rows than this, so that a rare filter cannot read a year of rows in one request.
WINDOW = 50_000
COLUMNS = ("seq", "at", "kind", "study", "subject", "actor_kind", "actor_name", "actor_role", "body", "hash")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which rows; whatever is empty matches all."""

    #: person | system | fleet.
    who: str = ""
    #: A part of the actor's name.
    name: str = ""
    study_id: int | None = None
    kind: Kind | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Rows, newest first, and where to go on; None at the journal's begin."""

    facts: tuple[Fact, ...]
    before: int | None


class AuditLog:
    """Reads the journal for people."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db

    def page(self, wanted: AuditFilter, before: int | None = None, limit: int = 50) -> AuditPage:
        """Rows before a number, newest first; fewer than ``limit`` where many must be passed over to find one."""
        highest = before if before is not None else self._newest() + 1
        if wanted.until is not None:
            highest = min(highest, self._first_at(wanted.until))
        lowest = self._first_at(wanted.since) if wanted.since is not None else 1
        floor = lowest if wanted.study_id is not None else max(lowest, highest - WINDOW)
        condition, values = _conditions(wanted)
        rows = self._db.all(
            f"SELECT * FROM journal WHERE seq < ? AND seq >= ?{condition} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - marks only
            (highest, floor, *values, limit),
        )
        if len(rows) == limit:
            return AuditPage(facts=tuple(map(fact_of, rows)), before=rows[-1]["seq"])
        return AuditPage(facts=tuple(map(fact_of, rows)), before=floor if floor > lowest and floor > 1 else None)

    def export(self, wanted: AuditFilter, batch: int = 1000) -> Iterator[list[tuple[Fact, str]]]:
        """All rows, oldest first, each with its hash, in batches; up to the newest row of this moment."""
        end = self._newest()
        if wanted.until is not None:
            end = min(end, self._first_at(wanted.until) - 1)
        seq = (self._first_at(wanted.since) if wanted.since is not None else 1) - 1
        condition, values = _conditions(wanted)
        while seq < end:
            upto = min(seq + batch, end)
            rows = self._db.all(
                f"SELECT * FROM journal WHERE seq > ? AND seq <= ?{condition} ORDER BY seq",  # noqa: S608 - marks only
                (seq, upto, *values),
            )
            seq = upto
            if rows:
                yield [(fact_of(row), row["hash"]) for row in rows]

    def _newest(self) -> int:
        row = self._db.one("SELECT max(seq) AS seq FROM journal")
        return int(row["seq"] or 0) if row else 0

    def _first_at(self, at: datetime) -> int:
        """The first row of a time or later: halved, since times go with the numbers but for jumps of the clock."""
        low, high, wanted = 1, self._newest() + 1, iso(at)
        while low < high:
            middle = (low + high) // 2
            row = self._db.one("SELECT at FROM journal WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,))
            if row is not None and row["at"] < wanted:
                low = middle + 1
            else:
                high = middle
        return low


def as_jsonl(rows: Iterable[tuple[Fact, str]]) -> str:
    """Rows of an export, a JSON object a line, each with its hash: who keeps the file can tell what was changed."""
    return "".join(json.dumps(_document(*row), ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: Iterable[tuple[Fact, str]], *, head: bool = False) -> str:
    """The same for a spreadsheet; with the names of the columns before."""
    out = io.StringIO()
    csv.writer(out).writerows([*([COLUMNS] if head else []), *(_cells(*row) for row in rows)])
    return out.getvalue()


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


def _cells(fact: Fact, digest: str) -> tuple[Any, ...]:
    actor, body = fact.actor, json.dumps(fact.body, ensure_ascii=False)
    who = (actor.get("kind", ""), _plain(actor.get("name", "")), actor.get("role", ""))
    return (fact.seq, fact.at, str(fact.kind), fact.study_id, _plain(fact.subject), *who, body, digest)


def _plain(text: str) -> str:
    """A cell that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text


def _conditions(wanted: AuditFilter) -> tuple[str, tuple[object, ...]]:
    parts: list[str] = []
    values: list[object] = []
    if wanted.who:
        parts.append("json_extract(actor, '$.kind') = ?")
        values.append(wanted.who)
    if wanted.name:
        parts.append("instr(lower(json_extract(actor, '$.name')), ?) > 0")
        values.append(wanted.name.lower())
    if wanted.study_id is not None:
        parts.append("study_id = ?")
        values.append(wanted.study_id)
    if wanted.kind is not None:
        parts.append("kind = ?")
        values.append(str(wanted.kind))
    return "".join(f" AND {part}" for part in parts), tuple(values)
