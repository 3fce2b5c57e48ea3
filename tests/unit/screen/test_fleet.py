"""The page of the fleet: what waits for the site's word, who said it, and how the link stands."""

from __future__ import annotations

import re

import pytest
from admin_kit import served
from fleet_jobs_kit import ALWAYS, JobBox
from fleet_tools import ToolsOfFleet
from package_rows_kit import NAME

from appliance.fleet.wire import Op
from appliance.store.fleet_jobs import APPROVAL

pytestmark = pytest.mark.req("R-FLEET-88")
BAND = re.compile(r'id="approvals"[^>]*data-testid="approvals" (hidden)?>.*?<b id="approvals-count">(\d+)</b>')


@pytest.fixture
def box(tmp_path, clock):
    made = JobBox(tmp_path, clock=clock, approval="both")
    made.inbox.take_twin(made.twin(1, window=ALWAYS))
    made.serve("1.0.0")
    yield made
    made.close()


@pytest.fixture
def pages(box, scenes):
    with served(box.store, box.clock, scenes.packages(), config=box.config, tools=ToolsOfFleet(box)) as somebody:
        yield somebody


def band(page):
    """(is shown, number) of what every page of the administrator says; None where it has no such place."""
    found = BAND.search(page.text)
    return None if found is None else (found[1] is None, int(found[2]))


def codes(box):
    return [(one.code, one.subject) for one in box.store.issues.open()]


def test_what_waits_is_told_on_every_page_and_approved_with_name_and_reason(box, pages):
    job = box.install_job("2.0.0", by=(41, 7))
    box.run()
    assert codes(box) == [(APPROVAL, "job 1")]
    ada = pages("administrator")
    page = ada.get("/fleet").text
    told = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for words in ("Install a model", f"{NAME}", "1.0.0 · LIVE", "2.0.0 · Its findings raise alerts and are sent.",
                  "bbbbbbbbbbbb", "Account 41, 7 of the service team", "Job 1"):  # fmt: skip
        assert words in told, words
    assert "b" * 13 not in page
    expires = box.clock.now().timestamp() + 24 * 3600
    assert type(box.clock.now()).fromtimestamp(expires).astimezone().strftime("%Y-%m-%d %H:%M") in page
    for path in ("/fleet", "/studies", "/users"):
        assert band(ada.get(path)) == (True, 1), path
    assert "等待您批准的 AI 变更" in ada.get("/users?lang=zh_Hans_CN").text
    answer = ada.post("/fleet/jobs/1/approve", reason="  ")
    assert (answer.status_code, box.row(job).approved_by) == (422, "")
    ada.post("/fleet/jobs/1/approve", reason="seen with Dr. Wang")
    fact = next(f for f in box.store.journal.after(0, 1000) if f.body.get("code") == "APPROVED")
    assert (fact.actor["name"], fact.actor["role"]) == (box.row(job).approved_by, "administrator")
    assert fact.body["why"] == "seen with Dr. Wang"
    assert codes(box) == []
    assert ada.post("/fleet/jobs/1/approve", reason="again").status_code == 409
    box.run()
    assert (box.state(job), box.packages()["2.0.0"]) == ("SOAKING", "live")
    page = ada.get("/fleet").text
    assert 'data-testid="waits"' not in page
    assert fact.actor["name"] in page.partition('data-testid="jobs"')[2]


def test_a_refusal_ends_the_job_and_what_runs_runs_on(box, pages):
    box.serve("3.0.0")
    job = box.give(Op.MODEL_ROLLBACK, package=NAME)
    box.run()
    ada = pages("administrator")
    page = ada.get("/fleet").text
    assert ("Go back to the model before" in page, '<strong class="mono">1.0.0</strong>' in page) == (True, True)
    ada.post("/fleet/jobs/1/refuse", reason="not in this week")
    box.run()
    assert (box.state(job), box.packages()["3.0.0"]) == (("REJECTED", "REFUSED_BY_SITE"), "live")
    assert (codes(box), ada.post("/fleet/jobs/9/refuse", reason="which").status_code) == ([], 409)


def test_service_sees_what_waits_and_decides_nothing_and_nobody_else_sees_it(box, pages):
    box.install_job("2.0.0")
    box.run()
    service = pages("service")
    page = service.get("/fleet")
    assert (page.status_code, "data-open" in page.text, band(page)) == (200, False, None)
    assert "Waits for the administrator" in page.text
    assert service.post("/fleet/jobs/1/approve", reason="because").status_code == 403
    assert pages("radiologist").get("/fleet").status_code == 403
    assert band(pages("radiologist").get("/studies")) is None
    assert box.store.fleet_jobs.get("1").approved_by == ""


def test_a_job_that_nobody_answers_in_time_waits_no_longer(box):
    box.install_job("2.0.0")
    box.run()
    box.clock.advance(25 * 3600)
    for _ in range(3):
        box.clock.advance(3600)
        box.run()
    assert (box.store.fleet_jobs.get("1").state, codes(box)) == ("TIMED_OUT", [])


def test_the_page_says_how_the_link_stands(box, pages):
    somebody = pages("service")
    page = somebody.get("/fleet").text
    assert ('data-connected="no"' in page, "Never yet" in page) == (True, True)
    box.store.fleet.new_session("0" * 32)
    box.store.fleet.stands(connected=True)
    since = box.clock.now().astimezone().strftime("%Y-%m-%d %H:%M")
    last = box.store.journal.last_seq()
    batch = box.store.fleet.add_batch(0, last - 2)
    box.clock.advance(600)
    box.store.fleet.acknowledged([batch.id])
    page = somebody.get("/fleet").text
    told = box.clock.now().astimezone().strftime("%Y-%m-%d %H:%M")
    waiting = box.store.journal.last_seq() - box.store.journal.cursor("fleet")
    assert (f"Connected since {since}" in page, f"<dd>{told}</dd>" in page) == (True, True)
    assert (f"{waiting} rows of the journal" in page, waiting) == (True, 2)
    # A start that follows a kill: the line does not stand before the broker has us.
    box.store.fleet.new_session("1" * 32)
    assert 'data-connected="no"' in somebody.get("/fleet").text


def test_a_box_in_no_fleet_says_so_and_has_no_such_page_in_its_menu(store, clock, scenes):
    with served(store, clock, scenes.packages()) as somebody:
        page = somebody("administrator").get("/fleet").text
        assert "in no fleet" in page
        assert 'href="/fleet"' not in page.partition("<nav")[2].partition("</nav>")[0]
