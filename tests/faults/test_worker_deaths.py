"""The worker crashes, hangs, eats memory, gives nonsense, is killed: it is named, and the rest goes on (T29-T31)."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.uid import JPEG2000Lossless
from worker_kit import (
    LinkFactory,
    SpoolOfFiles,
    box_head,
    ct_files,
    load_message,
    make_ct_package,
    make_xray_package,
    series,
    wait_event,
    wait_ready,
    xray_file,
)

from appliance.records import Reason
from appliance.triage.availability import WorkerPolicy
from appliance.triage.protocol import Failed, Finish, Result, encode
from appliance.triage.worker_events import WorkerEnded, WorkerLost, WorkerTimedOut


@pytest.fixture
def spool(tmp_path):
    return SpoolOfFiles(tmp_path / "spool")


@pytest.fixture
def make_link(tmp_path, spool):
    factory = LinkFactory(tmp_path, spool.root)
    yield factory
    factory.stop()


@pytest.fixture
def package(tmp_path):
    """``package(mode)``: an X-ray package whose graph is replaced by the fake backend in that mode."""
    return lambda mode, **more: make_xray_package(
        tmp_path / f"package-{mode}", name=f"toy-{mode}", fake={"mode": mode, **more}
    )


def ask(link, spool, tmp_path, mode, *, limit_s=60.0, analysis_id=1):
    refs = spool.take([xray_file(tmp_path / "xray", seed=str(analysis_id))])
    inputs = {"image": series(refs, "xray", str(analysis_id))}
    return link.finish(analysis_id, f"toy-{mode}", inputs, limit_s=limit_s)


@pytest.mark.fault("T29")
def test_a_crash_is_told_with_its_signal_and_the_next_worker_serves_the_next_study(make_link, spool, package, tmp_path):
    link = make_link(package("crash"), package("ok"), backend="fake")
    with pytest.raises(WorkerLost, match="SIGSEGV") as caught:
        ask(link, spool, tmp_path, "crash", analysis_id=41)
    assert caught.value.analysis_id == 41
    ended = wait_event(link, WorkerEnded)
    assert (ended.analysis_id, ended.series_key) == (41, "41")
    wait_ready(link)
    assert isinstance(ask(link, spool, tmp_path, "ok", analysis_id=42), Result)


@pytest.mark.fault("T29")
@pytest.mark.req("R-TRIAGE-02")
def test_a_hang_ends_at_its_limit_by_the_workers_own_timer(make_link, spool, package, tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.triage.worker_client.GRACE_S", 60.0)  # the daemon's own limit is far away
    link = make_link(package("hang"), backend="fake")
    begun = time.monotonic()
    with pytest.raises(WorkerTimedOut, match="SIGALRM") as caught:
        ask(link, spool, tmp_path, "hang", limit_s=0.5)
    assert caught.value.analysis_id == 1
    assert 0.5 <= time.monotonic() - begun < 60, "before the daemon's own limit"


@pytest.mark.fault("T29")
@pytest.mark.req("R-TRIAGE-02")
def test_a_call_that_never_gives_the_interpreter_back_is_ended_too():
    """PyDLL keeps the interpreter's lock while pause() sleeps for ever: no Python code, no signal handler can run."""
    code = "import ctypes; from appliance.triage.worker import limited\nwith limited(0.3): ctypes.PyDLL(None).pause()"
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert ended.returncode == -signal.SIGALRM


@pytest.mark.fault("T29")
def test_a_stopped_worker_whose_timer_cannot_fire_is_ended_by_the_daemon(make_link, spool, package, tmp_path):
    link = make_link(package("slow", seconds=600), backend="fake")
    pid, later_s = link._worker.pid, [0.0]
    # The daemon's clock alone comes to the limit, once the worker is stopped: its own timer must not be the first.
    link._clock = SimpleNamespace(monotonic=lambda: time.monotonic() + later_s[0])

    def stop_it():
        while not any(p.step == "infer" for p in link.progress):
            time.sleep(0.005)
        os.kill(pid, signal.SIGSTOP)
        later_s[0] = 1000.0

    stopper = threading.Thread(target=stop_it)
    stopper.start()
    with pytest.raises(WorkerTimedOut, match="no answer within 60 s"):
        ask(link, spool, tmp_path, "slow")
    stopper.join()
    assert wait_event(link, WorkerEnded).pid == pid


@pytest.mark.fault("T29")
def test_memory_has_an_end_that_costs_one_analysis_and_not_the_worker(make_link, spool, package, tmp_path):
    link = make_link(package("memory"), package("ok"), backend="fake", arguments=["--memory-mb", "700"])
    pid = link._worker.pid
    answer = ask(link, spool, tmp_path, "memory")
    assert isinstance(answer, Failed)
    assert (answer.reason, "memory" in answer.detail) == (Reason.FAILED, True)
    assert isinstance(ask(link, spool, tmp_path, "ok", analysis_id=2), Result)
    assert link._worker.pid == pid


@pytest.mark.fault("T29")
def test_killed_in_the_middle_as_by_the_kernel_when_memory_ends(make_link, spool, package, tmp_path):
    link = make_link(package("slow", seconds=600), backend="fake")
    pid = link._worker.pid

    def kill_it():
        while not any(p.step == "infer" for p in link.progress):
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_it)
    killer.start()
    with pytest.raises(WorkerLost, match="SIGKILL") as caught:
        ask(link, spool, tmp_path, "slow")
    killer.join()
    assert caught.value.analysis_id == 1


