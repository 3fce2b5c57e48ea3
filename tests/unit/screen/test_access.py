"""Who may what: every address of the box against every role. An address that stands in no list below is a failure.

A new address is one line in the list of those who may have it. The lists are written out here, not taken from the code:
who widens a group there finds every address that it opens.
"""

from __future__ import annotations

import re

import pytest
from admin_kit import FakeTools, settings_in
from starlette.responses import PlainTextResponse
from web_kit import Browser, account, session

from appliance.config import Config
from appliance.records import SYSTEM, UserRole
from appliance.screen import screen_app
from appliance.store.facts import Kind
from appliance.web.access import BEFORE_CHANGE, Guarded

pytestmark = [pytest.mark.req("R-ACCESS-02", "R-FAULT-T42"), pytest.mark.fault("T42")]

ANYBODY = """
GET  /assets/{build}/{name:path}
GET  /language
GET  /pair
POST /pair
GET  /sign-in
POST /sign-in
GET  /sign-in/oidc
GET  /sign-in/oidc/callback
GET  /setup
POST /setup
GET  /api/v1/openapi.json
"""
EVERYONE = """
GET  /
GET  /events/page
GET  /api/v1/health
"""
#: Signed in, whatever they are.
PEOPLE = """
POST /sign-out
GET  /account
POST /account/password
"""
#: All but service: whose work is with patients.
WATCHING = """
GET  /alert
GET  /events
GET  /api/board
GET  /alerts/{alert_id:int}/picture
GET  /studies/{study_id:int}/identity
POST /alerts/test/{test_id:int}/presented
GET  /api/v1/alerts
GET  /api/v1/events
GET  /api/v1/studies
GET  /api/v1/studies/{study_id:int}
"""
#: The same without paired screens.
CLINICAL = """
GET  /studies
GET  /api/worklist
GET  /studies/{study_id:int}
GET  /studies/{study_id:int}/images
GET  /studies/{study_id:int}/images/{series_id:int}/{picture}
GET  /studies/{study_id:int}/images/{series_id:int}/{picture}/overlay
GET  /studies/{study_id:int}/images/{series_id:int}/{picture}/preview.png
GET  /IHEInvokeImageDisplay
"""
#: Who answers.
ALERTED = """
POST /alerts/{alert_id:int}/acknowledge
POST /alerts/{alert_id:int}/presented
GET  /alerts/{alert_id:int}/communication
POST /alerts/{alert_id:int}/communications
POST /studies/{study_id:int}/quality
POST /api/v1/alerts/{alert_id:int}/acknowledge
"""
ALERTED_AND_ADMINISTRATOR = """
POST /alerts/test/{test_id:int}/acknowledge
"""
CRITICAL_VALUES = """
GET  /critical-values
GET  /critical-values.csv
"""
TECHNOLOGIST_AND_RADIOLOGIST = """
POST /studies/{study_id:int}/warnings
POST /studies/{study_id:int}/review/ask
"""
TECHNOLOGIST_AND_ADMINISTRATOR = """
POST /alerts/test
POST /studies/{study_id:int}/version
"""
RADIOLOGIST = """
GET  /reviews
GET  /studies/{study_id:int}/review
POST /studies/{study_id:int}/review
POST /studies/{study_id:int}/review/preview
"""
RADIOLOGIST_AND_ADMINISTRATOR = """
GET  /statistics
"""
KEEPERS = """
GET  /destinations
POST /destinations/{name}/test
POST /destinations/{name}/pause
POST /destinations/{name}/resume
POST /destinations/{name}/retry
GET  /models
GET  /fleet
GET  /api/v1/metrics
GET  /models/{name}/{version}/points/{finding}
GET  /health
GET  /health/series
GET  /health/series.csv
GET  /health/bundle.zip
POST /health/acknowledge
POST /health/shelve
"""
ADMINISTRATOR = """
POST /destinations/{name}/forget
GET  /users
POST /users
GET  /users/{account_id:int}
POST /users/{account_id:int}/role
POST /users/{account_id:int}/active
POST /users/{account_id:int}/password
GET  /screens
POST /screens
POST /screens/{screen_id:int}/revoke
POST /studies/{study_id:int}/reprocess
POST /models/{name}/{version}/activate
POST /models/{name}/{version}/live
POST /models/{name}/{version}/withdraw
POST /models/{name}/{version}/rollback
POST /models/{name}/{version}/build
POST /models/{name}/{version}/points/{finding}
POST /models/cancel-build
POST /fleet/jobs/{number:int}/approve
POST /fleet/jobs/{number:int}/refuse
POST /models/install
GET  /audit
GET  /audit/chain
POST /audit/chain
GET  /audit/export
GET  /settings
GET  /settings/export.yaml
GET  /settings/file
POST /settings/file
POST /settings/save
POST /settings/restart
GET  /settings/run
GET  /settings/{section}
POST /settings/{section}
GET  /setup/sheet
POST /setup/site
POST /setup/receive
POST /setup/pacs
POST /setup/models
POST /setup/screen
POST /setup/test
POST /setup/pacs/test
POST /setup/screen/sound
POST /setup/screen/heard
GET  /setup/test/state
GET  /setup/{step}/check
GET  /setup/{step}
"""
LISTS = (
    (None, ANYBODY),
    ("screen viewer technologist radiologist administrator service", EVERYONE),
    ("viewer technologist radiologist administrator service", PEOPLE),
    ("screen viewer technologist radiologist administrator", WATCHING),
    ("viewer technologist radiologist administrator", CLINICAL),
    ("screen technologist radiologist", ALERTED),
    ("screen technologist radiologist administrator", ALERTED_AND_ADMINISTRATOR),
    ("technologist radiologist administrator", CRITICAL_VALUES),
    ("technologist radiologist", TECHNOLOGIST_AND_RADIOLOGIST),
    ("technologist administrator", TECHNOLOGIST_AND_ADMINISTRATOR),
    ("radiologist", RADIOLOGIST),
    ("radiologist administrator", RADIOLOGIST_AND_ADMINISTRATOR),
    ("administrator service", KEEPERS),
    ("administrator", ADMINISTRATOR),
)
OIDC = {"issuer": "https://idp.example", "client_id": "scanside", "roles": {"a": "viewer"}}


