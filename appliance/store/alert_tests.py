"""Trials whether alerts arrive: shown, heard and acknowledged like alerts, and nothing else.

They have a table of their own, so that no outcome, count, result or statistic can ever hold one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, AlertStep
from appliance.store.database import Database, from_iso, iso
from appliance.store.escalations import clear_notices, owe
from appliance.store.facts.alerts import TestAlertAcknowledged, TestAlertEnded, TestAlertPresented, TestAlertRaised

#: A trial that nobody acknowledges ends by itself.
LIFE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTest:
    """A trial that goes on; ``source`` empty: on every screen."""

    id: int
    source: str
    raised_at: datetime
    raised_by: str
    is_presented: bool


class AlertTests:
    """Acts on trials; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def begin(self, source: str, actor: Actor, sinks: Collection[str] = ()) -> int:
        """Raise a test alert; sinks are told that it is one. Returns its id.

        Raises:
            ConflictError: One of the same source goes on.
        """
        with self._db.write() as tx:
            standing = tx.one("SELECT id FROM test_alert WHERE ended_at IS NULL AND source = ?", (source,))
            if standing is not None:
                raise ConflictError(f"test alert {standing['id']} goes on; acknowledge it first")
            test_id = tx.insert("test_alert", source=source, raised_at=tx.at, raised_by=actor.name)
            owe(tx, sinks, AlertStep.TEST, test_id=test_id)
            tx.journal(TestAlertRaised(test=test_id, source=source), actor=actor)
            return test_id

    def open(self) -> list[AlertTest]:
        """Those that go on, newest first."""
        rows = self._db.all("SELECT * FROM test_alert WHERE ended_at IS NULL ORDER BY id DESC")
        return [
            AlertTest(
                id=row["id"],
                source=row["source"],
                raised_at=from_iso(row["raised_at"]),
                raised_by=row["raised_by"],
                is_presented=row["presented_at"] is not None,
            )
            for row in rows
        ]

    def presented(self, test_id: int, screen: str = "") -> None:
        """A screen has painted it; the first one counts."""
        with self._db.write() as tx:
            changed = tx.execute(
                "UPDATE test_alert SET presented_at = ? WHERE id = ? AND presented_at IS NULL AND ended_at IS NULL",
                (tx.at, test_id),
            )
            if changed.rowcount:
                tx.journal(TestAlertPresented(test=test_id, screen=screen))

    def acknowledge(self, test_id: int, actor: Actor) -> None:
        """A named person has seen it; once, later ones change nothing.

        Raises:
            NotFoundError: No such test.
            ConflictError: Nobody is named.
        """
        if not actor.name.strip():
            raise ConflictError(f"test alert {test_id}: an acknowledgement needs the name of the person who gives it")
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM test_alert WHERE id = ?", (test_id,)) is None:
                raise NotFoundError(f"test alert {test_id} does not exist")
            changed = tx.execute(
                "UPDATE test_alert SET ended_at = ?, acknowledged_by = ? WHERE id = ? AND ended_at IS NULL",
                (tx.at, actor.name, test_id),
            )
            if changed.rowcount:
                tx.journal(TestAlertAcknowledged(test=test_id), actor=actor)
                clear_notices(tx, None, test_id=test_id)

    def end_old(self) -> None:
        """End those that nobody acknowledged in time."""
        before = iso(self._db.clock.now() - LIFE)
        sql = "SELECT id FROM test_alert WHERE ended_at IS NULL AND raised_at <= ?"
        for row in self._db.all(sql, (before,)):
            with self._db.write() as tx:
                tx.execute("UPDATE test_alert SET ended_at = ? WHERE id = ? AND ended_at IS NULL", (tx.at, row["id"]))
                tx.journal(TestAlertEnded(test=row["id"]))
                clear_notices(tx, None, test_id=row["id"])