@pytest.mark.fault("T29")
def test_a_death_while_preparing_ahead_names_the_series_and_blames_no_analysis(make_link, spool, tmp_path):
    link = make_link(make_ct_package(tmp_path / "ct"))
    big = ct_files(tmp_path / "f", box_head(range(0, 60, 5), matrix=512, spacing_mm=0.5), syntax=JPEG2000Lossless)
    link.open("77", "ct", ["toy-ct"])
    for ref in spool.take(big * 40):  # so many that the worker is at it whenever the kill comes
        link.add("77", ref.key, Path(ref.path))
    while not any(p.series_key == "77" for p in link.progress):
        time.sleep(0.002)
    os.kill(link._worker.pid, signal.SIGKILL)
    ended = wait_event(link, WorkerEnded)
    assert (ended.series_key, ended.analysis_id) == ("77", None)


@pytest.mark.fault("T31")
@pytest.mark.parametrize("mode", ["nan", "inf"])
def test_numbers_that_are_none_are_an_unreliable_output(make_link, spool, package, tmp_path, mode):
    link = make_link(package(mode), backend="fake")
    answer = ask(link, spool, tmp_path, mode)
    assert isinstance(answer, Failed)
    assert answer.reason is Reason.UNRELIABLE_OUTPUT


@pytest.mark.fault("T31")
def test_a_score_outside_of_what_it_can_mean_is_an_unreliable_output(make_link, spool, package, tmp_path):
    link = make_link(package("ok", value=1.5), backend="fake")
    assert ask(link, spool, tmp_path, "ok").reason is Reason.UNRELIABLE_OUTPUT


@pytest.mark.fault("T30")
def test_a_backend_that_fails_costs_one_analysis_and_gives_no_score(make_link, spool, package, tmp_path):
    link = make_link(package("error"), package("ok"), backend="fake")
    answer = ask(link, spool, tmp_path, "error")
    assert answer.reason is Reason.FAILED
    assert isinstance(ask(link, spool, tmp_path, "ok", analysis_id=2), Result)


@pytest.mark.fault("T29")
def test_crashes_on_three_studies_take_the_worker_away_for_a_minute(make_link, spool, package, tmp_path):
    link = make_link(package("crash"), backend="fake")
    now = 0.0  # the policy's: it also minds how long a worker takes to start, which says how busy this machine is
    policy = WorkerPolicy(now)
    policy.ready(now)
    for number in (1, 2, 3):
        wait_ready(link)
        now += 1
        policy.ready(now)
        with pytest.raises(WorkerLost):
            ask(link, spool, tmp_path, "crash", analysis_id=number)
        ended = wait_event(link, WorkerEnded)
        now += 1
        policy.ended(now, str(ended.analysis_id))
        link.want(policy.wants_worker(now))
    assert "3 different studies" in policy.unavailable(now).why
    assert not policy.wants_worker(now + 50)
    assert policy.wants_worker(now + 60)
    link.want(wanted=True)
    wait_ready(link)
    policy.ready(now + 61)
    assert policy.unavailable(now + 61) is None


@pytest.fixture
def listening(tmp_path, spool, package):
    """The test plays the daemon: a listening socket and a real worker that has said hello."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "d.sock"))
    listener.listen()
    folder = package("hang")
    command = [sys.executable, "-m", "appliance.triage.worker", "--socket", str(tmp_path / "d.sock")]
    process = subprocess.Popen([*command, "--spool", str(spool.root), "--trust", str(folder), "--backend", "fake"])
    listener.settimeout(60)
    connection, _ = listener.accept()
    connection.settimeout(60)
    yield connection, process, folder
    process.kill()
    process.wait()
    connection.close()
    listener.close()


def read(connection):
    (length,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
    return connection.recv(length, socket.MSG_WAITALL)


@pytest.mark.parametrize("garbage", [b"\xff" * 64, struct.pack(">I", 3) + b"{}!", struct.pack(">I", 1 << 21)])
def test_a_worker_that_is_told_nonsense_ends_itself(listening, garbage):
    connection, process, _ = listening
    assert b'"hello"' in read(connection)
    connection.sendall(garbage)
    assert process.wait(60) == 2


def test_a_worker_whose_daemon_is_gone_ends_at_once_even_inside_of_a_hang(listening, spool, tmp_path):
    connection, process, folder = listening
    read(connection)
    connection.sendall(encode(load_message(folder)))
    assert b'"loaded"' in read(connection) + read(connection)
    refs = spool.take([xray_file(tmp_path / "x")])
    asked = Finish(analysis_id=1, package="toy-hang", inputs={"image": series(refs, "xray")}, limit_s=600)
    connection.sendall(encode(asked))
    while b'"infer"' not in read(connection):
        pass
    connection.close()
    assert process.wait(60) == 0


def test_a_worker_dies_with_a_daemon_that_is_killed(tmp_path, spool, package, wait_until):
    """PR_SET_PDEATHSIG: nobody is left to close the socket in order, and the worker may be inside of native code."""
    folder = package("ok")
    script = textwrap.dedent("""
        import sys, time
        sys.path[:0] = sys.argv[1:2]
        from pathlib import Path
        from worker_kit import LinkFactory
        link = LinkFactory(Path(sys.argv[2]), Path(sys.argv[3]))(Path(sys.argv[4]), backend="fake")
        print(link._worker.pid, flush=True)
        time.sleep(600)
    """)
    kit = str(Path(__file__).parents[1] / "support")
    daemon = subprocess.Popen(
        [sys.executable, "-c", script, kit, str(tmp_path), str(spool.root), str(folder)], stdout=subprocess.PIPE
    )
    with daemon:
        worker = int(daemon.stdout.readline())
        os.kill(worker, signal.SIGSTOP)  # it cannot see that its socket closes
        daemon.kill()
    try:
        wait_until(lambda: not is_alive(worker))
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
