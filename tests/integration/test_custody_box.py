"""Custody on a running box: a scanner, the box and a PACS, Orthanc among them, with storage commitment between them."""

from __future__ import annotations

import json
import urllib.request

import pytest
from box_kit import Box, box_config
from custody_kit import AskingScanner, CommittingPacs, report, send_event
from scp_kit import RawPeer, ct, encode

from appliance.simulate.orthanc import Orthanc

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


def config(folder, pacs_port, scanner_port, **destination):
    base = box_config(folder / "state", pacs_port, mode="inline", packages=())
    document = base.model_dump(mode="json")
    document["destinations"] = [{**document["destinations"][0], "commitment": True, **destination}]
    document["sources"][0] |= {"commitment_host": "127.0.0.1", "commitment_port": scanner_port}
    return type(base).model_validate(document)


def slices(count=3):
    first = ct()
    return [
        ct(StudyInstanceUID=first.StudyInstanceUID, SeriesInstanceUID=first.SeriesInstanceUID, InstanceNumber=n + 1)
        for n in range(count)
    ]


def send(box, images, called="SCANSIDE"):
    with RawPeer(box.daemon.dicom_port) as peer:
        peer.associate(calling="CT-1", called=called)
        for ds in images:
            assert peer.store(encode(ds), sop_instance=ds.SOPInstanceUID) == 0
        peer.release()
    return [str(ds.SOPInstanceUID) for ds in images]


@pytest.mark.req("R-CUSTODY-02")
@pytest.mark.req("R-CUSTODY-03")
def test_scanner_is_told_under_the_title_it_called_once_orthanc_has_committed(tmp_path, orthanc):
    with Orthanc(tmp_path / "orthanc", ae_title="PACS") as pacs, AskingScanner() as scanner:  # noqa: SIM117 - the box ends first
        with Box(config(tmp_path, pacs.dicom_port, scanner.port), wait_ready=False) as box:
            known = {"AET": "SCANSIDE", "Host": "127.0.0.1", "Port": box.daemon.dicom_port}
            url = f"{pacs.url}/modalities/box"
            urllib.request.urlopen(urllib.request.Request(url, json.dumps(known).encode(), method="PUT")).close()  # noqa: S310 - our own
            uids = send(box, slices(), called="MYBOX")
            status, transaction = scanner.ask(box.daemon.dicom_port, [*uids, "1.2.3.99"], called="MYBOX")
            assert status == 0
            (told,) = scanner.reports.wait(1)
            rows = box.store.db.all("SELECT committed_at FROM delivery")
            box.wait(lambda: "commitment_reported" in box.kinds(), "report that the scanner has taken")
            assert scanner.ask(box.daemon.dicom_port, uids, transaction_uid=transaction)[0] == 0
            again = scanner.reports.wait(2)[1]
    assert told["event"] == 2
    assert (told["transaction"], told["committed"], told["failed"]) == (transaction, set(uids), {"1.2.3.99": 0x0112})
    assert (told["calling"], told["called"]) == ("MYBOX", "CT-1")
    assert len(rows) == 3
    assert all(row["committed_at"] for row in rows)
    assert (again["event"], again["committed"]) == (1, set(uids))


@pytest.mark.fault("T28")
@pytest.mark.req("R-CUSTODY-02")
def test_a_pacs_that_commits_late_by_parts_and_to_an_old_request_decides_when_the_scanner_is_told(tmp_path):
    with CommittingPacs() as pacs, AskingScanner() as scanner:
        with Box(config(tmp_path, pacs.port, scanner.port), wait_ready=False) as box:
            uids = send(box, slices())
            assert scanner.ask(box.daemon.dicom_port, uids)[0] == 0
            ((transaction, asked),) = pacs.requests.wait(1)
            assert set(asked) == set(uids)
            port = box.daemon.dicom_port
            # From somebody else, and for what nobody asked.
            assert send_event(port, report(transaction, uids), 1, calling="CT-1", called="SCANSIDE") == 0
            assert send_event(port, report("1.2.3.4", uids), 1, calling="PACS", called="SCANSIDE") == 0
            assert send_event(port, report(transaction, uids[:2]), 1, calling="PACS", called="SCANSIDE") == 0
            box.wait(lambda: "commitment_answered" in box.kinds(), "answer")
            assert [row["source"] for row in box.store.db.all("SELECT source FROM commitment_request")] == ["CT-1"]
            assert scanner.reports.rows == []
            refused = [fact.body["message"] for fact in box.store.journal.after(0, 10_000) if fact.kind == "refused"]
            assert sum("never asked" in message for message in refused) == 2
        with Box(config(tmp_path, pacs.port, scanner.port), wait_ready=False) as box:  # it survives a restart
            assert (
                send_event(box.daemon.dicom_port, report(transaction, uids[2:]), 1, calling="PACS", called="SCANSIDE")
                == 0
            )
            (told,) = scanner.reports.wait(1)
    assert (told["event"], told["committed"], told["failed"]) == (1, set(uids), {})


@pytest.mark.req("R-CUSTODY-03")
def test_a_pacs_that_calls_back_can_report_and_not_store(tmp_path):
    with CommittingPacs() as pacs, AskingScanner() as scanner:  # noqa: SIM117 - the box ends first
        with Box(config(tmp_path, pacs.port, scanner.port), wait_ready=False) as box:
            with RawPeer(box.daemon.dicom_port) as peer:
                kind, _ = peer.associate(calling="PACS")
                ds = ct()
                assert kind == 2
                assert peer.store(encode(ds), sop_instance=ds.SOPInstanceUID) is None
            # A scanner without a destination that commits, or without an address to report to, is told at once.
            with AskingScanner("DX-1") as other:
                assert other.ask(box.daemon.dicom_port, ["1.2.3"])[0] == 0x0110
            assert box.store.db.all("SELECT * FROM version") == []
            box.wait(
                lambda: any(
                    "commitment_host" in fact.body.get("message", "") for fact in box.store.journal.after(0, 10_000)
                ),
                "journal fact of the refusal",
            )
