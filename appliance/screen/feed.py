"""The journal's reader for the screens: keeps the present board and wakes those who show it.

It asks the store again after every loud fact at once, after quiet ones (images arriving) a few times a second, and
every two seconds anyway. If that fails, the board grows stale, no beat is sent, and the screens say so themselves.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.clock import Clock
from appliance.config import Config
from appliance.records import AlertStep, DeliveryKind, Outcome
from appliance.screen.board import DRAWN, compose, way_of_images
from appliance.screen.model import ALL, Board, Facts, ImagePath, Notice, Scope
from appliance.screen.packages import PackageText
from appliance.stage import Beat, run_stage
from appliance.store import Store
from appliance.store.alert_tests import AlertTest
from appliance.store.database import from_iso
from appliance.store.escalations import flagged_before
from appliance.store.facts import Kind
from appliance.store.journal import Fact
from appliance.store.readmodels import AlertView, BoxState

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
#: Overdue alerts that every screen names; the rest wait behind them.
_OVERDUE = 6
#: A scope that nobody shows is forgotten after this.
KEEP_S = 30.0
#: How far back a start looks for a notice; a journal row costs nothing to skip.
_NOTICE_ROWS = 20_000

#: Facts that a person is told of; they are replayed to a screen that missed them.
TOLD = (
    Kind.ALERT_RAISED,
    Kind.ALERT_UPDATED,
    Kind.ALERT_PRESENTED,
    Kind.ALERT_ACKNOWLEDGED,
    Kind.ALERT_WITHDRAWN,
    Kind.ALERT_COMMUNICATED,
    Kind.ALERT_DECIDED,
    Kind.ALERT_ESCALATED,
    Kind.TEST_ALERT_RAISED,
    Kind.TEST_ALERT_PRESENTED,
    Kind.TEST_ALERT_ACKNOWLEDGED,
    Kind.TEST_ALERT_ENDED,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What every board of one moment is made of, read once."""

    now: datetime
    seq: int
    made_mono: float
    open_alerts: tuple[AlertView, ...]
    withdrawn: tuple[AlertView, ...]
    steps: Mapping[int, Mapping[AlertStep, datetime]]
    overdue: tuple[AlertView, ...]
    overdue_more: int
    #: Source by study, of all that alerts refer to.
    sources: Mapping[int, str]
    #: Studies whose alerts went to further targets.
    escalated: frozenset[int]
    tests: tuple[AlertTest, ...]
    warned: tuple[int, ...]
    names: tuple[str, ...]

    def is_in(self, scope: Scope, study_id: int) -> bool:
        """Whether a reader sees the alert of a study."""
        own = not scope.sources or self.sources.get(study_id) in scope.sources
        return own or (scope.escalated and study_id in self.escalated)


