"""The worklist in a browser: what changes while somebody reads it, keys, and how quickly it stands there."""

from __future__ import annotations

import pytest

#: Milliseconds from the address to the first paint.
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
FOCUSED = "document.activeElement.closest('tr')?.id ?? document.activeElement.id"
TOP = "document.activeElement.getBoundingClientRect().top"


@pytest.fixture
def fill(write, scenes):
    """Twenty quiet studies, numbered from the oldest."""
    return [write(scenes.nothing_flagged, ago_s=3600.0 - 60 * n) for n in range(20)]


def rows(page):
    return page.locator("#rows tr").evaluate_all("rows => rows.map(row => Number(row.dataset.id))")


@pytest.mark.req("R-STUDIES-09")
def test_nothing_moves_under_a_reader_and_what_is_new_waits_behind_a_pill(open_page, store, write, scenes, fill):
    page = open_page(path="/studies", role="technologist")
    assert rows(page) == fill[::-1]
    # Nobody reads: what comes is shown where it belongs.
    write(scenes.nothing_flagged)
    page.wait_for_selector("#study-21")
    assert rows(page)[0] == 21
    assert page.get_by_test_id("matching").inner_text() == "21"
    # Somebody stands on a row: it stays where it is, whatever comes or changes.
    for _ in range(3):
        page.keyboard.press("j")
    assert page.evaluate(FOCUSED) == "study-19"
    top = page.evaluate(TOP)
    write(scenes.urgent)
    pill = page.get_by_test_id("pill")
    pill.wait_for()
    assert pill.inner_text() == "1 new"
    assert page.locator("#study-22").count() == 0
    with store.db.write() as tx:
        scenes.add_alert(tx, 20, scenes.add_analysis(tx, 20, scenes.finding_result(tx, 20)))
        tx.execute("UPDATE study SET outcome = 'FINDING' WHERE id = 20")
        scenes.add_delivery(tx, 19, "A destination with a long name that takes two lines", state="parked")
        tx.journal(scenes.StudyOutcome(outcome="NOTHING_FLAGGED"), study_id=19)
    page.wait_for_selector("#study-20[data-level=urgent]")
    page.wait_for_selector("#study-19 .sent.parked")
    assert rows(page)[:3] == [21, 20, 19]
    assert page.evaluate(FOCUSED) == "study-19"
    assert abs(page.evaluate(TOP) - top) < 2
    assert pill.inner_text() == "1 new"
    # The pill brings it, most urgent first.
    pill.click()
    page.wait_for_selector("#study-22")
    assert rows(page)[:3] == [22, 20, 21]
    assert not pill.is_visible()
    # A filter that does not let it pass: it is counted, not shown.
    page.goto(page.url + "?state=NOT_ANALYSED")
    page.wait_for_selector("html[data-connection=live]")
    assert page.get_by_test_id("hidden").inner_text() == "22 hidden by filter"
    write(scenes.not_analysed)
    page.wait_for_selector("#study-23")
    assert page.get_by_test_id("hidden").inner_text() == "22 hidden by filter"
    assert page.troubles == []


@pytest.mark.req("R-STUDIES-12")
def test_the_list_is_worked_with_keys_fits_its_width_and_changes_language(open_page, fill):
    page = open_page(path="/studies", role="radiologist")
    for key, focused in (("j", "study-20"), ("j", "study-19"), ("k", "study-20"), ("k", "study-20"), ("/", "q")):
        page.keyboard.press(key)
        assert page.evaluate(FOCUSED) == focused
    page.keyboard.type("jane")
    page.keyboard.press("Enter")
    page.wait_for_url("**/studies?q=jane**")
    page.keyboard.press("u")
    page.wait_for_url("**urgent=1**")
    assert page.get_by_test_id("hidden").inner_text() == "20 hidden by filter"
    assert "No study passes this filter." in page.get_by_test_id("empty").inner_text()
    page.keyboard.press("r")
    page.wait_for_url("**/studies")
    page.select_option("#span", "days")
    assert page.locator(".days").is_visible()
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").is_visible()
    page.keyboard.press("Escape")
    for lang in ("en", "zh_Hans_CN"):
        page.goto(page.url.split("?")[0] + f"?lang={lang}")
        page.wait_for_selector("html[data-connection=live]")
        for width in (1280, 1920, 800):
            page.set_viewport_size({"width": width, "height": 800})
            # A narrow window scrolls the table, never the page.
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (lang, width)
            small = page.evaluate(
                "[...document.querySelectorAll('main button, main select, main input, main .button')]"
                ".filter(e => e.offsetParent && e.type !== 'checkbox' && e.getBoundingClientRect().height < 48)"
                ".map(e => e.outerHTML)"
            )
            assert small == [], (lang, width)
    page.set_viewport_size({"width": 1280, "height": 800})
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/studies/20")
    assert page.troubles == []


@pytest.mark.long  # a latency on a shared machine: not for every run
@pytest.mark.req("R-STUDIES-04")
def test_five_thousand_studies_are_painted_within_a_second_on_a_slow_panel(serve, signed_in, write, scenes):
    write(scenes.many, 5000)
    _, address = serve()
    page = signed_in(address, "radiologist").new_page()
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})

    def first_paint():
        page.goto(f"{address}/studies?span=all")
        page.wait_for_selector("#rows tr")
        page.wait_for_function(f"() => ({FIRST_PAINT}) > 0")
        return page.evaluate(FIRST_PAINT)

    first_paint()  # fonts and scripts come once
    # A neighbour may take the machine away for a moment; it cannot for three rounds.
    rounds = []
    while len(rounds) < 3 and not (rounds and rounds[-1][2] <= 1000):
        rounds.append(sorted(first_paint() for _ in range(5)))
    assert rounds[-1][2] <= 1000, rounds
