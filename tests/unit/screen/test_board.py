"""What has the biggest place, what stays listed, and what is never shown."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from web_kit import Browser, session

from appliance.config import Config
from appliance.records import AlertState, Issue, Outcome, Reason, Severity, SourceMode
from appliance.screen import screen_app
from appliance.screen.board import way_of_images
from appliance.screen.feed import Feed
from appliance.screen.model import ImagePath, Level, Mark, State
from appliance.store import Store
from appliance.store.readmodels import to_json


@pytest.fixture
def board(store, clock, scenes):
    """``board()``: of the store as it stands now."""
    feed = Feed(store, scenes.packages(), clock)
    return lambda: feed._look(1).board


@pytest.mark.req("R-SCREEN-01")
@pytest.mark.parametrize(
    ("scene", "state"),
    [
        ("empty", State.IDLE),
        ("idle", State.IDLE),
        ("receiving", State.RECEIVING),
        ("analysing", State.ANALYSING),
        ("urgent", State.URGENT),
        ("priority", State.PRIORITY),
        ("note", State.NOTE),
        ("quality", State.QUALITY),
        ("quality-several", State.QUALITY),
        ("seen", State.SEEN),
        ("nothing-flagged", State.NOTHING_FLAGGED),
        ("not-analysed", State.NOT_ANALYSED),
        ("ai-down", State.AI_DOWN),
        ("ai-down-with-alert", State.URGENT),
        ("several", State.URGENT),
        ("backlog", State.URGENT),
        ("stat", State.URGENT),
        ("withdrawn", State.WITHDRAWN),
    ],
)
def test_each_state_of_the_store_has_its_state_on_the_screen(board, store, scenes, scene, state):
    scenes.fill(store, scene)
    assert board().state is state


def test_of_several_alerts_the_newest_of_category_1_comes_first_and_all_are_counted(board, write, scenes):
    write(scenes.priority)
    write(scenes.urgent, scenes.LI)
    newest = write(scenes.urgent, scenes.WANG)
    write(scenes.priority)
    shown = board()
    assert (shown.hero.alert_id, shown.open_alerts) == (newest, 4)
    assert [card.level for card in shown.items] == [Level.URGENT, Level.PRIORITY, Level.PRIORITY]
    assert len(shown.chime) == 2


def test_a_study_that_was_not_analysed_keeps_its_row_after_the_big_place_is_free_again(board, write, clock, scenes):
    study = write(scenes.not_analysed)
    assert board().hero.study_id == study
    clock.advance(130)
    for _ in range(8):
        write(scenes.nothing_flagged)
    shown = board()
    assert shown.state is State.NOTHING_FLAGGED
    assert shown.items[0].study_id == study
    assert shown.items[0].reason is Reason.INCOMPLETE
    assert shown.counts["NOT_ANALYSED"] == 1


def test_not_applicable_is_only_counted(board, write, scenes):
    write(scenes.add_study, outcome=Outcome.NOT_APPLICABLE)
    shown = board()
    assert shown.state is State.IDLE
    assert not shown.items
    assert shown.counts["NOT_APPLICABLE"] == 1


def test_nothing_flagged_gives_the_place_back_after_a_minute(board, write, clock, scenes):
    write(scenes.nothing_flagged)
    assert board().state is State.NOTHING_FLAGGED
    clock.advance(61)
    assert board().state is State.IDLE


def test_an_acknowledged_alert_says_by_whom_and_stays_listed(board, write, clock, scenes):
    write(scenes.urgent, state="acknowledged", acknowledged_by="Li Wei", acknowledged_at=_iso(clock))
    shown = board()
    assert shown.state is State.SEEN
    assert shown.hero.seen_by == "Li Wei"
    assert not shown.chime
    clock.advance(121)
    shown = board()
    assert shown.state is State.IDLE
    assert shown.items[0].seen_by == "Li Wei"


def test_a_withdrawn_alert_is_shown_with_its_reason_for_a_while_beside_the_new_one(board, store, clock, scenes):
    scenes.fill(store, "several")
    shown = board()
    withdrawn = [card for card in shown.items if card.alert_state is AlertState.WITHDRAWN]
    assert [(card.study_id, card.withdrawn_why) for card in withdrawn] == [(shown.hero.study_id, "identity_corrected")]
    clock.advance(601)
    assert not [card for card in board().items if card.alert_state is AlertState.WITHDRAWN]


def test_a_late_result_is_said_to_be_late_and_never_sounds(board, store, scenes):
    scenes.fill(store, "backlog")
    shown = board()
    assert Mark.LATE in shown.hero.marks
    assert not shown.chime
    assert (shown.notice.studies, shown.notice.findings) == (100, 3)


def test_a_late_nothing_flagged_does_not_take_the_big_place(board, write, scenes):
    study = write(scenes.nothing_flagged)
    write(lambda tx: tx.execute("UPDATE analysis SET late = 1 WHERE study_id = ?", (study,)))
    shown = board()
    assert shown.state is State.IDLE
    assert Mark.LATE in shown.items[0].marks


def test_an_alert_whose_study_is_analysed_again_says_so(board, write, scenes):
    alert = write(scenes.urgent)
    row = write(lambda tx: tx.one("SELECT study_id, analysis_id FROM alert WHERE id = ?", (alert,)))
    newer = write(scenes.add_analysis, row["study_id"], None, predecessor=row["analysis_id"])
    write(lambda tx: tx.execute("UPDATE analysis SET superseded_by = ? WHERE id = ?", (newer, row["analysis_id"])))
    shown = board()
    assert shown.hero.alert_id == alert
    assert {Mark.AGAIN, Mark.REVISED} <= set(shown.hero.marks)
    assert shown.hero.lines[0].volume_ml == pytest.approx(12.4)


def test_a_corrected_identity_is_said(board, write, scenes):
    write(scenes.urgent, identity_revision=2)
    assert Mark.CORRECTED in board().hero.marks


def test_ai_down_never_hides_a_finding_and_a_finding_never_hides_ai_down(board, store, scenes):
    scenes.fill(store, "ai-down-with-alert")
    shown = board()
    assert shown.state is State.URGENT
    assert shown.ai_down_since is not None
    assert [issue.code for issue in shown.faults] == ["DISK_RESERVE"]


def test_what_was_and_was_not_looked_for_stands_with_every_result(board, write, scenes):
    head = scenes.packages()[scenes.HEAD]
    for make in (scenes.nothing_flagged, scenes.urgent):
        write(make)
        hero = board().hero
        assert hero.looked_for == (head.looked_for,)
        assert hero.not_looked_for == (head.not_looked_for,)


@pytest.mark.req("R-OPERATE-10")
def test_a_result_is_told_in_the_words_of_the_version_that_gave_it(store, clock, write, scenes):
    texts = scenes.packages()
    older = texts[scenes.HEAD]
    newer = replace(older, not_looked_for={"en": "What version 2 leaves out.", "zh_Hans": "第二版未检查的内容。"})
    texts |= {scenes.HEAD: newer, f"{scenes.HEAD}@0.1.0": replace(older, live=False)}
    write(scenes.urgent)
    shown = Feed(store, texts, clock)._look(1).board
    assert shown.hero.not_looked_for == (older.not_looked_for,)
    assert len(shown.looked_for) == 3, "each package is named once, as it serves now"


@pytest.mark.req("R-OPERATE-06")
def test_what_a_silent_version_measured_is_never_shown(board, write, scenes):
    write(scenes.urgent)
    study = board().hero.study_id
    result = write(scenes.finding_result, study)
    (found,) = result.findings
    louder = replace(found, measurements=(replace(found.measurements[0], value=99.0),))
    result = replace(result, findings=(louder,))
    write(scenes.add_analysis, study, result, role="silent", package_version="0.2.0")
    assert board().hero.lines[0].volume_ml == pytest.approx(12.4)


def test_a_triage_package_shows_neither_size_nor_slice_nor_picture(board, write, scenes):
    write(scenes.priority)
    hero = board().hero
    assert hero.lines[0].title["en"] == "Suspected pleural effusion"
    assert (hero.lines[0].volume_ml, hero.lines[0].slices, hero.picture) == (None, (), False)


def test_a_detection_package_shows_volume_and_key_slice(board, write, scenes):
    write(scenes.urgent)
    line = board().hero.lines[0]
    assert line.volume_ml == pytest.approx(12.4)
    assert line.slices == (14,)


def test_a_passive_alert_is_quiet_and_waits_until_nothing_else_goes_on(board, write, scenes):
    write(scenes.priority, category=1, active=0, chime=0)
    shown = board()
    assert (shown.state, shown.hero.level, shown.chime) == (State.NOTE, Level.NOTE, ())
    write(scenes.add_study, is_open=True)
    shown = board()
    assert shown.state is State.RECEIVING
    assert shown.items[0].level is Level.NOTE


def test_silent_packages_show_nothing(board, write, scenes):
    study = write(scenes.add_study, outcome=Outcome.NOTHING_FLAGGED)
    result = write(scenes.finding_result, study)
    write(scenes.add_analysis, study, result, role="silent")
    shown = board()
    assert shown.hero.lines == ()
    assert shown.hero.looked_for == ()


def test_a_package_that_is_gone_does_not_hide_its_alert(board, write, scenes):
    study = write(scenes.add_study, outcome=Outcome.FINDING)
    analysis = write(scenes.add_analysis, study, write(scenes.finding_result, study), package="gone")
    write(scenes.add_alert, study, analysis, package="gone")
    assert board().hero.lines[0].title["en"] == "hyperdensity"


def test_the_box_says_when_no_package_is_live(store, clock):
    assert Feed(store, {}, clock)._look(1).board.looked_for == ()


def test_warnings_are_only_counted_and_faults_are_named(board, store, write):
    store.issues.raise_("DESTINATION_UNREACHABLE", "pacs", Severity.WARNING)
    store.issues.raise_("DISK_RESERVE", "spool", Severity.FAULT)
    shown = board()
    assert shown.warnings == 1
    assert [issue.code for issue in shown.faults] == ["DISK_RESERVE"]


@pytest.mark.parametrize("scene", ["urgent", "several", "not-analysed", "receiving", "analysing"])
def test_the_board_holds_no_whole_name_and_no_id(board, store, scenes, scene):
    scenes.fill(store, scene)
    text = json.dumps(to_json(board()), ensure_ascii=False)
    for person in (scenes.WANG, scenes.DOE, scenes.LI):
        assert person.patient_id not in text
        assert person.accession_number not in text
        assert person.study_instance_uid not in text
    for name in ("XIAOMING", "王晓明", "晓", "JANE", "Jane"):
        assert name not in text


def test_a_result_older_than_the_window_is_no_longer_listed(board, write, clock, scenes):
    write(scenes.nothing_flagged)
    clock.advance(timedelta(hours=13).total_seconds())
    shown = board()
    assert not shown.items
    assert shown.last is None


def test_an_open_alert_is_shown_however_old_it_is(board, write, clock, scenes):
    alert = write(scenes.urgent)
    clock.advance(timedelta(days=2).total_seconds())
    assert board().hero.alert_id == alert


@pytest.mark.req("R-REJECT-02")
def test_a_finding_whose_images_were_rejected_takes_the_big_place_and_says_so(board, store, clock, scenes):
    scenes.fill(store, "withdrawn")
    shown = board()
    assert (shown.state, shown.hero.withdrawn_why) == (State.WITHDRAWN, "rejected")
    assert shown.hero.lines[0].title["en"]
    own = next(card for card in shown.items if card.study_id == shown.hero.study_id)
    assert (own.level, own.is_rejected) == (Level.NOT_ANALYSED, True)
    assert shown.open_alerts == 0
    clock.advance(601)
    assert board().state is not State.WITHDRAWN


@pytest.mark.req("R-REJECT-02")
def test_an_alert_that_calls_comes_before_one_that_was_taken_back(board, store, write, scenes):
    scenes.fill(store, "withdrawn")
    write(lambda tx: scenes.urgent(tx, scenes.LI))
    assert board().state is State.URGENT


@pytest.mark.req("R-ORDER-01")
def test_priority_and_procedure_of_the_order_stand_with_the_result(board, store, scenes):
    scenes.fill(store, "stat")
    assert (board().hero.priority, board().hero.procedure) == ("STAT", "CT head without contrast")


# What becomes of the images -----------------------------------------------------------------------------------------

SINCE = datetime(2026, 1, 10, 3, 0, tzinfo=timezone.utc)


def _issue(code, subject, minutes=0):
    since_at = SINCE + timedelta(minutes=minutes)
    return Issue(code=code, subject=subject, severity=Severity.WARNING, since_at=since_at, detail={})


INLINE, PARALLEL = SourceMode.INLINE, SourceMode.PARALLEL
AWAY, PAUSED = _issue("DESTINATION_UNREACHABLE", "PACS"), _issue("DESTINATION_PAUSED", "PACS", 5)
FULL = _issue("DISK_RESERVE", "spool", 9)


@pytest.mark.req("R-SCREEN-01")
@pytest.mark.parametrize(
    ("modes", "issues", "way", "since"),
    [
        ((), (), ImagePath.UNKNOWN, None),
        ((), (AWAY, FULL), ImagePath.UNKNOWN, None),
        ((PARALLEL, PARALLEL), (), ImagePath.ITSELF, None),
        ((PARALLEL,), (AWAY, FULL), ImagePath.ITSELF, None),
        ((INLINE,), (), ImagePath.FORWARDED, None),
        ((PARALLEL, INLINE), (), ImagePath.FORWARDED, None),
        ((INLINE,), (_issue("AI_UNAVAILABLE", "worker"),), ImagePath.FORWARDED, None),
        ((INLINE,), (_issue("DESTINATION_UNREACHABLE", "results only"),), ImagePath.FORWARDED, None),
        ((INLINE,), (AWAY,), ImagePath.STOPPED, AWAY.since_at),
        ((INLINE,), (_issue("STAGE_FAILING", "deliver PACS"),), ImagePath.STOPPED, SINCE),
        ((INLINE,), (_issue("STAGE_FAILING", "triage"),), ImagePath.FORWARDED, None),
        ((INLINE,), (PAUSED,), ImagePath.STOPPED, PAUSED.since_at),
        ((INLINE, PARALLEL), (FULL,), ImagePath.STOPPED, FULL.since_at),
        ((INLINE,), (FULL, PAUSED, AWAY), ImagePath.STOPPED, AWAY.since_at),
    ],
)
def test_the_way_of_images_follows_from_sources_and_issues(modes, issues, way, since):
    assert way_of_images(modes, {"PACS"}, issues) == (way, since)


@pytest.mark.req("R-SCREEN-01")
def test_while_the_ai_is_down_its_banner_says_what_becomes_of_the_images(store, clock, scenes):
    scenes.fill(store, "ai-down")
    pacs = {"kind": "dicom", "name": "PACS", "host": "127.0.0.1", "port": 104, "ae_title": "PACS", "send": ["original"]}

    def told(mode, locale):
        """What stands in the banner and in the biggest place."""
        sources = [{"name": "CT-1", "ae_title": "CT1", "mode": mode}] if mode else []
        app = screen_app(
            store, Config.model_validate({"sources": sources, "destinations": [pacs]}), scenes.packages(), clock
        )
        text = Browser(app, session(store)).get("/alert", params={"lang": locale}).text
        banner = re.search(r'data-testid="ai-down".*?</p>', text, re.DOTALL)[0]
        place = re.search(r'data-testid="image-path">(.*?)</p>', text, re.DOTALL)
        return banner, place[1] if place else ""

    for mode, english, chinese in (
        ("inline", "Images still go to the PACS.", "图像仍会发送至 PACS。"),
        ("parallel", "The scanner sends its images to the PACS itself.", "检查设备自行将图像发送至 PACS。"),
    ):
        for locale, words in (("en", english), ("zh_Hans_CN", chinese)):
            banner, place = told(mode, locale)
            assert words in banner
            assert words == place.strip()
    banner, place = told(None, "en")
    assert "PACS" not in banner + place
    store.issues.raise_("DESTINATION_UNREACHABLE", "PACS", Severity.WARNING)
    for locale, words in (("en", "Images are NOT reaching the PACS"), ("zh_Hans_CN", "图像未能送达 PACS")):
        banner, place = told("inline", locale)
        assert f'<b data-testid="pacs-down">!!! {words}</b>' in banner
        assert f"!!! {words}" == place.strip()
        assert words not in "".join(told("parallel", locale))


@pytest.mark.req("R-SCREEN-05")
@pytest.mark.parametrize("locale", ["en", "zh_Hans_CN"])
def test_each_level_has_a_shape_and_a_word_of_its_own(tmp_path, clock, scenes, locale):
    shapes, words = {}, {}
    for level in Level:
        store = Store.open(tmp_path / level, clock, reserve_bytes=0)
        scenes.fill(store, str(level))
        page = Browser(screen_app(store, Config(), scenes.packages(), clock), session(store))
        head = re.search(
            r'<header class="level">(.*?)</header>', page.get("/alert", params={"lang": locale}).text, re.DOTALL
        )
        shapes[level] = " ".join(re.findall(r"<(?:path|circle|rect).*?>", head[1]))
        words[level] = re.search(r"<b>(.*?)</b>", head[1])[1]
        store.close()
    assert all(shapes.values())
    assert all(words.values())
    for one, other in itertools.combinations(Level, 2):
        assert words[one] != words[other]
        # What is for information and what asks for a look at the image are both no alarm.
        assert shapes[one] != shapes[other] or {one, other} == {Level.NOTE, Level.QUALITY}


def _iso(clock):
    return clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
