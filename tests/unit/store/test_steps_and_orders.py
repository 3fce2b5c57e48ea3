"""What modalities say that they made, and what the RIS says was asked for."""

from __future__ import annotations

import pytest
from plan_kit import plan_for

from appliance.errors import ConflictError, NotFoundError
from appliance.records import OrderState, StepState
from appliance.store.facts import Kind
from appliance.store.orders import Answer
from appliance.store.studies import Change

SERIES = "1.2.3.4"


def listed(*numbers, series=SERIES):
    return {(series, f"1.2.3.4.{n}") for n in numbers}


@pytest.fixture
def open_series(store, make_header, receive):
    """``open_series(1, 2)``: images 1 and 2 arrive; the open series as completeness sees it."""

    def arrive(*numbers):
        for n in numbers:
            store.studies.add_new(receive(make_header(n)), ())
        (series,) = store.revisions.open_series()
        return series

    return arrive


@pytest.mark.req("R-MPPS-01")
@pytest.mark.parametrize("before", [True, False])
def test_list_counts_whether_it_comes_before_or_after_the_images(store, open_series, before):
    if not before:
        open_series(1, 2)
    store.steps.begin("1.9", "CT-1")
    store.steps.set("1.9", "CT-1", StepState.COMPLETED, listed(1, 2, 3))
    series = open_series(1, 2) if before else store.revisions.open_series()[0]
    assert (series.listed.images, series.listed.missing, series.listed.extra) == (3, 1, 0)
    series = open_series(3, 4)
    assert (series.listed.missing, series.listed.extra, series.listed.discontinued) == (0, 1, False)


@pytest.mark.req("R-MPPS-01")
def test_list_is_no_evidence_while_a_step_that_names_the_series_goes_on(store, open_series):
    store.steps.begin("1.9", "CT-1", listed(1))
    store.steps.begin("1.10", "CT-1")
    store.steps.set("1.10", "CT-1", StepState.COMPLETED, listed(1, 2))
    assert open_series(1, 2).listed is None
    store.steps.set("1.9", "CT-1", StepState.DISCONTINUED, None)
    (series,) = store.revisions.open_series()
    assert (series.listed.images, series.listed.missing, series.listed.discontinued) == (2, 0, True)


@pytest.mark.req("R-MPPS-02")
def test_step_that_has_ended_never_changes_again(store):
    store.steps.begin("1.9", "CT-1")
    store.steps.set("1.9", "CT-1", StepState.COMPLETED, listed(1))
    with pytest.raises(ConflictError):
        store.steps.set("1.9", "CT-1", StepState.IN_PROGRESS, listed(1, 2))
    with pytest.raises(ConflictError):
        store.steps.begin("1.9", "CT-1")
    with pytest.raises(NotFoundError):
        store.steps.set("1.11", "CT-1", None, None)
    assert store.steps.state("1.9") is StepState.COMPLETED
    assert len(store.db.all("SELECT * FROM performed_image")) == 1


@pytest.mark.req("R-MPPS-02")
def test_journal_tells_counts_of_a_step_and_no_uid(store):
    store.steps.begin("1.9", "CT-1")
    store.steps.set("1.9", "CT-1", StepState.COMPLETED, listed(1, 2) | listed(3, series="1.2.3.5"))
    fact = store.journal.after(0, kinds=(Kind.PERFORMED_STEP,))[-1]
    assert (fact.body["state"], fact.body["series"], fact.body["images"]) == ("COMPLETED", 2, 3)
    assert "1.2.3" not in str(fact.body)


def test_steps_of_a_month_ago_are_forgotten_with_their_lists(store, clock):
    store.steps.begin("1.9", "CT-1", listed(1, 2))
    clock.advance(31 * 86400)
    store.steps.begin("1.10", "CT-1", listed(3))
    assert (store.steps.state("1.9"), store.steps.state("1.10")) == (None, StepState.IN_PROGRESS)
    assert len(store.db.all("SELECT * FROM performed_image")) == 1


def queued(store):
    (series,) = store.revisions.open_series()
    revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
    study_id = store.revisions.get(revision_id).study_id
    plan = plan_for(revision_id, package_version="1", intended_use="triage")
    store.analyses.route(study_id, (revision_id,), (plan,), (), lambda package, result: ())
    return study_id


FOUND = Answer(state=OrderState.FOUND, entries=1, by="accession", priority="STAT", procedure_description="CT head")


@pytest.mark.req("R-ORDER-01")
def test_answer_that_comes_late_still_raises_what_is_queued(store, open_series):
    open_series(1)
    study_id = queued(store)
    (asked,) = store.orders.to_ask()
    assert not store.analyses.open()[0].stat
    store.orders.answered(asked, FOUND, again_in_s=None)
    assert store.analyses.open()[0].stat
    study = store.views.study(study_id).study
    assert (study.stat, study.order.procedure_description) == (True, "CT head")
    fact = store.journal.after(0, kinds=(Kind.ORDER_ASKED,))[0]
    assert fact.body["raised"]
    assert "CT head" not in str(fact.body)


@pytest.mark.req("R-ORDER-01")
def test_study_is_asked_about_once_then_when_due_then_when_its_patient_was_corrected(
    store, open_series, clock, make_header, receive
):
    open_series(1)
    (asked,) = store.orders.to_ask()
    store.orders.answered(asked, Answer(state=OrderState.NONE, entries=0, by="accession"), again_in_s=60)
    assert store.orders.to_ask() == []
    clock.advance(61)
    (again,) = store.orders.to_ask()
    assert again.asked == 1
    store.orders.answered(again, FOUND, again_in_s=None)
    clock.advance(3600)
    assert store.orders.to_ask() == []
    known = store.studies.versions("1.2.3.4.1")
    store.studies.add_version(receive(make_header(1, patient_id="P2")), known, Change.IDENTITY, ())
    assert [one.asked for one in store.orders.to_ask()] == [0]


@pytest.mark.req("R-ORDER-03")
def test_order_of_another_patient_is_a_loud_issue_until_the_next_answer(store, open_series):
    open_series(1)
    (asked,) = store.orders.to_ask()
    store.orders.answered(asked, Answer(state=OrderState.OTHER_PATIENT, entries=1, by="accession"), again_in_s=60)
    (issue,) = store.issues.open()
    assert (issue.code, issue.study_id) == ("WORKLIST_MISMATCH", asked.study_id)
    assert not store.views.study(asked.study_id).study.stat
    store.orders.answered(asked, FOUND, again_in_s=None)
    assert store.issues.open() == []
