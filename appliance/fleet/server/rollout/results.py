"""What boxes told of a version in hours of results, and of the version before on the same boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, or_, select, true

from appliance.fleet.server import tables as t
from appliance.fleet.server.rollout.gates import Times
from appliance.fleet.server.rollout.sequential import Stratum
from appliance.fleet.server.rollout.watch import Box
from appliance.fleet.wire_jobs import JobState

_BEFORE = timedelta(days=14)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_RUNS = frozenset({JobState.SOAKING, JobState.SUCCEEDED})
_NOT_READY = frozenset({"rejected", "fallback"})


def before_of(connection: Connection, device: str, package: str, version: str, now: datetime) -> dict[str, Any]:
    """What served on a box, and how it fared there in the last two weeks: what a wave is held against.

    Args:
        connection: Any transaction.
        device: Which box.
        package: Of it all versions
        version: but this one.
        now: The server's clock.
    """
    p, r = t.package_state.c, t.results_hour.c
    served = connection.execute(
        select(p.version, p.role, p.digest).where(
            p.device == device, p.package == package, p.version != version, p.serves.is_(True)
        )
    ).all()
    found: dict[str, Any] = {}
    which = r.version != version
    # The one that serves patients; one that is silent beside it is no measure of it.
    first = next((row for row in served if row.role == "live"), served[0] if served else None)
    if first is not None:
        found = {"version": first.version, "role": first.role, "digest": first.digest}
        which = r.version == first.version
    rows = connection.execute(
        select(t.results_hour).where(
            r.device == device, r.package == package, which, r.role != "shadow", r.hour >= now - _BEFORE
        )
    )
    return {**found, **_sum(rows)}


def strata_of(
    connection: Connection, roll_out: Any, boxes: Sequence[Box], began: datetime, since: datetime | None
) -> list[Stratum]:
    """Alerts of each box, before and now."""
    now = _now(connection, roll_out, boxes, began, since)
    return [
        Stratum(int(before.get("n", 0)), int(before.get("k", 0)), int(seen["n"]), int(seen["k"]))
        for one in boxes
        if (seen := now.get(one.device)) is not None and (before := one.before or {})
    ]


def times_of(
    connection: Connection, roll_out: Any, boxes: Sequence[Box], began: datetime, since: datetime | None
) -> list[Times]:
    """The time that 19 of 20 analyses keep to, of each box, before and now; of hours the mean by their analyses."""
    now = _now(connection, roll_out, boxes, began, since)
    return [
        Times(int(before["ms_n"]), float(before["p95_ms"]), int(seen["ms_n"]), float(seen["p95_ms"]))
        for one in boxes
        if (seen := now.get(one.device)) is not None
        and (before := one.before or {})
        and before.get("ms_n")
        and seen.get("ms_n")
    ]


def engines_of(connection: Connection, roll_out: Any, boxes: Sequence[Box], since: datetime) -> dict[str, int]:
    """On how many boxes the version runs, and on how many of them without an engine of its own."""
    runs = [one.device for one in boxes if one.state in _RUNS]
    e = t.engine_state.c
    states = {
        row.device: row.state
        for row in connection.execute(
            select(e.device, e.state).where(e.package == roll_out.package, e.at >= since, e.device.in_(runs))
        )
    }
    return {"engines": len(runs), "not_ready": sum(state in _NOT_READY for state in states.values())}


def _now(
    connection: Connection, roll_out: Any, boxes: Sequence[Box], began: datetime, since: datetime | None
) -> dict[str, dict[str, float]]:
    """Sums of the version by box. Of boxes with few studies a whole day comes later, as one row from its beginning."""
    r = t.results_hour.c
    devices = {one.device for one in boxes}
    hour = began.replace(minute=0, second=0, microsecond=0)
    in_time = or_(and_(r.hours == 1, r.hour >= hour), and_(r.hours > 1, r.hour > hour - _DAY))
    if since is not None:
        in_time = r.hour >= since
    role = true() if roll_out.role == "shadow" else r.role != "shadow"
    rows: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(
        select(t.results_hour).where(r.package == roll_out.package, r.version == roll_out.version, role, in_time)
    ):
        if row.device in devices:
            rows[row.device].append(row)
    return {device: _sum(told) for device, told in rows.items()}


def _sum(rows: Iterable[Any]) -> dict[str, float]:
    """Analyses that gave a result, those that flagged something (suppressed alerts among them), and times."""
    n = k = ms_n = 0
    weighted = 0.0
    for row in rows:
        analysed = max(0, row.n - sum(row.not_analysed.values()))
        n += analysed
        k += min(analysed, max(0, analysed - row.nothing_flagged))
        if row.p95_ms is not None and analysed:
            ms_n += analysed
            weighted += analysed * row.p95_ms
    found: dict[str, float] = {"n": n, "k": k}
    if ms_n:
        found |= {"ms_n": ms_n, "p95_ms": weighted / ms_n}
    return found
