"""T27 for destinations that are no DICOM peers: each case ends with the result there once, parked, or still owed."""

from __future__ import annotations

import base64
import json
import select
import socket
import struct
import threading
import time

import pytest
from deliver_kit import running_box, scripted_peer
from http_kit import http_stub
from mllp_kit import ack_of, mllp_peer
from statement_kit import STATEMENT
from tls_kit import Authority, server_side

from appliance.config import Config
from appliance.deliver import connect, http
from appliance.deliver.dicom_scu import longest_store_s
from appliance.deliver.stage import POISON_AFTER, STEP_S

pytestmark = [pytest.mark.fault("T27"), pytest.mark.req("R-FORWARD-02")]
#: Of every destination here: no stall of the machine makes a second try.
TIMEOUT_S = 30.0


@pytest.fixture
def box(tmp_path):
    with running_box(tmp_path / "state") as running:
        yield running


@pytest.fixture
def to(tmp_path):
    """``to("stow", port)``: a destination of that kind on loopback."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("whsec_" + base64.b64encode(bytes(32)).decode())

    def make(kind, port, **more):
        fields = {"kind": kind, "name": "pacs", "purpose": "test", "timeout_s": TIMEOUT_S, **more}
        if kind == "hl7":
            fields |= {"host": "127.0.0.1", "port": port}
        else:
            fields["url"] = f"{'https' if 'tls' in more else 'http'}://127.0.0.1:{port}/root"
        if kind == "webhook":
            fields["secret_path"] = secret
        return Config.model_validate({"destinations": [fields]}).destinations[0]

    return make


@pytest.fixture
def owe(box):
    """``owe("stow")``: an object, or for the other kinds a statement; the delivery's id."""
    count = 0

    def make(kind, **columns):
        nonlocal count
        count += 1
        uid = f"2.25.{7000 + count}"
        if kind == "stow":
            return box.owe(uid=uid, **columns)
        data = json.dumps({**STATEMENT, "id": uid}).encode()
        return box.owe(data, uid=uid, kind="statement", sop_class="", syntax="", is_dicom=False, **columns)

    return make


def stored(got):
    uid = got.body.split(b"2.25.")[1][:4].decode()
    item = {"00081155": {"vr": "UI", "Value": [f"2.25.{uid}"]}}
    return 200, {}, json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()


def in_turn(answers):
    """Each request is answered by the next of these."""
    rest = iter(answers)

    def answer(got):
        return next(rest)(got)

    return answer


def failed(got, status, reason):
    uid = got.body.split(b"2.25.")[1][:4].decode()
    item = {"00081155": {"vr": "UI", "Value": [f"2.25.{uid}"]}, "00081197": {"vr": "US", "Value": [reason]}}
    return status, {}, json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


