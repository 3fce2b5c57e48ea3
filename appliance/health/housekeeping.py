"""What a box does once in a while with nobody asking: today, letting the oldest days of the journal go."""

from __future__ import annotations

from datetime import timedelta

from appliance.clock import Clock
from appliance.config import Retention
from appliance.store import Store

_EVERY_S = 3600.0


class HousekeepingStage:
    """Looks once an hour; what there is to do is decided by the store."""

    name = "housekeeping"
    max_step_s = 120.0

    def __init__(self, store: Store, settings: Retention, clock: Clock) -> None:
        """Keep house in ``store``; the first look is an hour after the start, when scanners are no longer waiting."""
        self._store = store
        self._settings = settings
        self._clock = clock
        self._next = clock.monotonic() + _EVERY_S

    def step(self) -> bool:
        """Look if an hour has passed."""
        if self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + _EVERY_S
            self._store.journal.prune(self._clock.now() - timedelta(days=self._settings.journal_days))
        return False
