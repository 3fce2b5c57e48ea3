"""The fleet's console in a browser: both languages, barriers, filter and pages without a reload, plots, a job."""

from __future__ import annotations

import re

import pytest
from console_kit import (
    COOKIE,
    HOUR,
    MINUTE,
    OTHER_SITE,
    OURS,
    THEIRS,
    add_box,
    add_fleet,
    add_results,
    fill_box,
    signed_in,
)
from console_rollouts import add_boxes, add_model, devices_of, drive, running, submitted, told
from fleet_kit import SITE
from web_kit import Longer, barriers

from appliance.clock import SystemClock
from appliance.fleet.server import db
from appliance.fleet.server.console import app as console_module
from appliance.fleet.server.console import console_app
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout.holds import add_hold
from appliance.fleet.server.server_keys import ServerKeys
from appliance.web.server import WebServer

pytestmark = pytest.mark.req("R-FLEET-54")
_PAINTS = "style => [style.color, style.backgroundColor, style.fill, style.borderLeftColor]"
BANNED = re.compile(r"\b(normal|negative|healthy|accuracy)\b|正常|阴性|准确率", re.IGNORECASE)


def counted(page, which, n):
    """Wait until so many are there."""
    page.locator(f":nth-match({which}, {n})").wait_for()
    page.locator(f":nth-match({which}, {n + 1})").wait_for(state="detached")


@pytest.fixture
def console(tmp_path):
    """The address of a console over sixty boxes, and its database."""
    engine = db.open_engine(f"sqlite:///{tmp_path}/fleet.db")
    db.migrate(engine)
    clock = SystemClock()
    now = clock.now()
    with db.write(engine) as connection:
        add_fleet(connection, now=now)
        fill_box(connection, OURS, now=now)
        for n in range(3, 61):
            place = SITE if n % 3 else OTHER_SITE
            add_box(connection, f"box-{n:07d}", place, now=now, online=n != 9, seen=HOUR if n == 8 else MINUTE / 30)
    keys = ServerKeys.open(tmp_path / "keys")
    server = WebServer(console_app(engine, keys, clock, folder=tmp_path), port=0)
    yield f"http://127.0.0.1:{server.start()}", engine, now
    server.stop()
    engine.dispose()


@pytest.fixture
def rolled(console, tmp_path):
    """Addresses of pages with something on them: a roll-out that stopped, one that waits, results, a hold."""
    _, engine, now = console
    keys = ServerKeys.open(tmp_path / "keys")
    with db.write(engine) as connection:
        add_model(connection, now=now)
        add_boxes(connection, range(70, 90), now=now)
        add_results(connection, now=now)
        add_results(connection, THEIRS, now=now, mode="evaluation", days=1, n=4, not_analysed={"quality": 1})
        who = {"actor": "operator", "now": now}
        add_hold(connection, keys, Scope.everything(), "site", OTHER_SITE, why="audit week", **who)
    ident = running(engine, keys, now=now)
    states = ("FAILED", "FAILED", "ROLLED_BACK", "WAIT_APPROVAL", "SOAKING")
    told(engine, ident, {d: (states[n % 5], "") for n, d in enumerate(devices_of(engine, ident))}, now=now)
    drive(engine, keys, now)
    waits = submitted(engine, now=now)
    named = (f"/rollouts/{ident}", f"/rollouts/{waits}", f"/sites/{OTHER_SITE}", "/models/ich-ct")
    return ("/models", "/results", "/rollouts", "/rollouts/new", *named)


