"""Which analysis goes to the worker next. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.records import Role
from appliance.store.analyses import Queued

#: An analysis that has waited this share of its deadline counts as one category more urgent, so that nobody starves.
AGING_SHARE = 1 / 3


def next_analysis(queued: Sequence[Queued], now_mono: float) -> Queued | None:
    """The most urgent category first, within it STAT, then arrival; then backlog, newest first; last what is not live.

    Args:
        queued: What waits; those whose required packages have not ended yet are left out by the caller.
        now_mono: The monotonic clock.
    """
    # Nobody waits for a silent or shadow analysis: it takes what the live ones leave.
    live = [one for one in queued if one.role is Role.LIVE]
    for some in (live, queued):
        fresh = [one for one in some if not one.late]
        if fresh:
            return min(fresh, key=lambda one: (_category(one, now_mono), not one.stat, one.ready_mono, one.id))
        if some:
            return max(some, key=lambda one: (one.ready_mono, one.id))
    return None


def _category(one: Queued, now_mono: float) -> int:
    waited = max(0.0, now_mono - one.ready_mono)
    return max(1, one.category - int(waited / (one.deadline_s * AGING_SHARE)))


def is_overdue(one: Queued, now_mono: float) -> bool:
    """Whether the deadline from READY has passed; backlog has none."""
    return not one.late and now_mono - one.ready_mono >= one.deadline_s
