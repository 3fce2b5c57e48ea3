"""The queue of analyses and what follows from their ends: outcome, alert, deliveries."""

from __future__ import annotations

import json

import pytest
from built_kit import say_built
from hypothesis import given
from hypothesis import strategies as st
from plan_kit import plan_for

from appliance.records import AnalysisResult, DeliveryKind, FindingResult, Identity, Outcome, Reason, Role
from appliance.store.analyses import LeftOut
from appliance.store.ending import OwedResult
from appliance.store.facts import Kind
from appliance.store.settle import Ended, study_outcome
from appliance.store.studies import Change

NOTHING = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)


def finding(category=1, finding_id="bleed"):
    flagged = FindingResult(
        id=finding_id, score=9.0, operating_point="default", threshold=1.0, flagged=True, category=category
    )
    return AnalysisResult(outcome=Outcome.FINDING, findings=(flagged,))


def not_analysed(reason):
    return AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=reason)


@pytest.fixture
def ready(store, make_header, receive):
    """One more READY revision of the study's series; returns (study id, revision id)."""

    def make(n=1):
        stored = store.studies.add_new(receive(make_header(n)), ())
        (series,) = store.revisions.open_series()
        return stored.study_id, store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})

    return make


@pytest.fixture
def queue(store, ready):
    """Route a fresh revision to a package; returns (study id, analysis id)."""

    def make(n=1, package="head", role=Role.LIVE, notify="active", late=False):
        study_id, revision_id = ready(n)
        plan = plan_for(revision_id, package=package, role=role, notify=notify, late=late)
        (analysis_id,) = store.analyses.route(study_id, (revision_id,), (plan,), (), lambda package, result: ())
        return study_id, analysis_id

    return make


def study(store, study_id):
    return store.db.one("SELECT * FROM study WHERE id = ?", (study_id,))


def alerts(store):
    return store.db.all("SELECT * FROM alert ORDER BY id")


ended = st.builds(
    lambda outcome, reason: Ended(outcome=outcome, reason=reason if outcome is Outcome.NOT_ANALYSED else None),
    st.sampled_from([None, Outcome.FINDING, Outcome.NOTHING_FLAGGED, Outcome.NOT_ANALYSED]),
    st.sampled_from(list(Reason)),
)


@pytest.mark.req("R-STORE-12")
@given(st.lists(ended, max_size=6))
def test_study_outcome_never_hides_a_finding_nor_a_study_that_was_not_analysed(rows):
    outcome, reason = study_outcome(rows)
    outcomes = {row.outcome for row in rows}
    if Outcome.FINDING in outcomes:
        assert outcome is Outcome.FINDING
    elif None in outcomes:
        assert outcome is None
    elif Outcome.NOT_ANALYSED in outcomes:
        assert outcome is Outcome.NOT_ANALYSED
        assert list(Reason).index(reason) == min(list(Reason).index(row.reason) for row in rows if row.reason)
    else:
        assert outcome is (Outcome.NOTHING_FLAGGED if rows else Outcome.NOT_APPLICABLE)


def test_finding_makes_outcome_alert_and_delivery_in_one_commit(store, queue):
    study_id, analysis_id = queue()
    store.analyses.start(analysis_id)
    before = store.db.commits
    store.analyses.finish(analysis_id, finding(), (OwedResult(destination="PACS", kind=DeliveryKind.SR),))
    assert store.db.commits == before + 1
    assert study(store, study_id)["outcome"] == Outcome.FINDING
    (alert,) = alerts(store)
    assert (alert["state"], alert["category"], alert["active"], alert["chime"]) == ("raised", 1, 1, 1)
    (delivery,) = store.db.all("SELECT * FROM delivery")
    assert delivery["sop_instance_uid"].startswith("2.25.")
    assert (delivery["state"], delivery["path"]) == ("held", None)


def test_second_finish_changes_nothing(store, queue):
    _, analysis_id = queue()
    store.analyses.finish(analysis_id, finding(), (OwedResult(destination="PACS", kind=DeliveryKind.SR),))
    store.analyses.finish(analysis_id, NOTHING, (OwedResult(destination="PACS", kind=DeliveryKind.SR),))
    assert len(store.db.all("SELECT * FROM delivery")) == 1
    assert len(alerts(store)) == 1


@pytest.mark.req("R-STORE-12")
@pytest.mark.parametrize("role", [Role.SILENT, Role.SHADOW])
def test_silent_analysis_makes_no_outcome_alert_or_delivery(store, queue, role):
    study_id, analysis_id = queue(role=role)
    store.analyses.finish(analysis_id, finding(), (OwedResult(destination="PACS", kind=DeliveryKind.SR),))
    assert study(store, study_id)["outcome"] == Outcome.NOT_APPLICABLE
    assert alerts(store) == []
    assert store.db.all("SELECT * FROM delivery") == []


