"""The disk reserve, and faults that the spool met."""

from __future__ import annotations

from appliance.records import Severity
from appliance.store import Store


class DiskCheck:
    """DISK_RESERVE: images are answered 0xA700. DISK_FAULT: a file could not be kept."""

    def __init__(self, store: Store) -> None:
        """Check the spool of ``store``."""
        self._store = store

    def run(self) -> None:
        """Look once."""
        spool, issues = self._store.spool, self._store.issues
        free = spool.free_bytes()
        if free < spool.reserve_bytes:
            issues.raise_("DISK_RESERVE", "spool", Severity.FAULT, {"free": free, "reserve": spool.reserve_bytes})
        else:
            issues.clear("DISK_RESERVE", "spool")
        if spool.fault is not None:
            issues.raise_("DISK_FAULT", "spool", Severity.FAULT, {"why": spool.fault})
        else:
            issues.clear("DISK_FAULT", "spool")