@pytest.mark.parametrize("kind", ["stow", "webhook"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_for_now_gets_it_later(box, to, owe, kind, status):
    one = owe(kind)
    answers = [lambda _: (status, {}, b""), stored]
    with http_stub(in_turn(answers)) as stub:
        stage = box.stage_to(to(kind, stub.port))
        stage.step()
        assert (box.row(one)["state"], box.row(one)["status"]) == ("owed", status)
        box.drain(stage)
        stage.close()
    assert len(stub.got) == 2


@pytest.mark.parametrize(("status", "reason"), [(409, 0xA900), (202, 0xC000), (409, 0x0122)])
def test_an_object_that_a_dicomweb_server_refuses_is_parked_and_its_study_goes_on(box, to, owe, status, reason):
    poison, *_ = (owe("stow") for _ in range(4))
    uid = box.row(poison)["sop_instance_uid"].encode()
    with http_stub(lambda got: failed(got, status, reason) if uid in got.body else stored(got)) as stub:
        stage = box.stage_to(to("stow", stub.port))
        box.drain(stage)
        stage.close()
    assert box.states() == ["parked", "sent", "sent", "sent"]
    assert f"0x{reason:04X}" in box.row(poison)["error"]
    assert box.issues() == {"DELIVERY_PARKED"}


def stored_but(uid, answer):
    """Every object is stored but the one of this UID, which is answered so."""
    return lambda got: answer if uid in got.body else stored(got)


def nothing_of_ours(status):
    """An answer of DICOMweb that names another object than ours, stored and failed."""
    item = {"00081155": {"vr": "UI", "Value": ["2.25.1"]}, "00081197": {"vr": "US", "Value": [0xA700]}}
    return status, {}, json.dumps({tag: {"vr": "SQ", "Value": [item]} for tag in ("00081198", "00081199")}).encode()


@pytest.mark.req("R-DELIVER-07")
@pytest.mark.parametrize(
    "answer",
    [(409, {}, b""), (409, {}, b"<html>Conflict</html>"), nothing_of_ours(409), (500, {}, b""), (503, {}, b"")],
    ids=["409 alone", "409 with a page", "409 on another object", "500", "503"],
)
def test_an_object_that_a_server_fails_at_for_ever_is_parked_and_the_others_go_on(box, to, owe, answer):
    poison, *_ = (owe("stow", study=1 + n // 2) for n in range(4))
    with http_stub(stored_but(box.row(poison)["sop_instance_uid"].encode(), answer)) as stub:
        stage = box.stage_to(to("stow", stub.port))
        box.drain(stage)
        stage.close()
    assert box.states() == ["parked", "sent", "sent", "sent"]
    assert box.issues() == {"DELIVERY_PARKED"}
    assert box.row(poison)["attempt"] == POISON_AFTER
    assert f"HTTP {answer[0]}" in box.row(poison)["error"]
    assert f"so ended {POISON_AFTER} tries with this object" in box.row(poison)["error"]


@pytest.mark.req("R-DELIVER-07")
def test_an_object_that_is_refused_without_a_reason_is_parked_though_nothing_else_is_owed(box, to, owe):
    one = owe("stow")
    with http_stub(lambda _: (409, {}, b"")) as stub:
        stage = box.stage_to(to("stow", stub.port))
        box.drain(stage)
        stage.close()
    assert len(stub.got) == box.row(one)["attempt"] == POISON_AFTER
    assert "DELIVERY_PARKED" in box.issues()


@pytest.mark.req("R-DELIVER-07")
def test_a_server_that_falters_and_then_fails_at_everything_for_a_day_parks_nothing(box, to, owe):
    ids = [owe("stow", study=n + 1) for n in range(4)]
    first = box.row(ids[0])["sop_instance_uid"].encode()
    got_n = []

    def answer(got):
        # It falters at the first, stores the second, and then nothing any more.
        got_n.append(first in got.body)
        return stored(got) if len(got_n) == 2 else (503, {}, b"")

    with http_stub(answer) as stub:
        stage = box.stage_to(to("stow", stub.port))
        for _ in range(200):
            stage.step()
            box.clock.advance(300)
        stage.close()
    assert box.states() == ["owed", "sent", "owed", "owed"]
    assert box.row(ids[0])["attempt"] > POISON_AFTER
    assert box.issues() == {"DESTINATION_UNREACHABLE"}


@pytest.mark.req("R-DELIVER-07")
@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("kind", ["stow", "webhook"])
def test_a_server_that_fails_at_everything_for_days_parks_nothing_not_even_when_it_comes_back_by_halves(
    box, to, owe, kind, status
):
    ids = [owe(kind, study=n + 1) for n in range(3)]
    is_down, flaps = [True], []

    def answer(got):
        flaps.append(1)
        return (status, {}, b"") if is_down or len(flaps) % 2 else stored(got)

    with http_stub(answer) as stub:
        stage = box.stage_to(to(kind, stub.port))
        for _ in range(60):
            stage.step()
            box.clock.advance(300)
        assert max(box.row(one)["attempt"] for one in ids) > POISON_AFTER
        assert box.issues() == {"DESTINATION_UNREACHABLE"}
        is_down.clear()
        box.drain(stage)
        stage.close()
    assert box.states() == ["sent"] * 3


@pytest.mark.parametrize(("kind", "status"), [("stow", 413), ("webhook", 410), ("webhook", 400)])
def test_what_is_refused_for_good_is_parked_at_once(box, to, owe, kind, status):
    owe(kind)
    with http_stub(lambda _: (status, {}, b"")) as stub:
        stage = box.stage_to(to(kind, stub.port))
        box.drain(stage)
        stage.close()
    assert box.states() == ["parked"]
    assert len(stub.got) == 1


@pytest.mark.req("R-RESULT-03")
@pytest.mark.parametrize("kind", ["stow", "webhook"])
def test_a_lost_answer_is_met_with_the_very_same_again(box, to, owe, kind):
    owe(kind)
    answers = [lambda _: None, stored]
    with http_stub(in_turn(answers)) as stub:
        stage = box.stage_to(to(kind, stub.port))
        stage.step()
        assert "without an answer" in box.row(1)["error"]
        box.drain(stage)
        stage.close()
    first, second = stub.got
    assert first.body == second.body
    assert first.headers.get("webhook-id") == second.headers.get("webhook-id")


@pytest.mark.parametrize("status", [401, 403, 404, 302])
@pytest.mark.parametrize("kind", ["stow", "webhook"])
def test_a_server_that_takes_nothing_from_us_becomes_an_issue_and_no_object_is_parked(box, to, owe, kind, status):
    ids = [owe(kind) for _ in range(3)]
    answer = [status, {"Location": "http://127.0.0.1:9/"}, b""]
    with http_stub(lambda got: tuple(answer) if answer else stored(got)) as stub:
        stage = box.stage_to(to(kind, stub.port))
        for _ in range(100):
            stage.step()
            box.clock.advance(1)
        assert box.states() == ["owed"] * 3
        assert box.issues() == {"DESTINATION_UNREACHABLE"}
        assert f"HTTP {status}" in box.row(ids[0])["error"]
        assert [box.row(one)["attempt"] for one in ids] == [0, 0, 0]
        assert len(stub.got) < 15
        answer.clear()
        box.drain(stage)
        stage.close()
    assert box.issues() == set()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nshort",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"",
    ],
    ids=["ssh", "half", "short", "words", "headers", "chunk", "continue", "minus", "closes"],
)
@pytest.mark.parametrize("kind", ["stow", "webhook"])
def test_a_peer_that_is_no_good_server_costs_no_object_its_place(box, to, owe, kind, answer):
    one = owe(kind)

    def script(connection, _number):
        connection.recv(65536)
        connection.sendall(answer)

    with scripted_peer(script) as port:
        stage = box.stage_to(to(kind, port))
        for _ in range(3):
            stage.step()
            box.clock.advance(10)
        stage.close()
    assert box.row(one)["error"]
    assert box.row(one)["state"] == "owed"


@pytest.mark.parametrize("kind", ["stow", "webhook", "hl7"])
def test_a_peer_that_drips_its_answer_is_given_up_in_time(box, to, owe, kind):
    one = owe(kind)

    def script(connection, _number):
        connection.recv(65536)
        while True:  # until the box hangs up
            connection.sendall(b"\x0b" if kind == "hl7" else b"H")
            time.sleep(0.05)

    with scripted_peer(script) as port:
        stage = box.stage_to(to(kind, port, timeout_s=0.3))
        begin = time.monotonic()
        stage.step()
        assert time.monotonic() - begin < 30
        stage.close()
    assert box.row(one)["state"] == "owed"


@pytest.mark.parametrize("kind", ["stow", "webhook", "hl7"])
def test_the_daemons_stop_ends_the_wait_for_an_answer_and_loses_nothing(box, to, owe, kind):
    one = owe(kind)
    asked = threading.Event()

    def script(connection, _number):
        connection.recv(65536)
        asked.set()
        while connection.recv(65536):  # the rest of the request, and then nothing until the box hangs up
            pass

    with scripted_peer(script) as port:
        stage = box.stage_to(to(kind, port))
        thread = threading.Thread(target=stage.step)
        thread.start()
        assert asked.wait(30)
        stage.interrupt()
        thread.join(25)
        assert not thread.is_alive()
        stage.close()
    assert (box.row(one)["state"], box.row(one)["attempt"]) == ("owed", 0)


@pytest.mark.parametrize("kind", ["stow", "webhook"])
def test_a_server_that_closes_after_each_answer_is_called_anew_without_a_failure(box, to, owe, kind):
    for _ in range(4):
        owe(kind)

    def answer(got):
        status, headers, body = stored(got)
        return status, {**headers, "Connection": "close"}, body

    with http_stub(answer) as stub:
        stage = box.stage_to(to(kind, stub.port))
        stage.step()
        stage.close()
    assert box.states() == ["sent"] * 4
    assert [box.row(n)["attempt"] for n in range(1, 5)] == [1] * 4
    assert stub.connections == 4


@pytest.mark.parametrize("kind", ["stow", "webhook"])
def test_a_step_never_takes_longer_than_it_says_though_every_wait_of_a_server_that_closes_ends_only_at_its_limit(
    box, to, owe, kind, monkeypatch
):
    for _ in range(3):
        owe(kind, study=box._count + 1)
    connect_in_time, last = http.connect, STEP_S - 0.1

    def slow_connect(who, host, port, timeout_s, tls):
        box.clock.advance(30 + 2 * timeout_s)  # resolver, connection, handshake
        return connect_in_time(who, host, port, timeout_s, tls)

    def answer(got):
        box.clock.advance(last if len(stub.got) == 1 else longest_store_s(TIMEOUT_S, len(got.body)))
        status, headers, body = stored(got)
        return status, {**headers, "Connection": "close"}, body

    monkeypatch.setattr(http, "connect", slow_connect)
    with http_stub(answer) as stub:
        stage = box.stage_to(to(kind, stub.port))
        began = box.clock.monotonic()
        stage.step()
        took_s = box.clock.monotonic() - began
        stage.close()
    assert box.states() == ["sent", "sent", "owed"]
    assert took_s > 2 * 30, "the case is the worst one"
    assert took_s <= stage.max_step_s


# -- HL7 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (lambda m: ack_of(m, "AE"), "owed", "could not process"),
        (lambda m: ack_of(m, "AR"), "parked", "rejects the message"),
        (lambda m: ack_of(m, "CR"), "parked", "rejects the message"),
        (lambda m: ack_of(m, "AA", control="OTHER"), "owed", "another message"),
        (lambda _: b"garbage", "owed", "no HL7"),
        (lambda _: None, "owed", "closed"),
        (lambda _: b"x" * 70_000, "owed", "without an end"),
    ],
)
def test_what_a_his_answers_decides(box, to, owe, answer, state, words):
    one = owe("hl7")
    with mllp_peer(answer) as peer:
        stage = box.stage_to(to("hl7", peer.port))
        stage.step()
        stage.close()
    assert box.row(one)["state"] == state
    assert words in box.row(one)["error"]


