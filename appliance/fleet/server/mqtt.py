"""An ingest worker: messages from the broker, in groups, into the database; acknowledgements after the commit.

Any number of processes share the work (``$share/ingest``); each sees every status, which is retained and so comes by a
plain subscription. A database that is slow or gone makes everybody wait: nothing is acknowledged, the broker is not
answered, boxes are asked to hold back, and nothing grows.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from appliance.clock import Clock
from appliance.errors import ApplianceError
from appliance.fleet.server import db
from appliance.fleet.server.acks import AckDesk, Downlink
from appliance.fleet.server.broker_line import BrokerAt, BrokerLine, Taken
from appliance.fleet.server.ingest import Asked, Ingest, Outcome
from appliance.fleet.server.metrics import IngestMetrics
from appliance.fleet.wire import ROOT, Up
from appliance.stage import Beat, run_stage
from engines.signing import PrivateKey

log = logging.getLogger(__name__)

TOPICS = (f"{ROOT}/+/+/{Up.STATUS}", *(f"$share/ingest/{ROOT}/+/+/{name}" for name in Up if name is not Up.STATUS))
_MOST_IN_GROUP = 500
#: How long a group waits for the next message, and for all of them.
_GATHER_S, _LONGEST_GATHER_S = 0.005, 0.05
_TRY_AGAIN_S = 1.0
#: Beyond the longest step: then it is stuck.
_SLACK_S = 60.0
#: So many full groups in a row are a flood; from then on boxes are asked to be silent, longer and longer.
_FLOOD = 4
_HOLD_MS, _MOST_HOLD_MS = 1000, 60_000


class IngestWorker:
    """One process's part of the ingest: a line to the broker, and a stage with a thread of its own that writes."""

    name = "fleet-ingest"
    max_step_s = 120.0

    def __init__(
        self,
        engine: Engine,
        broker: BrokerAt,
        keys: Sequence[PrivateKey],
        clock: Clock,
        *,
        metrics: IngestMetrics,
        answer: Callable[[Sequence[Asked]], Sequence[Downlink]] | None = None,
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            engine: A migrated database.
            broker: Where to listen.
            keys: The server's online keys, for acknowledgements.
            clock: The server's.
            metrics: Counts.
            answer: Called after the commit with what boxes asked on connecting; returns what they are sent.
        """
        self._engine = engine
        self._clock = clock
        self._metrics = metrics
        self._answer = answer
        self._ingest = Ingest()
        self._desk = AckDesk(keys)
        self._arrived: SimpleQueue[Taken | None] = SimpleQueue()
        self._full_groups = 0
        self._stop = threading.Event()
        self.line = BrokerLine(broker, TOPICS, self._arrived, random.Random())  # noqa: S311 - spreads reconnects
        self._beat = Beat(self, clock)
        self._thread = threading.Thread(target=self._run, name="fleet-ingest", daemon=True)

    def start(self) -> None:
        """Begin; returns at once. ``line.stands`` says when boxes are heard."""
        self._beat.mark()
        self._thread.start()
        self.line.start()

    @property
    def is_alive(self) -> bool:
        """Whether it works on: its thread is there, and no step takes longer than any may."""
        return self._thread.is_alive() and not self._beat.is_late(_SLACK_S)

    def stop(self, wait_s: float = 60.0) -> None:
        """End after the group that is being written. What had come and was not is sent again by its box."""
        self._stop.set()
        self._arrived.put(None)
        self._thread.join(wait_s)
        self.line.stop()

    def publish(self, messages: Sequence[Downlink]) -> int:
        """Send signed messages to boxes; returns how many the line took."""
        return self.line.publish(messages)

    def step(self) -> bool:
        """Gather a group, commit it, tell of it. Always True: waiting is part of it."""
        group = self._gather()
        try:
            if group and (outcome := self._commit(group)) is not None:
                self.line.answer(group)
                self._desk.add(outcome)
                self._full_groups = self._full_groups + 1 if len(group) >= _MOST_IN_GROUP else 0
                self._reply(outcome)
            self._send_acks()
        except BaseException:
            # What is unanswered would use up what may be on the way; a new line begins with nothing on it.
            self.line.renew()
            raise
        return True

    def _run(self) -> None:
        run_stage(self, self._beat, self._stop, self._stop)

    def _gather(self) -> list[Taken]:
        """The next group: what is there, as one transaction costs about the same for one message and for many."""
        group: list[Taken] = []
        now = self._clock.monotonic()
        wait_s = self._desk.wait_s(now)
        with contextlib.suppress(Empty):
            one = self._arrived.get(timeout=1.0 if wait_s is None else min(1.0, wait_s))
            until = self._clock.monotonic() + _LONGEST_GATHER_S
            while one is not None:
                group.append(one)
                left_s = until - self._clock.monotonic()
                if len(group) >= _MOST_IN_GROUP or left_s <= 0:
                    break
                one = self._arrived.get(timeout=min(_GATHER_S, left_s))
        self._metrics.waiting.set(self._arrived.qsize())
        return group

    def _commit(self, group: Sequence[Taken], *, refuse: bool = False) -> Outcome | None:
        """Write a group, or count its one message as refused; None where the worker ends before that."""
        while not self._stop.is_set():
            try:
                with self._metrics.commit_seconds.time(), db.write(self._engine) as connection:
                    now = self._clock.now()
                    if refuse:
                        outcome = self._ingest.refuse(connection, group[0].uplink, now)
                    else:
                        outcome = self._ingest.apply(connection, [one.uplink for one in group], now)
            except Exception as error:
                if _is_passing(error):
                    log.warning("fleet: the database does not answer; nothing is acknowledged until it does")
                    self._metrics.database_failures.inc()
                    self._beat.mark()  # it waits, and knows for what
                    self._stop.wait(_TRY_AGAIN_S)
                elif refuse:
                    raise
                else:  # foreign bytes came as far as here; they must not stop the others
                    log.exception("fleet: a group of %d messages is not taken; each is tried alone", len(group))
                    return self._one_by_one(group)
            else:
                self._metrics.count(outcome)
                return outcome
        return None

    def _one_by_one(self, group: Sequence[Taken]) -> Outcome | None:
        if len(group) == 1:
            return self._commit(group, refuse=True)
        whole = Outcome()
        for one in group:
            part = self._commit([one])
            if part is None:
                return None
            whole.add(part)
        return whole

    def _reply(self, outcome: Outcome) -> None:
        if self._answer is None or not outcome.asked:
            return
        try:
            self.line.publish(self._answer(outcome.asked))
        except (ApplianceError, SQLAlchemyError) as error:
            # The box asks again when it connects again, and what was made for it stands in the database.
            log.warning("fleet: no answer for %d boxes: %s", len(outcome.asked), type(error).__name__)

    def _send_acks(self) -> None:
        flood = self._full_groups - _FLOOD
        hold_ms = min(_MOST_HOLD_MS, _HOLD_MS * 2 ** min(flood, 10)) if flood >= 0 else 0
        due = self._desk.due(self._clock.monotonic(), self._clock.now(), hold_ms=hold_ms)
        self._metrics.acks.inc(self.line.publish(due))


def _is_passing(error: Exception) -> bool:
    """Whether the same write may succeed later: the database is away, locked, full, or two writers were crosswise."""
    if isinstance(error, DBAPIError):
        return isinstance(error, OperationalError) or error.connection_invalidated
    return isinstance(error, PoolTimeout)
