"""The journal's reader for the screens: keeps the present board and wakes those who show it.

It asks the store again after every loud fact at once, after quiet ones (images arriving) a few times a second, and
every two seconds anyway. If that fails, the board grows stale, no beat is sent, and the screens say so themselves.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from appliance.clock import Clock
from appliance.records import Outcome
from appliance.screen.board import compose
from appliance.screen.model import Board, Facts, Notice
from appliance.screen.packages import PackageText
from appliance.stage import Beat, run_stage
from appliance.store import Store
from appliance.store.database import from_iso
from appliance.store.facts import Kind
from appliance.store.journal import Fact

#: What the list and the counts look back on; a night shift sees its own studies after midnight too.
WINDOW = timedelta(hours=12)
WITHDRAWN_HOLD = timedelta(minutes=10)
POLL_S = 2.0
QUIET_S = 0.4
#: A board older than this is not vouched for by a beat.
FRESH_S = 5.0
_SLEEP_S = 0.5
#: Names that a dialog offers.
NAMES = 6
#: How far back a start looks for a notice; a journal row costs nothing to skip.
_NOTICE_ROWS = 20_000

#: Facts that a person is told of; they are replayed to a screen that missed them.
TOLD = (
    Kind.ALERT_RAISED,
    Kind.ALERT_UPDATED,
    Kind.ALERT_PRESENTED,
    Kind.ALERT_ACKNOWLEDGED,
    Kind.ALERT_WITHDRAWN,
    Kind.QUALITY_DECIDED,
    Kind.STUDY_OUTCOME,
    Kind.BACKLOG_DONE,
    Kind.ISSUE_RAISED,
    Kind.ISSUE_CLEARED,
)
#: Facts after which the board is made anew at once.
LOUD = (*TOLD, Kind.SERIES_READY, Kind.ANALYSIS_STARTED, Kind.ANALYSIS_DONE, Kind.IDENTITY_CORRECTED, Kind.ORDER_ASKED)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A board and the journal row that it reaches to at least. ``version`` grows when there is something to paint."""

    version: int
    seq: int
    board: Board
    made_mono: float


class Feed:
    """A stage in a thread of its own; coroutines wait on it."""

    name = "screen feed"
    max_step_s = 10.0

    def __init__(self, store: Store, packages: Mapping[str, PackageText], clock: Clock) -> None:
        """Read ``store``; ``packages`` is looked at anew for every board."""
        self._store = store
        self._packages = packages
        self._clock = clock
        self._notice: Notice | None = None
        self._notice_seq = max(store.journal.last_seq() - _NOTICE_ROWS, 0)
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._commits = 0
        self.snapshot = self._look(version=1)

    # The thread ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; called in the event loop that will wait."""
        self._loop = asyncio.get_running_loop()
        arguments = (self, Beat(self, self._clock), self._stop, threading.Event())
        self._thread = threading.Thread(target=run_stage, args=arguments, name="screen-feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wake all who wait, for good, and let the thread end; called in the event loop."""
        self._stop.set()
        self._wake()

    def join(self) -> None:
        """Wait for the thread: after this nothing reads the store any more. It takes half a second at most."""
        if self._thread is not None:
            self._thread.join(self.max_step_s)

    @property
    def is_stopping(self) -> bool:
        """Whether streams should end."""
        return self._stop.is_set()

    def step(self) -> bool:
        """Wait until there is a reason, then make the board anew."""
        if self._wait_for_reason():
            old = self.snapshot
            new = self._look(version=old.version + 1)
            told = self._store.journal.after(old.seq, 1, TOLD)
            if new.board == old.board and not told:
                # Nothing to paint. The row reached moves on silently, and the beat may vouch for the board again.
                self.snapshot = Snapshot(old.version, new.seq, old.board, new.made_mono)
            else:
                self.snapshot = new
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._wake)
        return True

    def _wait_for_reason(self) -> bool:
        """Wait for at most half a second. Returns whether the board must be made."""
        age_s = self._clock.monotonic() - self.snapshot.made_mono
        if age_s >= POLL_S:
            return True
        self._commits = self._store.db.wait_commit(self._commits, min(_SLEEP_S, POLL_S - age_s))
        journal, seq = self._store.journal, self.snapshot.seq
        if journal.after(seq, 1, LOUD):
            return True
        return journal.last_seq() > seq and self._clock.monotonic() - self.snapshot.made_mono >= QUIET_S

    def _look(self, version: int) -> Snapshot:
        made_mono = self._clock.monotonic()
        seq = self._store.journal.last_seq()  # before the reading: the board may know more than it says, never less
        return Snapshot(version, seq, compose(self._facts(), self._packages), made_mono)

    def _facts(self) -> Facts:
        views, now = self._store.views, self._clock.now()
        for fact in self._store.journal.after(self._notice_seq, 100, (Kind.BACKLOG_DONE,)):
            self._notice_seq, self._notice = fact.seq, _notice(fact)
        since = now - WINDOW
        missed = views.studies(limit=6, since=since, outcomes=(Outcome.NOT_ANALYSED,), deliveries=False)
        other = (Outcome.FINDING, Outcome.NOTHING_FLAGGED)
        recent = [*missed, *views.studies(limit=8, since=since, outcomes=other, deliveries=False)]
        recent.sort(key=lambda study: study.outcome_at or study.last_at, reverse=True)
        open_alerts = tuple(views.open_alerts())
        withdrawn = tuple(a for a in views.closed_alerts(now - WITHDRAWN_HOLD) if a.withdrawn_at is not None)
        box = views.box()
        warned = tuple(views.open_warnings(since))
        wanted = {*warned, *(alert.study_id for alert in (*open_alerts, *withdrawn))}
        wanted |= {item.study_id for item in box.receiving} | {item.study_id for item in box.analysing}
        return Facts(
            now=now,
            open_alerts=open_alerts,
            withdrawn=withdrawn,
            recent=tuple(recent),
            warned=warned,
            studies=views.some(wanted),
            box=box,
            counts=views.counts(since),
            names=tuple(dict.fromkeys((*views.acknowledgers(), *views.deciders())))[:NAMES],
            notice=self._notice,
        )

    # The event loop --------------------------------------------------------------------------------------------

    @property
    def is_fresh(self) -> bool:
        """Whether the board may be vouched for."""
        return self._clock.monotonic() - self.snapshot.made_mono < FRESH_S

    async def changed(self, version: int, timeout_s: float) -> None:
        """Return when there is another board than ``version``, when stopping, or after ``timeout_s``."""
        if self.snapshot.version != version or self.is_stopping:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, timeout_s)
        except asyncio.TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)

    @property
    def waiting(self) -> int:
        """How many streams wait."""
        return len(self._waiters)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def missed(self, after: int, upto: int) -> list[Fact]:
        """The told facts after one journal row up to another, oldest first."""
        found: list[Fact] = []
        while facts := self._store.journal.after(found[-1].seq if found else after, 500, TOLD):
            found += [fact for fact in facts if fact.seq <= upto]
            if len(found) < 500 or facts[-1].seq > upto:
                break
        return found


def _notice(fact: Fact) -> Notice:
    body = fact.body
    return Notice(
        at=from_iso(fact.at), since_at=from_iso(body["since"]), studies=body["studies"], findings=body["findings"]
    )
