"""Stages that fail step after step: a bug or a broken neighbour, loud."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.records import Severity
from appliance.stage import Beat
from appliance.store import Store

_FAILURES = 3


class StagesCheck:
    """STAGE_FAILING for each stage whose last steps all failed."""

    def __init__(self, store: Store, beats: Sequence[Beat]) -> None:
        """Watch ``beats``."""
        self._store = store
        self._beats = beats

    def run(self) -> None:
        """Look once."""
        for beat in self._beats:
            if beat.failures >= _FAILURES:
                self._store.issues.raise_("STAGE_FAILING", beat.stage.name, Severity.FAULT)
            elif not beat.failures:
                self._store.issues.clear("STAGE_FAILING", beat.stage.name)
