"""Sources that send nothing at hours when they usually do: nobody misses a study that never came."""

from __future__ import annotations

from appliance.clock import Clock
from appliance.config import Config
from appliance.records import Severity
from appliance.store import Store
from appliance.store.usual_hours import Usual, UsualHours

SOURCE_SILENT = "SOURCE_SILENT"
_EVERY_S, _LEARN_S = 60.0, 3600.0


class SilenceCheck:
    """SOURCE_SILENT for each configured source that is."""

    def __init__(self, store: Store, config: Config, clock: Clock) -> None:
        """Watch the sources of ``config``."""
        self._store = store
        self._names = frozenset(source.name for source in config.sources)
        self._clock = clock
        self._hours = UsualHours(store.db)
        self._usual: dict[str, Usual] = {}
        self._next = self._learn_next = float("-inf")

    def run(self) -> None:
        """Look, once a minute."""
        monotonic = self._clock.monotonic()
        if monotonic < self._next:
            return
        self._next = monotonic + _EVERY_S
        now, issues = self._clock.now(), self._store.issues
        if monotonic >= self._learn_next:
            self._learn_next = monotonic + _LEARN_S
            self._usual = self._hours.learn(now)
        last = {name: at for name, at in self._hours.last_images(now).items() if name in self._names}
        silent = {name for name, at in last.items() if self._usual.get(name, Usual()).is_silent(at, now)}
        for issue in issues.open():
            if issue.code == SOURCE_SILENT and issue.subject not in silent:
                issues.clear(SOURCE_SILENT, issue.subject)
        for name in sorted(silent):
            why = f"the last image came at {last[name]:%Y-%m-%d %H:%M} UTC"
            issues.raise_(SOURCE_SILENT, name, Severity.WARNING, {"why": why})