@pytest.fixture(scope="module")
def table():
    """Address with method: who may; None for anybody."""
    found = {}
    for roles, text in LISTS:
        for line in text.strip().splitlines():
            address = " ".join(line.split())
            assert address not in found, f"{address} stands in two lists"
            found[address] = None if roles is None else set(roles.split())
    return found


@pytest.fixture
def app(store, clock, scenes):
    return screen_app(store, Config.model_validate({"screen": {"oidc": OIDC}}), scenes.packages(), clock)


#: What each address tells the journal that somebody looked at.
LOOKS = {
    "/studies": "worklist",
    "/api/worklist": "worklist",
    "/studies/{study_id:int}": "study",
    "/studies/{study_id:int}/review": "study",
    "/studies/{study_id:int}/identity": "identity",
    "/studies/{study_id:int}/images": "images",
    "/studies/{study_id:int}/images/{series_id:int}/{picture}": "images",
    "/studies/{study_id:int}/images/{series_id:int}/{picture}/overlay": "images",
    "/studies/{study_id:int}/images/{series_id:int}/{picture}/preview.png": "images",
    "/alerts/{alert_id:int}/picture": "picture",
    "/alerts/{alert_id:int}/communication": "communication",
    "/api/v1/studies": "state",
    "/api/v1/studies/{study_id:int}": "state",
    "/reviews": "reviews",
    "/statistics": "statistics",
    "/critical-values": "register",
    "/critical-values.csv": "register export",
    "/audit": "audit",
    "/audit/export": "audit export",
    "/settings/export.yaml": "settings export",
    "/health/bundle.zip": "support bundle",
}
#: Shown by itself while somebody watches; whom an alert reached is told by the alert's own facts (ADR 0033).
WATCHED = {"/alert", "/events", "/events/page", "/api/board", "/api/v1/alerts", "/api/v1/events"}
#: They lead to an address that tells, or have nothing of a patient.
NOTHING_TO_TELL = {
    *("/", "/IHEInvokeImageDisplay", "/account", "/api/v1/health", "/health", "/health/series", "/health/series.csv"),
    *(
        "/fleet",
        "/api/v1/metrics",
        "/destinations",
        "/models",
        "/models/{name}/{version}/points/{finding}",
        "/users",
        "/users/{account_id:int}",
    ),
    *("/screens", "/audit/chain", "/settings", "/settings/file", "/settings/{section}", "/settings/run"),
    *("/setup/sheet", "/setup/test/state", "/setup/{step}", "/setup/{step}/check"),
}
VALUES = {"picture": "1.0", "section": "site", "step": "receive", "name": "a-package", "version": "1", "finding": "x"}


