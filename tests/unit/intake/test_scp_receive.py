"""What must be true before the box says 0x0000, and what stays behind when it says something else: nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from scp_kit import RecordingSink, ct, encode, sha256, store_rq

from appliance.clock import FakeClock
from appliance.dicom.commands import parse_request
from appliance.dicom.headers import read_header
from appliance.dicom.pdus import Result
from appliance.errors import RejectedInstance, StoreError
from appliance.intake.contract import ScpSettings
from appliance.intake.negotiation import ContextResult
from appliance.intake.receive import Parts, Peer, StoreOperation
from appliance.records import SourceMode, SourceRef
from appliance.store.spool import Spool

CONTEXT = ContextResult(1, Result.ACCEPTANCE, ExplicitVRLittleEndian, CTImageStorage)


class Bench:
    """One association's receiving half, with everything in reach."""

    def __init__(self, folder, *, header_reader=read_header, stat=False, **settings):
        self.sink = RecordingSink()
        self.spool = Spool(folder / "spool", reserve_bytes=0)
        self.clock = FakeClock()
        self.parts = Parts(
            settings=ScpSettings(**settings),
            sink=self.sink,
            spool=self.spool,
            read_header=header_reader,
            clock=self.clock,
        )
        source = SourceRef(name="ct1", mode=SourceMode.PARALLEL, stat=stat, assume_charset="GB18030")
        self.peer = Peer(association_id=7, source=source, calling_ae="CT", called_ae="SCANSIDE")

    def begin(self, ds, *, sop_class=None, sop_instance=None, priority=0):
        command = store_rq(sop_class or ds.SOPClassUID, sop_instance or ds.SOPInstanceUID, priority=priority)
        return StoreOperation(self.parts, self.peer, parse_request(command), CONTEXT)

    def receive(self, ds, data=None, **command):
        operation = self.begin(ds, **command)
        data = encode(ds) if data is None else data
        for start in range(0, len(data), 1000):
            operation.data(memoryview(data)[start : start + 1000])
        return operation.finish()

    def files(self):
        return [str(p.relative_to(self.spool.root)) for p in self.spool.root.rglob("*") if p.is_file()]

    def refusal(self):
        (refusal,) = self.sink.refusals
        return refusal


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.mark.req("R-INTAKE-03")
def test_stored_object_is_byte_identical_and_the_sink_gets_its_facts(bench):
    ds = ct()
    data = encode(ds)

    assert bench.receive(ds) == 0x0000

    (received,) = bench.sink.stored
    path = bench.spool.path(received.path)
    assert path.read_bytes().endswith(data)
    assert received.data_sha256 == sha256(data)
    assert received.size == path.stat().st_size
    assert (received.association_id, received.source) == (7, "ct1")
    assert received.received_mono == bench.clock.monotonic()
    assert received.header.sop_instance_uid == ds.SOPInstanceUID
    assert dcmread(path).pixel_array.shape == (16, 16)


@pytest.mark.req("R-INTAKE-03")
def test_sink_is_called_only_when_the_file_lies_under_its_final_name(bench):
    seen = []
    bench.sink.on_store = lambda received: seen.append(bench.files() == [received.path])
    bench.receive(ct())
    assert seen == [True]


def test_header_is_read_before_the_object_gets_its_final_name(tmp_path):
    seen = []

    def reader(path, *, assume_charset):
        seen.append((path.suffix, assume_charset))
        return read_header(path, assume_charset=assume_charset)

    Bench(tmp_path, header_reader=reader).receive(ct())

    assert seen == [(".part", "GB18030")]


@pytest.mark.parametrize(("priority", "source_stat", "stat"), [(0, False, False), (1, False, True), (0, True, True)])
def test_high_priority_or_a_stat_source_makes_the_object_stat(tmp_path, priority, source_stat, stat):
    bench = Bench(tmp_path, stat=source_stat)
    bench.receive(ct(), priority=priority)
    assert bench.sink.stored[0].stat is stat


@pytest.mark.fault("T24")
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"sop_class": MRImageStorage}, 0x0122),
        ({"sop_instance": "1.2.3.4"}, 0xA900),
        ({"sop_instance": "../../x"}, 0xC000),
        ({"sop_instance": "1" * 65}, 0xC000),
    ],
)
def test_request_that_does_not_fit_its_data_set_is_refused_and_recorded(bench, change, status):
    assert bench.receive(ct(), **change) == status
    assert (bench.refusal().status, bench.refusal().association_id, bench.refusal().source) == (status, 7, "ct1")
    assert bench.sink.stored == []
    assert not [name for name in bench.files() if name.startswith(("store", "incoming"))]


@pytest.mark.fault("T24")
def test_data_set_of_another_class_than_its_request_is_refused(bench):
    assert bench.receive(ct(SOPClassUID=MRImageStorage), sop_class=CTImageStorage) == 0xA900


