"""The review in a real browser: gate, keys, draft, conflict, password, sent and signed."""

from __future__ import annotations

import json
import re

import images_kit
import pytest
from built_kit import say_built
from plan_kit import plan_for
from web_kit import account, painted

from appliance.records import (
    SYSTEM,
    Actor,
    ActorKind,
    AnalysisResult,
    DeliveryKind,
    FindingResult,
    Outcome,
    Region,
    ReviewDecision,
    ReviewReason,
)
from appliance.store.ending import OwedResult
from appliance.store.review_rules import Draft
from appliance.store.reviews import ELSEWHERE, Reading
from appliance.web.passwords import Passwords

PASSWORD = "three words in a row"  # noqa: S105 - of nobody
ZHAO = Actor(kind=ActorKind.PERSON, name="Zhao Lei", role="radiologist")
AGREE = Draft(decision=ReviewDecision.AGREE)


@pytest.fixture
def study(store, write, scenes):
    """A flagged study whose report went to a PACS."""
    number = store.views.alert(write(scenes.urgent)).study_id

    def owed(tx):
        tx.insert(
            "delivery",
            destination="PACS",
            kind="sr",
            study_id=number,
            analysis_id=1,
            sop_instance_uid="2.25.1",
            state="sent",
            path="results/1",
            identity="{}",
            next_at=tx.at,
            owed_at=tx.at,
        )

    write(owed)
    return number


def see(page, most=None):
    """As the viewer tells it when an image of each series, or of so many of them, was on the screen."""
    for series in json.loads(page.get_attribute("#review", "data-facts"))["series"][:most]:
        page.evaluate(
            "series => document.querySelector('image-view').dispatchEvent(new CustomEvent('image-view:seen',"
            " {bubbles: true, detail: {series: Number(series), index: 0, picture: '1.1'}}))",
            series,
        )


def quiet(troubles):
    """The scenes have rows and no files, and a refusal is no trouble: the browser logs both."""
    return [one for one in troubles if "Failed to load resource" not in one]


@pytest.mark.req("R-REVIEW-04")
def test_a_draft_outlives_a_conflict_a_session_that_ends_and_an_old_password(open_page, study, store, write, scenes):
    write(scenes.add_input, study, 1)
    radiologist = account(store, "radiologist")
    store.accounts.set_password(radiologist.id, Passwords().hashed(PASSWORD), SYSTEM, must_change=False)
    page = open_page(path=f"/studies/{study}/review", role="radiologist")
    decisions = "document.querySelectorAll('[data-decision]:disabled').length"
    assert page.evaluate(decisions) == 4
    see(page, most=1)
    assert page.evaluate(decisions) == 4, "one of two series was seen"
    see(page)
    assert page.evaluate(decisions) == 0
    page.keyboard.press("e")
    page.select_option("#amend > .answer [data-part=side]", "left")
    page.click("[data-testid=add]")
    page.select_option("[data-testid=what]", label="Pneumothorax")
    page.evaluate(
        "document.querySelector('image-view').dispatchEvent(new CustomEvent('image-view:region', {bubbles: true,"
        " detail: {series: 1, index: 3, picture: '1.1', frame: 1, x: 1, y: 2, w: 3, h: 4}}))"
    )
    assert "4" in page.inner_text("[data-testid=added-row] [data-part=region]")
    page.click("[data-testid=added-row] [data-part=no-box]")
    page.fill("[data-testid=note]", "<i>left</i> side")
    page.wait_for_selector("#sign:enabled")

    # Somebody else signs: nothing is lost, nothing is written.
    etag, reading = store.reviews.case(study).etag, Reading(seen={ELSEWHERE: 1})
    store.reviews.sign(study, AGREE, etag, ZHAO, reading, organization="R")
    page.click("[data-testid=sign]")
    page.wait_for_selector("[data-testid=conflict]:visible")
    assert "Zhao Lei" in page.inner_text("[data-testid=conflict]")
    assert len(store.reviews.of_study(study)) == 1
    page.click("#reload")
    page.wait_for_selector("[data-testid=restored]:visible")
    assert page.input_value("[data-testid=note]") == "<i>left</i> side"
    assert "Zhao Lei" in page.inner_text("[data-testid=history]")

    # What was seen before the reload counts no more; then the session ends in the middle.
    assert page.is_disabled("[data-testid=agree]")
    see(page)
    page.wait_for_selector("#sign:enabled")

    def end_session(route):
        with store.db.write() as tx:
            tx.execute("DELETE FROM session")
        route.continue_()

    # With the signature on its way: a page that hears of it sooner leaves by itself, and there is nothing to press.
    page.route("**/review", end_session, times=1)
    page.click("[data-testid=sign]")
    page.wait_for_url("**/sign-in?next=*")
    page.fill("input[name=name]", "radiologist")
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{study}/review")
    page.wait_for_selector("[data-testid=restored]:visible")
    assert page.input_value("#amend > .answer [data-part=side]") == "left"
    assert page.input_value("[data-testid=what]").endswith(":pneumothorax")

    # The password is more than five minutes old.
    with store.db.write() as tx:
        tx.execute("UPDATE session SET proved_at = '2020-01-01T00:00:00.000000Z'")
    if page.is_disabled("[data-testid=amend]"):
        see(page)
    page.wait_for_selector("#sign:enabled")
    page.keyboard.press("s")
    page.wait_for_selector("[data-testid=proof]:visible")
    page.fill("#password", "another horse")
    page.keyboard.press("Enter")
    page.wait_for_selector("#proof-error:visible")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/reviews?done=*")
    second = store.reviews.of_study(study)[1]
    assert (second.version, second.decision, second.note) == (2, "amend", "<i>left</i> side")
    assert [one.code for one in second.findings] == ["", "pneumothorax"]
    assert page.evaluate(f"sessionStorage.getItem('review:{study}')") is None
    assert quiet(page.troubles) == []


