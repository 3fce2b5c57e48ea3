"""What the machine itself suffers from: heat or power that holds it back, a worn disk, a clock that is off."""

from __future__ import annotations

from datetime import timedelta

from appliance.clock import Clock
from appliance.records import Severity
from appliance.store import Store
from appliance.store.fares import skew_s

THROTTLED = "MACHINE_THROTTLED"
WORN = "DISK_WORN"
CLOCK_OFF = "CLOCK_OFF"
_EVERY_S = 60.0
_LOOKED_AT = timedelta(minutes=10)
#: Of ten minutes: a peak of work may heat for one or two.
_THROTTLED_MINUTES = 5
_WORN_PERCENT = 90.0
#: Against the fleet server's clock: what makes records hard to compare, and what makes certificates and jobs fail.
_OFF_S, _FAR_OFF_S = 5.0, 300.0


class HardwareCheck:
    """MACHINE_THROTTLED, DISK_WORN and CLOCK_OFF, from the minutes of samples and the server's last word."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Look at ``store``."""
        self._store = store
        self._clock = clock
        self._next = float("-inf")

    def run(self) -> None:
        """Look, once a minute."""
        monotonic = self._clock.monotonic()
        if monotonic < self._next:
            return
        self._next = monotonic + _EVERY_S
        now = self._clock.now()
        samples = [one.sample for one in self._store.health.minutes(now - _LOOKED_AT, now)]
        held_back = sum(one.throttled is not None and one.throttled > 0 for one in samples)
        if held_back >= _THROTTLED_MINUTES:
            self._store.issues.raise_(THROTTLED, "", Severity.WARNING, {"minutes": held_back})
        elif not held_back:
            self._store.issues.clear(THROTTLED, "")
        worn = max((one.disk_wear_percent or 0.0 for one in samples), default=0.0)
        if worn >= _WORN_PERCENT:
            self._store.issues.raise_(WORN, "", Severity.WARNING, {"percent": worn})
        elif samples:
            self._store.issues.clear(WORN, "")
        self._look_at_clock()

    def _look_at_clock(self) -> None:
        off = abs(skew_s(self._store.db) or 0.0)
        severity = Severity.FAULT if off > _FAR_OFF_S else Severity.WARNING
        standing = next((one for one in self._store.issues.open() if one.code == CLOCK_OFF), None)
        if standing is not None and (off <= _OFF_S or standing.severity is not severity):
            self._store.issues.clear(CLOCK_OFF, "")
        if off > _OFF_S:
            self._store.issues.raise_(CLOCK_OFF, "", severity, {"seconds": round(off, 1)})