@pytest.mark.fault("T22")
@pytest.mark.parametrize("data", [b"", b"garbage" * 50, b"\xff" * 4000])
def test_what_is_no_dicom_goes_to_quarantine_and_not_into_the_store(bench, data):
    assert bench.receive(ct(), data) == 0xC000
    assert [name.split("/")[0] for name in bench.files()] == ["quarantine"]
    assert bench.refusal().status == 0xC000


@pytest.mark.fault("T22")
def test_truncated_pixel_data_are_not_acknowledged(bench):
    ds = ct(rows=64)
    assert bench.receive(ds, encode(ds)[:-100]) == 0xC000
    assert bench.sink.stored == []


@pytest.mark.fault("T22")
@pytest.mark.parametrize("error", [RecursionError, ValueError, AttributeError, MemoryError, NotImplementedError])
def test_any_exception_of_the_header_reader_is_a_refusal(tmp_path, error):
    def reader(path, *, assume_charset):
        raise error("the patient's name")

    bench = Bench(tmp_path, header_reader=reader)

    assert bench.receive(ct()) == 0xC000
    assert error.__name__ in bench.refusal().message
    assert "patient" not in bench.refusal().message
    assert [name.split("/")[0] for name in bench.files()] == ["quarantine"]


def test_header_reader_that_cannot_read_the_disk_is_no_fault_of_the_object(tmp_path):
    def reader(path, *, assume_charset):
        raise OSError(errno.EMFILE, "Too many open files")

    bench = Bench(tmp_path, header_reader=reader)

    assert bench.receive(ct()) == 0xA700
    assert bench.files() == []


@pytest.mark.req("R-INTAKE-03")
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreError("database is full"), 0xA700),
        (RejectedInstance(0xC001, "not this one"), 0xC001),
        (KeyError("a bug"), 0xA700),
    ],
)
def test_object_that_the_sink_does_not_record_leaves_no_file_and_no_success(bench, error, status):
    def refuse(_):
        raise error

    bench.sink.on_store = refuse

    assert bench.receive(ct()) == status
    assert bench.files() == []
    assert bench.refusal().status == status


@pytest.mark.fault("T05")
@pytest.mark.parametrize("call", ["open", "write", "fdatasync", "rename", "fsync"])
def test_disk_error_at_any_step_is_out_of_resources_and_the_next_object_is_taken(bench, monkeypatch, call):
    # pathlib of Python 3.10 keeps the os.rename that it was imported with.
    owner = Path if call == "rename" else os
    real, failures = getattr(owner, call), [True]

    def fail_once(*args, **kwargs):
        if failures:
            failures.pop()
            raise OSError(errno.EIO, "Input/output error")
        return real(*args, **kwargs)

    ds = ct()
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, fail_once)
        assert bench.receive(ds) == 0xA700
    assert bench.files() == []
    assert "Input/output error" in bench.refusal().message
    assert bench.spool.fault is not None

    assert bench.receive(ds) == 0x0000
    assert bench.spool.fault is None


def test_equal_refusals_have_equal_messages_so_that_the_journal_can_count_them(bench, monkeypatch):
    monkeypatch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    bench.receive(ct())
    bench.receive(ct())
    first, second = (refusal.message for refusal in bench.sink.refusals)
    assert first == second


@pytest.mark.req("R-INTAKE-16")
def test_object_is_refused_at_the_disk_reserve(bench):
    bench.spool.reserve_bytes = 1 << 62
    assert bench.receive(ct()) == 0xA700
    assert "disk full" in bench.refusal().message


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T19")
def test_object_above_the_bound_is_removed_at_once_and_refused_at_its_end(tmp_path):
    bench = Bench(tmp_path, max_object_bytes=5000)
    operation = bench.begin(ct())

    operation.data(memoryview(bytes(5000)))
    assert len(bench.files()) == 1
    operation.data(memoryview(bytes(1)))
    assert bench.files() == []
    operation.data(memoryview(bytes(5000)))

    assert operation.finish() == 0xA700
    assert "5000 bytes" in bench.refusal().message


@pytest.mark.fault("T18")
def test_association_that_ends_in_the_middle_leaves_nothing(bench):
    operation = bench.begin(ct())
    operation.data(memoryview(bytes(5000)))
    operation.abort()
    assert bench.files() == []


@pytest.mark.req("R-HOUSE-22")
def test_refusals_hold_no_uids_and_no_patient_data(bench):
    ds = ct(PatientName="Secret^Name", PatientID="ID4711")
    bench.receive(ds, sop_instance="1.2.3.4")
    bench.receive(ds, encode(ds)[:-3])
    for refusal in bench.sink.refusals:
        for secret in ("Secret", "ID4711", str(ds.SOPInstanceUID), "1.2.3.4", str(ds.StudyInstanceUID)):
            assert secret not in refusal.message


@pytest.mark.fault("T06")
def test_refusal_that_cannot_be_journalled_is_still_answered(bench):
    def full(**_):
        raise StoreError("database is full")

    bench.sink.refused = full
    bench.spool.reserve_bytes = 1 << 62
    assert bench.receive(ct()) == 0xA700
