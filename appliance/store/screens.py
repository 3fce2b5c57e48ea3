"""Screens at scanners: paired once by a code, and each shows the alerts of its sources alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts.access import ScreenChanged, SignedOut
from appliance.store.hashing import secret_digest

#: How long a code of six digits pairs, and how long a link does, that nobody guesses.
CODE_LIFE = timedelta(minutes=15)
TICKET_LIFE = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenView:
    """A screen; ``sources`` empty means all."""

    id: int
    name: str
    sources: tuple[str, ...]
    made_at: datetime
    paired_at: datetime | None
    revoked_at: datetime | None


def screen_of(row: sqlite3.Row) -> ScreenView:
    """A screen's row."""
    return ScreenView(
        id=row["id"],
        name=row["name"],
        sources=tuple(json.loads(row["sources"])),
        made_at=from_iso(row["made_at"]),
        paired_at=from_iso(row["paired_at"]) if row["paired_at"] else None,
        revoked_at=from_iso(row["revoked_at"]) if row["revoked_at"] else None,
    )


class Screens:
    """Acts on screens; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def all(self) -> list[ScreenView]:
        """Those that are not revoked."""
        return [screen_of(row) for row in self._db.all("SELECT * FROM screen WHERE revoked_at IS NULL ORDER BY name")]

    def blind(self, configured: Collection[str]) -> dict[str, tuple[str, ...]]:
        """The screens that watch a source which is not configured: its alerts never come. With those sources."""
        gone = {one.name: tuple(name for name in one.sources if name not in configured) for one in self.all()}
        return {name: sources for name, sources in gone.items() if sources}

    def paired(self, names: Collection[str]) -> tuple[str, ...]:
        """Of some names those of screens that a browser is paired as."""
        return tuple(one.name for one in self.all() if one.name in names and one.paired_at is not None)

    def offer(self, name: str, sources: Sequence[str], code: str, actor: Actor, *, life: timedelta = CODE_LIFE) -> int:
        """Let a browser that gives ``code`` within ``life`` become the screen ``name``.

        A screen of that name that is there already keeps its number and gets these sources; it is paired anew, so that
        a broken panel can be replaced, and until then the old one goes on.

        Returns:
            The screen's id.

        Raises:
            ConflictError: Another screen waits for the same code, which of six digits happens once in a million times.
        """
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM screen WHERE code = ? AND name <> ?", (secret_digest(code), name)):
                raise ConflictError("another screen waits for this very code; ask for a code again")
            row = tx.one("SELECT id FROM screen WHERE name = ? AND revoked_at IS NULL", (name,))
            ends = iso(tx.now + life)
            if row is None:
                screen_id = tx.insert(
                    "screen",
                    name=name,
                    sources=json.dumps(list(sources)),
                    made_at=tx.at,
                    code=secret_digest(code),
                    code_ends_at=ends,
                )
            else:
                screen_id = int(row["id"])
                tx.execute(
                    "UPDATE screen SET sources = ?, code = ?, code_ends_at = ? WHERE id = ?",
                    (json.dumps(list(sources)), secret_digest(code), ends, screen_id),
                )
            tx.journal(ScreenChanged(screen=name, change="code", sources=tuple(sources)), actor=actor)
        return screen_id

    def pair(self, code: str) -> ScreenView:
        """Use a code up; sessions of the screen that were there end.

        Raises:
            ConflictError: No screen waits for this code, or its time is over.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM screen WHERE code = ? AND revoked_at IS NULL", (secret_digest(code),))
            if row is None or row["code_ends_at"] < tx.at:
                raise ConflictError("this code pairs no screen; ask an administrator for a new one")
            tx.execute("UPDATE screen SET code = NULL, paired_at = ? WHERE id = ?", (tx.at, row["id"]))
            _end_sessions(tx, row)
            tx.journal(ScreenChanged(screen=row["name"], change="paired", sources=tuple(json.loads(row["sources"]))))
            found = tx.one("SELECT * FROM screen WHERE id = ?", (row["id"],))
            assert found is not None  # noqa: S101 - updated a moment ago, in this transaction
            return screen_of(found)

    def revoke(self, screen_id: int, actor: Actor, *, reason: str = "") -> None:
        """The screen shows nothing any more, at once.

        Raises:
            NotFoundError: No such screen.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM screen WHERE id = ? AND revoked_at IS NULL", (screen_id,))
            if row is None:
                raise NotFoundError(f"screen {screen_id} does not exist; 'scanside screen list' shows those that do")
            tx.execute("UPDATE screen SET revoked_at = ?, code = NULL WHERE id = ?", (tx.at, screen_id))
            _end_sessions(tx, row)
            tx.journal(ScreenChanged(screen=row["name"], change="revoked", reason=reason), actor=actor)


def _end_sessions(tx: Transaction, row: sqlite3.Row) -> None:
    if tx.execute("DELETE FROM session WHERE screen_id = ?", (row["id"],)).rowcount:
        tx.journal(SignedOut(why="revoked"), subject=row["name"])