@pytest.mark.req("R-STORE-12")
def test_study_without_a_package_is_quietly_not_applicable(store, ready):
    study_id, revision_id = ready()
    store.analyses.route(study_id, (revision_id,), (), (LeftOut(series_id=1, n=1, why="no package"),), None)
    assert study(store, study_id)["outcome"] == Outcome.NOT_APPLICABLE
    assert store.revisions.studies_to_route() == []


@pytest.mark.req("R-TRIAGE-06")
def test_late_result_is_shown_without_chime(store, queue):
    _, analysis_id = queue()
    store.analyses.finish(analysis_id, finding(), (), late=True)
    assert [row["chime"] for row in alerts(store)] == [0]


@pytest.mark.req("R-COMPLETE-07")
@pytest.mark.fault("T46")
def test_newer_images_supersede_visibly_and_the_alert_stays_until_the_new_end(store, queue):
    study_id, first = queue(1)
    store.analyses.finish(first, finding(), ())
    _, second = queue(2)
    assert store.db.one("SELECT superseded_by FROM analysis WHERE id = ?", (first,))[0] == second
    assert [row["state"] for row in alerts(store)] == ["raised"]
    store.analyses.finish(second, NOTHING, ())
    assert [(row["state"], row["withdrawn_why"]) for row in alerts(store)] == [("withdrawn", "superseded")]
    assert study(store, study_id)["outcome"] == Outcome.NOTHING_FLAGGED
    assert Kind.ALERT_WITHDRAWN in [fact.kind for fact in store.journal.of_study(study_id)]


def test_same_finding_on_newer_images_is_no_second_alert(store, queue):
    _, first = queue(1)
    store.analyses.finish(first, finding(), ())
    _, second = queue(2)
    store.analyses.finish(second, finding(), ())
    assert [(row["state"], row["analysis_id"]) for row in alerts(store)] == [("raised", second)]


def test_new_finding_is_a_new_alert_that_names_its_predecessor(store, queue):
    _, first = queue(1)
    store.analyses.finish(first, finding(), ())
    _, second = queue(2)
    store.analyses.finish(second, finding(finding_id="fracture"), ())
    old, new = alerts(store)
    assert (old["state"], new["state"], new["predecessor"], new["chime"]) == ("withdrawn", "raised", old["id"], 1)


@pytest.mark.req("R-INTAKE-11")
def test_identity_correction_reissues_the_open_alert_without_inference(store, queue, make_header, receive):
    study_id, analysis_id = queue()
    store.analyses.finish(analysis_id, finding(), ())
    corrected = make_header(1, patient_id="P2", patient_name="Roe^Ann")
    store.studies.add_version(receive(corrected), store.studies.versions("1.2.3.4.1"), Change.IDENTITY, ())
    old, new = alerts(store)
    assert (old["state"], old["withdrawn_why"]) == ("withdrawn", "identity_corrected")
    assert (new["state"], new["identity_revision"], new["analysis_id"]) == ("raised", 2, analysis_id)
    assert Identity(**json.loads(study(store, study_id)["identity"])).patient_id == "P2"
    assert len(store.db.all("SELECT * FROM analysis")) == 1
    assert store.revisions.open_series() == []


SR = OwedResult(destination="PACS", kind=DeliveryKind.SR)
OTHER_SR = OwedResult(destination="HIS", kind=DeliveryKind.SR)


def results(store):
    return store.db.all("SELECT * FROM delivery WHERE kind <> 'original' ORDER BY id")


@pytest.fixture
def build(store):
    """``build(analysis_id, identity_revision)``: its SR is on disk, as the builder says that it built it."""

    def make(analysis_id, identity_revision=1):
        say_built(store, analysis_id, identity_revision=identity_revision)

    return make


@pytest.fixture
def correct(store, make_header, receive):
    """The same pixels come again under another patient."""

    def make(patient_id):
        header = make_header(1, patient_id=patient_id)
        store.studies.add_version(receive(header), store.studies.versions("1.2.3.4.1"), Change.IDENTITY, ())

    return make


