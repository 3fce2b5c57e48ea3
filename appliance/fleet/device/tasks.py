"""What a job is to its handlers: where it stands, what it has noted, how long it has waited, where it goes next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from appliance.clock import Clock
from appliance.fleet.wire import Job, Op
from appliance.fleet.wire_jobs import JobState, check_step
from appliance.records import Actor, ActorKind
from appliance.store import Store
from appliance.store.facts.kinds import Body
from appliance.store.fleet_jobs import JobRow

#: Of what is counted by the hour, a kill may cost so much.
_KEEP_S = 300.0


@dataclass(frozen=True, slots=True)
class Step:
    """Where a job goes, and what is told of it.

    Attributes:
        state: The next one.
        code: Why.
        figures: What was measured.
        percent: Of a download.
        work: What the next state starts with.
    """

    state: JobState
    code: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    percent: float | None = None
    work: Mapping[str, Any] = field(default_factory=dict)


class Task:
    """A job as its handler sees it."""

    def __init__(self, store: Store, row: JobRow, job: Job, hours: Hours) -> None:
        """Work on ``row``."""
        self._store = store
        self.hours = hours
        self.row = row
        self.job = job

    @property
    def state(self) -> JobState:
        """Where it stands."""
        return JobState(self.row.state)

    @property
    def actor(self) -> Actor:
        """Who acts, for the journal."""
        return Actor(kind=ActorKind.FLEET, name=self.row.id, role=f"job {self.row.ctr}")

    @property
    def notes(self) -> Mapping[str, Any]:
        """What this state has noted."""
        return self.row.work

    def note(self, **changes: Any) -> None:
        """Note something durably, before or after an act.

        Raises:
            JobMoved: Somebody else has moved the job.
        """
        self.row = self._store.fleet_jobs.note(self.row, {**self.row.work, **changes})

    def note_fact(self, seq_as: str, fact: Body) -> None:
        """Write a fact and note its number, in one transaction.

        Raises:
            JobMoved: Somebody else has moved the job.
        """
        self.row = self._store.fleet_jobs.note(self.row, self.row.work, fact, actor=self.actor, seq_as=seq_as)

    def tell(self, step: Step) -> None:
        """Take a step and stay with the job: the percents of a download.

        Raises:
            JobMoved: Somebody else has moved the job.
        """
        check_step(self.state, step.state)
        self.row = self._store.fleet_jobs.step(
            self.row,
            step.state,
            code=step.code,
            percent=step.percent,
            figures=step.figures,
            work=step.work,
            actor=self.actor,
        )

    def waited_s(self) -> float:
        """How long it has been in this state while the box ran: no clock that is set changes it."""
        total, unsaved = self.hours.of(self.row, float(self.notes.get("waited_s", 0.0)))
        if unsaved >= _KEEP_S:
            self.note(waited_s=total)
            self.hours.saved(self.row, total)
        return total


class Hours:
    """How long jobs have been in their states, on the monotonic clock, on top of what their notes say."""

    def __init__(self, clock: Clock) -> None:
        """Nothing is known yet."""
        self._clock = clock
        self._since: dict[tuple[str, str], tuple[float, float]] = {}

    def of(self, row: JobRow, saved: float) -> tuple[float, float]:
        """Seconds in all, and those of them that are not saved."""
        now = self._clock.monotonic()
        base, since = self._since.setdefault((row.id, row.state), (saved, now))
        return base + now - since, base + now - since - saved

    def saved(self, row: JobRow, total: float) -> None:
        """The notes say so much now."""
        self._since[row.id, row.state] = (total, self._clock.monotonic())

    def keep(self, rows: list[JobRow]) -> None:
        """Forget all but these."""
        known = {(row.id, row.state) for row in rows}
        self._since = {key: value for key, value in self._since.items() if key in known}


class Deed(Protocol):
    """What is done in one state: the step that follows, or None where it waits."""

    def __call__(self, task: Task, /) -> Step | None:
        """Do it.

        Raises:
            ActRefused: It cannot be done; its code is told.
            TransientError: Not now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Handler:
    """One (op, state).

    Attributes:
        deed: What is done.
        slow: It may take minutes, and never waits: not for the stage that withdraws models.
        once: It must not be done twice: interrupted, the job has failed.
    """

    deed: Deed
    slow: bool = False
    once: bool = False


#: Everything that this box does, and what takes back what a job has begun (of states that nothing else leaves).
Handlers = Mapping[tuple[Op, JobState], Handler]
Undo = Callable[[Task], None]
