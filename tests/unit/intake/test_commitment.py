"""What the box answers a scanner that asks for storage commitment, and when it says yes."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from custody_kit import INSTANCE, AskingScanner, item, report
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from tls_kit import Authority, server_side

from appliance.config import Config
from appliance.deliver.commitment_report import ISSUE_AFTER, CommitmentReportStage
from appliance.dicom import commands
from appliance.dicom.commands import Request
from appliance.intake.commitment import CommitmentService
from appliance.intake.peers import peers_of
from appliance.records import VersionState
from appliance.store.commitment_requests import CLASS_INSTANCE_CONFLICT, PROCESSING_FAILURE
from appliance.store.commitments import NO_SUCH_OBJECT
from appliance.store.receiving import Original
from appliance.store.studies import Change

CT = "1.2.840.10008.5.1.4.1.1.2"
AT = "2026-01-01T00:00:00.000000Z"
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


def config(port=11113, **changes):
    pacs = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "port": 104, "ae_title": "PACS", "commitment": True}
    copy = {**pacs, "name": "copy", "ae_title": "COPY", "commitment": False}
    scanner = {"name": "CT-1", "ae_title": "CT-1", "mode": "inline"}
    asking = {**scanner, "commitment_host": "127.0.0.1", "commitment_port": port}
    plain = {**scanner, "name": "DX-1", "ae_title": "DX-1"}
    parallel = {**plain, "name": "MR-1", "ae_title": "MR-1", "mode": "parallel"}
    return Config.model_validate({"sources": [asking, plain, parallel], "destinations": [pacs, copy], **changes})


@pytest.fixture
def service(store, clock):
    woken = []
    made = CommitmentService(store, config(), clock, wake_reports=lambda: woken.append(1))
    made.woken = woken
    return made


def peer(name="CT-1", **changes):
    fields = {"association_id": 1, "calling_ae": name, "called_ae": "MYBOX"}
    return SimpleNamespace(**{**fields, **changes}, source=SimpleNamespace(name=name))


def wanted(*uids, transaction="9.1", sop_class=CT):
    ds = Dataset()
    ds.TransactionUID = transaction
    ds.ReferencedSOPSequence = [item(uid, sop_class) for uid in uids]
    return ds


def action(instance=INSTANCE, type_id=1):
    return Request(commands.N_ACTION_RQ, 1, "1.2.840.10008.1.20.1", instance, True, False, type_id)


@pytest.fixture
def images(store, make_header, receive):
    """``images(n)``: images 1 to n, owed to both destinations."""

    def make(count=1):
        owed = tuple(Original(destination=name, calling_ae="CT-1") for name in ("pacs", "copy"))
        for n in range(1, count + 1):
            store.studies.add_new(receive(make_header(n)), owed)
        return [f"1.2.3.4.{n}" for n in range(1, count + 1)]

    return make


def set_delivery(store, uid, **columns):
    names = ", ".join(f"{name} = ?" for name in columns)
    with store.db.write() as tx:
        tx.execute(
            f"UPDATE delivery SET {names} WHERE destination = 'pacs' AND sop_instance_uid = ?",  # noqa: S608
            (*columns.values(), uid),
        )


def decided(store):
    store.commitment_requests.decide("CT-1", config().committing)
    rows = store.db.all("SELECT sop_instance_uid, reason FROM commitment_item ORDER BY sop_instance_uid")
    return {row["sop_instance_uid"]: row["reason"] for row in rows}


@pytest.mark.req("R-CUSTODY-03")
def test_yes_is_said_for_what_the_pacs_has_committed_to_and_a_copy_without_commitment_does_not_count(
    store, service, images
):
    uids = images(3)
    assert service.requested(peer(), action(), wanted(*uids)) == 0
    assert service.woken
    assert decided(store) == dict.fromkeys(uids)
    set_delivery(store, uids[0], state="sent", sent_at="2026-01-01T00:00:00.000000Z")
    assert decided(store)[uids[0]] is None
    set_delivery(store, uids[0], committed_at="2026-01-01T00:00:00.000000Z")
    assert decided(store) == {uids[0]: 0, uids[1]: None, uids[2]: None}
    assert store.commitment_requests.next_report("CT-1") is None


@pytest.mark.req("R-CUSTODY-03")
def test_what_never_came_is_no_such_object_and_what_the_pacs_refuses_for_good_has_failed(store, service, images):
    first, second = images(2)
    service.requested(peer(), action(), wanted(first, second, "1.9.9"))
    set_delivery(store, first, state="parked")
    set_delivery(store, second, state="sent", committed_at="2026-01-01T00:00:00.000000Z")
    assert decided(store) == {first: PROCESSING_FAILURE, second: 0, "1.9.9": NO_SUCH_OBJECT}
    told = store.commitment_requests.next_report("CT-1")
    assert [uid for _, uid in told.committed] == [second]
    assert {uid: reason for _, uid, reason in told.failed} == {first: PROCESSING_FAILURE, "1.9.9": NO_SUCH_OBJECT}


@pytest.mark.req("R-CUSTODY-03")
def test_an_image_that_has_gone_without_being_committed_to_has_failed_and_counts_again_once_it_is_sent_again(
    store, service, images, make_header, receive
):
    """It went while the destination had no commitment; nobody is asked for it any more."""
    (uid,) = images()
    set_delivery(store, uid, state="sent", sent_at=AT, removed_at=AT)
    with store.db.write() as tx:
        tx.execute("UPDATE version SET removed_at = ?", (AT,))
    service.requested(peer(), action(), wanted(uid))
    assert decided(store) == {uid: PROCESSING_FAILURE}
    store.commitment_requests.reported(store.commitment_requests.next_report("CT-1"))
    (known,) = store.studies.versions(uid)
    assert store.studies.add_repeat(receive(make_header(1)), known.id)
    service.requested(peer(), action(), wanted(uid))
    assert decided(store) == {uid: None}
    assert len(store.commitments.due("pacs", store.db.clock.now(), 10)) == 1


def test_an_image_under_another_class_is_a_conflict(store, service, images):
    (uid,) = images()
    set_delivery(store, uid, state="sent", committed_at="2026-01-01T00:00:00.000000Z")
    service.requested(peer(), action(), wanted(uid, sop_class="1.2.840.10008.5.1.4.1.1.4"))
    assert decided(store) == {uid: CLASS_INSTANCE_CONFLICT}


@pytest.mark.req("R-CUSTODY-03")
def test_an_image_that_came_twice_with_differences_waits_for_the_person_who_chooses(
    store, service, images, make_header, receive
):
    (uid,) = images()
    set_delivery(store, uid, state="sent", committed_at="2026-01-01T00:00:00.000000Z")
    known = store.studies.versions(uid)
    assert known[0].state is VersionState.CURRENT
    store.studies.add_version(receive(make_header(1)), known, Change.PIXELS, ())
    service.requested(peer(), action(), wanted(uid))
    assert decided(store) == {uid: None}
    store.studies.choose(known[0].id, lambda _: ())
    assert decided(store) == {uid: 0}


@pytest.mark.req("R-CUSTODY-03")
@pytest.mark.parametrize(
    ("who", "request_", "status", "words"),
    [
        (peer("MR-1"), action(), 0x0110, "ask the PACS itself"),
        (peer("DX-1"), action(), 0x0110, "commitment_host"),
        (peer("destination pacs"), action(), 0x0110, "ask the PACS itself"),
        (peer(), action(instance="1.2.3"), 0x0112, "another instance"),
        (peer(), action(type_id=2), 0x0123, "another action"),
    ],
)
def test_a_request_that_could_never_be_reported_is_refused_at_once_and_the_journal_says_why(
    store, service, who, request_, status, words
):
    assert service.requested(who, request_, wanted("1.2.3")) == status
    (fact,) = [fact for fact in store.journal.after(0) if fact.kind == "refused"]
    assert words in fact.body["message"]
    assert store.db.all("SELECT * FROM commitment_request") == []


@pytest.mark.parametrize(
    "ds",
    [Dataset(), wanted(), wanted("1.2.3", transaction=""), wanted("1.2.3", sop_class="")],
)
def test_a_request_without_what_it_needs_is_an_invalid_argument(store, service, ds):
    assert service.requested(peer(), action(), ds) == 0x0115
    assert store.db.all("SELECT * FROM commitment_request") == []


@pytest.mark.parametrize(("vr", "value"), [("US", 5), ("FL", 1.5), ("UI", "1.2"), ("DS", "1"), ("AT", 0x00080018)])
def test_a_sequence_that_is_sent_as_something_else_is_an_invalid_argument_of_requests_and_reports(
    store, service, vr, value
):
    ds = Dataset()
    ds.TransactionUID = "9.1"
    ds.add(DataElement("ReferencedSOPSequence", vr, value))
    assert service.requested(peer(), action(), ds) == 0x0115
    assert service.reported(peer("PACS"), None, ds) == 0x0115
    assert store.db.all("SELECT * FROM commitment_request") == []


def test_the_same_request_again_is_one_request_and_is_reported_again(store, service, images):
    (uid,) = images()
    set_delivery(store, uid, state="sent", committed_at="2026-01-01T00:00:00.000000Z")
    for _ in range(2):
        assert service.requested(peer(), action(), wanted(uid)) == 0
        assert decided(store) == {uid: 0}
        store.commitment_requests.reported(store.commitment_requests.next_report("CT-1"))
        assert store.commitment_requests.next_report("CT-1") is None
    assert len(store.db.all("SELECT * FROM commitment_request")) == 1


def test_a_report_counts_only_from_the_destination_that_was_asked(store, service, images):
    (uid,) = images()
    set_delivery(store, uid, state="sent", sent_at="2026-01-01T00:00:00.000000Z")
    (row,) = store.db.all("SELECT id FROM delivery WHERE destination = 'pacs'")
    store.commitments.begin("pacs", "9.9", [row["id"]])
    for who in ("COPY", "CT-1"):
        assert service.reported(peer(who), None, report("9.9", [uid])) == 0
    assert store.commitments.waiting(["pacs"])[0].objects == 1
    assert service.reported(peer("PACS"), None, report("9.9", [uid])) == 0
    assert store.commitments.waiting(["pacs"]) == []
    assert service.reported(peer("PACS"), None, Dataset()) == 0x0115


def test_a_destination_may_call_back_under_the_title_that_we_called_it_with_and_is_no_scanner():
    changed = config(dicom={"require_called_ae": True, "ae_title": "BOX"})
    pacs = changed.destinations[0].model_copy(update={"calling_ae_title": "GATE"})
    peers = peers_of(changed.model_copy(update={"destinations": (pacs,)}))
    found = peers.resolve("PACS", "GATE", "10.9.9.9")
    assert (found.name, found.may_store) == ("destination pacs", False)
    assert peers.resolve("CT-1", "BOX", "10.9.9.9").may_store
    both = changed.sources[0].model_copy(update={"ae_title": "PACS"})
    assert peers_of(changed.model_copy(update={"sources": (both,)})).resolve("PACS", "BOX", "10.9.9.9").name == "CT-1"


def stage(store, clock, port, **of_source):
    made = config(port)
    if of_source:
        document = made.model_dump()
        document["sources"][0].update(of_source)
        made = Config.model_validate(document)
    return CommitmentReportStage(made.sources[0], made, store.commitment_requests, clock, rng=random.Random(1))


@pytest.mark.req("R-CUSTODY-03")
@pytest.mark.fault("T28")
def test_a_scanner_that_takes_no_report_is_told_for_ever_and_after_a_day_a_person_is(store, clock, service, images):
    (uid,) = images()
    set_delivery(store, uid, state="sent", committed_at="2026-01-01T00:00:00.000000Z")
    service.requested(peer(), action(), wanted(uid))
    with AskingScanner(report_status=0x0110) as scanner:
        telling = stage(store, clock, scanner.port)
        for _ in range(20):
            telling.step()
            clock.advance(10)
        assert 2 < len(scanner.reports.rows) < 10
        assert store.issues.open() == []
        clock.advance(ISSUE_AFTER.total_seconds())
        telling.step()
        (issue,) = store.issues.open()
        assert (issue.code, issue.subject) == ("COMMITMENT_UNREPORTED", "CT-1")
        assert store.commitment_requests.open()[0].requests == 1
        scanner.report_status = 0x0000
        clock.advance(600)
        telling.step()
    assert store.issues.open() == []
    assert store.commitment_requests.open() == []
    assert scanner.reports.rows[-1]["calling"] == "MYBOX"


@pytest.mark.req("R-CUSTODY-03", "R-DELIVER-04")
def test_a_scanner_that_listens_with_tls_gets_its_report_with_a_certificate_of_ours_and_no_other_way(
    store, clock, service, images, tmp_path
):
    (uid,) = images()
    set_delivery(store, uid, state="sent", committed_at="2026-01-01T00:00:00.000000Z")
    service.requested(peer(), action(), wanted(uid))
    hospital, stranger = Authority(tmp_path, "hospital"), Authority(tmp_path, "stranger", number=1)
    ours = hospital.issue("box", tag="-ours")
    certificate = {"certificate_path": ours.certificate, "key_path": ours.key}
    context = server_side(hospital.issue("scanner"), client_ca=hospital.path)
    with AskingScanner(tls=context) as scanner:
        for tls, words in (
            (None, ""),
            ({"ca_path": stranger.path, **certificate}, "signed by another CA"),
            ({"ca_path": hospital.path}, "certificate"),
        ):
            stage(store, clock, scanner.port, commitment_tls=tls).step()
            assert words in store.commitment_requests.open()[0].last_error
            assert scanner.reports.rows == []
        stage(store, clock, scanner.port, commitment_tls={"ca_path": hospital.path, **certificate}).step()
        assert scanner.reports.rows[0]["committed"] == {uid}
    assert store.commitment_requests.open() == []


def test_a_scanner_that_is_switched_off_gets_its_report_when_it_is_back(store, clock, service, images, free_port):
    (uid,) = images()
    set_delivery(store, uid, state="sent", committed_at="2026-01-01T00:00:00.000000Z")
    service.requested(peer(), action(), wanted(uid))
    port = free_port()
    telling = stage(store, clock, port)
    telling.step()
    assert "nothing listens" in store.commitment_requests.open()[0].last_error
    with AskingScanner(port=port) as back:
        clock.advance(60)
        telling.step()
        assert back.reports.rows[0]["committed"] == {uid}


def test_a_look_at_very_many_requests_leaves_the_machine_to_others(store, clock):
    looks = []

    class Slow:
        def decide(self, *_):
            looks.append(clock.monotonic())
            clock.advance(1.0)

        def next_report(self, _):
            return None

    made = config()
    telling = CommitmentReportStage(made.sources[0], made, Slow(), clock)
    for _ in range(60):
        telling.step()
        clock.advance(1.0)
    assert 4 <= len(looks) <= 6
