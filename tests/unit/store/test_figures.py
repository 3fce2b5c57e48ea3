"""Local figures: published intervals, every count, no share of too few, and unknown where nobody looked."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.records import (
    SELF_TEST_SOURCE,
    Actor,
    ActorKind,
    AnalysisResult,
    FindingResult,
    Outcome,
    Presence,
    ReviewDecision,
    ReviewReason,
)
from appliance.store.facts.box import DaemonStarted
from appliance.store.figure_rows import read_table
from appliance.store.figures import FEWEST, Figure, Scale, Setting, share, wilson
from appliance.store.jsonable import dump
from appliance.store.review_rules import Answer, Draft
from appliance.store.reviews import ELSEWHERE, Reading

LI = Actor(kind=ActorKind.PERSON, name="Li Wei", role="radiologist")
AGREE = Draft(decision=ReviewDecision.AGREE)
REJECT = Draft(decision=ReviewDecision.DISAGREE, reason=ReviewReason.ARTEFACT)
UNSURE = Draft(decision=ReviewDecision.CANNOT_JUDGE)


@pytest.fixture
def study(store):
    """``study(score)``: a study with an analysis that gave this score for "bleed"; flagged from 1.0."""

    def make(
        score, draft=None, *, sampled=False, counts=True, package="head", source="CT-1", point=("d", 1.0), **columns
    ):
        flagged = score >= point[1]
        finding = FindingResult(id="bleed", score=score, operating_point=point[0], threshold=point[1], flagged=flagged)
        outcome = Outcome.FINDING if flagged else Outcome.NOTHING_FLAGGED
        with store.db.write() as tx:
            number = tx.insert(
                "study",
                study_instance_uid="1.2",
                source=source,
                patient_key="[]",
                identity=json.dumps({"study_instance_uid": "1.2"}),
                first_at=tx.at,
                last_at=tx.at,
                outcome=str(outcome),
            )
            values = {
                "package_version": "1",
                "role": "live",
                "state": "done",
                "category": 1,
                "notify": "active",
                "intended_use": "detection",
                "ready_at": tx.at,
                "ready_mono": 0.0,
                "boot": "b",
                "deadline_s": 1.0,
                "done_at": tx.at,
                "outcome": str(outcome),
            } | columns
            result = AnalysisResult(outcome=outcome, findings=(finding,))
            analysis = tx.insert("analysis", study_id=number, package=package, result=dump(result), **values)
            if sampled:
                tx.execute("INSERT INTO review_sample VALUES (?, ?, 0.02, NULL)", (number, tx.at))
        if draft == "missed":
            answer = Answer(analysis_id=analysis, finding="bleed", added=True)
            draft = Draft(decision=ReviewDecision.AMEND, answers=(answer,))
        if draft is not None:
            reading, etag = Reading(seen={ELSEWHERE: 1}), store.reviews.case(number).etag
            store.reviews.sign(number, draft, etag, LI, reading, organization="R", counts=counts)
        return number

    return make


@pytest.fixture
def table(store, clock):
    return lambda days=30, mode="clinical": read_table(store.db, clock.now() - timedelta(days=days), mode)


@pytest.fixture
def start(store):
    """``start(mode)``: the box starts."""

    def begin(mode):
        with store.db.write() as tx:
            tx.journal(DaemonStarted(version="1", mode=mode))

    return begin


def scale(package="head", version="1", mode="clinical"):
    return Scale(package=package, version=version, finding="bleed", mode=mode)


@pytest.mark.req("R-REVIEW-06")
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Two-sided confidence intervals for the single proportion, Statist Med 17 (1998) 857-872, table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_the_published_one(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.req("R-REVIEW-06")
@given(n=st.integers(1, 5000), data=st.data())
def test_the_interval_holds_the_share_lies_in_the_unit_and_mirrors(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert 0.0 <= low <= k / n <= high <= 1.0
    other = wilson(n - k, n)
    assert (1 - other[1], 1 - other[0]) == pytest.approx((low, high), abs=1e-12)
    wider = wilson(k, n, 2.24)
    assert wider[0] <= low
    assert wider[1] >= high
    four = wilson(4 * k, 4 * n)
    assert four[1] - four[0] < high - low


@pytest.mark.req("R-REVIEW-06")
def test_every_case_is_counted_once_in_its_place(study, table):
    for draft in (AGREE, AGREE, REJECT, UNSURE, None):
        study(5.0, draft)
    study(0.1)
    study(0.1, AGREE, sampled=True)
    study(0.2, "missed", sampled=True)
    study(0.2, "missed")
    study(0.3, UNSURE, sampled=True)
    (one,) = table().figures
    assert one.setting.scale == scale()
    assert (one.looked, one.flagged, one.reviewed, one.right, one.wrong, one.undetermined) == (10, 5, 4, 2, 1, 1)
    assert (one.sampled, one.sample_reviewed, one.sample_missed, one.missed_elsewhere) == (3, 2, 1, 1)
    assert one.ppv is None
    assert one.sensitivity is None


@pytest.mark.req("R-REVIEW-06")
def test_under_twenty_judged_there_is_no_share_and_from_twenty_on_there_is():
    assert share(19, FEWEST - 1) is None
    found = share(18, FEWEST)
    assert (found.numerator, found.denominator, found.value) == (18, 20, 0.9)
    assert (found.low, found.high) == pytest.approx((0.6990, 0.9721), abs=5e-5)


@pytest.mark.req("R-REVIEW-06")
def test_sensitivity_is_estimated_from_the_sample_with_an_interval():
    setting = Setting(package="p", version="1", finding="f", mode="clinical", point="d", threshold=1.0)
    figure = Figure(setting=setting, looked=1000, flagged=100, reviewed=50, right=40, wrong=10)
    figure.sampled, figure.sample_reviewed, figure.sample_missed = 60, 45, 1
    estimate = figure.sensitivity
    # 80 there among the flagged, 20 among 900 that were not.
    assert estimate.value == pytest.approx(0.8)
    assert estimate.low < 0.8 < estimate.high
    figure.sample_missed = 0
    assert figure.sensitivity.value == figure.sensitivity.high == 1.0
    assert figure.sensitivity.low < 0.6


def test_superseded_silent_old_and_trial_cases_are_in_no_figure(study, table, clock, store):
    study(5.0, AGREE)
    clock.advance(40 * 86400)
    assert table().figures == ()
    study(5.0, role="silent")
    study(5.0, intended_use="quality")
    study(5.0, AGREE, counts=False)
    (one,) = table().figures
    assert (one.looked, one.flagged, one.reviewed) == (1, 1, 0)
    with store.db.write() as tx:
        tx.execute("UPDATE analysis SET superseded_by = id WHERE role = 'live'")
    assert table().figures == ()


def test_the_last_version_of_a_review_counts(study, table, store, clock):
    number = study(5.0, AGREE)
    clock.advance(1)
    case = store.reviews.case(number)
    store.reviews.sign(number, REJECT, case.etag, LI, Reading(seen={ELSEWHERE: 1}), organization="R")
    (one,) = table().figures
    assert (one.reviewed, one.right, one.wrong) == (1, 0, 1)


@pytest.mark.req("R-REVIEW-07")
def test_another_operating_point_is_unknown_where_nobody_looked(study, table):
    for score, draft in ((9.0, AGREE), (5.0, AGREE), (1.5, REJECT), (1.2, None), (3.0, UNSURE)):
        study(score, draft)
    study(0.6, "missed")
    study(0.7, AGREE, sampled=True)
    study(0.8)
    points = {"strict": 4.0, "default": 1.0, "loose": 0.5}
    strict, default, loose = table().replay(scale(), points)
    assert (strict.flagged, strict.there, strict.not_there, strict.unknown) == (2, 2, 0, 0)
    assert (default.flagged, default.there, default.not_there, default.unknown) == (5, 2, 1, 2)
    # The missed one is there, the sampled one is not, and of the third nobody knows.
    assert (loose.flagged, loose.there, loose.not_there, loose.unknown) == (8, 3, 2, 3)
    assert loose.ppv is None


def test_a_test_accounts_review_takes_no_real_one_out_of_figures_and_labels(study, table, store, clock):
    number = study(5.0, AGREE)
    clock.advance(1)
    etag = store.reviews.case(number).etag
    store.reviews.sign(number, REJECT, etag, LI, Reading(seen={ELSEWHERE: 1}), organization="R", counts=False)
    (one,) = table().figures
    assert (one.reviewed, one.right, one.wrong) == (1, 1, 0)
    assert [label.review.version for label in store.labels.read()] == [1]


def test_the_wrong_patient_is_undetermined_and_no_false_alarm(study, table):
    study(5.0, Draft(decision=ReviewDecision.DISAGREE, reason=ReviewReason.WRONG_SUBJECT))
    (one,) = table().figures
    assert (one.reviewed, one.right, one.wrong, one.undetermined) == (1, 0, 0, 1)
    (replayed,) = table().replay(scale(), {"d": 1.0})
    assert (replayed.flagged, replayed.not_there, replayed.unknown) == (1, 0, 1)


def test_the_boxs_own_test_studies_are_in_no_figure_and_no_label(study, table, store):
    real = study(5.0, AGREE)
    study(5.0, AGREE, source=SELF_TEST_SOURCE)
    assert [one.looked for one in table().figures] == [1]
    assert [label.study_id for label in store.labels.read()] == [real]
    assert store.models.figures("head", "1").analyses == 1
    assert store.models.alerts_per_day("head", "1", "bleed", {"d": 1.0}).studies == 1


def test_two_findings_of_two_packages_are_two_rows(study, table):
    study(5.0)
    study(5.0, package="chest")
    assert [one.setting.scale for one in table().figures] == [scale("chest"), scale("head")]
    assert table().replay(scale("nowhere"), {"d": 1.0})[0].flagged == 0
    assert Presence.ABSENT not in {one.presence for ones in table().scored.values() for one in ones}


@pytest.mark.req("R-REVIEW-10")
def test_evaluation_and_clinical_use_are_never_one_figure(study, table, start, clock):
    study(5.0)  # before the first start that the journal still has: nobody knows
    clock.advance(86400)
    start("evaluation")
    for draft in (REJECT, REJECT, AGREE):
        study(5.0, draft)
        clock.advance(86400)
    start("clinical")
    study(5.0, AGREE)
    clock.advance(86400)
    start("clinical")
    study(5.0, AGREE)
    clock.advance(2 * 86400)
    told = {one.setting.mode: one for one in table().figures}
    assert list(told) == ["clinical", "evaluation", ""]  # what is in use stands first
    assert {mode: (one.looked, one.right, one.wrong) for mode, one in told.items()} == {
        "clinical": (2, 2, 0),
        "evaluation": (3, 1, 2),
        "": (1, 0, 0),
    }
    # So long each was in use: figures a day are of that time, not of the whole span.
    assert {mode: one.days for mode, one in told.items()} == pytest.approx({"clinical": 3, "evaluation": 3, "": 1})
    assert told["clinical"].a_day == pytest.approx(2 / 3)
    # The other way round, and scores of one mode say nothing of the other.
    start("evaluation")
    study(5.0)
    assert next((one.setting.mode, one.looked) for one in table().figures) == ("evaluation", 4)
    assert table().replay(scale(), {"d": 1.0})[0].flagged == 2
    assert table().replay(scale(mode="evaluation"), {"d": 1.0})[0].flagged == 4


@pytest.mark.req("R-REVIEW-10")
def test_a_box_that_has_not_started_since_its_journal_begins_ran_as_it_runs_now(study, table):
    study(5.0)
    assert [one.setting.mode for one in table(mode="evaluation").figures] == ["evaluation"]


@pytest.mark.req("R-REVIEW-10")
def test_versions_and_operating_points_are_figures_of_their_own_and_only_points_share_their_scores(study, table, clock):
    study(5.0, AGREE)
    clock.advance(60)
    study(1.5, point=("strict", 2.0))
    clock.advance(60)
    study(3.0, REJECT, package_version="2", point=("strict", 2.0))
    told = [(one.setting.version, one.setting.point, one.looked, one.flagged, one.wrong) for one in table().figures]
    assert told == [("2", "strict", 1, 1, 1), ("1", "strict", 1, 0, 0), ("1", "d", 1, 1, 0)]
    (first,) = table().replay(scale(), {"d": 1.0})
    assert (first.flagged, first.there, first.unknown) == (2, 1, 1)
    (second,) = table().replay(scale(version="2"), {"d": 1.0})
    assert (second.flagged, second.not_there) == (1, 1)
