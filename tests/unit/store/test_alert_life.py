"""After an alert is raised: acknowledged, communicated, decided; what is taken when nobody comes; and trials."""

from __future__ import annotations

from datetime import timedelta

import pytest

from appliance.errors import ConflictError, NotFoundError
from appliance.records import SELF_TEST_SOURCE, Actor, ActorKind, AlertState, AlertStep, CommunicationMethod
from appliance.store import Store
from appliance.store.alerts import decide_alert
from appliance.store.escalations import SINK_FAILING, flagged_before
from appliance.store.facts import Kind
from appliance.store.rebuild import Reader, rebuild
from appliance.store.settle import withdraw_alert

LI = Actor(kind=ActorKind.PERSON, name="Li Wei", role="technologist")
CHEN = Actor(kind=ActorKind.PERSON, name="Dr Chen", role="radiologist")
TITLES = ({"en": "Suspected bleed", "zh_Hans": "疑似出血"},)


@pytest.fixture
def rows(store):
    return lambda *kinds: store.journal.after(0, 1000, kinds)


@pytest.fixture
def tell(store):
    """``tell(alert, ...)``: Dr Chen was told by phone and read it back."""

    def record(alert, actor=LI, **more):
        given = {"method": CommunicationMethod.PHONE, "read_back": True, "titles": TITLES, "evaluation": False}
        return store.communications.record(alert, actor, **({"received_by": "Dr Chen"} | given | more))

    return record


@pytest.mark.req("R-ALERT-01")
def test_an_alert_goes_from_raised_to_decided_and_each_step_stands_in_the_journal(store, write, scenes, tell, rows):
    alert = write(scenes.urgent)
    seen = [store.views.alert(alert).state]

    def step(act, *arguments):
        act(*arguments)
        seen.append(store.views.alert(alert).state)

    step(store.alerts.presented, alert, "ct-1")
    step(store.alerts.acknowledge, alert, LI)
    step(tell, alert)
    study = store.views.alert(alert).study_id
    step(lambda: write(decide_alert, study, "agree", CHEN, [store.views.alert(alert).analysis_id]))
    assert [str(state) for state in seen] == ["raised", "presented", "acknowledged", "communicated", "decided"]
    kinds = [fact.kind for fact in rows() if str(fact.kind).startswith("alert_")]
    assert kinds == [
        Kind.ALERT_RAISED, Kind.ALERT_PRESENTED, Kind.ALERT_ACKNOWLEDGED, Kind.ALERT_COMMUNICATED, Kind.ALERT_DECIDED
    ]  # fmt: skip
    view = store.views.alert(alert)
    assert (view.decided_by, view.decision, view.communicated_at) == ("Dr Chen", "agree", store.db.clock.now())
    assert store.journal.verify() == 0


@pytest.mark.req("R-ALERT-02")
def test_the_journal_holds_the_six_fields_and_the_register_whose_finding_it_was(
    store, write, scenes, tell, rows, clock
):
    alert = write(scenes.urgent)
    clock.advance(240)
    tell(alert, received_at=clock.now() - timedelta(seconds=60))
    (fact,) = rows(Kind.ALERT_COMMUNICATED)
    assert fact.actor["name"] == "Li Wei"
    body = fact.body
    assert (body["findings"], body["received_by"], body["method"], body["read_back"]) == (
        ["head-ct-hyperdensity/hyperdensity"], "Dr Chen", "phone", True
    )  # fmt: skip
    assert body["found_at"][:19] == "2026-01-01T00:00:00"
    assert body["received_at"][:19] == "2026-01-01T00:03:00"
    # A correction of the patient does not rewrite what was told.
    study = store.views.alert(alert).study_id
    write(lambda tx: tx.execute('UPDATE study SET identity = \'{"study_instance_uid": "9"}\' WHERE id = ?', (study,)))
    (line,) = store.communications.of_alerts([alert])[alert]
    assert (line.identity.patient_id, line.told_by, line.received_by) == (scenes.WANG.patient_id, "Li Wei", "Dr Chen")
    assert line.titles == TITLES
    assert [line.id for line in store.communications.between(clock.now() - timedelta(days=1), clock.now(), 10)] == [1]


def test_who_tells_has_seen_it_and_several_may_be_told(store, write, scenes, tell, rows):
    alert = write(scenes.urgent)
    tell(alert)
    first = store.views.alert(alert)
    assert (first.state, first.acknowledged_by) == (AlertState.COMMUNICATED, "Li Wei")
    tell(alert, received_by="Dr Sun", method=CommunicationMethod.IN_PERSON, read_back=False)
    assert len(rows(Kind.ALERT_ACKNOWLEDGED)) == 1
    assert [one.received_by for one in store.communications.of_alerts([alert])[alert]] == ["Dr Chen", "Dr Sun"]
    assert store.views.alert(alert).communicated_at == first.communicated_at
    assert store.communications.recipients() == ["Dr Sun", "Dr Chen"]


