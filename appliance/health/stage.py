"""The health stage: runs the checks, and feeds the watchdog only if every stage did its work in its own time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from appliance.health.systemd import notify
from appliance.stage import Beat

log = logging.getLogger(__name__)
#: What the scheduler of a loaded machine may add to a stage's own bound.
_SLACK_S = 5.0


class Check(Protocol):
    """Looks at one thing and raises or clears its issues."""

    def run(self) -> None:
        """Look once."""
        ...


class HealthStage:
    """The last stage: a heartbeat that carries progress, not life (DESIGN §4)."""

    name = "health"
    max_step_s = 30.0

    def __init__(self, checks: Sequence[Check], beats: Sequence[Beat], *, tell: Callable[[str], bool] = notify) -> None:
        """Run ``checks`` and watch ``beats``; ``tell`` is systemd's socket."""
        self._checks = checks
        self.beats = beats
        self._tell = tell

    def step(self) -> bool:
        """Run every check once, then feed the watchdog if nothing is stuck."""
        for check in self._checks:
            check.run()
        late = [beat.stage.name for beat in self.beats if beat.is_late(_SLACK_S)]
        if late:
            log.error("no progress in %s; the watchdog is not fed", ", ".join(late))
        else:
            self._tell("WATCHDOG=1")
        return False
