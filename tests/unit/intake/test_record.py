"""The same SOP Instance UID again: the rule of versions, through the sink that the receiver calls."""

from __future__ import annotations

import dataclasses

import pytest

from appliance.config import Config
from appliance.intake.record import StoreSink, change_of
from appliance.records import Identity, VersionState
from appliance.store.facts import Kind
from appliance.store.studies import Change, Version

J2K = "1.2.840.10008.1.2.4.90"
INLINE = {
    "sources": [{"name": "CT-1", "ae_title": "CT1", "mode": "inline"}],
    "destinations": [{"kind": "dicom", "name": "PACS", "host": "h", "port": 1, "ae_title": "P", "send": ["original"]}],
}


@pytest.fixture
def pixels(monkeypatch):
    """The SHA-256 of pixel bytes by spool path, in place of real files."""
    table = {}
    monkeypatch.setattr("appliance.intake.record.pixel_sha256", lambda path: table.get(path.name, "same"))
    return table


@pytest.fixture
def sink(store, clock, pixels):
    return StoreSink(store, Config.model_validate(INLINE), clock, wake=lambda: None)


def states(store):
    return [version.state for version in store.studies.versions("1.2.3.4.1")]


def owed(store):
    return len(store.db.all("SELECT 1 FROM delivery WHERE state = 'owed'"))


def stored_files(store):
    return len(list(store.spool.iter_files()))


@pytest.mark.fault("T25")
def test_same_bytes_again_are_success_without_new_work_and_without_a_second_file(store, sink, make_header, receive):
    for _ in range(3):
        sink.store(receive(make_header(), data=b"same"))
    assert states(store) == [VersionState.CURRENT]
    assert (owed(store), stored_files(store)) == (1, 1)
    assert [fact.kind for fact in store.journal.after(0)][-2:] == [Kind.INSTANCE_REPEATED] * 2


@pytest.mark.fault("T25")
def test_one_changed_pixel_keeps_both_versions_and_forwards_only_the_first(store, sink, pixels, make_header, receive):
    sink.store(receive(make_header()))
    other = receive(make_header())
    pixels[other.path.rsplit("/", 1)[1]] = "other"
    sink.store(other)
    assert states(store) == [VersionState.CURRENT, VersionState.CONFLICT]
    assert (owed(store), stored_files(store)) == (1, 2)


@pytest.mark.req("R-RETAIN-03")
def test_what_comes_again_after_its_file_was_removed_is_kept_or_corrected_and_never_read_from_disk(
    store, sink, pixels, make_header, receive
):
    sink.store(receive(make_header(), data=b"same"))
    (version,) = store.studies.versions("1.2.3.4.1")
    store.spool.remove(version.path)
    pixels[version.path.rsplit("/", 1)[1]] = "read although it is gone"
    with store.db.write() as tx:
        tx.execute("UPDATE version SET removed_at = ?, pixel_sha256 = 'same'", (tx.at,))
    sink.store(receive(make_header(patient_id="P2")))
    assert states(store) == [VersionState.KEPT, VersionState.CURRENT]
    sink.store(receive(make_header(), data=b"same"))
    assert (len(states(store)), stored_files(store)) == (2, 2)
    assert [fact.kind for fact in store.journal.after(0)][-1] == Kind.IMAGE_RESTORED


def test_other_patient_on_same_pixels_is_an_identity_correction_that_is_forwarded(store, sink, make_header, receive):
    sink.store(receive(make_header()))
    sink.store(receive(make_header(patient_id="P2")))
    assert states(store) == [VersionState.KEPT, VersionState.CURRENT]
    assert owed(store) == 2
    assert Kind.IDENTITY_CORRECTED in [fact.kind for fact in store.journal.after(0)]


def test_rescale_that_differs_over_equal_pixel_bytes_is_a_conflict(store, sink, make_header, receive):
    sink.store(receive(make_header()))
    sink.store(receive(make_header(meaning_digest="other rescale")))
    assert states(store) == [VersionState.CURRENT, VersionState.CONFLICT]


def test_other_attributes_are_kept_and_forwarded(store, sink, make_header, receive):
    sink.store(receive(make_header()))
    sink.store(receive(make_header(series_description="edited")))
    assert states(store) == [VersionState.CURRENT, VersionState.KEPT]
    assert (owed(store), store.issues.open()) == (2, [])


def test_other_transfer_syntax_is_left_to_the_worker(store, sink, pixels, make_header, receive):
    sink.store(receive(make_header()))
    other = receive(make_header(transfer_syntax_uid=J2K))
    pixels[other.path.rsplit("/", 1)[1]] = "compressed"
    sink.store(other)
    assert states(store) == [VersionState.CURRENT, VersionState.COMPARING]
    assert owed(store) == 1


def version(**changes):
    fields = {
        "id": 1,
        "instance_id": 1,
        "n": 1,
        "state": VersionState.CURRENT,
        "path": "p",
        "data_sha256": "s",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "meaning_digest": "m",
        "identity": Identity(study_instance_uid="1.2.3", patient_id="P1", patient_name="Doe^Jane"),
    }
    return Version(**{**fields, **changes})


def test_objects_without_pixels_are_never_a_pixel_conflict(make_header):
    report = dataclasses.replace(make_header(), has_pixels=False, transfer_syntax_uid="1.2.840.10008.1.2")
    assert change_of(version(), report, same_pixel_bytes=True) is Change.SYNTAX


def test_values_that_mean_something_else_are_other_pixels_in_whatever_syntax_they_come(make_header):
    elsewhere = make_header(transfer_syntax_uid=J2K, meaning_digest="another place")
    assert change_of(version(), elsewhere, same_pixel_bytes=False) is Change.PIXELS


def test_native_syntaxes_with_equal_bytes_need_no_decoding(make_header):
    implicit = make_header(transfer_syntax_uid="1.2.840.10008.1.2")
    assert change_of(version(), implicit, same_pixel_bytes=True) is Change.SYNTAX


def test_flood_of_refusals_is_counted_instead_of_filling_the_journal(store, sink, clock):
    def refuse(count):
        for _ in range(count):
            sink.refused(association_id=None, source="10.0.0.9", status=0, message="unknown AE title")

    def rows():
        return [fact.body["times"] for fact in store.journal.after(0, limit=10_000) if fact.kind is Kind.REFUSED]

    refuse(1000)
    assert len(rows()) == 200
    clock.advance(60)
    refuse(1)
    assert sum(rows()) == 1001
