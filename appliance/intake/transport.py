"""Whole PDUs over one socket, read by one thread that waits and never polls.

pynetdicom's own acceptor spends two threads with 1 ms sleeps on each association, reads a PDU of any announced length
into memory, and is locked out by 200 idle sockets; mending that from outside meant overriding most of its private
parts (docs/adr/0012). This reads as fast as the kernel gives, within a bound and a deadline for each whole PDU.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable

from appliance.dicom.pdus import ABORT, ASSOCIATE_RQ, DATA_TF, HEADER, UNRECOGNIZED_PDU, ProtocolError

#: 128 contexts with 45 syntaxes each are 180 kB; more is no scanner.
_MAX_ASSOCIATE_BYTES = 1024**2
_MAX_SHORT_BYTES = 64
#: Some senders count the headers into the length that we announced.
_SLACK_BYTES = 12
_FIRST_BUFFER = 16 * 1024
#: How often a waiting thread looks at its deadline and at whether the box is stopping.
_TICK_S = 1
_SEND_S = 10
#: What is still read from a peer after our last PDU, so that a reset does not overtake it.
_LINGER_BYTES, _LINGER_S = 256 * 1024, 1.0
#: Sends the acknowledgement that is due now; Linux forgets the option, so it is set after each read. A sender with
#: Nagle's algorithm on holds its last segment back until then, which costs 40 ms an image otherwise.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class LostError(Exception):
    """The peer closed or reset the connection."""


class SilenceError(Exception):
    """The peer did not send what was due in time."""


class Wire:
    """One accepted connection. Used by its own thread; only ``cut`` may be called from another."""

    def __init__(self, sock: socket.socket, *, max_pdu_bytes: int, pdu_deadline_s: float) -> None:
        """Take over an accepted socket, plain or TLS."""
        self._sock = sock
        self._max_data_bytes = max_pdu_bytes + _SLACK_BYTES
        self._deadline_s = pdu_deadline_s
        self._buffer = memoryview(bytearray(_FIRST_BUFFER))
        self._start = self._end = 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(_TICK_S)
        else:
            # The kernel keeps the time: one system call a read, where Python's own timeout makes it two.
            sock.settimeout(None)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _TICK_S, 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_S, 0))

    def read_pdu(self, wait_s: float, on_wait: Callable[[], None] = lambda: None) -> tuple[int, memoryview]:
        """Wait for the next PDU and read the whole of it.

        Args:
            wait_s: How long its first byte may take; the rest has ``pdu_deadline_s`` in all, however it drips.
            on_wait: Called about once a second while nothing comes; what it raises ends the wait.

        Returns:
            PDU type and the bytes after the PDU length, which are overwritten by the next call.

        Raises:
            LostError: The connection is gone.
            SilenceError: A deadline passed.
            ProtocolError: Unknown type, or an announced length above the bound: nothing of it is read.
        """
        if wait_s <= 0:
            raise SilenceError
        self._fill(1, time.monotonic() + wait_s, on_wait)
        deadline = time.monotonic() + self._deadline_s
        self._fill(HEADER.size, deadline)
        kind, length = HEADER.unpack_from(self._buffer, self._start)
        if not ASSOCIATE_RQ <= kind <= ABORT:
            raise ProtocolError("unknown PDU type", UNRECOGNIZED_PDU)
        if length > self._bound(kind):
            raise ProtocolError(f"a PDU of {length} bytes was announced, {self._bound(kind)} are allowed")
        self._fill(HEADER.size + length, deadline)
        first = self._start + HEADER.size
        self._start = first + length
        return kind, self._buffer[first : self._start]

    def _bound(self, kind: int) -> int:
        return {ASSOCIATE_RQ: _MAX_ASSOCIATE_BYTES, DATA_TF: self._max_data_bytes}.get(kind, _MAX_SHORT_BYTES)

    def _fill(self, need: int, deadline: float, on_wait: Callable[[], None] = lambda: None) -> None:
        """Have ``need`` bytes from ``_start`` on; what else has come already is kept for the next PDU."""
        while self._end - self._start < need:
            if self._end == len(self._buffer):
                self._make_room(need)
            try:
                count = self._sock.recv_into(self._buffer[self._end :])
            except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
                on_wait()
                count = -1
            except OSError as error:
                raise LostError from error
            if count == 0:
                raise LostError
            self._end += max(count, 0)
            if _QUICKACK is not None:
                with contextlib.suppress(OSError):
                    self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            if time.monotonic() > deadline and self._end - self._start < need:
                raise SilenceError

    def _make_room(self, need: int) -> None:
        """Move what is unread to the front; enlarge only as bytes really come, never by an announced length."""
        unread = self._end - self._start
        size = len(self._buffer)
        if unread == size:
            size = min(2 * size, need)
        fresh = memoryview(bytearray(size))
        fresh[:unread] = self._buffer[self._start : self._end]
        self._buffer, self._start, self._end = fresh, 0, unread

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            LostError: The connection is gone, or the peer does not read.
        """
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise LostError from error

    def close(self, goodbye: bytes = b"") -> None:
        """Send a last PDU if there is one, let the peer read it, close."""
        with contextlib.suppress(OSError, LostError, ValueError):
            if goodbye:
                self.send(goodbye)
                # The plain method: that of an SSLSocket would forget the TLS state that reading still needs.
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
                self._drain()
        self._sock.close()

    def _drain(self) -> None:
        deadline = time.monotonic() + _LINGER_S
        left = _LINGER_BYTES
        while left > 0 and time.monotonic() < deadline:
            count = self._sock.recv_into(self._buffer)
            if count == 0:
                return
            left -= count

    def cut(self) -> None:
        """End the connection from another thread; the one that waits in it wakes up with ``LostError``."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
