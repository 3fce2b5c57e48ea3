"""Results of many boxes, read and summed: by model, and by site. Everything within a ``Scope``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select, true

from appliance.fleet.server import tables as t
from appliance.fleet.server.console.figures import SiteFigures, Sums, Wanted, first_hour, order
from appliance.fleet.server.registry import DeviceState, Scope

#: Sites on a page.
PAGE = 20
_MOST = 20_000
_COUNTS = ("n", "nothing_flagged", "suppressed", "reviewed", "agreed")


def over_all(connection: Connection, scope: Scope, wanted: Wanted, *, now: datetime) -> list[Sums]:
    """By package, version, role and mode, over all sites that are wanted."""
    return _sums(connection, scope, wanted, now, None)


def by_site(
    connection: Connection, scope: Scope, wanted: Wanted, *, now: datetime, after: str = "", limit: int = PAGE
) -> tuple[list[SiteFigures], str]:
    """Sites in the order of their names, and what asks for the next page.

    Args:
        connection: Of ``db.read``.
        scope: Who asks.
        wanted: Of which results.
        now: The server's clock.
        after: Id of the last site of the page before.
        limit: At most so many sites.
    """
    s, d, h = t.site.c, t.device.c, t.health_now.c
    enrolled = and_(d.site == s.id, d.state == str(DeviceState.ENROLLED))
    asked = (
        select(
            t.site,
            func.count(d.id).label("boxes"),
            func.count(case((h.mode == "evaluation", 1))).label("in_evaluation"),
        )
        .outerjoin(t.device, enrolled)
        .outerjoin(t.health_now, h.device == d.id)
        .where(scope.holds(s.tenant), _of_site(wanted))
        .group_by(*s)
    )
    last = (
        connection.execute(select(s.name, s.id).where(s.id == after, scope.holds(s.tenant))).first() if after else None
    )
    if last is not None:
        asked = asked.where(or_(s.name > last.name, and_(s.name == last.name, s.id > last.id)))
    rows = connection.execute(asked.order_by(s.name, s.id).limit(limit + 1)).all()
    shown = rows[:limit]
    found: dict[str, list[Sums]] = {}
    for one in _sums(connection, scope, wanted, now, [row.id for row in shown]) if shown else ():
        found.setdefault(one.site, []).append(one)
    lines = [SiteFigures(row, row.boxes, row.in_evaluation, found.get(row.id, ())) for row in shown]
    return lines, shown[-1].id if len(rows) > limit else ""


def everything_by_site(connection: Connection, scope: Scope, wanted: Wanted, *, now: datetime) -> list[SiteFigures]:
    """All sites at once, for a file."""
    return by_site(connection, scope, wanted, now=now, limit=_MOST)[0]


def packages_of(connection: Connection, scope: Scope) -> list[tuple[str, str]]:
    """Name and version of what boxes have or had, in order."""
    c = t.package_state.c
    asked = select(c.package, c.version).distinct().join(t.device, t.device.c.id == c.device)
    rows = connection.execute(asked.where(scope.holds(t.device.c.tenant)).order_by(c.package, c.version).limit(500))
    return [(row.package, row.version) for row in rows]


def _of_site(wanted: Wanted) -> ColumnElement[bool]:
    if not (text := wanted.site.strip()):
        return true()
    s = t.site.c
    return or_(s.id.startswith(text, autoescape=True), func.lower(s.name).startswith(text.lower(), autoescape=True))


def _hours(
    connection: Connection, scope: Scope, wanted: Wanted, now: datetime, sites: Sequence[str] | None
) -> tuple[ColumnElement[bool], ...]:
    """For a WHERE over ``results_hour`` alone: of which boxes, and from which midnight on."""
    c, d, s = t.results_hour.c, t.device.c, t.site.c
    zones = connection.scalars(select(s.zone).distinct().where(scope.holds(s.tenant))).all()
    begins = {zone: first_hour(zone, wanted.period, now) for zone in zones}
    boxes = select(d.id).join(t.site, s.id == d.site).where(scope.holds(d.tenant), _of_site(wanted))
    if sites is not None:
        boxes = boxes.where(d.site.in_(sites))
    found = [c.hour >= min(begins.values(), default=now), c.hour <= now, c.device.in_(boxes)]
    if len(set(begins.values())) > 1:
        there = {zone: select(d.id).join(t.site, s.id == d.site).where(s.zone == zone) for zone in zones}
        found.append(or_(*(and_(c.hour >= begin, c.device.in_(there[zone])) for zone, begin in begins.items())))
    for column, value in ((c.package, wanted.package), (c.version, wanted.version), (c.role, wanted.role)):
        if value:
            found.append(column == value)
    return tuple(found)


def _sums(
    connection: Connection, scope: Scope, wanted: Wanted, now: datetime, sites: Sequence[str] | None
) -> list[Sums]:
    """Hours are summed box by box before anything is joined, equal documents once (measured: 12 s against 0.3 s)."""
    c, d, h = t.results_hour.c, t.device.c, t.health_now.c
    hours = _hours(connection, scope, wanted, now, sites)
    which = (c.device, c.package, c.version, c.role)
    told = (
        select(
            *which,
            c.flagged,
            c.not_analysed,
            *(func.sum(c[name]).label(name) for name in _COUNTS),
            func.sum(c.p95_ms * c.n).label("weighed_ms"),
            func.sum(case((c.p95_ms.is_not(None), c.n), else_=0)).label("timed"),
            func.max(c.p95_ms).label("slowest_ms"),
            func.count().label("times"),
        )
        .where(*hours)
        .group_by(*which, c.flagged, c.not_analysed)
        .subquery("told")
    )
    key = [told.c.package, told.c.version, told.c.role, func.coalesce(h.mode, "").label("mode")]
    key += [] if sites is None else [d.site]
    rows = connection.execute(
        select(
            *key,
            told.c.flagged,
            told.c.not_analysed,
            *(func.sum(told.c[name]).label(name) for name in (*_COUNTS, "weighed_ms", "timed", "times")),
            func.max(told.c.slowest_ms).label("slowest_ms"),
        )
        .join(t.device, d.id == told.c.device)
        .outerjoin(t.health_now, h.device == d.id)
        .group_by(*key, told.c.flagged, told.c.not_analysed)
    )
    found: dict[tuple[Any, ...], Sums] = {}
    timed: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        which_one = tuple(row)[: len(key)]
        one = found.setdefault(
            which_one,
            Sums(
                site="" if sites is None else row.site,
                package=row.package,
                version=row.version,
                role=row.role,
                mode=row.mode,
            ),
        )
        for name in _COUNTS:
            setattr(one, name, getattr(one, name) + int(getattr(row, name)))
        for sums, document in ((one.flagged, row.flagged), (one.not_analysed, row.not_analysed)):
            for name, n in document.items():
                sums[name] = sums.get(name, 0) + int(n) * int(row.times)
        one.slowest_ms = max(filter(None, (one.slowest_ms, row.slowest_ms)), default=None)
        weight = timed.setdefault(which_one, [0.0, 0.0])
        weight[0] += float(row.weighed_ms or 0)
        weight[1] += float(row.timed)
        one.typical_ms = weight[0] / weight[1] if weight[1] else None
    _newest(connection, found, hours, with_site=sites is not None)
    return sorted(found.values(), key=order)


def _newest(
    connection: Connection,
    found: dict[tuple[Any, ...], Sums],
    hours: tuple[ColumnElement[bool], ...],
    *,
    with_site: bool,
) -> None:
    """How many boxes there are, and the drift that each told last."""
    c, d, h = t.results_hour.c, t.device.c, t.health_now.c
    which = (c.device, c.package, c.version, c.role)
    last = select(*which, func.max(c.hour).label("hour")).where(*hours).group_by(*which).subquery("last")
    same = and_(*(c[name] == last.c[name] for name in ("device", "package", "version", "role", "hour")))
    key = [c.package, c.version, c.role, func.coalesce(h.mode, "").label("mode")] + ([d.site] if with_site else [])
    rows = connection.execute(
        select(*key, c.psi)
        .select_from(last)
        .join(t.results_hour, same)
        .join(t.device, d.id == c.device)
        .outerjoin(t.health_now, h.device == d.id)
    )
    for row in rows:
        one = found[tuple(row)[: len(key)]]
        one.boxes += 1
        for name, value in row.psi.items():
            one.psi[name] = max(float(value), one.psi.get(name, 0.0))
