"""Destinations that are no longer configured: a person gives one up, and nothing waits for it any more."""

from __future__ import annotations

from datetime import timedelta

import pytest
from built_kit import say_built
from plan_kit import plan_for

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, ActorKind, AnalysisResult, DeliveryKind, Outcome, Severity
from appliance.store.destinations import Left, clear_unasked, forget, tell_gone
from appliance.store.ending import OwedResult
from appliance.store.facts import Kind
from appliance.store.receiving import Original
from appliance.store.studies import Change

PERSON = Actor(kind=ActorKind.PERSON, name="Kim", role="service")
H72 = timedelta(hours=72)
pytestmark = pytest.mark.req("R-CUSTODY-06")


@pytest.fixture
def study(store, make_header, receive):
    """Two images of a study that are owed to the old PACS and a new one, the analysis of them, and its SR for both."""
    owed = tuple(Original(destination=name, calling_ae="CT1") for name in ("old", "new"))
    stored = [store.studies.add_new(receive(make_header(n)), owed) for n in (1, 2)]
    (series,) = store.revisions.open_series()
    revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
    study_id = stored[0].study_id
    plan = plan_for(revision_id)
    (analysis_id,) = store.analyses.route(study_id, (revision_id,), (plan,), (), lambda *_: ())
    store.analyses.start(analysis_id)
    result = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)
    results = tuple(OwedResult(destination=name, kind=DeliveryKind.SR) for name in ("old", "new"))
    store.analyses.finish(analysis_id, result, results)
    return study_id, analysis_id


def send(store, destination, *, commit=True, most=10):
    """Send what is owed, and ask for commitment to it; what was sent."""
    sent = store.deliveries.next_owed(destination, store.db.clock.now(), most)
    for one in sent:
        store.deliveries.sent(one.id, 0)
    if commit:
        number = store.db.one("SELECT count(*) AS n FROM commitment")["n"]
        store.commitments.asked(store.commitments.begin(destination, f"9.{number}", [one.id for one in sent]))
    return sent


def states(store, destination="old"):
    rows = store.db.all("SELECT state FROM delivery WHERE destination = ? ORDER BY id", (destination,))
    return [row["state"] for row in rows]


def due(store, committing=("old",)):
    """Studies whose images may go; ``committing`` as the retention stage has it, with those that are gone."""
    return store.retention.studies_due(store.db.clock.now() - H72, committing)


def issues(store):
    return {(one.code, one.subject) for one in store.issues.open()}


def test_what_is_owed_to_it_ends_in_one_act_with_its_reason_and_the_images_go_three_days_later(store, study, clock):
    study_id, analysis_id = study
    say_built(store, analysis_id)
    send(store, "new", commit=False)
    send(store, "old", most=1)
    (second,) = store.deliveries.next_owed("old", clock.now(), 1)
    store.deliveries.parked(second.id, 0xA900, "refused")
    files = list(store.spool.iter_files())
    clock.advance(100 * 24 * 3600)
    tell_gone(store.db, ["new"])
    assert due(store) == []
    assert "'scanside dest forget old --reason TEXT'" in store.issues.open()[-1].detail["why"]

    ended = forget(store.db, "old", ["new"], "the PACS was replaced", PERSON)

    assert ended == Left(owed=1, held=0, parked=1, uncommitted=1)
    assert states(store) == ["sent", "forgotten", "forgotten"]
    assert states(store, "new") == ["sent"] * 3
    assert issues(store) == set()
    (fact,) = [fact for fact in store.journal.after(0) if fact.kind is Kind.DESTINATION_FORGOTTEN]
    assert (fact.actor["name"], fact.subject) == ("Kim", "old")
    assert fact.body == {
        "destination": "old",
        "reason": "the PACS was replaced",
        "owed": 1,
        "held": 0,
        "parked": 1,
        "uncommitted": 1,
    }
    assert list(store.spool.iter_files()) == files
    assert due(store) == [], "so long as after a delivery"
    clock.advance(72 * 3600 + 1)
    assert due(store) == [study_id]
    assert store.retention.results_due(clock.now() - timedelta(days=90), ("old",)) == []
    clock.advance(400 * 24 * 3600)
    assert store.retention.results_due(clock.now() - timedelta(days=366), ("old",)) == [analysis_id]


