"""Which analysis goes to the worker next. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.store.analyses import Queued

#: An analysis that has waited this share of its deadline counts as one category more urgent, so that nobody starves.
AGING_SHARE = 1 / 3


def next_analysis(queued: Sequence[Queued], now_mono: float) -> Queued | None:
    """The most urgent category first, within it STAT, then arrival; backlog last, newest first.

    Args:
        queued: What waits; those whose required packages have not ended yet are left out by the caller.
        now_mono: The monotonic clock.
    """
    live = [one for one in queued if not one.late]
    if live:
        return min(live, key=lambda one: (_category(one, now_mono), not one.stat, one.ready_mono, one.id))
    return max(queued, key=lambda one: (one.ready_mono, one.id), default=None)


def _category(one: Queued, now_mono: float) -> int:
    waited = max(0.0, now_mono - one.ready_mono)
    return max(1, one.category - int(waited / (one.deadline_s * AGING_SHARE)))


def is_overdue(one: Queued, now_mono: float) -> bool:
    """Whether the deadline from READY has passed; backlog has none."""
    return not one.late and now_mono - one.ready_mono >= one.deadline_s
