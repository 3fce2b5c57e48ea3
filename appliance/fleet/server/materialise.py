"""What a record says beyond being kept: the newest state of issues, packages, engines, jobs and sources, and figures.

Records come in any order and more than once. A row of a state names the record it comes from, and only a later one,
by (number of the stream, seq), changes it; so the end is the same whatever the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, case, or_, select, update

from appliance.fleet.server import tables as t
from appliance.fleet.server.db import insert_new, parted, upsert
from appliance.fleet.wire import WireError
from appliance.fleet.wire_jobs import JobState
from appliance.fleet.wire_records import (
    EngineChange,
    Equipment,
    HealthRollup,
    IssueChange,
    JobChange,
    PackageChange,
    Record,
    ResultsHour,
)

#: How far a box's clock may be ahead, and how old a row may be, for its moment to be drawn.
_AHEAD = timedelta(minutes=5)
_OLD = timedelta(days=400)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

#: In this order the tables are written, by every process, so that none waits for another crosswise.
_ORDER: tuple[Table, ...] = (
    t.health_point,
    t.results_hour,
    t.package_state,
    t.engine_state,
    t.issue_state,
    t.equipment,
)
_JOB_STATES = frozenset(map(str, JobState))


def moment(record: Record, now: datetime) -> datetime:
    """When it was, as well as anybody knows: by the box's clock where that can be right, else now."""
    if record.clk != "none":
        at = _EPOCH + timedelta(milliseconds=max(0, min(record.ts, 2**47)))
        if now - _OLD < at < now + _AHEAD:
            return at
    return now


class States:
    """The rows that follow from a group of records. ``add`` reads, ``write`` writes; nothing else touches them."""

    def __init__(self, now: datetime) -> None:
        """Collect, as of ``now`` by the server's clock."""
        self._now = now
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._jobs: list[dict[str, Any]] = []
        #: Device: highest counter of a job that one of its records names.
        self.counters: dict[str, int] = {}

    def add(self, device: str, stream: int, record: Record) -> None:
        """Take one in."""
        d = record.d
        source = {"device": device, "stream": stream, "seq": record.seq}
        at = moment(record, self._now)
        if isinstance(d, HealthRollup):
            body = d.model_dump(mode="json", exclude_none=True, exclude={"k"})
            self._put(t.health_point, {**source, "at": at, "body": body})
        elif isinstance(d, ResultsHour):
            self._put(t.results_hour, {**source, **_results(d)})
        elif isinstance(d, PackageChange):
            self._put(t.package_state, {**source, **_package(d, at)})
        elif isinstance(d, EngineChange):
            row = {"package": d.package, "state": d.state, "backend": d.backend or "", "at": at}
            row |= {"precision": d.precision or "", "build_ms": d.build_ms}
            self._put(t.engine_state, {**source, **row})
        elif isinstance(d, IssueChange):
            row = {"ref": d.ref, "code": d.code, "severity": d.severity or "", "box_state": d.state, "raised_at": at}
            self._put(t.issue_state, {**source, **row, "cleared_at": at if d.state == "cleared" else None})
        elif isinstance(d, Equipment):
            row = d.model_dump(mode="json", exclude={"k"})
            self._put(t.equipment, {**source, **row, "at": at})
        elif isinstance(d, JobChange):
            self._job(device, d)

    def write(self, connection: Connection) -> None:
        """Bring the tables up to it."""
        for table in _ORDER:
            rows = self._rows.get(table.name, [])
            upsert(connection, table, rows, change=_CHANGES.get(table.name), where=_later(table))
        self._write_jobs(connection)

    def _put(self, table: Table, row: dict[str, Any]) -> None:
        self._rows.setdefault(table.name, []).append(row)

    def _job(self, device: str, d: JobChange) -> None:
        self.counters[device] = max(self.counters.get(device, 0), d.ctr)
        if d.state in _JOB_STATES:
            row = {"state": d.state, "state_version": d.version, "code": d.code or "", "percent": d.percent}
            row |= {"figures": d.figures, "state_at": self._now}
            self._jobs.append({**row, "id": d.job, "device": device, "ctr": d.ctr})

    def _write_jobs(self, connection: Connection) -> None:
        if not self._jobs:
            return
        rows = sorted(self._jobs, key=lambda row: (row["id"], row["state_version"]))
        ids = {row["id"] for row in rows}
        asked = select(t.job.c.id)
        known = {one for part in parted(ids) for one in connection.scalars(asked.where(t.job.c.id.in_(part)))}
        # A server that was restored from a backup does not know what it asked for since; the box does.
        strange = [{**row, "op": "", "args": {}, "made_at": self._now} for row in rows if row["id"] not in known]
        if strange:
            insert_new(connection, t.job, strange)
        later = update(t.job).where(
            t.job.c.id == bindparam("of_job"),
            t.job.c.device == bindparam("of_device"),
            t.job.c.state_version < bindparam("state_version"),
        )
        changes = ("state", "state_version", "code", "percent", "figures", "state_at")
        connection.execute(
            later.values({name: bindparam(name) for name in changes}),
            [{**{k: row[k] for k in changes}, "of_job": row["id"], "of_device": row["device"]} for row in rows],
        )


