"""What the page of one box is made of, read in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.engine import Row

from appliance.fleet.server import query
from appliance.fleet.server import tables as t
from appliance.fleet.server.console.freezes import holds_over
from appliance.fleet.server.console.people import names_of
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.uploads import Upload, list_uploads

#: How far back the figures of packages go.
RESULTS = timedelta(days=7)
_JOBS = 20
_STEPS = 200
_OVER = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One box.

    Attributes:
        line: As in lists.
        health: Body of the newest ``up/health``; empty before the first.
        issues: Those that stand, the latest first.
        results: By package, version and role over ``RESULTS``.
        jobs: The newest, with ``steps`` by id, oldest first.
        twin: What it should be and says that it is; None before the first.
        certificates: The newest first.
        people: What stands on pages for accounts.
        floor: Number of the record up to which nothing is missing here.
        holds: Those that stand over it.
        uploads: Logs that it was asked for, by job.
    """

    line: query.Line
    health: dict[str, Any]
    issues: list[Row[Any]]
    results: list[dict[str, Any]]
    engines: list[Row[Any]]
    equipment: list[Row[Any]]
    jobs: list[Row[Any]]
    steps: dict[str, list[dict[str, Any]]]
    twin: Row[Any] | None
    certificates: list[Row[Any]]
    people: dict[int, str]
    floor: int
    holds: list[Row[Any]]
    uploads: dict[str, Upload]


def board_of(connection: Connection, scope: Scope, device: str, *, now: datetime) -> Board:
    """Read it.

    Raises:
        NotFoundError: There is none of that id in the scope.
    """
    line = query.device(connection, scope, device, now=now)
    health = connection.execute(select(t.health_now.c.body).where(t.health_now.c.device == device)).scalar()
    i, j, c = t.issue_state.c, t.job.c, t.certificate.c
    issues = connection.execute(
        select(t.issue_state).where(i.device == device, i.cleared_at.is_(None)).order_by(i.raised_at.desc(), i.ref)
    ).all()
    jobs = connection.execute(select(t.job).where(j.device == device).order_by(j.ctr.desc()).limit(_JOBS)).all()
    twin = connection.execute(select(t.twin).where(t.twin.c.device == device)).first()
    certificates = connection.execute(
        select(t.certificate).where(c.device == device).order_by(c.not_after.desc()).limit(_OVER)
    ).all()
    numbers = [row.acknowledged_by for row in issues] + [row.shelved_by for row in issues]
    numbers += [row.made_by for row in jobs] + ([twin.made_by] if twin else [])
    floor = connection.execute(
        select(t.stream.c.floor).where(t.stream.c.device == device).order_by(t.stream.c.number.desc()).limit(1)
    ).scalar()
    e, q = t.engine_state.c, t.equipment.c
    return Board(
        line=line,
        health=health or {},
        issues=list(issues),
        results=_results(connection, device, now),
        engines=list(connection.execute(select(t.engine_state).where(e.device == device).order_by(e.package))),
        equipment=list(connection.execute(select(t.equipment).where(q.device == device).order_by(q.source))),
        jobs=list(jobs),
        steps=_steps(connection, scope, device),
        twin=twin,
        certificates=list(certificates),
        people=names_of(connection, [one for one in numbers if one is not None]),
        floor=int(floor or 0),
        holds=holds_over(connection, line.row.tenant, line.row.site, device, now=now),
        uploads={one.job: one for one in list_uploads(connection, scope, device)},
    )


def _results(connection: Connection, device: str, now: datetime) -> list[dict[str, Any]]:
    """Sums, each a count beside what it is of. Findings and reasons are documents, so they are added up here."""
    c = t.results_hour.c
    rows = connection.execute(
        select(t.results_hour).where(c.device == device, c.hour >= now - RESULTS, c.hour <= now).order_by(c.hour)
    )
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    names = ("n", "nothing_flagged", "suppressed", "reviewed", "agreed")
    for row in rows:
        key = (row.package, row.version, row.role)
        sums = found.setdefault(
            key,
            dict(zip(("package", "version", "role"), key, strict=True))
            | dict.fromkeys(names, 0)
            | {"flagged": {}, "not_analysed": {}, "slowest_ms": None},
        )
        for name in names:
            sums[name] += getattr(row, name)
        for name in ("flagged", "not_analysed"):
            for word, n in getattr(row, name).items():
                sums[name][word] = sums[name].get(word, 0) + n
        if row.p95_ms is not None:
            sums["slowest_ms"] = max(sums["slowest_ms"] or 0.0, row.p95_ms)
    return [found[key] for key in sorted(found)]


def _steps(connection: Connection, scope: Scope, device: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in reversed(query.timeline(connection, scope, device, kinds=("job",), limit=_STEPS)):
        steps = found.setdefault(row.body["job"], [])
        if steps and steps[-1]["state"] == row.body["state"]:
            steps.pop()  # of a download that tells how far it is, the newest
        steps.append({**row.body, "rx_at": row.rx_at})
    return found
