"""The stage that looks after packages: lets a version serve when its silent time is over, and tells who shows texts."""

from __future__ import annotations

from collections.abc import Callable

from appliance.triage.packages import Now
from appliance.triage.stage import Bench

#: Silent times are days; the look costs a query over the analyses of each version that is silent.
_EVERY_S = 5.0


class PackagesStage:
    """Looks at the table of packages once a second, and at silent times every few."""

    name = "packages"
    max_step_s = 30.0

    def __init__(self, bench: Bench, *, on_change: Callable[[], None], wake_routing: Callable[[], None]) -> None:
        """Look for ``bench``.

        Args:
            bench: What the stages of triage share.
            on_change: Called when other versions run, or in other roles.
            wake_routing: Called when studies are to be routed again.
        """
        self._bench = bench
        self._on_change = on_change
        self._wake_routing = wake_routing
        self._now = Now()
        self._next = bench.clock.monotonic()

    def step(self) -> bool:
        """Look once."""
        bench = self._bench
        packages = bench.store.packages
        if bench.clock.monotonic() >= self._next:
            self._next = bench.clock.monotonic() + _EVERY_S
            packages.promote_due(bench.packages.owed)
        now = bench.packages.now()
        if now is not self._now:
            self._now = now
            self._on_change()
        if packages.tidy(bench.packages.owed):
            self._wake_routing()
        return False
