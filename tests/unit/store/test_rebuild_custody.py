"""A database that had to be rebuilt still knows what destinations have not committed to and what scanners wait for."""

from __future__ import annotations

import pytest

from appliance.store import Store
from appliance.store.rebuild import Reader, rebuild
from appliance.store.receiving import Original

OWED = (Original(destination="pacs", calling_ae="CT1"),)


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
    reader = Reader(
        header=lambda path: digests[str(path.relative_to(tmp_path / "spool"))][0],
        receipt=lambda path: ("CT1", digests[str(path.relative_to(tmp_path / "spool"))][1], 10),
        change=lambda *_: None,
        source=lambda _: "CT-1",
        originals=lambda _: OWED,
    )
    made: Store = rebuild(tmp_path, clock, reader, "a test", reserve_bytes=0)
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
