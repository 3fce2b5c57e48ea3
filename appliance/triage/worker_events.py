"""What can happen to the worker, as the daemon sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.errors import TransientError


class WorkerLost(TransientError):  # noqa: N818 - an event, as the worker's death is
    """The worker ended before it answered, or none is ready.

    ``analysis_id`` is the analysis that it worked on when it ended; None: it ended for something else.
    """

    def __init__(self, how: str, analysis_id: int | None = None) -> None:
        """Tell how it ended."""
        super().__init__(how)
        self.how = how
        self.analysis_id = analysis_id


class WorkerTimedOut(TransientError):  # noqa: N818 - the same
    """The analysis took longer than its limit; the worker was ended for it."""

    def __init__(self, how: str, analysis_id: int) -> None:
        """Tell how it ended."""
        super().__init__(how)
        self.how = how
        self.analysis_id = analysis_id


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted:
    """A worker process was started, or connected from its own unit. Not ready yet."""

    at_mono: float
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """It has answered for every package, and at least one serves (or none was asked for)."""

    at_mono: float
    pid: int
    #: Name to digest.
    packages: Mapping[str, str]
    #: Name to message.
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagesChanged:
    """A worker that was ready has answered for the packages that were asked of it since."""

    at_mono: float
    packages: Mapping[str, str]
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded:
    """It is gone, or could not be started (``pid`` 0). ``analysis_id``, ``series_key``: what it worked on then."""

    at_mono: float
    pid: int
    why: str
    analysis_id: int | None = None
    series_key: str = ""


Event = WorkerStarted | WorkerReady | PackagesChanged | WorkerEnded
