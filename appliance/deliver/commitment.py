"""One destination's custody: ask it to commit to what it has stored (storage commitment, PS3.4 Annex J).

It is asked under the title of the box, or the destination's own ``calling_ae_title``: the PACS calls that title back.
Its report comes to the box's listener (``intake.commitment``), or soon after the request on the same association.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence

from appliance.clock import Clock
from appliance.config import DicomDestination
from appliance.deliver.dicom import peer_of
from appliance.deliver.dicom_scu import Association, Peer
from appliance.deliver.pause import Pause
from appliance.deliver.retry import AssociationLost, ContextRefused, NoAssociation, next_try
from appliance.deliver.wire import Context
from appliance.dicom import commands
from appliance.dicom.classes import STORAGE_COMMITMENT_INSTANCE
from appliance.dicom.commands import Request
from appliance.dicom.commitment import CONTEXTS, REQUEST_COMMITMENT, encode_request, read_report
from appliance.dicom.message import read_data_set
from appliance.store.commitments import Commitments, Uncommitted
from appliance.store.deliveries import Deliveries

#: Objects of one transaction. Some PACS take no more than a few hundred.
MOST = 300
#: Objects of a study come one after another: they are asked for together once so long nothing more was sent ...
QUIET_S = 2.0
#: ... or when the oldest has waited so long.
LONGEST_S = 20.0
#: A PACS that reports on the same association may do so within this; the others call us back, and end the wait ...
SAME_ASSOCIATION_S = 30.0
#: ... and within this while more is to be asked.
BUSY_ASSOCIATION_S = 5.0
_LOOK_S = 1.0
#: A destination that takes no request for so long becomes an issue.
ISSUE_AFTER_S = 600.0
#: Name resolution cannot be given a deadline; resolvers end by themselves within this.
_RESOLVER_S = 30.0


class CommitmentStage:
    """Asks one destination. ``step`` is called from one thread; ``interrupt`` may come from any."""

    def __init__(
        self,
        destination: DicomDestination,
        commitments: Commitments,
        deliveries: Deliveries,
        clock: Clock,
        *,
        box_ae_title: str,
        rng: random.Random | None = None,
        associate: Callable[[Peer, Sequence[Context]], Association] = Association,
        wake_reports: Callable[[], None] = lambda: None,
    ) -> None:
        """Ask ``destination``.

        Args:
            destination: Whom.
            commitments: What it was asked, and what it answered.
            deliveries: Told by a person to try again, the pause is over.
            clock: Wall clock for the rows, monotonic clock for pauses.
            box_ae_title: Our own AE title.
            rng: Jitter of the back-off.
            associate: How an association is made; tests give another.
            wake_reports: Called when something was committed.
        """
        self.name = f"commitment {destination.name}"
        self._destination = destination
        self._commitments = commitments
        self._clock = clock
        self._peer = peer_of(destination, box_ae_title)
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._associate = associate
        self._wake_reports = wake_reports
        self._association: Association | None = None
        self._stopping = False
        self._recovered = False
        self._failures = 0
        self._refused_since: float | None = None
        self._pause = Pause(clock, deliveries.retry_mark)
        # Connect, shake hands, associate, ask in two parts, its answer, a report at the end of the wait; the release.
        self.max_step_s = _RESOLVER_S + 7 * destination.timeout_s + SAME_ASSOCIATION_S + 10.0

    def step(self) -> bool:
        """Ask one transaction, if there is something to ask and it has been gathered."""
        if not self._recovered:
            self._commitments.recover(self._destination.name)
            self._recovered = True
        if self._pause.is_on():
            return False
        due = self._commitments.due(self._destination.name, self._clock.now(), MOST)
        if not due or not self._is_gathered(due):
            return False
        self._ask(due)
        return self._failures == 0

    def wake(self) -> None:
        """Nothing is waited for here that another thread could end."""

    def interrupt(self) -> None:
        """End a wait for the destination, so that the daemon can stop now."""
        self._stopping = True
        association = self._association
        if association is not None:
            association.interrupt()

    def _is_gathered(self, due: list[Uncommitted]) -> bool:
        if len(due) >= MOST:
            return True
        now = self._clock.now()
        since_newest = (now - max(one.sent_at for one in due)).total_seconds()
        since_oldest = (now - min(one.sent_at for one in due)).total_seconds()
        # Below 0 the clock was set back.
        return not 0 <= since_newest < QUIET_S or since_oldest >= LONGEST_S

    def _ask(self, due: list[Uncommitted]) -> None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        wanted = {one.sop_instance_uid: one.sop_class_uid for one in due}
        commitment_id = self._commitments.begin(
            self._destination.name, transaction_uid, [one.delivery_id for one in due]
        )
        try:
            self._association = association = self._associate(self._peer, CONTEXTS)
            try:
                self._request(association, commitment_id, transaction_uid, wanted)
            finally:
                self._association = None
                association.release()
        except (NoAssociation, ContextRefused, AssociationLost) as error:
            if not self._stopping:  # the next start asks again
                self._refused(commitment_id, str(error))

    def _request(
        self, association: Association, commitment_id: int, transaction_uid: str, wanted: dict[str, str]
    ) -> None:
        context = next((one for one in CONTEXTS if one in association.accepted), CONTEXTS[0])
        data = encode_request(transaction_uid, [(klass, uid) for uid, klass in wanted.items()], context[1])

        def on_event(request: Request, report: bytes) -> int:
            return self._take(request, report, context[1])

        status = association.ask(
            context,
            commands.N_ACTION_RQ,
            STORAGE_COMMITMENT_INSTANCE,
            data,
            type_id=REQUEST_COMMITMENT,
            on_event=on_event,
        )
        if status != commands.SUCCESS:
            words = f"{self._peer} refuses the request for storage commitment with status 0x{status:04X}"
            self._refused(commitment_id, f"{words}; enter this box's AE title, address and port there")
            return
        self._commitments.asked(commitment_id)
        self._failures = 0
        self._refused_since = None
        began = time.monotonic()
        while time.monotonic() - began < self._patience_s(commitment_id) and not association.is_closed:
            association.await_event(context, _LOOK_S, on_event)

    def _patience_s(self, commitment_id: int) -> float:
        """How long to wait for the report of a transaction on its own association."""
        if self._stopping or not self._commitments.is_awaited(commitment_id):
            return 0.0
        due = self._commitments.due(self._destination.name, self._clock.now(), MOST)
        return BUSY_ASSOCIATION_S if due and self._is_gathered(due) else SAME_ASSOCIATION_S

    def _take(self, request: Request, data: bytes, transfer_syntax: str) -> int:
        """A report on the same association."""
        ds = read_data_set(data, transfer_syntax) if request.has_data_set else None
        if ds is None:
            return commands.INVALID_ARGUMENT
        try:
            report = read_report(ds)
        except ValueError:
            return commands.INVALID_ARGUMENT
        if self._commitments.destination_of(report.transaction_uid) == self._destination.name:
            self._commitments.answered(report.transaction_uid, report.committed, report.failed)
            self._wake_reports()
        return commands.SUCCESS

    def _refused(self, commitment_id: int, words: str) -> None:
        now = self._clock.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        self._failures += 1
        is_long = now - self._refused_since >= ISSUE_AFTER_S
        self._commitments.not_asked(commitment_id, words, times=self._failures, raise_issue_too=is_long)
        self._pause.begin(next_try(self._failures, self._rng))
