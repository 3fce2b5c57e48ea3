"""The one loop of the daemon: a stage has a ``step``, ``run_stage`` repeats it and survives its bugs."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from appliance.clock import Clock
from appliance.errors import ApplianceError

log = logging.getLogger(__name__)


class Timed(Protocol):
    """Something that must make progress within a bound of its own."""

    name: str
    #: The longest that one step may take before the watchdog stops trusting the daemon.
    max_step_s: float


class Stage(Timed, Protocol):
    """A part of the daemon that does work in steps; tests call ``step`` themselves."""

    def step(self) -> bool:
        """Do one piece of work. True when there may be more at once, False when idle."""
        ...


class Beat:
    """When a stage last ended a step, for the watchdog: progress, not life."""

    def __init__(self, stage: Timed, clock: Clock) -> None:
        """Count from now: a stage that never ends its first step is stuck too."""
        self.stage = stage
        self._clock = clock
        self.at_mono = clock.monotonic()
        self.failures = 0

    def mark(self) -> None:
        """A step has ended."""
        self.at_mono = self._clock.monotonic()

    def is_late(self, slack_s: float) -> bool:
        """Whether the present step takes longer than the stage itself allows, plus ``slack_s``."""
        return self._clock.monotonic() - self.at_mono > self.stage.max_step_s + slack_s


def run_stage(stage: Stage, beat: Beat, stop: threading.Event, wake: threading.Event, idle_s: float = 1.0) -> None:
    """Repeat ``stage.step`` until ``stop``.

    An expected error is logged and tried again after ``idle_s``; a bug is logged with its traceback and tried again
    too, so that one poisoned row cannot end a stage in silence; ``beat.failures`` makes it an issue.
    """
    while not stop.is_set():
        more = False
        try:
            more = stage.step()
            beat.failures = 0
        except ApplianceError as error:
            beat.failures += 1
            log.warning("stage %s: %s", stage.name, error)
        except Exception:  # the one place where bugs of a stage end
            beat.failures += 1
            log.exception("stage %s: a bug in this step; it is tried again", stage.name)
        beat.mark()
        if not more:
            wake.wait(idle_s)
            wake.clear()
