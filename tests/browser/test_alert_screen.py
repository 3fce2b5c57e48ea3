"""The alert screen as a technologist sees it: every state in both languages, alive or loudly not, and the two acts."""

from __future__ import annotations

import re
import time

import pytest
from web_kit import browser_cookie

from appliance.config import Config
from appliance.records import Detail, Outcome
from appliance.store.facts import Kind

#: Keeps every note that is started, with how loud it gets on its way and whether that leads to the loudspeaker.
HEAR = """
  window.notes = [];
  const ways = new Map();
  const peaks = new Map();
  const before = (kind, name, see) => {
    const own = kind.prototype[name];
    kind.prototype[name] = function (...given) {
      see.call(this, ...given);
      return own.apply(this, given);
    };
  };
  before(AudioNode, "connect", function (next) { ways.set(this, next); });
  before(AudioParam, "linearRampToValueAtTime", function (value) { peaks.set(this, value); });
  before(AudioScheduledSourceNode, "start", function (at) {
    let [loudness, last] = [1, this];
    for (; ways.has(last); last = ways.get(last)) if (last.gain) loudness *= peaks.get(last.gain) ?? last.gain.value;
    notes.push({ pitch: this.frequency.value, starts: at, loudness, isHeard: last === this.context.destination });
  });
"""


@pytest.fixture
def shown(open_page, store, scenes):
    """``shown(scene, ...)``: the page of a store in that state."""

    def show(scene, query="", *arguments, **options):
        scenes.fill(store, scene)
        return open_page(query, *arguments, **options)

    return show


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


@pytest.mark.req("R-ALERT-01")
def test_a_press_is_for_the_alert_that_stood_under_it_when_it_began_and_none_is_for_one_that_nobody_read(
    serve, open_page, signed_in, store, write, scenes, wait_until
):
    _, address = serve()
    page = open_page(address=address, context=signed_in(address, "technologist"))
    first = write(scenes.urgent)
    page.wait_for_selector("[data-alert-state=presented]")
    page.hover(".bottom [data-acknowledge]")
    # A finger holds a board up for a second at most: that second does not pass while a busy machine gets this far.
    page.evaluate("() => { const at = performance.now(); performance.now = () => at; }")
    page.mouse.down()
    second = write(scenes.urgent, scenes.LI)
    raised = store.journal.after(0, 100, (Kind.ALERT_RAISED,))[-1].seq
    page.wait_for_function("(seq) => Number(document.documentElement.dataset.seq) >= seq", arg=raised)
    # The next board tries at once what a second tap would do, before anybody can have read it.
    page.evaluate("""() => new MutationObserver((_, watch) => {
      watch.disconnect();
      board.querySelector(".bottom [data-acknowledge]").click();
      document.documentElement.dataset.tried = board.querySelector(".bottom [data-acknowledge]").dataset.acknowledge;
    }).observe(board, { childList: true })""")
    page.mouse.up()
    page.wait_for_selector(f"html[data-tried='{second}']")
    wait_until(lambda: store.views.alert(first).acknowledged_by == "Theo Technologist")
    page.evaluate("() => { delete performance.now; }")
    page.wait_for_timeout(600)
    assert store.views.alert(second).acknowledged_by == ""
    page.click(".bottom [data-acknowledge]")
    wait_until(lambda: store.views.alert(second).acknowledged_by == "Theo Technologist")
    assert page.troubles == []


def test_a_finger_that_stays_on_the_screen_holds_no_alert_back(open_page, write, scenes):
    page = open_page()
    page.mouse.move(600, 300)
    page.mouse.down()
    alert = write(scenes.urgent)
    page.wait_for_selector(f"[data-acknowledge='{alert}']")


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
    visible = page.evaluate(
        "[...document.querySelectorAll('[data-alert]')]"
        ".filter(e => e.getBoundingClientRect().right <= innerWidth).length"
    )
    assert 1 < visible < 6

    def presented():
        return len(store.journal.after(0, 100, (Kind.ALERT_PRESENTED,)))

    wait_until(lambda: presented() == visible)  # each is a request of its own
    page.wait_for_timeout(300)  # for one that must not come
    assert presented() == visible


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


def test_the_whole_name_is_shown_on_a_tap_and_masked_again_also_while_the_box_is_away(serve, open_page, write, scenes):
    write(scenes.urgent)
    server, address = serve()
    page = open_page(address=address)
    page.clock.install()
    page.reload()
    page.wait_for_selector("html[data-connection=live]")
    who = page.get_by_test_id("who")
    assert "W. X." in who.inner_text()
    # A tap that shows nothing is said.
    page.route("**/identity?**", lambda route: route.fulfill(status=503))
    who.click()
    page.get_by_test_id("failed").wait_for()
    page.unroute("**/identity?**")
    who.click()
    page.wait_for_selector("text=WANG, XIAOMING")
    assert scenes.WANG.patient_id in who.inner_text()
    server.stop()
    page.clock.run_for(21000)
    page.wait_for_selector("html[data-connection=lost]")
    # Not only unseen: the panel keeps no whole name.
    assert "W. X." in who.text_content()
    assert "XIAOMING" not in page.content()


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


