"""Whether alerts come more often, or more rarely, than on the same boxes before: a test that may be looked at often.

Each box is a stratum of its own: flagged analyses of all, before and now. Given both sums, how many of the flagged ones
are new follows Fisher's noncentral hypergeometric law, so that the rate before, which is itself only counted, and boxes
that see other patients do no harm. The hypothesis is that the odds changed by less than the tolerance.

Looks are taken where n has doubled: look k at n >= 50 * 2^k, once, at the level alpha / 2^(k+1), half of it for each
side. The levels of all looks add up to alpha, so whatever the number of looks the chance of a false stop is below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

#: Analyses before the first look.
FIRST = 50
_MOST_LOOKS = 24
#: Above it the sum of many boxes is normal enough; below, it is exact.
_EXACT = 20_000
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Stratum:
    """One box: analyses, and those that flagged something, of the version before and of this one."""

    n_before: int
    k_before: int
    n_now: int
    k_now: int


def look_of(n: int) -> int | None:
    """The number of the look that ``n`` analyses allow; None before the first."""
    return None if n < FIRST else min(int(math.log2(n / FIRST)), _MOST_LOOKS - 1)


def level(alpha: float, look: int) -> float:
    """What a look may spend of ``alpha``, both sides together."""
    return alpha * 2.0 ** -(look + 1)


def tails(strata: Sequence[Stratum], tolerance: float) -> tuple[float, float]:
    """How likely so many flagged ones are, or more; and so few, or fewer; each if the odds changed by the tolerance."""
    seen = sum(one.k_now for one in strata)
    return _upper(strata, tolerance, seen), 1.0 if not strata else _lower(strata, 1.0 / tolerance, seen)


def odds_ratio(strata: Sequence[Stratum]) -> float | None:
    """By how much the odds changed (Mantel and Haenszel); None where nothing can be said."""
    above = below = 0.0
    for one in strata:
        total = one.n_before + one.n_now
        if total:
            above += one.k_now * (one.n_before - one.k_before) / total
            below += one.k_before * (one.n_now - one.k_now) / total
    return above / below if below else None


def needed(n_before: int, k_before: int, *, alpha: float, power: float, factor: float, tolerance: float) -> int | None:
    """How many analyses it takes to see a change that matters, in either direction, with the power asked for.

    Args:
        n_before: Analyses of the version before.
        k_before: Flagged ones among them.
        alpha: Of all looks together.
        power: At the look with the n that is returned.
        factor: Smallest change of the odds that matters, > tolerance.
        tolerance: A change that is none.

    Returns:
        The n of that look; None: with so little before, no number of analyses is enough.
    """
    if factor <= tolerance or k_before == 0 or k_before >= n_before:
        return None
    odds = k_before / (n_before - k_before)
    known = 1 / k_before + 1 / (n_before - k_before)
    distance = math.log(factor / tolerance)
    for look in range(_MOST_LOOKS):
        n = FIRST << look
        reach = -_NORMAL.inv_cdf(level(alpha, look) / 2) + _NORMAL.inv_cdf(power)
        if all(distance >= reach * math.sqrt(known + _spread(n, odds * f)) for f in (factor, 1 / factor)):
            return n
    return None


def _spread(n: int, odds: float) -> float:
    """Variance of the logarithm of odds that were counted on ``n``."""
    rate = odds / (1 + odds)
    return 1 / (n * rate) + 1 / (n * (1 - rate))


def _upper(strata: Sequence[Stratum], odds: float, seen: int) -> float:
    if not strata:
        return 1.0
    low, weights = _law(strata, odds)
    if weights is None:
        mean, deviation = low
        return 1.0 if not deviation else _NORMAL.cdf((mean - seen + 0.5) / deviation)
    return float(min(1.0, weights[max(0, seen - int(low[0])) :].sum()))


def _lower(strata: Sequence[Stratum], odds: float, seen: int) -> float:
    low, weights = _law(strata, odds)
    if weights is None:
        mean, deviation = low
        return 1.0 if not deviation else _NORMAL.cdf((seen + 0.5 - mean) / deviation)
    return float(min(1.0, weights[: max(0, seen - int(low[0])) + 1].sum()))


def _law(strata: Sequence[Stratum], odds: float) -> tuple[tuple[float, float], NDArray[np.float64] | None]:
    """Of the sum of new flagged ones: its lowest value with all weights, or mean and deviation where it is wide."""
    laws = [_one(one, odds) for one in strata]
    if sum(len(weights) - 1 for _, weights in laws) > _EXACT:
        mean = variance = 0.0
        for low, weights in laws:
            at = low + np.arange(len(weights))
            middle = float((at * weights).sum())
            mean += middle
            variance += float(((at - middle) ** 2 * weights).sum())
        return (mean, math.sqrt(variance)), None
    lowest, total = 0, np.ones(1)
    for low, weights in laws:
        lowest += low
        total = np.convolve(total, weights)
    return (float(lowest), 0.0), total


def _one(one: Stratum, odds: float) -> tuple[int, NDArray[np.float64]]:
    """Of one box: the lowest number that is possible, and the weights from there on."""
    flagged = one.k_before + one.k_now
    low, high = max(0, flagged - one.n_before), min(flagged, one.n_now)
    x = np.arange(low, high, dtype=np.float64)
    # Of each weight to the one before it; their logarithms neither overflow nor vanish.
    steps = np.log((one.n_now - x) * (flagged - x) * odds) - np.log((x + 1) * (one.n_before - flagged + x + 1))
    logs = np.concatenate([np.zeros(1), np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    return low, weights / weights.sum()
