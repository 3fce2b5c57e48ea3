"""Days as people give them on a page."""

from __future__ import annotations

import re
from datetime import datetime

_DAY = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})")
#: Days of other years cannot be meant, and some are no time that a machine can count.
_YEARS = 1980, 2200


def midnight(text: str) -> datetime | None:
    """The begin of a day in the box's time zone, from ``2026-01-31`` or ``20260131``; None for what is no day."""
    found = _DAY.fullmatch(text.strip())
    if found is None:
        return None
    try:
        day = datetime(*map(int, found.groups()))  # type: ignore[arg-type]  # noqa: DTZ001 - the reader's own days
    except ValueError:
        return None
    return day.astimezone() if _YEARS[0] <= day.year <= _YEARS[1] else None