def test_category_2_passive_and_late_alerts_make_no_sound(serve, open_page, signed_in, write, scenes):
    _, address = serve()
    context = signed_in(address, "screen", "--autoplay-policy=no-user-gesture-required")
    context.add_init_script(HEAR)
    page = open_page(context=context, address=address)
    page.wait_for_selector("html[data-sound=on]")
    write(scenes.priority)
    write(scenes.priority, category=1, active=0, chime=0)
    late = write(scenes.urgent, chime=0)
    page.wait_for_selector(f"[data-alert='{late}']")
    assert page.locator("html").get_attribute("data-chimes") is None
    assert page.evaluate("notes") == []
    write(scenes.urgent)
    page.wait_for_selector("html[data-chimes='1']")
    notes = page.evaluate("notes")
    assert [round(note["pitch"]) for note in notes] == [659, 880] * 2
    assert all(note["isHeard"] and note["loudness"] >= 0.25 for note in notes), notes
    assert [note["starts"] for note in notes] == sorted(note["starts"] for note in notes)


def test_an_alert_is_read_from_three_metres(shown):
    page = shown("urgent")
    assert page.locator(".words h1").evaluate("e => parseFloat(getComputedStyle(e).fontSize)") >= 48


def test_the_clock_moves_second_by_second(open_page):
    page = open_page()
    page.evaluate("""() => {
      const clock = document.getElementById("clock");
      const seconds = () => clock.textContent.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
      window.shown = [seconds()];
      new MutationObserver(() => { if (seconds() !== shown.at(-1)) shown.push(seconds()); })
        .observe(clock, { childList: true, characterData: true, subtree: true });
    }""")
    # Three steps on end; a machine that is busy may draw a later one too late.
    steps = "shown.slice(1).map((at, n) => (at - shown[n] + 86400) % 86400)"
    page.wait_for_function(f"() => {steps}.join().includes('1,1,1')", timeout=60000)


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
        "Object.fromEntries(performance.getEntriesByType('resource').filter(r => /[.](js|css)$/.test(r.name))"
        ".map(r => [r.name.split('/').at(-1), r.decodedBodySize]))"
    )
    assert sorted(sizes) == ["alert.css", "alert.js", "base.css", "press.js", "times.js"], "nothing of the other pages"
    assert sum(sizes.values()) < 150_000


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
    # The board may be here before the form's answer, and the form is emptied a moment after it has closed.
    page.wait_for_selector("#tell", state="hidden")
    page.wait_for_selector("#tell-who:empty", state="attached")
    assert "PID-88172355" not in page.content(), "nor does it stay there unseen"
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
    at_scanner.wait_for_selector("html[data-chimes='2']")
    assert at_scanner.locator(".frame").evaluate("e => getComputedStyle(e).opacity") != "0"
    wait_until(lambda: store.alert_tests.open()[0].is_presented)
    page.wait_for_selector("#test", state="hidden")  # a key does nothing while a question is open
    page.keyboard.press("a")
    at_scanner.wait_for_selector("html[data-state=seen]")
    assert store.journal.after(0, 100, (Kind.TEST_ALERT_ACKNOWLEDGED,))[0].actor["name"] == "Theo Technologist"
    assert page.troubles + at_scanner.troubles == []


@pytest.mark.long  # it listens for what must not come
@pytest.mark.req("R-ALERT-03")
def test_the_chime_repeats_until_it_is_paused_and_a_new_alert_ends_the_pause(serve, open_page, store, write, scenes):
    _, address = serve(config=Config.model_validate(CLINICAL))
    page = open_page("", "--autoplay-policy=no-user-gesture-required", address=address)
    alert = write(scenes.urgent)
    page.wait_for_selector("html[data-chimes='1']")
    write(scenes.steps_taken, alert, scenes.AlertStep.REPEAT)
    more = "(n) => Number(document.documentElement.dataset.chimes) >= n"
    page.wait_for_function(more, arg=2)
    page.keyboard.press("m")
    page.wait_for_selector("html[data-sound=paused]")
    # On a busy machine another one may have sounded before the key did.
    heard = int(page.locator("html").get_attribute("data-chimes"))
    assert re.search(r"\b[12]:\d\d\b", page.get_by_test_id("sound").inner_text())
    page.wait_for_timeout(5600)
    assert page.locator("html").get_attribute("data-chimes") == str(heard)
    write(scenes.urgent, scenes.LI)
    page.wait_for_function(more, arg=heard + 1)
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
    page.wait_for_function("() => document.fullscreenElement !== null")
    page.keyboard.press("f")
    page.wait_for_function("() => document.fullscreenElement === null")
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
    # A name that does not come.
    page.route("**/identity?**", lambda route: route.abort())
    page.locator(".who[data-study]").first.click()
    page.get_by_test_id("failed").wait_for()
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
    page.wait_for_url("**/sign-in**")


def _person():
    from appliance.records import Actor, ActorKind

    return Actor(kind=ActorKind.PERSON, name="Li Wei")