def test_a_communication_needs_names_a_standing_alert_and_a_time_that_can_be(store, write, scenes, tell, clock):
    alert = write(scenes.urgent)
    for wrong in ({"received_by": " "}, {"actor": Actor(kind=ActorKind.PERSON, name="")}):
        with pytest.raises(ConflictError, match="who was told"):
            tell(alert, **wrong)
    for at in (clock.now() - timedelta(hours=1), clock.now() + timedelta(hours=1)):
        with pytest.raises(ConflictError, match="nobody can have been told"):
            tell(alert, received_at=at)
    with pytest.raises(NotFoundError, match="alert 99"):
        tell(99)
    write(lambda tx: withdraw_alert(tx, 1, alert, "superseded"))
    with pytest.raises(ConflictError, match="withdrawn"):
        tell(alert)
    assert store.communications.of_alerts([alert]) == {}


def test_what_nobody_was_told_of_is_found_until_it_is_told_or_decided(store, write, scenes, tell, clock):
    day = (clock.now() - timedelta(days=1), clock.now() + timedelta(days=1))
    open_, told, decided = (write(scenes.urgent) for _ in range(3))
    write(scenes.priority)
    write(scenes.urgent, active=0, chime=0)
    store.alerts.acknowledge(open_, LI)
    tell(told)
    judged = store.views.alert(decided)
    write(decide_alert, judged.study_id, "disagree", CHEN, [judged.analysis_id])
    assert [alert.id for alert in store.communications.missing(*day, 10)] == [open_]


def test_a_decision_of_a_study_without_an_alert_changes_nothing(store, write, scenes, rows):
    study = write(scenes.nothing_flagged)
    write(decide_alert, study, "agree", CHEN, [1, 2])
    assert not rows(Kind.ALERT_DECIDED)


@pytest.mark.req("R-ALERT-03")
def test_the_boxs_own_test_study_calls_nobody_and_is_in_no_count(store, write, scenes, clock):
    day = (clock.now() - timedelta(days=1), clock.now() + timedelta(days=1))
    alert, _ = (write(scenes.urgent, study_values={"source": source}) for source in ("CT-1", SELF_TEST_SOURCE))
    assert [one.alert_id for one in store.escalations.waiting()] == [alert]
    assert [one.id for one in store.communications.missing(*day, 10)] == [alert]
    assert store.views.counts(day[0]) == {"FINDING": 1}


@pytest.mark.req("R-ALERT-03")
def test_a_step_is_taken_once_and_only_of_what_nobody_acknowledged(store, write, scenes, rows):
    first, second = write(scenes.urgent), write(scenes.urgent)
    assert store.escalations.take(first, AlertStep.TELL, ["pager"])
    assert not store.escalations.take(first, AlertStep.TELL, ["pager"])
    store.alerts.acknowledge(second, LI)
    assert not store.escalations.take(second, AlertStep.OVERDUE, ["pager"])
    assert [fact.body for fact in rows(Kind.ALERT_ESCALATED)] == [
        {"alert": first, "step": "tell", "sinks": ["pager"], "screens": []}
    ]
    (notice,) = store.escalations.owed("pager", store.db.clock.now())
    assert (notice.alert_id, notice.step, notice.calling) == (first, AlertStep.TELL, 1)
    assert notice.accession_number == scenes.WANG.accession_number


@pytest.mark.req("R-ALERT-05")
def test_a_sink_that_was_told_is_told_the_end_and_one_that_was_not_hears_nothing(store, write, scenes):
    alert, now = write(scenes.urgent), store.db.clock.now
    store.escalations.take(alert, AlertStep.TELL, ["pager", "light"])
    (notice,) = store.escalations.owed("pager", now())
    store.escalations.told(notice)
    store.alerts.acknowledge(alert, LI)
    (end,) = store.escalations.owed("pager", now())
    assert (end.step, end.calling) == (AlertStep.CLEARED, 0)
    assert store.escalations.owed("light", now()) == []


def test_an_acknowledgement_while_a_sink_is_being_told_reaches_it_too(store, write, scenes):
    alert, now = write(scenes.urgent), store.db.clock.now
    store.escalations.take(alert, AlertStep.TELL, ["light"])
    (notice,) = store.escalations.owed("light", now())
    store.alerts.acknowledge(alert, LI)
    store.escalations.told(notice)
    (end,) = store.escalations.owed("light", now())
    assert (end.step, end.calling) == (AlertStep.CLEARED, 0)


def test_a_withdrawal_ends_what_sinks_are_told(store, write, scenes):
    alert, now = write(scenes.urgent), store.db.clock.now
    store.escalations.take(alert, AlertStep.TELL, ["light"])
    store.escalations.told(store.escalations.owed("light", now())[0])
    write(lambda tx: withdraw_alert(tx, 1, alert, "superseded"))
    assert [one.step for one in store.escalations.owed("light", now())] == [AlertStep.CLEARED]


