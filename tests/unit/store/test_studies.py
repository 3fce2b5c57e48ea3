"""Images as they arrive: what is new work, what is a version, what is a conflict, what is somebody else's."""

from __future__ import annotations

import pytest

from appliance.errors import ConflictError, NotFoundError
from appliance.records import DeliveryState, VersionState
from appliance.store.facts import Kind
from appliance.store.receiving import Original
from appliance.store.studies import Change

PACS = (Original(destination="PACS", calling_ae="CT1"),)


def kinds(store):
    return [fact.kind for fact in store.journal.after(0)]


def deliveries(store):
    return [(row["state"], row["version_id"]) for row in store.db.all("SELECT * FROM delivery ORDER BY id")]


def test_new_image_is_recorded_with_owed_delivery_and_fact_in_one_commit(store, make_header, receive):
    before = store.db.commits
    stored = store.studies.add_new(receive(make_header()), PACS)
    assert store.db.commits == before + 1
    assert deliveries(store) == [(DeliveryState.OWED, stored.version_id)]
    fact = store.journal.after(0)[-1]
    assert (fact.kind, fact.study_id, fact.body["owed"]) == (Kind.INSTANCE_STORED, stored.study_id, ["PACS"])


def test_images_of_one_patient_and_study_uid_share_a_study_and_series(store, make_header, receive):
    first = store.studies.add_new(receive(make_header(1)), ())
    second = store.studies.add_new(receive(make_header(2)), ())
    assert (first.study_id, first.series_id) == (second.study_id, second.series_id)


def test_same_study_uid_from_another_patient_is_kept_apart_and_loud(store, make_header, receive):
    first = store.studies.add_new(receive(make_header(1)), ())
    second = store.studies.add_new(receive(make_header(2, patient_id="P2", patient_name="Roe^Ann")), ())
    assert first.study_id != second.study_id
    assert [(issue.code, issue.study_id) for issue in store.issues.open()] == [("STUDY_UID_SHARED", second.study_id)]


def test_second_association_with_the_same_uid_finds_it_taken(store, make_header, receive):
    store.studies.add_new(receive(make_header()), PACS)
    assert store.studies.add_new(receive(make_header()), PACS) is None
    assert len(deliveries(store)) == 1


def test_other_pixels_are_a_conflict_that_owes_nothing_until_a_person_chooses(store, make_header, receive):
    store.studies.add_new(receive(make_header()), PACS)
    known = store.studies.versions("1.2.3.4.1")
    other = store.studies.add_version(receive(make_header()), known, Change.PIXELS, PACS)
    assert [version.state for version in store.studies.versions("1.2.3.4.1")] == [
        VersionState.CURRENT,
        VersionState.CONFLICT,
    ]
    assert len(deliveries(store)) == 1
    assert [issue.code for issue in store.issues.open()] == ["VERSION_CONFLICT"]

    store.studies.choose(other.version_id, lambda source: PACS)
    assert [version.state for version in store.studies.versions("1.2.3.4.1")] == [
        VersionState.KEPT,
        VersionState.CURRENT,
    ]
    assert deliveries(store)[1] == (DeliveryState.OWED, other.version_id)
    assert store.issues.open() == []


def test_choosing_the_standing_version_closes_the_issue_and_sends_nothing(store, make_header, receive):
    first = store.studies.add_new(receive(make_header()), PACS)
    store.studies.add_version(receive(make_header()), store.studies.versions("1.2.3.4.1"), Change.PIXELS, PACS)
    store.studies.choose(first.version_id, lambda source: PACS)
    assert store.issues.open() == []
    assert len(deliveries(store)) == 1


def test_choosing_what_is_not_there_or_not_compared_yet_is_refused(store, make_header, receive):
    with pytest.raises(NotFoundError):
        store.studies.choose(99, lambda source: ())
    store.studies.add_new(receive(make_header()), ())
    stored = store.studies.add_version(
        receive(make_header()), store.studies.versions("1.2.3.4.1"), Change.COMPARING, ()
    )
    with pytest.raises(ConflictError):
        store.studies.choose(stored.version_id, lambda source: ())