def test_nothing_begins_again_that_a_person_has_ended(store, study, clock, make_header, receive):
    _, analysis_id = study
    sent = send(store, "old")
    forget(store.db, "old", ["new"], "gone", PERSON)
    say_built(store, analysis_id)
    assert store.deliveries.retry() == store.deliveries.retry("new")
    assert store.deliveries.next_owed("old", clock.now(), 10) == []
    assert store.commitments.due("old", clock.now() + timedelta(days=9), 10) == []
    assert [one.destination for one in store.deliveries.backlog()] == ["new"]
    store.commitments.answered("9.0", (), {one.sop_instance_uid: 0x0112 for one in sent})
    assert states(store) == ["sent", "sent", "forgotten"]
    known = store.studies.versions("1.2.3.4.1")
    store.studies.add_version(receive(make_header(1, patient_id="P2")), known, Change.IDENTITY, ())
    assert states(store) == ["sent", "sent", "forgotten"]
    tell_gone(store.db, ["new"])
    assert issues(store) == set()


@pytest.mark.parametrize("what", ["identity", "late image"])
def test_a_result_that_was_sent_to_it_once_is_not_corrected_there(store, study, make_header, receive, what):
    study_id, analysis_id = study
    say_built(store, analysis_id)
    send(store, "old")
    forget(store.db, "old", ["new"], "gone", PERSON)
    if what == "identity":
        known = store.studies.versions("1.2.3.4.1")
        store.studies.add_version(receive(make_header(1, patient_id="P2")), known, Change.IDENTITY, ())
    else:
        store.studies.add_new(receive(make_header(3)), ())
        (series,) = store.revisions.open_series()
        revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
        (again,) = store.analyses.route(study_id, (revision_id,), (plan_for(revision_id),), (), lambda *_: ())
        store.analyses.finish(again, AnalysisResult(outcome=Outcome.NOTHING_FLAGGED), ())
    assert states(store) == ["sent"] * 3
    assert "held" in states(store, "new")
    assert store.deliveries.backlog()[0].destination == "new"


def test_a_scanner_that_asks_for_what_was_given_up_is_told_that_nobody_keeps_it(store, study):
    (first, _) = send(store, "old")
    forget(store.db, "old", ["new"], "gone", PERSON)
    store.commitment_requests.add(
        source=store.db.one("SELECT source FROM version")["source"],
        transaction_uid="8.1",
        calling_ae="CT1",
        called_ae="BOX",
        association_id=1,
        wanted={first.sop_instance_uid: first.sop_class_uid},
    )
    # It is configured anew under the same name.
    store.commitment_requests.decide(store.db.one("SELECT source FROM version")["source"], lambda _: ("old",))
    assert [row["reason"] for row in store.db.all("SELECT reason FROM commitment_item")] == [0x0110]


def test_an_object_that_nobody_else_is_owed_is_no_longer_missed_for_not_being_built(store, study):
    _, analysis_id = study
    store.deliveries.build_failed(analysis_id, DeliveryKind.SR, "no")
    code = ("RESULT_NOT_BUILT", f"sr of analysis {analysis_id}")
    forget(store.db, "old", ["new"], "gone", PERSON)
    assert code in issues(store), "the other destination misses it"
    forget(store.db, "new", [], "gone too", PERSON)
    assert issues(store) == set()


def test_one_that_is_configured_or_is_owed_nothing_is_not_forgotten(store, study):
    before = states(store)
    with pytest.raises(ConflictError, match="take it out of destinations and restart the box first"):
        forget(store.db, "old", ["old", "new"], "by mistake", PERSON)
    with pytest.raises(NotFoundError, match="nothing is owed to a destination 'mistyped'"):
        forget(store.db, "mistyped", ["new"], "by mistake", PERSON)
    with pytest.raises(ConflictError, match="needs a reason"):
        forget(store.db, "old", ["new"], " ", PERSON)
    assert states(store) == before
    assert not [fact for fact in store.journal.after(0) if fact.kind is Kind.DESTINATION_FORGOTTEN]


def test_what_was_never_to_be_committed_to_is_no_part_of_it(store, study):
    send(store, "old", commit=False)
    assert forget(store.db, "old", ["new"], "gone", PERSON) == Left(held=1)
    assert [row["forgotten_at"] is None for row in store.db.all("SELECT * FROM delivery WHERE state = 'sent'")] == [
        True,
        True,
    ]


@pytest.mark.req("R-CUSTODY-07")
def test_issues_of_commitment_end_at_the_start_where_nobody_is_asked_for_any(store):
    codes = ("COMMITMENT_REFUSED", "COMMITMENT_UNANSWERED", "COMMITMENT_FAILED")
    for code in codes:
        for name in ("off", "on"):
            store.issues.raise_(code, name, Severity.WARNING)
    store.issues.raise_("COMMITMENT_UNREPORTED", "CT-1", Severity.WARNING)
    store.issues.raise_("DELIVERY_PARKED", "off", Severity.WARNING)
    clear_unasked(store.db, ["on"])
    assert issues(store) == {
        *((code, "on") for code in codes),
        ("COMMITMENT_UNREPORTED", "CT-1"),
        ("DELIVERY_PARKED", "off"),
    }
