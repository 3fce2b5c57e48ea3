"""The overview's list and counts: filters, orders, pages by key, on both databases; and quick with thousands."""

from __future__ import annotations

import time

import pytest
from console_kit import DAY, HOUR, MINUTE, OTHER, OTHER_SITE, add_box, add_issue
from fleet_kit import DEALER, HOSPITAL, NOW, SITE, add_tree
from sqlalchemy import insert

from appliance.fleet.server import db, registry
from appliance.fleet.server import tables as t
from appliance.fleet.server.console.lists import Asked, Order, State, choices, counts, page_of_boxes
from appliance.fleet.server.registry import Scope, TenantKind

pytestmark = pytest.mark.req("R-FLEET-52")
ALL = Scope.everything()


@pytest.fixture
def many(engine):
    """Twelve boxes of two hospitals, in every state."""
    with db.write(engine) as connection:
        add_tree(connection)
        registry.add_tenant(connection, OTHER, "Other hospital", TenantKind.HOSPITAL, parent=DEALER, now=NOW)
        registry.add_site(connection, OTHER_SITE, OTHER, "Casualty", now=NOW)
        for n in range(1, 13):
            add_box(
                connection,
                f"box-{n:07d}",
                SITE if n % 2 else OTHER_SITE,
                online=n not in {3, 4},
                seen=HOUR if n == 5 else n * MINUTE / 20,
                ai="unavailable" if n == 6 else "ready",
                heard=n != 7,
                owed=float(n % 4),
            )
        add_issue(connection, "box-0000008", f"{1:016x}")
        add_issue(connection, "box-0000008", f"{2:016x}", code="SOURCE_SILENT", severity="warning")
        add_issue(connection, "box-0000009", f"{3:016x}", cleared_at=NOW)
        add_issue(connection, "box-0000010", f"{4:016x}", code="SCORE_DRIFT", severity="warning")
        package = {"package": "ich-ct", "version": "2.0.0", "serves": True, "points": {}, "stream": 1, "seq": 1}
        connection.execute(insert(t.package_state).values(device="box-0000011", **package))
        for n, applied in ((1, 3), (2, 2)):
            connection.execute(insert(t.twin).values(device=f"box-{n:07d}", dv=3, rv=1, applied_dv=applied))
        for n, state, days in ((3, "current", 29), (4, "current", 31), (5, "superseded", 2)):
            paper = {"device": f"box-{n:07d}", "fingerprint": f"{n:064x}", "serial": "1", "pem": "", "state": state}
            paper |= {"not_before": NOW - DAY, "not_after": NOW + days * DAY, "made_at": NOW - DAY}
            connection.execute(insert(t.certificate).values(**paper))
        for n, skew in ((9, -5001), (10, 5000), (12, 300_000)):
            changed = t.health_now.update().where(t.health_now.c.device == f"box-{n:07d}")
            connection.execute(changed.values(skew_ms=skew))
        source = {"source": 1, "modality": "CT", "kernels": [], "at": NOW, "stream": 1, "seq": 1}
        for n, make in ((5, "SIEMENS"), (6, "UIH")):
            connection.execute(insert(t.equipment).values(**source, device=f"box-{n:07d}", make=make, model="M"))
    return engine


def numbers(engine, order=Order.NUMBER, scope=ALL, limit=50, **asked):
    """Of all pages, in order."""
    found, after = [], ""
    with db.read(engine) as connection:
        while True:
            page = page_of_boxes(connection, scope, Asked(**asked), order, now=NOW, after=after, limit=limit)
            found += [line.row.number for line in page.lines]
            after = page.after
            if not after:
                return found


@pytest.mark.parametrize("order", list(Order))
def test_pages_by_key_are_the_whole_list_once_in_the_order_that_was_asked_for(many, order):
    whole = numbers(many, order)
    assert sorted(whole) == list(range(1, 13))
    for limit in (1, 5):
        assert numbers(many, order, limit=limit) == whole


def test_orders_put_first_what_needs_somebody(many):
    assert numbers(many, Order.ISSUES)[:2] == [8, 10]
    assert numbers(many, Order.SEEN)[:2] == [7, 5], "never heard, then longest ago"
    assert numbers(many, Order.WAITS)[:3] == [3, 11, 1] or numbers(many, Order.WAITS)[:2] == [3, 11]
    assert numbers(many, Order.SITE)[:6] == [2, 4, 6, 8, 10, 12], "Casualty before Radiology"