@pytest.fixture
def received(store):
    """A head CT that came and was flagged in its third slice; its report was sent. Study, UIDs of its images."""
    phantom = images_kit.head(12)
    phantom.pixels[:] = 0
    phantom.pixels[7, 20:31, 28:40] = 3000
    files = images_kit.ct_series(phantom, images_kit.Study(seed="review"), bits_stored=12)
    uids = [str(ds.SOPInstanceUID) for ds in files]
    study = images_kit.store_files(store, [images_kit.part10(ds) for ds in files])
    (series,) = store.revisions.open_series()
    revision = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
    plan = plan_for(revision, package=images_kit.PACKAGE, package_version="0.1.0")
    (analysis,) = store.analyses.route(study, (revision,), (plan,), (), lambda *_: ())
    finding = FindingResult(
        id="hyperdensity",
        score=12.0,
        operating_point="standard",
        threshold=1.5,
        flagged=True,
        category=1,
        key_instances=(uids[2],),
        regions=(Region(sop_instance_uid=uids[2], kind="box", points=((5.0, 5.0), (9.0, 9.0))),),
    )
    result = AnalysisResult(outcome=Outcome.FINDING, findings=(finding,))
    store.analyses.finish(analysis, result, (OwedResult(destination="PACS", kind=DeliveryKind.SR),))
    say_built(store, analysis)
    store.deliveries.sent(store.db.one("SELECT id FROM delivery")[0], 0)
    return study, uids


@pytest.mark.req("R-REVIEW-01", "R-REVIEW-03", "R-IMAGES-04")
def test_a_box_drawn_with_the_mouse_is_signed_where_it_was_drawn_and_owed_as_a_revision(
    open_page, received, store, serve, signed_in
):
    study, uids = received
    _, address = serve()
    context = signed_in(address, "radiologist")
    context.add_init_script(images_kit.HOLD)
    page = open_page(context=context, address=address, path=f"/studies/{study}/review")
    # The decisions open when the real viewer tells that a slice was on the screen: it begins at the key slice.
    page.wait_for_selector("html[data-asked]")
    assert page.locator("[data-decision]:disabled").count() == 4
    page.evaluate("release()")
    page.wait_for_selector("[data-testid=agree]:enabled")
    assert "3 / 12" in page.get_by_test_id("at").inner_text()
    page.get_by_test_id("slider").fill("7")
    page.wait_for_selector("[data-testid=at]:has-text('8 / 12')")
    page.locator("h1").click()
    page.keyboard.press("e")
    # Around the bright block at columns 28 to 39, rows 20 to 30, by where its pixels are on the screen.
    stage = page.get_by_test_id("stage").bounding_box()
    scale = min(stage["width"], stage["height"]) / 64
    left, top = (stage[at] + stage[side] / 2 - 32 * scale for at, side in (("x", "width"), ("y", "height")))
    page.get_by_test_id("tool-draw").click()
    page.mouse.move(left + 28.5 * scale, top + 20.5 * scale)
    page.mouse.down()
    page.mouse.move(left + 39.5 * scale, top + 30.5 * scale, steps=4)
    page.mouse.up()
    assert "8" in page.inner_text("#amend > .answer [data-part=region]")
    page.wait_for_selector("#sign:enabled")
    assert page.locator("[data-testid=sendings]", has_text="PACS").count() == 1
    page.keyboard.press("s")
    page.wait_for_url("**/reviews?done=*")
    (review,) = store.reviews.of_study(study)
    (said,) = review.findings
    assert (review.decision, said.finding, said.presence) == ("amend", "hyperdensity", "present")
    assert said.region.sop_instance_uid == uids[7]
    drawn = [side for point in said.region.points for side in point]
    assert drawn == pytest.approx([28, 20, 39, 30], abs=1)
    seen = json.loads(store.db.one("SELECT seen FROM review")[0])
    assert list(seen) == ["1"]
    assert seen["1"] >= 1
    rows = store.db.all("SELECT state FROM delivery WHERE kind = 'sr' ORDER BY id")
    assert [row["state"] for row in rows] == ["sent", "held"]
    assert quiet(page.troubles) == []


