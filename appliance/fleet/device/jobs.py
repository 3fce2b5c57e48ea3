"""Jobs, step by step. A step is one transaction: the row's new state and the fact that goes to the server.

What a job does is a small handler for each (op, state). Killed between two steps, it goes on where it was; killed
within one, the handler is called again, so every handler either finds what it has done already, or says that it must
not be called twice. Two stages share the work: what takes minutes never keeps a withdrawal waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from appliance.clock import Clock
from appliance.errors import ApplianceError, ConflictError, NotFoundError, StoreError, TransientError
from appliance.fleet.device.acts import ActRefused
from appliance.fleet.device.inbox import job_of
from appliance.fleet.device.tasks import Handler, Handlers, Hours, Step, Task, Undo
from appliance.fleet.wire import Op, WireError
from appliance.fleet.wire_jobs import NEXT, JobState
from appliance.fleet.wire_records import Clk
from appliance.store import Store
from appliance.store.fleet_jobs import JobMoved, JobRow
from engines.errors import EngineError

log = logging.getLogger(__name__)

#: A handler that met a bug, or was killed in the middle, is called so often in all.
_MOST_TRIES = 3
_LATER_S, _MOST_LATER_S = 30.0, 3600.0
#: States in which nothing has been done yet: a job that has expired meanwhile is not begun.
_UNBEGUN = frozenset({JobState.ACCEPTED, JobState.WAIT_APPROVAL, JobState.DOWNLOADING})
#: Safety does not expire: once taken, it is done.
_NEVER_EXPIRES = frozenset({Op.MODEL_WITHDRAW})


class JobStage:
    """One of the two stages of jobs."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        handlers: Handlers,
        clk: Callable[[], Clk],
        *,
        slow: bool = False,
        undo: Undo = lambda _: None,
        also: Callable[[], None] = lambda: None,
        held: Callable[[], bool] = lambda: False,
    ) -> None:
        """Do the jobs of ``store``.

        Args:
            store: The box's.
            clock: The wall clock decides what has expired; the other one paces.
            handlers: What is done, by op and state.
            clk: How far the wall clock is to be trusted.
            slow: Do what takes minutes; else all the rest.
            undo: Called where a job that has changed something ends by a bug.
            also: Called in every step (the inbox's tidying).
            held: Whether the box installs nothing: an installation that waited for that says so at its end.
        """
        self.name = "fleet-work" if slow else "fleet-jobs"
        self.max_step_s = 3600.0 if slow else 60.0
        self._store = store
        self._clock = clock
        self._handlers = handlers
        self._clk = clk
        self._slow = slow
        self._undo = undo
        self._also = also
        self._held = held
        self._hours = Hours(clock)
        #: By job: when it is tried again, and how often it could not be done so far.
        self._later: dict[str, tuple[float, int]] = {}

    def step(self) -> bool:
        """Take every job of this stage one step on; of slow ones the first that can."""
        self._also()
        rows = self._store.fleet_jobs.open()
        self._hours.keep(rows)
        self._later = {row.id: self._later[row.id] for row in rows if row.id in self._later}
        # What takes a model out of service goes before everything else.
        rows.sort(key=lambda row: (row.op != Op.MODEL_WITHDRAW, row.ctr))
        moved = False
        for row in rows:
            moved |= self._go_on(row)
            if moved and self._slow:
                break
        return moved

    def _go_on(self, row: JobRow) -> bool:
        """Whether the job took a step."""
        try:
            job = job_of(row)
        except WireError:  # taken by another version of this software
            state = JobState.FAILED if JobState.FAILED in NEXT[JobState(row.state)] else JobState.ROLLED_BACK
            self._store.fleet_jobs.step(row, state, code="NOT_UNDERSTOOD")
            return True
        task = Task(self._store, row, job, self._hours)
        if self._has_expired(task):
            waited = job.op is Op.MODEL_INSTALL and self._held()
            state = JobState.REJECTED if waited else JobState.TIMED_OUT
            return self._end(task, state, "HELD" if waited else "EXPIRED")
        handler = self._handlers.get((job.op, task.state))
        if handler is None or handler.slow is not self._slow or not self._is_due(row):
            return False
        try:
            if handler.slow and not self._may_try(task, handler):
                return self._fail(task, "INTERRUPTED")
            step = handler.deed(task)
            if step is None:
                return False
            task.tell(step)
        except JobMoved:
            return False
        except ActRefused as error:
            log.warning("fleet: job %d (%s) in %s: %s", row.ctr, row.op, row.state, error)
            return self._fail(task, error.code)
        except (TransientError, StoreError) as error:
            return self._try_later(task, error)
        except (ApplianceError, EngineError) as error:
            log.warning("fleet: job %d (%s) in %s: %s", row.ctr, row.op, row.state, error)
            return self._fail(task, _code_of(error))
        except Exception:
            self._met_bug(task)
            raise
        self._later.pop(row.id, None)
        log.info("fleet: job %d (%s) is %s", row.ctr, row.op, task.row.state)
        return True

    def _has_expired(self, task: Task) -> bool:
        """Not begun in its time: what was to be done yesterday is not done by surprise today."""
        if task.state not in _UNBEGUN or task.job.op in _NEVER_EXPIRES or self._clk() == "none":
            return False
        if task.state is JobState.ACCEPTED and task.notes:
            return False
        return self._clock.now().timestamp() * 1000 > task.job.exp

    def _may_try(self, task: Task, handler: Handler) -> bool:
        """Count a try before it is made, so that a death within it counts."""
        tries = int(task.notes.get("tries", 0))
        if tries >= (1 if handler.once else _MOST_TRIES):
            return False
        task.note(tries=tries + 1)
        return True

    def _is_due(self, row: JobRow) -> bool:
        return self._clock.monotonic() >= self._later.get(row.id, (0.0, 0))[0]

    def _try_later(self, task: Task, error: ApplianceError) -> bool:
        """A neighbour does not answer: again, later each time; until the job expires."""
        _, times = self._later.get(task.row.id, (0.0, 0))
        log.info("fleet: job %d (%s) in %s: %s; again later", task.row.ctr, task.row.op, task.row.state, error)
        self._later[task.row.id] = (
            self._clock.monotonic() + min(_LATER_S * 2.0 ** min(times, 12), _MOST_LATER_S),
            times + 1,
        )
        if "tries" in task.notes:  # it did not die of it
            task.note(tries=int(task.notes["tries"]) - 1)
        if self._clk() != "none" and self._clock.now().timestamp() * 1000 > task.job.exp:
            return self._fail(task, "UNREACHABLE")
        return False

    def _met_bug(self, task: Task) -> None:
        _, times = self._later.get(task.row.id, (0.0, 0))
        self._later[task.row.id] = (self._clock.monotonic(), times + 1)
        if times + 1 >= _MOST_TRIES:
            self._fail(task, "BUG")

    def _fail(self, task: Task, code: str) -> bool:
        """End it as its state allows; what it has changed is taken back first."""
        if JobState.FAILED in NEXT[task.state]:
            return self._end(task, JobState.FAILED, code)
        self._undo(task)
        return self._end(task, JobState.ROLLED_BACK, code)

    def _end(self, task: Task, state: JobState, code: str) -> bool:
        try:
            task.tell(Step(state, code))
        except JobMoved:
            return False
        self._later.pop(task.row.id, None)
        log.warning("fleet: job %d (%s) is %s: %s", task.row.ctr, task.row.op, state, code)
        return True


def _code_of(error: Exception) -> str:
    for kind, code in ((NotFoundError, "NOT_FOUND"), (ConflictError, "CONFLICT"), (EngineError, "PACKAGE_REFUSED")):
        if isinstance(error, kind):
            return code
    return "FAILED"
