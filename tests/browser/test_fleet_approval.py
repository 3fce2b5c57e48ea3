"""An administrator hears on any open page that the fleet wants to change something, and answers by the keyboard."""

from __future__ import annotations

import pytest
from fleet_jobs_kit import ALWAYS, JobBox
from fleet_tools import ToolsOfFleet
from web_kit import barriers, served

from appliance.clock import SystemClock
from appliance.screen import screen_app
from appliance.web.i18n import LOCALES

TOLD = {"en": ("Waits for your approval", "Account 41"), "zh_Hans_CN": ("等待您批准", "维护人员账号 41")}


@pytest.fixture
def store(box):
    """Of the box, for whoever signs in."""
    return box.store


@pytest.fixture
def box(tmp_path):
    made = JobBox(tmp_path, clock=SystemClock(), approval="site")
    made.inbox.take_twin(made.twin(1, window=ALWAYS))
    made.serve("1.0.0")
    yield made
    made.close()


@pytest.mark.req("R-FLEET-88")
def test_the_change_is_told_on_an_open_page_and_approved_without_a_mouse(box, scenes, signed_in, troubles):
    app = screen_app(box.store, box.config, scenes.packages(), SystemClock(), ToolsOfFleet(box))
    with served(app) as address:
        page = signed_in(address, "administrator").new_page()
        found = troubles(page)
        page.goto(f"{address}/health")
        page.wait_for_selector("html[data-connection=live]")
        assert page.get_by_test_id("approvals").is_hidden()
        job = box.install_job("2.0.0", by=(41,))
        box.run()
        page.get_by_test_id("approvals").wait_for()  # nobody has loaded the page anew
        assert page.inner_text("#approvals-count") == "1"
        wrong = []
        for locale in LOCALES:
            page.goto(f"{address}/language?to={locale}&next=/fleet")
            said = page.inner_text("main")
            assert [words for words in TOLD[locale] if words not in said] == []
            wrong += barriers(page)
            page.evaluate(f"document.getElementById('yes-{job.ctr}').showModal()")
            wrong += barriers(page, "dialog[open]")
            page.keyboard.press("Escape")
        assert wrong == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for _ in range(60):
            if page.evaluate("document.activeElement.dataset.testid") == f"approve-{job.ctr}":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.type("reviewed on Friday")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-testid=waits]", state="detached")
        page.wait_for_load_state()  # before, nothing is there yet
        page.get_by_test_id("approvals").wait_for(state="hidden")  # the page may be younger than the board
        assert box.row(job).approved_by == "Ada Administrator"
        box.run()
        assert box.packages()["2.0.0"] == "live"
        assert found == []
