"""A scanner's list that comes after its series was taken as whole: nothing flagged must not rest on a part of it."""

from __future__ import annotations

import dataclasses

import pytest

from appliance.config import Completeness
from appliance.intake.stage import CompletenessStage
from appliance.records import AnalysisResult, FindingResult, Outcome, Reason, Role, StepState
from appliance.store.facts import Kind
from appliance.triage.routing import Candidate, plan_study
from engines.package import bundled_packages, load_package

pytestmark = pytest.mark.req("R-MPPS-03")
SERIES = "1.2.3.4"
CANDIDATE = Candidate(manifest=load_package(bundled_packages()["head-ct-hyperdensity"]).manifest, role=Role.LIVE)
FOUND = AnalysisResult(
    outcome=Outcome.FINDING,
    findings=(
        FindingResult(id="bleed", score=0.9, operating_point="default", threshold=0.5, flagged=True, category=1),
    ),
)
NOTHING = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)


class Box:
    """Images arrive, are taken as whole after 2 s, and are analysed as the test says."""

    def __init__(self, store, clock, make_header, receive):
        self.store, self.clock = store, clock
        self._make_header, self._receive = make_header, receive
        settings = Completeness(quiet_min_s=2, quiet_max_s=20)
        self._stage = CompletenessStage(store, settings, clock, wake_triage=lambda: None)

    def images(self, *numbers):
        for n in numbers:
            self.store.studies.add_new(self._receive(self._make_header(n)), ())

    def look(self, after_s=0.0):
        self.clock.advance(after_s)
        self._stage.step()

    def route(self):
        """What triage does with a new revision; returns the open analyses."""
        revisions = self.store.revisions
        for study_id in revisions.studies_to_route():
            newest = revisions.of_study(study_id)
            owed = revisions.owed(study_id)
            (plan,), _ = plan_study(newest, [CANDIDATE], owed, ct_deadline_s=180, xray_deadline_s=60)
            if plan.ended is not None and plan.ended.reason is not Reason.INCOMPLETE:
                plan = dataclasses.replace(plan, ended=None)  # two images make no head
            ids = tuple(revision.id for revision in newest)
            self.store.analyses.route(study_id, ids, (plan,), (), lambda *_: ())
        return [one.id for one in self.store.analyses.open()]

    def analyse(self, result):
        (analysis_id,) = self.route()
        self.store.analyses.start(analysis_id)
        self.store.analyses.finish(analysis_id, result, ())

    def list(self, *numbers, step="1.9", state=StepState.COMPLETED):
        self.store.steps.begin(step, "CT-1")
        self.store.steps.set(step, "CT-1", state, {(SERIES, f"1.2.3.4.{n}") for n in numbers})

    @property
    def study(self):
        return self.store.db.one("SELECT * FROM study")

    @property
    def revisions(self):
        return [row["images"] for row in self.store.db.all("SELECT images FROM revision ORDER BY n")]

    @property
    def is_open(self):
        return bool(self.store.revisions.open_series())


@pytest.fixture
def box(store, clock, make_header, receive):
    return Box(store, clock, make_header, receive)


def read(box, result):
    """Two images came, were taken as whole, and were analysed."""
    box.images(1, 2)
    box.look(after_s=2.1)
    box.analyse(result)
    assert box.revisions == [2]


def test_nothing_flagged_on_a_part_of_what_the_scanner_lists_becomes_not_analysed(box):
    read(box, NOTHING)
    box.list(1, 2, 3)
    box.look(after_s=5)
    assert box.study["outcome"] == "NOTHING_FLAGGED", "the third image may still be on its way"
    box.look(after_s=15)
    assert box.route() == []
    assert (box.study["outcome"], box.study["reason"]) == ("NOT_ANALYSED", str(Reason.INCOMPLETE))
    assert box.revisions == [2, 2]
    assert not box.is_open
    (fact,) = box.store.journal.after(0, kinds=(Kind.SERIES_READY,))[1:]
    assert (fact.body["rule"], fact.body["facts"]["missing"]) == ("short", 1)


def test_image_that_comes_after_the_list_is_analysed_with_the_others(box):
    read(box, NOTHING)
    box.list(1, 2, 3)
    box.look(after_s=1)
    box.images(3)
    box.look()
    assert box.revisions == [2, 3]
    box.analyse(NOTHING)
    assert box.study["outcome"] == "NOTHING_FLAGGED"
    assert not box.is_open


def test_finding_on_a_part_stays_and_an_issue_says_what_is_missing_until_it_comes(box):
    read(box, FOUND)
    box.list(1, 2, 3)
    box.look(after_s=30)
    assert box.study["outcome"] == "FINDING"
    assert box.store.db.one("SELECT state FROM alert")["state"] == "raised"
    assert box.revisions == [2]
    assert not box.is_open
    (issue,) = box.store.issues.open()
    assert (issue.code, issue.study_id, issue.detail) == (
        "IMAGES_MISSING",
        box.study["id"],
        {"listed": 3, "missing": 1},
    )
    box.images(3)
    box.look()
    assert box.revisions == [2, 3]
    assert box.store.issues.open() == []


def test_issue_ends_when_the_images_leave_the_box(box):
    read(box, FOUND)
    box.list(1, 2, 3)
    box.look(after_s=30)
    study_id = box.study["id"]
    with box.store.db.write() as tx:
        tx.execute("UPDATE alert SET state = 'acknowledged', acknowledged_at = ?", (tx.at,))
    box.clock.advance(10 * 86400)
    (due,) = box.store.retention.studies_due(box.clock.now(), ())
    assert due == study_id
    digests = {one.version_id: "ab" for one in box.store.retention.image_files(study_id)}
    assert box.store.retention.remove_images(study_id, box.clock.now(), (), digests)
    assert box.store.issues.open() == []


def test_list_that_comes_while_an_analysis_goes_on_waits_for_its_end(box):
    box.images(1, 2)
    box.look(after_s=2.1)
    (analysis_id,) = box.route()
    box.store.analyses.start(analysis_id)
    box.list(1, 2, 3)
    box.look(after_s=30)
    assert box.revisions == [2]
    assert box.is_open
    box.store.analyses.finish(analysis_id, FOUND, ())
    box.look()
    assert box.study["outcome"] == "FINDING"
    assert [issue.code for issue in box.store.issues.open()] == ["IMAGES_MISSING"]
    assert not box.is_open


@pytest.mark.parametrize(
    ("numbers", "state"),
    [((1, 2), StepState.COMPLETED), ((1,), StepState.COMPLETED), ((1, 2, 3), StepState.DISCONTINUED)],
)
def test_list_that_lacks_nothing_or_of_an_examination_that_ended_early_changes_nothing(box, numbers, state):
    read(box, NOTHING)
    box.list(*numbers, state=state)
    assert not box.is_open
    box.look(after_s=30)
    assert box.revisions == [2]
    assert box.study["outcome"] == "NOTHING_FLAGGED"


def test_what_was_not_analysed_anyhow_is_not_told_twice(box):
    read(box, AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.OUT_OF_ENVELOPE))
    box.list(1, 2, 3)
    box.look(after_s=30)
    assert box.revisions == [2]
    assert not box.is_open


def test_second_step_that_names_more_is_heard_too(box):
    read(box, NOTHING)
    box.list(1, 2)
    box.list(3, step="1.10")
    box.look(after_s=30)
    box.route()
    assert (box.study["outcome"], box.study["reason"]) == ("NOT_ANALYSED", str(Reason.INCOMPLETE))
