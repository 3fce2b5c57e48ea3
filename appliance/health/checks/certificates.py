"""The certificates that this box shows, as read at its start: whoever checks them refuses one whose time is over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from appliance.records import Severity
from appliance.store import Store

INVALID = "CERTIFICATE_INVALID"
ENDS = "CERTIFICATE_ENDS"
#: Hospitals take weeks for a new one.
_AHEAD = timedelta(days=30)


class CertificatesCheck:
    """CERTIFICATE_INVALID: over, or not yet begun; the box goes on serving. CERTIFICATE_ENDS: within 30 days."""

    def __init__(self, store: Store, shown: Mapping[str, tuple[datetime, datetime]]) -> None:
        """Look at those of ``shown``: the listener by its key in the configuration, and from when until when."""
        self._store = store
        self._shown = dict(shown)

    def run(self) -> None:
        """Look once."""
        now, issues = self._store.db.clock.now(), self._store.issues
        standing = {key: self._issue(now, *times) for key, times in self._shown.items()}
        for issue in issues.open():
            if issue.code in {INVALID, ENDS} and standing.get(issue.subject) != issue.code:
                issues.clear(issue.code, issue.subject)
        for key, code in standing.items():
            if code:
                begins_at, ends_at = (f"{at:%Y-%m-%d %H:%M} UTC" for at in self._shown[key])
                severity = Severity.FAULT if code == INVALID else Severity.WARNING
                issues.raise_(code, key, severity, {"why": f"it holds from {begins_at} to {ends_at}"})

    @staticmethod
    def _issue(now: datetime, begins_at: datetime, ends_at: datetime) -> str:
        if not begins_at <= now < ends_at:
            return INVALID
        return ENDS if ends_at - now < _AHEAD else ""
