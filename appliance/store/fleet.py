"""The fleet link's own rows: marks by name, batches on their way, the cursor, and what was skipped of health.

The link's place in the journal are two numbers. Up to the ``cursor`` everything was committed by the server. Up to
``made`` every row is in a batch, was committed, or stays here. Between them lie the batches that no one has
acknowledged; they never overlap, so the cursor is always the row before the first of them, or ``made``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from appliance.store.database import Database, Transaction, new_ulid
from appliance.store.facts import Kind
from appliance.store.facts.fleet import FleetTold
from appliance.store.issues import clear_issue
from appliance.store.journal import Fact, fact_of

#: The link's row in the table ``cursor``.
READER = "fleet"
MADE = "made"
#: Marks that are no rows of the journal: a new database, whose rows have other numbers, takes them over.
OUTLIVES_REBUILD = frozenset(
    {
        *("sess", "born", "resent_st", "job_ctr", "ref_key", "sources"),
        *("twin_rv", "twin_applied", "twin_refused", "twin_errors", "twin_document"),
    }
)
_SKIPPED = "skipped"
#: Marks for people: since when the line stands (empty: it does not), and when the server last said that it has rows.
CONNECTED, TOLD = "connected_at", "told_at"
#: Mark: how far our wall clock is before the server's, in milliseconds.
SKEW = "skew_ms"
_HEALTH = f"kind = '{Kind.FLEET_TOLD}' AND json_extract(body, '$.record.k') = 'health'"


@dataclass(frozen=True, slots=True)
class FleetBatch:
    """Rows of the journal that travel together, first to last, the same ones until the server has committed them."""

    id: str
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the link stands: see the module."""

    cursor: int
    made: int
    batches: tuple[FleetBatch, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows of a range: how many, from which to which."""

    n: int
    first_seq: int = 0
    last_seq: int = 0


def state_of(tx: Transaction, name: str, default: str = "") -> str:
    """What a mark says, inside a transaction."""
    row = tx.one("SELECT value FROM fleet_state WHERE name = ?", (name,))
    return str(row["value"]) if row else default


def put_state(tx: Transaction, name: str, value: str) -> None:
    """Set a mark inside a transaction."""
    tx.execute(
        "INSERT INTO fleet_state VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value)
    )


class FleetRows:
    """Every method is one read or one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def state(self, name: str, default: str = "") -> str:
        """What a mark says. The link's own: sess, nonce, skew_ms, made, skipped, resent_st."""
        row = self._db.one("SELECT value FROM fleet_state WHERE name = ?", (name,))
        return str(row["value"]) if row else default

    def set_state(self, name: str, value: str) -> None:
        """Set a mark."""
        with self._db.write() as tx:
            put_state(tx, name, value)

    def new_session(self, nonce: str) -> int:
        """Count a session before it is begun, and keep its nonce for who checks jobs."""
        with self._db.write() as tx:
            sess = int(state_of(tx, "sess", "0")) + 1
            put_state(tx, "sess", str(sess))
            put_state(tx, "nonce", nonce)
            put_state(tx, CONNECTED, "")
            return sess

    def stands(self, *, connected: bool) -> None:
        """Note for people since when the line stands, or that it does not."""
        with self._db.write() as tx:
            put_state(tx, CONNECTED, tx.at if connected else "")

    def place(self) -> Place:
        """Where the link stands. Only the link itself moves forward; ``rewind`` may move it back at any moment."""
        rows = self._db.all(
            "SELECT '' AS id, (SELECT seq FROM cursor WHERE reader = ?) AS first_seq,"
            " (SELECT value FROM fleet_state WHERE name = ?) AS last_seq"
            " UNION ALL SELECT id, first_seq, last_seq FROM fleet_batch",
            (READER, MADE),
        )
        marks = next(row for row in rows if not row["id"])
        cursor = int(marks["first_seq"] or 0)
        batches = (FleetBatch(row["id"], int(row["first_seq"]), int(row["last_seq"])) for row in rows if row["id"])
        return Place(cursor, int(marks["last_seq"] or cursor), tuple(sorted(batches, key=lambda one: one.first_seq)))

    def facts(self, after: int, through: int, kinds: Collection[Kind], limit: int = -1) -> list[Fact]:
        """Rows of these kinds in (after, through], oldest first."""
        sql = f"SELECT * FROM journal WHERE seq > ? AND seq <= ? AND kind IN ({_marks(kinds)}) ORDER BY seq LIMIT ?"  # noqa: S608 - marks only
        return [fact_of(row) for row in self._db.all(sql, (after, through, *map(str, kinds), limit))]

    def waiting(self, after: int, kinds: Collection[Kind]) -> Waiting:
        """How many rows of these kinds come after one."""
        sql = f"SELECT count(*) AS n FROM journal WHERE seq > ? AND kind IN ({_marks(kinds)})"  # noqa: S608 - marks only
        row = self._db.one(sql, (after, *map(str, kinds)))
        return Waiting(int(row["n"]) if row else 0)

    def waiting_health(self, after: int, through: int) -> Waiting:
        """Roll-ups of health in (after, through] that are not skipped yet."""
        sql = f"SELECT seq FROM journal WHERE seq > ? AND seq <= ? AND {_HEALTH} ORDER BY seq"  # noqa: S608 - a literal
        gone = self.skipped()
        found = [row["seq"] for row in self._db.all(sql, (after, through)) if not gone.holds(row["seq"])]
        return Waiting(len(found), found[0], found[-1]) if found else Waiting(0)

    def skipped(self) -> Skipped:
        """Ranges whose roll-ups of health are not sent."""
        return Skipped.read(self.state(_SKIPPED, "[]"))

    def skip_health(self, waiting: Waiting, gap: FleetTold) -> None:
        """Leave these roll-ups of health out for good, and say so to the server in one record."""
        with self._db.write() as tx:
            cursor = _cursor(tx)
            kept = [one for one in Skipped.read(state_of(tx, _SKIPPED, "[]")) if one[1] > cursor]
            put_state(tx, _SKIPPED, json.dumps([*kept, (waiting.first_seq, waiting.last_seq)]))
            tx.journal(gap)

    def add_batch(self, after: int, through: int) -> FleetBatch | None:
        """Freeze the rows (after, through] as a batch. None where the link has been moved back in the meantime."""
        with self._db.write() as tx:
            if not _extend(tx, after, through):
                return None
            batch = FleetBatch(new_ulid(tx.now), after + 1, through)
            tx.insert("fleet_batch", id=batch.id, first_seq=batch.first_seq, last_seq=batch.last_seq, made_at=tx.at)
            _settle(tx)
            return batch

    def pass_over(self, after: int, through: int) -> bool:
        """Note that of (after, through] nothing is to be sent. False where the link has been moved back meanwhile."""
        with self._db.write() as tx:
            if not _extend(tx, after, through):
                return False
            _settle(tx)
            return True

    def acknowledged(self, ids: Collection[str]) -> int:
        """The server has committed these batches: they go, and the cursor moves to the end of what is whole.

        Returns:
            How many of them were still on their way.
        """
        with self._db.write() as tx:
            sql = f"DELETE FROM fleet_batch WHERE id IN ({_marks(ids)})"  # noqa: S608 - marks only
            gone = tx.execute(sql, tuple(ids)).rowcount
            if gone:
                put_state(tx, TOLD, tx.at)
                _settle(tx)
            return gone

    def rewind(self, after: int) -> int:
        """Send everything after a row again, as far back as the journal goes.

        Returns:
            The row after which it begins; where nothing of it was made yet, ``made``.
        """
        with self._db.write() as tx:
            first = tx.one("SELECT min(seq) AS seq FROM journal")
            target = max(after, (int(first["seq"] or 1) if first else 1) - 1, 0)
            made = int(state_of(tx, MADE, str(_cursor(tx))))
            if target >= made:
                return made
            # A batch that begins before the row and ends after it goes as a whole.
            cut = tx.one("SELECT min(first_seq) AS seq FROM fleet_batch WHERE last_seq > ?", (target,))
            if cut is not None and cut["seq"] is not None:
                target = min(target, int(cut["seq"]) - 1)
            tx.execute("DELETE FROM fleet_batch WHERE last_seq > ?", (target,))
            put_state(tx, MADE, str(target))
            _settle(tx)
            return target

    def leave(self) -> None:
        """No fleet any more: the journal waits for nobody, and nothing of it is wrong. Sessions go on counting."""
        issues = self._db.all(
            "SELECT code, subject FROM issue WHERE cleared_at IS NULL AND substr(code, 1, 6) = 'FLEET_'"
        )
        if not issues and self._db.one("SELECT 1 FROM cursor WHERE reader = ?", (READER,)) is None:
            return
        with self._db.write() as tx:
            for row in issues:
                clear_issue(tx, row["code"], row["subject"])
            tx.execute("DELETE FROM cursor WHERE reader = ?", (READER,))
            tx.execute("DELETE FROM fleet_batch")
            # What was drawn together starts anew with the next fleet too: what happened in between is not its business.
            # Nor does what its server said go on: how this box should be, and how far its clock is off.
            tx.execute(
                "DELETE FROM fleet_state WHERE name IN (?, ?, ?, ?, ?)"
                " OR name GLOB 'rollup.*' OR name GLOB 'tuf.*' OR name GLOB 'twin_*' OR name GLOB 'stick_*'",
                (MADE, _SKIPPED, CONNECTED, TOLD, SKEW),
            )


@dataclass(frozen=True, slots=True)
class Skipped:
    """Ranges of rows, first to last."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, text: str) -> Skipped:
        """As it is kept."""
        return cls(tuple((int(first), int(last)) for first, last in json.loads(text)))

    def holds(self, seq: int) -> bool:
        """Whether a roll-up of health at this row is skipped."""
        return any(first <= seq <= last for first, last in self.ranges)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Each range."""
        return iter(self.ranges)


def _marks(values: Collection[object] | Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _cursor(tx: Transaction) -> int:
    row = tx.one("SELECT seq FROM cursor WHERE reader = ?", (READER,))
    return int(row["seq"]) if row else 0


def _extend(tx: Transaction, after: int, through: int) -> bool:
    """Move ``made`` on, where it still is where the caller saw it."""
    if through <= after or int(state_of(tx, MADE, str(_cursor(tx)))) != after:
        return False
    put_state(tx, MADE, str(through))
    return True


def _settle(tx: Transaction) -> None:
    """Bring the cursor to the row before the first batch that is on its way, or to ``made``."""
    first = tx.one("SELECT min(first_seq) AS seq FROM fleet_batch")
    made = int(state_of(tx, MADE, "0"))
    seq = made if first is None or first["seq"] is None else int(first["seq"]) - 1
    tx.execute("INSERT INTO cursor VALUES (?, ?) ON CONFLICT (reader) DO UPDATE SET seq = excluded.seq", (READER, seq))
