"""The fleet's console in a browser: both languages, barriers, filter and pages without a reload, plots, a job."""

from __future__ import annotations

import re

import pytest
from console_kit import COOKIE, HOUR, MINUTE, OTHER_SITE, OURS, add_box, add_fleet, fill_box, signed_in
from fleet_kit import SITE
from web_kit import barriers

from appliance.clock import SystemClock
from appliance.fleet.server import db
from appliance.fleet.server.console import console_app
from appliance.fleet.server.server_keys import ServerKeys
from appliance.web.server import WebServer

pytestmark = pytest.mark.req("R-FLEET-54")
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
    server = WebServer(console_app(engine, ServerKeys.open(tmp_path / "keys"), clock), port=0)
    yield f"http://127.0.0.1:{server.start()}", engine, now
    server.stop()
    engine.dispose()


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
