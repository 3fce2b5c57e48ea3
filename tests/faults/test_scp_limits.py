"""Peers that are silent, slow, too many or too large: an honest scanner is served all the same."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from scp_kit import VERIFICATION, RawPeer, ct, data_pdu, echo_rq, encode, parts_left, running_scp, store_rq
from scp_process import scp_process

from appliance.intake.contract import ScpSettings

MEGABYTE = 1024**2


def echo(port):
    """Seconds that a whole C-ECHO takes, from connect to release. Fails where it is locked out for a minute."""
    began = time.monotonic()
    with RawPeer(port) as peer:
        assert peer.associate((VERIFICATION, ImplicitVRLittleEndian))[0] == 2
        peer.send(data_pdu(1, echo_rq(), command=True))
        assert peer.status() == 0
        peer.release()
    return time.monotonic() - began


def quickest_echo(port):
    """Every one of five is answered; the time of the best, as a busy machine holds up some."""
    return min(echo(port) for _ in range(5))


@contextlib.contextmanager
def idle_connections(port, count):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in range(count)]


def store_one(port):
    ds = ct(rows=64)
    with RawPeer(port) as peer:
        peer.associate()
        return peer.store(encode(ds), sop_instance=ds.SOPInstanceUID)


def stores_one(port):
    with contextlib.suppress(ConnectionError):
        return store_one(port) == 0
    return False


def begin_store(peer, ds, size):
    """Announce an object and send its first bytes only."""
    peer.associate()
    request = data_pdu(1, store_rq(ds.SOPClassUID, ds.SOPInstanceUID), command=True)
    peer.send(request + data_pdu(1, bytes(size), last=False))  # at once: between the two a deadline could pass


@pytest.mark.req("R-INTAKE-05")
@pytest.mark.fault("T12")
def test_two_hundred_idle_connections_lock_nobody_out_and_are_closed_in_time(tmp_path, wait_until):
    with running_scp(tmp_path / "open") as box, idle_connections(box.port, 200):
        assert quickest_echo(box.port) <= 1
    acse_timeout_s = ScpSettings().acse_timeout_s
    assert acse_timeout_s < 10
    with running_scp(tmp_path / "closed", acse_timeout_s=acse_timeout_s) as box:
        with idle_connections(box.port, 200) as idle:
            for one in idle:
                assert one.recv(1) == b""
        wait_until(lambda: stores_one(box.port))  # a scanner that is held up for so long is closed too


@pytest.mark.req("R-INTAKE-05")
@pytest.mark.fault("T12")
def test_when_too_many_wait_the_oldest_makes_room_for_the_newest(tmp_path):
    with running_scp(tmp_path, max_pending=10) as box, idle_connections(box.port, 30) as idle:
        assert quickest_echo(box.port) <= 1
        assert idle[0].recv(1) == b""
        idle[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            idle[-1].recv(1)


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T13")
def test_data_set_that_drips_is_ended_and_leaves_nothing(tmp_path):
    with running_scp(tmp_path, pdu_deadline_s=0.5) as box, RawPeer(box.port) as peer:
        begin_store(peer, ct(), 100)
        began = time.monotonic()
        header = struct.pack(">BxL", 4, 1000)
        with contextlib.suppress(ConnectionError):
            for byte in header + bytes(1000):
                peer.send(bytes([byte]))
                time.sleep(0.05)  # the fault itself: a peer that sends one byte at a time
                if box.sink.closed:
                    break
        assert time.monotonic() - began < 40, "the whole would have taken fifty seconds"
        box.sink.wait_for(lambda sink: sink.closed)
        assert parts_left(box.spool) == []


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T13")
def test_message_of_many_tiny_pdus_cannot_go_on_for_ever(tmp_path):
    with running_scp(tmp_path, pdu_deadline_s=0.5) as box, RawPeer(box.port) as peer:
        begin_store(peer, ct(), 1)
        with contextlib.suppress(ConnectionError):
            while not box.sink.closed:
                peer.send(data_pdu(1, b"x", last=False))
                time.sleep(0.05)  # the fault itself: each PDU in time, the whole never done
        box.sink.wait_for(lambda sink: sink.closed)
        assert parts_left(box.spool) == []


@pytest.mark.req("R-INTAKE-04")
def test_association_on_which_nothing_comes_is_aborted(tmp_path):
    with running_scp(tmp_path, network_timeout_s=0.5) as box, RawPeer(box.port) as peer:
        peer.associate()
        assert peer.read() == (7, bytes((0, 0, 2, 0)))
        box.sink.wait_for(lambda sink: sink.closed)
        assert box.sink.closed[0].how == "lost"


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T14")
def test_announced_pdu_of_four_gigabytes_is_cut_at_once_and_costs_no_memory(tmp_path):
    with scp_process(tmp_path / "box") as (process, port):
        assert store_one(port) == 0
        before = psutil.Process(process.pid).memory_info().rss
        for start in (b"", None):
            with RawPeer(port) as peer:
                if start is None:
                    peer.associate()
                peer.send(struct.pack(">BxL", 4 if start is None else 1, 0xFFFFFFF0))
                sent = 0
                with contextlib.suppress(ConnectionError, TimeoutError):
                    while sent < 200 * MEGABYTE:
                        peer.send(bytes(64 * 1024))
                        sent += 64 * 1024
                # What the kernels of both sides had room for, not what the box read.
                assert sent < 16 * MEGABYTE
        assert psutil.Process(process.pid).memory_info().rss - before < 20 * MEGABYTE
        assert store_one(port) == 0


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T16")
def test_a_hundred_and_twenty_eight_associations_at_once_lose_nothing(tmp_path):
    with running_scp(tmp_path) as box:
        with ThreadPoolExecutor(128) as pool:
            statuses = list(pool.map(lambda _: store_one(box.port), range(128)))
        assert statuses == [0] * 128
        assert len({row.header.sop_instance_uid for row in box.sink.stored}) == 128
        assert psutil.Process().memory_info().rss < 1.5 * 1024 * MEGABYTE


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T17")
def test_flood_above_the_limit_is_rejected_as_transient_and_harms_no_one(tmp_path, scale):
    ds = ct()
    with running_scp(tmp_path, max_associations=10) as box, contextlib.ExitStack() as stack:
        honest = [stack.enter_context(RawPeer(box.port)) for _ in range(10)]
        assert all(peer.associate()[0] == 2 for peer in honest)

        for _ in range(int(500 * scale)):
            with RawPeer(box.port) as peer:
                assert peer.associate() == (3, bytes((0, 2, 3, 2)))

        assert [peer.store(encode(ds), sop_instance=ds.SOPInstanceUID) for peer in honest] == [0] * 10
        honest[0].release()
        box.sink.wait_for(lambda sink: sink.closed)
        assert store_one(box.port) == 0
        assert len({refusal.message for refusal in box.sink.refusals}) == 1


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T17")
def test_one_host_cannot_take_all_places(tmp_path):
    with running_scp(tmp_path, max_per_host=2) as box, RawPeer(box.port) as first, RawPeer(box.port) as second:
        assert first.associate()[0] == second.associate()[0] == 2
        with RawPeer(box.port) as third:
            assert third.associate() == (3, bytes((0, 2, 3, 2)))


@pytest.mark.fault("T08")
def test_exhausted_file_descriptors_lock_nobody_out(tmp_path):
    with scp_process(tmp_path / "box", limits={"RLIMIT_NOFILE": 64}) as (process, port):
        with idle_connections(port, 100):
            assert quickest_echo(port) <= 1
            assert store_one(port) == 0
        assert process.poll() is None
        assert store_one(port) == 0


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T19")
def test_object_above_the_bound_streams_past_without_memory_and_is_refused(tmp_path, scale):
    limit = int(4096 * MEGABYTE * scale) if scale == 1 else 64 * MEGABYTE
    ds = ct()
    fragment = data_pdu(1, bytes(131_000), last=False)
    with scp_process(tmp_path / "box", max_object_bytes=limit) as (process, port), RawPeer(port) as peer:
        assert store_one(port) == 0
        before = psutil.Process(process.pid).memory_info().rss
        begin_store(peer, ds, 1)
        for _ in range(limit // 131_000 + 10):
            peer.send(fragment)
        peer.send(data_pdu(1, b"", last=True))
        assert peer.status() == 0xA700
        assert psutil.Process(process.pid).memory_info().rss - before < 100 * MEGABYTE
        assert list((tmp_path / "box" / "spool" / "incoming").iterdir()) == []
        assert peer.store(encode(ds), sop_instance=ds.SOPInstanceUID) == 0


@pytest.mark.fault("T19")
def test_data_set_without_end_is_aborted(tmp_path):
    with running_scp(tmp_path, max_object_bytes=MEGABYTE) as box, RawPeer(box.port) as peer:
        begin_store(peer, ct(), 1)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                peer.send(data_pdu(1, bytes(100_000), last=False))
        box.sink.wait_for(lambda sink: sink.closed)
        assert box.sink.closed[0].how == "aborted"


@pytest.mark.fault("T18")
@pytest.mark.parametrize("end", ["abort", "reset", "close", "release", "silence"])
def test_association_that_ends_in_the_middle_of_an_object_leaves_nothing(tmp_path, end):
    deadline = {"pdu_deadline_s": 0.5} if end == "silence" else {}
    with running_scp(tmp_path, **deadline) as box, RawPeer(box.port) as peer:
        begin_store(peer, ct(), 5000)
        box.sink.wait_for(lambda sink: sink.opened)
        if end == "abort":
            peer.send(struct.pack(">BBLL", 7, 0, 4, 0))
        elif end == "reset":
            peer.reset()
        elif end == "close":
            peer.sock.close()
        elif end == "release":
            assert peer.release()[0] == 7
        box.sink.wait_for(lambda sink: sink.closed)

        assert box.sink.closed[0].how == {"abort": "aborted", "release": "aborted"}.get(end, "lost")
        assert box.sink.closed[0].images == 0
        assert parts_left(box.spool) == []
        assert box.sink.stored == []


@pytest.mark.fault("T18")
def test_images_before_a_reset_stay_acknowledged(tmp_path):
    ds = ct()
    with running_scp(tmp_path) as box, RawPeer(box.port) as peer:
        peer.associate()
        assert peer.store(encode(ds), sop_instance=ds.SOPInstanceUID) == 0
        peer.reset()
        box.sink.wait_for(lambda sink: sink.closed)
        assert (box.sink.closed[0].how, box.sink.closed[0].images) == ("lost", 1)
        assert box.spool.path(box.sink.stored[0].path).is_file()
