"""The spool: what it says is kept, is kept; what it could not keep, leaves nothing behind."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from scp_kit import sha256

from appliance.errors import StoreError
from appliance.store import part as part_module
from appliance.store.spool import PICTURES, RESULTS, Spool


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool", reserve_bytes=0)


def owner_of(call):
    """Where to patch a call of the spool: pathlib of Python 3.10 keeps the os.rename that it was imported with."""
    return Path if call == "rename" else os


def put(spool, data=b"pixels", prefix=b"meta"):
    part = spool.open_part(prefix)
    part.write(memoryview(data))
    return part


def files_below(spool):
    return [path for path in spool.root.rglob("*") if path.is_file()]


def test_committed_file_holds_prefix_and_data_under_a_random_name(spool):
    part = put(spool, b"a" * 1000, b"meta")

    relative = part.commit()

    assert re.fullmatch(r"store/[0-9a-f]{2}/[0-9a-f]{32}\.dcm", relative)
    assert spool.path(relative).read_bytes() == b"meta" + b"a" * 1000
    assert (part.file_size, part.size) == (1004, 1000)
    assert files_below(spool) == [spool.path(relative)]


def test_digest_is_of_the_data_set_alone(spool):
    assert put(spool, b"data", b"meta").data_sha256 == sha256(b"data")


def test_received_files_are_readable_by_the_service_alone(spool):
    assert spool.path(put(spool).commit()).stat().st_mode & 0o777 == 0o600


def test_aborted_part_leaves_nothing(spool):
    part = put(spool)
    part.abort()
    part.abort()
    assert files_below(spool) == []


def test_abort_after_commit_keeps_the_file(spool):
    part = put(spool)
    relative = part.commit()
    part.abort()
    assert spool.path(relative).is_file()


def test_short_writes_are_continued(spool, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))

    relative = put(spool, bytes(range(256))).commit()

    assert spool.path(relative).read_bytes() == b"meta" + bytes(range(256))


@pytest.mark.req("R-INTAKE-03")
@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_failed_sync_is_not_tried_again_and_removes_the_file(spool, monkeypatch, call):
    calls = []

    def fail(fd):
        calls.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    part = put(spool)
    monkeypatch.setattr(os, call, fail)

    with pytest.raises(StoreError, match="Input/output error"):
        part.commit()

    assert len(calls) == 1
    assert files_below(spool) == []
    assert "Input/output" in spool.fault


@pytest.mark.parametrize("call", ["write", "rename"])
def test_disk_error_removes_the_part_file(spool, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner_of(call), call, fail)

    with pytest.raises(StoreError, match="No space left"):
        put(spool).commit()

    assert files_below(spool) == []


def test_fault_is_over_with_the_next_kept_file(spool, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "Too many open files")))
        with pytest.raises(StoreError, match="Too many open files"):
            spool.open_part()
    assert spool.fault == "open: Too many open files"

    put(spool).commit()

    assert spool.fault is None


@pytest.mark.req("R-INTAKE-03")
@pytest.mark.fault("T04")
def test_file_is_synced_then_renamed_then_its_folder_is_synced(spool, monkeypatch):
    steps = []
    for name in ("fdatasync", "rename", "fsync"):
        owner = owner_of(name)
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, real=real, name=name: (steps.append(name), real(*args))[1])

    put(spool).commit()

    assert steps == ["fdatasync", "rename", "fsync"]


@pytest.mark.req("R-INTAKE-16")
def test_no_new_object_below_the_reserve(tmp_path):
    spool = Spool(tmp_path / "spool", reserve_bytes=1 << 62)

    with pytest.raises(StoreError, match="disk full"):
        spool.open_part()

    assert files_below(spool) == []


def test_reserve_holds_while_a_large_object_streams_in(spool, monkeypatch):
    monkeypatch.setattr(part_module, "_CHECK_EVERY", 1000)
    part = spool.open_part()
    spool.reserve_bytes = 1 << 62
    part.write(memoryview(bytes(999)))

    with pytest.raises(StoreError, match="disk full"):
        part.write(memoryview(bytes(1)))

    assert files_below(spool) == []


def test_default_reserve_is_two_gigabytes_or_a_twentieth(tmp_path):
    spool = Spool(tmp_path / "spool")
    disk = os.statvfs(tmp_path)
    assert spool.reserve_bytes == max(2 * 10**9, disk.f_blocks * disk.f_frsize // 20)


@pytest.mark.parametrize(
    "relative",
    ["", "../x", "/etc/passwd", "store/../../x", "store/ab/x.dcm", "incoming/" + "0" * 32 + ".part", "store/ab\n"],
)
def test_only_paths_that_the_spool_gave_out_are_opened(spool, relative):
    with pytest.raises(StoreError, match="not a path of the spool"):
        spool.path(relative)


@pytest.mark.req("R-STORE-09")
def test_recovery_removes_half_received_files_and_keeps_the_others(tmp_path):
    before = Spool(tmp_path / "spool", reserve_bytes=0)
    kept = put(before).commit()
    put(before)  # and then the power goes

    after = Spool(tmp_path / "spool", reserve_bytes=0)

    assert after.recover() == 1
    assert after.recover() == 0
    assert files_below(after) == [after.path(kept)]


@pytest.mark.parametrize("kind", [RESULTS, PICTURES])
def test_blob_is_kept_from_bytes_and_from_a_file(spool, tmp_path, kind):
    source = tmp_path / "made.png"
    source.write_bytes(b"png" * 1000)

    first = spool.write_blob(kind, b"sr")
    second = spool.write_blob(kind, source, suffix=".png")

    assert spool.path(first).read_bytes() == b"sr"
    assert spool.path(second).read_bytes() == source.read_bytes()
    assert sorted(spool.iter_files(kind)) == sorted([first, second])
    assert list(spool.iter_files()) == []


def test_blob_of_a_missing_source_leaves_nothing(spool, tmp_path):
    with pytest.raises(StoreError, match="source"):
        spool.write_blob(RESULTS, tmp_path / "gone")
    assert files_below(spool) == []


def test_removed_file_is_gone_and_removing_it_twice_is_silent(spool):
    relative = put(spool).commit()
    spool.remove(relative)
    spool.remove(relative)
    assert list(spool.iter_files()) == []


def test_quarantine_keeps_refused_objects_up_to_its_limits(tmp_path):
    spool = Spool(tmp_path / "spool", reserve_bytes=0, quarantine_objects=2, quarantine_bytes=25)

    first = put(spool, b"x" * 6).quarantine()
    too_large = put(spool, b"x" * 20).quarantine()
    second = put(spool, b"x" * 6).quarantine()
    too_many = put(spool, b"").quarantine()

    assert spool.path(first).read_bytes() == b"metaxxxxxx"
    assert too_large is None
    assert spool.path(second).is_file()
    assert too_many is None
    assert len(files_below(spool)) == 2


def test_quarantine_limits_hold_over_a_restart(tmp_path):
    put(Spool(tmp_path / "spool", reserve_bytes=0)).quarantine()
    again = Spool(tmp_path / "spool", reserve_bytes=0, quarantine_objects=1)
    assert put(again).quarantine() is None


def test_unusable_root_says_which(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="spool cannot be used"):
        Spool(tmp_path / "file" / "spool")
