"""One destination's work: take what is owed, send it, judge the answer. A thread each: none waits for another."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from datetime import timedelta

from appliance.clock import Clock
from appliance.config import DicomDestination
from appliance.deliver.dicom_scu import Association, Peer, longest_store_s
from appliance.deliver.part10 import SpoolCorrupt, open_intact
from appliance.deliver.retry import AssociationLost, ContextRefused, Judgement, NoAssociation, Verdict, judge, next_try
from appliance.deliver.wire import Context
from appliance.dicom.pdus import MAX_CONTEXTS
from appliance.records import DeliveryKind
from appliance.store.deliveries import HOLDS_ORDER_FOR, Deliveries, Delivery
from appliance.store.spool import Spool

BATCH = 100
#: A step ends after this long even if its batch does not, so that stop and watchdog see progress.
STEP_S = 5.0
#: An association is kept so long for a scanner that sends an image every now and then.
KEEP_IDLE_S = 2.0
#: So many objects in a row without one stored: it is the destination, not the objects.
FAILURES_TO_PAUSE = 3
#: An object that ended so many associations, while others were stored, is the poison; alone it is retried for ever.
POISON_AFTER = 10
#: A destination that is away longer than this becomes an issue.
ISSUE_AFTER_S = 30.0
#: Name resolution cannot be given a deadline; resolvers end by themselves within this.
_RESOLVER_S = 30.0


def peer_of(destination: DicomDestination, box_ae_title: str, delivery: Delivery | None = None) -> Peer:
    """Whom to call as whom: an original under its scanner's AE title, a result under the box's, unless configured."""
    calling = destination.calling_ae_title or box_ae_title
    if delivery is not None and delivery.kind is DeliveryKind.ORIGINAL and destination.calling_ae_title is None:
        calling = delivery.calling_ae or box_ae_title
    return Peer(
        host=destination.host,
        port=destination.port,
        called_ae=destination.ae_title,
        calling_ae=calling,
        timeout_s=destination.timeout_s,
    )


class DeliverStage:
    """Sends to one DICOM destination. ``step`` is called from one thread; ``interrupt`` may come from any."""

    def __init__(
        self,
        destination: DicomDestination,
        deliveries: Deliveries,
        spool: Spool,
        clock: Clock,
        *,
        box_ae_title: str,
        evaluation: bool,
        rng: random.Random | None = None,
        associate: Callable[[Peer, Sequence[Context]], Association] = Association,
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
            associate: How an association is made; tests give another.
        """
        self.name = f"deliver {destination.name}"
        self._destination = destination
        self._deliveries = deliveries
        self._spool = spool
        self._clock = clock
        self._box_ae_title = box_ae_title
        self._evaluation = evaluation
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._associate = associate
        self._association: Association | None = None
        self._used_mono = 0.0
        self._failures = 0
        self._away_since: float | None = None
        self._paused_until = 0.0
        self._retry_mark = ""
        self._stopping = False
        self._stored = 0
        #: Delivery: associations that it ended, and how many objects had been stored when it first did.
        self._losses: dict[int, tuple[int, int]] = {}
        #: Connect, associate, release an older association, work on a batch; each object adds its own allowance.
        self._fixed_s = _RESOLVER_S + 2 * destination.timeout_s + 5.0 + STEP_S
        self.max_step_s = self._fixed_s + longest_store_s(destination.timeout_s, 0)

    def step(self) -> bool:
        """Send one batch, or as much of it as fits into ``STEP_S``."""
        if self._is_paused():
            return False
        owed = self._deliveries.next_owed(self._destination.name, self._clock.now(), BATCH)
        if not owed:
            self._release_when_idle()
            return False
        batch = _one_association(owed, lambda item: peer_of(self._destination, self._box_ae_title, item))
        try:
            association = self._associated(batch)
        except NoAssociation as error:
            self._away(batch[0], str(error))
            return False
        until = self._clock.monotonic() + STEP_S
        waiting: set[int] = set()
        for delivery in batch:
            if delivery.study_id in waiting:
                continue
            verdict = self._deliver(association, delivery)
            if verdict is Verdict.RETRY and delivery.attempt + 1 < HOLDS_ORDER_FOR:
                waiting.add(delivery.study_id)
            if self._association is None or self._is_paused() or self._clock.monotonic() > until:
                break
        return not self._is_paused()

    def close(self) -> None:
        """Release the association; after the thread has ended."""
        if self._association is not None:
            self._association.release()
            self._association = None

    def interrupt(self) -> None:
        """End a wait for the destination, so that the daemon can stop now. What was being sent stays owed."""
        self._stopping = True
        association = self._association
        if association is not None:
            association.interrupt()

    def _deliver(self, association: Association, delivery: Delivery) -> Verdict:
        is_result = delivery.kind is not DeliveryKind.ORIGINAL
        if is_result and self._evaluation and self._destination.purpose != "test":
            words = "in evaluation mode results go only to destinations of purpose test; change site.mode or purpose"
            self._deliveries.parked(delivery.id, None, words)
            return Verdict.PARK
        try:
            stream, size = open_intact(self._spool, delivery.path, delivery.sha256)
        except SpoolCorrupt as error:
            self._deliveries.parked(delivery.id, None, f"{error}; it was not sent", corrupt=True)
            return Verdict.PARK
        self.max_step_s = self._fixed_s + longest_store_s(self._destination.timeout_s, size)
        status = None
        answer: int | ContextRefused | AssociationLost
        with contextlib.closing(stream):
            try:
                context = (delivery.sop_class_uid, delivery.transfer_syntax_uid)
                answer = status = association.store(context, delivery.sop_instance_uid, stream, size)
            except ContextRefused as error:
                answer = error
            except AssociationLost as error:
                answer = error
                self._association = None
                if self._stopping:
                    return Verdict.RETRY
        self._used_mono = self._clock.monotonic()
        judgement = judge(answer, version_n=delivery.version_n)
        if isinstance(answer, AssociationLost) and self._is_poison(delivery.id):
            words = f"{answer}; so ended {POISON_AFTER} associations with this object, while others were stored"
            judgement = Judgement(verdict=Verdict.PARK, words=words)
        self._record(delivery, judgement, status)
        return judgement.verdict

    def _is_poison(self, delivery_id: int) -> bool:
        losses, stored_before = self._losses.get(delivery_id, (0, self._stored))
        self._losses[delivery_id] = (losses + 1, stored_before)
        return losses + 1 >= POISON_AFTER and self._stored > stored_before

    def _record(self, delivery: Delivery, judgement: Judgement, status: int | None) -> None:
        if judgement.verdict is not Verdict.RETRY:
            self._losses.pop(delivery.id, None)
        if judgement.verdict is Verdict.STORED:
            self._stored += 1
            self._failures = 0
            self._deliveries.sent(delivery.id, status or 0)
        elif judgement.verdict is Verdict.PARK:
            self._deliveries.parked(delivery.id, status, judgement.words)
        else:
            self._failures += 1
            wait = timedelta(seconds=next_try(delivery.attempt + 1, self._rng))
            self._deliveries.failed(delivery.id, judgement.words, self._clock.now() + wait, status)
            if self._failures >= FAILURES_TO_PAUSE:
                self._pause(next_try(self._failures - FAILURES_TO_PAUSE + 1, self._rng))

    def _associated(self, batch: list[Delivery]) -> Association:
        contexts = list(dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in batch))
        peer = peer_of(self._destination, self._box_ae_title, batch[0])
        association = self._association
        if association is not None:
            if association.peer == peer and association.covers(contexts) and association.is_alive():
                return association
            self._association = None
            association.release()
        self._association = self._associate(peer, contexts)
        self._used_mono = self._clock.monotonic()
        if self._away_since is not None:
            self._failures = 0
            self._away_since = None
        self._deliveries.reached(self._destination.name)
        return self._association

    def _away(self, delivery: Delivery, words: str) -> None:
        now = self._clock.monotonic()
        if self._away_since is None:
            self._away_since = now
            self._failures = 0
        self._failures += 1
        is_long = now - self._away_since >= ISSUE_AFTER_S
        self._deliveries.unreachable(delivery.id, words, raise_issue_too=is_long)
        self._pause(next_try(self._failures, self._rng))

    def _pause(self, seconds: float) -> None:
        self._paused_until = self._clock.monotonic() + seconds
        self._retry_mark = self._deliveries.retry_mark()

    def _is_paused(self) -> bool:
        if self._clock.monotonic() >= self._paused_until:
            return False
        if self._deliveries.retry_mark() != self._retry_mark:
            self._paused_until = 0.0
            self._failures = 0
            return False
        return True

    def _release_when_idle(self) -> None:
        if self._association is not None and self._clock.monotonic() - self._used_mono >= KEEP_IDLE_S:
            self.close()


def _one_association(owed: list[Delivery], peer_for: Callable[[Delivery], Peer]) -> list[Delivery]:
    """What can go over one association: one calling AE title, few enough contexts, the order in each study kept."""
    peer = peer_for(owed[0])
    contexts: set[Context] = set()
    left_out: set[int] = set()
    batch = []
    for delivery in owed:
        context = (delivery.sop_class_uid, delivery.transfer_syntax_uid)
        fits = context in contexts or len(contexts) < MAX_CONTEXTS
        if delivery.study_id in left_out or not fits or peer_for(delivery) != peer:
            left_out.add(delivery.study_id)
            continue
        contexts.add(context)
        batch.append(delivery)
    return batch