@pytest.mark.req("R-RESULT-08")
def test_a_result_that_was_sent_is_sent_again_under_the_corrected_identity_and_names_the_first(
    store, queue, build, correct
):
    _, analysis_id = queue()
    store.analyses.finish(analysis_id, finding(), (SR, OTHER_SR))
    build(analysis_id)
    sent, waiting = results(store)
    store.deliveries.sent(sent["id"], 0)
    correct("P2")
    old, stopped, first, second = results(store)
    assert (old["state"], old["sop_instance_uid"]) == ("sent", sent["sop_instance_uid"]), "what was sent stays told"
    assert (stopped["id"], stopped["state"]) == (waiting["id"], "replaced"), "it is not sent under the wrong name"
    assert (first["destination"], second["destination"]) == ("PACS", "HIS")
    assert first["sop_instance_uid"] == second["sop_instance_uid"] != old["sop_instance_uid"]
    assert {row["state"] for row in (first, second)} == {"held"}
    owed = store.deliveries.to_build(analysis_id)
    assert owed.identity.patient_id == "P2"
    (before,) = owed.predecessors[DeliveryKind.SR]
    assert before.sop_instance_uid == old["sop_instance_uid"]
    assert before.study_instance_uid == owed.identity.study_instance_uid
    (fact,) = store.journal.after(0, kinds=(Kind.RESULT_REISSUED,))
    assert fact.body == {"analysis": analysis_id, "object": "sr", "deliveries": 2, "identity_revision": 2}


@pytest.mark.req("R-RESULT-08")
def test_a_result_that_nobody_has_is_built_again_under_its_own_uid(store, queue, build, correct):
    _, analysis_id = queue()
    store.analyses.finish(analysis_id, finding(), (SR,))
    (before,) = results(store)
    correct("P2")
    (after,) = results(store)
    assert (after["id"], after["state"], after["path"]) == (before["id"], "held", None)
    assert after["sop_instance_uid"] == before["sop_instance_uid"]
    assert store.deliveries.to_build(analysis_id).predecessors[DeliveryKind.SR] == ()


@pytest.mark.req("R-RESULT-08")
@pytest.mark.parametrize("history", ["on its way", "a try without an answer", "that try, and a retry by a person"])
def test_what_a_pacs_may_have_is_corrected_under_another_uid(store, clock, queue, build, correct, history):
    _, analysis_id = queue()
    store.analyses.finish(analysis_id, finding(), (SR,))
    build(analysis_id)
    (before,) = results(store)
    if "try" in history:
        store.deliveries.failed(before["id"], "the association was lost", clock.now())
    if "person" in history:
        store.deliveries.retry()
    correct("P2")
    stopped, after = results(store)
    assert (stopped["id"], stopped["state"]) == (before["id"], "replaced")
    assert (after["state"], after["path"]) == ("held", None)
    assert after["sop_instance_uid"] != before["sop_instance_uid"], "the PACS may have the first one under that UID"
    (named,) = store.deliveries.to_build(analysis_id).predecessors[DeliveryKind.SR]
    assert named.sop_instance_uid == before["sop_instance_uid"], "so what takes its place names it"
    assert store.deliveries.next_owed("PACS", clock.now(), 9) == []
    assert [(one.owed, one.held, one.last_error) for one in store.deliveries.backlog()] == [(0, 1, "")]


@pytest.mark.req("R-RESULT-08")
@pytest.mark.parametrize("is_built", [False, True])
def test_what_waits_of_a_superseded_analysis_does_not_go_under_the_wrong_name(store, queue, build, correct, is_built):
    _, first = queue()
    store.analyses.finish(first, finding(), (SR,))
    if is_built:
        build(first)
    queue(2)
    correct("P2")
    *stopped, waiting = results(store)
    assert [row["state"] for row in stopped] == ["replaced"] * is_built
    assert (waiting["state"], waiting["path"], waiting["identity_revision"]) == ("held", None, 2)
    assert store.deliveries.to_build(first).identity.patient_id == "P2"
    build(first, identity_revision=2)
    assert store.deliveries.analyses_to_build() == [], "it is not built for ever"


@pytest.mark.req("R-RESULT-08")
def test_what_was_sent_of_a_superseded_analysis_is_not_told_anew(store, queue, build, correct):
    _, first = queue()
    store.analyses.finish(first, finding(), (SR,))
    build(first)
    store.deliveries.sent(results(store)[0]["id"], 0)
    queue(2)
    correct("P2")
    assert [row["state"] for row in results(store)] == ["sent"]


@pytest.mark.req("R-RESULT-08")
def test_an_object_that_was_built_while_the_identity_changed_is_not_sent(store, queue, build, correct):
    _, analysis_id = queue()
    store.analyses.finish(analysis_id, finding(), (SR,))
    assert store.deliveries.to_build(analysis_id).identity_revision == 1
    correct("P2")
    build(analysis_id, identity_revision=1)
    assert [row["state"] for row in results(store)] == ["held"]
    build(analysis_id, identity_revision=2)
    assert [row["state"] for row in results(store)] == ["owed"]


