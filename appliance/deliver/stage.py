"""One destination's work: take what is owed, send it, judge the answer. A thread each: none waits for another."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from datetime import timedelta

from appliance.clock import Clock
from appliance.config import Destination
from appliance.deliver.channel import Channel, Sender
from appliance.deliver.dicom_scu import longest_store_s
from appliance.deliver.part10 import SpoolCorrupt, open_intact
from appliance.deliver.pause import Pause
from appliance.deliver.retry import AssociationLost, Fault, Judgement, NoAssociation, Verdict, next_try
from appliance.deliver.senders import sender_of
from appliance.records import DeliveryKind
from appliance.store.deliveries import HOLDS_ORDER_FOR, Deliveries, Delivery
from appliance.store.spool import Spool

BATCH = 100
#: A step ends after this long even if its batch does not, so that stop and watchdog see progress.
STEP_S = 5.0
#: A channel is kept so long for a scanner that sends an image every now and then.
KEEP_IDLE_S = 2.0
#: So many objects in a row without one stored: it is the destination, not the objects.
FAILURES_TO_PAUSE = 3
#: An object that failed so often by its own fault, or perhaps so while others were stored, is the poison.
POISON_AFTER = 10
#: A destination that is away longer than this becomes an issue.
ISSUE_AFTER_S = 30.0
#: And one that answers, but has taken nothing for so long.
TAKES_NOTHING_S = 300.0
#: Name resolution cannot be given a deadline; resolvers end by themselves within this.
_RESOLVER_S = 30.0


class DeliverStage:
    """Sends to one destination. ``step`` is called from one thread; ``interrupt`` may come from any."""

    def __init__(
        self,
        destination: Destination,
        deliveries: Deliveries,
        spool: Spool,
        clock: Clock,
        *,
        box_ae_title: str,
        evaluation: bool,
        rng: random.Random | None = None,
        sender: Sender | None = None,
    ) -> None:
        """Send to ``destination``.

        Args:
            destination: Where to.
            deliveries: What is owed.
            spool: Where the files lie.
            clock: Wall clock for the rows, monotonic clock for pauses.
            box_ae_title: Our own AE title.
            evaluation: ``site.mode`` is evaluation: results go to destinations of purpose test only.
            rng: Jitter of the back-off.
            sender: How it is spoken to; tests give another than its kind's.

        Raises:
            ConfigError: A certificate or secret of the destination cannot be read.
        """
        self.name = f"deliver {destination.name}"
        self._destination = destination
        self._deliveries = deliveries
        self._spool = spool
        self._clock = clock
        self._evaluation = evaluation
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._sender = sender or sender_of(destination, box_ae_title, clock, said=deliveries.said)
        self._channel: Channel | None = None
        self._used_mono = 0.0
        #: Failures in a row, and when the first of them was.
        self._failures = 0
        self._failing_since: float | None = None
        #: Whether its issue is known to be closed; an earlier run of the daemon may have left it open.
        self._is_well = False
        #: What its issue says now.
        self._told = ""
        self._pause = Pause(clock, deliveries.retry_mark, self._begin_anew)
        self._stopping = False
        self._stored = 0
        #: Delivery: how often it failed that speaks against it, and how many objects had been stored at the first.
        self._suspects: dict[int, tuple[int, int]] = {}
        #: Deliveries that failed since the last object was stored: of several, it is the destination.
        self._failing: set[int] = set()
        # Resolve, connect, shake hands, associate.
        open_s = _RESOLVER_S + 3 * destination.timeout_s
        #: Release an older channel, open one, work on a batch; HTTP opens another for the last object where the server
        #: has closed. The object adds its own allowance.
        self._fixed_s = 5.0 + open_s + STEP_S + open_s
        self.max_step_s = self._fixed_s + longest_store_s(destination.timeout_s, 0)

    def step(self) -> bool:
        """Send one batch, or as much of it as fits into ``STEP_S``."""
        if self._pause.is_on():
            return False
        owed = self._deliveries.next_owed(self._destination.name, self._clock.now(), BATCH)
        if not owed:
            self._release_when_idle()
            return False
        batch = self._sender.batch(owed)
        try:
            channel = self._opened(batch)
        except NoAssociation as error:
            self._away(batch[0], str(error))
            return False
        until = self._clock.monotonic() + STEP_S
        waiting: set[int] = set()
        for delivery in batch:
            if delivery.study_id in waiting or not self._deliveries.is_still_owed(delivery):
                continue
            verdict = self._deliver(channel, delivery)
            if verdict is Verdict.RETRY and delivery.attempt + 1 < HOLDS_ORDER_FOR:
                waiting.add(delivery.study_id)
            if self._channel is None or self._pause.is_on() or self._clock.monotonic() > until:
                break
        return not self._pause.is_on()

    def close(self) -> None:
        """Release the channel; after the thread has ended."""
        if self._channel is not None:
            self._channel.release()
            self._channel = None

    def interrupt(self) -> None:
        """End a wait for the destination, so that the daemon can stop now. What was being sent stays owed."""
        self._stopping = True
        channel = self._channel
        if channel is not None:
            channel.interrupt()

    def _deliver(self, channel: Channel, delivery: Delivery) -> Verdict:
        is_result = delivery.kind is not DeliveryKind.ORIGINAL
        if is_result and self._evaluation and self._destination.purpose != "test":
            words = "in evaluation mode results go only to destinations of purpose test; change site.mode or purpose"
            self._deliveries.parked(delivery.id, None, words)
            return Verdict.PARK
        try:
            is_dicom = delivery.kind is not DeliveryKind.STATEMENT
            stream, size = open_intact(self._spool, delivery.path, delivery.sha256, is_dicom=is_dicom)
        except SpoolCorrupt as error:
            self._deliveries.parked(delivery.id, None, f"{error}; it was not sent", corrupt=True)
            return Verdict.PARK
        self.max_step_s = self._fixed_s + longest_store_s(self._destination.timeout_s, size)
        with contextlib.closing(stream):
            try:
                judgement = channel.send(delivery, stream, size)
            except NoAssociation as error:
                self.close()
                if not self._stopping:
                    self._away(delivery, str(error))
                return Verdict.RETRY
            except AssociationLost as error:
                self._channel = None
                if self._stopping:
                    return Verdict.RETRY
                judgement = Judgement(verdict=Verdict.RETRY, words=str(error), fault=Fault.EITHER)
        self._used_mono = self._clock.monotonic()
        if judgement.verdict is Verdict.RETRY:
            self._failing.add(delivery.id)
            if judgement.fault is not Fault.DESTINATION:
                judgement = self._suspected(delivery.id, judgement)
        self._record(delivery, judgement)
        return judgement.verdict

    def _suspected(self, delivery_id: int, judgement: Judgement) -> Judgement:
        """Parked once it is the poison; what fails while the destination stores nothing does not speak against it."""
        failures, stored_before = self._suspects.get(delivery_id, (0, self._stored))
        others = self._stored > stored_before
        if not failures or judgement.fault is Fault.OBJECT or (others and self._failing == {delivery_id}):
            failures += 1
        self._suspects[delivery_id] = (failures, stored_before)
        if failures < POISON_AFTER:
            return judgement
        ended = f"so ended {failures} tries with this object{', while others were stored' if others else ''}"
        words = f"{judgement.words}; {ended}; look at what it says of it, then retry"
        return replace(judgement, verdict=Verdict.PARK, words=words)

    def _record(self, delivery: Delivery, judgement: Judgement) -> None:
        if judgement.verdict is Verdict.RETRY:
            self._failed(delivery, judgement)
            return
        self._suspects.pop(delivery.id, None)
        if judgement.verdict is Verdict.STORED:
            self._stored += 1
            self._failing.clear()
            self._failures = 0
            self._deliveries.sent(delivery.id, judgement.status or 0)
        else:
            self._deliveries.parked(delivery.id, judgement.status, judgement.words)
        self._failing_since = None
        if not self._is_well:
            self._is_well = True
            self._told = ""
            self._deliveries.reached(self._destination.name)

    def _failed(self, delivery: Delivery, judgement: Judgement) -> None:
        failing_s = self._count_failure()
        wait = timedelta(seconds=next_try(delivery.attempt + 1, self._rng))
        self._deliveries.failed(delivery.id, judgement.words, self._clock.now() + wait, judgement.status)
        if failing_s >= TAKES_NOTHING_S:
            self._tell_unreachable(delivery, judgement.words, is_issue=True)
        if self._failures >= FAILURES_TO_PAUSE:
            self._pause.begin(next_try(self._failures - FAILURES_TO_PAUSE + 1, self._rng))

    def _opened(self, batch: list[Delivery]) -> Channel:
        channel = self._channel
        if channel is not None:
            if channel.takes(batch):
                return channel
            self._channel = None
            channel.release()
        self._channel = self._sender.open(batch)
        self._used_mono = self._clock.monotonic()
        return self._channel

    def _away(self, delivery: Delivery, words: str) -> None:
        failing_s = self._count_failure()
        self._tell_unreachable(delivery, words, is_issue=failing_s >= ISSUE_AFTER_S)
        self._pause.begin(next_try(self._failures, self._rng))

    def _tell_unreachable(self, delivery: Delivery, words: str, *, is_issue: bool) -> None:
        """For days the same is found: it is written once."""
        is_news = is_issue and words != self._told
        self._deliveries.unreachable(delivery.id, words, raise_issue_too=is_news)
        if is_news:
            self._told = words

    def _count_failure(self) -> float:
        """One more without a success; for how many seconds it has been so."""
        now = self._clock.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        self._is_well = False
        self._failures += 1
        return now - self._failing_since

    def _begin_anew(self) -> None:
        self._failures = 0

    def _release_when_idle(self) -> None:
        if self._channel is not None and self._clock.monotonic() - self._used_mono >= KEEP_IDLE_S:
            self.close()
