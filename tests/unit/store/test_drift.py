"""Drift: the index by hand, a baseline of the first results on this very box, and an issue that somebody reads."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.records import SELF_TEST_SOURCE, AnalysisResult, FindingResult, Outcome
from appliance.store import drift as module
from appliance.store.drift import Drift, baseline_of, counts_of, psi

pytestmark = pytest.mark.req("R-FLEET-32")
HEAD = "head-ct-hyperdensity"


def test_the_index_is_what_a_person_reckons_by_hand():
    """(0.2 - 0.5) ln(0.2 / 0.5) + (0.3 - 0.3) ln 1 + (0.5 - 0.2) ln(0.5 / 0.2) = 0.6 ln 2.5."""
    assert psi((100, 60, 40), (40, 60, 100)) == pytest.approx(0.6 * math.log(2.5), abs=1e-12)
    assert psi((100, 60, 40), (100, 60, 40)) == 0.0
    # Shares alone count, not how many there were.
    assert psi((100, 60, 40), (400, 600, 1000)) == pytest.approx(0.6 * math.log(2.5), abs=1e-12)
    # Nothing where there was half of it: (0.0001 - 0.5) ln(0.0001 / 0.5) + (1 - 0.5) ln 2.
    assert psi((50, 50), (0, 100)) == pytest.approx(0.4999 * math.log(5000) + 0.5 * math.log(2), abs=1e-12)


def test_below_a_hundred_nothing_is_said():
    assert psi((99,), (500,)) is None
    assert psi((500,), (99,)) is None
    assert psi((50, 50), (50, 50)) == 0.0


def test_bins_hold_a_tenth_each_and_equal_values_share_one():
    made = baseline_of([n / 1000 for n in range(1000)])
    assert len(made.edges) == 9
    assert max(made.counts) - min(made.counts) <= 2
    # Nine tenths of a triage package's scores may be the same.
    most = baseline_of([0.0] * 900 + [0.1 + n / 1000 for n in range(100)])
    assert sum(most.counts) == 1000
    assert most.counts[0] == 900
    assert baseline_of([3.0]).counts == (1, 0)
    assert counts_of((0.0, 1.0), (-9.0, 0.0, 0.5, 1.0, 9.0)) == (2, 2, 1)


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=10), st.data())
def test_the_index_is_never_negative_and_does_not_mind_which_is_first(then, data):
    now = data.draw(st.lists(st.integers(1, 10_000), min_size=len(then), max_size=len(then)))
    index = psi(then, now)
    if index is not None:
        assert index >= -1e-12
        assert index == pytest.approx(psi(now, then))


@pytest.fixture
def analysed(store, scenes, monkeypatch):
    """``analysed(scores)``: a live analysis each, with a number of its images."""
    monkeypatch.setattr(module, "BASELINE", 200)

    def make(scores, *, source="CT-1", **more):
        with store.db.write() as tx:
            study = scenes.add_study(tx, source=source)
            for score in scores:
                said = FindingResult(id="bleed", score=score, operating_point="d", threshold=0.5, flagged=False)
                result = AnalysisResult(
                    outcome=Outcome.NOTHING_FLAGGED, findings=(said,), numbers={"Brain.HU": 30 + score}
                )
                scenes.add_analysis(tx, study, result, **more)

    return make


def issues(store):
    return [(issue.code, issue.subject, issue.detail["why"]) for issue in store.issues.open()]


def test_scores_that_move_are_an_issue_until_they_are_back(store, analysed):
    chance = random.Random(3)
    drift, running = Drift(store.db), [(HEAD, "0.1.0")]
    analysed([chance.random() for _ in range(199)])
    assert drift.of(HEAD, "0.1.0") == {}
    analysed([chance.random() for _ in range(100)])
    analysed([9.0] * 300, source=SELF_TEST_SOURCE)
    analysed([9.0] * 300, role="shadow")
    analysed([9.0] * 300, package_version="0.2.0")
    analysed([9.0] * 300, superseded_by=1)
    assert drift.of(HEAD, "0.1.0") == {}, "99 after the baseline: too few to say anything"
    analysed([chance.random() for _ in range(101)])
    found = drift.of(HEAD, "0.1.0")
    assert set(found) == {"bleed", "image-brain-hu"}
    assert (found["bleed"].n, found["bleed"].psi < 0.15) == (200, True)
    drift.look(running)
    assert issues(store) == []
    analysed([chance.random() ** 4 for _ in range(400)])
    drift.look(running)
    ((code, subject, why),) = issues(store)
    assert (code, subject) == ("SCORE_DRIFT", f"{HEAD} 0.1.0")
    assert "bleed 0." in why
    analysed([chance.random() for _ in range(500)])
    drift.look(running)
    assert issues(store) == []


def test_the_baseline_stays_what_it_was_and_goes_with_the_version(store, analysed):
    analysed([n / 200 for n in range(200)])
    Drift(store.db).of(HEAD, "0.1.0")
    kept = store.fleet.state(f"drift:{HEAD}@0.1.0")
    analysed([5.0] * 300)
    assert Drift(store.db).of(HEAD, "0.1.0")["bleed"].psi > 2
    assert store.fleet.state(f"drift:{HEAD}@0.1.0") == kept
    Drift(store.db).look([(HEAD, "0.1.0")])
    assert len(issues(store)) == 1
    Drift(store.db).look([(HEAD, "0.2.0")])
    assert issues(store) == [], "a version that does not run any more drifts no more"


def test_too_few_for_an_issue_are_no_issue(store, analysed):
    analysed([n / 200 for n in range(200)])
    analysed([5.0] * 199)
    Drift(store.db).look([(HEAD, "0.1.0")])
    assert issues(store) == []
    analysed([5.0])
    Drift(store.db).look([(HEAD, "0.1.0")])
    assert len(issues(store)) == 1
