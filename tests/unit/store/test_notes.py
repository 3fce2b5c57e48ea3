"""Objects that hold no longer: which are named by a rejection note, to whom, when, and which are not sent at all."""

from __future__ import annotations

import pytest
from built_kit import CLASSES, say_built
from plan_kit import plan_for

from appliance.records import AnalysisResult, DeliveryKind, FindingResult, Outcome, Rejection, RejectionTitle
from appliance.store.ending import OwedResult
from appliance.store.facts import Kind
from appliance.store.studies import Change

SR, SEG, GSPS, KO, SC, NOTE, STATEMENT = (
    DeliveryKind.SR,
    DeliveryKind.SEG,
    DeliveryKind.GSPS,
    DeliveryKind.KO,
    DeliveryKind.SC,
    DeliveryKind.REJECTION_NOTE,
    DeliveryKind.STATEMENT,
)
ALL = (SR, SEG, GSPS, KO, SC)
FLAGGED = FindingResult(id="bleed", score=9.0, operating_point="d", threshold=1.0, flagged=True, category=1)
FINDING = AnalysisResult(outcome=Outcome.FINDING, findings=(FLAGGED,))
NOTHING = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)
pytestmark = pytest.mark.req("R-RESULT-10")


def owed(*kinds, to="PACS"):
    return tuple(OwedResult(destination=to, kind=kind) for kind in kinds)


EVERYTHING = owed(*ALL, NOTE)


@pytest.fixture
def queue(store, make_header, receive):
    """``queue(n)``: image n arrives, and the package is owed an analysis of the new revision."""

    def make(n=1):
        stored = store.studies.add_new(receive(make_header(n)), ())
        (series,) = store.revisions.open_series()
        revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
        plan = plan_for(revision_id)
        (analysis_id,) = store.analyses.route(stored.study_id, (revision_id,), (plan,), (), lambda *_: ())
        return analysis_id

    return make


@pytest.fixture
def sent(store, queue):
    """``sent(n, result, owed)``: an analysis has ended, and everything that it owes was built and sent."""

    def make(n=1, result=FINDING, objects=EVERYTHING):
        analysis_id = queue(n)
        store.analyses.finish(analysis_id, result, objects)
        build(store, analysis_id)
        send(store)
        return analysis_id

    return make


@pytest.fixture
def correct(store, make_header, receive):
    """Image 1 comes again under another identity."""

    def make(**identity):
        known = store.studies.versions("1.2.3.4.1")
        store.studies.add_version(receive(make_header(1, **identity)), known, Change.IDENTITY, ())

    return make


def build(store, analysis_id, kinds=(*ALL, STATEMENT)):
    for kind in kinds:
        if [row for row in rows(store, analysis_id) if row["kind"] == kind]:
            say_built(store, analysis_id, kind)


def send(store):
    for destination in ("PACS", "ARCHIVE"):
        for delivery in store.deliveries.next_owed(destination, store.db.clock.now(), 100):
            store.deliveries.sent(delivery.id, 0)


def rows(store, analysis_id=None, kind=None):
    found = store.db.all("SELECT * FROM delivery WHERE analysis_id IS NOT NULL ORDER BY id")
    return [
        row
        for row in found
        if (analysis_id is None or row["analysis_id"] == analysis_id) and (kind is None or row["kind"] == kind)
    ]


def uids(store, analysis_id, *kinds, to="PACS"):
    return {
        row["sop_instance_uid"]
        for row in rows(store, analysis_id)
        if row["kind"] in {str(kind) for kind in kinds} and row["destination"] == to
    }


def notes(store, analysis_id):
    return store.deliveries.notes_to_build(analysis_id)


def named(note):
    return {one.sop_instance_uid for one in note.named}


@pytest.mark.parametrize("result", [NOTHING, FINDING])
def test_who_has_pictures_of_an_older_analysis_is_owed_one_note_that_names_them_and_not_the_report(
    store, queue, sent, result
):
    first = sent()
    second = queue(2)
    assert rows(store, kind=NOTE) == [], "while the newer one runs, what it will say is not known"
    store.analyses.finish(second, result, owed(SR, NOTE) if result is FINDING else ())

    (note,) = notes(store, first)
    assert named(note) == uids(store, first, SEG, GSPS, KO, SC)
    assert {one.kind: one.sop_class_uid for one in note.named} == {kind: CLASSES[kind] for kind in (SEG, GSPS, KO, SC)}
    report, row = rows(store)[-2:]
    assert (report["analysis_id"], report["kind"]) == (second, SR)
    assert (row["destination"], row["kind"], row["state"]) == ("PACS", NOTE, "held")
    assert row["id"] > report["id"], "what takes their place goes first"
    (fact,) = [one for one in store.journal.after(0, kinds=(Kind.DELIVERY_OWED,)) if one.body["object"] == NOTE]
    assert fact.body["analysis"] == first


