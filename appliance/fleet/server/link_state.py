"""Whether a box is there: births, last wills and heartbeats, of the session and the database that are current."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, case, or_
from sqlalchemy.dialects import postgresql, sqlite

from appliance.fleet.server import tables as t
from appliance.fleet.server.admit import Refusal, RefusedError
from appliance.fleet.server.db import upsert
from appliance.fleet.server.registry import due_at
from appliance.fleet.wire import Status

_SAID = ("online", "why", "sess", "stream", "boot", "agent", "nonce", "clk")


class LinkStates:
    """The statuses of one group. Every process sees each, and some twice, as the broker retains them: all the same.

    A session is counted up by its box before each connection. An offline of an older one means nothing; the offline of
    a session ends it for good; a new database counts from one again, and is known by its stream.
    """

    def __init__(self, devices: Mapping[str, Any], streams: Mapping[tuple[str, str], int], now: datetime) -> None:
        """Begin with what is known.

        Args:
            devices: ``Admission.devices``.
            streams: Number of each stream by device and id.
            now: The server's clock.
        """
        self._devices = devices
        self._streams = streams
        self._now = now
        self._said: list[dict[str, Any]] = []
        self._seen: set[str] = set()

    def say(self, device: str, d: Status) -> None:
        """A status came.

        Raises:
            RefusedError: From a database that this box no longer has.
        """
        current = self._devices[device].stream or ""
        other = bool(d.stream) and d.stream != current
        if other and self._streams.get((device, d.stream), 0) < self._streams.get((device, current), 0):
            raise RefusedError(Refusal.OLD_STREAM, device)
        said = {name: getattr(d, name) for name in _SAID}
        self._said.append({**said, **self._times(device), "device": device, "fresh": other and d.online})

    def see(self, device: str) -> None:
        """A live word of it came."""
        self._seen.add(device)

    def write(self, connection: Connection) -> None:
        """Bring ``status`` up to it."""
        if self._said:
            connection.execute(_statement(connection.dialect.name), sorted(self._said, key=lambda row: row["device"]))
        # Whoever speaks before its birth came is there; the birth, of whatever session, says more.
        rows = [{"device": device, "online": True, "sess": 0, **self._times(device)} for device in self._seen]
        upsert(connection, t.status, rows, keep=("online", "sess", "since_at"))

    def _times(self, device: str) -> dict[str, Any]:
        due = due_at(self._now, self._devices[device].every_s)
        return {"since_at": self._now, "last_seen_at": self._now, "due_at": due}


def _statement(dialect: str) -> Any:
    make = sqlite.insert if dialect == "sqlite" else postgresql.insert
    old = t.status.c
    statement = make(t.status).values({column.name: bindparam(column.name) for column in old})
    new = statement.excluded
    lives = new.online.is_(True)
    later = or_(
        new.sess > old.sess,
        and_(new.sess == old.sess, old.online.is_(True), new.online.is_(False)),
        bindparam("fresh", type_=t.status.c.online.type),
    )
    # A last will tells nothing but the end of its session.
    by_birth = ("stream", "boot", "agent", "nonce", "clk", "last_seen_at", "due_at")
    values: dict[str, Any] = {name: case((lives, new[name]), else_=old[name]) for name in by_birth}
    values |= {name: new[name] for name in ("online", "why", "sess")}
    values["since_at"] = case((new.online == old.online, old.since_at), else_=new.since_at)
    return statement.on_conflict_do_update(index_elements=["device"], set_=values, where=later)
