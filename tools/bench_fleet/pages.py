"""What a browser waits for over thousands of boxes: the console's first page, its filters, and other pages, by HTTP."""

from __future__ import annotations

import datetime as dt
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from console_kit import COOKIE, add_somebody
from fleet_kit import DEALER, NOW, PLATFORM, VENDOR, add_tree
from sqlalchemy import Engine, insert

from appliance.clock import FakeClock
from appliance.fleet.server import db, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import console_app
from appliance.fleet.server.console.sessions import open_session
from appliance.fleet.server.registry import TenantKind
from appliance.fleet.server.server_keys import ServerKeys
from appliance.web.server import WebServer

_HOSPITALS, _TRIES, _WEEK = 200, 5, 28
#: Who asks: the platform, a dealer with half of the boxes, one hospital.
_PEOPLE = (("operator", PLATFORM), ("service", DEALER), ("viewer", "hosp-00007"))
_FIRST = ("/", "/?order=seen", "/?order=issues")
_FILTERS = (
    "/?state=stale", "/?state=offline", "/?state=degraded", "/?state=not_analysing", "/?code=CODE_3", "/?code=NOPE",
    "/?package=b+2.0", "/?text=SN9999", "/?site=site-00007", "/?tenant=hosp-00007",
    "/?state=stale&code=CODE_1&package=a",
)  # fmt: skip
_OTHERS = ("/issues", "/models", "/results", "/rollouts", "/audit", "/devices/box-0000007", "/sites/site-00007")


def page_figures(boxes: int) -> dict[str, Any]:
    """Milliseconds until the whole answer was there: the median of a few tries, of the slowest of three people."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = db.open_engine(f"sqlite:///{folder}/fleet.db")
        try:
            db.migrate(engine)
            _fill(engine, boxes)
            return {"boxes": boxes, **_measure(engine, folder)}
        finally:
            engine.dispose()


def _measure(engine: Engine, folder: Path) -> dict[str, Any]:
    server = WebServer(console_app(engine, ServerKeys.open(folder / "keys"), FakeClock(NOW), folder=folder), port=0)
    address = f"http://127.0.0.1:{server.start()}"
    found: dict[str, Any] = {}
    try:
        for n, (role, tenant) in enumerate(_PEOPLE):
            with db.write(engine) as connection:
                cookie = open_session(connection, add_somebody(connection, f"somebody-{n}", role, tenant), NOW)
            with httpx.Client(base_url=address, cookies={COOKIE: cookie}, timeout=60) as browser:
                for paths, is_part in ((_FIRST, False), (_FILTERS, True), (_OTHERS, False)):
                    for path in paths:
                        took = _median(browser, path, is_part=is_part)
                        found[path] = max(found.get(path, 0.0), took)
    finally:
        server.stop()
    first, filters = (max(found[path] for path in paths) for paths in (_FIRST, _FILTERS))
    return {"first_page_ms": first, "filter_ms": filters, "pages_ms": found}


def _median(browser: httpx.Client, path: str, *, is_part: bool) -> float:
    """What htmx asks for is a part of the page, as in a filter. The first try, which fills caches, does not count."""
    tries = []
    for _ in range(_TRIES + 1):
        begun = time.perf_counter()
        answer = browser.get(path, headers={"HX-Request": "true"} if is_part else {})
        tries.append((time.perf_counter() - begun) * 1000)
        if answer.status_code not in {200, 403, 404}:
            raise RuntimeError(f"{path} answers {answer.status_code}")
    return statistics.median(tries[1:])


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
        hours = {"package": "a", "version": "1.0", "role": "live", "hours": 1, "n": 20, "nothing_flagged": 15,
                 "flagged": {"hemorrhage": 3}, "not_analysed": {"quality": 2}, "suppressed": 0, "reviewed": 0,
                 "agreed": 0, "p95_ms": 9000.0, "psi": {"hemorrhage": 0.08}, **from_record}  # fmt: skip
        connection.execute(
            insert(t.results_hour),
            [
                {**hours, "device": _id(n), "hour": NOW - dt.timedelta(hours=6 * i)}
                for n in numbers
                for i in range(_WEEK)
            ],
        )


def _id(n: int) -> str:
    return f"box-{n:07d}"