def test_each_object_is_named_once_and_a_note_keeps_its_uid(store, queue, sent):
    first = sent()
    second = sent(2)
    (note,) = notes(store, first)
    say_built(store, first, NOTE, sop_instance_uid=note.sop_instance_uid, identity=note.identity)
    assert notes(store, first) == []
    (built,) = [one for one in store.deliveries.next_owed("PACS", store.db.clock.now(), 9) if one.kind is NOTE]
    assert (built.sop_instance_uid, built.sop_class_uid) == (note.sop_instance_uid, CLASSES[NOTE])
    send(store)
    store.analyses.finish(queue(3), NOTHING, ())
    assert notes(store, first) == []
    (another,) = notes(store, second)
    assert named(another) == uids(store, second, SEG, GSPS, KO, SC)
    assert another.sop_instance_uid != note.sop_instance_uid


def test_each_destination_is_told_of_what_it_has_and_none_that_did_not_ask(store, queue, sent):
    both = (*owed(SR, SEG, KO, NOTE), *owed(SR, SEG, SC, NOTE, to="ARCHIVE"), *owed(SR, SEG, to="VIEWER"))
    first = sent(objects=both)
    store.analyses.finish(queue(2), NOTHING, ())
    told = {row["sop_instance_uid"]: row["destination"] for row in rows(store, kind=NOTE)}
    assert len(told) == 2, "they say different things"
    assert {told[one.sop_instance_uid]: named(one) for one in notes(store, first)} == {
        "PACS": uids(store, first, SEG, KO),
        "ARCHIVE": uids(store, first, SEG, SC, to="ARCHIVE"),
    }


def test_what_waits_of_an_older_analysis_is_not_sent_and_named_only_if_it_may_have_arrived(store, clock, queue):
    first = queue()
    store.analyses.finish(first, FINDING, owed(SR, SEG, GSPS, KO, NOTE))
    build(store, first, (SR, SEG))
    tried = next(row for row in rows(store, first) if row["kind"] == SEG)
    store.deliveries.failed(tried["id"], "the association was lost", clock.now())
    store.deliveries.build_failed(first, KO, "no")
    store.analyses.finish(queue(2), NOTHING, ())

    (note,) = notes(store, first)
    assert named(note) == {tried["sop_instance_uid"]}
    states = {row["kind"]: row["state"] for row in rows(store, first)}
    assert states == {"sr": "owed", "seg": "replaced", "gsps": "replaced", "ko": "replaced", "rejection_note": "held"}
    assert store.issues.open() == [], "nobody is asked to mend what is not wanted any more"
    facts = store.journal.after(0, kinds=(Kind.DELIVERY_REPLACED,))
    assert [fact.body["object"] for fact in facts] == ["seg", "gsps", "ko"]
    store.deliveries.retry()
    assert {one.kind for one in store.deliveries.next_owed("PACS", clock.now(), 9)} == {SR}
    store.analyses.finish(queue(3), NOTHING, ())
    assert len(rows(store, kind=NOTE)) == 1
    assert len(store.journal.after(0, kinds=(Kind.DELIVERY_REPLACED,))) == 3


def test_what_a_pacs_refused_is_nobodys_task_once_it_holds_no_longer(store, queue):
    first = queue()
    store.analyses.finish(first, FINDING, owed(SR, SEG))
    build(store, first)
    parked = {row["kind"]: row["id"] for row in rows(store, first)}
    for delivery_id in parked.values():
        store.deliveries.parked(delivery_id, 0xC000, "refused")
    store.analyses.finish(queue(2), NOTHING, ())
    assert [issue.code for issue in store.issues.open()] == ["DELIVERY_PARKED"], "the report still is"
    store.deliveries.retry()
    third = queue(3)
    store.analyses.finish(third, FINDING, owed(SEG))
    build(store, third)
    (seg,) = [row["id"] for row in rows(store, third) if row["kind"] == SEG]
    store.deliveries.parked(seg, 0xC000, "refused")
    assert [issue.code for issue in store.issues.open()] == ["DELIVERY_PARKED"]
    store.analyses.finish(queue(4), NOTHING, ())
    assert store.issues.open() == []


def test_without_the_wish_for_notes_nothing_is_named_and_nothing_old_is_sent_either(store, clock, queue, sent):
    sent(objects=owed(*ALL))
    second = queue(2)
    store.analyses.finish(second, FINDING, owed(SR, SEG))
    build(store, second)
    store.analyses.finish(queue(3), NOTHING, ())
    assert rows(store, kind=NOTE) == []
    assert {one.kind for one in store.deliveries.next_owed("PACS", clock.now(), 9)} == {SR}


def test_images_that_were_rejected_take_the_pictures_of_their_result_with_them(store, sent, make_header, receive):
    first = sent()
    rejection = Rejection(title=RejectionTitle.QUALITY, sop_instance_uids=("1.2.3.4.1",))
    store.studies.add_new(receive(make_header(9, series_instance_uid="1.2.9", rejection=rejection)), ())
    (note,) = notes(store, first)
    assert named(note) == uids(store, first, SEG, GSPS, KO, SC)
    assert [row["kind"] for row in rows(store)[-2:]] == ["sr", "rejection_note"]


