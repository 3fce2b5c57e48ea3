"""Reading whole PDUs: by their own deadline, within the bound, whatever pieces they come in."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import tracemalloc

import pytest
from scp_kit import associate_rq

from appliance.dicom.pdus import ABORT, DATA_TF, ProtocolError, encode_abort
from appliance.intake.transport import LostError, SilenceError, Wire

CT = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2")


@contextlib.contextmanager
def connected(*, max_pdu_bytes=16384, pdu_deadline_s=60.0):
    """(the wire of the box, the socket of its peer)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    wire = Wire(ours, max_pdu_bytes=max_pdu_bytes, pdu_deadline_s=pdu_deadline_s)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield wire, peer
    finally:
        peer.close()
        wire.close()


def pdu(kind, body):
    return struct.pack(">BxL", kind, len(body)) + body


def test_pdus_in_one_segment_and_pdus_in_many_are_read_alike():
    sent = [pdu(DATA_TF, bytes([n]) * n * 100) for n in range(1, 30)]
    with connected() as (wire, peer):
        peer.sendall(b"".join(sent))
        got = [pdu(kind, bytes(body)) for kind, body in (wire.read_pdu(60) for _ in sent)]
        assert got == sent

        def drip():
            for byte in sent[0]:
                peer.sendall(bytes([byte]))

        thread = threading.Thread(target=drip)
        thread.start()
        kind, body = wire.read_pdu(60)
        assert pdu(kind, bytes(body)) == sent[0]
        thread.join()


def test_pdu_of_the_largest_allowed_size_is_read():
    with connected(max_pdu_bytes=300_000) as (wire, peer):
        body = bytes(range(250)) * 1200
        thread = threading.Thread(target=peer.sendall, args=(pdu(DATA_TF, body) * 3,))
        thread.start()
        for _ in range(3):
            assert bytes(wire.read_pdu(60)[1]) == body
        thread.join()


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T14")
@pytest.mark.parametrize(
    ("kind", "length"), [(DATA_TF, 16384 + 13), (DATA_TF, 0xFFFFFFF0), (ABORT, 4096), (1, 2 * 1024**2)]
)
def test_longer_pdu_than_allowed_is_refused_by_its_announcement(kind, length):
    with connected() as (wire, peer):
        peer.sendall(struct.pack(">BxL", kind, length))
        with pytest.raises(ProtocolError, match="allowed"):
            wire.read_pdu(60)


@pytest.mark.fault("T14")
def test_memory_grows_with_bytes_that_came_not_with_what_was_announced():
    with connected(max_pdu_bytes=512 * 1024**2, pdu_deadline_s=0.2) as (wire, peer):
        peer.sendall(struct.pack(">BxL", DATA_TF, 500 * 1024**2) + bytes(100_000))
        tracemalloc.start()
        try:
            with pytest.raises(SilenceError):
                wire.read_pdu(60)
            assert tracemalloc.get_traced_memory()[1] < 1024**2
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", [0, 8, 0x47])
def test_unknown_pdu_type_is_refused(kind):
    with connected() as (wire, peer):
        peer.sendall(struct.pack(">BxL", kind, 4))
        with pytest.raises(ProtocolError, match="unknown") as refusal:
            wire.read_pdu(60)
        assert refusal.value.reason == 1


@pytest.mark.req("R-INTAKE-04")
@pytest.mark.fault("T13")
def test_dripping_pdu_is_ended_by_the_deadline_of_the_whole():
    with connected(pdu_deadline_s=0.5) as (wire, peer):
        done, left = threading.Event(), list(associate_rq([CT]))

        def drip():
            while left and not done.wait(0.1):
                peer.sendall(bytes([left.pop(0)]))

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(SilenceError):
            wire.read_pdu(60)
        done.set()
        thread.join()
        assert left, "it did not wait for the whole"


@pytest.mark.fault("T12")
def test_silent_peer_is_ended_and_the_waiting_thread_looks_up_meanwhile():
    looked = []
    with connected() as (wire, _), pytest.raises(SilenceError):
        wire.read_pdu(1.5, lambda: looked.append(1))
    assert looked


@pytest.mark.parametrize("sent", [b"", b"\4\0", pdu(DATA_TF, bytes(100))[:50]])
def test_closed_connection_is_told_apart_from_silence(sent):
    with connected() as (wire, peer):
        peer.sendall(sent)
        peer.close()
        with pytest.raises(LostError):
            wire.read_pdu(60)


@pytest.mark.fault("T18")
def test_reset_connection_is_lost():
    with connected() as (wire, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(LostError):
            wire.read_pdu(60)
        with pytest.raises(LostError):
            wire.send(bytes(10_000_000))


def test_cut_wakes_the_thread_that_waits():
    with connected() as (wire, _):
        threading.Timer(0.05, wire.cut).start()
        began = time.monotonic()
        with pytest.raises(LostError):
            wire.read_pdu(60)
        assert time.monotonic() - began < 50


def test_last_pdu_reaches_a_peer_that_is_still_sending():
    """Closing with unread bytes would send a reset, which can overtake the abort that says why."""
    with connected() as (wire, peer):
        peer.sendall(bytes(60_000))
        closing = threading.Thread(target=wire.close, args=(encode_abort(2, 1),))
        closing.start()
        assert peer.recv(100) == encode_abort(2, 1)
        peer.close()
        closing.join(60)
        assert not closing.is_alive()
