"""The journal: rows after a cursor, waiting for new ones, checking the chain, letting the oldest days go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from appliance.store.database import Database, from_iso, iso
from appliance.store.facts import Kind
from appliance.store.facts.box import JournalPruned
from appliance.store.hashing import GENESIS, row_hash

_BETWEEN_PRUNINGS = timedelta(hours=20)
#: What a row's hash covers.
FIELDS = ("at", "mono_ms", "boot", "kind", "study_id", "subject", "actor", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One row of the journal."""

    seq: int
    at: str
    mono_ms: int
    boot: str
    kind: Kind
    study_id: int | None
    subject: str
    actor: dict[str, str]
    body: dict[str, Any]


class Journal:
    """A reader's view. Each reader keeps its own cursor; there is no second queue."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db

    def last_seq(self) -> int:
        """Sequence number of the newest row."""
        row = self._db.one("SELECT max(seq) AS seq FROM journal")
        return int(row["seq"] or 0) if row else 0

    def after(self, seq: int, limit: int = 500, kinds: tuple[Kind, ...] = ()) -> list[Fact]:
        """Rows with a greater sequence number, oldest first."""
        condition = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        sql = f"SELECT * FROM journal WHERE seq > ?{condition} ORDER BY seq LIMIT ?"  # noqa: S608 - marks only
        return [fact_of(row) for row in self._db.all(sql, (seq, *map(str, kinds), limit))]

    def of_study(self, study_id: int) -> list[Fact]:
        """Everything that the journal says of one study."""
        return [
            fact_of(row) for row in self._db.all("SELECT * FROM journal WHERE study_id = ? ORDER BY seq", (study_id,))
        ]

    def wait(self, seq: int, timeout_s: float) -> bool:
        """Wait for a row after ``seq``: at once for commits of this process, within 1 s for those of others.

        Returns:
            Whether there is one.
        """
        seen = self._db.commits
        deadline = self._db.clock.monotonic() + timeout_s
        while self.last_seq() <= seq:
            left = deadline - self._db.clock.monotonic()
            if left <= 0:
                return False
            seen = self._db.wait_commit(seen, min(left, 1.0))
        return True

    def verify(self) -> int:
        """Check the hash chain.

        Returns:
            0 when it holds, else the sequence number of the first row that does not fit the one before.
        """
        expected, previous = chain_begin(self._db)
        for row in self._rows():
            digest = row_hash(previous, {name: row[name] for name in FIELDS})
            if row["seq"] != expected or digest != row["hash"]:
                return int(row["seq"])
            previous = digest
            expected += 1
        return 0

    def prune(self, before: datetime) -> int:
        """Delete what is older than ``before`` and behind every reader: whole days, each in one act with a checkpoint.

        At most two days go in one call, and a day must pass between two calls that delete: a clock that was set years
        ahead cannot take the journal with it before a person has seen the issue.

        Returns:
            How many rows went.
        """
        first = self._db.one("SELECT at FROM journal ORDER BY seq LIMIT 1")
        if first is None or _midnight_after(first["at"]) > before:
            return 0  # before the query below, which reads the whole journal
        newest = self._db.one("SELECT max(at) AS at FROM journal WHERE kind = ?", (str(Kind.JOURNAL_PRUNED),))
        if newest is not None and newest["at"] and self._db.clock.now() - from_iso(newest["at"]) < _BETWEEN_PRUNINGS:
            return 0
        return sum(self._prune_day(before) for _ in range(2))

    def _prune_day(self, before: datetime) -> int:
        with self._db.write() as tx:
            first = tx.one("SELECT seq, at FROM journal ORDER BY seq LIMIT 1")
            if first is None:
                return 0
            end = _midnight_after(first["at"])
            later = tx.one(
                "SELECT seq FROM journal WHERE seq > ? AND at >= ? ORDER BY seq LIMIT 1", (first["seq"], iso(end))
            )
            if end > before or later is None:
                return 0
            slowest = tx.one("SELECT min(seq) AS seq FROM cursor")
            through = later["seq"] - 1
            if slowest is not None and slowest["seq"] is not None and slowest["seq"] < through:
                return 0
            last = tx.one("SELECT hash FROM journal WHERE seq = ?", (through,))
            count = tx.execute("DELETE FROM journal WHERE seq <= ?", (through,)).rowcount
            if last is not None:
                tx.journal(JournalPruned(day=first["at"][:10], rows=count, through=through, hash=last["hash"]))
            return count

    def _rows(self) -> Iterator[Any]:
        seq = 0
        while rows := self._db.all("SELECT * FROM journal WHERE seq > ? ORDER BY seq LIMIT 2000", (seq,)):
            yield from rows
            seq = rows[-1]["seq"]

    def cursor(self, reader: str) -> int:
        """Where a reader stands; 0 when it is new."""
        row = self._db.one("SELECT seq FROM cursor WHERE reader = ?", (reader,))
        return int(row["seq"]) if row else 0

    def move_cursor(self, reader: str, seq: int) -> None:
        """Note that a reader has done its work up to ``seq``."""
        with self._db.write() as tx:
            tx.execute(
                "INSERT INTO cursor VALUES (?, ?) ON CONFLICT (reader) DO UPDATE SET seq = excluded.seq", (reader, seq)
            )


def chain_begin(db: Database) -> tuple[int, str]:
    """The first sequence number to expect and the hash before it: a checkpoint's, where rows were pruned."""
    first = db.one("SELECT min(seq) AS seq FROM journal")
    if first is not None and (first["seq"] or 1) > 1:
        kind = str(Kind.JOURNAL_PRUNED)
        for row in db.all("SELECT body FROM journal WHERE kind = ? ORDER BY seq DESC", (kind,)):
            pruned = JournalPruned.model_validate_json(row["body"])
            if pruned.through == first["seq"] - 1:
                return first["seq"], pruned.hash
    return 1, GENESIS


def _midnight_after(at: str) -> datetime:
    """The end of the day that holds a row's time."""
    return from_iso(at).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def fact_of(row: Any) -> Fact:
    """A row of the table."""
    return Fact(
        seq=row["seq"],
        at=row["at"],
        mono_ms=row["mono_ms"],
        boot=row["boot"],
        kind=Kind(row["kind"]),
        study_id=row["study_id"],
        subject=row["subject"],
        actor=json.loads(row["actor"]),
        body=json.loads(row["body"]),
    )
