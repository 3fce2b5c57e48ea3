"""The daemon's end of the socket against a peer that is a real process and does not behave."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time

import pytest
from worker_kit import series, wait_event, wait_ready

from appliance.clock import SystemClock
from appliance.records import Reason, Role
from appliance.triage import worker_peer
from appliance.triage.protocol import InstanceRef, Load
from appliance.triage.worker_client import WorkerLink
from appliance.triage.worker_events import WorkerEnded, WorkerLost, WorkerReady, WorkerStarted, WorkerTimedOut

#: A peer that speaks as it is told: each argument is a Python expression for the bytes of one step.
PEER = """
import json, socket, struct, sys, time
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
def msg(**fields):
    body = json.dumps(fields).encode()
    return struct.pack(">I", len(body)) + body
def hello(protocol=2):
    return msg(type="hello", protocol=protocol, pid=1)
def loaded(package="p"):
    return msg(type="loaded", package=package, digest="d", engine_digest="e", backend="b", precision="fp32", ms=1.0)
def read(kind):
    while True:
        (n,) = struct.unpack(">I", sock.recv(4, socket.MSG_WAITALL))
        got = json.loads(sock.recv(n, socket.MSG_WAITALL))
        if got["type"] == kind:
            return got
for step in sys.argv[2:]:
    exec(step)
sock.recv(1 << 20)
while sock.recv(1 << 20):
    pass
