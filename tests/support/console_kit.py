"""A fleet to look at, and who looks: two hospitals, their boxes, people of each role."""

from __future__ import annotations

import datetime as dt

import web_kit
from fleet_kit import DEALER, HOSPITAL, NOW, PLATFORM, SITE, VENDOR, add_tree, ulid
from sqlalchemy import insert

from appliance.fleet.server import db, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import people
from appliance.fleet.server.console.roles import FleetRole
from appliance.fleet.server.console.sessions import open_session
from appliance.fleet.server.registry import TenantKind

COOKIE = "scanside_fleet"
#: Beside the tree of ``fleet_kit``, at the vendor without a dealer.
OTHER, OTHER_SITE = "hospital-02", "site-0002"
OURS, THEIRS = "box-0000001", "box-0000002"
REF, THEIR_REF = f"{1:016x}", f"{2:016x}"
PASSWORD = "correct horse battery"  # noqa: S105 - of nobody
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)

HEALTH = {
    "ts": 0,
    "clk": "ntp",
    "skew_ms": 12,
    "agent": "0.1.0",
    "machine": {"cpu": 31.0, "memory": 42.0, "disk": 58.0, "disk_wear": 3.0, "temperature_c": 61.0, "gpu": 22.0},
    "studies_24h": 184,
    "ms": {"p50": 9100.0, "p95": 14200.0, "p99": 21000.0},
    "receiving": 1,
    "waiting": 3,
    "oldest_owed_s": 48.0,
    "backlog": 5,
    "backlog_s": 2.0,
    "restarts_24h": 0,
    "sources": [{"source": 1, "last_image_s": 60.0, "silent_too_long": False}],
}


class Visitor(web_kit.Browser):
    """A browser at the console."""

    def __init__(self, place, cookie=None, **more):
        super().__init__(place, **more)
        self.session_name = self.session_name.replace(web_kit.COOKIE, COOKIE)
        if cookie:
            self.cookies.set(self.session_name, cookie)


def add_fleet(connection, *, now=NOW):
    """The tree, another hospital, and a box in each."""
    add_tree(connection, now)
    registry.add_tenant(connection, OTHER, "Other hospital", TenantKind.HOSPITAL, parent=VENDOR, now=now)
    registry.add_site(connection, OTHER_SITE, OTHER, "Casualty", now=now)
    add_box(connection, OURS, SITE, now=now)
    add_box(connection, THEIRS, OTHER_SITE, now=now)
    add_issue(connection, OURS, REF, now=now)
    add_issue(connection, THEIRS, THEIR_REF, code="SOURCE_SILENT", severity="warning", now=now)


def add_box(connection, device, site=SITE, *, now=NOW, online=True, seen=MINUTE, ai="ready", heard=True, **more):
    """A box that was heard ``seen`` ago."""
    registry.add_device(connection, device, site, f"SN-{device}", now=now, name=more.pop("name", ""))
    if not heard:
        return
    status = {"device": device, "online": online, "sess": 1, "agent": "0.1.0", "clk": "ntp", "since_at": now - DAY}
    status |= {"last_seen_at": now - seen, "due_at": now - seen + 4 * MINUTE}
    connection.execute(insert(t.status).values(**status))
    body = HEALTH | {"oldest_owed_s": more.get("owed", 48.0)}
    health = {"device": device, "at": now - seen, "sess": 1, "mode": "clinical", "ai": ai, "skew_ms": 12}
    health |= {"backlog_s": 2.0, "oldest_owed_s": more.get("owed", 48.0), "cert_days": 61.0, "body": body}
    connection.execute(insert(t.health_now).values(**health))


def add_issue(connection, device, ref, *, code="DISK_RESERVE", severity="fault", now=NOW, **more):
    """One that stands."""
    row = {"device": device, "ref": ref, "code": code, "severity": severity, "box_state": "raised"}
    row |= {"raised_at": now - HOUR, "cleared_at": None, "stream": 1, "seq": 1}
    connection.execute(insert(t.issue_state).values(**row | more))


