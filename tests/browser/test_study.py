"""The page of a study in a browser."""

from __future__ import annotations

import pytest


@pytest.mark.req("R-STUDY-12")
def test_a_study_is_read_answered_and_kept_up_to_date(open_page, store, write, scenes):
    study = write(scenes.warned, findings=("bases", "rotated"))
    with store.db.write() as tx:
        scenes.add_delivery(tx, study, "PACS", kind="sr", state="parked", error="A700: out of resources")
    page = open_page(path=f"/studies/{study}", role="technologist")
    assert page.locator("main h1").inner_text() == "WANG, XIAOMING"
    assert page.get_by_test_id("card").get_attribute("data-level") == "quality"
    assert page.get_by_test_id("changed").is_hidden()
    # By keys alone: what was done, why, and the act.
    page.locator("input[name=choice]").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("Exposure")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_test_id("answered").wait_for()
    assert "Theo Technologist" in page.get_by_test_id("answered").inner_text()
    assert "The quality warning was answered" in page.get_by_test_id("history").inner_text()
    # Another analysis: it is offered, and the page of the reader stays as it is.
    page.wait_for_load_state()  # its scripts listen
    page.wait_for_selector("html[data-connection=live]")
    write(scenes.warn_again, study)
    with store.db.write() as tx:
        tx.journal(scenes.StudyOutcome(outcome="NOTHING_FLAGGED"), study_id=study)
    page.get_by_test_id("changed").wait_for()
    assert page.get_by_test_id("card").count() == 1
    page.click("#renew")
    page.wait_for_function("() => document.querySelectorAll('[data-testid=card]').length === 2")
    for lang in ("en", "zh_Hans_CN"):
        page.goto(page.url.split("?")[0] + f"?lang={lang}")
        page.wait_for_selector("html[data-connection=live]")
        for width in (1280, 1920, 800):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (lang, width)
    assert page.troubles == []


@pytest.mark.req("R-STUDY-12")
def test_what_happens_while_a_page_loads_is_told_on_it(serve, signed_in, store, write, scenes):
    _, address = serve()
    study, held, asked = write(scenes.warned), [], []
    page = signed_in(address, "radiologist").new_page()

    def hold(route):
        held.append(route)

    page.route("**/study*.js", hold)
    page.on("request", lambda request: asked.append(request.url) if "/events/page" in request.url else None)
    page.goto(f"{address}/studies/{study}", wait_until="commit")
    page.wait_for_function("() => performance.getEntriesByType('resource').some(({ name }) => /shell/.test(name))")
    with store.db.write() as tx:
        tx.journal(scenes.StudyOutcome(outcome="NOTHING_FLAGGED"), study_id=study)
    page.wait_for_timeout(500)  # for a stream that must not be asked for yet: nobody would listen
    assert asked == []
    held[0].continue_()
    page.get_by_test_id("changed").wait_for()


@pytest.mark.req("R-STUDY-12")
def test_a_page_that_waits_for_its_result_takes_it_when_it_comes(open_page, store, write, scenes):
    study = write(scenes.add_study)
    page = open_page(path=f"/studies/{study}", role="radiologist")
    assert page.get_by_test_id("study").get_attribute("data-level") == "open"
    with store.db.write() as tx:
        analysis = scenes.add_analysis(tx, study, scenes.finding_result(tx, study))
        tx.execute("UPDATE study SET outcome = 'FINDING', outcome_at = ?", (tx.at,))
        scenes.add_alert(tx, study, analysis)
    page.wait_for_selector("[data-testid=study][data-level=urgent]")
    assert "Suspected bleed in the head" in page.get_by_test_id("card").inner_text()
    page.get_by_test_id("not-acknowledged").wait_for()
    assert page.troubles == []
