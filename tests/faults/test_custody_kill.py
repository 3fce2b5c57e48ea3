"""kill -9 at the lines of custody: what was asked, told or removed is never half, and nothing is lost."""

from __future__ import annotations

import pytest
from custody_kit import AskingScanner, CommittingPacs, report
from deliver_kit import Box
from forked_death import deaths_of, folder_in_memory

from appliance.clock import FakeClock
from appliance.dicom.file_meta import file_meta
from appliance.records import Header, Identity, Received
from appliance.store.receiving import Original

CT = "1.2.840.10008.5.1.4.1.1.2"
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def state():
    """A state folder with one study of three images, sent and not committed to."""
    with folder_in_memory() as folder:
        box = Box(folder / "state", FakeClock())
        for n in range(3):
            uid = f"1.2.3.4.{n}"
            head = file_meta(
                sop_class_uid=CT,
                sop_instance_uid=uid,
                transfer_syntax="1.2.840.10008.1.2.1",
                calling_ae="CT-1",
                called_ae="BOX",
            )
            part = box.store.spool.open_part(head)
            part.write(memoryview(b"%d" % n))
            header = Header(
                sop_class_uid=CT,
                sop_instance_uid=uid,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                series_instance_uid="1.2.3.4",
                identity=Identity(study_instance_uid="1.2.3"),
            )
            box.store.studies.add_new(
                Received(
                    header=header,
                    path=part.commit(),
                    size=1,
                    data_sha256=part.data_sha256,
                    association_id=1,
                    source="CT-1",
                    stat=False,
                    received_mono=0.0,
                ),
                (Original(destination="pacs", calling_ae="CT-1"),),
            )
        for delivery in box.store.deliveries.next_owed("pacs", box.clock.now(), 10):
            box.store.deliveries.sent(delivery.id, 0)
        (series,) = box.store.revisions.open_series()
        revision = box.store.revisions.make_ready(box.store.revisions.evidence(series), "quiet", {})
        box.store.analyses.route(1, (revision,), (), (), lambda *_: ())
        yield box
        box.close()


def kill_through(deed, box, port, scale, every):
    box.close()
    every = 1 if scale == 1.0 else every
    told = deaths_of("custody_killer.py", deed, box.path, port, every)
    assert len(told) > 8
    assert all(one["ended"]["chain"] == 0 and one["ended"]["issues"] == [] for one in told)
    return told


@pytest.mark.fault("T01")
@pytest.mark.req("R-RETAIN-05")
def test_a_removal_that_was_cut_off_is_completed_and_takes_no_file_for_a_new_image_or_a_loss(state, scale):
    with state.store.db.write() as tx:
        tx.execute("UPDATE delivery SET committed_at = ?", (tx.at,))
    stages = set()
    for one in kill_through("retention", state, 1, scale, 5):
        left, ended = one["left"], one["ended"]
        assert left["lost"] == 0, one
        assert left["files"] == left["versions"] - left["removed"], one
        assert "orphans_adopted" not in one["recovered"], one
        assert (ended["files"], ended["removed"], ended["versions"]) == (0, 3, 3), one
        stages.add((left["removed"], one["recovered"].get("removals_completed", 0)))
    assert {removed for removed, _ in stages} == {0, 3}
    assert any(completed for _, completed in stages), "no child was killed between its row and its files"


@pytest.mark.fault("T28")
@pytest.mark.req("R-CUSTODY-02")
def test_a_request_to_the_pacs_that_was_cut_off_is_asked_again_and_nothing_is_taken_for_committed(state, scale):
    with CommittingPacs(here=report) as pacs:
        told = kill_through("ask", state, pacs.port, scale, 16)
    for one in told:
        assert one["left"]["committed"] in {0, 3}, one
        assert one["left"]["files"] == one["ended"]["files"] == 3, one
        # What had been taken, and the report on it lost, is asked for again after an hour.
        assert one["ended"]["committed"] == 3, one


@pytest.mark.fault("T28")
@pytest.mark.req("R-CUSTODY-03")
def test_a_scanner_hears_of_its_request_at_least_once_wherever_the_box_was_killed(state, scale):
    with state.store.db.write() as tx:
        tx.execute("UPDATE delivery SET committed_at = ?", (tx.at,))
    with AskingScanner() as scanner:
        told = kill_through("report", state, scanner.port, scale, 16)
        heard = list(scanner.reports.rows)
    for one in told:
        assert one["ended"]["requests"] == ["reported"], one
    assert len(heard) >= len(told)
    assert {(row["event"], row["calling"], len(row["committed"])) for row in heard} == {(1, "BOX", 3)}
