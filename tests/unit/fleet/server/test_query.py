"""Lists of thousands of boxes: paged by key, filtered by index, within a scope."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest
from fleet_kit import DEALER, HOSPITAL, NOW, SITE, VENDOR, PaperBox, add_box, add_tree, ulid
from sqlalchemy import event, insert

from appliance.errors import NotFoundError
from appliance.fleet.server import db, query, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.ingest import Ingest
from appliance.fleet.server.query import Filter
from appliance.fleet.server.registry import DeviceState, Presence, Scope, TenantKind
from appliance.fleet.wire_records import (
    Equipment,
    HealthRollup,
    IssueChange,
    Machine,
    PackageState,
    Quantiles,
    ResultsHour,
)

MINUTE = dt.timedelta(minutes=1)
ALL = Scope.everything()
N = 220


@pytest.fixture
def many(engine):
    """Boxes 1 to N in two hospitals; every tenth is offline, every seventh stale, the last never heard."""
    with db.write(engine) as connection:
        add_tree(connection)
        registry.add_tenant(connection, "dealer-0011", "Other", TenantKind.DEALER, parent=VENDOR, now=NOW)
        registry.add_tenant(connection, "hospital-02", "Two", TenantKind.HOSPITAL, parent="dealer-0011", now=NOW)
        registry.add_site(connection, "site-0002", "hospital-02", "Two", now=NOW)
        places = ((HOSPITAL, SITE), ("hospital-02", "site-0002"))
        connection.execute(
            insert(t.device),
            [
                {
                    "id": f"box-{n:07d}",
                    "number": n,
                    "tenant": places[n % 2][0],
                    "site": places[n % 2][1],
                    "serial": f"SN{n}",
                    "state": "enrolled",
                    "made_at": NOW,
                }
                for n in range(1, N + 1)
            ],
        )
        connection.execute(
            insert(t.status),
            [
                {
                    "device": f"box-{n:07d}",
                    "online": bool(n % 10),
                    "sess": 1,
                    "since_at": NOW,
                    "last_seen_at": NOW,
                    "due_at": NOW - MINUTE if n % 7 == 0 else NOW + MINUTE,
                    "agent": "0.1.0" if n % 3 else "0.2.0",
                }
                for n in range(1, N)
            ],
        )
        connection.execute(
            insert(t.issue_state),
            [
                {
                    "device": f"box-{n:07d}",
                    "ref": "ab" * 8,
                    "code": "DISK_FULL",
                    "severity": "fault",
                    "box_state": "raised",
                    "raised_at": NOW - n * MINUTE,
                    "cleared_at": NOW if n % 2 else None,
                    "stream": 1,
                    "seq": n,
                }
                for n in range(1, N + 1, 5)
            ],
        )
        connection.execute(
            insert(t.equipment),
            [
                {
                    "device": f"box-{n:07d}",
                    "source": 1,
                    "modality": "CT",
                    "make": ("Siemens", "GE")[n % 2],
                    "model": f"M{n % 4}",
                    "kernels": [],
                    "at": NOW,
                    "stream": 1,
                    "seq": 1,
                }
                for n in range(1, N + 1)
            ],
        )


def numbers(page):
    return [line.row.number for line in page.lines]


@pytest.mark.req("R-FLEET-19")
def test_pages_follow_each_other_without_a_gap_or_a_double(engine, many):
    with db.read(engine) as connection:
        seen, after = [], 0
        while after is not None:
            page = query.devices(connection, ALL, Filter(), now=NOW, after=after, limit=37)
            seen += numbers(page)
            after = page.after
    assert seen == list(range(1, N + 1))


@pytest.mark.req("R-FLEET-19")
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(presence=Presence.OFFLINE), lambda n: n % 10 == 0 and n < N),
        (Filter(presence=Presence.STALE), lambda n: n % 7 == 0 and n % 10 and n < N),
        (Filter(presence=Presence.ONLINE), lambda n: n % 7 and n % 10 and n < N),
        (Filter(presence=Presence.NEVER), lambda n: n == N),
        (Filter(agent="0.2.0"), lambda n: n % 3 == 0 and n < N),
        (Filter(code="DISK_FULL"), lambda n: n % 5 == 1 and n % 2 == 0),
        (Filter(make="GE", model="M3"), lambda n: n % 4 == 3),
        (Filter(make="GE", model="M2"), lambda _: False),
        (Filter(site="site-0002", make="GE"), lambda n: n % 2),
        (Filter(text="17"), lambda n: n == 17),
        (Filter(text="SN21"), lambda n: str(n).startswith("21")),
        (Filter(text="box-00000"), lambda n: n < 100),
        (Filter(text="%"), lambda _: False),
        (Filter(state=DeviceState.DISABLED), lambda _: False),
        (Filter(tenant="hospital-02", presence=Presence.OFFLINE), lambda _: False),
    ],
)
def test_a_filter_finds_those_and_no_others(engine, many, wanted, expected):
    with db.read(engine) as connection:
        page = query.devices(connection, ALL, wanted, now=NOW, limit=500)
        counted = query.how_many(connection, ALL, wanted, now=NOW)
    found = [n for n in range(1, N + 1) if expected(n)]
    assert numbers(page) == found
    assert sum(counted.values()) == len(found)


@pytest.mark.req("R-FLEET-19")
def test_nobody_sees_or_counts_what_is_not_theirs(engine, many):
    with db.read(engine) as connection:
        for tenant, odd in ((DEALER, 0), ("dealer-0011", 1)):
            scope = Scope.of(connection, tenant)
            theirs = [n for n in range(1, N + 1) if n % 2 == odd]
            assert numbers(query.devices(connection, scope, Filter(), now=NOW, limit=500)) == theirs
            assert sum(query.how_many(connection, scope, Filter(), now=NOW).values()) == len(theirs)
            assert numbers(query.devices(connection, scope, Filter(text=f"box-{2 - odd:07d}"), now=NOW)) == [2 - odd]
            foreign = f"box-{1 + odd:07d}"
            assert numbers(query.devices(connection, scope, Filter(text=foreign), now=NOW)) == []
            for ask in (
                lambda box=foreign, s=scope: query.device(connection, s, box, now=NOW),
                lambda box=foreign, s=scope: query.timeline(connection, s, box),
                lambda box=foreign, s=scope: query.points(connection, s, box, since=NOW, until=NOW),
            ):
                with pytest.raises(NotFoundError):
                    ask()
        assert query.issue_counts(connection, Scope.of(connection, "dealer-0011")) == []
        assert [tuple(row) for row in query.issue_counts(connection, Scope.of(connection, DEALER))] == [
            ("DISK_FULL", "fault", N // 10)
        ]
        assert query.issues(connection, Scope.of(connection, "dealer-0011")) == []
        listed = query.issues(connection, ALL)
        assert len(listed) == N // 10
        assert all(one.raised_at > other.raised_at for one, other in pairwise(listed))
        last = listed[9]
        rest = query.issues(connection, ALL, after=(last.raised_at, last.device, last.ref))
        assert rest == listed[10:]


def test_a_page_asks_the_same_few_questions_however_many_boxes_there_are(engine, many):
    asked = []
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    with db.read(engine) as connection:
        query.devices(connection, ALL, Filter(), now=NOW, limit=10)
        few = len(asked)
        query.devices(connection, ALL, Filter(), now=NOW, limit=200)
    assert len(asked) == 2 * few - sum(statement.startswith("BEGIN") for statement in asked)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # PostgreSQL decides by its statistics
def test_a_list_is_read_along_the_index_and_never_through_the_records(engine, many):
    asked = []
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
    with db.read(engine) as connection:
        query.devices(connection, ALL, Filter(code="DISK_FULL"), now=NOW, after=100)
        plans = []
        for statement, parameters in asked:
            if statement.startswith("SELECT"):
                plans += [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert any("device" in line and "number>?" in line for line in plans)
    assert [line for line in plans if line.startswith("SCAN") or "TEMP B-TREE FOR ORDER" in line] == []


def test_one_box_with_its_timeline_plots_and_figures(engine, box):
    ingest = Ingest()

    def take(*uplinks, at=NOW):
        with db.write(engine) as connection:
            ingest.apply(connection, uplinks, at)

    rollup = HealthRollup(minutes=5, machine=Machine(cpu=50))
    results = ResultsHour(
        package="chest",
        version="1.0",
        role="live",
        hour="2026-03-02T08Z",
        n=9,
        nothing_flagged=7,
        ms=Quantiles(p95=8.0),
    )
    runs = PackageState(package="chest", version="1.0", digest="ab" * 16, role="live")
    issue = IssueChange(code="DISK_FULL", severity="fault", state="raised", ref="ab" * 8)
    told = (results, issue, rollup, Equipment(source=1, modality="CT", make="GE", model="M"))
    take(box.birth(), box.health(packages=(runs,)), box.batch(*(box.record(one) for one in told))[0])
    box.stream, box.sess, box.seq = ulid(2), 2, 0
    take(box.batch(box.record(rollup, at=NOW + MINUTE))[0], at=NOW + MINUTE)
    with db.read(engine) as connection:
        line = query.device(connection, ALL, box.device, now=NOW)
        assert (line.presence, line.issues, [p.version for p in line.packages]) == (
            Presence.ONLINE,
            {"fault": 1},
            ["1.0"],
        )
        assert (line.row.ai, line.row.agent, line.row.site_name) == ("ready", "0.1.0", "Radiology")
        rows = query.timeline(connection, ALL, box.device)
        assert [(row.seq, row.k) for row in rows] == [
            (1, "health"),
            (4, "equipment"),
            (3, "health"),
            (2, "issue"),
            (1, "results"),
        ]
        whole, before = [], None
        while part := query.timeline(connection, ALL, box.device, before=before, limit=2):
            whole += part
            before = (part[-1].number, part[-1].seq)
        assert whole == rows
        assert [row.seq for row in query.timeline(connection, ALL, box.device, kinds=["health"])] == [1, 3]
        drawn = query.points(connection, ALL, box.device, since=NOW, until=NOW + 2 * MINUTE)
        assert [(row.at, row.body["machine"]["cpu"]) for row in drawn] == [(NOW, 50), (NOW + MINUTE, 50)]
        (summed,) = query.results(connection, ALL, since=NOW - dt.timedelta(hours=2), until=NOW)
        assert (summed.site, summed.package, summed.n, summed.nothing_flagged, summed.slowest_ms) == (
            SITE,
            "chest",
            9,
            7,
            8.0,
        )
        assert [tuple(row) for row in query.versions(connection, ALL)] == [("chest", "1.0", "live", 1)]


def test_what_was_refused_is_shown_to_whose_box_it_was(engine, box, ca):
    other = PaperBox("box-0000002")
    with db.write(engine) as connection:
        add_box(connection, other, ca)
        Ingest().apply(connection, [box.raw("up/rec", b"{}"), PaperBox("box-9999999").batch()[0]], NOW)
        everything = query.refusals(connection, ALL)
        mine = query.refusals(connection, Scope.of(connection, HOSPITAL))
        assert {(row.device, row.reason) for row in everything} == {(box.device, "content"), ("", "unknown_device")}
        assert [(row.device, row.reason, row.n) for row in mine] == [(box.device, "content", 1)]
        assert query.refusals(connection, ALL, other.device) == []
