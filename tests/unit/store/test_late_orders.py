"""Reports that were built before the RIS named the order are owed anew with it, once, and name the first."""

from __future__ import annotations

import pytest
from built_kit import say_built
from plan_kit import plan_for

from appliance.records import AnalysisResult, DeliveryKind, FindingResult, OrderState, Outcome
from appliance.store.ending import OwedResult
from appliance.store.orders import Answer, carried
from appliance.store.studies import Change

SR, SEG, STATEMENT = DeliveryKind.SR, DeliveryKind.SEG, DeliveryKind.STATEMENT
FLAGGED = FindingResult(id="bleed", score=9.0, operating_point="d", threshold=1.0, flagged=True, category=1)
FINDING = AnalysisResult(outcome=Outcome.FINDING, findings=(FLAGGED,))
OWED = tuple(
    OwedResult(destination=to, kind=kind) for to, kind in (("PACS", SR), ("PACS", SEG), ("VNA", SR), ("HIS", STATEMENT))
)
UNKNOWN = Answer(state=OrderState.NONE, entries=0, by="patient")
ORDER = Answer(
    state=OrderState.FOUND,
    entries=1,
    by="patient",
    procedure_id="RP1",
    procedure_description="CT head",
    accession_number="ORDER-77",
)
pytestmark = pytest.mark.req("R-ORDER-04")


@pytest.fixture
def ended(store, make_header, receive):
    """An analysis of one image has ended and owes a report to two, a segmentation to one, and a statement."""

    def make(n=1, **identity):
        stored = store.studies.add_new(receive(make_header(n, **identity)), ())
        (series,) = store.revisions.open_series()
        revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
        plan = plan_for(revision_id)
        (analysis_id,) = store.analyses.route(stored.study_id, (revision_id,), (plan,), (), lambda *_: ())
        store.analyses.finish(analysis_id, FINDING, OWED)
        return analysis_id

    return make


@pytest.fixture
def answer(store, clock):
    """``answer(what)``: the RIS is asked about the study and says so."""

    def say(what, again_in_s=None):
        clock.advance(1)
        (asked,) = store.orders.to_ask()
        store.orders.answered(asked, what, again_in_s=again_in_s)

    return say


def build(store, analysis_id):
    for kind in (SR, SEG, STATEMENT):
        say_built(store, analysis_id, kind)


def send(store):
    for destination in ("PACS", "VNA", "HIS"):
        for delivery in store.deliveries.next_owed(destination, store.db.clock.now(), 9):
            store.deliveries.sent(delivery.id, 0)


def rows(store, state):
    found = store.db.all("SELECT * FROM delivery WHERE analysis_id IS NOT NULL AND state = ? ORDER BY id", (state,))
    return [(row["destination"], row["kind"]) for row in found]


def test_order_that_comes_after_the_reports_is_told_to_whoever_has_them(store, ended, answer):
    analysis = ended()
    answer(UNKNOWN, again_in_s=0)
    build(store, analysis)
    send(store)
    before = store.deliveries.analyses_to_build()
    answer(ORDER)
    assert before == []
    assert rows(store, "held") == [("PACS", "sr"), ("VNA", "sr"), ("HIS", "statement")]
    owed = store.deliveries.to_build(analysis)
    assert (owed.identity.accession_number, owed.identity.requested_procedure_id) == ("ORDER-77", "RP1")
    assert owed.procedure == "CT head"
    for kind in (SR, STATEMENT):
        (first,) = {
            row["sop_instance_uid"]
            for row in store.db.all("SELECT * FROM delivery WHERE kind = ? AND state = 'sent'", (str(kind),))
        }
        assert [one.sop_instance_uid for one in owed.predecessors[kind]] == [first]
        assert owed.objects[kind] != first
    build(store, analysis)
    assert rows(store, "held") == []


def test_report_that_is_built_and_not_sent_is_not_sent_without_its_order(store, clock, ended, answer):
    analysis = ended()
    build(store, analysis)
    answer(ORDER)
    assert rows(store, "replaced") == [("PACS", "sr"), ("VNA", "sr"), ("HIS", "statement")]
    assert [one.kind for one in store.deliveries.next_owed("PACS", clock.now(), 9)] == [SEG]
    assert len(store.deliveries.to_build(analysis).predecessors[SR]) == 1


def test_report_that_waits_to_be_built_is_built_with_its_order_and_only_then_taken(store, ended, answer):
    analysis = ended()
    without = carried(store.db, 1)
    answer(ORDER)
    for kind in (SR, STATEMENT):
        say_built(store, analysis, kind, as_of=without)
    assert len(rows(store, "held")) == len(OWED), "it was built before the answer came: it is built again"
    build(store, analysis)
    assert rows(store, "held") == rows(store, "replaced") == []


@pytest.mark.parametrize("what", [UNKNOWN, Answer(state=OrderState.FOUND, entries=1, by="patient", priority="STAT")])
def test_answer_that_changes_nothing_of_a_report_sends_nothing(store, ended, answer, what):
    build(store, ended())
    send(store)
    answer(what)
    assert rows(store, "held") == []


def test_order_of_a_study_whose_result_was_taken_back_brings_nothing_old_to_life(store, ended, answer):
    build(store, ended())
    send(store)
    second = ended(2)
    build(store, second)
    send(store)
    answer(ORDER)
    assert store.deliveries.analyses_to_build() == [second]


@pytest.mark.req("R-RESULT-08", "R-ORDER-02")
def test_order_of_the_wrong_patient_does_not_follow_the_corrected_one(
    store, ended, answer, clock, make_header, receive
):
    analysis = ended()
    build(store, analysis)
    send(store)
    answer(ORDER)
    build(store, analysis)
    send(store)
    corrected = receive(make_header(1, patient_id="P2"))
    store.studies.add_version(corrected, store.studies.versions("1.2.3.4.1"), Change.IDENTITY, ())
    owed = store.deliveries.to_build(analysis)
    assert (owed.identity.patient_id, owed.identity.accession_number, owed.procedure) == ("P2", "", "")
    assert sorted(rows(store, "held")) == [("HIS", "statement"), ("PACS", "seg"), ("PACS", "sr"), ("VNA", "sr")]
    assert len(owed.predecessors[SR]) == 2, "the one without an order, and the one with it"
    answer(ORDER)
    assert store.deliveries.to_build(analysis).identity.accession_number == "ORDER-77"
    assert len(rows(store, "held")) == 4, "nothing of it had gone"
