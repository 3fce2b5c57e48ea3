"""Figures of results: counts, and shares that stand on enough of them. Pure; ``sums`` reads them.

Boxes in evaluation mode are never summed with others: a trial is not use. A day is a day of the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from appliance.records import Word
from appliance.store.figures import Share, share


class Period(Word):
    """How far back, in days of the site, today's among them."""

    WEEK = "7"
    MONTH = "28"
    QUARTER = "90"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Of which results.

    Attributes:
        package: Its name; empty does not ask.
        version: Of the package.
        role: ``live``, ``silent`` or ``shadow``.
        site: The beginning of a site's id or name.
    """

    period: Period = Period.WEEK
    package: str = ""
    version: str = ""
    role: str = ""
    site: str = ""


@dataclass(slots=True, kw_only=True)
class Sums:
    """What a version did in a period, in one role, on boxes of one mode; ``site`` empty over all sites.

    Attributes:
        mode: As the boxes run now: ``evaluation``, ``clinical`` or, where none was told, empty.
        flagged: Analyses with each finding.
        typical_ms: Mean of the hours' p95, each weighed by its analyses; ``slowest_ms`` is the highest.
        psi: The highest index of each finding, of those that the boxes told last.
    """

    site: str
    package: str
    version: str
    role: str
    mode: str
    boxes: int = 0
    n: int = 0
    nothing_flagged: int = 0
    suppressed: int = 0
    reviewed: int = 0
    agreed: int = 0
    typical_ms: float | None = None
    slowest_ms: float | None = None
    flagged: dict[str, int] = field(default_factory=dict)
    not_analysed: dict[str, int] = field(default_factory=dict)
    psi: dict[str, float] = field(default_factory=dict)

    @property
    def analysed(self) -> int:
        """Those that ended with an answer."""
        return max(0, self.n - sum(self.not_analysed.values()))

    def flag_rate(self, finding: str) -> Share | None:
        """Flagged of those analysed; None where they are too few to say."""
        return share(min(self.flagged.get(finding, 0), self.analysed), self.analysed)

    @property
    def not_rate(self) -> Share | None:
        """Not analysed, of all."""
        return share(min(self.n - self.analysed, self.n), self.n)

    @property
    def agreement(self) -> Share | None:
        """A reader agreed, of those reviewed."""
        return share(min(self.agreed, self.reviewed), self.reviewed)


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """A site with its results; no results are told as such, not left out."""

    site: Any
    boxes: int
    in_evaluation: int
    sums: Sequence[Sums]


def first_hour(zone: str, period: Period, now: datetime) -> datetime:
    """Midnight at a site when the period began. A zone that is not known here counts as UTC."""
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        place = ZoneInfo("UTC")
    day = now.astimezone(place).date() - timedelta(days=int(period.value) - 1)
    return datetime(day.year, day.month, day.day, tzinfo=place)


_ROLES = ("live", "silent", "shadow")


def order(one: Sums) -> tuple[Any, ...]:
    """Sorts by site and model, what is live first, the newest version first."""
    role = _ROLES.index(one.role) if one.role in _ROLES else len(_ROLES)
    return (one.site, one.package, role, newest_first(one.version), one.mode)


def newest_first(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts the newest version first: numbers as numbers."""
    parts = version.replace("-", ".").split(".")
    return tuple((0, -int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts)
