"""The window of batches: which rows of the journal go next, which are on their way, and which go once more.

What is on its way stands in the database (``store.fleet``); here is only when it was sent. A batch that nobody
acknowledged goes again, later each time, and a broker's PUBACK means nothing: it may die with what it took.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from appliance.clock import Clock
from appliance.fleet.device.pace import Held
from appliance.fleet.wire_records import Clk, Gap, Health, Record
from appliance.records import Severity
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.store.facts.fleet import FleetTold
from appliance.store.fleet import FleetBatch, FleetRows, Place, Skipped
from appliance.store.journal import Fact

log = logging.getLogger(__name__)

WINDOW = 20
MOST_RECORDS = 100
MOST_BYTES = 64 * 1024
#: Rows that come within so long of one another share a batch.
LINGER_S = 5.0
_RESEND_S, _MOST_RESEND_S = 10.0, 300.0
#: Rows that are read at once.
_SCAN = 300
#: Rows that stay here are passed over in memory; after so many, or so long, on disk too.
_PASS_ROWS, _PASS_S = 2000, 60.0
#: Fewer waiting roll-ups of health are no burden; each gap costs a record too.
_GAP_FROM = 12
_LOOK_AT_BACKLOG_S = 60.0
#: Reason codes that are about one message and not about its topic: packet too large, payload format invalid.
_POISON = frozenset({0x95, 0x99})


class Contents(Protocol):
    """What of the box may leave it."""

    #: The kinds of rows of which some may leave.
    kinds: Collection[Kind]

    def record(self, fact: Fact) -> Record | None:
        """A row as the server sees it; None: it stays here."""
        ...

    def health(self, sess: int) -> Health:
        """How the box fares now."""
        ...

    def clk(self) -> Clk:
        """How far the wall clock is to be trusted."""
        ...


@dataclass(frozen=True, slots=True)
class Parcel:
    """A batch with what is in it."""

    batch: FleetBatch
    records: tuple[Record, ...]


@dataclass(slots=True)
class _Flight:
    """What is known of a batch since this process runs; nothing of it matters after its end."""

    next_at: float = 0.0
    sent_at: float = 0.0
    sends: int = 0
    tries: int = 0
    token: int | None = None
    taken: bool = False


class Outbox:
    """One link's."""

    def __init__(
        self, store: Store, contents: Contents, clock: Clock, *, backlog_rows: int, linger_s: float = LINGER_S
    ) -> None:
        """Send ``contents`` of what is in ``store``.

        Args:
            store: The journal, and where the link stands in it.
            contents: What may leave.
            clock: Monotonic.
            backlog_rows: Beyond so many waiting rows, roll-ups of health are skipped.
            linger_s: Rows that come within so long of one another share a batch.
        """
        self._store = store
        self._rows = store.fleet
        self._contents = contents
        self._clock = clock
        self._backlog_rows = backlog_rows
        self._linger_s = linger_s
        self._flights: dict[str, _Flight] = {}
        self._poison = Held()
        #: Up to here nothing new is to be sent, as seen while ``made`` was the first of the two.
        self._seen = (-1, -1)
        self._passed_at = clock.monotonic()
        self._fresh_at: float | None = None
        self._looked_at: float | None = None
        #: Seconds from sending a batch to the server's word, smoothed; None where none is known.
        self.round_trip_s: float | None = None

    def next(self) -> Parcel | None:
        """What should go now: first what waited too long for the server's word, then what is new."""
        for _ in range(2 * WINDOW):
            place = self._rows.place()
            self._flights = {one.id: self._flight(one.id) for one in place.batches}
            self._poison.keep(self._flights)
            batch = self._due(place) or self._make(place)
            if batch is None:
                return None
            records = self._records(batch)
            if 0 < len(records) <= MOST_RECORDS:
                return Parcel(batch, records)
            if records:  # the software was changed and lets more of these rows leave than it did
                self._rows.rewind(batch.first_seq - 1)
            else:
                self._rows.acknowledged([batch.id])
        return None

    def sent(self, batch: str, token: int) -> None:
        """It was given to the transport."""
        flight, now = self._flight(batch), self._clock.monotonic()
        flight.tries += 1
        flight.sends += 1
        flight.sent_at, flight.token, flight.taken = now, token, False
        flight.next_at = now + self._wait_s(flight.tries)

    def published(self, token: int, failed: int | None) -> bool:
        """The broker has answered for a token.

        Returns:
            Whether a batch was refused for what its topic is, not for what is in it.
        """
        for batch, flight in self._flights.items():
            if flight.token != token:
                continue
            flight.token = None
            if failed is None:
                flight.taken = True
                self._poison.take(batch)
                return False
            flight.next_at = 0.0
            if failed in _POISON:
                self.set_aside(batch)
                return False
            return True
        return False

    def set_aside(self, batch: str) -> None:
        """This one batch is refused, the others go on; it is tried again, and the cursor waits for it."""
        self._poison.refuse(batch, self._clock.monotonic())

    @property
    def has_set_aside(self) -> bool:
        """Whether a batch is refused."""
        return len(self._poison) > 0

    def acknowledged(self, ids: Collection[str]) -> int:
        """The server has committed these. Returns how many of them were on their way."""
        now = self._clock.monotonic()
        for flight in (self._flights[one] for one in ids if one in self._flights):
            if flight.sends == 1:  # of one that went twice, nobody knows which was answered
                took = now - flight.sent_at
                self.round_trip_s = took if self.round_trip_s is None else 0.8 * self.round_trip_s + 0.2 * took
        settled = self._rows.acknowledged(ids)
        for one in ids:
            self._flights.pop(one, None)
            self._poison.take(one)
        return settled

    def reconnected(self, *, session_present: bool) -> None:
        """A new connection: what the broker has not taken, or has lost, goes at once."""
        for flight in self._flights.values():
            flight.token = None
            flight.tries = 0
            if not (flight.taken and session_present):
                flight.next_at = 0.0
        self._looked_at = None

    def _wait_s(self, tries: int) -> float:
        first = max(_RESEND_S, 4 * (self.round_trip_s or 0.0))
        return min(_MOST_RESEND_S, first * 2.0 ** min(tries - 1, 10))

    def _flight(self, batch: str) -> _Flight:
        return self._flights.setdefault(batch, _Flight())

    def _due(self, place: Place) -> FleetBatch | None:
        now = self._clock.monotonic()
        due = (one for one in place.batches if self._flights[one.id].next_at <= now)
        return next((one for one in due if not self._poison.is_held(one.id, now)), None)

    def _records(self, batch: FleetBatch) -> tuple[Record, ...]:
        facts = self._rows.facts(batch.first_seq - 1, batch.last_seq, self._contents.kinds)
        skipped = self._rows.skipped()
        found = (self._record(fact, skipped) for fact in facts)
        return tuple(record for record in found if record is not None)

    def _make(self, place: Place) -> FleetBatch | None:
        """Freeze the next rows, where there is room and there are enough of them."""
        if len(place.batches) >= WINDOW:
            return None
        now = self._clock.monotonic()
        start = self._seen[1] if self._seen[0] == place.made else place.made
        last = self._store.journal.last_seq()
        if last <= start:
            self._pass(place, start, now)
            return None
        self._look_at_backlog(place, last, now)
        through, found, full = cut(self._rows, self._contents.kinds, self._record, start, last)
        if not found:
            self._seen = (place.made, through)
            self._pass(place, through, now)
            return None
        if self._fresh_at is None:
            self._fresh_at = now
        if not full and now - self._fresh_at < self._linger_s:
            return None
        self._fresh_at = None
        batch = self._rows.add_batch(place.made, through)
        if batch is not None:
            self._flight(batch.id)
        return batch

    def _pass(self, place: Place, through: int, now: float) -> None:
        """Rows of which nothing leaves: note on disk that they are done with, but not for each one."""
        rows = through - place.made
        if rows > 0 and (rows >= _PASS_ROWS or now - self._passed_at >= _PASS_S):
            self._passed_at = now
            self._rows.pass_over(place.made, through)

    def _look_at_backlog(self, place: Place, last: int, now: float) -> None:
        """Where more waits than the line carries, roll-ups of health do not go: results, audit, issues and jobs do."""
        if last - place.made <= self._backlog_rows:
            return
        if self._looked_at is not None and now - self._looked_at < _LOOK_AT_BACKLOG_S:
            return
        self._looked_at = now
        if self._rows.waiting(place.made, self._contents.kinds).n <= self._backlog_rows:
            return
        health = self._rows.waiting_health(place.made, last)
        if health.n >= _GAP_FROM:
            gap = Gap(skipped="health", first_seq=health.first_seq, last_seq=health.last_seq, n=health.n)
            self._rows.skip_health(health, FleetTold(record=gap.model_dump(mode="json", exclude_none=True)))

    def _record(self, fact: Fact, skipped: Skipped) -> Record | None:
        if is_left_out(fact, skipped):
            return None
        try:
            return self._contents.record(fact)
        except ValueError as error:  # pydantic's too; its text would hold what it refuses
            why = type(error).__name__
            log.error("fleet: row %d (%s) does not fit what may leave this box: %s", fact.seq, fact.kind, why)  # noqa: TRY400 - see above
            self._store.issues.raise_("FLEET_ROW_UNFIT", str(fact.kind), Severity.WARNING, {"seq": fact.seq})
            return None


def cut(
    rows: FleetRows,
    kinds: Collection[Kind],
    record: Callable[[Fact, Skipped], Record | None],
    start: int,
    last: int,
) -> tuple[int, int, bool]:
    """From the rows (start, last]: through which a batch would go, its number of records, whether it is full."""
    skipped = rows.skipped()
    through, found, size = start, 0, 0
    while through < last:
        facts = rows.facts(through, last, kinds, _SCAN)
        for fact in facts:
            made = record(fact, skipped)
            if made is None:
                continue
            length = len(made.model_dump_json(exclude_none=True))
            if found and (found >= MOST_RECORDS or size + length > MOST_BYTES):
                return fact.seq - 1, found, True
            found += 1
            size += length
        through = facts[-1].seq if len(facts) == _SCAN else last
    return through, found, found >= MOST_RECORDS


def is_left_out(fact: Fact, skipped: Skipped) -> bool:
    """Whether a row is a roll-up of health that a gap stands for."""
    return fact.kind is Kind.FLEET_TOLD and fact.body.get("record", {}).get("k") == "health" and skipped.holds(fact.seq)
