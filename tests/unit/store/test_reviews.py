"""What radiologists sign: versions that nobody overwrites, what goes where, the alert, the queue, the sample."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import pytest
from built_kit import say_built
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from plan_kit import plan_for

from appliance.clock import FakeClock
from appliance.records import (
    SELF_TEST_SOURCE,
    Actor,
    ActorKind,
    AlertState,
    AnalysisResult,
    DeliveryKind,
    FindingResult,
    Outcome,
    Presence,
    Region,
    ReviewDecision,
    ReviewReason,
    Side,
)
from appliance.store import Store, samples
from appliance.store.ending import OwedResult
from appliance.store.facts import Kind
from appliance.store.jsonable import dump
from appliance.store.review_rules import Answer, Draft, Judged, ReviewRefusedError, judge
from appliance.store.reviews import ELSEWHERE, Reading, ReviewConflictError
from appliance.store.sending import Act, Sending
from appliance.store.studies import Change

SR, SEG, NOTE = DeliveryKind.SR, DeliveryKind.SEG, DeliveryKind.REJECTION_NOTE
FLAGGED = FindingResult(id="bleed", score=9.0, operating_point="d", threshold=1.0, flagged=True, category=1)
QUIET = replace(FLAGGED, id="mass", score=0.2, flagged=False)
FINDING = AnalysisResult(outcome=Outcome.FINDING, findings=(FLAGGED, QUIET))
NOTHING = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, findings=(replace(FLAGGED, flagged=False, score=0.1), QUIET))
LI = Actor(kind=ActorKind.PERSON, name="Li Wei", role="radiologist")
ZHAO = replace(LI, name="Zhao Lei")
AGREE = Draft(decision=ReviewDecision.AGREE)
REJECT = Draft(decision=ReviewDecision.DISAGREE, reason=ReviewReason.ARTEFACT, note="Beam hardening of Mr Wang")
UNSURE = Draft(decision=ReviewDecision.CANNOT_JUDGE)
PACS = tuple(OwedResult(destination="PACS", kind=kind) for kind in (SR, SEG, NOTE))


@pytest.fixture
def ended(store, make_header, receive):
    """``ended(result)``: a study whose one live analysis has ended; returns study and analysis."""

    def make(result=FINDING, owed=PACS, n=1, **plan):
        stored = store.studies.add_new(receive(make_header(n)), ())
        (series,) = store.revisions.open_series()
        revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
        plans = (plan_for(revision_id, **plan),)
        (analysis,) = store.analyses.route(stored.study_id, (revision_id,), plans, (), lambda *_: ())
        store.analyses.finish(analysis, result, owed)
        return stored.study_id, analysis

    return make


@pytest.fixture
def sign(store, clock):
    """``sign(study, draft)`` as the case stands, by Li Wei, who has looked at every series."""

    def make(study, draft=AGREE, actor=LI, etag=None, **more):
        clock.advance(60)
        case = store.reviews.case(study)
        reading = Reading(seen={str(series): 3 for series in case.series})
        given = {"reading": reading, "organization": "Radiology"} | more
        return store.reviews.sign(study, draft, etag or case.etag, actor, given.pop("reading"), **given)

    return make


def send(store, analysis, *kinds):
    """Build and send what an analysis owes."""
    for kind in kinds:
        say_built(store, analysis, kind)
    for row in store.db.all("SELECT id FROM delivery WHERE state = 'owed'"):
        store.deliveries.sent(row["id"], 0)


def rows(store, kind):
    return store.db.all("SELECT * FROM delivery WHERE kind = ? ORDER BY id", (str(kind),))


# -- what is signed --------------------------------------------------------------------------------------------------


@pytest.mark.req("R-REVIEW-01")
def test_a_signature_is_a_row_a_fact_and_the_end_of_the_alert(store, ended, sign):
    study, analysis = ended()
    review = sign(study)
    assert (review.version, review.reviewer, review.organization) == (1, "Li Wei", "Radiology")
    (said,) = review.findings
    assert (said.analysis_id, said.finding, said.presence, said.is_right) == (analysis, "bleed", Presence.PRESENT, True)
    alert = store.views.some([study])[study].alert
    assert (alert.state, store.db.one("SELECT decided_by FROM alert")[0]) == (AlertState.DECIDED, "Li Wei")
    (fact,) = store.journal.after(0, 99, (Kind.REVIEW_SIGNED,))
    assert fact.actor["name"] == "Li Wei"
    assert fact.body["seen"] == {"1": 3}
    assert fact.body["objects"] == 1  # the report; the segmentation stands


@pytest.mark.req("R-REVIEW-04")
def test_every_version_stays_and_names_the_one_before(store, ended, sign):
    study, _ = ended()
    first = sign(study)
    second = sign(study, REJECT, actor=ZHAO)
    third = sign(study)
    assert store.reviews.of_study(study) == (first, second, third)
    assert [row["predecessor"] for row in store.db.all("SELECT predecessor FROM review ORDER BY id")] == [None, 1, 2]
    assert second.reason is ReviewReason.ARTEFACT


@pytest.mark.req("R-REVIEW-04")
def test_who_comes_second_is_told_who_signed_and_nothing_is_written(store, ended, sign):
    study, _ = ended()
    etag = store.reviews.case(study).etag
    sign(study, actor=ZHAO)
    with pytest.raises(ReviewConflictError) as caught:
        sign(study, REJECT, etag=etag)
    assert caught.value.standing.reviewer == "Zhao Lei"
    assert caught.value.etag == store.reviews.case(study).etag
    assert [one.reviewer for one in store.reviews.of_study(study)] == ["Zhao Lei"]


def test_another_patient_since_the_page_was_opened_is_a_conflict(store, ended, sign, make_header, receive):
    study, _ = ended()
    etag = store.reviews.case(study).etag
    known = store.studies.versions("1.2.3.4.1")
    store.studies.add_version(receive(make_header(1, patient_name="Roe^Jane")), known, Change.IDENTITY, ())
    with pytest.raises(ReviewConflictError):
        sign(study, etag=etag)


def test_other_images_since_the_page_was_opened_are_a_conflict(store, ended, sign):
    study, _ = ended()
    etag = store.reviews.case(study).etag
    ended(FINDING, n=2)
    with pytest.raises(ReviewConflictError):
        sign(study, etag=etag)


def test_nobody_signs_without_having_seen_an_image_unless_they_were_read_elsewhere(ended, sign):
    study, _ = ended()
    with pytest.raises(ReviewRefusedError, match="look at them first"):
        sign(study, reading=Reading())
    assert sign(study, reading=Reading(seen={ELSEWHERE: 1})).version == 1


@pytest.mark.parametrize("who", [Actor(), replace(LI, role="technologist"), replace(LI, name=" ")])
def test_only_a_named_radiologist_signs(ended, sign, who):
    study, _ = ended()
    with pytest.raises(ReviewRefusedError):
        sign(study, actor=who)


def test_a_persons_own_words_never_stand_in_the_journal(store, ended, sign):
    study, _ = ended()
    sign(study, REJECT)
    assert not store.db.all("SELECT 1 FROM journal WHERE body LIKE '%Wang%' OR subject LIKE '%Wang%'")
    assert store.reviews.of_study(study)[0].note == REJECT.note


# -- what the answers mean -------------------------------------------------------------------------------------------

BASIS = (Judged(analysis_id=7, package="head", package_version="1", intended_use="detection", result=FINDING),)
SILENT = (replace(BASIS[0], result=NOTHING),)
BOX = Region(sop_instance_uid="1.2", kind="box", points=((1.0, 2.0), (3.0, 4.0)))


def amend(*answers):
    return Draft(decision=ReviewDecision.AMEND, answers=answers)


@pytest.mark.req("R-REVIEW-02")
def test_absent_comes_only_of_a_person_who_rejects_or_who_agrees_that_nothing_is_there():
    assert {one.presence for one in judge(SILENT, AGREE)} == {Presence.ABSENT}
    assert [one.finding for one in judge(SILENT, AGREE)] == ["bleed", "mass"]
    assert [one.presence for one in judge(BASIS, AGREE)] == [Presence.PRESENT]
    assert [one.presence for one in judge(BASIS, UNSURE)] == [Presence.UNDETERMINED]
    reasons = {reason: judge(BASIS, replace(REJECT, reason=reason))[0].presence for reason in ReviewReason}
    assert reasons == {
        ReviewReason.ARTEFACT: Presence.ABSENT,
        ReviewReason.ANATOMY: Presence.ABSENT,
        ReviewReason.OTHER: Presence.ABSENT,
        ReviewReason.OLD_FINDING: Presence.PRESENT,
        ReviewReason.WRONG_SUBJECT: Presence.UNDETERMINED,
    }
    assert {judge(BASIS, replace(REJECT, reason=reason))[0].is_right for reason in ReviewReason} == {False}


def test_another_code_refutes_what_was_flagged_and_adds_what_is_there():
    old, new = judge(BASIS, amend(Answer(analysis_id=7, finding="bleed", code="nodule", side=Side.LEFT)))
    assert (old.finding, old.presence, old.is_right) == ("bleed", Presence.ABSENT, False)
    assert (new.code, new.presence, new.added, new.side) == ("nodule", Presence.PRESENT, True, Side.LEFT)


def test_a_missed_finding_of_the_package_counts_as_missed_and_one_of_the_codes_does_not():
    _, missed, other = judge(
        BASIS,
        amend(
            Answer(analysis_id=7, finding="mass", added=True, region=BOX),
            Answer(analysis_id=7, code="pneumothorax", added=True),
        ),
    )
    assert (missed.finding, missed.flagged, missed.is_right, missed.region) == ("mass", False, False, BOX)
    assert (other.code, other.is_right) == ("pneumothorax", None)


@pytest.mark.parametrize(
    ("basis", "draft", "why"),
    [
        (BASIS, replace(REJECT, reason=None), "reason"),
        (BASIS, replace(AGREE, reason=ReviewReason.OTHER), "reason"),
        (BASIS, replace(AGREE, note="x" * 501), "500"),
        (BASIS, amend(), "nothing is amended"),
        (BASIS, amend(Answer(analysis_id=8, finding="bleed")), "does not count"),
        (BASIS, amend(Answer(analysis_id=7, finding="mass", side=Side.LEFT)), "not flagged"),
        (BASIS, amend(Answer(analysis_id=7, finding="bleed", added=True)), "cannot be added"),
        (BASIS, amend(Answer(analysis_id=7, finding="fracture", added=True)), "no finding"),
        (BASIS, amend(Answer(analysis_id=7, added=True)), "what it is"),
        (BASIS, amend(*[Answer(analysis_id=7, finding="mass", added=True)] * 2), "twice"),
        (BASIS, amend(Answer(analysis_id=7, finding="bleed", category=4)), "category"),
        (BASIS, amend(Answer(analysis_id=7, finding="bleed", presence=Presence.ABSENT, side=Side.LEFT)), "belong"),
        (BASIS, replace(AGREE, answers=(Answer(analysis_id=7, finding="bleed"),)), "only 'amend'"),
        (SILENT, REJECT, "nothing was flagged"),
        ((), AGREE, "no analysis"),
    ],
)
def test_what_does_not_make_a_review_is_refused_with_its_reason(basis, draft, why):
    with pytest.raises(ReviewRefusedError, match=why):
        judge(basis, draft)


# -- what goes where -------------------------------------------------------------------------------------------------


@pytest.mark.req("R-REVIEW-03")
def test_what_will_be_sent_is_what_is_owed_when_it_is_signed(store, ended, sign):
    study, analysis = ended()
    send(store, analysis, SR, SEG)
    said, lines = store.reviews.will_send(study, REJECT)
    assert said[0].presence is Presence.ABSENT
    assert lines == [
        Sending(destination="PACS", kind=SR, act=Act.REVISE),
        Sending(destination="PACS", kind=SEG, act=Act.WITHDRAW),
    ]
    sign(study, REJECT)
    old, new = rows(store, SR)
    assert (old["state"], new["state"]) == ("sent", "held")
    assert new["sop_instance_uid"] != old["sop_instance_uid"]
    built = store.deliveries.to_build(analysis)
    assert [one.sop_instance_uid for one in built.predecessors[SR]] == [old["sop_instance_uid"]]
    assert built.review.findings[0].presence is Presence.ABSENT
    (note,) = store.deliveries.notes_to_build(analysis)
    assert [one.kind for one in note.named] == [SEG]


def test_who_comes_back_to_the_finding_has_its_places_sent_again(store, ended, sign):
    study, analysis = ended()
    send(store, analysis, SR, SEG)
    sign(study, REJECT)
    send(store, analysis, SR, NOTE)
    assert Sending(destination="PACS", kind=SEG, act=Act.RESTORE) in store.reviews.will_send(study, AGREE)[1]
    sign(study, AGREE)
    first, again = rows(store, SEG)
    assert (first["state"], again["state"], again["rejected_by"]) == ("sent", "held", 0)
    assert first["sop_instance_uid"] != again["sop_instance_uid"]
    assert [row["state"] for row in rows(store, SR)] == ["sent", "sent", "held"]


def test_a_place_that_a_person_refuted_does_not_come_back_under_a_corrected_identity(
    store, ended, sign, make_header, receive
):
    study, analysis = ended()
    send(store, analysis, SR, SEG)
    sign(study, REJECT)
    send(store, analysis, SR, NOTE)
    known = store.studies.versions("1.2.3.4.1")
    store.studies.add_version(receive(make_header(1, patient_id="P2")), known, Change.IDENTITY, ())
    assert [row["state"] for row in rows(store, SR)] == ["sent", "sent", "held"]
    assert [row["state"] for row in rows(store, SEG)] == ["sent"]


def test_a_report_that_is_being_built_while_a_review_is_signed_is_not_sent(store, ended, sign):
    study, analysis = ended()
    before = rows(store, SR)[0]["sop_instance_uid"]
    sign(study)
    say_built(store, analysis, SR, sop_instance_uid=before)
    (row,) = rows(store, SR)
    assert (row["state"], row["path"]) == ("held", None)


def test_a_destination_without_notes_keeps_the_place_and_the_person_is_told(store, ended):
    study, analysis = ended(owed=PACS[:2])
    send(store, analysis, SR, SEG)
    assert Sending(destination="PACS", kind=SEG, act=Act.STAYS) in store.reviews.will_send(study, REJECT)[1]


def test_where_nobody_was_told_anything_nothing_is_sent(store, ended, sign):
    study, _ = ended(NOTHING, owed=())
    assert store.reviews.will_send(study, AGREE)[1] == []
    assert sign(study).version == 1
    assert store.db.all("SELECT 1 FROM delivery") == []


def test_a_review_leaves_an_alert_alone_that_rests_on_what_it_did_not_judge(store, ended, sign):
    study, analysis = ended()
    with store.db.write() as tx:
        other = dict(tx.one("SELECT * FROM analysis WHERE id = ?", (analysis,))) | {"id": 99, "package": "other"}
        tx.insert("analysis", **other)
        # Newer images are being analysed by the package that raised the alert.
        tx.execute("UPDATE analysis SET superseded_by = 99 WHERE id = ?", (analysis,))
    sign(study, REJECT)
    assert store.views.some([study])[study].alert.state is AlertState.RAISED
    assert store.journal.after(0, 99, (Kind.ALERT_DECIDED,)) == []


def test_a_test_accounts_review_decides_no_alert_owes_no_report_and_ends_no_waiting(store, ended, sign):
    study, analysis = ended()
    send(store, analysis, SR, SEG)
    store.reviews.ask(study, replace(LI, name="Theo", role="technologist"))
    before = [dict(row) for row in store.db.all("SELECT * FROM delivery ORDER BY id")]
    assert store.reviews.will_send(study, REJECT, counts=False)[1] == []
    sign(study, REJECT, counts=False)
    assert store.views.some([study])[study].alert.state is AlertState.RAISED
    assert [dict(row) for row in store.db.all("SELECT * FROM delivery ORDER BY id")] == before
    assert [one.why for one in store.reviews.queue()] == ["flagged"]
    assert store.db.one("SELECT done_at FROM review_request")["done_at"] is None
    assert store.deliveries.to_build(analysis) is None or store.deliveries.to_build(analysis).review is None
    assert sign(study).version == 2
    assert store.views.some([study])[study].alert.state is AlertState.DECIDED


def test_the_boxs_own_test_study_waits_for_no_reader_and_is_never_drawn(store, ended, monkeypatch):
    monkeypatch.setattr(samples, "is_chosen", lambda *_: True)
    study, _ = ended()
    store.reviews.ask(study, LI)
    assert store.reviews.queue()
    with store.db.write() as tx:
        tx.execute("UPDATE study SET source = ?", (SELF_TEST_SOURCE,))
        tx.execute("UPDATE analysis SET outcome = 'NOTHING_FLAGGED'")
        samples.note_ended_study(tx, study, Outcome.NOTHING_FLAGGED)
        assert tx.all("SELECT 1 FROM review_sample") == []
    assert store.reviews.queue() == []


# -- the queue and the sample ----------------------------------------------------------------------------------------


@pytest.mark.req("R-REVIEW-05")
def test_a_flagged_study_waits_until_it_is_reviewed(store, ended, sign):
    study, _ = ended()
    assert [(one.study_id, one.why, one.category) for one in store.reviews.queue()] == [(study, "flagged", 1)]
    sign(study)
    assert store.reviews.queue() == []


def test_who_cannot_judge_leaves_the_alert_undecided_and_the_queue_free(store, ended, sign):
    study, _ = ended()
    sign(study, UNSURE)
    assert store.views.some([study])[study].alert.state is AlertState.RAISED
    assert store.reviews.queue() == []


def test_what_somebody_asked_for_waits_with_their_name_once(store, ended, sign):
    study, _ = ended(NOTHING)
    theo = replace(LI, name="Theo", role="technologist")
    store.reviews.ask(study, theo)
    store.reviews.ask(study, theo)
    assert [(one.why, one.asked_by) for one in store.reviews.queue()] == [("asked", "Theo")]
    assert len(store.journal.after(0, 99, (Kind.REVIEW_ASKED,))) == 1
    sign(study)
    assert store.reviews.queue() == []


def test_a_late_image_calls_for_another_review_and_the_old_one_is_no_longer_told(store, ended, sign):
    study, analysis = ended()
    sign(study)
    _, later = ended(FINDING, n=2)
    assert [(one.study_id, one.why) for one in store.reviews.queue()] == [(study, "changed")]
    assert store.deliveries.to_build(later).review is None
    assert sign(study).version == 2
    assert store.reviews.queue() == []
    assert analysis != later


@pytest.mark.req("R-REVIEW-05")
def test_the_sample_is_the_same_whenever_it_is_drawn_and_about_a_fiftieth():
    chosen = [n for n in range(20_000) if samples.is_chosen("STREAM", n)]
    assert chosen == [n for n in range(20_000) if samples.is_chosen("STREAM", n)]
    assert 340 < len(chosen) < 460
    assert chosen != [n for n in range(20_000) if samples.is_chosen("OTHER", n)]


@pytest.mark.req("R-REVIEW-05")
def test_the_draw_is_by_study_and_nobody_can_foresee_or_repeat_it(store, ended, monkeypatch, tmp_path, clock):
    drawn = []
    monkeypatch.setattr(samples, "is_chosen", lambda seed, study: bool(drawn.append((seed, study))))
    study, _ = ended(NOTHING)
    ended(NOTHING, n=2)  # the same study again, with another analysis
    assert [one for _, one in drawn] == [study, study]
    (seed,) = {one for one, _ in drawn}
    # What screens, pages, journal and fleet are told does not hold it, and another box draws others.
    assert seed != store.db.stream
    assert not store.db.all("SELECT 1 FROM journal WHERE instr(body, ?)", (seed,))
    with closing(Store.open(tmp_path / "other", clock, reserve_bytes=0)) as other, other.db.write() as tx:
        assert samples._seed(tx) not in {seed, other.db.stream}
        assert samples._seed(tx) == samples._seed(tx)


@pytest.mark.req("R-REVIEW-05")
def test_a_study_of_the_sample_waits_after_the_flagged_ones_and_is_journalled(store, ended, monkeypatch):
    monkeypatch.setattr(samples, "SHARE", 1.0)
    monkeypatch.setattr(samples, "is_chosen", lambda *_: True)
    study, _ = ended(NOTHING)
    assert [(one.study_id, one.why) for one in store.reviews.queue()] == [(study, "sampled")]
    assert store.reviews.case(study).is_sampled
    assert len(store.journal.after(0, 99, (Kind.REVIEW_SAMPLED,))) == 1


def test_chance_chooses_nothing_that_was_flagged_or_that_nobody_looked_for(store, ended, monkeypatch):
    monkeypatch.setattr(samples, "is_chosen", lambda *_: True)
    ended(FINDING)
    assert store.db.all("SELECT 1 FROM review_sample") == []


def test_a_quality_package_that_saw_nothing_is_no_reason_to_draw(store, ended, monkeypatch):
    monkeypatch.setattr(samples, "is_chosen", lambda *_: True)
    ended(NOTHING, intended_use="quality")
    assert store.db.all("SELECT 1 FROM review_sample") == []


def test_the_queue_reads_no_whole_table(store, ended):
    ended()
    plans = store.db.all(
        "EXPLAIN QUERY PLAN SELECT study_id FROM alert WHERE decided_at IS NULL AND state <> 'withdrawn'"
        " AND raised_at >= ?",
        ("2026",),
    )
    assert all("INDEX" in row["detail"] for row in plans)


# -- whoever signs when, nothing is lost -----------------------------------------------------------------------------


class Readers(RuleBasedStateMachine):
    """Several people open, look again and sign one study in any order; images may change meanwhile."""

    def __init__(self):
        super().__init__()
        self.pages = {}
        self.signed = []

    @initialize()
    def begin(self):
        self.clock = FakeClock()
        self.store = Store.open(self.folder(), self.clock, reserve_bytes=0)
        with self.store.db.write() as tx:
            self.study = tx.insert(
                "study",
                study_instance_uid="1.2",
                source="CT-1",
                patient_key="[]",
                identity=json.dumps({"study_instance_uid": "1.2"}),
                first_at=tx.at,
                last_at=tx.at,
            )
            self.analysis(tx)

    def analysis(self, tx):
        new = tx.insert(
            "analysis",
            study_id=self.study,
            package="head",
            package_version="1",
            role="live",
            state="done",
            category=1,
            notify="active",
            intended_use="detection",
            ready_at=tx.at,
            ready_mono=0.0,
            boot="b",
            deadline_s=1.0,
            done_at=tx.at,
            outcome="FINDING",
            result=dump(FINDING),
        )
        tx.execute("UPDATE analysis SET superseded_by = ? WHERE id < ? AND superseded_by IS NULL", (new, new))

    @rule(who=st.sampled_from("abc"))
    def open_page(self, who):
        self.pages[who] = self.store.reviews.case(self.study).etag

    @rule(who=st.sampled_from("abc"), draft=st.sampled_from([AGREE, REJECT, UNSURE]))
    def sign(self, who, draft):
        etag = self.pages.get(who, "")
        fresh = etag == self.store.reviews.case(self.study).etag
        reading = Reading(seen={ELSEWHERE: 1})
        call = (self.study, draft, etag, replace(LI, name=who), reading)
        if fresh:
            review = self.store.reviews.sign(*call, organization="R")
            assert (review.reviewer, review.decision) == (who, draft.decision)
            self.signed.append(review)
        else:
            with pytest.raises(ReviewConflictError) as caught:
                self.store.reviews.sign(*call, organization="R")
            assert caught.value.standing == (self.signed[-1] if self.signed else None)

    @rule()
    def images_change(self):
        with self.store.db.write() as tx:
            self.analysis(tx)

    @invariant()
    def every_signature_is_there_as_it_was_given(self):
        if hasattr(self, "store"):
            assert list(self.store.reviews.of_study(self.study)) == self.signed
            assert [one.version for one in self.signed] == list(range(1, len(self.signed) + 1))
            rows = self.store.db.all("SELECT id, predecessor FROM review ORDER BY version")
            assert [row["predecessor"] for row in rows] == [None, *(row["id"] for row in rows[:-1])][: len(rows)]
            assert len(self.store.journal.after(0, 999, (Kind.REVIEW_SIGNED,))) == len(self.signed)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()


@pytest.mark.req("R-REVIEW-04")
def test_in_whatever_order_people_sign_no_signature_is_lost_and_no_stale_page_signs(tmp_path_factory):
    Readers.folder = lambda _: tmp_path_factory.mktemp("readers")
    run_state_machine_as_test(
        Readers,
        settings=settings(
            max_examples=12,
            stateful_step_count=14,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
