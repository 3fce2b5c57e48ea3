"""Reading the journal: rows after a cursor, waiting for new ones, checking the chain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from appliance.store.database import Database
from appliance.store.facts import Kind
from appliance.store.hashing import GENESIS, row_hash

_FIELDS = ("at", "mono_ms", "boot", "kind", "study_id", "subject", "actor", "body")


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
        return [_fact(row) for row in self._db.all(sql, (seq, *map(str, kinds), limit))]

    def of_study(self, study_id: int) -> list[Fact]:
        """Everything that the journal says of one study."""
        return [
            _fact(row) for row in self._db.all("SELECT * FROM journal WHERE study_id = ? ORDER BY seq", (study_id,))
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
        previous = GENESIS
        expected = 1
        for row in self._rows():
            digest = row_hash(previous, {name: row[name] for name in _FIELDS})
            if row["seq"] != expected or digest != row["hash"]:
                return int(row["seq"])
            previous = digest
            expected += 1
        return 0

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


def _fact(row: Any) -> Fact:
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