def serve(connection: Connection, device: str, packages: Sequence[Any]) -> None:
    """What a box says that it runs now (``wire_records.PackageState``); what it does not name no longer serves."""
    gone = update(t.package_state).where(t.package_state.c.device == device, t.package_state.c.serves.is_(True))
    connection.execute(gone.values(serves=False))
    rows = [
        {
            "device": device,
            "package": one.package,
            "version": one.version,
            "digest": one.digest,
            "state": None,
            "state_at": None,
            "serves": True,
            "role": one.role,
            "backend": one.backend or "",
            "precision": one.precision or "",
            "points": one.points,
            "stream": 0,
            "seq": 0,
        }
        for one in packages
    ]
    upsert(connection, t.package_state, rows, keep=("state", "state_at", "stream", "seq"))


def hour_of(d: ResultsHour) -> datetime:
    """When the hour began.

    Raises:
        WireError: There is no such hour.
    """
    try:
        # The model has checked the form; strptime takes ten times as long.
        parts = (int(d.hour[:4]), int(d.hour[5:7]), int(d.hour[8:10]), int(d.hour[11:13]))
        return datetime(*parts, tzinfo=timezone.utc)
    except ValueError:
        raise WireError("ResultsHour: hour: there is none") from None


def _results(d: ResultsHour) -> dict[str, Any]:
    return {
        **d.model_dump(mode="json", exclude={"k", "hour", "ms"}),
        "hour": hour_of(d),
        "p50_ms": d.ms.p50,
        "p95_ms": d.ms.p95,
        "p99_ms": d.ms.p99,
    }


def _package(d: PackageChange, at: datetime) -> dict[str, Any]:
    row = {"package": d.package, "version": d.version, "digest": d.digest or "", "state": d.state, "state_at": at}
    return {**row, "serves": False, "role": "", "backend": "", "precision": "", "points": {}}


def _later(table: Table) -> Callable[[Any], ColumnElement[bool]]:
    c = table.c
    return lambda new: or_(new.stream > c.stream, and_(new.stream == c.stream, new.seq > c.seq))


def _package_changes(new: Any) -> dict[str, Any]:
    c = t.package_state.c
    kept = {name: c[name] for name in ("serves", "role", "backend", "precision", "points")}
    return {**kept, "digest": case((new.digest == "", c.digest), else_=new.digest)}


def _issue_changes(new: Any) -> dict[str, Any]:
    c = t.issue_state.c
    anew = new.box_state == "raised"
    return {
        "raised_at": case((anew, new.raised_at), else_=c.raised_at),
        "severity": case((new.severity == "", c.severity), else_=new.severity),
        # Who had seen the one before has not seen this one.
        "acknowledged_by": case((anew, None), else_=c.acknowledged_by),
        "acknowledged_at": case((anew, None), else_=c.acknowledged_at),
    }


_CHANGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "package_state": _package_changes,
    "issue_state": _issue_changes,
}
