"""What people do about destinations beside retrying: keep back what one is owed, and ask whether it answers."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from appliance.errors import ConflictError
from appliance.records import Actor, DeliveryKind, Severity
from appliance.store.database import Database, from_iso
from appliance.store.facts.admin import DestinationPaused, DestinationTested
from appliance.store.issues import clear_issue, raise_issue

PAUSED = "DESTINATION_PAUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationState:
    """One destination as people left it."""

    destination: str
    paused_at: datetime | None = None
    paused_by: str = ""
    paused_why: str = ""
    tested_at: datetime | None = None
    test_ok: bool = False
    test_ms: float = 0.0
    test_words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An object that a destination has not got; ids and codes alone."""

    delivery: int
    study_id: int
    kind: DeliveryKind
    attempt: int
    owed_at: datetime
    next_at: datetime
    #: Last DIMSE or HTTP status.
    status: int | None
    error: str


class DestinationStates:
    """Acts on destinations; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def get(self, destination: str) -> DestinationState:
        """How people left it; as new where nobody did anything."""
        row = self._db.one("SELECT * FROM destination_state WHERE destination = ?", (destination,))
        return _state(row) if row else DestinationState(destination=destination)

    def is_paused(self, destination: str) -> bool:
        """Whether nothing is to be sent to it now; asked before every batch."""
        sql = "SELECT 1 FROM destination_state WHERE destination = ? AND paused_at IS NOT NULL"
        return self._db.one(sql, (destination,)) is not None

    def pause(self, destination: str, why: str, actor: Actor) -> None:
        """Send it nothing until ``resume``. It goes on being owed, and an issue says so.

        Raises:
            ConflictError: It is paused already, or no reason is given.
        """
        if not why.strip():
            raise ConflictError(f"pausing {destination} needs a reason, for the journal")
        with self._db.write() as tx:
            if tx.one(
                "SELECT 1 FROM destination_state WHERE destination = ? AND paused_at IS NOT NULL", (destination,)
            ):
                raise ConflictError(f"{destination} is paused already")
            tx.execute(
                "INSERT INTO destination_state (destination, paused_at, paused_by, paused_why) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (destination) DO UPDATE SET paused_at = excluded.paused_at,"
                " paused_by = excluded.paused_by, paused_why = excluded.paused_why",
                (destination, tx.at, actor.name, why),
            )
            raise_issue(tx, PAUSED, destination, Severity.WARNING, {})
            tx.journal(
                DestinationPaused(destination=destination, paused=True, why=why), subject=destination, actor=actor
            )

    def resume(self, destination: str, actor: Actor) -> None:
        """Send again what it is owed.

        Raises:
            ConflictError: It is not paused.
        """
        with self._db.write() as tx:
            changed = tx.execute(
                "UPDATE destination_state SET paused_at = NULL, paused_by = '', paused_why = ''"
                " WHERE destination = ? AND paused_at IS NOT NULL",
                (destination,),
            ).rowcount
            if not changed:
                raise ConflictError(f"{destination} is not paused")
            clear_issue(tx, PAUSED, destination)
            tx.journal(DestinationPaused(destination=destination, paused=False), subject=destination, actor=actor)

    def tested(self, destination: str, *, ok: bool, ms: float, words: str, actor: Actor) -> None:
        """Keep how a test ended."""
        with self._db.write() as tx:
            tx.execute(
                "INSERT INTO destination_state (destination, tested_at, test_ok, test_ms, test_words)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (destination) DO UPDATE SET tested_at = excluded.tested_at,"
                " test_ok = excluded.test_ok, test_ms = excluded.test_ms, test_words = excluded.test_words",
                (destination, tx.at, int(ok), ms, words),
            )
            tx.journal(
                DestinationTested(destination=destination, ok=ok, ms=round(ms, 1)), subject=destination, actor=actor
            )

    def waiting(self, destination: str, state: str, limit: int = 50) -> list[Waiting]:
        """Objects in ``state`` (owed, parked), the one that is tried next first, parked ones oldest first."""
        order = "next_at, id" if state == "owed" else "id"
        rows = self._db.all(
            "SELECT id, study_id, kind, attempt, owed_at, next_at, status, error FROM delivery"  # noqa: S608 - ours
            f" WHERE destination = ? AND state = ? AND state <> 'sent' ORDER BY {order} LIMIT ?",
            (destination, state, limit),
        )
        return [
            Waiting(
                delivery=row["id"],
                study_id=row["study_id"],
                kind=DeliveryKind(row["kind"]),
                attempt=row["attempt"],
                owed_at=from_iso(row["owed_at"]),
                next_at=from_iso(row["next_at"]),
                status=row["status"],
                error=row["error"],
            )
            for row in rows
        ]


def _state(row: sqlite3.Row) -> DestinationState:
    return DestinationState(
        destination=row["destination"],
        paused_at=from_iso(row["paused_at"]) if row["paused_at"] else None,
        paused_by=row["paused_by"],
        paused_why=row["paused_why"],
        tested_at=from_iso(row["tested_at"]) if row["tested_at"] else None,
        test_ok=bool(row["test_ok"]),
        test_ms=row["test_ms"] or 0.0,
        test_words=row["test_words"],
    )
