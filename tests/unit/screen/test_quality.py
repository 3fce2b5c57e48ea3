"""Quality warnings on the alert page: for the technologist, silent, and never in the way of what is urgent."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest
import toy_packages
from web_kit import COOKIE, session

from appliance.config import Config
from appliance.records import Actor, ActorKind, Outcome, QualityChoice, QualityReason, Reason
from appliance.screen import package_text, screen_app, words
from appliance.screen.feed import Feed
from appliance.screen.model import Level, Mark, State
from appliance.store.facts import Kind
from appliance.store.readmodels import to_json
from appliance.triage.verdict import decide
from appliance.web.server import WebServer
from engines.manifest import Manifest

LI = Actor(kind=ActorKind.PERSON, name="Li Wei")
CHOICE = (QualityChoice.ACCEPTED_AS_IS, QualityReason.ANATOMY_CUTOFF, LI)


@pytest.fixture
def board(store, clock, scenes):
    """``board()``: of the store as it stands now."""
    feed = Feed(store, scenes.packages(), clock)
    return lambda: feed._look(1).board


@pytest.fixture
def serve(store, clock, scenes):
    """``with serve() as client``: the screen of the store as it stands now."""

    @contextmanager
    def serve(packages=None):
        server = WebServer(screen_app(store, Config(), packages or scenes.packages(), clock), port=0)
        address = f"http://127.0.0.1:{server.start()}"
        try:
            with httpx.Client(
                base_url=address, headers={"Origin": address}, cookies={COOKIE: session(store)}, timeout=60
            ) as client:
                client.get("/alert")
                client.headers["X-CSRF-Token"] = client.cookies["scanside_csrf"]
                yield client
        finally:
            server.stop()

    return serve


@pytest.mark.req("R-SCREEN-08")
def test_a_warning_takes_the_big_place_without_a_sound_and_counts_as_nothing_flagged(board, write, scenes):
    study = write(scenes.warned, findings=("bases", "rotated"))
    shown = board()
    assert (shown.state, shown.hero.level, shown.hero.study_id) == (State.QUALITY, Level.QUALITY, study)
    assert [line.title["en"] for line in shown.hero.lines] == [
        "Check before the patient leaves: lung bases cut off",
        "Check before the patient leaves: the chest is turned",
    ]
    assert (shown.chime, shown.open_alerts, shown.open_warnings) == ((), 0, 1)
    assert shown.counts == {"NOTHING_FLAGGED": 1}
    assert [card.level for card in shown.items] == [Level.NOTHING_FLAGGED]
    (exposure,) = shown.hero.exposures
    assert (exposure.exposure_index, exposure.target_exposure_index, exposure.deviation_index) == (325.0, 400.0, -0.9)


@pytest.mark.req("R-SCREEN-08")
def test_a_warning_hides_neither_an_alert_nor_another_study_that_was_not_analysed(board, write, scenes):
    study = write(scenes.warned)
    missed = write(scenes.not_analysed)
    shown = board()
    assert (shown.state, shown.hero.study_id) == (State.NOT_ANALYSED, missed)
    assert [(card.level, card.study_id) for card in shown.items[:1]] == [(Level.QUALITY, study)]
    write(scenes.urgent)
    shown = board()
    assert shown.state is State.URGENT
    assert [card.level for card in shown.items[:2]] == [Level.QUALITY, Level.NOT_ANALYSED]


@pytest.mark.req("R-SCREEN-08")
def test_a_warning_of_a_study_that_was_not_analysed_says_both(board, write, scenes):
    study = write(scenes.warned, outcome=Outcome.NOT_ANALYSED, reason=Reason.QUALITY)
    shown = board()
    assert (shown.state, shown.hero.study_id, shown.hero.reason) == (State.QUALITY, study, Reason.QUALITY)
    assert [(card.level, card.study_id) for card in shown.items] == [(Level.NOT_ANALYSED, study)]


@pytest.mark.req("R-SCREEN-09")
def test_a_warning_is_gone_when_the_technologist_has_chosen(store, board, write, scenes):
    study = write(scenes.warned)
    store.quality.decide(study, *CHOICE)
    shown = board()
    assert (shown.state, shown.open_warnings, shown.names) == (State.NOTHING_FLAGGED, 0, ("Li Wei",))
    assert not [card for card in shown.items if card.level is Level.QUALITY]


def test_a_choice_makes_a_new_board_at_once(store, clock, write, scenes):
    study = write(scenes.warned)
    feed = Feed(store, scenes.packages(), clock)
    store.quality.decide(study, *CHOICE)
    feed.step()
    assert (feed.snapshot.version, feed.snapshot.board.open_warnings) == (2, 0)


def test_a_superseded_analysis_warns_no_more_also_while_the_newer_one_runs(board, write, scenes):
    study = write(scenes.warned)
    first = board().hero.analyses[0]
    newer = write(scenes.add_analysis, study, None, package=scenes.QUALITY, intended_use="quality", predecessor=first)
    write(lambda tx: tx.execute("UPDATE analysis SET superseded_by = ? WHERE id = ?", (newer, first)))
    shown = board()
    assert (shown.state, shown.open_warnings) == (State.ANALYSING, 0)


def test_an_old_warning_leaves_the_big_place_and_stays_listed_by_its_time(board, write, clock, scenes):
    study = write(scenes.warned)
    clock.advance(601)
    newer = write(scenes.nothing_flagged)
    clock.advance(61)
    shown = board()
    assert (shown.state, shown.open_warnings) == (State.IDLE, 1)
    assert [(card.study_id, card.level) for card in shown.items[:2]] == [
        (newer, Level.NOTHING_FLAGGED),
        (study, Level.QUALITY),
    ]


def test_a_late_warning_is_listed_and_said_to_be_late(board, write, scenes):
    write(scenes.warned, late=True)
    shown = board()
    assert shown.state is State.IDLE
    (card,) = [card for card in shown.items if card.level is Level.QUALITY]
    assert Mark.LATE in card.marks


def test_many_unanswered_warnings_push_no_study_that_was_not_analysed_off_the_list(board, write, clock, scenes):
    for _ in range(8):
        write(scenes.warned)
    clock.advance(601)
    missed = write(scenes.not_analysed)
    clock.advance(121)
    shown = board()
    assert shown.items[0].study_id == missed
    assert shown.open_warnings == 8


def test_a_warning_shows_no_whole_name_and_no_id(board, write, scenes):
    write(scenes.warned)
    text = json.dumps(to_json(board()), ensure_ascii=False)
    for private in (scenes.WANG.patient_id, scenes.WANG.accession_number, "XIAOMING", "晓"):
        assert private not in text


@pytest.mark.req("R-SCREEN-08")
def test_the_page_says_exposure_in_plain_words_and_only_what_the_header_has(serve, write, scenes):
    write(scenes.warned)
    with serve() as client:
        assert _exposure(client, "en") == (
            "Exposure index 325 target 400 deviation index −0.9 (81 % of the target exposure)"
        )
        assert _exposure(client, "zh_Hans_CN") == "曝光指数 325 目标 400 偏差指数 −0.9（为目标曝光的 81 %）"
    write(scenes.warned, exposure=(None, None, -30.0))
    with serve() as client:
        assert _exposure(client, "en") == "deviation index −30.0 (&lt;1 % of the target exposure)"


def _exposure(client, locale):
    page = client.get(f"/alert?lang={locale}", follow_redirects=True).text
    inner = re.search(r'data-testid="exposure">(.*?)</p>', page, re.DOTALL)[1]
    return " ".join(re.sub("<[^>]*>", " ", inner).split())


@pytest.mark.req("R-SCREEN-09")
def test_an_answer_of_the_page_is_a_fact_with_the_name(serve, store, write, scenes):
    study = write(scenes.warned)
    (analysis,) = store.views.study(study).study.live
    answer = {"choice": "image_added", "reason": "positioning", "name": "Li Wei", "analyses": [analysis.id]}
    with serve() as client:
        assert client.post(f"/studies/{study}/quality", json=answer).status_code == 204
        assert client.post("/studies/99/quality", json=answer).status_code == 404
        assert client.post(f"/studies/{study}/quality", json=answer | {"analyses": [99]}).status_code == 409
    (fact,) = store.journal.after(0, 100, (Kind.QUALITY_DECIDED,))
    assert (fact.body["choice"], fact.body["reason"], fact.actor["name"]) == ("image_added", "positioning", "Li Wei")


ANSWER = {"choice": "image_added", "reason": "positioning", "name": "Li Wei", "analyses": [1]}
WRONG = (
    {"choice": "repeat"},
    {"choice": None},
    {"choice": ["image_added"]},
    {"reason": "because"},
    {"name": " "},
    {"name": "x" * 65},
    {"analyses": None},
    {"analyses": "1"},
    {"analyses": [True]},
    {"analyses": [[]]},
)


def test_an_answer_outside_the_lists_without_a_name_or_from_elsewhere_is_refused(serve, store, write, scenes):
    study = write(scenes.warned)
    with serve() as client:
        for change in WRONG:
            assert client.post(f"/studies/{study}/quality", json=ANSWER | change).status_code == 400, change
        for headers in ({"Origin": "http://evil.example"}, {"X-CSRF-Token": ""}):
            answer = client.post(f"/studies/{study}/quality", json=ANSWER, headers=headers)
            assert answer.status_code == 403, headers
    assert not store.journal.after(0, 100, (Kind.QUALITY_DECIDED,))


@pytest.mark.req("R-SCREEN-08")
def test_a_package_of_somebody_else_warns_in_its_own_words_from_score_to_page(serve, write, scenes):
    """A toy of intended use ``quality``: its score, the verdict, the row, and its manifest's title on the page."""
    manifest = Manifest.model_validate(toy_packages.manifest(name=scenes.QUALITY, intended_use="quality"))
    said = SimpleNamespace(id=toy_packages.FINDING, score=0.9, measurements=(), key_instances=(), regions=())
    answer = SimpleNamespace(
        findings=(said,), numbers={}, caveats=(), warnings=(), package_digest="", engine_digest="", backend="",
        precision="", pictures=(), masks=None, hops_ms={},
    )  # fmt: skip
    result = decide(manifest, answer, {}, hops_ms={})
    assert result.outcome is Outcome.NOTHING_FLAGGED
    study = write(scenes.add_study, outcome=result.outcome)
    write(scenes.add_analysis, study, result, package=manifest.name, intended_use=manifest.intended_use)
    with serve({manifest.name: package_text(manifest, live=True)}) as client:
        english, chinese = (
            client.get(f"/alert?lang={locale}", follow_redirects=True).text for locale in ("en", "zh_Hans_CN")
        )
    assert "<h1>Bright blob (toy)</h1>" in english
    assert "<h1>亮斑（玩具）</h1>" in chinese


def test_hostile_titles_are_text(serve, write, scenes):
    texts = scenes.packages()
    study = write(scenes.add_study, outcome=Outcome.NOTHING_FLAGGED)
    write(scenes.warn_again, study, findings=('"><script>alert(1)</script>',))
    write(scenes.warned)
    with serve(texts) as client:
        page = client.get("/alert").text
    assert "<script>alert" not in page


def test_every_choice_and_reason_has_words_and_none_advises(repo):
    assert set(words.QUALITY_CHOICES) == set(QualityChoice)
    assert set(words.QUALITY_REASONS) == set(QualityReason)
    for path in (repo / "appliance/web/locales").rglob("scanside.po"):
        assert not re.search(r"\brepeat\b|重拍|重复", path.read_text("utf-8"), re.IGNORECASE), path
