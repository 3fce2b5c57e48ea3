"""Screens and escalation as configured against the screens that are paired: silence must be about something."""

from __future__ import annotations

from appliance.config import Config
from appliance.records import AlertStep, Severity
from appliance.store import Store

SOURCE_GONE = "SCREEN_SOURCE_GONE"
NOWHERE = "ESCALATION_NOWHERE"
#: Subject of NOWHERE where there is no place at all: the keys that would name one.
_ALL = "alert_sinks, screen.escalation.screens"


class ScreensCheck:
    """SCREEN_SOURCE_GONE for each blind screen; in clinical mode ESCALATION_NOWHERE for steps that reach nobody."""

    def __init__(self, store: Store, config: Config) -> None:
        """Hold the screens of ``store`` against ``config``."""
        self._store = store
        self._config = config

    def run(self) -> None:
        """Look once."""
        blind = {name: {"sources": list(gone)} for name, gone in self._store.screens.blind(self._sources()).items()}
        self._tell(SOURCE_GONE, Severity.FAULT, blind)
        self._tell(NOWHERE, Severity.WARNING, {name: {} for name in self._nowhere()})

    def _sources(self) -> list[str]:
        return [source.name for source in self._config.sources]

    def _nowhere(self) -> list[str]:
        if self._config.site.mode != "clinical":
            return []
        named = self._config.screen.escalation.screens
        there = self._store.screens.paired(named)
        lost = [name for name in named if name not in there]
        return lost if there or self._config.sinks_of(AlertStep.TELL) else [*lost, _ALL]

    def _tell(self, code: str, severity: Severity, standing: dict[str, dict[str, list[str]]]) -> None:
        issues = self._store.issues
        for issue in issues.open():
            if issue.code == code and issue.subject not in standing:
                issues.clear(code, issue.subject)
        for subject, detail in standing.items():
            issues.raise_(code, subject, severity, detail)