@pytest.mark.parametrize("locale", [pytest.param("en", marks=pytest.mark.long), "zh_Hans_CN"])
def test_every_page_is_clean_in_both_languages_and_works_without_a_reload(console, browser, troubles, locale):
    address, engine, now = console
    context = browser()
    context.add_cookies([{"name": "scanside_lang", "value": locale, "url": address}])
    page = context.new_page()
    page.troubles = troubles(page)
    page.goto(f"{address}/sign-in")
    assert barriers(page) == []
    context.add_cookies([{"name": COOKIE, "value": signed_in(engine, "operator", now), "url": address}])
    for path in ("/issues", "/audit", "/users", "/account", "/"):
        page.goto(address + path)
        assert barriers(page, colours=locale == "en") == [], path
        assert not BANNED.search(page.inner_text("body")), path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), path
    page.evaluate("window.stays = true")
    page.get_by_test_id("next").click()
    page.get_by_test_id("box-box-0000060").wait_for()
    page.fill("#f-text", "box-0000009")
    counted(page, "#boxes tbody tr", 1)
    page.get_by_test_id("box-box-0000009").wait_for()
    page.fill("#f-text", "")
    page.select_option("#f-state", "stale")
    page.get_by_test_id("box-box-0000008").wait_for()
    counted(page, "#boxes tbody tr", 1)
    assert "state=stale" in page.url
    assert page.evaluate("window.stays"), "none of it loaded the page anew"

    page.goto(f"{address}/devices/{OURS}")
    page.wait_for_selector("#plots[data-drawn=true] canvas")
    page.get_by_test_id("timeline").wait_for()
    assert barriers(page, colours=locale == "en") == []
    assert not BANNED.search(page.inner_text("body"))
    page.get_by_test_id("everything").check()
    counted(page, "#timeline li", 13)
    page.get_by_test_id("act-ping").click()
    assert barriers(page, "dialog[open]", colours=locale == "en") == []
    page.fill("dialog[open] input[name=why]", "does it answer?")
    page.locator("dialog[open]").get_by_test_id("give").click()
    counted(page, "[data-testid=jobs] tbody tr", 2)
    assert page.troubles == []


@pytest.mark.long
@pytest.mark.parametrize("locale", ["en", "zh_Hans_CN"])
def test_pages_of_models_results_and_roll_outs_are_clean_and_work_by_keyboard(
    console, rolled, browser, troubles, locale
):
    address, engine, now = console
    context = browser()
    context.add_cookies([{"name": "scanside_lang", "value": locale, "url": address}])
    context.add_cookies([{"name": COOKIE, "value": signed_in(engine, "operator", now), "url": address}])
    page = context.new_page()
    page.troubles = troubles(page)
    for path in (*rolled, f"/devices/{OURS}"):
        page.goto(address + path)
        assert barriers(page) == [], path
        assert not BANNED.search(page.inner_text("body")), path
        assert page.locator("h1").count() == 1, path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), path
        painted = f"[...document.querySelectorAll('main *')].map(e => getComputedStyle(e)).flatMap({_PAINTS})"
        for colour in set(page.evaluate(painted)):
            parts = [float(x) for x in re.findall(r"[\d.]+", colour)][:3]
            if len(parts) == 3:
                red, green, blue = parts
                assert not (green > 1.3 * red and green > 1.3 * blue and green > 60), f"{path}: {colour}"
    page.goto(f"{address}{rolled[4]}")
    button = page.get_by_test_id("act-abort")
    button.focus()
    page.keyboard.press("Enter")
    page.locator("dialog[open]").wait_for()
    assert barriers(page, "dialog[open]") == []
    page.locator("dialog[open] #why-abort").focus()
    page.keyboard.type("by hand")
    page.keyboard.press("Tab")
    page.keyboard.type("3.0.0")
    page.keyboard.press("Enter")
    page.locator("[data-testid=progress][data-state=ABORTED]").wait_for()
    page.goto(f"{address}{rolled[6]}")
    page.get_by_test_id("hold").press("Enter")
    page.fill("#hold-why", "by hand")
    page.keyboard.press("Enter")
    page.get_by_test_id("hold-2").wait_for()
    assert page.troubles == []


@pytest.mark.long
def test_no_page_breaks_where_texts_are_longer_by_40_percent(monkeypatch, tmp_path, console, rolled, browser):
    _, engine, now = console
    monkeypatch.setattr(console_module, "Catalogues", Longer)
    app = console_app(engine, ServerKeys.open(tmp_path / "keys"), SystemClock(), folder=tmp_path)
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    context = browser()
    context.add_cookies([{"name": COOKIE, "value": signed_in(engine, "operator", now), "url": address}])
    page = context.new_page()
    for path in (*rolled, "/issues", "/audit", "/users", "/account", "/", f"/devices/{OURS}"):
        page.goto(address + path)
        assert "~~" in page.inner_text("main"), path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), path
        cut = "e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'auto'"
        held = "h1, h2:not(.unseen), .button, .tag, label"
        cut = f"[...document.querySelectorAll('{held}')].filter({cut}).map(e => e.textContent)"
        assert page.evaluate(cut) == [], path
    server.stop()
