"""Asking a PACS for storage commitment: late, partial, refused and never-arriving answers (T28)."""

from __future__ import annotations

import random
import struct
import threading
import time
from types import SimpleNamespace

import pytest
from custody_kit import INSTANCE, CommittingPacs, report
from deliver_kit import accept_all, pdu, read_message, read_pdu, running_box, scripted_peer
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from appliance.config import DicomDestination
from appliance.deliver import dicom_scu
from appliance.deliver.commitment import ISSUE_AFTER_S, MOST, QUIET_S, CommitmentStage
from appliance.dicom import commands
from appliance.dicom.commitment import read_request
from appliance.dicom.message import read_data_set

pytestmark = [
    pytest.mark.fault("T28"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def box(tmp_path):
    with running_box(tmp_path / "state") as running:
        yield running


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nobody waits for a report on the same association ..."""
    _wait(monkeypatch, 0.1)


@pytest.fixture
def patient(monkeypatch, impatient):
    """... but where it comes there, however slow this machine is."""
    _wait(monkeypatch, 120.0)


def _wait(monkeypatch, seconds):
    monkeypatch.setattr("appliance.deliver.commitment._LOOK_S", min(seconds, 0.1))
    for name in ("SAME_ASSOCIATION_S", "BUSY_ASSOCIATION_S"):
        monkeypatch.setattr(f"appliance.deliver.commitment.{name}", seconds)


def stage(box, port, **settings):
    fields = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "ae_title": "PACS", "timeout_s": 30.0}
    return CommitmentStage(
        DicomDestination(**{**fields, "port": port, "commitment": True, **settings}),
        box.store.commitments,
        box.store.deliveries,
        box.clock,
        box_ae_title="SCANSIDE",
        rng=random.Random(1),
    )


def sent(box, count, **columns):
    ids = [
        box.owe(state="sent", sent_at=box.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"), **columns)
        for _ in range(count)
    ]
    return ids, [box.row(one)["sop_instance_uid"] for one in ids]


def kinds(box):
    return [str(fact.kind) for fact in box.store.journal.after(0)]


def committed(box):
    return [bool(row["committed_at"]) for row in box.store.db.all("SELECT committed_at FROM delivery ORDER BY id")]


def test_what_was_sent_is_asked_for_together_once_nothing_more_comes(box):
    _, uids = sent(box, 3)
    with CommittingPacs() as pacs:
        asking = stage(box, pacs.port)
        assert not asking.step()
        assert pacs.requests.rows == []
        box.clock.advance(QUIET_S)
        asking.step()
        ((transaction, asked),) = pacs.requests.wait(1)
        assert asked == uids
        assert pacs.callers == ["SCANSIDE"]
        asking.step()
        assert len(pacs.requests.rows) == 1
        box.store.commitments.answered(transaction, uids, {})
        box.clock.advance(2 * 3600)
        asking.step()
        assert len(pacs.requests.rows) == 1
    assert committed(box) == [True] * 3


@pytest.mark.usefixtures("patient")
def test_a_large_study_goes_by_transactions_that_a_pacs_takes(box):
    sent(box, MOST + 5)
    box.clock.advance(QUIET_S)
    with CommittingPacs(here=report) as pacs:
        asking = stage(box, pacs.port)
        while asking.step():
            pass
        assert [len(asked) for _, asked in pacs.requests.rows] == [MOST, 5]
    assert all(committed(box))


@pytest.mark.usefixtures("patient")
def test_a_report_on_the_same_association_counts(box):
    ids, _ = sent(box, 2)
    box.clock.advance(QUIET_S)
    with CommittingPacs(here=lambda transaction, asked: report(transaction, asked[:1], {asked[1]: 0x0213})) as pacs:
        stage(box, pacs.port).step()
    assert committed(box) == [True, False]
    assert box.row(ids[1])["commit_reason"] == 0x0213
    assert box.row(ids[1])["state"] == "sent"


IMPLICIT = "1.2.840.10008.1.2"
CLASS = "1.2.840.10008.1.20.1"


def message(command_set, data=b""):
    """A message in PDUs of its own, on the first context."""
    parts = [(command_set, 3), *([(data, 2)] if data else [])]
    return b"".join(pdu(4, struct.pack(">LBB", len(part) + 2, 1, flags) + part) for part, flags in parts)


def event(ds, number=77):
    """An N-EVENT-REPORT-RQ that all were committed."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, True
    write_dataset(stream, ds)
    head = commands.encode_request(commands.N_EVENT_REPORT_RQ, number, CLASS, INSTANCE, type_id=1, has_data_set=True)
    return message(head, stream.getvalue())


def asked(connection):
    """Take association and N-ACTION: the request, the transaction UID and the UIDs of the objects."""
    connection.sendall(accept_all(read_pdu(connection)[1]))
    command_set, data = read_message(connection)
    wanted = read_request(read_data_set(data, IMPLICIT))
    return commands.parse_request(command_set), wanted.transaction_uid, list(wanted.wanted)


def answer_of(connection):
    """Number and status of our answer to an N-EVENT-REPORT."""
    kind, body = read_pdu(connection)
    assert kind == 4
    elements = commands.decode_command_set(body[6:])
    assert commands.number(elements, commands.COMMAND_FIELD) == commands.N_EVENT_REPORT_RQ | commands.RESPONSE
    return commands.number(elements, commands.ANSWERED_ID), commands.number(elements, commands.STATUS)


@pytest.mark.req("R-CUSTODY-04")
def test_a_report_before_the_answer_to_the_request_counts_and_the_answer_is_waited_for(box):
    _, uids = sent(box, 2)
    box.clock.advance(QUIET_S)
    answered, ends = [], []

    def script(connection, _number):
        request, transaction, uids = asked(connection)
        for number, ds in enumerate((report("9.9.9", uids), report(transaction, uids)), 7):
            connection.sendall(event(ds, number))
            answered.append(answer_of(connection))
        connection.sendall(message(commands.encode_response(request, 0)))
        ends.append(read_pdu(connection)[0])

    with scripted_peer(script) as port:
        asking = stage(box, port)
        asking.step()
        asking.step()
    assert answered == [(7, 0), (8, 0)]
    assert ends == [5], "the association is released, not aborted, and not asked again"
    assert committed(box) == [True, True]
    assert kinds(box)[-2:] == ["commitment_answered", "commitment_asked"]
    assert uids


@pytest.mark.req("R-CUSTODY-04")
def test_a_pacs_that_reports_and_never_answers_the_request_is_given_up_in_time_and_its_report_counts(box, monkeypatch):
    sent(box, 1)
    box.clock.advance(QUIET_S)
    later_s = [0.0]
    monkeypatch.setattr(dicom_scu, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later_s[0]))

    def script(connection, _number):
        _, transaction, uids = asked(connection)
        kind = 4
        while kind == 4:
            connection.sendall(event(report(transaction, uids)))
            kind, _ = read_pdu(connection)
            later_s[0] = 40.0  # more than the time for an answer has passed since the request

    with scripted_peer(script) as port:
        stage(box, port, timeout_s=30.0).step()
    assert committed(box) == [True]
    assert kinds(box)[-1] == "commitment_not_asked"


@pytest.mark.req("R-CUSTODY-04")
@pytest.mark.usefixtures("patient")
def test_a_report_on_the_same_association_may_come_late(box):
    sent(box, 1)
    box.clock.advance(QUIET_S)

    def script(connection, _number):
        request, transaction, uids = asked(connection)
        connection.sendall(message(commands.encode_response(request, 0)))
        time.sleep(1.2)
        connection.sendall(event(report(transaction, uids)))
        assert answer_of(connection) == (77, 0)
        read_pdu(connection)

    with scripted_peer(script) as port:
        stage(box, port).step()
    assert committed(box) == [True]


@pytest.mark.req("R-CUSTODY-04")
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("how", ["called back", "more to ask", "stop"])
def test_the_wait_for_a_report_ends_once_it_came_elsewhere_or_something_else_is_to_be_done(box, monkeypatch, how):
    monkeypatch.setattr("appliance.deliver.commitment.BUSY_ASSOCIATION_S", 0.1)
    _, uids = sent(box, 1)
    box.clock.advance(QUIET_S)
    with CommittingPacs() as pacs:
        asking = stage(box, pacs.port)
        waiting = threading.Thread(target=asking.step)
        waiting.start()
        ((transaction, _),) = pacs.requests.wait(1)
        assert waiting.is_alive()
        if how == "called back":
            box.store.commitments.answered(transaction, uids, {})
        elif how == "more to ask":
            sent(box, 1)
            box.clock.advance(QUIET_S)
        else:
            asking.interrupt()
        waiting.join(60)
        assert not waiting.is_alive()


def test_what_the_pacs_has_lost_is_sent_again_and_a_late_answer_spares_the_sending(box):
    ids, uids = sent(box, 2)
    box.clock.advance(QUIET_S)
    with CommittingPacs() as pacs:
        asking = stage(box, pacs.port)
        asking.step()
        transaction = pacs.requests.rows[0][0]
        box.store.commitments.answered(transaction, uids[:1], {uids[1]: 0x0112})
        assert box.states() == ["sent", "owed"]
        assert "sent again" in box.row(ids[1])["error"]
        (fact,) = [fact for fact in box.store.journal.after(0) if fact.kind == "commitment_failed"]
        assert (fact.study_id, fact.body["owed_again"], fact.body["delivery"]) == (1, True, ids[1])
        box.store.commitments.answered(transaction, uids, {})
    assert box.states() == ["sent", "sent"]
    assert committed(box) == [True, True]


@pytest.mark.req("R-CUSTODY-02")
def test_a_success_of_an_older_request_that_comes_after_the_pacs_has_told_of_a_loss_does_not_count(box):
    ids, uids = sent(box, 2)
    for transaction in ("9.1", "9.2"):
        box.store.commitments.asked(box.store.commitments.begin("pacs", transaction, ids))
    box.store.commitments.answered("9.2", (), {uids[0]: 0x0112})
    box.store.commitments.answered("9.1", uids, {})
    assert box.states() == ["owed", "sent"]
    assert committed(box) == [False, True]
    box.store.commitments.answered("9.2", uids, {})
    assert committed(box) == [True, True]


def test_a_report_that_never_comes_is_asked_for_by_a_new_transaction_and_the_old_one_still_counts(box):
    _, uids = sent(box, 1)
    box.clock.advance(QUIET_S)
    with CommittingPacs() as pacs:
        asking = stage(box, pacs.port)
        for _ in range(4):
            asking.step()
            box.clock.advance(3600)
        asked = pacs.requests.rows
        assert len({transaction for transaction, _ in asked}) == 4
    assert box.issues() == {"COMMITMENT_UNANSWERED"}
    assert box.store.commitments.waiting(["pacs"])[0].objects == 1
    box.store.commitments.answered(asked[0][0], uids, {})
    assert committed(box) == [True]
    assert box.issues() == set()


def test_a_pacs_that_refuses_is_asked_with_back_off_and_becomes_an_issue_with_words(box):
    sent(box, 1)
    box.clock.advance(QUIET_S)
    with CommittingPacs(action_status=0x0110) as pacs:
        asking = stage(box, pacs.port)
        asking.step()
        asking.step()
        assert len(pacs.requests.rows) == 1
        while box.clock.monotonic() < 1000 + 2 * ISSUE_AFTER_S:
            box.clock.advance(30)
            asking.step()
        assert 5 < len(pacs.requests.rows) < 20
        (issue,) = box.store.issues.open()
        assert (issue.code, issue.subject) == ("COMMITMENT_REFUSED", "pacs")
        assert "0x0110" in issue.detail["why"]
        pacs.action_status = 0x0000
        box.clock.advance(600)
        asking.step()
    assert box.issues() == set()
    assert kinds(box).count("commitment_not_asked") <= 3


@pytest.mark.usefixtures("patient")
def test_failures_that_last_become_an_issue_and_are_asked_for_ever_more_rarely(box):
    ids, _ = sent(box, 1)
    box.clock.advance(QUIET_S)
    with CommittingPacs(here=lambda transaction, asked: report(transaction, (), dict.fromkeys(asked, 0x0110))) as pacs:
        asking = stage(box, pacs.port)
        for _ in range(240):
            asking.step()
            box.clock.advance(60)
        assert 5 < len(pacs.requests.rows) < 15
        assert box.issues() == {"COMMITMENT_FAILED"}
        assert box.row(ids[0])["state"] == "sent"
        pacs.here = report
        box.clock.advance(3600)
        asking.step()
    assert committed(box) == [True]
    assert box.issues() == set()


def test_what_was_being_asked_when_the_box_was_killed_is_asked_anew(box):
    ids, uids = sent(box, 1)
    box.store.commitments.begin("pacs", "1.2.3.4", ids)  # and kill -9 before it is sent
    box.clock.advance(QUIET_S)
    with CommittingPacs() as pacs:
        stage(box, pacs.port).step()
        assert [asked for _, asked in pacs.requests.rows] == [uids]
    box.store.commitments.answered("1.2.3.4", uids, {})  # it had been sent after all
    assert committed(box) == [True]


def test_a_pacs_without_the_service_is_told_apart_from_one_that_is_away(box):
    sent(box, 1)
    box.clock.advance(QUIET_S)
    away = stage(box, 1)
    away.step()
    (fact,) = [fact for fact in box.store.journal.after(0) if fact.kind == "commitment_not_asked"]
    assert "nothing listens" in fact.body["error"]
    assert committed(box) == [False]
    box.clock.advance(60)
    with CommittingPacs() as pacs:
        assert box.store.deliveries.retry("pacs") == 0
        away._peer = stage(box, pacs.port)._peer
        away.step()
        assert len(pacs.requests.rows) == 1


def test_a_report_on_nothing_that_was_asked_changes_nothing(box):
    ids, uids = sent(box, 2)
    box.store.commitments.begin("pacs", "1.2.3.4", ids[:1])
    box.store.commitments.answered("1.2.3.4", uids, {"9.9": 0x0112})
    box.store.commitments.answered("9.9.9", uids, {})
    assert committed(box) == [True, False]
    box.store.commitments.answered("1.2.3.4", (), {uids[0]: 0x0112})  # a promise is not taken back
    assert box.states() == ["sent", "sent"]