@pytest.mark.req("R-REVIEW-01", "R-REVIEW-05")
def test_who_reads_first_sees_no_place_of_the_ai_before_an_opinion_and_then_decides_by_keys_alone(
    open_page, received, store
):
    study, _ = received
    page = open_page(path=f"/studies/{study}/review", query="?first=1", role="radiologist")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_selector("image-view[data-state=shown]")
    ticks, marks = page.get_by_test_id("ticks").locator("i"), page.get_by_test_id("marks")
    # In the middle, without key slice, mark or word of the AI, whatever is pressed.
    assert "7 / 12" in page.get_by_test_id("at").inner_text()
    for key in ("o", "k", "y"):
        page.keyboard.press(key)
    assert (ticks.count(), marks.is_visible(), page.locator("[data-layer=overlay]").count()) == (0, False, 0)
    assert "7 / 12" in page.get_by_test_id("at").inner_text()
    assert page.is_hidden("[data-testid=ai-result]")
    assert page.is_hidden("[data-testid=decide]")
    assert not re.search("Suspected|key slice", page.inner_text("main"))
    assert not [url for url in asked if url.endswith(("/overlay", "/images"))]
    buttons = page.locator("[data-decision]")
    assert [buttons.nth(n).is_disabled() for n in range(buttons.count())] == [True] * 4
    page.check("input[name=opinion][value=suspicious]", force=True)
    page.wait_for_selector("[data-testid=marks]:visible")
    assert page.is_visible("[data-testid=ai-result]")
    assert ticks.count() == 1
    page.wait_for_selector("[data-testid=disagree]:enabled")
    # One key, one chip, one key: nothing but the keyboard.
    page.keyboard.press("n")
    assert page.is_hidden("[data-testid=sending]")
    page.keyboard.press("Space")
    page.wait_for_selector("#sign:enabled")
    assert "Not there" in page.inner_text("[data-testid=says]")
    for button in page.locator(".decisions .button, .primary.wide").all():
        assert button.bounding_box()["height"] >= 64
    for label in page.locator("#why .chips label").all():
        assert label.bounding_box()["height"] >= 48
    page.keyboard.press("s")
    page.wait_for_url("**/reviews?done=*")
    assert page.is_visible("[data-testid=done]")
    assert page.locator("[data-testid=case]").count() == 0
    (review,) = store.reviews.of_study(study)
    assert (review.decision, review.reason) == (ReviewDecision.DISAGREE, ReviewReason.ARTEFACT)
    assert store.db.one("SELECT opinion FROM review")[0] == "suspicious"
    assert page.troubles == []


FOCUS = """(wanted) => {
  const at = document.activeElement;
  if (!at.matches(wanted)) return null;
  const seen = [at, at.closest("label")].filter(Boolean).map((one) => getComputedStyle(one));
  return seen.some((one) => one.outlineStyle === "solid" && parseFloat(one.outlineWidth) >= 3);
}"""


def tab_to(page, wanted):
    """Go there by Tab; it must be reached, and be seen to have the focus."""
    for _ in range(120):
        page.keyboard.press("Tab")
        is_visible = page.evaluate(FOCUS, wanted)
        if is_visible is not None:
            assert is_visible, f"the focus on {wanted} cannot be seen"
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


def choose(page, words):
    """Go to an option by arrows: letters are one word only while each follows within a second."""
    for _ in range(40):
        if page.evaluate("words => document.activeElement.selectedOptions[0].text.startsWith(words)", words):
            return
        page.keyboard.press("ArrowDown")
    raise AssertionError(f"no option begins with {words}")


def has_focus(page, wanted):
    return page.evaluate("(wanted) => document.activeElement.matches(wanted)", wanted)