@pytest.mark.req("R-RESULT-08")
def test_what_stands_under_the_wrong_patient_is_named_there_the_report_too(store, sent, correct):
    first = sent()
    before = uids(store, first, *ALL)
    correct(patient_id="P2")
    (note,) = notes(store, first)
    assert named(note) == before
    assert (note.identity.patient_id, note.identity_revision) == ("P1", 1)
    say_built(store, first, NOTE, sop_instance_uid=note.sop_instance_uid, identity=note.identity)
    (ready,) = store.deliveries.next_owed("PACS", store.db.clock.now(), 9)
    assert ready.kind is NOTE, "it goes although the identity that it stands under holds no longer"
    build(store, first)
    send(store)
    correct(patient_id="P3")
    (second,) = notes(store, first)
    assert second.identity.patient_id == "P2"
    assert not named(second) & before
    assert len(named(second)) == 5


@pytest.mark.req("R-RESULT-08")
def test_report_is_not_named_where_its_successor_stands_beside_it(store, sent, correct):
    first = sent()
    before = uids(store, first, SEG, GSPS, KO, SC)
    correct(accession_number="A9")
    (note,) = notes(store, first)
    assert named(note) == before


@pytest.mark.req("R-RESULT-08")
@pytest.mark.parametrize("is_retried", [False, True])
def test_object_whose_answer_was_lost_is_named_under_its_first_identity(store, clock, queue, correct, is_retried):
    first = queue()
    store.analyses.finish(first, FINDING, owed(SR, SEG, NOTE))
    build(store, first)
    before = uids(store, first, SR, SEG)
    for delivery in store.deliveries.next_owed("PACS", clock.now(), 9):
        store.deliveries.failed(delivery.id, "the association was lost", clock.now())
    if is_retried:
        store.deliveries.retry()
    correct(patient_id="P2")
    (note,) = notes(store, first)
    assert named(note) == before
    (earlier,) = store.deliveries.to_build(first).predecessors[SR]
    assert {earlier.sop_instance_uid} < before
    assert store.deliveries.next_owed("PACS", clock.now(), 9) == []


def test_identity_corrected_while_a_newer_analysis_runs_is_told_at_once(store, queue, sent, correct):
    first = sent()
    second = queue(2)
    correct(patient_id="P2")
    (note,) = notes(store, first)
    assert named(note) == uids(store, first, *ALL)
    store.analyses.finish(second, NOTHING, ())
    assert notes(store, first) == [note]


def test_results_that_only_a_correction_sent_are_named_as_well(store, queue, sent, correct):
    sent()
    second = sent(2, NOTHING, ())
    assert [row["kind"] for row in rows(store, second)] == ["sr"]
    correct(patient_id="P2")
    (note,) = notes(store, second)
    assert named(note) == {rows(store, second)[0]["sop_instance_uid"]}


@pytest.mark.req("R-CUSTODY-02")
def test_pacs_that_gives_up_what_a_note_named_is_not_sent_it_again(store, clock, queue, sent):
    first = sent(objects=owed(SR, SEG, NOTE))
    asked = store.commitments.due("PACS", clock.now(), 9)
    assert len(asked) == 2
    store.commitments.begin("PACS", "1.2.99", [one.delivery_id for one in asked])
    store.analyses.finish(queue(2), NOTHING, ())
    (seg,) = uids(store, first, SEG)
    store.commitments.answered("1.2.99", (), {seg: 0x0112})
    assert next(row for row in rows(store, first) if row["kind"] == SEG)["state"] == "sent"
    clock.advance(2 * 3600)
    due = {one.sop_instance_uid for one in store.commitments.due("PACS", clock.now(), 9)}
    assert due == uids(store, first, SR)


def test_images_do_not_wait_for_what_is_not_sent_any_more(store, clock, queue):
    first = queue()
    store.analyses.finish(first, FINDING, owed(SEG))
    store.analyses.finish(queue(2), NOTHING, ())
    assert [(row["kind"], row["state"]) for row in rows(store, first)] == [("seg", "replaced")]
    with store.db.write() as tx:
        tx.execute("DELETE FROM delivery WHERE kind = 'sr'")
    clock.advance(100 * 3600)
    assert store.retention.studies_due(store.db.clock.now(), ("PACS",)) == [1]
    assert store.retention.results_due(store.db.clock.now(), ("PACS",)) == [1, 2]
    assert store.deliveries.backlog() == []


def test_damaged_identity_of_an_object_is_told_and_not_guessed(store, queue, sent):
    first = sent()
    with store.db.write() as tx:
        tx.execute("UPDATE delivery SET identity = '{}' WHERE kind <> 'sr'")
    store.analyses.finish(queue(2), NOTHING, ())
    with pytest.raises(ValueError, match="study_instance_uid"):
        notes(store, first)


def test_note_says_whose_and_of_which_analysis_it_is(store, clock, queue, sent):
    first = sent()
    clock.advance(60)
    store.analyses.finish(queue(2), NOTHING, ())
    (note,) = notes(store, first)
    assert (note.package, note.package_version, note.result, note.owed_at) == ("head", "1.0.0", FINDING, clock.now())
    assert note.identity.patient_name == "Doe^Jane"
