"""What a list of thousands of boxes asks of the database: the first page, pages after, counts, filters."""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Callable
from typing import Any

from fleet_kit import DEALER, NOW, VENDOR, add_tree
from sqlalchemy import Connection, Engine, insert

from appliance.fleet.server import db, query, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.query import Filter
from appliance.fleet.server.registry import Presence, Scope, TenantKind

_HOSPITALS, _TRIES = 200, 5
_FILTERS = {
    "stale": Filter(presence=Presence.STALE),
    "offline": Filter(presence=Presence.OFFLINE),
    "issue": Filter(code="CODE_3"),
    "issue of nobody": Filter(code="NOPE"),
    "version": Filter(package="b", version="2.0"),
    "equipment": Filter(make="Rare", model="M"),
    "text": Filter(text="SN9999"),
    "three at once": Filter(presence=Presence.STALE, code="CODE_1", package="a"),
}


def page_figures(boxes: int) -> dict[str, Any]:
    """Milliseconds, the worst of a few tries: for the platform, for a dealer with half of it, for one hospital."""
    with tempfile.TemporaryDirectory() as folder:
        engine = db.open_engine(f"sqlite:///{folder}/fleet.db")
        try:
            db.migrate(engine)
            _fill(engine, boxes)
            return {"boxes": boxes, **_measure(engine, boxes)}
        finally:
            engine.dispose()


def _measure(engine: Engine, boxes: int) -> dict[str, float]:
    first, filters = 0.0, 0.0
    scopes: tuple[Callable[[Connection], Scope], ...] = (
        lambda _: Scope.everything(),
        lambda connection: Scope.of(connection, DEALER),
        lambda connection: Scope.of(connection, "hosp-00007"),
    )
    for scope in scopes:
        for after in (0, boxes // 2):
            first = max(first, _worst(engine, lambda c, s=scope, a=after: _page(c, s(c), Filter(), a)))
        for wanted in _FILTERS.values():
            filters = max(filters, _worst(engine, lambda c, s=scope, w=wanted: _page(c, s(c), w, 0)))
    return {"first_page_ms": first, "filter_ms": filters}


def _page(connection: Connection, scope: Scope, wanted: Filter, after: int) -> None:
    """What a list shows: its lines, and how many there are by presence."""
    query.devices(connection, scope, wanted, now=NOW, after=after)
    query.how_many(connection, scope, wanted, now=NOW)


def _worst(engine: Engine, ask: Callable[[Connection], None]) -> float:
    worst = 0.0
    for n in range(_TRIES + 1):
        begun = time.perf_counter()
        with db.read(engine) as connection:
            ask(connection)
        if n:
            worst = max(worst, (time.perf_counter() - begun) * 1000)
    return worst


def _fill(engine: Engine, boxes: int) -> None:
    numbers = range(1, boxes + 1)
    from_record = {"stream": 1, "seq": 1}
    with db.write(engine) as connection:
        add_tree(connection)
        for n in range(_HOSPITALS):
            parent = DEALER if n % 2 else VENDOR
            registry.add_tenant(connection, f"hosp-{n:05d}", "H", TenantKind.HOSPITAL, parent=parent, now=NOW)
            registry.add_site(connection, f"site-{n:05d}", f"hosp-{n:05d}", "S", now=NOW)
        rows: dict[Any, list[dict[str, Any]]] = {
            t.device: [
                {"number": n, "tenant": f"hosp-{n % _HOSPITALS:05d}", "site": f"site-{n % _HOSPITALS:05d}",
                 "serial": f"SN{n}", "state": "enrolled", "made_at": NOW, "id": _id(n)} for n in numbers
            ],
            t.status: [
                {"device": _id(n), "online": bool(n % 10), "sess": 1, "since_at": NOW, "last_seen_at": NOW,
                 "due_at": NOW + dt.timedelta(minutes=1 if n % 7 else -1), "agent": "0.1"} for n in numbers
            ],
            t.health_now: [
                {"device": _id(n), "at": NOW, "sess": 1, "mode": "clinical", "ai": "ready", "backlog_s": 0,
                 "oldest_owed_s": 0, "body": {"machine": {"cpu": 1}, "packages": [], "issues": []}} for n in numbers
            ],
            t.issue_state: [
                {"device": _id(n), "ref": f"{i:016x}", "code": f"CODE_{i}", "severity": "fault", "box_state": "raised",
                 "raised_at": NOW, "cleared_at": None if n % 50 == 0 else NOW, **from_record}
                for n in numbers for i in range(5)
            ],
            t.package_state: [
                {"device": _id(n), "package": name, "version": "1.0" if n % 100 else "2.0", "serves": True,
                 "role": "live", "points": {}, **from_record} for n in numbers for name in "abc"
            ],
            t.equipment: [
                {"device": _id(n), "source": 1, "modality": "CT", "make": "GE" if n % 3 else "Rare", "model": "M",
                 "kernels": [], "at": NOW, **from_record} for n in numbers
            ],
        }  # fmt: skip
        for table, given in rows.items():
            connection.execute(insert(table), given)


def _id(n: int) -> str:
    return f"box-{n:07d}"