@pytest.mark.req("R-REVIEW-01", "R-REVIEW-11")
def test_every_decision_is_reached_filled_in_and_signed_by_keys_alone(open_page, received, store):
    study, uids = received
    page = open_page(path="/reviews", role="radiologist")

    def sign(decision):
        page.wait_for_selector("#sign:enabled")
        page.keyboard.press("s")
        page.wait_for_url("**/reviews?done=*")
        review = store.reviews.of_study(study)[-1]
        assert review.decision == decision
        return review

    def again():
        tab_to(page, "[data-testid=done] a")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-testid=agree]:enabled")

    # From the queue: agree.
    tab_to(page, "[data-testid=open-next]")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-testid=agree]:enabled")
    page.keyboard.press("y")
    sign("agree")
    # Cannot judge: by Tab and Enter as well as by its letter.
    again()
    tab_to(page, "[data-testid=cannot-judge]")
    page.keyboard.press("Enter")
    sign("cannot_judge")
    # Disagree: into the reasons, arrows, and out by Escape, so that letters are acts again.
    again()
    page.keyboard.press("n")
    assert has_focus(page, "input[name=reason]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert has_focus(page, "[data-testid=disagree]")
    assert sign("disagree").reason == ReviewReason.ANATOMY
    # Amend: code, side, category; then a box beside the key slice, moved, and back.
    again()
    page.keyboard.press("e")
    assert has_focus(page, "#amend .chips input")
    tab_to(page, "#amend [data-part=code]")
    choose(page, "Pneu")
    tab_to(page, "#amend [data-part=side]")
    page.keyboard.press("ArrowDown")
    tab_to(page, "#amend [data-part=category]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert has_focus(page, "[data-testid=amend]")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("[data-testid=at]:has-text('4 / 12')")
    page.keyboard.press("b")
    assert has_focus(page, ".iv-box")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert has_focus(page, "[data-testid=amend]")
    assert "4" in page.inner_text("#amend > .answer [data-part=region]")
    # A draft that comes back brings its box back to the picture.
    page.reload()
    page.wait_for_selector("[data-testid=restored]:visible")
    page.wait_for_selector("image-view[data-state=shown]")
    page.wait_for_selector("[data-testid=agree]:enabled")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(".iv-box", state="visible")
    refuted, added = sign("amend").findings
    assert (refuted.finding, refuted.presence) == ("hyperdensity", "absent")
    assert (added.code, added.side, added.category) == ("pneumothorax", "left", 1)
    assert added.region.sop_instance_uid == uids[3]
    assert added.region.points == ((25.0, 24.0), (40.0, 39.0))
    # A missed finding: one too many is taken out again, and the keyboard is not lost with it.
    again()
    page.keyboard.press("e")
    for _ in range(2):
        tab_to(page, "#add")
        page.keyboard.press("Enter")
        assert has_focus(page, "[data-testid=what]")
        choose(page, "Pleural")
    tab_to(page, "[data-testid=added-row]:last-child [data-part=drop]")
    page.keyboard.press("Enter")
    assert has_focus(page, "#add")
    tab_to(page, "[data-testid=note]")
    page.keyboard.type("yes, no, see")
    page.keyboard.press("Escape")
    assert has_focus(page, "[data-testid=amend]")
    review = sign("amend")
    assert [(one.finding, one.code) for one in review.findings] == [("hyperdensity", ""), ("", "pleural_effusion")]
    assert review.note == "yes, no, see"
    assert quiet(page.troubles) == []


@pytest.mark.req("R-REVIEW-04")
def test_what_was_to_be_sent_before_the_last_word_is_neither_shown_nor_signed(open_page, study):
    page, held = open_page(path=f"/studies/{study}/review", role="radiologist"), []

    def hold(route):
        held.append(route)

    see(page)
    page.route("**/review/preview", hold)
    with page.expect_request("**/review/preview"):
        page.click("[data-testid=agree]")
    page.click("[data-testid=disagree]")
    with page.expect_response("**/review/preview"):
        held[0].continue_()
    painted(page)
    assert page.is_disabled("#sign"), "what came is of the agreement"
    assert page.inner_text("#sent") == ""


@pytest.mark.req("R-REVIEW-01", "R-REVIEW-11")
def test_who_read_images_elsewhere_says_so_and_goes_on_by_keys(open_page, study, store):
    page = open_page(path=f"/studies/{study}/review", role="radiologist")
    assert page.is_disabled("[data-testid=agree]")
    tab_to(page, "#elsewhere")
    page.keyboard.press("Space")
    page.keyboard.press("y")
    page.wait_for_selector("#sign:enabled")
    page.keyboard.press("s")
    page.wait_for_url("**/reviews?done=*")
    assert json.loads(store.db.one("SELECT seen FROM review")[0]) == {ELSEWHERE: 1}
    assert quiet(page.troubles) == []
