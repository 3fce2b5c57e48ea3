"""A PACS that fails by halves: T27. Each case ends with the object there once, parked with words, or still owed."""

from __future__ import annotations

import struct
import threading
import time

import pytest
from deliver_kit import accept_all, pdu, read_message, read_pdu, running_box, scripted_peer, store_response

from appliance.deliver import dicom_scu
from appliance.simulate.pacs import Manner, Pacs

pytestmark = [pytest.mark.fault("T27"), pytest.mark.req("R-FORWARD-02", "R-FORWARD-05")]


@pytest.fixture
def box(tmp_path):
    with running_box(tmp_path / "state") as running:
        yield running


@pytest.fixture
def pacs(tmp_path):
    with Pacs(tmp_path / "pacs") as running:
        yield running


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213])
def test_a_pacs_without_room_gets_the_object_later(box, pacs, status):
    one = box.owe()
    pacs.status = status
    stage = box.stage(pacs.port)
    assert stage.step()
    assert (box.row(one)["state"], box.row(one)["status"]) == ("owed", status)
    pacs.status = 0x0000
    box.drain(stage)
    assert [arrival.status for arrival in pacs.arrivals] == [status, 0x0000]
    stage.close()


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xC123, 0x0122, 0x0117])
def test_poison_is_parked_at_once_and_the_rest_of_its_study_goes_on(box, pacs, status):
    poison, _, _, _ = (box.owe() for _ in range(4))
    uid = box.row(poison)["sop_instance_uid"]
    pacs.status = lambda instance: status if instance == uid else 0x0000
    stage = box.stage(pacs.port)
    box.drain(stage)
    assert box.states() == ["parked", "sent", "sent", "sent"]
    assert f"0x{status:04X}" in box.row(poison)["error"]
    assert box.issues() == {"DELIVERY_PARKED"}
    assert len(pacs.associations) == 1
    stage.close()


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_warning_is_stored_with_its_status_on_record(box, pacs, status):
    one = box.owe()
    pacs.status = status
    stage = box.stage(pacs.port)
    box.drain(stage)
    assert (box.row(one)["state"], box.row(one)["status"]) == ("sent", status)
    assert len(pacs.arrivals) == 1
    stage.close()


@pytest.mark.req("R-RESULT-03")
def test_a_lost_response_is_answered_by_the_same_object_again(box, pacs):
    one = box.owe(b"the one data set")
    pacs.manner = Manner.LOSE_RESPONSE
    stage = box.stage(pacs.port)
    stage.step()
    assert "aborted" in box.row(one)["error"]
    pacs.manner = Manner.ANSWER
    box.drain(stage)
    first, second = pacs.arrivals
    assert (first.sop_instance_uid, first.sha256) == (second.sop_instance_uid, second.sha256)
    assert len(pacs.stored()) == 1
    stage.close()


def aborts_on(uid):
    """A script of a PACS that stores all but one object, and aborts on that one."""

    def script(connection, _number):
        _, request = read_pdu(connection)
        connection.sendall(accept_all(request))
        while True:
            command, _ = read_message(connection)
            if uid.encode() in command:
                connection.sendall(pdu(7, bytes(4)))
                return
            connection.sendall(store_response(command, 0))

    return script


def test_an_object_that_breaks_every_association_holds_nobody_back_for_long_and_is_parked(box):
    poison, *others = [box.owe() for _ in range(3)]
    elsewhere = box.owe(study=2)
    with scripted_peer(aborts_on(box.row(poison)["sop_instance_uid"])) as port:
        stage = box.stage(port)
        for _ in range(3):
            stage.step()
            box.clock.advance(1)
        assert box.row(elsewhere)["state"] == "sent"
        for _ in range(60):
            stage.step()
            box.clock.advance(60)
        stage.close()
    assert [box.row(other)["state"] for other in others] == ["sent", "sent"]
    assert box.row(poison)["state"] == "parked"
    assert "while others were stored" in box.row(poison)["error"]


def test_an_object_that_fails_alone_is_retried_for_ever(box):
    only = box.owe()
    with scripted_peer(aborts_on(box.row(only)["sop_instance_uid"])) as port:
        stage = box.stage(port)
        for _ in range(60):
            stage.step()
            box.clock.advance(300)
        stage.close()
    assert box.row(only)["state"] == "owed"
    assert box.row(only)["attempt"] >= 40


def test_a_pacs_that_never_answers_costs_one_timeout_and_no_more_than_the_step_allows(box, pacs):
    one = box.owe()
    pacs.manner = Manner.SILENT
    stage = box.stage(pacs.port, timeout_s=0.5)
    begin = time.monotonic()
    stage.step()
    assert time.monotonic() - begin < stage.max_step_s
    assert "no answer within 0.5 s" in box.row(one)["error"]
    stage.close()


