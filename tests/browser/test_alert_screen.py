"""The alert screen as a technologist sees it: every state in both languages, alive or loudly not, and the two acts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import httpx
import pytest
from web_kit import COOKIE, browser_cookie, session

from appliance.clock import SystemClock
from appliance.config import Config
from appliance.records import Detail, Outcome
from appliance.screen import screen_app
from appliance.store.facts import Kind
from appliance.web.server import WebServer

#: State: where its words stand, and what they are in both languages.
WORDS = {
    "idle": ("hero", "Ready", "就绪"),
    "receiving": ("hero", "Receiving images", "正在接收图像"),
    "analysing": ("hero", "Analysing", "正在分析"),
    "urgent": ("hero", "Suspected bleed in the head", "疑似颅内出血"),
    "priority": ("hero", "Suspected pleural effusion", "疑似胸腔积液"),
    "note": ("hero", "For information", "提示"),
    "quality": ("hero", "lung bases cut off", "肺底未包全"),
    "seen": ("seen-by", "Seen by Li Wei", "Li Wei 已于"),
    "told": ("told", "Dr Chen told at", "通知 Dr Chen"),
    "test": ("hero", "Test alert", "测试警示"),
    "nothing-flagged": ("hero", "Nothing flagged", "AI 未作提示"),
    "not-analysed": ("hero", "Images are missing", "图像缺失"),
    "ai-down": ("ai-down", "AI NOT WORKING", "AI 不可用"),
}
#: Scenes whose state has another name.
STATES = {"told": "seen"}
BAND = {"en": "Evaluation, not for patient care", "zh_Hans_CN": "评估模式，不得用于诊疗"}
FOOTER = {"en": "Not a diagnosis", "zh_Hans_CN": "不作为诊断依据"}

OVERFLOW = """() => {
  const out = [];
  const root = document.documentElement;
  if (root.scrollHeight > innerHeight || root.scrollWidth > innerWidth) out.push("page scrolls");
  for (const box of document.querySelectorAll(".hero, .middle, .say, .words, .bottom, .level, aside")) {
    if (box.scrollHeight > box.clientHeight + 1 && box.clientHeight && getComputedStyle(box).display !== "inline")
      out.push(`${box.className || box.tagName}: ${box.scrollHeight} in ${box.clientHeight}`);
    const at = box.getBoundingClientRect();
    if (at.bottom > innerHeight + 1 || at.right > innerWidth + 1) out.push(`${box.className} leaves the screen`);
  }
  return out;
}"""


@pytest.fixture
def shown(open_page, store, scenes):
    """``shown(scene, ...)``: the page of a store in that state."""

    def show(scene, query="", *arguments, **options):
        scenes.fill(store, scene)
        return open_page(query, *arguments, **options)

    return show


@pytest.mark.req("R-SCREEN-01")
@pytest.mark.req("R-SCREEN-05")
@pytest.mark.parametrize("state", WORDS)
def test_every_state_is_painted_in_both_languages_and_fits_a_small_panel(shown, state):
    place, english, chinese = WORDS[state]
    page = shown(state)
    for locale, words in (("en", english), ("zh_Hans_CN", chinese)):
        page.goto(page.url.split("?")[0] + f"?lang={locale}")
        page.wait_for_selector("html[data-connection=live]")
        assert page.locator("html").get_attribute("data-state") == STATES.get(state, state)
        assert words in page.get_by_test_id(place).first.inner_text()
        assert page.get_by_test_id("evaluation").inner_text() == BAND[locale]
        assert FOOTER[locale] in page.locator("footer").inner_text()
        for size in ({"width": 1280, "height": 800}, {"width": 800, "height": 480}, {"width": 1920, "height": 1080}):
            page.set_viewport_size(size)
            assert page.evaluate(OVERFLOW) == [], (locale, size)
    assert page.troubles == []


@pytest.mark.parametrize("scene", ["several", "backlog", "ai-down-with-alert", "quality-several", "overdue", "empty"])
def test_crowded_and_empty_states_fit_a_small_panel(shown, scene):
    page = shown(scene)
    for locale in BAND:
        page.goto(page.url.split("?")[0] + f"?lang={locale}")
        page.wait_for_selector("html[data-connection=live]")
        for size in ({"width": 1280, "height": 800}, {"width": 800, "height": 480}):
            page.set_viewport_size(size)
            assert page.evaluate(OVERFLOW) == [], (locale, size)
    assert page.troubles == []


@pytest.mark.req("R-SCREEN-07")
@pytest.mark.parametrize("scene", [*WORDS, "several", "backlog", "ai-down-with-alert", "overdue"])
def test_no_state_says_normal_or_negative_and_none_shows_a_whole_name(shown, scenes, scene):
    text = shown(scene).locator("body").inner_text().lower()
    for word in ("normal", "negative", "healthy", "absent", "正常", "阴性"):
        assert word not in text
    for person in (scenes.WANG, scenes.DOE, scenes.LI):
        assert person.patient_id.lower() not in text
    assert "xiaoming" not in text
    assert "jane" not in text


@pytest.mark.long  # a latency on a shared machine: not for every run
def test_an_alert_is_painted_within_a_quarter_second_of_its_commit(open_page, write, scenes, wait_until):
    page = open_page()
    rows = page.locator("[data-alert-state=presented]")
    drawn = 0

    def paint_one():
        nonlocal drawn
        page.evaluate("document.documentElement.dataset.painted = ''")
        write(scenes.urgent)
        committed = time.time() * 1000
        page.wait_for_selector("html[data-painted]:not([data-painted=''])")
        delay = float(page.locator("html").get_attribute("data-painted")) - committed
        # The page reports that it has painted the alert, which paints once more: let that pass.
        drawn = min(drawn + 1, 6)
        wait_until(lambda: rows.count() == drawn)
        return delay

    # A neighbour may take the machine away for a moment; it cannot for three rounds.
    rounds = []
    while len(rounds) < 3 and not (rounds and rounds[-1][18] <= 250):
        rounds.append(sorted(paint_one() for _ in range(20)))
    assert rounds[-1][18] <= 250, rounds


@pytest.mark.req("R-SCREEN-03")
def test_a_name_acknowledges_and_stands_in_the_journal(open_page, store, write, scenes, wait_until):
    page = open_page()
    alert = write(scenes.urgent)
    page.click("[data-acknowledge]")
    page.fill("#acknowledge-name", "Li Wei")
    page.click("#acknowledge .primary")
    page.wait_for_selector("html[data-state=seen]")
    assert "Seen by Li Wei" in page.get_by_test_id("seen-by").inner_text()
    assert not page.locator("#acknowledge").is_visible()
    (fact,) = store.journal.after(0, 10, (Kind.ALERT_ACKNOWLEDGED,))
    assert (fact.actor["name"], fact.body["alert"]) == ("Li Wei", alert)
    # The next one is acknowledged with one tap on the name, and no empty name acknowledges anything.
    second = write(scenes.urgent)
    page.wait_for_selector(f"[data-acknowledge='{second}']")
    page.keyboard.press("a")
    page.click("#acknowledge .primary")
    assert page.locator("#acknowledge").is_visible()
    page.click("#acknowledge-names button:has-text('Li Wei')")
    wait_until(lambda: not store.views.open_alerts())
    assert page.troubles == []


@pytest.mark.req("R-SCREEN-09")
def test_a_warning_is_answered_with_choice_reason_and_name_and_is_gone(open_page, store, write, scenes, wait_until):
    page = open_page(viewport={"width": 800, "height": 480})
    write(scenes.warned)
    page.wait_for_selector("html[data-state=quality]")
    assert page.locator("html").get_attribute("data-chimes") is None
    page.click("button.primary[data-decide]")
    page.click("#quality button.primary")
    assert page.locator("#quality").is_visible(), "nothing is recorded until everything is filled in"
    page.click("text=Another image was taken")
    page.select_option("#quality-reason", "anatomy_cutoff")
    page.fill("#quality-name", "Li Wei")
    assert page.evaluate("document.getElementById('quality').scrollHeight <= innerHeight")
    page.click("#quality button.primary")
    page.wait_for_selector("html[data-state=nothing-flagged]")
    assert not page.locator("#quality").is_visible()
    (fact,) = store.journal.after(0, 10, (Kind.QUALITY_DECIDED,))
    assert (fact.actor["name"], fact.body["choice"], fact.body["reason"]) == ("Li Wei", "image_added", "anatomy_cutoff")
    # One that stands only in the list is answered there, with a tap on the name.
    second = write(scenes.warned)
    write(scenes.urgent)
    page.wait_for_selector("html[data-state=urgent]")
    page.click(f".item [data-decide='{second}']")
    page.click("text=The image stays as it is")
    page.select_option("#quality-reason", "no_fault_seen")
    page.click("#quality-names button:has-text('Li Wei')")
    page.click("#quality button.primary")
    wait_until(lambda: len(store.journal.after(0, 10, (Kind.QUALITY_DECIDED,))) == 2)
    assert page.troubles == []


def test_an_acknowledgement_is_seen_on_every_screen_and_closes_their_questions(
    open_page, serve, signed_in, store, write, scenes
):
    _, address = serve()
    context = signed_in(address)
    alert = write(scenes.urgent)
    first = open_page(context=context, address=address)
    second = open_page(context=context, address=address)
    second.click("[data-acknowledge]")
    first.click("[data-acknowledge]")
    first.fill("#acknowledge-name", "Zhao Lei")
    first.press("#acknowledge-name", "Enter")
    second.wait_for_selector("html[data-state=seen]")
    assert not second.locator("#acknowledge").is_visible()
    assert store.views.alert(alert).acknowledged_by == "Zhao Lei"


def test_the_box_is_told_when_an_alert_was_painted(open_page, store, write, scenes, wait_until):
    page = open_page()
    alert = write(scenes.urgent)
    fact = wait_until(lambda: store.journal.after(0, 10, (Kind.ALERT_PRESENTED,)))[0]
    assert fact.body == {"alert": alert, "screen": "CT1-screen"}
    assert page.troubles == []


def test_an_alert_that_found_no_place_on_a_small_panel_does_not_count_as_presented(
    open_page, store, write, scenes, wait_until
):
    for _ in range(6):
        write(scenes.urgent)
    page = open_page(viewport={"width": 800, "height": 480})
    wait_until(lambda: store.journal.after(0, 100, (Kind.ALERT_PRESENTED,)))
    page.wait_for_timeout(300)
    visible = page.evaluate(
        "[...document.querySelectorAll('[data-alert]')]"
        ".filter(e => e.getBoundingClientRect().right <= innerWidth).length"
    )
    assert 1 < visible < 6
    assert len(store.journal.after(0, 100, (Kind.ALERT_PRESENTED,))) == visible


def test_of_two_alerts_the_newest_is_on_top_and_both_are_counted(open_page, write, scenes):
    page = open_page()
    older = write(scenes.urgent, scenes.LI)
    newer = write(scenes.urgent, scenes.WANG)
    page.wait_for_selector(f".result[data-alert='{newer}']")
    assert "2 open alerts" in page.get_by_test_id("count").inner_text()
    assert page.locator(f".item[data-alert='{older}']").count() == 1


def test_nothing_flagged_says_what_was_and_was_not_looked_for(shown):
    page = shown("nothing-flagged")
    scope = page.get_by_test_id("scope").inner_text()
    assert "may be fresh blood" in scope
    assert "everything else" in scope
    assert "still need to be read" in page.get_by_test_id("hero").inner_text()


@pytest.mark.req("R-SCREEN-02")
def test_connection_lost_is_said_within_8_s_and_no_result_stays_visible(serve, open_page, write, scenes):
    write(scenes.urgent)
    server, address = serve()
    page = open_page(address=address)
    begun = time.monotonic()
    server.stop()
    page.wait_for_selector("html[data-connection=lost]", timeout=8000)
    assert time.monotonic() - begun <= 8
    assert page.get_by_test_id("lost").is_visible()
    assert not page.get_by_test_id("hero").is_visible()
    assert ":" in page.locator("#contact").inner_text()
    assert "-" not in page.locator("#contact").inner_text()


@pytest.mark.fault("T44")
@pytest.mark.req("R-SCREEN-02")
def test_a_server_that_hangs_is_noticed_as_one_that_is_gone(repo, open_page, browser, tmp_path):
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from appliance.clock import SystemClock
        from appliance.config import Config
        from appliance.records import SYSTEM
        from appliance.screen import screen_app
        from appliance.store import Store
        from appliance.web.server import WebServer
        store = Store.open(Path(sys.argv[1]), SystemClock(), reserve_bytes=0)
        store.screens.offer("CT1", (), "code", SYSTEM)
        cookie = store.sessions.open(store.screens.pair("code"), "pairing")
        print(WebServer(screen_app(store, Config(), {}, SystemClock()), port=0).start(), cookie, flush=True)
        time.sleep(600)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "other")], cwd=repo, stdout=subprocess.PIPE, text=True
    )
    try:
        port, cookie = process.stdout.readline().split()
        address, context = f"http://127.0.0.1:{port}", browser()
        context.add_cookies([{"name": COOKIE, "value": cookie, "url": address}])
        page = open_page(address=address, context=context)
        os.kill(process.pid, signal.SIGSTOP)
        page.wait_for_selector("html[data-connection=lost]", timeout=8000)
        os.kill(process.pid, signal.SIGCONT)
        page.wait_for_selector("html[data-connection=live]", timeout=15000)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.req("R-SCREEN-02")
def test_a_page_whose_script_never_ran_says_connection_lost(serve, signed_in, write, scenes):
    write(scenes.urgent)
    _, address = serve()
    for options in ({"java_script_enabled": False}, {}):
        page = signed_in(address, **options).new_page()
        if not options:
            page.route("**/alert.js", lambda route: route.fulfill(body="throw new Error('broken')"))
        page.goto(f"{address}/alert")
        page.wait_for_timeout(2300)  # the banner comes by itself, two seconds after the page
        opacity = page.locator("#lost").evaluate("e => getComputedStyle(e).opacity") if not options else "1"
        assert opacity == "1"
        assert page.get_by_test_id("lost").is_visible()
        assert not page.get_by_test_id("hero").is_visible()
        if options:
            assert "scripts" in page.locator("#lost").inner_text()


@pytest.mark.req("R-SCREEN-04")
def test_an_alert_missed_while_the_server_was_away_is_shown_and_sounds_once(serve, open_page, store, write, scenes):
    server, address = serve()
    port = int(address.rsplit(":", 1)[1])
    page = open_page("", "--autoplay-policy=no-user-gesture-required", address=address)
    write(scenes.urgent, scenes.LI)
    page.wait_for_selector("html[data-chimes='1']")
    server.stop()
    page.wait_for_selector("html[data-connection=lost]", timeout=8000)
    write(scenes.urgent, scenes.WANG)
    serve(port)
    page.wait_for_selector("html[data-connection=live]", timeout=15000)
    page.wait_for_selector("html[data-chimes='2']")
    assert page.locator(".result[data-alert]").count() == 1
    assert page.locator(".item[data-alert]").count() == 1
    page.wait_for_timeout(2500)
    assert page.locator("html").get_attribute("data-chimes") == "2"


@pytest.mark.req("R-SCREEN-04")
def test_the_stream_replays_missed_rows_exactly_once(serve, store, write, scenes):
    _, address = serve()
    cookie = session(store)
    ids, told = [], []

    def read(last, enough):
        headers = {"Last-Event-ID": str(last)} if last is not None else {}
        headers["Cookie"] = f"{COOKIE}={cookie}"
        with httpx.stream("GET", f"{address}/events", headers=headers, timeout=20) as answer:
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("id: "):
                    ids.append(int(line[4:]))
                elif line.startswith("data: ") and name == "board":
                    told.extend(fact["seq"] for fact in json.loads(line[6:])["facts"])
                    if len(told) >= enough:
                        return ids[-1]
        raise AssertionError("the stream ended")

    begun = store.journal.last_seq()
    write(scenes.urgent)
    last = read(begun, 2)
    for _ in range(5):
        write(scenes.urgent)
    last = read(last, 12)
    write(scenes.not_analysed)
    read(last, 13)
    expected = [fact.seq for fact in store.journal.after(begun) if fact.kind in {Kind.ALERT_RAISED, Kind.STUDY_OUTCOME}]
    assert told == expected


def test_streams_that_were_left_are_forgotten(serve, open_page, wait_until, scenes, store):
    app = screen_app(store, Config(), scenes.packages(), SystemClock())
    feed = app.state.feed
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    try:
        page = open_page(address=address)
        wait_until(lambda: feed.waiting == 1)
        page.reload()
        page.wait_for_selector("html[data-connection=live]")
        page.close()
        wait_until(lambda: feed.waiting == 0)
    finally:
        server.stop()


@pytest.mark.req("R-FAULT-T23")
@pytest.mark.fault("T23")
def test_hostile_text_is_shown_as_text_and_runs_nothing(open_page, write, scenes):
    hostile = scenes.Identity(
        study_instance_uid="1.2",
        patient_name='<img src=x onerror="document.title=1">^<script>document.title=2</script>',
        accession_number='"><b>',
        patient_id="</main><iframe src=//evil>",
    )
    page = open_page()
    title = page.title()
    write(scenes.urgent, hostile, study_values={"description": "<script>document.title=3</script>", "source": "<u>CT"})
    write(scenes.not_analysed, details=(Detail("<svg onload=document.title=4>"),), identity=hostile)
    page.wait_for_selector("[data-acknowledge]")
    assert "<script>document.title=3</script>" in page.get_by_test_id("who").inner_text()
    page.get_by_test_id("who").click()
    page.wait_for_selector("text=<iframe src=//evil>")
    page.click("[data-acknowledge]")
    page.fill("#acknowledge-name", "<img src=x onerror=document.title=5>")
    page.click("#acknowledge .primary")
    page.wait_for_selector("text=Seen by <img src=x")
    assert page.locator("main script, main iframe, main img, main u, main b b").count() == 0
    assert page.title() == title
    assert page.troubles == []


def test_the_whole_name_is_shown_on_a_tap_and_masked_again(shown, scenes):
    page = shown("urgent")
    page.clock.install()
    page.reload()
    page.wait_for_selector("html[data-connection=live]")
    who = page.get_by_test_id("who")
    assert "W. X." in who.inner_text()
    who.click()
    page.wait_for_selector("text=WANG, XIAOMING")
    assert scenes.WANG.patient_id in who.inner_text()
    page.clock.run_for(21000)
    assert "XIAOMING" not in page.locator("body").inner_text()


def test_the_frame_flashes_at_one_and_a_half_hertz_and_the_text_does_not(shown):
    page = shown("urgent")
    seconds = page.locator(".frame").evaluate("e => parseFloat(getComputedStyle(e).animationDuration)")
    assert 0.5 <= seconds <= 0.714
    assert page.evaluate("document.getAnimations().filter(a => a.effect.target.closest('main')).length") == 0


def test_the_frame_is_steady_for_who_asks_for_less_motion_and_for_a_late_result(shown):
    page = shown("urgent", reduced_motion="reduce")
    assert page.locator(".frame").evaluate("e => getComputedStyle(e).animationName") == "none"
    assert page.locator(".frame").evaluate("e => getComputedStyle(e).opacity") == "1"


def test_a_late_result_shows_its_frame_without_flashing(shown):
    page = shown("backlog")
    assert page.locator(".frame").evaluate("e => getComputedStyle(e).animationName") == "none"
    assert "3 flagged" in page.get_by_test_id("notice").inner_text()


def test_sound_that_a_browser_blocks_is_said_and_a_tap_turns_it_on(shown):
    page = shown("urgent")
    page.wait_for_selector("html[data-sound=off]")
    assert "Sound is off" in page.get_by_test_id("sound").inner_text()
    assert page.locator("html").get_attribute("data-chimes") is None
    page.get_by_test_id("sound").click()
    page.wait_for_selector("html[data-sound=on]")
    page.wait_for_selector("html[data-chimes='1']")


def test_category_2_passive_and_late_alerts_make_no_sound(open_page, store, write, scenes):
    page = open_page("", "--autoplay-policy=no-user-gesture-required")
    page.wait_for_selector("html[data-sound=on]")
    write(scenes.priority)
    write(scenes.priority, category=1, active=0, chime=0)
    late = write(scenes.urgent, chime=0)
    page.wait_for_selector(f"[data-alert='{late}']")
    assert page.locator("html").get_attribute("data-chimes") is None
    write(scenes.urgent)
    page.wait_for_selector("html[data-chimes='1']")


def height(page, selector):
    """In one call: between two, the board may be drawn anew and the element be gone."""
    return page.evaluate("selector => document.querySelector(selector).getBoundingClientRect().height", selector)


def test_buttons_fit_a_gloved_finger_and_the_alert_is_read_from_three_metres(shown):
    page = shown("urgent")
    for size in ({"width": 1280, "height": 800}, {"width": 800, "height": 480}):
        page.set_viewport_size(size)
        assert height(page, "[data-acknowledge]") >= 64
        assert height(page, "[data-testid=who]") >= 48
        assert height(page, ".languages a") >= 48
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.locator(".words h1").evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 48


def test_the_clock_moves_every_second(open_page, wait_until):
    page = open_page()
    first = page.get_by_test_id("clock").inner_text()
    wait_until(lambda: page.get_by_test_id("clock").inner_text() != first, timeout_s=2.5)


def test_the_picture_carries_its_warning_and_a_triage_package_has_none(shown, write, scenes, store):
    page = shown("urgent")
    figure = page.get_by_test_id("picture")
    assert figure.inner_text() == "Preview, not for diagnosis"
    assert figure.locator("img").evaluate("e => e.decode().then(() => e.naturalWidth)") == 192
    store.alerts.acknowledge(store.views.open_alerts()[0].id, _person())
    write(scenes.priority)
    page.wait_for_selector("html[data-state=priority]")
    assert page.get_by_test_id("picture").count() == 0
    assert page.troubles == []


def test_images_arriving_are_counted_live_and_the_study_ends_in_its_result(open_page, write, scenes, wait_until):
    page = open_page()
    study = write(scenes.add_study, is_open=True, images=3)
    page.wait_for_selector("html[data-state=receiving]")

    def more(tx):
        tx.execute("UPDATE study SET images = 4 WHERE id = ?", (study,))
        tx.journal(scenes.StudyOutcome(outcome="x"), study_id=study)

    write(more)
    wait_until(lambda: page.get_by_test_id("images").inner_text() == "4")
    write(lambda tx: tx.execute("UPDATE series SET open = 0 WHERE study_id = ?", (study,)))
    analysis = write(scenes.add_analysis, study, None)
    page.wait_for_selector("html[data-state=analysing]")

    def end(tx):
        tx.execute("UPDATE analysis SET state = 'done', outcome = 'NOTHING_FLAGGED' WHERE id = ?", (analysis,))
        tx.execute("UPDATE study SET outcome = ?, outcome_at = ? WHERE id = ?", (Outcome.NOTHING_FLAGGED, tx.at, study))
        tx.journal(scenes.StudyOutcome(outcome="NOTHING_FLAGGED"), study_id=study)

    write(end)
    page.wait_for_selector("html[data-state=nothing-flagged]")


def test_an_updated_box_gets_a_fresh_page(open_page):
    page = open_page()
    with page.expect_navigation():
        page.evaluate("document.documentElement.dataset.build = 'older'")
    page.wait_for_selector("html[data-connection=live]")


def test_page_and_style_are_small(open_page):
    page = open_page()
    sizes = page.evaluate(
        "performance.getEntriesByType('resource').filter(r => /[.](js|css)$/.test(r.name)).map(r => r.decodedBodySize)"
    )
    assert len(sizes) == 3
    assert sum(sizes) < 150_000


CLINICAL = {
    "site": {"mode": "clinical", "radiologist_phone": "5 1234", "service_phone": "400 820 1234"},
    "sources": [{"name": "CT-1", "ae_title": "CT1"}, {"name": "DX-2", "ae_title": "DX2"}],
    "screen": {"escalation": {"repeat_every_s": 5}},
}


@pytest.mark.req("R-ALERT-02")
def test_who_was_told_is_recorded_by_keys_on_a_small_panel_and_its_facts_stand_in_order(
    serve, open_page, store, write, scenes, wait_until
):
    _, address = serve(config=Config.model_validate(CLINICAL))
    page = open_page("?lang=zh_Hans_CN", address=address, viewport={"width": 800, "height": 480})
    alert = write(scenes.urgent)
    page.wait_for_selector("[data-alert-state=presented]")
    page.keyboard.press("t")
    page.wait_for_selector("#tell[open]")
    assert page.get_by_test_id("tell-who").inner_text() == "王晓明 · PID-88172355 · ACC20260100474711"
    assert "疑似颅内出血" in page.locator("#tell-what").inner_text()
    assert page.evaluate("(e => e.scrollHeight <= e.clientHeight && e.getBoundingClientRect().bottom <= innerHeight)"
                         "(document.getElementById('tell'))")  # fmt: skip
    page.click("#tell .primary")
    assert page.locator("#tell").is_visible(), "nothing is recorded until everything is filled in"
    page.click("#tell :text('电话')")
    page.click("#tell :text('已复述')")
    page.fill("#tell-whom", "Dr Chen")
    page.fill("#tell-name", "Li Wei")
    page.press("#tell-name", "Enter")
    page.wait_for_selector("[data-testid=told]")
    assert not page.locator("#tell").is_visible()
    assert "通知 Dr Chen" in page.get_by_test_id("told").inner_text()
    facts = [fact for fact in store.journal.of_study(1) if str(fact.kind).startswith("alert_")]
    assert [str(fact.kind) for fact in facts] == [
        "alert_raised", "alert_presented", "alert_acknowledged", "alert_communicated"
    ]  # fmt: skip
    body = facts[-1].body
    assert (facts[-1].actor["name"], body["received_by"], body["method"], body["read_back"], body["alert"]) == (
        "Li Wei", "Dr Chen", "phone", True, alert
    )  # fmt: skip
    # A second person: the first name is one tap away.
    page.click("[data-testid=tell]")
    page.click("#tell-recipients button:has-text('Dr Chen')")
    page.click("#tell-names button:has-text('Li Wei')")
    page.click("#tell :text('当面')")
    page.click("#tell .primary")
    wait_until(lambda: len(store.communications.of_alerts([alert])[alert]) == 2)
    assert page.troubles == []


@pytest.mark.req("R-ALERT-01")
@pytest.mark.req("R-ALERT-06")
def test_whoever_is_signed_in_acknowledges_with_one_tap_and_can_try_whether_alerts_arrive(
    serve, open_page, signed_in, store, write, scenes, wait_until
):
    _, address = serve(config=Config.model_validate(CLINICAL))
    loud = "--autoplay-policy=no-user-gesture-required"
    at_scanner = open_page("", address=address, context=signed_in(address, "screen", loud))
    page = open_page("", address=address, context=signed_in(address, "technologist"))
    alert = write(scenes.urgent)
    at_scanner.wait_for_selector("html[data-chimes='1']")
    page.click("[data-acknowledge]")
    page.wait_for_selector("[data-testid=seen-by]")
    assert not page.locator("#acknowledge").is_visible()
    assert store.views.alert(alert).acknowledged_by == "Theo Technologist"
    page.click("[data-testid=more]")
    assert "/critical-values" in page.get_by_test_id("elsewhere").inner_html()
    page.click("[data-testid=test]")
    page.select_option("#test-source", "CT-1")
    page.click("[data-testid=begin-test]")
    for one in (page, at_scanner):
        one.wait_for_selector("html[data-state=test]")
        assert "TEST" in one.get_by_test_id("hero").inner_text()
        assert one.evaluate(OVERFLOW) == []
    at_scanner.wait_for_selector("html[data-chimes='2']")
    assert at_scanner.locator(".frame").evaluate("e => getComputedStyle(e).opacity") != "0"
    wait_until(lambda: store.alert_tests.open()[0].is_presented)
    page.keyboard.press("a")
    at_scanner.wait_for_selector("html[data-state=seen]")
    assert store.journal.after(0, 100, (Kind.TEST_ALERT_ACKNOWLEDGED,))[0].actor["name"] == "Theo Technologist"
    assert page.troubles + at_scanner.troubles == []


@pytest.mark.req("R-ALERT-03")
def test_the_chime_repeats_until_it_is_paused_and_a_new_alert_ends_the_pause(serve, open_page, store, write, scenes):
    _, address = serve(config=Config.model_validate(CLINICAL))
    page = open_page("", "--autoplay-policy=no-user-gesture-required", address=address)
    alert = write(scenes.urgent)
    page.wait_for_selector("html[data-chimes='1']")
    write(scenes.steps_taken, alert, scenes.AlertStep.REPEAT)
    page.wait_for_selector("html[data-chimes='2']")
    page.keyboard.press("m")
    page.wait_for_selector("html[data-sound=paused]")
    # On a busy machine another one may have sounded before the key did.
    heard = int(page.locator("html").get_attribute("data-chimes"))
    assert re.search(r"\b[12]:\d\d\b", page.get_by_test_id("sound").inner_text())
    page.wait_for_timeout(5600)
    assert page.locator("html").get_attribute("data-chimes") == str(heard)
    write(scenes.urgent, scenes.LI)
    page.wait_for_selector(f"html[data-chimes='{heard + 1}']")
    assert page.locator("html").get_attribute("data-sound") == "on"
    for one in store.views.open_alerts():
        store.alerts.acknowledge(one.id, _person())
    page.wait_for_selector("html[data-state=seen]")
    heard = page.locator("html").get_attribute("data-chimes")
    page.wait_for_timeout(5600)
    assert page.locator("html").get_attribute("data-chimes") == heard, "an acknowledged alert is silent"


@pytest.mark.fault("T45")
def test_keys_hide_names_switch_the_language_and_say_what_they_do_and_a_lost_act_is_loud(
    serve, open_page, store, write, scenes, wait_until
):
    _, address = serve(config=Config.model_validate(CLINICAL))
    page = open_page("", address=address)
    alert = write(scenes.urgent)
    page.wait_for_selector("[data-acknowledge]")
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    assert page.locator("#keys kbd").all_inner_texts() == ["A", "T", "M", "P", "F", "L", "?"]
    for button in page.locator("#keys button").all():
        assert button.bounding_box()["height"] >= 48
    page.keyboard.press("?")
    page.wait_for_selector("#keys", state="hidden")
    page.keyboard.press("p")
    assert "blur" in page.locator(".who-line").first.evaluate("e => getComputedStyle(e).filter")
    assert page.get_by_test_id("privacy").is_visible()
    page.keyboard.press("p")
    assert page.locator(".who-line").first.evaluate("e => getComputedStyle(e).filter") == "none"
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement !== null")
    page.keyboard.press("f")
    page.wait_for_function("document.fullscreenElement === null")
    # An acknowledgement that does not arrive is said, and the question stays open.
    page.route("**/acknowledge", lambda route: route.abort())
    page.keyboard.press("a")
    page.fill("#acknowledge-name", "Li Wei")
    page.click("#acknowledge .primary")
    page.wait_for_selector("#acknowledge-error:not([hidden])")
    assert store.views.alert(alert).acknowledged_by == ""
    page.unroute("**/acknowledge")
    page.click("#acknowledge .primary")
    wait_until(lambda: store.views.alert(alert).acknowledged_by == "Li Wei")
    page.wait_for_selector("#acknowledge", state="hidden")
    page.keyboard.press("l")
    page.wait_for_selector("html[lang=zh-Hans-CN]")
    assert [line for line in page.troubles if "net::ERR_FAILED" not in line] == []


@pytest.mark.req("R-ALERT-03")
@pytest.mark.req("R-ALERT-07")
def test_overdue_stands_on_a_screen_of_another_scanner_without_its_finding_and_a_revoked_screen_shows_nothing(
    serve, open_page, browser, store, write, scenes
):
    _, address = serve(config=Config.model_validate(CLINICAL))
    context = browser()
    context.add_cookies([browser_cookie(store, address, name="DX-2 room", sources=("DX-2",))])
    page = open_page("?lang=zh_Hans_CN", address=address, context=context)
    alert = write(scenes.urgent)
    write(scenes.steps_taken, alert, scenes.AlertStep.REPEAT, scenes.AlertStep.TELL)
    page.wait_for_timeout(1200)
    assert page.get_by_test_id("overdue").count() == 0
    assert page.locator("[data-alert]").count() == 0
    write(scenes.steps_taken, alert, scenes.AlertStep.OVERDUE)
    banner = page.get_by_test_id("overdue")
    banner.wait_for()
    said = banner.inner_text()
    assert "超时未处理" in said
    assert "王*明" in said
    assert "CT-1" in said
    assert "疑似" not in page.locator("#board").inner_text()
    assert page.locator("html").get_attribute("data-state") == "idle"
    (mine,) = [one for one in store.screens.all() if one.name == "DX-2 room"]
    store.screens.revoke(mine.id, _person())
    page.wait_for_url("**/sign-in**", timeout=15000)


def _person():
    from appliance.records import Actor, ActorKind

    return Actor(kind=ActorKind.PERSON, name="Li Wei")
