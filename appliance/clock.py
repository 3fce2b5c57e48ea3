"""Time as a dependency, so that rules are tested without waiting.

Two clocks, never mixed: ``now()`` is for people and records and may jump; ``monotonic()`` is for intervals, timeouts
and watchdogs and never does (T35).
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Protocol


class Clock(Protocol):
    """What a part may ask about time."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment of this boot; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        """``time.monotonic``: shared by all processes of one boot on Linux."""
        return time.monotonic()


class FakeClock:
    """A clock that a test moves by hand. Both hands move together unless ``jump`` is used."""

    def __init__(self, now: datetime | None = None) -> None:
        """Start at ``now`` (default 2026-01-01 00:00 UTC) with a monotonic reading of 1000 s."""
        self._lock = threading.Lock()
        self._now = now or datetime(2026, 1, 1, tzinfo=timezone.utc)
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """The wall clock as set."""
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        """The monotonic clock as set."""
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or a bad NTP server does."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