def test_a_hanging_destination_delays_no_other(box, pacs, tmp_path):
    box.owe()
    other = box.owe(destination="second")
    pacs.manner = Manner.SILENT
    with Pacs(tmp_path / "second") as second:
        hanging, working = box.stage(pacs.port, timeout_s=30.0), box.stage(second.port, name="second")
        thread = threading.Thread(target=hanging.step)
        thread.start()
        pacs.wait_for(1)
        working.step()
        assert box.row(other)["state"] == "sent"
        working.close()
        hanging.interrupt()
        thread.join(25)
        assert not thread.is_alive(), "it waits no longer than it must"
        hanging.close()


def test_a_pacs_that_stops_reading_in_mid_object_is_given_up_in_time(box, monkeypatch):
    one = box.owe(bytes(20_000_000))
    # 20 MB at the slowest rate that counts as alive would be 400 s; the test's patience is shorter.
    monkeypatch.setattr(dicom_scu, "SLOWEST_BYTES_PER_S", 50_000_000)
    given_up = threading.Event()
    send_data = dicom_scu.Association._send_data

    def impatient(association, *what):
        *what, deadline = what
        # Only here: a busy machine may take its time for the association.
        send_data(association, *what, deadline - association.peer.timeout_s)

    monkeypatch.setattr(dicom_scu.Association, "_send_data", impatient)

    def script(connection, _number):
        _, request = read_pdu(connection)
        connection.sendall(accept_all(request))
        given_up.wait(60)

    with scripted_peer(script) as port:
        stage = box.stage(port)
        begin = time.monotonic()
        stage.step()
        assert time.monotonic() - begin < 30
        given_up.set()
        assert "stopped reading" in box.row(one)["error"]
        stage.close()


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"uid": "1.2.3.4.5.6"}, "another object"),
        ({"message_id": 4711}, "another request"),
    ],
)
def test_an_answer_for_another_object_or_request_proves_nothing(box, lie, words):
    one = box.owe()

    def script(connection, number):
        _, request = read_pdu(connection)
        connection.sendall(accept_all(request))
        command, _ = read_message(connection)
        connection.sendall(store_response(command, 0, **(lie if number == 1 else {})))
        read_pdu(connection)

    with scripted_peer(script) as port:
        stage = box.stage(port)
        stage.step()
        assert box.row(one)["state"] == "owed"
        assert words in box.row(one)["error"]
        box.drain(stage)
        stage.close()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", pdu(4, b""), struct.pack(">BxL", 2, 2**31), pdu(2, b"short")],
    ids=["http", "closes", "data", "huge", "short accept"],
)
def test_a_peer_that_is_no_pacs_costs_no_object_its_place(box, answer):
    one = box.owe()

    def script(connection, _number):
        read_pdu(connection)
        connection.sendall(answer)

    with scripted_peer(script) as port:
        stage = box.stage(port)
        stage.step()
        assert box.row(one)["state"] == "owed"
        assert box.row(one)["error"]
        stage.close()


@pytest.mark.fault("T11")
@pytest.mark.req("R-FORWARD-04")
def test_bit_rot_never_reaches_a_pacs_as_good(box, pacs):
    rotten, sound = box.owe(b"pixels and so on"), box.owe(b"more pixels")
    path = box.store.spool.path(box.row(rotten)["path"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    stage = box.stage(pacs.port)
    box.drain(stage)
    assert box.states() == ["parked", "sent"]
    assert [arrival.sop_instance_uid for arrival in pacs.arrivals] == [box.row(sound)["sop_instance_uid"]]
    assert box.issues() == {"SPOOL_CORRUPT", "DELIVERY_PARKED"}
    stage.close()


@pytest.mark.fault("T11")
@pytest.mark.req("R-FORWARD-04")
@pytest.mark.parametrize("harm", ["missing", "cut", "head"])
def test_a_file_that_is_missing_cut_or_overwritten_is_told_and_not_sent(box, pacs, harm):
    one = box.owe(b"pixels and so on")
    path = box.store.spool.path(box.row(one)["path"])
    if harm == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[:-4] if harm == "cut" else b"\0" * 200 + data[200:])
    stage = box.stage(pacs.port)
    box.drain(stage)
    assert box.states() == ["parked"]
    assert pacs.arrivals == []
    assert "SPOOL_CORRUPT" in box.issues()
    stage.close()


@pytest.mark.req("R-RESULT-08")
def test_a_result_that_was_taken_back_while_another_was_being_sent_does_not_leave_the_box(box, pacs):
    first, second, third = (box.owe(kind="sr") for _ in range(3))
    taken_back = box.row(second)["sop_instance_uid"]

    def corrected(_uid):
        """As the first arrives, the patient of the second turns out to be another."""
        with box.store.db.write() as tx:
            tx.execute(
                "UPDATE delivery SET state = 'held', path = NULL, sop_instance_uid = '2.25.1' WHERE id = ?", (second,)
            )
        return 0x0000

    pacs.status = corrected
    stage = box.stage(pacs.port, purpose="test")
    box.drain(stage)
    stage.close()
    arrived = [arrival.sop_instance_uid for arrival in pacs.arrivals]
    assert arrived == [box.row(first)["sop_instance_uid"], box.row(third)["sop_instance_uid"]]
    assert taken_back not in arrived
    assert box.states() == ["sent", "held", "sent"]
