"""A database that had to be rebuilt still knows what destinations have not committed to and what scanners wait for."""

from __future__ import annotations

import sqlite3

import pytest

from appliance.records import Rejection, RejectionTitle
from appliance.store import Store
from appliance.store.rebuild import Reader, rebuild
from appliance.store.receiving import Original

OWED = (Original(destination="pacs", calling_ae="CT1"),)


def reader(tmp_path, headers):
    """Of files whose header and digest ``headers`` gives, all from an inline scanner."""
    return Reader(
        header=lambda path: headers[str(path.relative_to(tmp_path / "spool"))][0],
        receipt=lambda path: ("CT1", headers[str(path.relative_to(tmp_path / "spool"))][1], 10),
        change=lambda *_: None,
        source=lambda _: "CT-1",
        originals=lambda _: OWED,
    )


@pytest.mark.req("R-CUSTODY-02")
def test_what_is_not_committed_and_not_reported_is_carried_over(tmp_path, clock, store, make_header, receive):
    digests = {}
    for n in (1, 2, 3):
        received = receive(make_header(n))
        digests[received.path] = (make_header(n), received.data_sha256)
        store.studies.add_new(received, OWED)
    first, second, third = store.deliveries.next_owed("pacs", clock.now(), 10)
    for one in (first, second):
        store.deliveries.sent(one.id, 0)
    store.commitments.begin("pacs", "9.1", [first.id])
    store.commitments.answered("9.1", [first.sop_instance_uid], {})
    uids = {one.sop_instance_uid: one.sop_class_uid for one in (first, second, third)}
    store.commitment_requests.add(
        source="CT-1", transaction_uid="9.2", calling_ae="CT1", called_ae="BOX", association_id=1, wanted=uids
    )
    store.commitment_requests.decide("CT-1", lambda _: ("pacs",))
    store.close()
    made: Store = rebuild(tmp_path, clock, reader(tmp_path, digests), "a test", reserve_bytes=0)
    try:
        assert [one.sop_instance_uid for one in made.deliveries.next_owed("pacs", clock.now(), 10)] == [
            third.sop_instance_uid
        ]
        due = made.commitments.due("pacs", clock.now(), 10)
        assert [one.sop_instance_uid for one in due] == [second.sop_instance_uid]
        made.commitment_requests.decide("CT-1", lambda _: ("pacs",))
        (open_,) = made.commitment_requests.open()
        assert (open_.requests, open_.undecided) == (1, 2)
        assert made.retention.studies_due(clock.now(), ("pacs",)) == []
    finally:
        made.close()


def test_images_of_a_request_that_can_no_longer_be_read_do_not_keep_the_box_from_starting(tmp_path, clock, store):
    for transaction in ("9.1", "9.2"):
        store.commitment_requests.add(
            source="CT-1",
            transaction_uid=transaction,
            calling_ae="CT1",
            called_ae="BOX",
            association_id=1,
            wanted={"1.2.3": "1.2"},
        )
    store.close()
    broken = sqlite3.connect(tmp_path / "scanside.db")
    broken.execute("DELETE FROM commitment_request WHERE id = 2")  # as if its page could not be read
    broken.commit()
    broken.close()
    made = rebuild(tmp_path, clock, reader(tmp_path, {}), "a test", reserve_bytes=0)
    assert [one.undecided for one in made.commitment_requests.open()] == [1]
    made.close()


@pytest.mark.req("R-REJECT-01")
def test_what_was_rejected_stays_rejected_also_where_the_note_has_left_the_box(
    tmp_path, clock, store, make_header, receive
):
    received = receive(make_header(1))
    store.studies.add_new(received, ())
    rejection = Rejection(title=RejectionTitle.PATIENT_SAFETY, sop_instance_uids=("1.2.3.4.1", "1.2.3.4.2"))
    note = receive(make_header(9, rejection=rejection, series_instance_uid="1.2.3.9"))
    store.studies.add_new(note, ())
    store.spool.remove(note.path)
    store.close()
    headers = {received.path: (make_header(1), received.data_sha256)}
    made = rebuild(tmp_path, clock, reader(tmp_path, headers), "a test", reserve_bytes=0)
    made.studies.add_new(receive(make_header(2)), ())
    assert [row["state"] for row in made.db.all("SELECT state FROM version")] == ["rejected", "rejected"]
    made.close()
