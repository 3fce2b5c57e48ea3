"""The box itself: its database, daemon, worker, clock and issues."""

from __future__ import annotations

from typing import Any

from appliance.store.facts.kinds import Body, Kind


class DatabaseCreated(Body):  # noqa: D101
    kind = Kind.DATABASE_CREATED
    stream: str


class DatabaseRebuilt(Body):  # noqa: D101
    kind = Kind.DATABASE_REBUILT
    why: str
    set_aside: str
    instances: int
    journal_rows_carried: int
    stream: str


class JournalPruned(Body):
    """The checkpoint that stands for one day's rows: up to ``through``, whose hash the next row is chained to."""

    kind = Kind.JOURNAL_PRUNED
    day: str
    rows: int
    through: int
    hash: str


class DaemonStarted(Body):  # noqa: D101
    kind = Kind.DAEMON_STARTED
    version: str
    mode: str
    recovered: dict[str, int] = {}


class DaemonStopped(Body):  # noqa: D101
    kind = Kind.DAEMON_STOPPED
    why: str


class ClockJumped(Body):  # noqa: D101
    kind = Kind.CLOCK_JUMPED
    by_s: float


class LeftoversRemoved(Body):
    """Files among results and pictures that no row names any more, as of a report that was built anew."""

    kind = Kind.LEFTOVERS_REMOVED
    files: int
    size: int


class IssueRaised(Body):
    """It began; or its time on the shelf is over and it still stands."""

    kind = Kind.ISSUE_RAISED
    code: str
    severity: str
    detail: dict[str, Any] = {}


class IssueCleared(Body):  # noqa: D101
    kind = Kind.ISSUE_CLEARED
    code: str


class IssueAcknowledged(Body):
    """Somebody has seen it. It stands as before."""

    kind = Kind.ISSUE_ACKNOWLEDGED
    code: str


class IssueShelved(Body):
    """Somebody knows of it and wants to hear of it again after ``until``."""

    kind = Kind.ISSUE_SHELVED
    code: str
    until: str


class WorkerStarted(Body):  # noqa: D101
    kind = Kind.WORKER_STARTED
    pid: int
    packages: dict[str, str]


class WorkerEnded(Body):  # noqa: D101
    kind = Kind.WORKER_ENDED
    pid: int
    why: str
    analysis: int | None = None