def test_every_look_at_patient_data_and_every_file_that_leaves_the_box_is_a_fact(store, clock, scenes, write, tmp_path):
    shown = store.spool.write_blob("pictures", scenes.picture(16), suffix=".png")
    assert write(scenes.urgent, pictures=(shown,)) == 1
    tools = FakeTools(settings_in(tmp_path, f"state_path: {tmp_path}\n"))
    app = screen_app(store, tools.settings.loaded.config, scenes.packages(), clock, tools)
    routes = {
        route.path: {str(role) for role in route.roles}
        for route in app.routes
        if isinstance(route, Guarded) and "GET" in route.methods and route.roles is not None
    }
    assert set(routes) == LOOKS.keys() | WATCHED | NOTHING_TO_TELL, "a new address: does it tell who looks?"
    told = {}
    for path, roles in routes.items():
        if "events" in path:  # they never end
            continue
        clock.advance(601)  # what is looked at again within ten minutes is one look
        role, before = next(one for one in ("administrator", "radiologist") if one in roles), store.journal.last_seq()
        asked = re.sub(r"{(\w+)(:int)?}", lambda found: VALUES.get(found[1], "1"), path)
        with Browser(app, session(store, role)) as browser:
            answer = browser.get(asked, params={"accession_number": scenes.WANG.accession_number, "ids": "1"})
        assert answer.status_code != 403, path
        rows = store.journal.after(before, 100, (Kind.ACCESSED,))
        if rows:
            told[path] = " ".join(fact.body["what"] for fact in rows if fact.actor["role"] == role)
    assert told == LOOKS


def addresses(app):
    """Every address with its method, and its route."""
    return {f"{method} {route.path}": route for route in app.routes for method in route.methods - {"HEAD"}}


@pytest.fixture
def stubbed(app):
    """The application with its guards, and nothing behind them."""

    async def reached(_):
        return PlainTextResponse("reached")

    for route in app.routes:
        route.inner = reached
    return app


def ask(browser, address, **headers):
    method, path = address.split()
    path = re.sub(r"{\w+(:int)?}", lambda found: "1" if found[1] else "x", path.replace(":path", ""))
    return browser.form(path, headers) if method == "POST" else browser.get(path, headers=headers)


def test_every_address_stands_in_one_list_and_has_the_roles_of_that_list(app, table):
    served = addresses(app)
    assert sorted(set(served) - set(table)) == [], "new addresses: put each into the list of those who may have it"
    assert sorted(set(table) - set(served)) == [], "addresses that are gone: take them out of the lists"
    wrong = {
        address: (sorted(route.roles or ["anybody"]), sorted(table[address] or ["anybody"]))
        for address, route in served.items()
        if (None if route.roles is None else {str(role) for role in route.roles}) != table[address]
    }
    assert wrong == {}


