"""The stage that asks the RIS for the orders of studies: off the alert path, and nothing waits for it."""

from __future__ import annotations

import random

from appliance.clock import Clock
from appliance.config import Config, Worklist
from appliance.deliver.dicom_scu import Association, Peer
from appliance.deliver.orders import asks_by, identifier, judge, read_entry
from appliance.deliver.retry import QueryRefused, next_try
from appliance.dicom.classes import MODALITY_WORKLIST_FIND
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN
from appliance.errors import RejectedInstance, TransientError
from appliance.records import OrderState, Severity
from appliance.store import Store
from appliance.store.issues import Issues
from appliance.store.orders import Answer, Orders, ToAsk

UNREACHABLE = "WORKLIST_UNREACHABLE"
#: A RIS that has been away for this long is told of.
UNREACHABLE_AFTER_S = 120.0
#: An order that is not there yet may be entered late, above all in an emergency; asked again so long after each answer.
AGAIN_S = (60.0, 300.0, 1800.0)
_CONTEXT = (MODALITY_WORKLIST_FIND, IMPLICIT_VR_LITTLE_ENDIAN)
#: Nobody has so many orders on one day.
_MOST = 100
_BUSY_S = 20.0
#: So many associations in a row that ended at a question: it is the RIS, not the questions.
_LOST_TO_PAUSE = 3
#: Studies of more than a day ago are not asked about.
_FORGET_S = 24 * 3600.0
#: Name resolution cannot be given a deadline; resolvers end by themselves within this.
_RESOLVER_S = 30.0


class WorklistStage:
    """Asks one question for each study, newest first; a RIS that does not answer is asked ever more seldom."""

    name = "worklist"

    def __init__(self, settings: Worklist, orders: Orders, issues: Issues, clock: Clock, *, box_ae_title: str) -> None:
        """Ask the SCP of ``settings`` about what ``orders`` holds open."""
        self._peer = Peer(
            host=settings.host,
            port=settings.port,
            called_ae=settings.ae_title,
            calling_ae=settings.calling_ae_title or box_ae_title,
            timeout_s=settings.timeout_s,
            tls=settings.tls,
        )
        self._assume_charset = settings.assume_charset
        self._orders = orders
        self._issues = issues
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._association: Association | None = None
        self._failures = 0
        self._fault = ""
        self._failing_since = 0.0
        self._not_before = 0.0
        #: Study: not before then. Questions that the RIS refuses, or ends the association at, come after all others.
        self._refused: dict[int, float] = {}
        # The last question begins in time: connect, shake hands, associate, ask in two parts, twice for its answers;
        # two releases.
        self.max_step_s = _BUSY_S + _RESOLVER_S + 7 * settings.timeout_s + 10.0

    def step(self) -> bool:
        """Ask what is to be asked now. True when there may be more."""
        now = self._clock.monotonic()
        if self._fault and now - self._failing_since >= UNREACHABLE_AFTER_S:
            # Between two tries too: they become seldom.
            self._issues.raise_(UNREACHABLE, "worklist", Severity.WARNING, {"why": self._fault})
        if now < self._not_before:
            return False
        self._refused = {study: until for study, until in self._refused.items() if until > now - _FORGET_S}
        todo = self._orders.to_ask(self._refused) or self._orders.to_ask(
            [study for study, until in self._refused.items() if until > now]
        )
        for asked in todo:
            if not asks_by(asked):
                # Nothing in the header to ask by; a correction of the identity asks anew.
                answer = Answer(state=OrderState.NONE, entries=0, by="")
                self._orders.answered(asked, answer, again_in_s=None)
        todo = [asked for asked in todo if asks_by(asked)]
        if not todo:
            return False
        try:
            self._ask_all(todo, now)
        finally:
            self._release()
        return False

    def _ask_all(self, todo: list[ToAsk], began: float) -> None:
        """Ask until time is over, or what fails is the RIS and not a question."""
        fault: TransientError | None = None
        lost = 0
        for asked in todo:
            if self._clock.monotonic() - began > _BUSY_S or lost == _LOST_TO_PAUSE:
                break
            try:
                association = self._associated()
            except TransientError as error:
                fault = error
                break
            try:
                self._ask(association, asked)
            except TransientError as error:
                fault = error
                self._refused[asked.study_id] = self._clock.monotonic() + AGAIN_S[1]
                if not isinstance(error, QueryRefused):
                    lost += 1
                    self._release()
                continue
            fault, lost = None, 0
            self._refused.pop(asked.study_id, None)
            self._worked()
        if fault is not None:
            self._failed(fault)

    def _associated(self) -> Association:
        if self._association is None:
            self._association = Association(self._peer, (_CONTEXT,))
        return self._association

    def _release(self) -> None:
        if self._association is not None:
            self._association.release()
            self._association = None

    def _ask(self, association: Association, asked: ToAsk) -> None:
        found = association.find(_CONTEXT, identifier(asked), most=_MOST)
        try:
            entries = [read_entry(data, self._assume_charset) for data in found]
        except RejectedInstance as error:
            raise TransientError(f"{self._peer} answers a worklist query with what is no data set") from error
        answer = judge(asked, entries)
        is_final = answer.state is OrderState.FOUND or asked.asked >= len(AGAIN_S)
        self._orders.answered(asked, answer, again_in_s=None if is_final else AGAIN_S[asked.asked])

    def _failed(self, error: TransientError) -> None:
        now = self._clock.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        self._not_before = now + next_try(self._failures, self._rng)
        self._fault = str(error)

    def _worked(self) -> None:
        self._failures, self._fault = 0, ""
        self._issues.clear(UNREACHABLE, "worklist")

    def interrupt(self) -> None:
        """Let the daemon stop now; called from its thread."""
        association = self._association
        if association is not None:
            association.interrupt()


def worklist_stages(config: Config, store: Store, clock: Clock) -> tuple[WorklistStage, ...]:
    """The stage that asks the worklist; none where the configuration names none."""
    if config.worklist is None:
        return ()
    ae_title = config.dicom.ae_title
    return (WorklistStage(config.worklist, store.orders, store.issues, clock, box_ae_title=ae_title),)