@pytest.mark.req("R-RESULT-03")
def test_a_late_acknowledgement_never_counts_for_the_next_message(box, to, owe):
    first, second = owe("hl7"), owe("hl7", study=2)
    late = []

    def answer(message):
        told = ack_of(late.pop() if late else message, "AA")
        if not late and len(peer.got) == 1:
            late.append(message)
            return ack_of(message, "AE")
        return told

    with mllp_peer(answer) as peer:
        stage = box.stage_to(to("hl7", peer.port))
        stage.step()
        assert box.row(first)["state"] == "owed"
        assert box.row(second)["state"] == "owed"
        box.drain(stage)
        stage.close()
    ids = [message.split(b"|")[9] for message in peer.got]
    assert ids.count(ids[0]) == 2


def test_rejected_messages_hold_nobody_back(box, to, owe):
    bad, *_ = (owe("hl7") for _ in range(3))
    first = []

    def answer(message):
        first.append(1)
        return ack_of(message, "AR" if len(first) == 1 else "AA")

    with mllp_peer(answer) as peer:
        stage = box.stage_to(to("hl7", peer.port))
        box.drain(stage)
        stage.close()
    assert box.states() == ["parked", "sent", "sent"]
    assert "let the receiver accept it" in box.row(bad)["error"]


@pytest.mark.fault("T11")
def test_a_statement_that_has_changed_on_disk_is_told_and_not_sent(box, to, owe):
    one = owe("webhook")
    path = box.store.spool.path(box.row(one)["path"])
    path.write_bytes(path.read_bytes().replace(b"Suspected", b"Suspicted"))
    with http_stub(lambda _: (200, {}, b"")) as stub:
        stage = box.stage_to(to("webhook", stub.port))
        stage.step()
        stage.close()
    assert stub.got == []
    assert "SPOOL_CORRUPT" in box.issues()


