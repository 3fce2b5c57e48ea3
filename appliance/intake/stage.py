"""The completeness stage: looks at open series, takes them as whole when the rule says so."""

from __future__ import annotations

from collections.abc import Callable

from appliance.clock import Clock
from appliance.config import Completeness
from appliance.dicom.classes import SLICE_CLASSES
from appliance.intake.completeness import Ready, decide, quiet_s
from appliance.store import Store

#: How long the gaps of a source are taken as known before they are read again.
_GAPS_KEPT_S = 5.0


class CompletenessStage:
    """Turns evidence into revisions. Woken when an association ends or an image arrives."""

    name = "completeness"
    max_step_s = 30.0

    def __init__(self, store: Store, settings: Completeness, clock: Clock, *, wake_triage: Callable[[], None]) -> None:
        """Read and write ``store``; ``wake_triage`` is called when a revision was made."""
        self._store = store
        self._settings = settings
        self._clock = clock
        self._wake_triage = wake_triage
        self._quiet: dict[str, tuple[float, float]] = {}

    def step(self) -> bool:
        """Look at every open series once. True when a revision was made."""
        made = False
        now = self._clock.monotonic()
        for series in self._store.revisions.open_series():
            is_stack = series.sop_class_uid in SLICE_CLASSES
            quiet = self._quiet_s(series.source, now) if is_stack else 0.0
            is_awaited = series.listed is None or series.listed.missing
            if is_stack and series.peer_is_open and is_awaited and now - series.last_mono < quiet:
                continue  # nothing can have changed; reading the evidence of a large series is not free
            evidence = self._store.revisions.evidence(series)
            decision = decide(evidence, now_mono=now, quiet=quiet, longest=self._settings.quiet_max_s)
            if isinstance(decision, Ready):
                self._store.revisions.make_ready(evidence, decision.rule, decision.facts)
                made = True
        if made:
            self._wake_triage()
        return False

    def _quiet_s(self, source: str, now: float) -> float:
        known = self._quiet.get(source)
        if known is None or now - known[0] > _GAPS_KEPT_S:
            shortest, longest = self._settings.quiet_min_s, self._settings.quiet_max_s
            quiet = quiet_s(self._store.revisions.gaps_s(source, longest_s=longest), shortest, longest)
            known = (now, quiet)
            self._quiet[source] = known
        return known[1]