@pytest.mark.parametrize("role", [str(role) for role in UserRole])
def test_a_role_reaches_its_addresses_and_is_refused_at_every_other_which_the_journal_tells(
    stubbed, table, store, role
):
    with Browser(stubbed, session(store, role)) as browser:
        refused = []
        for address, may in table.items():
            answer = ask(browser, address)
            if may is None or role in may:
                assert (answer.status_code, answer.text) == (200, "reached"), address
            else:
                assert answer.status_code == 403, address
                assert "reached" not in answer.text
                refused.append(address)
    facts = store.journal.after(0, 1000, (Kind.ACCESS_DENIED,))
    assert [fact.body["route"] for fact in facts] == refused
    assert {fact.actor["role"] for fact in facts} <= {role}


@pytest.mark.parametrize("cookie", [None, "x" * 43])
def test_nobody_reaches_anything_but_the_door(stubbed, table, cookie):
    with Browser(stubbed, cookie) as browser:
        for address, may in table.items():
            answer = ask(browser, address)
            if may is None:
                assert answer.text == "reached", address
            else:
                assert answer.status_code == 303, address
                assert answer.headers["location"].startswith("/sign-in?next=%2F"), address
                assert ask(browser, address, Accept="application/json").status_code == 401, address


def test_a_password_of_somebody_else_opens_nothing_but_the_page_that_changes_it(stubbed, table, store):
    cookie = session(store, "administrator")
    with store.db.write() as tx:
        tx.execute("UPDATE account SET must_change = 1")
    with Browser(stubbed, cookie) as browser:
        for address, may in table.items():
            answer = ask(browser, address)
            if may is None or address.split()[1] in BEFORE_CHANGE:
                assert answer.text == "reached", address
            elif "administrator" in may:
                assert answer.headers["location"] == "/account", address


def test_the_cookie_of_an_account_that_is_switched_off_or_changed_opens_nothing(stubbed, store):
    account(store, "administrator")
    one = account(store, "radiologist")
    for act in (
        lambda: store.accounts.set_active(one.id, SYSTEM, active=False),
        lambda: store.accounts.set_password(one.id, "another", SYSTEM, must_change=False),
    ):
        store.accounts.set_active(one.id, SYSTEM, active=True)
        with Browser(stubbed, session(store, "radiologist")) as browser:
            assert browser.get("/reviews").text == "reached"
            act()
            assert browser.get("/reviews").status_code == 303


def test_a_role_that_was_taken_away_is_gone_at_once(stubbed, store):
    account(store, "administrator")
    cookie = session(store, "radiologist")
    store.accounts.set_role(account(store, "radiologist").id, UserRole.VIEWER, SYSTEM)
    with Browser(stubbed, cookie) as browser:
        assert browser.get("/reviews").status_code == 303


def test_a_program_has_what_its_role_has_and_no_more(stubbed, store):
    token = store.tokens.add("console", UserRole.SCREEN, ("CT-1",), SYSTEM)
    with Browser(stubbed) as program:
        program.headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        assert program.get("/api/v1/alerts").text == "reached"
        assert program.get("/users").status_code == 403
        assert program.get("/studies").status_code == 403
        assert program.post("/users").status_code == 403
        program.headers["Authorization"] = "Bearer wrong"
        assert program.get("/api/v1/alerts").status_code == 401
    # Whoever tries tokens is seen, and cannot fill the journal.
    assert [fact.body["how"] for fact in store.journal.after(0, 100, (Kind.SIGN_IN_FAILED,))] == ["token"]


def test_who_asks_again_and_again_for_what_their_role_has_not_makes_one_journal_row_a_minute(stubbed, store, clock):
    def rows():
        return [fact.body["route"] for fact in store.journal.after(0, 100, (Kind.ACCESS_DENIED,))]

    with Browser(stubbed, session(store, "viewer")) as browser:
        for path in ("/users", "/users", "/settings/site", "/settings/dicom", "/users"):
            assert browser.get(path).status_code == 403
        assert rows() == ["GET /users", "GET /settings/{section}"]
        clock.advance(61)
        assert browser.get("/users").status_code == 403
    assert rows() == ["GET /users", "GET /settings/{section}", "GET /users"]