def test_a_destination_that_answers_and_takes_nothing_becomes_an_issue(box, to, owe):
    for n in range(3):
        owe("hl7", study=n + 1)
    code = ["AE"]
    with mllp_peer(lambda message: ack_of(message, code[0])) as peer:
        stage = box.stage_to(to("hl7", peer.port))
        for _ in range(200):
            stage.step()
            box.clock.advance(5)
        assert box.issues() == {"DESTINATION_UNREACHABLE"}
        code[0] = "AA"
        for _ in range(3):
            box.clock.advance(301)
            stage.step()
        stage.close()
    assert box.states() == ["sent"] * 3
    assert box.issues() == set()


def test_a_secret_that_disappears_stops_the_destination_with_words_and_nothing_else(box, to, owe):
    one = owe("webhook")
    with http_stub(lambda _: (200, {}, b"")) as stub:
        destination = to("webhook", stub.port)
        stage = box.stage_to(destination)
        text = destination.secret_path.read_text()
        destination.secret_path.unlink()
        stage.step()
        assert "secret_path" in box.row(one)["error"]
        destination.secret_path.touch(mode=0o600)
        destination.secret_path.write_text(text)
        box.drain(stage)
        stage.close()


def test_cutting_a_connection_leaves_the_encryption_of_it_in_place():
    calls = []

    class Probe(socket.socket):
        def shutdown(self, how):
            calls.append(how)

    one, other = socket.socketpair()
    with one, other:
        probe = Probe(fileno=one.detach())
        with probe:
            connect.cut(probe)
            assert calls == []
            assert other.recv(1) == b""