def test_each_filter_finds_its_boxes_and_no_others(many):
    assert numbers(many, state=State.OFFLINE) == [3, 4]
    assert numbers(many, state=State.STALE) == [5]
    assert numbers(many, state=State.NEVER) == [7]
    assert numbers(many, state=State.NOT_ANALYSING) == [6]
    assert numbers(many, state=State.DEGRADED) == [8, 10]
    assert numbers(many, state=State.SILENT) == [8]
    assert numbers(many, state=State.OTHER_SETTINGS) == [2]
    assert numbers(many, state=State.CERTIFICATE) == [3]
    assert numbers(many, state=State.CLOCK) == [9, 12]
    assert numbers(many, make="SIEMENS") == [5]
    assert numbers(many, code="SCORE_DRIFT") == [10]
    assert numbers(many, package="ich-ct 2.0.0") == numbers(many, package="ich-ct") == [11]
    assert numbers(many, package="ich-ct 1.0.0") == []
    assert numbers(many, site="CASUAL") == [2, 4, 6, 8, 10, 12]
    assert numbers(many, tenant=HOSPITAL) == [1, 3, 5, 7, 9, 11]
    assert numbers(many, tenant="dealer") == list(range(1, 13)), "all below it"
    assert numbers(many, text="12") == [12]
    assert numbers(many, text="%") == numbers(many, tenant="_") == numbers(many, site="%") == []
    assert numbers(many, version="0.1.0", site="casualty", state=State.ONLINE) == [2, 6, 8, 10, 12]


def test_counts_are_those_of_the_lists_behind_them(many):
    with db.read(many) as connection:
        found = counts(connection, ALL, now=NOW)
        own = counts(connection, Scope.of(connection, HOSPITAL), now=NOW)
        offered = choices(connection, Scope.of(connection, HOSPITAL))
    assert found == {state: len(numbers(many, state=state)) for state in found}
    assert offered == {"code": [], "package": ["ich-ct 2.0.0"], "make": ["SIEMENS"], "version": ["0.1.0"]}
    assert (own[State.DEGRADED], own[State.STALE], own[State.OFFLINE]) == (0, 1, 1)


@pytest.mark.parametrize(
    "after", ["x", "W10=", "WyJhIiwgMV0=", "WzEsIDFd", "WzFlOTk5LCAxXQ==", "WyIyMDI2LTAxLTAxIiwgMV0="]
)
def test_a_place_in_the_list_that_is_none_of_ours_shows_some_page_and_fails_nowhere(many, after):
    with db.read(many) as connection:
        for order in Order:
            page_of_boxes(connection, ALL, Asked(), order, now=NOW, after=after)


def test_a_page_of_two_thousand_boxes_costs_what_one_of_fifty_does(app, visit, fleet):
    visitor = visit("operator")

    def took(path):
        best = []
        for _ in range(3):
            begun = time.process_time()  # what others do on this machine meanwhile is no cost of the page
            assert visitor.get(path, headers={"HX-Request": "true"}).status_code == 200
            best.append(time.process_time() - begun)
        return min(best)

    paths = ("/", "/?state=degraded", "/?text=box-00019", "/?code=SCORE_DRIFT")
    with db.write(fleet) as connection:
        for n in range(3, 52):
            add_box(connection, f"box-{n:07d}")
    few = {path: took(path) for path in paths}
    boxes = range(52, 2000)
    row = {"site": SITE, "tenant": HOSPITAL, "state": "enrolled", "made_at": NOW}
    heard = {"online": True, "sess": 1, "since_at": NOW, "last_seen_at": NOW, "due_at": NOW + HOUR, "agent": "0.1.0"}
    issue = {
        "code": "SCORE_DRIFT",
        "severity": "warning",
        "box_state": "raised",
        "raised_at": NOW,
        "stream": 1,
        "seq": 1,
    }
    with db.write(fleet) as connection:
        connection.execute(
            insert(t.device), [{**row, "id": f"box-{n:07d}", "number": n, "serial": f"SN{n}"} for n in boxes]
        )
        connection.execute(insert(t.status), [{**heard, "device": f"box-{n:07d}"} for n in boxes])
        connection.execute(
            insert(t.issue_state),
            [{**issue, "device": f"box-{n:07d}", "ref": f"{n:016x}"} for n in boxes if n % 9 == 0],
        )
    for path in paths:
        assert took(path) < 8 * few[path] + 0.1, path
