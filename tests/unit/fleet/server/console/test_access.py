"""Who may what, and who sees which boxes: every route of the console, every role, every tenant."""

from __future__ import annotations

import pytest
from console_kit import OTHER, OTHER_SITE, OURS, REF, THEIR_REF, THEIRS, add_results
from console_rollouts import add_model, drafted
from fleet_kit import HOSPITAL, NOW, SITE, ulid
from sqlalchemy import select

from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import make_job
from appliance.fleet.server.console.roles import FleetRole
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout.holds import add_hold
from appliance.fleet.server.uploads import UPLOADS
from appliance.fleet.wire import Op
from appliance.web.access import ANYBODY, Guarded

pytestmark = pytest.mark.req("R-FLEET-50")

EVERYBODY = {"operator", "vendor", "dealer", "hospital", "reader", "neighbour"}
HANDS = {"operator", "vendor", "dealer"}
#: Every address: who of ``console_kit.PEOPLE`` has it. One of no row here fails the first test.
ROUTES = {
    ("GET", "/"): EVERYBODY,
    ("GET", "/counts"): EVERYBODY,
    ("GET", "/issues"): EVERYBODY,
    ("GET", "/models"): EVERYBODY,
    ("GET", "/models/{package}"): EVERYBODY,
    ("GET", "/results"): EVERYBODY,
    ("GET", "/results.csv"): EVERYBODY,
    ("GET", "/rollouts"): EVERYBODY,
    ("POST", "/rollouts"): HANDS,
    ("GET", "/rollouts/new"): HANDS,
    ("GET", "/rollouts/{ident}"): EVERYBODY,
    ("GET", "/rollouts/{ident}/progress"): EVERYBODY,
    ("POST", "/rollouts/{ident}/{act}"): HANDS,
    ("GET", "/sites/{site}"): EVERYBODY,
    ("POST", "/sites/{site}/holds"): HANDS,
    ("POST", "/devices/{device}/holds"): HANDS,
    ("POST", "/holds/{number:int}/lift"): HANDS,
    ("GET", "/devices/{device}/logs/{job}"): HANDS,
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
FIELDS = {"op": "ping", "why": "to see whether it answers", "hours": "24", "days": "7"}
#: What a route names that belongs to somebody.
OWNED = ("{device}", "{site}", "{ident}", "{hold}", "{job}", "{ref}")


@pytest.fixture
def known(fleet, keys, tmp_path):
    """What stands for the parts of an address, by box: its site, a roll-out of its tenant, a hold, logs of it."""
    found = {}
    with db.write(fleet) as connection:
        add_model(connection)
    for device, site, tenant, ref in ((OURS, SITE, HOSPITAL, REF), (THEIRS, OTHER_SITE, OTHER, THEIR_REF)):
        ident = drafted(fleet, tenant=tenant)
        with db.write(fleet) as connection:
            who = {"actor": "test", "now": NOW}
            hold = add_hold(connection, keys, Scope.everything(), "device", device, why="audit", **who)
            job = make_job(connection, keys, Scope.everything(), device, Op.COLLECT_LOGS, **who).id
            came = {"received_at": NOW, "sha256": "c" * 64, "size": 4}
            connection.execute(t.upload.update().where(t.upload.c.job == job).values(**came))
        (tmp_path / UPLOADS).mkdir(exist_ok=True)
        (tmp_path / UPLOADS / f"{job}.zip").write_bytes(b"logs")
        found[device] = {"{device}": device, "{ref}": ref, "{site}": site, "{ident}": ident, "{hold}": str(hold)}
        found[device] |= {"{job}": job, "{act}": "discard", "{package}": "ich-ct", "{number:int}": "9999"}
    return found


def ask(visitor, method, path, **fields):
    return visitor.get(path) if method == "GET" else visitor.form(path, **FIELDS | fields)


def named(path, parts):
    path = path.replace("/holds/{number:int}", "/holds/{hold}")
    for name, value in parts.items():
        path = path.replace(name, value)
    return path


def test_every_route_stands_in_the_matrix_and_those_open_to_all_are_four(app):
    routes = {(method, one.path): one for one in app.routes for method in one.methods - {"HEAD"}}
    assert all(isinstance(one, Guarded) for one in app.routes)
    assert {key for key, one in routes.items() if one.roles is ANYBODY} == OPEN
    assert routes.keys() == ROUTES.keys() | OPEN
    assert all(one.roles is ANYBODY or one.roles <= set(FleetRole) for one in app.routes)


@pytest.mark.parametrize("who", sorted(EVERYBODY))
def test_a_role_has_its_routes_and_is_refused_at_all_others(visit, known, who):
    visitor = visit(who)
    device = OURS if who in SEES[OURS] else THEIRS
    for (method, path), allowed in ROUTES.items():
        if path == "/sign-out":
            continue
        status = ask(visitor, method, named(path, known[device])).status_code
        assert (status == 403) == (who not in allowed), f"{who} {method} {path}: {status}"
        assert status < 500, f"{who} {method} {path}: {status}"
    assert visitor.form("/sign-out").status_code == 303
    assert visitor.get("/").headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("device", sorted(SEES))
def test_what_belongs_to_another_tenant_is_not_there_at_any_route_that_names_it(visit, known, device):
    nowhere = {
        "{device}": "box-9999999",
        "{site}": "site-9999",
        "{ident}": ulid(99),
        "{hold}": "999",
        "{job}": ulid(98),
    }
    for who in sorted(EVERYBODY - SEES[device]):
        visitor = visit(who)
        for (method, path), allowed in ROUTES.items():
            owned = [name for name in OWNED if name in named(path, {})]
            if not owned or who not in allowed:
                continue
            theirs = named(path, known[device])
            never = named(path, known[device] | nowhere)
            answer, other = ask(visitor, method, theirs), ask(visitor, method, never)
            assert (answer.status_code, other.status_code) == (404, 404), f"{who} {method} {path}"
            for name in owned:
                if name in nowhere and name != "{hold}":  # a number of one digit is everywhere
                    there, gone = known[device][name], nowhere[name]
                    assert answer.text.count(there) == other.text.count(gone), f"{who} {method} {path}: {name}"


def test_a_box_that_one_sees_gives_no_way_to_logs_of_one_that_one_does_not(visit, known):
    visitor = visit("dealer")
    mine, theirs = known[OURS], known[THEIRS]
    answer = visitor.get(f"/devices/{OURS}/logs/{mine['{job}']}")
    assert (answer.status_code, answer.content) == (200, b"logs")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert visitor.get(f"/devices/{OURS}/logs/{theirs['{job}']}").status_code == 404
    assert visit("operator").get(f"/devices/{OURS}/logs/{theirs['{job}']}").status_code == 404


@pytest.mark.parametrize("who", sorted(EVERYBODY))
def test_models_results_and_roll_outs_tell_of_ones_own_tenant_alone(visit, fleet, known, who):
    with db.write(fleet) as connection:
        for device, version in ((OURS, "7.1.0"), (THEIRS, "8.1.0")):
            add_results(connection, device, version=version)
    visitor = visit(who)
    seen = {device for device, people in SEES.items() if who in people}
    for path in ("/models", "/models/ich-ct", "/results", "/results?days=90", "/results.csv", "/rollouts/new"):
        if who not in ROUTES["GET", "/models/{package}" if path == "/models/ich-ct" else path.partition("?")[0]]:
            continue
        text = visitor.get(path).text
        told = {device for device, version in ((OURS, "7.1.0"), (THEIRS, "8.1.0")) if version in text}
        assert told == (set() if path == "/rollouts/new" else seen), path
        tenants = {device for device, tenant in ((OURS, HOSPITAL), (THEIRS, OTHER)) if f">{tenant}<" in text}
        assert tenants <= seen, path
    text = visitor.get("/rollouts").text
    assert {device for device in SEES if known[device]["{ident}"] in text} == seen


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
