"""A C-STORE sender on a bare socket: any bytes as a data set, any UIDs, any fragments, and PDUs that no library sends.

For files that storescu and pynetdicom refuse or rewrite, for hostile peers, and as a fast sender for measurements.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import final

from appliance.dicom import commands, pdus
from appliance.dicom.implementation import SIMULATOR
from appliance.dicom.pdus import ProposedContext
from appliance.simulate import upper_layer as ul


class AssociationRefused(ConnectionError):  # noqa: N818 - the standard's word for a peer's answer
    """The peer answered A-ASSOCIATE-RJ, A-ABORT or closed; the message says which."""


@final
class RawScu:
    """One TCP connection to an SCP; every step is the caller's."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        calling: str = "RAWSCU",
        called: str = "ANY-SCP",
        max_pdu: int = 131072,
        timeout_s: float = 30.0,
    ) -> None:
        """Remember the peer; ``max_pdu`` bounds what is sent (with the peer's own bound) and announced."""
        self._peer = (host, port)
        self.calling, self.called = calling, called
        self._max_pdu = max_pdu
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._message_id = 0
        #: The bound of both sides, known after ``associate``.
        self.send_pdu = max_pdu

    def __enter__(self) -> RawScu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- connection ----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open the TCP connection and say nothing: a probe, or a half-open peer."""
        self._socket = socket.create_connection(self._peer, self._timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the connection without a word."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def reset(self) -> None:
        """Close the connection with a TCP reset, as a peer does that lost its power or its cable."""
        self._connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def send(self, raw: bytes | memoryview) -> None:
        """Send bytes as they are."""
        self._connected.sendall(raw)

    def drip(self, raw: bytes, size: int, pause: Callable[[], object]) -> None:
        """Send bytes ``size`` at a time, calling ``pause`` after each piece."""
        for start in range(0, len(raw), size):
            self.send(raw[start : start + size])
            pause()

    def receive(self) -> tuple[int, bytes]:
        """The next PDU as (type, payload); ``(0, b"")`` when the peer has closed.

        Raises:
            TimeoutError: Nothing came within ``timeout_s``.
        """
        return ul.read_pdu(self._connected)

    # -- association ---------------------------------------------------------------------------------------------

    def associate(self, contexts: Sequence[tuple[str, Sequence[str]]]) -> dict[int, str]:
        """Propose (abstract syntax, transfer syntaxes) and return the accepted contexts: id 1, 3, 5 ... > syntax.

        Raises:
            AssociationRefused: The peer refused, aborted or closed.
        """
        if self._socket is None:
            self.connect()
        proposed = [ProposedContext(2 * n + 1, abstract, tuple(ts)) for n, (abstract, ts) in enumerate(contexts)]
        self.send(pdus.encode_associate_request(self.called, self.calling, proposed, self._max_pdu, SIMULATOR))
        kind, payload = self.receive()
        if kind != pdus.ASSOCIATE_AC:
            self.close()
            words = {pdus.ASSOCIATE_RJ: f"A-ASSOCIATE-RJ {payload[1:4].hex(' ')}", pdus.ABORT: "A-ABORT"}
            raise AssociationRefused(words.get(kind, "closed"))
        answer = pdus.decode_associate_accept(payload)
        self.send_pdu = min(filter(None, (self._max_pdu, answer.max_pdu_bytes)), default=0)
        return {context.context_id: context.transfer_syntax for context in answer.contexts if context.accepted}

    def release(self) -> None:
        """End the association in order: A-RELEASE-RQ, wait for the answer, close."""
        self.send(pdus.RELEASE_REQUEST)
        self.receive()
        self.close()

    def abort(self) -> None:
        """End the association with A-ABORT and close."""
        self.send(pdus.encode_abort(0, 0))
        self.close()

    # -- messages ------------------------------------------------------------------------------------------------

    def store(
        self,
        context_id: int,
        sop_class: str,
        sop_instance: str,
        data: bytes,
        *,
        priority: int = 0,
        fragment: int | None = None,
    ) -> int:
        """Send one C-STORE and wait for its answer; the status. ``priority`` 1 is HIGH; ``fragment`` bounds the PDUs.

        Raises:
            ConnectionError: The peer closed or aborted instead of answering.
            TimeoutError: No answer within ``timeout_s``.
        """
        held: list[bytes | memoryview] = []
        size = 0
        for part in self.store_pdus(context_id, sop_class, sop_instance, data, priority=priority, fragment=fragment):
            held.append(part)
            size += len(part)
            if size >= 1 << 20:
                self.send(b"".join(held))
                held, size = [], 0
        self.send(b"".join(held))
        return self.answer()

    def store_pdus(
        self,
        context_id: int,
        sop_class: str,
        sop_instance: str,
        data: bytes,
        *,
        priority: int = 0,
        fragment: int | None = None,
    ) -> Iterator[bytes | memoryview]:
        """The bytes of one C-STORE piece by piece, header and fragment in turn: to send some and stop, or to spoil."""
        self._message_id = self._message_id % 0xFFFF + 1
        request = ul.command(
            {
                commands.SOP_CLASS_UID: sop_class,
                commands.COMMAND_FIELD: commands.C_STORE_RQ,
                commands.MESSAGE_ID: self._message_id,
                commands.PRIORITY: priority,
                commands.DATA_SET_TYPE: 0,
                commands.SOP_INSTANCE_UID: sop_instance,
            }
        )
        for head, part in ul.fragments(context_id, request, is_command=True, max_pdu=self.send_pdu):
            yield head
            yield part
        bound = min(filter(None, (fragment, self.send_pdu)), default=0)
        for head, part in ul.fragments(context_id, data, is_command=False, max_pdu=bound):
            yield head
            yield part

    def echo(self, context_id: int) -> int:
        """One C-ECHO; the status."""
        self._message_id = self._message_id % 0xFFFF + 1
        request = ul.command(
            {
                commands.SOP_CLASS_UID: pdus.VERIFICATION,
                commands.COMMAND_FIELD: commands.C_ECHO_RQ,
                commands.MESSAGE_ID: self._message_id,
                commands.DATA_SET_TYPE: commands.NO_DATA_SET,
            }
        )
        for head, part in ul.fragments(context_id, request, is_command=True, max_pdu=self.send_pdu):
            self.send(bytes(head) + bytes(part))
        return self.answer()

    def answer(self) -> int:
        """Wait for the next response message; its status.

        Raises:
            ConnectionError: The peer closed, aborted or sent another PDU.
            TimeoutError: Nothing came within ``timeout_s``.
        """
        response = b""
        while True:
            kind, payload = self.receive()
            if kind != pdus.DATA_TF:
                words = {0: "closed", pdus.ABORT: "A-ABORT"}
                raise ConnectionError(f"no answer to the request: {words.get(kind, f'PDU of type {kind}')}")
            for _, is_command, is_last, part in pdus.iter_pdvs(memoryview(payload), strict=False):
                response += bytes(part) if is_command else b""
                if is_command and is_last:
                    return int(ul.parse_command(response)[commands.STATUS])

    def has_closed(self, within_s: float) -> bool:
        """Whether the peer closes or aborts the connection within so many seconds; what it says first is dropped."""
        until = time.monotonic() + within_s
        try:
            while (left := until - time.monotonic()) > 0:
                self._connected.settimeout(left)
                kind, _ = self.receive()
                if kind in {0, pdus.ABORT}:
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        finally:
            self._connected.settimeout(self._timeout_s)
        return False

    @property
    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("not connected: call connect() or associate() first")
        return self._socket
