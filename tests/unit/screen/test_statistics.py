"""The page of local figures: counts with every share, "too few" under twenty, unknown where nobody looked, no names."""

from __future__ import annotations

import re

import pytest
from web_kit import COOKIE, Browser, session

from appliance.config import Config, Site
from appliance.records import Actor, ActorKind, AnalysisResult, FindingResult, Outcome, ReviewDecision, ReviewReason
from appliance.screen import screen_app
from appliance.store.facts import Kind
from appliance.store.facts.box import DaemonStarted
from appliance.store.review_rules import Draft
from appliance.store.reviews import ELSEWHERE, Reading

LI = Actor(kind=ActorKind.PERSON, name="Li Wei", role="radiologist")


def quiet(point):
    return FindingResult(id="hyperdensity", score=0.2, operating_point=point, threshold=1.0, flagged=False, category=1)


@pytest.fixture
def filled(store, write, scenes, repo):
    """24 flagged studies, 22 reviewed of which 20 are right; 3 unflagged, one of them of the sample."""

    def add(tx, score):
        outcome = Outcome.FINDING if score >= 1.5 else Outcome.NOTHING_FLAGGED
        study = scenes.add_study(tx, scenes.DOE, outcome=outcome)
        flagged = outcome is Outcome.FINDING
        finding = FindingResult(
            id="hyperdensity", score=score, operating_point="standard", threshold=1.5, flagged=flagged, category=1
        )
        scenes.add_analysis(tx, study, AnalysisResult(outcome=outcome, findings=(finding,)))
        return study

    def package(tx):
        manifest = (repo / "engines/models" / scenes.HEAD / "model.yaml").read_text("utf-8")
        values = {"state": "live", "state_at": tx.at, "installed_at": tx.at, "origin": "config", "digest": "d"}
        tx.insert("package", name=scenes.HEAD, version="0.1.0", manifest=manifest, **values)

    write(package)
    studies = [write(add, 9.0) for _ in range(24)]
    for score in (1.2, 0.3, 0.2):
        write(add, score)
    for n, study in enumerate(studies[:22]):
        draft = Draft(decision=ReviewDecision.AGREE)
        if n < 2:
            draft = Draft(decision=ReviewDecision.DISAGREE, reason=ReviewReason.ARTEFACT)
        etag, reading = store.reviews.case(study).etag, Reading(seen={ELSEWHERE: 1})
        store.reviews.sign(study, draft, etag, LI, reading, organization="R")
    write(lambda tx: tx.execute("INSERT INTO review_sample VALUES (?, ?, 0.02, NULL)", (studies[-1] + 2, tx.at)))


@pytest.mark.req("R-REVIEW-06")
def test_every_share_has_its_counts_and_interval_and_what_is_not_known_says_so(store, filled, scenes, clock):
    app = screen_app(store, Config(site=Site()), scenes.packages(), clock)
    with Browser(app) as client:
        pages = {}
        for role in ("radiologist", "administrator", "technologist", "viewer", "service", "screen"):
            client.cookies.set(COOKIE, session(store, role))
            pages[role] = client.get("/statistics?days=90")
        client.cookies.set(COOKIE, session(store, "radiologist"))
        chinese = client.get("/statistics?lang=zh_Hans_CN").text
    refused = sorted(role for role, page in pages.items() if page.status_code == 403)
    assert refused == ["screen", "service", "technologist", "viewer"]
    assert pages["administrator"].status_code == 200
    page = pages["radiologist"].text
    words = re.sub(r"<[^>]+>|\s+", " ", page)
    words = re.sub(r" +", " ", words)
    assert "24 of 27 studies" in words
    assert "22 / 24 · 92 %" in words
    assert "91 % 20 / 22" in words
    # Wilson of 20 in 22.
    assert "95 % interval: 72 % to 97 %" in words
    assert "0 missed in 0 reviewed of 1 drawn" in words
    assert page.count("too few") >= 1
    assert "Li Wei" not in page
    assert re.search(r'data-point="sensitive".*?<b>3</b>', page, re.DOTALL)  # 2 flagged and one more that nobody read
    assert "in use" in page
    assert "例数过少" in chinese
    kinds = [fact.body["what"] for fact in store.journal.after(0, 999, (Kind.ACCESSED,))]
    assert kinds.count("statistics") == 3


@pytest.mark.req("R-REVIEW-10")
def test_what_was_found_in_evaluation_stands_beside_clinical_use_and_says_so(store, filled, scenes, clock, write):
    write(lambda tx: tx.journal(DaemonStarted(version="1", mode="evaluation")))
    write(lambda tx: tx.execute("UPDATE journal SET at = '2000-01-01T00:00:00.000000Z' WHERE kind = 'daemon_started'"))
    clock.advance(86400)
    write(lambda tx: tx.journal(DaemonStarted(version="1", mode="clinical")))
    result = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, findings=(quiet("sensitivity"),))
    write(lambda tx: scenes.add_analysis(tx, scenes.add_study(tx, outcome=result.outcome), result))
    app = screen_app(store, Config(site=Site(mode="clinical")), scenes.packages(), clock)
    with Browser(app, session(store, "radiologist")) as client:
        page = client.get("/statistics").text
        chinese = client.get("/statistics?lang=zh_Hans_CN").text
    sections = page.split("<section")[1:]
    texts = [re.sub(r" +", " ", re.sub(r"<[^>]+>|\s+", " ", one)) for one in sections]
    assert ["Clinical use" in one for one in texts] == [True, False]
    assert ["Evaluation" in one.partition("Operating point")[0] for one in texts] == [False, True]
    assert "0 of 1 studies" in texts[0]
    assert "24 of 27 studies" in texts[1]
    # In evaluation another point may have been used: the one in use now is of clinical use alone.
    assert [">in use<" in one for one in sections] == [True, False]
    assert "Operating point sensitivity from 1" in texts[0]
    assert "counted apart and never added up" in page
    assert "临床使用" in chinese


@pytest.mark.req("R-REVIEW-06")
def test_an_empty_box_says_that_nothing_was_looked_for(store, scenes, clock):
    app = screen_app(store, Config(site=Site()), scenes.packages(), clock)
    with Browser(app, session(store, "administrator")) as client:
        page = client.get("/statistics").text
    assert "No package has looked for anything" in page
