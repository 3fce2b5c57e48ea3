"""What follows where nobody acknowledges an alert: the chime repeats, others are told, every screen says so.

The steps stand in the store, so that neither a kill nor a second screen takes one twice. In evaluation mode no step is
ever taken (DESIGN §1.7): a demonstrator raises no real alarm.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.clock import Clock
from appliance.config import Config, Escalation
from appliance.records import AlertStep
from appliance.store import Store
from appliance.store.escalations import Waiting


class EscalationStage:
    """Takes the steps of alerts when they are due; ``step`` is called about once a second."""

    name = "escalation"
    max_step_s = 10.0

    def __init__(self, store: Store, config: Config, clock: Clock, *, wake_sinks: Callable[[], None]) -> None:
        """Take steps in ``store``; ``wake_sinks`` is called when a sink is owed something."""
        self._store = store
        self._config = config
        self._clock = clock
        self._wake_sinks = wake_sinks
        #: When each waiting alert was raised, on the monotonic clock: a wall clock that is set while the box runs
        #: neither hurries nor delays a step. After a start the wall clock is all there is.
        self._raised_mono: dict[int, float] = {}

    def step(self) -> bool:
        """Take every step that is due."""
        self._store.alert_tests.end_old()
        if self._config.site.mode != "clinical":
            return False
        waiting = self._store.escalations.waiting()
        now, now_mono = self._clock.now(), self._clock.monotonic()
        self._raised_mono = {
            one.alert_id: self._raised_mono.get(
                one.alert_id, now_mono - max((now - one.raised_at).total_seconds(), 0.0)
            )
            for one in waiting
        }
        is_owed = False
        for one in waiting:
            for step in due(one, now_mono - self._raised_mono[one.alert_id], self._config.screen.escalation):
                sinks = self._config.sinks_of(step)
                if step is AlertStep.RAISED and not sinks:
                    continue
                further = self._config.screen.escalation.screens if step is AlertStep.TELL else ()
                screens = self._store.screens.paired(further) if further else ()
                if self._store.escalations.take(one.alert_id, step, sinks, screens):
                    is_owed = is_owed or bool(sinks)
        if is_owed:
            self._wake_sinks()
        return False


def due(alert: Waiting, age_s: float, times: Escalation) -> list[AlertStep]:
    """The steps of an alert that are due and not taken yet, in their order.

    A late result, or one found again in a rebuilt database, never calls (``chime`` is off): it is not repeated and
    nobody is rung up, for a hundred of them come at once. That nobody looked is said of it, too.

    Args:
        alert: Active, of category 1 or 2, not acknowledged.
        age_s: Seconds since it was raised.
        times: When each step is due.
    """
    if alert.category == 1:
        at = {AlertStep.OVERDUE: times.overdue_after_s}
        if alert.chime:
            at |= {
                AlertStep.RAISED: 0.0,
                AlertStep.REPEAT: times.repeat_after_s,
                AlertStep.TELL: times.tell_after_s,
            }
    else:
        at = {AlertStep.REMIND: times.remind_after_s}
    ready = [step for step, after_s in at.items() if age_s >= after_s and step not in alert.steps]
    return sorted(ready, key=at.__getitem__)
