"""When a version that was just activated has to go again. Pure: counts of this box against its own last two weeks."""

from __future__ import annotations

from appliance.store.fleet_soak import Fared

#: Three ends of the worker in ten minutes: no wait for statistics.
_CRASHES = 3
#: Fewer events say nothing.
_FEWEST_ERRORS, _FEWEST_MISSED, _FEWEST_TIMES = 3, 5, 20
#: A rate may be twice what it was, and this much more.
_FACTOR, _MORE_ERRORS, _MORE_MISSED = 2.0, 0.05, 0.10
#: So may the time that 19 of 20 analyses keep to.
_MORE_MS = 500.0


def breach(now: Fared, before: Fared) -> str:
    """The code for which a version is rolled back; empty: it may stay.

    Args:
        now: How it fares since it was activated.
        before: How the version before it fared here; without analyses, every rate counts from zero.
    """
    if now.crashes >= _CRASHES:
        return "CRASHES"
    if now.errors >= _FEWEST_ERRORS and _rate(now.errors, now) > _FACTOR * _rate(before.errors, before) + _MORE_ERRORS:
        return "ERROR_RATE"
    if now.missed >= _FEWEST_MISSED and _rate(now.missed, now) > _FACTOR * _rate(before.missed, before) + _MORE_MISSED:
        return "NOT_ANALYSED_RATE" if before.n >= _FEWEST_TIMES else ""
    if min(now.n - now.missed, before.n - before.missed) >= _FEWEST_TIMES:
        was, is_now = before.p95_ms or 0.0, now.p95_ms or 0.0
        return "LATENCY" if is_now > _FACTOR * was + _MORE_MS else ""
    return ""


def _rate(count: int, of: Fared) -> float:
    return count / of.n if of.n else 0.0
