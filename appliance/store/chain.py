"""Is the journal what it was when it was written? Checked row by row, a bounded number at a time, over and over.

A chain that lies on the box shows that a row was changed, removed, inserted, put elsewhere, or that the end was cut
off. It cannot show that somebody who owns the machine wrote the whole chain anew, or put an old copy of the database
back while the box was off: for that a witness elsewhere must hold the number and hash of a row (the fleet's server,
an export that was kept, the lines that the daemon's log gets).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from appliance.store.database import Database, from_iso
from appliance.store.facts import Kind
from appliance.store.facts.box import JournalPruned
from appliance.store.hashing import GENESIS, row_hash
from appliance.store.journal import FIELDS, chain_begin

#: After this a whole pass begins again: what was checked before may have been changed since.
AGAIN = timedelta(hours=24)
#: No row goes by retention before it is 366 days old; the first that stays may be some days younger.
_OLD = timedelta(days=350)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainState:
    """How far the check is.

    Attributes:
        through: Every row up to this one fits the one before it.
        hash: Of that row.
        last: The newest row when the check last looked.
        broken_at: The first row that does not fit; 0: none was met.
        whole_at: When a pass last reached the end with every row fitting; None: not yet since the start.
        begun_at: When this pass began.
    """

    through: int = 0
    hash: str = ""
    last: int = 0
    broken_at: int = 0
    whole_at: datetime | None = None
    begun_at: datetime | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all rows there were fit."""
        return self.broken_at == 0 and self.whole_at is not None


class Chain:
    """The check. What it has found is kept in memory alone: a database that vouches for itself would prove nothing."""

    def __init__(self, db: Database) -> None:
        """Read ``db``."""
        self._db = db
        self._guard = threading.Lock()
        self._state = ChainState()
        self._expected = 0
        #: A row seen before, and its hash: it must stay as it was, also in the next pass.
        self._witness: tuple[int, str] | None = None

    @property
    def state(self) -> ChainState:
        """How far it is."""
        return self._state

    def restart(self) -> None:
        """Begin a whole pass with the next step."""
        with self._guard:
            self._state = replace(self._state, through=0, hash="", broken_at=0, whole_at=None, begun_at=None)

    def advance(self, rows: int = 2000) -> bool:
        """Check so many rows more.

        Returns:
            Whether there is more to check now.
        """
        with self._guard:
            now = self._db.clock.now()
            state = self._state
            if state.begun_at is None or (state.is_whole and now - state.begun_at >= AGAIN):
                # The pass before holds until this one ends; a break that was found stays until a person asks again.
                self._expected = 1
                state = replace(state, through=0, hash=GENESIS, begun_at=now)
            if state.broken_at:
                return False
            state, more = self._step(state, rows, now)
            self._state = state
            return more

    def _step(self, state: ChainState, rows: int, now: datetime) -> tuple[ChainState, bool]:
        found = self._db.all("SELECT * FROM journal WHERE seq > ? ORDER BY seq LIMIT ?", (state.through, rows))
        if found and found[0]["seq"] > self._expected and self._was_pruned(found[0]):
            # The oldest day went while the pass was in it.
            self._expected, previous = chain_begin(self._db)
            return replace(state, through=self._expected - 1, hash=previous), True
        previous, through = state.hash, state.through
        for row in found:
            digest = row_hash(previous, {name: row[name] for name in FIELDS})
            if row["seq"] != self._expected or digest != row["hash"] or not self._fits_witness(row["seq"], digest):
                return replace(state, through=through, hash=previous, broken_at=row["seq"], whole_at=None), False
            previous, through = digest, row["seq"]
            self._expected += 1
        if len(found) == rows:
            return replace(state, through=through, hash=previous), True
        highest = self._db.one("SELECT seq FROM sqlite_sequence WHERE name = 'journal'")
        given, newest = int(highest["seq"]) if highest else 0, self._newest()
        if newest < through or (newest == through and given > through):
            # Rows had these numbers once, and are gone.
            return replace(state, through=through, hash=previous, broken_at=newest + 1, whole_at=None), False
        self._witness = (through, previous)
        return replace(state, through=through, hash=previous, last=newest, whole_at=now), False

    def _was_pruned(self, first: Any) -> bool:
        """Whether the rows before ``first`` went as retention lets them go: under a checkpoint, a year old.

        Whoever deletes younger rows can write a checkpoint for them that fits the chain; it cannot make them old.
        """
        kind = str(Kind.JOURNAL_PRUNED)
        for row in self._db.all("SELECT at, body FROM journal WHERE kind = ? ORDER BY seq DESC", (kind,)):
            if JournalPruned.model_validate_json(row["body"]).through == first["seq"] - 1:
                return from_iso(row["at"]) - from_iso(first["at"]) >= _OLD
        return False

    def _fits_witness(self, seq: int, digest: str) -> bool:
        return self._witness is None or self._witness[0] != seq or self._witness[1] == digest

    def _newest(self) -> int:
        row = self._db.one("SELECT max(seq) AS seq FROM journal")
        return int(row["seq"] or 0) if row else 0
