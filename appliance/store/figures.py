"""Figures of how a package does at a site, from what radiologists signed: counts first, no figure without its counts.

Pure. Nothing here names a reader. What must not be mixed is not: every figure is of one ``Setting``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from appliance.records import Presence

#: With fewer reviewed cases a share says nothing, and none is given.
FEWEST = 20
#: Standard normal quantiles: 95 % two-sided; and 97.5 %, so that two intervals together hold with 95 %.
_Z95, _Z975 = 1.959963984540054, 2.241402727604945


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one figure is of. A trial is not use, another version scores otherwise, another threshold flags others.

    Attributes:
        package: Its name.
        version: Of the package.
        finding: Its id.
        mode: ``clinical`` or ``evaluation``, as the box ran then; empty where nobody knows any more.
        point: The operating point that was used.
        threshold: Of it.
    """

    package: str
    version: str
    finding: str
    mode: str
    point: str
    threshold: float

    @property
    def scale(self) -> Scale:
        """Whose scores can be compared."""
        return Scale(package=self.package, version=self.version, finding=self.finding, mode=self.mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A version of a package in one mode: its scores mean the same whatever the operating point."""

    package: str
    version: str
    finding: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share with what it rests on; ``low`` and ``high``: its 95 % interval."""

    numerator: int
    denominator: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure that is reckoned from shares, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(slots=True, kw_only=True)
class Figure:
    """One setting over a span of days."""

    setting: Setting
    #: So long it was the one in use, and when it ended its first and its last study.
    days: float = 0.0
    first_at: datetime | None = None
    last_at: datetime | None = None
    #: Studies that it was looked for in.
    looked: int = 0
    flagged: int = 0
    #: Flagged studies of which a radiologist signed something about this finding.
    reviewed: int = 0
    right: int = 0
    wrong: int = 0
    #: Studies of which nothing was flagged that chance chose; and those that were reviewed.
    sampled: int = 0
    sample_reviewed: int = 0
    sample_missed: int = 0
    #: Missed findings that were added outside the sample: no share of anything.
    missed_elsewhere: int = 0

    @property
    def a_day(self) -> float:
        """Studies flagged a day, of at least one day."""
        return self.flagged / max(self.days, 1.0)

    @property
    def undetermined(self) -> int:
        """Reviewed, and the images did not allow to say."""
        return self.reviewed - self.right - self.wrong

    @property
    def unflagged(self) -> int:
        """Studies in which it was looked for and not flagged."""
        return self.looked - self.flagged

    @property
    def ppv(self) -> Share | None:
        """Of what was flagged and judged: how much was right. None under ``FEWEST``."""
        return share(self.right, self.right + self.wrong)

    @property
    def sensitivity(self) -> Estimate | None:
        """Flagged and there over all that is there, with the misses estimated from the sample. None under ``FEWEST``.

        The interval joins the ends of two intervals of 97.5 % each, so it is rather too wide than too narrow.
        """
        judged = self.right + self.wrong
        if judged < FEWEST or self.sample_reviewed < FEWEST or not self.flagged:
            return None
        found, found_low, found_high = _scaled(self.right, judged, self.flagged)
        missed, missed_low, missed_high = _scaled(self.sample_missed, self.sample_reviewed, self.unflagged)
        if found + missed == 0:
            return None
        return Estimate(
            value=found / (found + missed),
            low=found_low / (found_low + missed_high) if found_low + missed_high else 0.0,
            high=found_high / (found_high + missed_low),
        )


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What another threshold would have flagged of the stored scores; who was never looked at stays unknown."""

    name: str
    threshold: float
    days: float = 0.0
    flagged: int = 0
    there: int = 0
    not_there: int = 0

    @property
    def a_day(self) -> float:
        """Studies flagged a day, of at least one day."""
        return self.flagged / max(self.days, 1.0)

    @property
    def unknown(self) -> int:
        """Nobody looked, or could not say."""
        return self.flagged - self.there - self.not_there

    @property
    def ppv(self) -> Share | None:
        """Of the judged ones; None under ``FEWEST``."""
        return share(self.there, self.there + self.not_there)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One finding of one analysis, with what a person said of it."""

    study_id: int
    setting: Setting
    at: datetime
    #: Until the next case of this finding by this package, in whatever setting; of the last one until now.
    held_days: float
    score: float
    flagged: bool
    reviewed: bool
    presence: Presence | None
    is_right: bool | None
    is_sampled: bool


def wilson(successes: int, n: int, z: float = _Z95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927; Newcombe 1998, method 3).

    Args:
        successes: 0 to n.
        n: At least 1.
        z: Standard normal quantile; 95 % two-sided by default.
    """
    p, zz = successes / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    # At the ends the interval ends there: floating point must not say a hair less.
    return (0.0 if successes == 0 else max(0.0, centre - half)), (1.0 if successes == n else min(1.0, centre + half))


def share(numerator: int, denominator: int) -> Share | None:
    """A share with its interval; None where it rests on fewer than ``FEWEST``."""
    if denominator < FEWEST:
        return None
    low, high = wilson(numerator, denominator)
    return Share(numerator=numerator, denominator=denominator, value=numerator / denominator, low=low, high=high)


def figure_of(setting: Setting, ones: Iterable[Scored]) -> Figure:
    """Every case counted once, in its place; cases in the order of time."""
    figure = Figure(setting=setting)
    for one in ones:
        figure.looked += 1
        figure.days += one.held_days
        figure.first_at = figure.first_at or one.at
        figure.last_at = one.at
        if one.flagged:
            figure.flagged += 1
            figure.reviewed += one.reviewed
            figure.right += one.is_right is True
            figure.wrong += one.is_right is False
        elif one.is_sampled:
            figure.sampled += 1
            # Who could not judge says nothing of misses.
            figure.sample_reviewed += one.is_right is not None
            figure.sample_missed += one.is_right is False
        else:
            figure.missed_elsewhere += one.is_right is False
    return figure


def replayed(name: str, threshold: float, ones: Iterable[Scored]) -> Replayed:
    """What a threshold would have flagged of cases of one scale."""
    found = Replayed(name=name, threshold=threshold)
    for one in ones:
        found.days += one.held_days
        if one.score >= threshold:
            found.flagged += 1
            # Of a case that was flagged, a person said whether that was right; of another, whether it is there.
            is_there = one.is_right if one.flagged else (None if one.is_right is None else not one.is_right)
            found.there += is_there is True
            found.not_there += is_there is False
    return found


def _scaled(successes: int, n: int, total: int) -> tuple[float, float, float]:
    low, high = wilson(successes, n, _Z975)
    return total * successes / n, total * low, total * high
