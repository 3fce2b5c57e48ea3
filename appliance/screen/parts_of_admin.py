"""What the pages of administration share: how times, ages and problems are written."""

from __future__ import annotations

from datetime import datetime

from appliance.web.i18n import N_

NO_REASON = N_("Say why; it stands in the journal.")
LONGEST_REASON = 500


def stamp(at: datetime) -> str:
    """Date and time in the box's time zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> tuple[int, int, int]:
    """Days, hours and minutes."""
    minutes = int(max(seconds, 0) // 60)
    return minutes // 1440, minutes // 60 % 24, minutes % 60