def test_changed_attributes_are_kept_and_forwarded_without_conflict(store, make_header, receive):
    store.studies.add_new(receive(make_header()), PACS)
    known = store.studies.versions("1.2.3.4.1")
    store.studies.add_version(receive(make_header()), known, Change.ATTRIBUTES, PACS)
    assert [state for state, _ in deliveries(store)] == [DeliveryState.OWED, DeliveryState.OWED]
    assert store.issues.open() == []


def test_other_transfer_syntax_waits_for_the_worker_and_is_forwarded_when_equal(store, make_header, receive):
    store.studies.add_new(receive(make_header()), PACS)
    known = store.studies.versions("1.2.3.4.1")
    stored = store.studies.add_version(receive(make_header()), known, Change.COMPARING, PACS)
    assert deliveries(store)[1][0] == DeliveryState.HELD
    assert [pair[1].id for pair in store.studies.to_compare()] == [stored.version_id]
    store.studies.compared(stored.version_id, same_pixels=True)
    assert deliveries(store)[1][0] == DeliveryState.OWED
    assert store.studies.to_compare() == []
    assert store.issues.open() == []


def test_other_transfer_syntax_with_other_pixels_becomes_a_conflict(store, make_header, receive):
    store.studies.add_new(receive(make_header()), PACS)
    known = store.studies.versions("1.2.3.4.1")
    stored = store.studies.add_version(receive(make_header()), known, Change.COMPARING, PACS)
    store.studies.compared(stored.version_id, same_pixels=False)
    assert len(deliveries(store)) == 1
    assert [issue.code for issue in store.issues.open()] == ["VERSION_CONFLICT"]


def test_version_recorded_meanwhile_makes_the_caller_look_again(store, make_header, receive):
    store.studies.add_new(receive(make_header()), ())
    known = store.studies.versions("1.2.3.4.1")
    store.studies.add_version(receive(make_header()), known, Change.ATTRIBUTES, ())
    assert store.studies.add_version(receive(make_header()), known, Change.ATTRIBUTES, ()) is None


@pytest.mark.req("R-COMPLETE-08")
def test_aborted_association_is_closed_once_and_keeps_its_images(store, make_header, receive):
    association = store.studies.open_association(source="CT-1", calling_ae="A", called_ae="B", address="127.0.0.1")
    store.studies.add_new(receive(make_header(), association=association), ())
    store.studies.close_association(association, how="aborted", images=1)
    store.studies.close_association(association, how="released", images=1)
    closed = [fact.body["how"] for fact in store.journal.after(0) if fact.kind is Kind.ASSOCIATION_CLOSED]
    assert closed == ["aborted"]
    assert len(store.revisions.open_series()) == 1


@pytest.mark.req("R-HOUSE-22")
def test_journal_holds_no_patient_text_and_no_uid(store, make_header, receive):
    header = make_header(1, patient_id="SECRET-ID", patient_name="Secret^Name", accession_number="SECRET-ACC")
    store.studies.add_new(receive(header), PACS)
    text = " ".join(str(dict(row)) for row in store.db.all("SELECT * FROM journal"))
    assert "SECRET" not in text.upper()
    assert "1.2.3" not in text


@pytest.mark.req("R-INTAKE-08")
def test_protocol_names_that_a_source_sends_are_kept_and_counted(store, make_header, receive):
    for n in range(1, 4):
        header = make_header(n, protocol_name="Head routine", series_instance_uid=f"1.2.3.{n}")
        store.studies.add_new(receive(header), ())
    (row,) = store.db.all("SELECT * FROM source_fact")
    assert (row["source"], row["fact"], row["value"], row["count"]) == ("CT-1", "protocol", "Head routine", 3)