# -- over TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "hospital")


def test_an_object_over_which_a_server_ends_its_tls_holds_nobody_back_and_is_parked(box, to, owe, authority):
    poison, *_ = (owe("stow", study=n + 1, data=bytes(4 << 20)) for n in range(3))
    uid = box.row(poison)["sop_instance_uid"].encode()
    context = server_side(authority.issue("server"))

    def script(connection, _number):
        with context.wrap_socket(connection, server_side=True) as secured, secured.makefile("rb") as stream:
            while line := stream.readline():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
                if line == b"\r\n":
                    begin = stream.read(4096)
                    if uid in begin:
                        return
                    stream.read(length - len(begin))
                    item = {"00081155": {"vr": "UI", "Value": ["2.25." + begin.split(b"2.25.")[1][:4].decode()]}}
                    told = json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()
                    secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told) + told)

    with scripted_peer(script) as port:
        stage = box.stage_to(to("stow", port, tls={"ca_path": authority.path}))
        box.drain(stage)
        stage.close()
    assert box.states() == ["parked", "sent", "sent"]
    assert "while others were stored" in box.row(poison)["error"]


@pytest.mark.parametrize("banner", [b"", b"hello"])
def test_a_port_that_resets_connections_before_tls_is_told_and_waited_for(box, to, owe, authority, monkeypatch, banner):
    one = owe("hl7")
    connected, is_connected = connect._connected, threading.Event()

    def after_the_reset(*whom):
        connection = connected(*whom)
        is_connected.set()
        select.select([connection], [], [], 60)
        return connection

    def script(connection, _number):
        is_connected.wait(60)
        connection.sendall(banner)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    monkeypatch.setattr(connect, "_connected", after_the_reset)
    with scripted_peer(script) as port:
        stage = box.stage_to(to("hl7", port, tls={"ca_path": authority.path}))
        assert not stage.step()
        stage.close()
    assert "TLS" in box.row(one)["error"]
    assert (box.row(one)["state"], box.row(one)["attempt"]) == ("owed", 0)