@pytest.mark.req("R-RESULT-08")
def test_each_correction_names_all_that_was_said_before(store, queue, build, correct):
    _, analysis_id = queue()
    store.analyses.finish(analysis_id, finding(), (SR,))
    for revision in (1, 2):
        build(analysis_id, revision)
        store.deliveries.sent(results(store)[-1]["id"], 0)
        correct(f"P{revision + 1}")
    first, second, third = (row["sop_instance_uid"] for row in results(store))
    named = store.deliveries.to_build(analysis_id).predecessors[DeliveryKind.SR]
    assert [one.sop_instance_uid for one in named] == [second, first]
    assert third not in {first, second}


@pytest.mark.req("R-RESULT-09")
def test_who_was_told_of_a_finding_is_told_that_newer_images_do_not_show_it(store, queue):
    _, first = queue()
    store.analyses.finish(first, finding(), (SR,))
    _, second = queue(2)
    store.analyses.finish(second, NOTHING, ())
    told = results(store)[-1]
    assert (told["analysis_id"], told["destination"], told["kind"]) == (second, "PACS", "sr")


@pytest.mark.req("R-RESULT-09")
def test_who_was_shown_a_finding_without_a_report_gets_one_when_newer_images_do_not_show_it(store, queue):
    _, first = queue()
    ko = OwedResult(destination="PACS", kind=DeliveryKind.KO)
    store.analyses.finish(first, finding(), (ko, OwedResult(destination="PACS", kind=DeliveryKind.SC)))
    _, second = queue(2)
    store.analyses.finish(second, finding(), (ko,))
    assert [row["kind"] for row in results(store)] == ["ko", "sc", "ko"], "who is told again needs no other object"
    _, third = queue(3)
    store.analyses.finish(third, NOTHING, ())
    told = results(store)[3:]
    assert [(row["analysis_id"], row["destination"], row["kind"]) for row in told] == [(third, "PACS", "sr")]


def test_who_was_told_nothing_before_is_told_nothing_now(store, queue):
    _, first = queue()
    store.analyses.finish(first, NOTHING, ())
    _, second = queue(2)
    store.analyses.finish(second, NOTHING, ())
    assert results(store) == []


def test_superseded_analysis_that_ends_afterwards_tells_nobody(store, queue):
    _, first = queue(1)
    store.analyses.start(first)
    _, second = queue(2)
    store.analyses.finish(first, finding(), (OwedResult(destination="PACS", kind=DeliveryKind.SR),))
    assert alerts(store) == []
    assert store.db.all("SELECT * FROM delivery") == []
    store.analyses.finish(second, NOTHING, ())


@pytest.mark.req("R-STORE-09")
def test_recovery_puts_running_work_back_and_may_run_twice(store, queue):
    _, analysis_id = queue()
    store.analyses.start(analysis_id)
    assert store.analyses.recover() == 1
    assert store.analyses.recover() == 0
    (queued,) = store.analyses.open()
    assert (queued.id, queued.attempt) == (analysis_id, 1)


@pytest.mark.req("R-TRIAGE-06")
def test_backlog_of_an_outage_runs_late_and_ends_in_one_summary_line(store, queue):
    study_id, analysis_id = queue()
    store.analyses.finish(analysis_id, not_analysed(Reason.AI_UNAVAILABLE), ())
    assert study(store, study_id)["reason"] == Reason.AI_UNAVAILABLE
    since = store.db.one("SELECT max(at) FROM journal")[0]
    assert store.analyses.requeue_unanalysed() == 1
    (queued,) = store.analyses.open()
    assert queued.late
    store.analyses.finish(queued.id, finding(), ())
    assert [row["chime"] for row in alerts(store)] == [0]
    store.analyses.backlog_done(since)
    (line,) = [fact for fact in store.journal.after(0) if fact.kind is Kind.BACKLOG_DONE]
    assert (line.body["studies"], line.body["findings"]) == (1, 1)


def test_reprocess_routes_the_newest_revision_again(store, queue):
    study_id, analysis_id = queue()
    store.analyses.finish(analysis_id, NOTHING, ())
    assert store.revisions.studies_to_route() == []
    store.analyses.reprocess(study_id)
    assert store.revisions.studies_to_route() == [study_id]


def test_worker_death_is_counted_for_its_study(store, queue):
    _, analysis_id = queue()
    for expected in (1, 2):
        store.analyses.start(analysis_id)
        assert store.analyses.return_to_queue(analysis_id, "signal 11", worker_died=True) == expected
