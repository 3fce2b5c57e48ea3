"""The acts on an alert: presented and acknowledged, once each, in the journal."""

from __future__ import annotations

import json

import pytest

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, ActorKind, AlertState
from appliance.store.facts import Kind

LI = Actor(kind=ActorKind.PERSON, name="Li Wei")
ZHAO = Actor(kind=ActorKind.PERSON, name="Zhao Lei")


@pytest.fixture
def alert(store):
    """``alert(state)``: id of an alert of category 1."""

    def make(state="raised", **more):
        with store.db.write() as tx:
            times = dict.fromkeys(("first_at", "last_at"), tx.at)
            study = tx.insert(
                "study", study_instance_uid="1.2", source="CT-1", patient_key="[]", identity="{}", **times
            )
            analysis = tx.insert(
                "analysis", study_id=study, package="p", package_version="1.0.0", role="live", state="done", category=1,
                notify="active", intended_use="detection", ready_at=tx.at, ready_mono=0.0, boot="b", deadline_s=1.0,
            )  # fmt: skip
            return tx.insert(
                "alert", study_id=study, analysis_id=analysis, state=state, category=1, active=1, chime=1,
                findings=json.dumps([]), identity_revision=1, raised_at=tx.at, **more,
            )  # fmt: skip

    return make


@pytest.fixture
def rows(store):
    return lambda kind: store.journal.after(0, 100, (kind,))


@pytest.mark.req("R-SCREEN-03")
def test_acknowledging_stands_in_state_and_journal_with_the_name(store, alert, rows):
    alert_id = alert()
    store.alerts.acknowledge(alert_id, LI)
    view = store.views.alert(alert_id)
    assert (view.state, view.acknowledged_by) == (AlertState.ACKNOWLEDGED, "Li Wei")
    assert view.acknowledged_at == store.db.clock.now()
    (fact,) = rows(Kind.ALERT_ACKNOWLEDGED)
    assert (fact.body, fact.actor["name"], fact.study_id) == ({"alert": alert_id}, "Li Wei", view.study_id)


def test_acknowledging_twice_records_one_acknowledgement_and_keeps_the_first_name(store, alert, rows):
    alert_id = alert()
    store.alerts.acknowledge(alert_id, LI)
    store.alerts.acknowledge(alert_id, ZHAO)
    assert len(rows(Kind.ALERT_ACKNOWLEDGED)) == 1
    assert store.views.alert(alert_id).acknowledged_by == "Li Wei"


def test_a_withdrawn_alert_cannot_be_acknowledged(store, alert, rows):
    with pytest.raises(ConflictError, match="superseded"):
        store.alerts.acknowledge(alert("withdrawn", withdrawn_why="superseded"), LI)
    assert not rows(Kind.ALERT_ACKNOWLEDGED)


def test_an_unknown_alert_is_named(store):
    with pytest.raises(NotFoundError, match="alert 77"):
        store.alerts.acknowledge(77, LI)
    with pytest.raises(NotFoundError, match="alert 77"):
        store.alerts.presented(77)


def test_nobody_cannot_acknowledge(store, alert):
    with pytest.raises(ConflictError, match="name"):
        store.alerts.acknowledge(alert(), Actor(kind=ActorKind.PERSON, name=" "))


def test_only_the_first_presentation_counts(store, alert, rows, clock):
    alert_id = alert()
    store.alerts.presented(alert_id, "ct-1")
    first = store.views.alert(alert_id).presented_at
    clock.advance(5)
    store.alerts.presented(alert_id, "ct-2")
    assert store.views.alert(alert_id).presented_at == first
    assert [fact.body["screen"] for fact in rows(Kind.ALERT_PRESENTED)] == ["ct-1"]


def test_a_presentation_after_the_acknowledgement_changes_nothing(store, alert, rows):
    alert_id = alert()
    store.alerts.acknowledge(alert_id, LI)
    store.alerts.presented(alert_id)
    assert store.views.alert(alert_id).state is AlertState.ACKNOWLEDGED
    assert not rows(Kind.ALERT_PRESENTED)