def fill_box(connection, device, *, now=NOW):
    """Everything that the page of a box shows."""
    serves = {"device": device, "serves": True, "role": "live", "backend": "tensorrt", "precision": "fp16"}
    serves |= {"points": {"hemorrhage": "balanced"}, "stream": 1, "seq": 1}
    connection.execute(insert(t.package_state).values(package="ich-ct", version="2.0.0", **serves))
    hours = {"device": device, "package": "ich-ct", "version": "2.0.0", "role": "live", "hours": 1, "n": 20}
    hours |= {"flagged": {"hemorrhage": 3}, "nothing_flagged": 15, "not_analysed": {"unsupported": 2}, "suppressed": 0}
    hours |= {"reviewed": 4, "agreed": 3, "p95_ms": 14200.0, "psi": {}, "stream": 1}
    connection.execute(insert(t.results_hour), [{**hours, "hour": now - n * HOUR, "seq": n} for n in range(1, 25)])
    points = [
        {
            "device": device,
            "stream": 1,
            "seq": 1000 + n,
            "at": now - n * 5 * MINUTE,
            "body": {
                "machine": {"cpu": 30 + n % 20, "memory": 42, "disk": 58, "temperature_c": 60 + n % 9, "gpu": n % 50},
                "studies": n % 4,
                "waiting": n % 3,
                "oldest_owed_s": n % 60,
                "ms": {"p50": 9000 + n * 3, "p95": 14000 + n * 5},
            },
        }
        for n in range(1, 288)
        if not 100 < n < 130
    ]
    connection.execute(insert(t.health_point), points)
    gear = {"device": device, "source": 1, "modality": "CT", "make": "GE MEDICAL SYSTEMS", "model": "Revolution"}
    connection.execute(insert(t.equipment).values(**gear, kernels=["STANDARD"], at=now, stream=1, seq=1))
    job = {"id": ulid(7), "device": device, "ctr": 1, "op": "self_test", "args": {}, "made_at": now - HOUR}
    job |= {"state": "SUCCEEDED", "state_version": 2, "state_at": now, "figures": {}, "expires_at": now + DAY}
    connection.execute(insert(t.job).values(**job))
    connection.execute(insert(t.device_counter).values(device=device, ctr=1, dv=3))
    twin = {"device": device, "dv": 3, "desired": {"health_every_s": 60, "held": False}, "made_at": now - DAY}
    twin |= {"rv": 2, "applied_dv": 2, "reported": {"health_every_s": 30, "held": False}, "reported_at": now - HOUR}
    connection.execute(insert(t.twin).values(**twin))
    paper = {"device": device, "fingerprint": f"{device}-f", "serial": "7f3a", "pem": "", "state": "current"}
    paper |= {"not_before": now - DAY, "not_after": now + 61 * DAY, "made_at": now - DAY}
    connection.execute(insert(t.certificate).values(**paper))
    connection.execute(insert(t.stream).values(device=device, stream=ulid(1), top=40, first_at=now - DAY, floor=38))
    told = [
        {"k": "daemon", "state": "started", "version": "0.1.0"},
        {"k": "package", "package": "ich-ct", "version": "2.0.0", "state": "live"},
        {"k": "engine", "package": "ich-ct", "state": "serves"},
        {"k": "equipment", "source": 1, "modality": "CT", "make": "GE MEDICAL SYSTEMS", "model": "Revolution"},
        {"k": "job", "job": ulid(7), "ctr": 1, "state": "ACCEPTED", "version": 1},
        {"k": "job", "job": ulid(7), "ctr": 1, "state": "SUCCEEDED", "version": 2, "figures": {"seconds": 4.2}},
        {"k": "access", "hour": "2026-03-02T08Z", "signed_in": 4, "sign_in_failed": 1},
        {"k": "anchor", "seq": 30, "hash": "0" * 64},
        {"k": "gap", "skipped": "health", "first_seq": 3, "last_seq": 9, "n": 7},
        {"k": "issue", "code": "DISK_RESERVE", "severity": "fault", "state": "raised", "ref": REF},
        {"k": "health", "minutes": 5, "studies": 2},
        {
            "k": "results",
            "package": "ich-ct",
            "version": "2.0.0",
            "hour": "2026-03-02T08Z",
            "n": 20,
            "flagged": {"a": 3},
        },
        {"k": "study", "package": "ich-ct", "version": "2.0.0"},
    ]
    rows = [
        {"device": device, "stream": ulid(1), "seq": n, "k": body["k"], "ts": 0, "rx_at": now - HOUR + n * MINUTE}
        | {"body": body}
        for n, body in enumerate(told, 1)
    ]
    connection.execute(insert(t.record), rows)


def add_results(connection, device=OURS, *, now=NOW, version="3.1.0", days=20, n=12, mode="clinical", **changes):
    """Some hours of every day of a version that serves here."""
    connection.execute(t.health_now.update().where(t.health_now.c.device == device).values(mode=mode))
    had = {"device": device, "serves": True, "role": changes.get("role", "live"), "points": {}, "stream": 1, "seq": 1}
    connection.execute(insert(t.package_state).values(package="ich-ct", version=version, **had))
    row = {"device": device, "package": "ich-ct", "version": version, "role": "live", "hours": 1, "n": n}
    row |= {"flagged": {"hemorrhage": 1, "fracture": 0}, "nothing_flagged": n - 3, "not_analysed": {"quality": 2}}
    row |= {"suppressed": 0, "reviewed": 1, "agreed": 1, "p95_ms": 9000.0, "psi": {"hemorrhage": 0.08}, "stream": 1}
    begin = now.replace(minute=0, second=0, microsecond=0)
    hours = [begin - day * DAY - hour * HOUR for day in range(days) for hour in (0, 4, 8)]
    connection.execute(insert(t.results_hour), [{**row, **changes, "hour": at, "seq": i} for i, at in enumerate(hours)])


def add_somebody(connection, name, role, tenant, *, password="", now=NOW, must_change=False):
    """An account that has chosen its password; returns it."""
    number = people.add_person(connection, name, name.title(), tenant, FleetRole(role), password, now=now, actor="test")
    connection.execute(t.account.update().where(t.account.c.number == number).values(must_change=must_change))
    return people.by_number(connection, number)


#: Somebody of each role where it is usual.
PEOPLE = {
    "operator": ("operator", PLATFORM),
    "vendor": ("service", VENDOR),
    "dealer": ("service", DEALER),
    "hospital": ("administrator", HOSPITAL),
    "reader": ("viewer", VENDOR),
    "neighbour": ("administrator", OTHER),
}


def signed_in(engine, name, now=NOW):
    """The cookie of somebody of ``PEOPLE``, who is added where they are not yet."""
    role, tenant = PEOPLE[name]
    with db.write(engine) as connection:
        found = people.by_name(connection, name)
        person = found[0] if found else add_somebody(connection, name, role, tenant, now=now)
        return open_session(connection, person, now)
