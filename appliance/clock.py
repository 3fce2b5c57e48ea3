"""Time as a dependency, so that rules are tested without waiting.

Two clocks, never mixed: ``now()`` is for people and records and may jump; ``monotonic()`` is for intervals, timeouts
and watchdogs and never does (T35).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal, Protocol

#: How far the wall clock is to be trusted: kept by a time server; by this machine alone; not at all.
ClockQuality = Literal["ntp", "rtc", "none"]
#: A wall clock before this was never set: it is older than this software.
_NEVER_BEFORE = datetime(2025, 6, 1, tzinfo=timezone.utc)
#: The kernel's largest possible error of a clock that nobody keeps (NTP_PHASE_LIMIT).
_UNKEPT_US = 16_000_000


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


class _Timex(ctypes.Structure):
    """``struct timex`` of adjtimex(2), as far as it matters; the kernel's is no longer than this."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def kept_error_us() -> int | None:
    """The largest error of the wall clock as the kernel knows it; None where it does not say."""
    try:
        asked = _Timex()  # modes = 0: it only reads
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(asked)) < 0:
            return None
    except (OSError, AttributeError):  # no Linux
        return None
    return int(asked.maxerror)


def has_rtc(folder: Path = Path("/sys/class/rtc")) -> bool:
    """Whether the machine has a clock that runs while it is off."""
    try:
        return bool(os.listdir(folder))  # noqa: PTH208 - a name is enough
    except OSError:
        return False


def clock_quality(
    now: datetime,
    *,
    error_us: Callable[[], int | None] = kept_error_us,
    rtc: Callable[[], bool] = has_rtc,
) -> ClockQuality:
    """How far the wall clock is to be trusted now.

    Not STA_UNSYNC: chrony leaves that set where it keeps the clock and not the RTC. A clock that is kept has a largest
    error below the kernel's limit; it grows by 0.5 ms a second, so a lost time server is noticed after nine hours.

    Args:
        now: The wall clock.
        error_us: Asks the kernel.
        rtc: Whether the machine keeps time while it is off.
    """
    if now < _NEVER_BEFORE:
        return "none"
    error = error_us()
    if error is not None and error < _UNKEPT_US:
        return "ntp"
    return "rtc" if rtc() else "none"
