"""A roll-out and the heartbeats of boxes in a browser: F2, F3 and F4 of the console."""

from __future__ import annotations

import pytest
from console_kit import COOKIE, OURS, THEIRS, add_fleet, signed_in
from console_rollouts import add_boxes, add_model, devices_of, drive, running, submitted, told
from sqlalchemy import func, select, update

from appliance.clock import FakeClock, SystemClock
from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import console_app
from appliance.fleet.server.registry import due_at
from appliance.fleet.server.server_keys import ServerKeys
from appliance.web.server import WebServer


@pytest.fixture
def fleet(tmp_path):
    """Address, database, keys and clock of a console over 22 boxes."""
    engine = db.open_engine(f"sqlite:///{tmp_path}/fleet.db")
    db.migrate(engine)
    clock, keys = FakeClock(SystemClock().now()), ServerKeys.open(tmp_path / "keys")
    with db.write(engine) as connection:
        add_fleet(connection, now=clock.now())
        add_model(connection, now=clock.now())
        add_boxes(connection, range(10, 30), now=clock.now())
    server = WebServer(console_app(engine, keys, clock, folder=tmp_path), port=0)
    yield f"http://127.0.0.1:{server.start()}", engine, keys, clock
    server.stop()
    engine.dispose()


@pytest.fixture
def seat(fleet, browser):
    """``seat(who, path)``: somebody's page, whose own time goes on when it is told to."""
    address, engine, _, clock = fleet

    def sit(who, path):
        context = browser()
        context.add_cookies([{"name": COOKIE, "value": signed_in(engine, who, clock.now()), "url": address}])
        page = context.new_page()
        page.clock.install()
        page.goto(address + path)
        return page

    return sit


def jobs(engine, ident):
    with db.read(engine) as connection:
        return connection.execute(select(func.count()).where(t.job.c.roll_out == ident)).scalar_one()


def act(page, name, why, version=""):
    """Open the dialog of an act, give the reason, and do it."""
    page.get_by_test_id(f"act-{name}").click()
    page.fill(f"#why-{name}", why)
    if version:
        page.fill(f"#sure-{name}", version)
    page.get_by_test_id(f"do-{name}").click()


@pytest.mark.req("R-FLEET-79")
def test_f2_a_roll_out_stops_at_its_threshold_and_the_page_says_so_by_itself(fleet, seat):
    _, engine, keys, clock = fleet
    ident = running(engine, keys, now=clock.now())
    canaries = devices_of(engine, ident)
    page = seat("vendor", f"/rollouts/{ident}")
    page.evaluate("window.stays = true")

    told(engine, ident, dict.fromkeys(canaries[:2], ("FAILED", "DISK_FULL")), now=clock.now())
    drive(engine, keys, clock.now())
    page.clock.fast_forward(11_000)
    page.locator("[data-testid=wave-1] .legend .bad", has_text="Failed 2").wait_for()
    assert page.get_by_test_id("progress").get_attribute("data-state") == "RUNNING", "two are below what is looked at"
    assert page.evaluate("window.stays"), "the waves came without the page"

    told(engine, ident, {canaries[2]: ("FAILED", "DISK_FULL")}, now=clock.now())
    drive(engine, keys, clock.now())
    before = jobs(engine, ident)
    page.clock.fast_forward(11_000)
    page.get_by_test_id("paused").wait_for()
    page.wait_for_load_state()  # it came with a new page, whose buttons do nothing before its scripts run
    assert "too many boxes failed or went back" in page.get_by_test_id("paused").inner_text()
    verdict = page.get_by_test_id("verdict-failures").inner_text()
    assert "FAILED" in verdict
    assert "100.0 percent of 3 boxes" in verdict
    assert page.get_by_test_id("act-resume").is_visible(), "the page came anew with what can be done now"
    clock.advance(600)
    drive(engine, keys, clock.now())
    assert jobs(engine, ident) == before, "nobody further was told"

    act(page, "abort", "a bad version", "3.0.0")
    page.get_by_test_id("progress").locator("xpath=self::*[@data-state='ABORTED']").wait_for()
    page.wait_for_load_state()  # to its last line
    assert "a bad version" in page.get_by_test_id("timeline").inner_text()


@pytest.mark.long
@pytest.mark.req("R-FLEET-80")
def test_f3_the_maker_is_refused_in_the_browser_and_a_second_person_is_not(fleet, seat):
    _, engine, _, clock = fleet
    ident = submitted(engine, now=clock.now())
    maker = seat("operator", f"/rollouts/{ident}")
    act(maker, "approve", "it is mine")
    refused = maker.get_by_test_id("refused")
    refused.wait_for()
    assert "somebody else must" in refused.inner_text()
    assert "rollout approve" in maker.get_by_test_id("command").inner_text()
    second = seat("vendor", f"/rollouts/{ident}")
    act(second, "approve", "read the protocol")
    second.get_by_text("given by vendor").wait_for()
    with db.read(engine) as connection:
        row = connection.execute(select(t.roll_out)).one()
    assert row.made_by != row.approved_by
    assert row.state == "WAITING_APPROVAL", "no browser gives the release signature"


@pytest.mark.long
@pytest.mark.req("R-FLEET-52")
def test_f4_a_box_is_told_apart_after_three_missed_heartbeats_and_offline_by_its_last_will(fleet, seat):
    _, engine, _, clock = fleet
    with db.write(engine) as connection:
        beat = {"last_seen_at": clock.now(), "due_at": due_at(clock.now(), 60)}
        connection.execute(update(t.status).values(**beat))
    page = seat("operator", "/")
    stale = page.locator("[data-testid=count-stale] b")
    for minute in (1, 2, 3):
        clock.advance(60)
        with db.write(engine) as connection:  # all but one go on beating
            beat = {"last_seen_at": clock.now(), "due_at": due_at(clock.now(), 60)}
            connection.execute(update(t.status).where(t.status.c.device != OURS).values(**beat))
        with page.expect_response("**/counts"):
            page.clock.fast_forward(21_000)
        assert stale.inner_text() == "0", minute
    clock.advance(30)
    with page.expect_response("**/counts"):
        page.clock.fast_forward(21_000)
    page.locator("[data-testid=count-stale] b", has_text="1").wait_for()
    row = page.get_by_test_id(f"box-{OURS}")
    row.locator(".link.stale").wait_for()
    assert "Stale" in row.inner_text()
    assert "Online" in page.get_by_test_id(f"box-{THEIRS}").inner_text()
    with db.write(engine) as connection:
        gone = {"online": False, "why": "lwt", "since_at": clock.now()}
        connection.execute(update(t.status).where(t.status.c.device == OURS).values(**gone))
    page.clock.fast_forward(21_000)
    row.locator(".link.offline").wait_for()
