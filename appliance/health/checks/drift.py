"""Scores that are spread otherwise than when a version was taken into use: another scanner, protocol or population."""

from __future__ import annotations

from appliance.clock import Clock
from appliance.store import Store
from appliance.store.drift import Drift

_EVERY_S = 3600.0


class DriftCheck:
    """SCORE_DRIFT for each version that runs and has drifted."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Watch what runs."""
        self._store = store
        self._clock = clock
        self._drift = Drift(store.db)
        self._next = clock.monotonic() + _EVERY_S / 60

    def run(self) -> None:
        """Look, once an hour."""
        if self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + _EVERY_S
            self._drift.look([(row.name, row.version) for row in self._store.packages.all() if row.runs])