class Feed:
    """A stage in a thread of its own; coroutines wait on it. One board for each scope that somebody shows."""

    name = "screen feed"
    max_step_s = 10.0

    def __init__(
        self, store: Store, packages: Mapping[str, PackageText], clock: Clock, config: Config | None = None
    ) -> None:
        """Read ``store``; ``packages`` is looked at anew for every board."""
        self._store = store
        self._packages = packages
        self._clock = clock
        self._config = config or Config()
        self._notice: Notice | None = None
        self._notice_seq = max(store.journal.last_seq() - _NOTICE_ROWS, 0)
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._commits = 0
        self._versions = itertools.count(1)
        #: Boards are made by the thread, and by whoever asks for a scope that nobody has shown yet.
        self._making = threading.Lock()
        self._used_mono: dict[Scope, float] = {}
        #: Studies whose alerts went to further targets, as last read.
        self._escalated: frozenset[int] = frozenset()
        #: How many alerts are overdue, by source, as last read.
        self._overdue: Mapping[str, int] = {}
        self._snapshots = {ALL: self._look(next(self._versions))}

    @property
    def snapshot(self) -> Snapshot:
        """The board of everything."""
        return self._snapshots[ALL]

    def overdue(self, scope: Scope) -> int:
        """How many alerts of a reader's own sources nobody has acknowledged in time, as of the last look."""
        return sum(n for source, n in self._overdue.items() if not scope.sources or source in scope.sources)

    def shown(self, scope: Scope) -> Snapshot | None:
        """The board of a scope that is being shown; asking keeps it."""
        found = self._snapshots.get(scope)
        if found is not None:
            self._used_mono[scope] = self._clock.monotonic()
        return found

    def of(self, scope: Scope) -> Snapshot:
        """The board of a scope; made here where nobody has shown it for a while, so call it in the pool."""
        self._used_mono[scope] = self._clock.monotonic()
        found = self._snapshots.get(scope)
        if found is None:
            with self._making:
                found = self._snapshots.get(scope)
                if found is None:
                    found = self._snapshots[scope] = self._look(next(self._versions), scope)
        return found

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
        """Wait until there is a reason, then make the boards anew."""
        if self._wait_for_reason():
            with self._making:
                is_news = self._renew()
            if is_news and self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake)
        return True

    def _renew(self) -> bool:
        """Make every board anew. Returns whether any of them is to be painted."""
        old_seq = self.snapshot.seq
        shared = self._shared()
        told = self.missed(old_seq, shared.seq)
        is_news = False
        for scope, old in list(self._snapshots.items()):
            if scope != ALL and shared.made_mono - self._used_mono.get(scope, 0.0) > KEEP_S:
                del self._snapshots[scope]
                self._used_mono.pop(scope, None)
                continue
            board = self._board(shared, scope)
            if board == old.board and not self._seen(told, scope):
                # Nothing to paint. The row reached moves on silently, and the beat may vouch for the board again.
                self._snapshots[scope] = Snapshot(old.version, shared.seq, old.board, shared.made_mono)
            else:
                self._snapshots[scope] = Snapshot(next(self._versions), shared.seq, board, shared.made_mono)
                is_news = True
        return is_news

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

    def _look(self, version: int, scope: Scope = ALL) -> Snapshot:
        shared = self._shared()
        return Snapshot(version, shared.seq, self._board(shared, scope), shared.made_mono)

    def _shared(self) -> _Shared:
        store, views, now = self._store, self._store.views, self._clock.now()
        made_mono = self._clock.monotonic()
        seq = store.journal.last_seq()  # before the reading: the board may know more than it says, never less
        for fact in store.journal.after(self._notice_seq, 100, (Kind.BACKLOG_DONE,)):
            self._notice_seq, self._notice = fact.seq, _notice(fact)
        since = now - WINDOW
        open_alerts = tuple(views.open_alerts())
        closed = views.closed_alerts(now - WITHDRAWN_HOLD)
        withdrawn = tuple(alert for alert in closed if alert.withdrawn_at is not None)
        steps = store.escalations.steps(alert.id for alert in open_alerts)
        overdue = tuple(alert for alert in open_alerts if AlertStep.OVERDUE in steps.get(alert.id, {}))
        going_out = {alert.study_id for alert in open_alerts if AlertStep.TELL in steps.get(alert.id, {})}
        warned = tuple(views.open_warnings(since))
        self._escalated = frozenset(going_out | store.escalations.told_since(since))
        sources = views.sources_of({*warned, *(alert.study_id for alert in (*open_alerts, *withdrawn))})
        self._overdue = Counter(sources.get(alert.study_id, "") for alert in overdue)
        return _Shared(
            now=now,
            seq=seq,
            made_mono=made_mono,
            open_alerts=open_alerts,
            withdrawn=withdrawn,
            steps=steps,
            # The longest first.
            overdue=tuple(sorted(overdue, key=lambda alert: alert.id))[:_OVERDUE],
            overdue_more=max(len(overdue) - _OVERDUE, 0),
            sources=sources,
            escalated=self._escalated,
            tests=tuple(store.alert_tests.open()),
            warned=warned,
            names=tuple(dict.fromkeys((*views.acknowledgers(), *store.communications.tellers(), *views.deciders())))[
                :NAMES
            ],
        )

    def _board(self, shared: _Shared, scope: Scope) -> Board:
        return compose(self._facts(shared, scope), self._packages, lambda package: self.withholds(scope, package))

    def withholds(self, scope: Scope, package: str) -> bool:
        """Whether a reader is told of a package's findings only that a radiologist must look."""
        return not scope.told and self._config.technologist_detail(package) == "priority_only"

    def _facts(self, shared: _Shared, scope: Scope) -> Facts:
        views, since = self._store.views, shared.now - WINDOW
        missed = views.studies(
            limit=6, since=since, outcomes=(Outcome.NOT_ANALYSED,), sources=scope.sources, deliveries=False
        )
        other = (Outcome.FINDING, Outcome.NOTHING_FLAGGED)
        recent = [
            *missed,
            *views.studies(limit=8, since=since, outcomes=other, sources=scope.sources, deliveries=False),
        ]
        if scope.escalated:
            known = {study.id for study in recent}
            recent += [study for study in views.some(shared.escalated - known).values() if study.outcome in other]
        recent.sort(key=lambda study: study.outcome_at or study.last_at, reverse=True)
        open_alerts = tuple(alert for alert in shared.open_alerts if shared.is_in(scope, alert.study_id))
        withdrawn = tuple(alert for alert in shared.withdrawn if shared.is_in(scope, alert.study_id))
        warned = tuple(i for i in shared.warned if not scope.sources or shared.sources.get(i) in scope.sources)
        box = views.box(scope.sources)
        drawn = open_alerts[:DRAWN]
        wanted = {*warned, *(alert.study_id for alert in (*drawn, *withdrawn, *shared.overdue))}
        wanted |= {item.study_id for item in box.receiving} | {item.study_id for item in box.analysing}
        shown = [*drawn, *(study.alert for study in recent if study.alert is not None)]
        studies = views.some(wanted)
        image_path, pacs_down_since = self._way_of_images(box, scope)
        return Facts(
            now=shared.now,
            open_alerts=open_alerts,
            withdrawn=withdrawn,
            recent=tuple(recent),
            warned=warned,
            studies=studies,
            box=box,
            counts=views.counts(since, scope.sources),
            names=shared.names,
            notice=self._notice,
            overdue=shared.overdue,
            overdue_more=shared.overdue_more,
            steps=shared.steps,
            flagged_before=flagged_before(self._store.db, {alert.id for alert in shown}),
            not_in_pacs=frozenset(views.originals_owed({*studies, *(study.id for study in recent)})),
            told=self._store.communications.of_alerts({alert.id for alert in shown}),
            tests=tuple(one for one in shared.tests if not scope.sources or one.source in {"", *scope.sources}),
            image_path=image_path,
            pacs_down_since=pacs_down_since,
        )

    def _way_of_images(self, box: BoxState, scope: Scope) -> tuple[ImagePath, datetime | None]:
        """Of the sources in scope."""
        shown = [one for one in self._config.sources if not scope.sources or one.name in scope.sources]
        takers = {one.name for one in self._config.destinations if DeliveryKind.ORIGINAL in one.send}
        return way_of_images((one.mode for one in shown), takers, box.issues)

    def _seen(self, facts: list[Fact], scope: Scope) -> list[Fact]:
        """Of some facts those that a reader may be told of."""
        if not scope.sources or not facts:
            return facts
        sources = self._store.views.sources_of(fact.study_id for fact in facts if fact.study_id is not None)
        seen = {study for study, source in sources.items() if source in scope.sources}
        seen |= self._escalated if scope.escalated else set()
        return [fact for fact in facts if fact.study_id is None or fact.study_id in seen]

    def sees(self, scope: Scope, study_id: int) -> bool:
        """Whether a reader may see a study, and act on its alert."""
        source = self._store.views.sources_of([study_id]).get(study_id)
        if source is None:
            return False
        if not scope.sources or source in scope.sources:
            return True
        return scope.escalated and study_id in self._escalated

    # The event loop --------------------------------------------------------------------------------------------

    @property
    def is_fresh(self) -> bool:
        """Whether the board may be vouched for."""
        return self._clock.monotonic() - self.snapshot.made_mono < FRESH_S

    async def changed(self, version: int, timeout_s: float, scope: Scope = ALL) -> None:
        """Return when there may be another board than ``version``, when stopping, or after ``timeout_s``."""
        snapshot = self._snapshots.get(scope)
        if snapshot is None or snapshot.version != version or self.is_stopping:
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

    def missed(self, after: int, upto: int, kinds: tuple[Kind, ...] = TOLD, scope: Scope = ALL) -> list[Fact]:
        """The facts of some kinds after one journal row up to another, oldest first, that a reader may be told of."""
        found: list[Fact] = []
        while facts := self._store.journal.after(found[-1].seq if found else after, 500, kinds):
            found += [fact for fact in facts if fact.seq <= upto]
            if len(found) < 500 or facts[-1].seq > upto:
                break
        return self._seen(found, scope)


def _notice(fact: Fact) -> Notice:
    body = fact.body
    return Notice(
        at=from_iso(fact.at), since_at=from_iso(body["since"]), studies=body["studies"], findings=body["findings"]
    )
