"""Who may what, and who sees which boxes: every route of the console, every role, every tenant."""

from __future__ import annotations

import pytest
from console_kit import OURS, REF, THEIR_REF, THEIRS
from sqlalchemy import select

from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.console.roles import FleetRole
from appliance.web.access import ANYBODY, Guarded

pytestmark = pytest.mark.req("R-FLEET-50")

EVERYBODY = {"operator", "vendor", "dealer", "hospital", "reader", "neighbour"}
HANDS = {"operator", "vendor", "dealer"}
#: Every address: who of ``console_kit.PEOPLE`` has it. One of no row here fails the first test.
ROUTES = {
    ("GET", "/"): EVERYBODY,
    ("GET", "/counts"): EVERYBODY,
    ("GET", "/issues"): EVERYBODY,
    ("GET", "/devices/{device}"): EVERYBODY,
    ("GET", "/devices/{device}/points"): EVERYBODY,
    ("GET", "/devices/{device}/timeline"): EVERYBODY,
    ("POST", "/devices/{device}/jobs"): HANDS,
    ("POST", "/devices/{device}/issues/{ref}/seen"): HANDS,
    ("POST", "/devices/{device}/issues/{ref}/later"): HANDS,
    ("GET", "/audit"): HANDS | {"hospital", "neighbour"},
    ("POST", "/audit/chain"): {"operator"},
    ("GET", "/users"): {"operator"},
    ("POST", "/users"): {"operator"},
    ("POST", "/users/{number:int}/switch"): {"operator"},
    ("POST", "/users/{number:int}/password"): {"operator"},
    ("POST", "/sign-out"): EVERYBODY,
    ("GET", "/account"): EVERYBODY,
    ("POST", "/account/password"): EVERYBODY,
    ("POST", "/account/tenant"): EVERYBODY,
}
OPEN = {("GET", "/sign-in"), ("POST", "/sign-in"), ("GET", "/language"), ("GET", "/assets/{build}/{name:path}")}
#: Who has which box in their tenant or below it.
SEES = {
    OURS: {"operator", "vendor", "dealer", "hospital", "reader"},
    THEIRS: {"operator", "vendor", "reader", "neighbour"},
}
REFS = {OURS: REF, THEIRS: THEIR_REF}
FIELDS = {"op": "ping", "why": "to see whether it answers", "hours": "24"}


def ask(visitor, method, path, **fields):
    return visitor.get(path) if method == "GET" else visitor.form(path, **FIELDS | fields)


def named(path, device=OURS):
    return path.replace("{device}", device).replace("{ref}", REFS[device]).replace("{number:int}", "9999")


def test_every_route_stands_in_the_matrix_and_those_open_to_all_are_four(app):
    routes = {(method, one.path): one for one in app.routes for method in one.methods - {"HEAD"}}
    assert all(isinstance(one, Guarded) for one in app.routes)
    assert {key for key, one in routes.items() if one.roles is ANYBODY} == OPEN
    assert routes.keys() == ROUTES.keys() | OPEN
    assert all(one.roles is ANYBODY or one.roles <= set(FleetRole) for one in app.routes)


@pytest.mark.parametrize("who", sorted(EVERYBODY))
def test_a_role_has_its_routes_and_is_refused_at_all_others(visit, who):
    visitor = visit(who)
    device = OURS if who in SEES[OURS] else THEIRS
    for (method, path), allowed in ROUTES.items():
        if path == "/sign-out":
            continue
        status = ask(visitor, method, named(path, device)).status_code
        assert (status == 403) == (who not in allowed), f"{who} {method} {path}: {status}"
        assert status < 500, f"{who} {method} {path}: {status}"
    assert visitor.form("/sign-out").status_code == 303
    assert visitor.get("/").headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("device", sorted(SEES))
def test_a_box_of_another_tenant_is_not_there_at_any_route_that_names_one(visit, device):
    for who in sorted(EVERYBODY - SEES[device]):
        visitor = visit(who)
        for (method, path), allowed in ROUTES.items():
            if "{device}" in path and who in allowed:
                answer = ask(visitor, method, named(path, device))
                never = ask(visitor, method, named(path, device).replace(device, "box-9999999"))
                assert (answer.status_code, never.status_code) == (404, 404), f"{who} {method} {path}"
                assert answer.text.replace(device, "box-9999999").count("box-9999999") == never.text.count(
                    "box-9999999"
                )


@pytest.mark.parametrize("who", sorted(EVERYBODY))
def test_lists_counts_issues_and_filters_show_the_boxes_of_ones_tenant_alone(visit, who):
    visitor = visit(who)
    seen = {device for device, people in SEES.items() if who in people}
    for path in ("/", "/?text=box-", "/?state=degraded", "/?tenant=hospital", "/?order=issues", "/issues"):
        text = visitor.get(path).text
        found = {device for device in SEES if f"/devices/{device}" in text}
        assert found == seen, path
    assert f"<b>{len(seen)}</b>" in visitor.get("/counts").text.partition("count-stale")[0]


def test_the_audit_tells_a_hospital_of_its_own_boxes_alone(visit):
    visit("operator").form(f"/devices/{OURS}/jobs", op="ping", why="ours")
    visit("operator").form(f"/devices/{THEIRS}/jobs", op="ping", why="theirs")
    own, other = visit("hospital").get("/audit").text, visit("neighbour").get("/audit").text
    assert ("why: ours" in own, "why: theirs" in own) == (True, False)
    assert ("why: ours" in other, "why: theirs" in other) == (False, True)


def test_what_a_role_is_refused_is_told_to_the_audit_once_a_minute(visit, fleet):
    visitor = visit("reader")
    for _ in range(3):
        visitor.get("/users")
    with db.read(fleet) as connection:
        rows = connection.execute(select(t.audit).where(t.audit.c.act == "denied")).all()
    assert [(row.actor, row.subject) for row in rows] == [("reader", "GET /users")]


def test_acts_need_the_token_of_the_page_and_its_origin(visit, fleet):
    visitor = visit("operator")
    visitor.get("/")
    path = f"/devices/{OURS}/jobs"
    assert visitor.form(path, csrf="another", **FIELDS).status_code == 403
    assert visitor.form(path, headers={"Origin": "https://elsewhere.example"}, **FIELDS).status_code == 403
    with db.read(fleet) as connection:
        assert connection.execute(select(t.job)).all() == []
    answer = visitor.get("/")
    assert "script-src 'self'; style-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
