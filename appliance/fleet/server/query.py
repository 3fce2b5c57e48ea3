"""What pages ask: lists of boxes, one box, its timeline and plots, figures over many. Everything within a ``Scope``.

A list is paged by key (the number of the last box of the page before), so its tenth page costs what its first does,
and nothing is counted that is not asked for. What a page shows of its boxes beside their own row is read for those
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, case, exists, func, or_, select
from sqlalchemy.engine import Row

from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import DeviceState, Presence, Scope, find_device, presence, presence_is

PAGE = 50
_MOST = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """Which boxes; None does not ask.

    Attributes:
        code: An open issue of this code.
        package: One that serves, in ``version`` where that is given too.
        make: Of a source, in ``model`` where that is given too.
        text: The beginning of a box's id, name, serial number or number.
    """

    tenant: str | None = None
    site: str | None = None
    state: DeviceState | None = DeviceState.ENROLLED
    presence: Presence | None = None
    agent: str | None = None
    hardware: str | None = None
    code: str | None = None
    package: str | None = None
    version: str | None = None
    make: str | None = None
    model: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A box in a list.

    Attributes:
        row: Columns of ``device``, ``site_name``, and of ``status`` and ``health_now`` what lists show.
        issues: How many stand, by severity.
        packages: Those that serve.
    """

    row: Row[Any]
    presence: Presence
    issues: Mapping[str, int] = field(default_factory=dict)
    packages: Sequence[Row[Any]] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; ``after`` asks for the next, None at the end."""

    lines: tuple[Line, ...]
    after: int | None


def devices(
    connection: Connection, scope: Scope, wanted: Filter, *, now: datetime, after: int = 0, limit: int = PAGE
) -> Page:
    """Boxes in the order of their numbers.

    Args:
        connection: Of ``db.read``.
        scope: Who asks.
        wanted: Which.
        now: The server's clock.
        after: ``Page.after`` of the page before.
        limit: At most so many, and never more than 500.
    """
    limit = min(max(limit, 1), _MOST)
    asked = boxes(scope, wanted, now).where(t.device.c.number > after)
    rows = connection.execute(asked.order_by(t.device.c.number).limit(limit + 1)).all()
    shown = rows[:limit]
    return Page(lines_of(connection, shown, now), shown[-1].number if len(rows) > limit else None)


def boxes(scope: Scope, wanted: Filter, now: datetime) -> Select[Any]:
    """What a list asks, in no order yet: ``Line.row`` of the boxes that somebody wants and may see."""
    return _filtered(_lines(), scope, wanted, now)


def lines_of(connection: Connection, rows: Sequence[Row[Any]], now: datetime) -> tuple[Line, ...]:
    """Rows of ``boxes`` with what lists show beside them."""
    ids = [row.id for row in rows]
    issues, packages = _issues(connection, ids), _packages(connection, ids)
    return tuple(Line(row, presence(row, now), issues.get(row.id, {}), tuple(packages.get(row.id, ()))) for row in rows)


def how_many(connection: Connection, scope: Scope, wanted: Filter, *, now: datetime) -> dict[Presence, int]:
    """Boxes by presence; each word is there."""
    s = t.status.c
    word = case(
        (s.device.is_(None), str(Presence.NEVER)),
        (s.online.is_(False), str(Presence.OFFLINE)),
        (s.due_at < now, str(Presence.STALE)),
        else_=str(Presence.ONLINE),
    )
    joined = select(word, func.count()).select_from(t.device.outerjoin(t.status, s.device == t.device.c.id))
    found = {str(key): n for key, n in connection.execute(_filtered(joined, scope, wanted, now).group_by(word))}
    return {one: int(found.get(str(one), 0)) for one in Presence}


def device(connection: Connection, scope: Scope, device_id: str, *, now: datetime) -> Line:
    """One box.

    Raises:
        NotFoundError: There is none of that id in the scope.
    """
    find_device(connection, scope, device_id)
    row = connection.execute(_lines().where(t.device.c.id == device_id)).one()
    issues, packages = _issues(connection, [device_id]), _packages(connection, [device_id])
    return Line(row, presence(row, now), issues.get(device_id, {}), tuple(packages.get(device_id, ())))


def timeline(
    connection: Connection,
    scope: Scope,
    device_id: str,
    *,
    before: tuple[int, int] | None = None,
    kinds: Sequence[str] = (),
    limit: int = PAGE,
) -> list[Row[Any]]:
    """Records of a box, the latest first: ``number`` (of the stream), seq, k, ts, rx_at, body.

    Args:
        connection: Of ``db.read``.
        scope: Who asks.
        device_id: Which box.
        before: Number and seq of the last one of the page before.
        kinds: Only these; all where it is empty.
        limit: At most so many.

    Raises:
        NotFoundError: There is none of that id in the scope.
    """
    find_device(connection, scope, device_id)
    s, r = t.stream.c, t.record.c
    streams = select(s.number, s.stream).where(s.device == device_id).order_by(s.number.desc())
    if before is not None:
        streams = streams.where(s.number <= before[0])
    found: list[Any] = []
    # Stream by stream: within one, the key itself gives the order.
    for number, stream in connection.execute(streams).all():
        asked = (
            select(s.number, r.seq, r.k, r.ts, r.rx_at, r.body)
            .join(t.stream, (s.device == r.device) & (s.stream == r.stream))
            .where(r.device == device_id, r.stream == stream)
        )
        if before is not None and number == before[0]:
            asked = asked.where(r.seq < before[1])
        if kinds:
            asked = asked.where(r.k.in_(kinds))
        found += connection.execute(asked.order_by(r.seq.desc()).limit(min(limit, _MOST) - len(found))).all()
        if len(found) >= min(limit, _MOST):
            break
    return found


class Point(NamedTuple):
    """Of a plot."""

    at: datetime
    body: dict[str, Any]


def points(
    connection: Connection, scope: Scope, device_id: str, *, since: datetime, until: datetime, most: int = 2000
) -> list[Point]:
    """What a plot draws: ``at`` and ``body`` (a ``HealthRollup``) in order of time.

    Where single points are no longer kept, the mean of each hour, at its middle; ``minutes`` says of how much.

    Raises:
        NotFoundError: There is none of that id in the scope.
    """
    find_device(connection, scope, device_id)
    c, h = t.health_point.c, t.health_hour.c
    asked = select(c.at, c.body).where(c.device == device_id, c.at >= since, c.at < until)
    found = [Point(row.at, row.body) for row in connection.execute(asked.order_by(c.at).limit(most))]
    half = timedelta(minutes=30)
    hours = select(h.hour, h.body).where(h.device == device_id, h.hour >= since - half, h.hour < until - half)
    found += [Point(row.hour + half, row.body) for row in connection.execute(hours.order_by(h.hour).limit(most))]
    return sorted(found, key=lambda one: one.at)[:most]


def issues(
    connection: Connection, scope: Scope, *, code: str | None = None, after: tuple[datetime, str, str] | None = None
) -> list[Row[Any]]:
    """Issues that stand, the latest first, with ``number``, ``tenant`` and ``site`` of their box.

    Args:
        connection: Of ``db.read``.
        scope: Who asks.
        code: Only this one.
        after: raised_at, device and ref of the last one of the page before.
    """
    c = t.issue_state.c
    asked = (
        select(t.issue_state, t.device.c.number, t.device.c.tenant, t.device.c.site)
        .join(t.device, t.device.c.id == c.device)
        .where(c.cleared_at.is_(None), scope.holds(t.device.c.tenant))
    )
    if code is not None:
        asked = asked.where(c.code == code)
    if after is not None:
        at, box, ref = after
        same = (c.device > box) | ((c.device == box) & (c.ref > ref))
        asked = asked.where((c.raised_at < at) | ((c.raised_at == at) & same))
    return list(connection.execute(asked.order_by(c.raised_at.desc(), c.device, c.ref).limit(PAGE)))


def issue_counts(connection: Connection, scope: Scope) -> list[Row[Any]]:
    """``code``, ``severity`` and ``n`` of issues that stand, the most frequent first."""
    c = t.issue_state.c
    n = func.count().label("n")
    asked = (
        select(c.code, c.severity, n)
        .join(t.device, t.device.c.id == c.device)
        .where(c.cleared_at.is_(None), scope.holds(t.device.c.tenant))
        .group_by(c.code, c.severity)
    )
    return list(connection.execute(asked.order_by(n.desc(), c.code).limit(_MOST)))


def versions(connection: Connection, scope: Scope) -> list[Row[Any]]:
    """``package``, ``version``, ``role`` and ``n`` boxes on which it serves."""
    c = t.package_state.c
    n = func.count().label("n")
    asked = (
        select(c.package, c.version, c.role, n)
        .join(t.device, t.device.c.id == c.device)
        .where(c.serves.is_(True), scope.holds(t.device.c.tenant))
        .group_by(c.package, c.version, c.role)
    )
    return list(connection.execute(asked.order_by(c.package, n.desc(), c.version).limit(_MOST)))


def results(connection: Connection, scope: Scope, *, since: datetime, until: datetime) -> list[Row[Any]]:
    """Sums over the hours that began in a span, by ``site``, ``package``, ``version`` and ``role``.

    They are ``n``, ``nothing_flagged``, ``suppressed``, ``reviewed``, ``agreed``; ``slowest_ms`` is the highest p95.
    """
    c = t.results_hour.c
    by = (t.device.c.site, c.package, c.version, c.role)
    sums = [func.sum(c[name]).label(name) for name in ("n", "nothing_flagged", "suppressed", "reviewed", "agreed")]
    asked = (
        select(*by, *sums, func.max(c.p95_ms).label("slowest_ms"))
        .join(t.device, t.device.c.id == c.device)
        .where(c.hour >= since, c.hour < until, scope.holds(t.device.c.tenant))
        .group_by(*by)
    )
    return list(connection.execute(asked.order_by(*by)))


def refusals(connection: Connection, scope: Scope, device_id: str | None = None) -> list[Row[Any]]:
    """What was not taken in: ``device``, ``reason``, ``n``, ``first_at``, ``last_at``; the latest first."""
    c = t.refusal.c
    asked = select(t.refusal)
    if device_id is not None:
        asked = asked.where(c.device == device_id)
    if scope != Scope.everything():  # what names no box is the platform's to see
        asked = asked.join(t.device, t.device.c.id == c.device).where(scope.holds(t.device.c.tenant))
    return list(connection.execute(asked.order_by(c.last_at.desc()).limit(_MOST)))


def _lines() -> Select[Any]:
    s, h = t.status.c, t.health_now.c
    of_status = (s.online, s.sess, s.since_at, s.last_seen_at, s.due_at, s.agent, s.clk)
    of_health = (h.at.label("health_at"), h.mode, h.ai, h.skew_ms, h.backlog_s, h.oldest_owed_s, h.cert_days)
    return (
        select(t.device, t.site.c.name.label("site_name"), *of_status, *of_health)
        .join(t.site, t.site.c.id == t.device.c.site)
        .outerjoin(t.status, s.device == t.device.c.id)
        .outerjoin(t.health_now, h.device == t.device.c.id)
    )


def _filtered(asked: Select[Any], scope: Scope, wanted: Filter, now: datetime) -> Select[Any]:
    d = t.device.c
    asked = asked.where(scope.holds(d.tenant))
    equal = {
        d.tenant: wanted.tenant,
        d.site: wanted.site,
        d.hardware: wanted.hardware,
        t.status.c.agent: wanted.agent,
        d.state: str(wanted.state) if wanted.state else None,
    }
    for column, value in equal.items():
        if value is not None:
            asked = asked.where(column == value)
    if wanted.presence is not None:
        asked = asked.where(presence_is(wanted.presence, now))
    if wanted.code is not None:
        c = t.issue_state.c
        asked = asked.where(exists().where(c.device == d.id, c.code == wanted.code, c.cleared_at.is_(None)))
    if wanted.package is not None:
        p = t.package_state.c
        that = exists().where(p.device == d.id, p.package == wanted.package, p.serves.is_(True))
        asked = asked.where(that.where(p.version == wanted.version) if wanted.version else that)
    if wanted.make is not None:
        e = t.equipment.c
        that = exists().where(e.device == d.id, e.make == wanted.make)
        asked = asked.where(that.where(e.model == wanted.model) if wanted.model else that)
    if wanted.text:
        begins = [column.startswith(wanted.text, autoescape=True) for column in (d.id, d.name, d.serial)]
        if wanted.text.isascii() and wanted.text.isdigit() and len(wanted.text) < 10:
            begins.append(d.number == int(wanted.text))
        asked = asked.where(or_(*begins))
    return asked


def _issues(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    c = t.issue_state.c
    asked = (
        select(c.device, c.severity, func.count())
        .where(c.device.in_(ids), c.cleared_at.is_(None))
        .group_by(c.device, c.severity)
    )
    found: dict[str, dict[str, int]] = {}
    for box, severity, n in connection.execute(asked):
        found.setdefault(box, {})[severity] = n
    return found


def _packages(connection: Connection, ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    c = t.package_state.c
    asked = select(t.package_state).where(c.device.in_(ids), c.serves.is_(True)).order_by(c.device, c.package)
    found: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(asked):
        found.setdefault(row.device, []).append(row)
    return found