def test_a_sink_that_is_no_longer_configured_holds_neither_notice_nor_issue(store, write, scenes):
    store.escalations.take(write(scenes.urgent), AlertStep.TELL, ["gone", "pager"])
    (notice,) = store.escalations.owed("gone", store.db.clock.now())
    store.escalations.failed(notice, "no answer", store.db.clock.now(), is_issue=True)
    assert store.issues.is_open(SINK_FAILING, "gone")
    store.escalations.forget_other_sinks(["pager"])
    assert store.escalations.owed("gone", store.db.clock.now()) == []
    assert len(store.escalations.owed("pager", store.db.clock.now())) == 1
    assert not store.issues.is_open(SINK_FAILING, "gone")


@pytest.mark.req("R-ALERT-06")
def test_a_test_alert_leaves_no_trace_in_what_is_counted(store, write, scenes, rows, clock):
    write(scenes.nothing_flagged)
    since = clock.now() - timedelta(hours=1)
    before = (store.views.counts(since), store.views.open_alerts(), store.views.alerts(), store.views.studies())
    test = store.alert_tests.begin("CT-1", LI, ["pager"])
    with pytest.raises(ConflictError, match="goes on"):
        store.alert_tests.begin("CT-1", LI)
    assert (store.views.counts(since), store.views.open_alerts(), store.views.alerts(), store.views.studies()) == before
    assert store.escalations.waiting() == []
    (notice,) = store.escalations.owed("pager", clock.now())
    assert (notice.step, notice.is_test, notice.alert_id, notice.source) == (AlertStep.TEST, True, None, "CT-1")
    store.escalations.told(notice)
    store.alert_tests.presented(test, "ct-1")
    store.alert_tests.acknowledge(test, LI)
    store.alert_tests.acknowledge(test, CHEN)
    assert store.alert_tests.open() == []
    kinds = [fact.kind for fact in rows() if str(fact.kind).startswith("test_")]
    assert kinds == [Kind.TEST_ALERT_RAISED, Kind.TEST_ALERT_PRESENTED, Kind.TEST_ALERT_ACKNOWLEDGED]
    assert [one.step for one in store.escalations.owed("pager", clock.now())] == [AlertStep.CLEARED]


def test_a_test_alert_that_nobody_acknowledges_ends_by_itself(store, clock, rows):
    store.alert_tests.begin("", LI)
    clock.advance(599)
    store.alert_tests.end_old()
    assert len(store.alert_tests.open()) == 1
    clock.advance(2)
    store.alert_tests.end_old()
    assert store.alert_tests.open() == []
    assert len(rows(Kind.TEST_ALERT_ENDED)) == 1
    with pytest.raises(NotFoundError):
        store.alert_tests.acknowledge(7, LI)


@pytest.mark.req("R-ALERT-08")
def test_a_repeat_finding_is_one_of_the_same_patient_and_the_same_finding(store, write, scenes, clock):
    first = write(scenes.urgent)
    at = store.views.alert(first).raised_at
    clock.advance(3600)
    again, other_patient = write(scenes.urgent), write(scenes.urgent, scenes.LI)
    other_finding = write(scenes.urgent, finding="another")
    nobody = scenes.Identity(study_instance_uid="1.9")
    write(scenes.urgent, nobody)
    unknown = write(scenes.urgent, nobody)
    ids = (first, again, other_patient, other_finding, unknown)
    assert flagged_before(store.db, ids) == {again: at}
    write(lambda tx: withdraw_alert(tx, 1, first, "identity_corrected"))
    assert flagged_before(store.db, ids) == {}


@pytest.mark.req("R-ALERT-02")
def test_the_register_outlives_a_damaged_database(tmp_path, store, write, scenes, tell, clock):
    tell(write(scenes.urgent))
    store.close()
    none = Reader(header=None, receipt=None, change=None, source=None, originals=None)
    rebuilt = rebuild(store.db.path.parent, clock, none, "torn page")
    (line,) = rebuilt.communications.between(clock.now() - timedelta(days=1), clock.now() + timedelta(days=1), 10)
    assert (line.received_by, line.identity.patient_id, line.alert_state) == ("Dr Chen", scenes.WANG.patient_id, None)
    # A new alert may have the old one's number: it was told to nobody.
    assert rebuilt.communications.of_alerts([1]) == {}
    rebuilt.close()


def test_a_kill_between_two_steps_neither_loses_nor_doubles_one(store, write, scenes, clock):
    alert = write(scenes.urgent)
    store.escalations.take(alert, AlertStep.REPEAT)
    reopened = Store.open(store.db.path.parent, clock)
    try:
        (waiting,) = reopened.escalations.waiting()
        assert waiting.steps == {AlertStep.REPEAT}
        assert not reopened.escalations.take(alert, AlertStep.REPEAT)
        assert reopened.escalations.take(alert, AlertStep.TELL)
    finally:
        reopened.close()