time.sleep(60)  # the end of the socket does not end it: only the daemon does
"""
READY = ("sock.sendall(hello())", "read('load')", "sock.sendall(loaded())")
PACKAGE = Load(package="p", folder="/nowhere", digest="d", role=Role.LIVE)
ONE = {"image": series([InstanceRef(key="1", path="/x")], "xray")}


@pytest.fixture
def make_link(tmp_path):
    links = []

    def make(packages=(PACKAGE,), **changes):
        link = WorkerLink(
            tmp_path / "worker.sock", tmp_path, clock=SystemClock(), packages=packages, spawn=False, **changes
        )
        links.append(link)
        link.start()
        link.want(wanted=True)
        return link

    yield make
    for link in links:
        link.stop()


@pytest.fixture
def peer(tmp_path):
    started = []

    def start(*steps):
        process = subprocess.Popen([sys.executable, "-c", PEER, str(tmp_path / "worker.sock"), *steps])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_worker_is_ready_only_when_it_has_answered_for_its_packages(make_link, peer, tmp_path):
    link = make_link()
    told = "import os\nwhile not os.path.exists(os.path.dirname(sys.argv[1]) + '/go'): time.sleep(0.01)"
    process = peer("sock.sendall(hello())", "read('load')", told, "sock.sendall(loaded())")
    started = wait_event(link, WorkerStarted)
    assert started.pid == process.pid, "the kernel's word for it, not the worker's"
    threading.Event().wait(0.3)  # long enough for it to be ready, if it were by its hello
    assert not link.is_ready
    begun = time.monotonic()
    (tmp_path / "go").touch()
    ready = wait_event(link, WorkerReady)
    assert ready.at_mono >= begun
    assert dict(ready.packages) == {"p": "d"}
    assert link.ready_since_mono == ready.at_mono


def test_what_serves_is_told_as_of_one_moment_whatever_the_worker_says_next(make_link, peer):
    link = make_link()
    peer(*READY)
    wait_ready(link)
    at_that_moment = link.loaded
    link.serve(())
    assert (list(at_that_moment), list(link.loaded)) == (["p"], [])


def test_a_worker_that_refuses_its_only_package_is_never_ready_and_the_reason_is_kept(make_link, peer, wait_until):
    link = make_link()
    peer("sock.sendall(hello())", "read('load')", "sock.sendall(msg(type='refused', package='p', message='no golden'))")
    wait_until(lambda: link.refused)
    assert link.refused == {"p": "no golden"}
    assert not link.is_ready
    assert link.finish(1, "p", ONE, limit_s=1).reason is Reason.AI_UNAVAILABLE


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (["sock.sendall(b'GET / HTTP/1.1' + bytes(100))"], "announced"),
        (["sock.sendall(struct.pack('>I', 2) + b'{}')"], "no message"),
        (["sock.sendall(hello(protocol=99))"], "protocol 99"),
        (["sock.sendall(loaded())"], "before hello"),
        (["sock.sendall(hello() + hello())"], "hello"),
        (["sock.sendall(hello())", "read('load')", "sock.sendall(loaded('other'))"], "was not asked to load"),
        ([*READY, "sock.sendall(msg(type='compared', request_id=5, same=True))"], "nobody asked for"),
        (
            [*READY, "sock.sendall(msg(type='failed', analysis_id=3, reason='failed', details=[]))"],
            "nobody asked for",
        ),
        (["sock.sendall(hello())", "m = msg(type='progress', step='idle') * 25000", "sock.sendall(m)"], "flood"),
    ],
)
def test_a_worker_that_breaks_the_protocol_is_killed_and_the_reason_told(make_link, peer, steps, why):
    link = make_link()
    process = peer(*steps)
    ended = wait_event(link, WorkerEnded)
    assert why in ended.why
    assert process.wait(60) == -9


def test_half_a_message_is_waited_for_only_so_long(make_link, peer, monkeypatch):
    monkeypatch.setattr(worker_peer, "_HALF_MESSAGE_S", 0.3)
    link = make_link()
    process = peer("sock.sendall(hello() + b'\\0\\0\\0\\x40{')")
    assert "half a message" in wait_event(link, WorkerEnded).why
    assert process.wait(60) == -9


def test_an_answer_that_comes_piece_by_piece_is_an_answer(make_link, peer):
    link = make_link()
    peer(
        *READY,
        "one = read('finish')['analysis_id']",
        "m = msg(type='failed', analysis_id=one, reason='quality', details=[{'text': 'dark'}])",
        "[(sock.sendall(m[i:i+1]), time.sleep(0.001)) for i in range(len(m))]",
    )
    wait_ready(link)
    assert link.finish(4, "p", ONE, limit_s=60).detail == "dark"


def test_a_question_without_a_worker_is_answered_at_once(make_link):
    link = make_link()
    with pytest.raises(WorkerLost, match="no worker is ready"):
        link.finish(1, "p", ONE, limit_s=20)
    link.add("1", "2", "/x")  # a hint to nobody is no error


def test_hints_never_block_and_a_worker_that_reads_nothing_costs_bounded_memory(make_link, peer, tmp_path):
    link = make_link()
    peer(*READY, "time.sleep(600)")
    wait_ready(link)
    begun = time.monotonic()
    for number in range(60_000):
        link.add("1", str(number), tmp_path / ("x" * 200))
    assert time.monotonic() - begun < 30
    assert link._peer.backlog_bytes < 5 << 20


def test_a_worker_that_answers_nothing_is_ended_after_limit_and_grace(make_link, peer, monkeypatch):
    monkeypatch.setattr("appliance.triage.worker_client.GRACE_S", 0.2)
    link = make_link()
    process = peer(*READY, "time.sleep(600)")
    wait_ready(link)
    # It never said that it works on analysis 9, so this is no time-out of that analysis.
    with pytest.raises(WorkerLost, match=r"no answer within 0\.3 s") as caught:
        link.finish(9, "p", ONE, limit_s=0.3)
    assert caught.value.analysis_id is None
    assert process.wait(60) == -9
    assert not link.is_ready


def test_a_worker_of_its_own_unit_that_ends_at_its_limit_has_timed_out(make_link, peer, monkeypatch):
    """Nobody tells the daemon the signal that ended a process which is not its child: the time does."""
    monkeypatch.setattr("appliance.triage.worker_client.GRACE_S", 60.0)  # the daemon's own limit is far away
    link = make_link()
    busy = "sock.sendall(msg(type='progress', step='infer', analysis_id=read('finish')['analysis_id']))"
    peer(*READY, busy, "time.sleep(0.6)", "sys.exit()")
    wait_ready(link)
    with pytest.raises(WorkerTimedOut) as caught:
        link.finish(8, "p", ONE, limit_s=0.5)
    assert caught.value.analysis_id == 8


def test_unwanted_it_is_ended_and_the_next_one_is_asked_nothing_until_it_is_wanted(make_link, peer):
    link = make_link()
    first = peer(*READY)
    wait_ready(link)
    link.want(wanted=False)
    assert "until its next try" in wait_event(link, WorkerEnded).why
    assert first.wait(60) == -9
    second = peer(*READY)
    wait_event(link, WorkerStarted)
    threading.Event().wait(0.5)  # long enough for it to be asked, if that were going to happen
    assert not link.is_ready
    assert second.poll() is None
    link.want(wanted=True)
    assert wait_event(link, WorkerReady).pid == second.pid


def test_a_second_worker_is_turned_away_while_the_first_serves(make_link, peer):
    link = make_link()
    first = peer(*READY)
    wait_ready(link)
    second = peer("sock.sendall(hello())")
    second.wait(60)
    assert link.is_ready
    assert first.poll() is None


def test_the_socket_is_for_this_user_alone_and_goes_with_the_link(make_link, tmp_path):
    link = make_link()
    path = tmp_path / "worker.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    link.stop()
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_turned_away(make_link, tmp_path, peer):
    link = make_link()
    path = tmp_path / "worker.sock"
    path.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o011)
    script = "import os, sys, socket; os.setuid(65534); exec(sys.argv[1])"
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); assert s.recv(1) == b''"
    subprocess.run([sys.executable, "-c", script, code], check=True, timeout=60)
    peer(*READY)
    wait_ready(link)


def test_a_worker_that_cannot_be_started_is_an_event_and_no_crash(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    link = WorkerLink(tmp_path / "w.sock", tmp_path, clock=SystemClock())
    link.start()
    try:
        link.want(wanted=True)
        ended = wait_event(link, WorkerEnded)
        assert ended.pid == 0
        assert "cannot be started" in ended.why
    finally:
        link.stop()


def test_events_wake_their_reader(make_link, peer):
    woken = threading.Event()
    make_link(on_event=woken.set)
    peer("sock.sendall(hello())")
    assert woken.wait(60)


def test_stopping_ends_an_open_question(make_link, peer):
    link = make_link()
    peer(*READY)
    wait_ready(link)
    caught = []

    def ask():
        try:
            link.finish(1, "p", ONE, limit_s=60)
        except WorkerLost as error:
            caught.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not link._answers:
        time.sleep(0.01)
    link.stop()
    asking.join(30)
    assert "the daemon stops" in caught[0].how
