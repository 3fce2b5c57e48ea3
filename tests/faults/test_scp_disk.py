"""Disks that fail, fill and forget, processes that are killed: nothing acknowledged is lost, nothing half is kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import contextmanager

import pytest
from scp_kit import RawPeer, ct, encode, parts_left, running_scp, sha256
from scp_process import rows, scp_process

from appliance.dicom.headers import data_set_offset, read_header
from appliance.store.spool import Spool

pytestmark = pytest.mark.req("R-INTAKE-03")
#: System calls on the way from the wire to 0x0000: part file, its folder, the database, the answer.
CALLS = ("write", "fdatasync", "rename", "fsync", "pwrite64", "sendto")
#: What an ext4 and a tmpfs both need for the 768 folders of a spool and a few files.
SPOOL_INODES = 800


@contextmanager
def traced_box(folder, system_tool, *options):
    """A receiver with strace attached to all its threads; yields process, port and the log, filled at the end."""
    with scp_process(folder) as (process, port), traced(system_tool, process, *options) as log:
        yield process, port, log


@contextmanager
def traced(system_tool, process, *options):
    """strace attached to all threads of a running process; yields its log as a list that is filled at the end."""
    strace = subprocess.Popen(
        [str(system_tool("strace")), "-f", "-y", "-p", str(process.pid), *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    first = strace.stderr.readline()
    if "attached" not in first:
        strace.wait()
        pytest.skip(f"strace may not attach here: {first.strip()}")
    log = []
    try:
        yield log
    finally:
        if strace.poll() is None and process.poll() is None:
            strace.send_signal(signal.SIGINT)
        log += strace.communicate(timeout=30)[1].splitlines()


@contextmanager
def tmpfs(folder, options):
    """A small file system of its own; only root may have one."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def send(port, images):
    """Send on one association until it breaks; the acknowledged ones as {uid: sha256 of the data set}, and statuses."""
    acknowledged, statuses = {}, []
    with RawPeer(port) as peer:
        if peer.associate() is None:
            return acknowledged, statuses
        for ds in images:
            data = encode(ds)
            try:
                status = peer.store(data, sop_instance=ds.SOPInstanceUID)
            except ConnectionError:
                break
            statuses.append(status)
            if status is None:
                break
            if status == 0:
                acknowledged[str(ds.SOPInstanceUID)] = sha256(data)
    return acknowledged, statuses


def assert_kept(folder, acknowledged):
    """Each acknowledged image has its row, each row its file, whole; nothing half is in the store."""
    kept = rows(folder)
    spool = Spool(folder / "spool", reserve_bytes=0)
    assert acknowledged.items() <= {uid: digest for uid, (_, digest) in kept.items()}.items()
    for path, digest in kept.values():
        whole = spool.path(path)
        assert sha256(whole.read_bytes()[data_set_offset(whole) :]) == digest
    # A kill between rename and commit leaves a file without a row, which the start scan adopts: it must be whole too.
    for orphan in set(spool.iter_files()) - {path for path, _ in kept.values()}:
        assert read_header(spool.path(orphan)).has_pixels
    spool.recover()
    assert parts_left(spool) == []


@pytest.mark.fault("T02")
@pytest.mark.parametrize("call", CALLS)
def test_kill_at_any_system_call_loses_no_acknowledged_image(tmp_path, system_tool, scale, call):
    for nth in range(1, 11) if scale == 1 else (4,):
        folder = tmp_path / f"{call}{nth}"
        kill = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={nth}")
        with traced_box(folder, system_tool, *kill) as (process, port, _):
            acknowledged, statuses = send(port, [ct(rows=64) for _ in range(12)])
            assert process.wait(30) == -signal.SIGKILL
        assert len(statuses) <= 12
        assert_kept(folder, acknowledged)
        with scp_process(folder) as (_, port):
            again, statuses = send(port, [ct()])
        assert statuses == [0]
        assert_kept(folder, acknowledged | again)


@pytest.mark.fault("T04")
def test_every_answer_comes_after_the_file_its_name_and_its_folder_are_on_disk(tmp_path, system_tool):
    trace = ("-e", "trace=fdatasync,rename,fsync,sendto")
    with traced_box(tmp_path / "box", system_tool, *trace) as (_, port, log):
        acknowledged, _ = send(port, [ct(rows=64) for _ in range(10)])
    assert len(acknowledged) == 10

    steps = []
    for line in log:
        for name, pattern in (
            ("file", r"fdatasync\(\d+<[^>]*\.part>"),
            ("name", r"rename\("),
            ("folder", r"fsync\(\d+<[^>]*/store/[0-9a-f]{2}>"),
            ("row", r"fdatasync\(\d+<[^>]*-wal>"),
            ("answer", r"sendto\("),
        ):
            if re.search(pattern, line):
                steps.append(name)
    accepted = steps.index("answer")  # the A-ASSOCIATE-AC
    one = ["file", "name", "folder", "row", "answer"]
    assert steps[accepted + 1 :] == one * 10


@pytest.mark.fault("T05")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["write", "fdatasync", "rename", "fsync"])
def test_disk_error_is_out_of_resources_once_and_then_all_is_well(tmp_path, system_tool, call, error):
    fail = ("-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1")
    with traced_box(tmp_path / "box", system_tool, *fail) as (_, port, log):
        acknowledged, statuses = send(port, [ct(rows=64) for _ in range(3)])
    assert statuses == [0xA700, 0, 0]
    assert_kept(tmp_path / "box", acknowledged)
    if call == "fdatasync":  # a second one on the same file would report success for data that are gone
        descriptors = [re.search(r"fdatasync\((\d+<[^>]*\.part>)", line) for line in log]
        files = [found[1].split("<")[1] for found in descriptors if found]
        assert len(files) == len(set(files)) == 3


@pytest.mark.fault("T06")
@pytest.mark.req("R-INTAKE-16")
def test_full_disk_is_out_of_resources_and_space_that_returns_is_used(tmp_path):
    with tmpfs(tmp_path / "disk", "size=8m") as disk, running_scp(disk) as box:
        _, statuses = send(box.port, [ct(rows=512) for _ in range(30)])
        assert set(statuses) == {0, 0xA700}
        assert parts_left(box.spool) == []
        assert "No space left" in box.spool.fault
        assert box.sink.refusals[-1].status == 0xA700
        assert all(box.spool.path(row.path).stat().st_size == row.size for row in box.sink.stored)

        box.spool.remove(box.sink.stored[0].path)
        assert send(box.port, [ct(rows=512)])[1] == [0]
        assert box.spool.fault is None


@pytest.mark.fault("T09")
def test_disk_without_inodes_is_out_of_resources_and_recovers(tmp_path):
    with tmpfs(tmp_path / "disk", f"size=64m,nr_inodes={SPOOL_INODES}") as disk, running_scp(disk) as box:
        _, statuses = send(box.port, [ct() for _ in range(60)])
        assert set(statuses) == {0, 0xA700}
        assert parts_left(box.spool) == []

        box.spool.remove(box.sink.stored[0].path)
        assert send(box.port, [ct()])[1] == [0]


@pytest.mark.fault("T07")
def test_limit_on_file_size_never_makes_a_truncated_file(tmp_path):
    with scp_process(tmp_path / "box", limits={"RLIMIT_FSIZE": 100_000}) as (_, port):
        acknowledged, statuses = send(port, [ct(rows=64), ct(rows=512), ct(rows=64)])
    assert statuses == [0, 0xA700, 0]
    assert_kept(tmp_path / "box", acknowledged)
