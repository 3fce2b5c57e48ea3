"""A graceful stop: no new association, those at work finish, the others are aborted, nothing acknowledged is lost."""

from __future__ import annotations

import threading
import time

import pytest
from scp_kit import RawPeer, ct, data_pdu, data_pdus, encode, parts_left, running_scp, store_rq


@pytest.fixture
def box(tmp_path, free_port):
    with running_scp(tmp_path, port=free_port()) as running:  # nobody else listens there afterwards
        yield running


def stopping(box, timeout):
    thread = threading.Thread(target=box.scp.stop, args=(timeout,))
    thread.start()
    return thread


@pytest.mark.fault("T49")
def test_idle_association_is_aborted_at_once_and_no_new_one_is_taken(box):
    with RawPeer(box.port) as peer:
        peer.associate()
        began = time.monotonic()
        thread = stopping(box, 60)
        assert peer.read() == (7, bytes(4))
        peer.sock.close()
        thread.join()
        assert time.monotonic() - began < 50, "before the grace is over"
        with pytest.raises(ConnectionRefusedError):
            RawPeer(box.port)
    assert box.sink.closed[0].how == "aborted"


@pytest.mark.fault("T49")
def test_transfer_under_way_is_finished_and_acknowledged(box, wait_until):
    ds = ct(rows=128)
    head, *rest = data_pdus(1, encode(ds), 8000)
    with RawPeer(box.port) as peer:
        peer.associate()
        peer.send(data_pdu(1, store_rq(ds.SOPClassUID, ds.SOPInstanceUID), command=True) + head)
        wait_until(lambda: parts_left(box.spool))
        thread = stopping(box, 60)
        for pdu in rest:
            peer.send(pdu)
        assert peer.status() == 0
        peer.sock.close()
        thread.join()
    assert len(box.sink.stored) == 1


@pytest.mark.fault("T49")
def test_transfer_that_does_not_end_is_aborted_after_the_grace_and_leaves_nothing(box):
    ds = ct(rows=128)
    with RawPeer(box.port) as peer:
        peer.associate()
        peer.send(data_pdu(1, store_rq(ds.SOPClassUID, ds.SOPInstanceUID), command=True))
        peer.send(data_pdu(1, bytes(1000), last=False))
        thread = stopping(box, 0.2)
        answer = peer.read()
        assert answer is None or answer[0] == 7
        peer.sock.close()
        thread.join(60)
        assert not thread.is_alive()
    assert parts_left(box.spool) == []
    assert box.sink.stored == []


@pytest.mark.fault("T49")
def test_every_image_that_was_acknowledged_during_a_stop_is_there(box):
    acknowledged = []

    def send():
        with RawPeer(box.port) as peer:
            if peer.associate() is None:
                return
            while True:
                ds = ct(rows=64)
                try:
                    status = peer.store(encode(ds), sop_instance=ds.SOPInstanceUID)
                except ConnectionError:
                    return
                if status is None:
                    return
                acknowledged.append((str(ds.SOPInstanceUID), status))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    box.sink.wait_for(lambda sink: len(sink.stored) > 20)

    # The second stop waits for a thread that waits for the disk.
    assert box.scp.stop(timeout=0.5) or box.scp.stop(timeout=30)

    for thread in threads:
        thread.join()
    stored = {row.header.sop_instance_uid for row in box.sink.stored}
    assert {uid for uid, status in acknowledged if status == 0} <= stored
    assert all(box.spool.path(row.path).is_file() for row in box.sink.stored)
    assert parts_left(box.spool) == []
