"""What boxes said is kept for a while: records, then points of health as hourly means, results, refusals, sessions.

A round goes over all boxes, a few at a step, so that no box waits long for the database. Of each stream records go from
the lowest up, and its row remembers how far (``pruned``): what a box sends again from there is acknowledged and not
taken in (``ingest``), as if it were here. Of the stream that a box speaks on, only rows go up to which nothing can be
missing (``floor``); one that is still to come is never taken for one that is gone. The audit is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, select, tuple_, update

from appliance.fleet.server import tables as t
from appliance.fleet.server.config import KeepConfig
from appliance.fleet.server.db import upsert, write
from appliance.fleet.server.registry import DeviceState
from appliance.fleet.server.uploads import remove_uploads

_BOXES = 20
_ROWS = 1000
#: Longer than any session of the console lasts.
_SESSION = timedelta(days=1)
#: What an hour adds up, and of what it keeps the highest; of all else the mean.
_SUMS = frozenset({"minutes", "studies"})
_PEAKS = frozenset({"oldest_owed_s", "waiting", "temperature_c", "gpu_temperature_c", "throttled"})


class Pruner:
    """Goes round. ``step`` until it says that the round is over."""

    def __init__(self, engine: Engine, keep: KeepConfig, folder: Path) -> None:
        """Prune the database of ``engine`` and the files below ``folder``."""
        self._engine = engine
        self._keep = keep
        self._folder = folder
        self._after: str | None = ""

    def step(self, now: datetime) -> bool:
        """Do a bounded part. Returns whether the round goes on."""
        with write(self._engine) as connection:
            if self._after is not None:
                self._after = self._boxes(connection, self._after, now)
                return True
            more = self._rest(connection, now)
        if not more:
            self._after = ""
        return more

    def _boxes(self, connection: Connection, after: str, now: datetime) -> str | None:
        """Some boxes; returns after which one the next step goes on, None after the last."""
        d = t.device.c
        asked = select(d.id, d.state).where(d.id > after).order_by(d.id).limit(_BOXES)
        rows = connection.execute(asked).all()
        for row in rows:
            records = prune_records(
                connection,
                row.id,
                now - timedelta(days=self._keep.records_days),
                speaks=row.state == DeviceState.ENROLLED,
            )
            points = fold_points(connection, row.id, now - timedelta(days=self._keep.health_days))
            if max(records, points) >= _ROWS:  # the same box goes on
                return after
            after = row.id
        return None if len(rows) < _BOXES else after

    def _rest(self, connection: Connection, now: datetime) -> bool:
        """What is of no box, or found by its age alone."""

        def days(number: int) -> datetime:
            return now - timedelta(days=number)

        keep = self._keep
        gone = [
            _delete(connection, t.results_hour, t.results_hour.c.hour < days(keep.results_days)),
            _delete(connection, t.health_hour, t.health_hour.c.hour < days(keep.health_hours_days)),
            _delete(connection, t.refusal, t.refusal.c.last_at < days(keep.records_days)),
            _delete(connection, t.session, t.session.c.made_at < now - _SESSION),
            remove_uploads(connection, self._folder, before=days(keep.uploads_days), now=now),
        ]
        return max(gone) > 0


def prune_records(connection: Connection, device: str, before: datetime, *, speaks: bool) -> int:
    """Let records of a box go that came before then, from the lowest of each stream up. Returns how many, bounded."""
    s, r = t.stream.c, t.record.c
    streams = connection.execute(select(t.stream).where(s.device == device).order_by(s.number)).all()
    gone = 0

    def is_old(row: Any, pruned: int) -> bool:
        return bool(row.rx_at < before or row.seq <= pruned)

    for one in streams:
        # An older stream is of a database that the box no longer has: nothing comes of it any more.
        last = max(one.floor, one.pruned) if speaks and one is streams[-1] else one.top
        of_stream = (r.device == device, r.stream == one.stream)
        oldest = select(r.seq, r.rx_at).where(*of_stream, r.seq <= last).order_by(r.seq)
        through = n = 0
        first = connection.execute(oldest.limit(1)).first()
        if first is None or not is_old(first, one.pruned):
            continue  # as mostly
        for row in connection.execute(oldest.limit(_ROWS - gone)):
            if not is_old(row, one.pruned):
                break
            through, n = row.seq, n + 1
        connection.execute(delete(t.record).where(*of_stream, r.seq <= through))
        mark = update(t.stream).where(s.number == one.number, s.pruned < through)
        connection.execute(mark.values(pruned=through))
        gone += n
        if gone >= _ROWS:
            break
    return gone


def fold_points(connection: Connection, device: str, before: datetime) -> int:
    """Make points of health before then into means of their hours. Returns how many, bounded."""
    c, h = t.health_point.c, t.health_hour.c
    until = before.replace(minute=0, second=0, microsecond=0)
    asked = select(c.stream, c.seq, c.at, c.body).where(c.device == device, c.at < until).order_by(c.at).limit(_ROWS)
    rows = connection.execute(asked).all()
    if not rows:
        return 0
    hours: dict[datetime, list[dict[str, Any]]] = {}
    for row in rows:
        hours.setdefault(row.at.replace(minute=0, second=0, microsecond=0), []).append(row.body)
    known = {
        row.hour: (row.n, row.body)
        for row in connection.execute(select(t.health_hour).where(h.device == device, h.hour.in_(list(hours))))
    }
    made = []
    for hour, bodies in hours.items():
        n, mean = known.get(hour, (0, {}))
        for body in bodies:  # what came late joins what was folded before
            mean, n = fold(mean, n, body), n + 1
        made.append({"device": device, "hour": hour, "n": n, "body": mean})
    upsert(connection, t.health_hour, made)
    # By time, as the index has it; what came meanwhile within these hours has a key of its own and stays.
    keys = tuple_(c.device, c.stream, c.seq)
    connection.execute(delete(t.health_point).where(keys.in_([(device, row.stream, row.seq) for row in rows])))
    return len(rows)


def fold(mean: Mapping[str, Any], n: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of ``n`` bodies, and one more; of what one of them lacks, that of the other."""
    found: dict[str, Any] = dict(mean)
    for name, value in body.items():
        old = found.get(name)
        if isinstance(value, dict):
            found[name] = fold(old or {}, n, value)
        elif old is None:
            found[name] = value
        elif name in _SUMS:
            found[name] = old + value
        elif name in _PEAKS:
            found[name] = max(old, value)
        else:
            found[name] = (old * n + value) / (n + 1)
    return found


def _delete(connection: Connection, table: Table, which: Any) -> int:
    """Delete some of those; returns how many."""
    keys: Sequence[Any] = list(table.primary_key)
    some = connection.execute(select(*keys).where(which).limit(_ROWS)).all()
    if some:
        connection.execute(delete(table).where(tuple_(*keys).in_([tuple(row) for row in some])))
    return len(some)
