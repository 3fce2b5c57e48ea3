"""An SCU on one blocking socket: every wait has a deadline, and a data set leaves as the bytes of its file.

pynetdicom's requestor queues a whole object in memory before it sends, waits for sockets without a limit and spends two
threads and 1 ms sleeps on an association. Forwarding needs so little of the protocol (PS3.8 §9.3, PS3.7 §9.3.1) that
writing it out is shorter than bounding that (docs/adr/0012).
"""

from __future__ import annotations

import contextlib
import io
import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from pydicom.uid import UID

from appliance.config import ClientTls
from appliance.deliver import wire
from appliance.deliver.connect import connect, cut, tls_fault
from appliance.deliver.retry import AssociationLost, ContextRefused, NoAssociation, QueryRefused
from appliance.deliver.wire import Context
from appliance.dicom import commands, pdus
from appliance.dicom.commands import C_ECHO_RQ, C_STORE_RQ
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION, Result, RoleSelection

#: An object may take this much longer per byte than ``timeout_s`` before the peer counts as hanging.
SLOWEST_BYTES_PER_S = 50_000

_MAX_PDU = 128 * 1024
#: A TLS record (RFC 8446 §5.1).
_RECORD = 16 * 1024
#: What a peer may send us in one PDU; answers are some hundred bytes.
_MAX_ANSWER = 1024 * 1024


#: What to do with the command set and data set of an N-EVENT-REPORT; gives the status to answer.
OnEvent = Callable[[commands.Request, bytes], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom we call, and as whom."""

    host: str
    port: int
    called_ae: str
    calling_ae: str
    timeout_s: float
    tls: ClientTls | None = None

    def __str__(self) -> str:
        return f"{self.called_ae} at {self.host}:{self.port}"


def longest_store_s(timeout_s: float, size: int) -> float:
    """The longest that storing an object of ``size`` bytes may take before the association is given up."""
    return 2 * timeout_s + size / SLOWEST_BYTES_PER_S


class Association:
    """An association that we requested. One thread uses it; only ``interrupt`` may come from another."""

    def __init__(self, peer: Peer, contexts: Sequence[Context], roles: Sequence[RoleSelection] = ()) -> None:
        """Connect and negotiate one presentation context per pair, so that the peer cannot pick another syntax.

        Args:
            peer: Whom to call.
            contexts: At most ``pdus.MAX_CONTEXTS`` pairs.
            roles: Where we are not the SCU of a class.

        Raises:
            NoAssociation: The peer cannot be reached or rejects; the message says how to mend it.
        """
        self.peer = peer
        self._message_id = 0
        self._peer_max_pdu = 0
        #: A command set and its data set may share a PDU: what was received and not yet taken.
        self._fragments: deque[tuple[bool, bool, bytes]] = deque()
        #: Context id of what the peer took, and its result code for what it refused (PS3.8 Table 9-18).
        self.accepted: dict[Context, int] = {}
        self.refused: dict[Context, int] = {}
        self._socket = connect(peer, peer.host, peer.port, peer.timeout_s, peer.tls)
        try:
            self._negotiate(list(contexts), roles)
        except BaseException as error:
            self._socket.close()
            if isinstance(error, AssociationLost):
                raise NoAssociation(str(error)) from error
            raise

    def covers(self, contexts: Sequence[Context]) -> bool:
        """Whether all these pairs were asked for."""
        return all(context in self.accepted or context in self.refused for context in contexts)

    def is_alive(self) -> bool:
        """Whether the peer has neither closed, aborted nor asked for release since the last answer."""
        with contextlib.suppress(OSError, ValueError):
            return not select.select([self._socket], [], [], 0)[0]
        return False

    def store(self, context: Context, sop_instance_uid: str, stream: IO[bytes], size: int) -> int:
        """Send one data set, byte for byte, and wait for the answer.

        Args:
            context: SOP Class and Transfer Syntax UID of the data set.
            sop_instance_uid: Of the data set.
            stream: Where the data set begins at the present position.
            size: Its bytes.

        Returns:
            The status of the C-STORE response.

        Raises:
            ContextRefused: The peer did not take this pair.
            AssociationLost: No valid answer; the association is closed, the object may be stored or not.
        """
        if context not in self.accepted:
            raise self.refusal(context)
        context_id = self.accepted[context]
        deadline = time.monotonic() + self.peer.timeout_s + size / SLOWEST_BYTES_PER_S
        with self._closed_on_loss():
            message_id = self._request(context_id, C_STORE_RQ, context[0], sop_instance_uid)
            self._send_data(context_id, stream, size, deadline)
            return self._response(C_STORE_RQ, message_id, sop_instance_uid)

    def echo(self) -> int:
        """C-ECHO (PS3.7 §9.3.5).

        Returns:
            The status.

        Raises:
            ContextRefused: The peer does not do verification.
            AssociationLost: No valid answer.
        """
        context = (VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)
        if context not in self.accepted:
            raise self.refusal(context)
        with self._closed_on_loss():
            message_id = self._request(self.accepted[context], C_ECHO_RQ, VERIFICATION)
            return self._response(C_ECHO_RQ, message_id)

    def ask(
        self,
        context: Context,
        command: int,
        sop_instance_uid: str,
        data: bytes,
        *,
        type_id: int | None = None,
        on_event: OnEvent | None = None,
    ) -> int:
        """Send a request with a data set of another service (PS3.7 §10) and wait for its status.

        Args:
            context: SOP Class, and Transfer Syntax of ``data``.
            command: ``commands.N_ACTION_RQ`` or another that is answered once.
            sop_instance_uid: Whom or what it concerns.
            data: The encoded data set.
            type_id: Of the event or action.
            on_event: Takes the N-EVENT-REPORTs that the peer may send before its answer, which has to come in the same
                time nevertheless; None where it sends none.

        Raises:
            ContextRefused: The peer did not take this pair.
            AssociationLost: No valid answer; the association is closed.
        """
        if context not in self.accepted:
            raise self.refusal(context)
        with self._closed_on_loss():
            message_id = self._send_request(context, command, sop_instance_uid, data, type_id)
            deadline = time.monotonic() + self.peer.timeout_s
            answer = self._message(deadline, is_command=True)
            while on_event is not None and _command_field(answer) == commands.N_EVENT_REPORT_RQ:
                self._answer_event(context, answer, deadline, on_event)
                answer = self._message(deadline, is_command=True)
            return self._status(answer, command, message_id, sop_instance_uid)

    def find(self, context: Context, identifier: bytes, *, most: int) -> list[bytes]:
        """C-FIND (PS3.7 §9.1.2): the data sets that match, as they came, all within twice the usual time.

        Args:
            context: SOP Class, and Transfer Syntax of ``identifier`` and of the answers.
            identifier: The encoded keys.
            most: More matches than this end the association: nobody asked for so many.

        Raises:
            ContextRefused: The peer did not take this pair.
            QueryRefused: It answers with a failure; the association stands.
            AssociationLost: No valid answer; the association is closed.
        """
        if context not in self.accepted:
            raise self.refusal(context)
        found: list[bytes] = []
        with self._closed_on_loss():
            message_id = self._send_request(context, commands.C_FIND_RQ, "", identifier, None)
            deadline = time.monotonic() + 2 * self.peer.timeout_s
            while True:
                status = self._status(self._message(deadline, is_command=True), commands.C_FIND_RQ, message_id)
                if status not in commands.PENDING:
                    break
                found.append(self._message(deadline, is_command=False))
                if len(found) > most:
                    raise AssociationLost(f"{self.peer} answers with more than {most} matches; narrow what is asked")
        if status != commands.SUCCESS:
            raise QueryRefused(f"{self.peer} refuses the query with status 0x{status:04X}")
        return found

    def await_event(self, context: Context, wait_s: float, on_event: OnEvent) -> bool:
        """Give the peer a while to send one N-EVENT-REPORT on this association (PS3.7 §10.1.1), and answer it.

        Args:
            context: On which we asked, and it reports.
            wait_s: For its first byte; the rest has the usual time.
            on_event: Takes it.

        Returns:
            Whether one came. The association may be over either way (``is_closed``).
        """
        if not self._fragments and not self._is_readable(wait_s):
            return False
        try:
            with self._closed_on_loss():
                deadline = time.monotonic() + self.peer.timeout_s
                return self._answer_event(context, self._message(deadline, is_command=True), deadline, on_event)
        except AssociationLost:
            return False  # it has released the association, which it may, or lost its way: the report comes later

    @property
    def is_closed(self) -> bool:
        """Whether it was released or lost here."""
        return self._socket.fileno() < 0

    def _answer_event(self, context: Context, command_set: bytes, deadline: float, on_event: OnEvent) -> bool:
        """Take and answer a request of the peer. Returns whether it was an N-EVENT-REPORT."""
        request = _event(command_set)
        data = self._message(deadline, is_command=False) if request.has_data_set else b""
        is_event = request.command_field == commands.N_EVENT_REPORT_RQ
        status = on_event(request, data) if is_event else commands.UNRECOGNIZED_OPERATION
        answer = commands.encode_response(request, status)
        self._send(pdus.encode_fragment(self.accepted[context], answer, is_command=True, is_last=True), deadline)
        return is_event

    def _is_readable(self, wait_s: float) -> bool:
        with contextlib.suppress(OSError, ValueError):
            pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
            return bool(pending or select.select([self._socket], [], [], wait_s)[0])
        return False

    def _send_request(
        self, context: Context, command: int, sop_instance_uid: str, data: bytes, type_id: int | None
    ) -> int:
        context_id = self.accepted[context]
        message_id = self._request(context_id, command, context[0], sop_instance_uid, type_id=type_id, has_data=True)
        self._send_data(context_id, io.BytesIO(data), len(data), time.monotonic() + self.peer.timeout_s)
        return message_id

    def release(self) -> None:
        """Ask for release, wait briefly for the answer, close. Never raises."""
        with contextlib.suppress(OSError, AssociationLost):
            deadline = time.monotonic() + min(self.peer.timeout_s, 5.0)
            self._send(pdus.RELEASE_REQUEST, deadline)
            while self._receive(deadline)[0] == pdus.DATA_TF:
                pass
        self._socket.close()

    def interrupt(self) -> None:
        """Make whatever the using thread waits for fail now; for the daemon's stop."""
        cut(self._socket)

    def _negotiate(self, contexts: list[Context], roles: Sequence[RoleSelection]) -> None:
        deadline = time.monotonic() + self.peer.timeout_s
        request = wire.associate_request(self.peer.called_ae, self.peer.calling_ae, contexts, _MAX_PDU, roles)
        self._send(request, deadline)
        kind, body = self._receive(deadline)
        if kind == pdus.ASSOCIATE_RJ and len(body) >= 4:
            raise NoAssociation(_rejection(self.peer, body[2], body[3]))
        if kind == pdus.ABORT:
            raise NoAssociation(f"{self.peer} aborts the association at once; does it expect TLS or another AE title?")
        if kind != pdus.ASSOCIATE_AC:
            raise NoAssociation(f"{self.peer} answered with something that is no DICOM; check host and port")
        self.accepted, self.refused, self._peer_max_pdu = wire.read_accept(body, contexts)

    def refusal(self, context: Context) -> ContextRefused:
        """Why a pair that was asked for is not there, in words that tell what to mend."""
        result = self.refused.get(context, 0)
        what = _REFUSED.get(result, "this pair now")
        sop_class, syntax = (_name(uid) for uid in context)
        words = (
            f"{self.peer} does not take {what}: SOP Class {sop_class}, Transfer Syntax {syntax};"
            " let the PACS accept it, then retry"
        )
        return ContextRefused(words, for_good=result in _REFUSED)

    def _request(
        self,
        context_id: int,
        command: int,
        sop_class_uid: str,
        sop_instance_uid: str = "",
        *,
        type_id: int | None = None,
        has_data: bool = False,
    ) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        data = commands.encode_request(
            command, self._message_id, sop_class_uid, sop_instance_uid, type_id=type_id, has_data_set=has_data
        )
        pdu = pdus.encode_fragment(context_id, data, is_command=True, is_last=True)
        self._send(pdu, time.monotonic() + self.peer.timeout_s)
        return self._message_id

    def _send_data(self, context_id: int, stream: IO[bytes], size: int, deadline: float) -> None:
        # Fragments but the last have an even length (PS3.8 §E.1); 6 bytes of each are its header.
        most = min(self._peer_max_pdu or _MAX_PDU, _MAX_PDU)
        step = max(2, (most - pdus.PDV_HEADER_BYTES) & ~1)
        left = size
        while True:
            try:
                chunk = stream.read(min(step, left))
            except OSError as error:
                raise AssociationLost(f"the file in the spool cannot be read: {error.strerror}") from error
            left -= len(chunk)
            if not chunk and left:
                raise AssociationLost("the file in the spool ended while it was being sent")
            self._send(pdus.encode_fragment(context_id, chunk, is_command=False, is_last=not left), deadline)
            if not left:
                return

    def _response(self, command: int, message_id: int, sop_instance_uid: str = "") -> int:
        answer = self._message(time.monotonic() + self.peer.timeout_s, is_command=True)
        return self._status(answer, command, message_id, sop_instance_uid)

    def _status(self, answer: bytes, command: int, message_id: int, sop_instance_uid: str = "") -> int:
        elements = commands.decode_command_set(answer, strict=False)
        is_ours = commands.number(elements, commands.ANSWERED_ID) == message_id
        if commands.number(elements, commands.COMMAND_FIELD) != command | commands.RESPONSE or not is_ours:
            raise AssociationLost(f"{self.peer} answered another request than ours")
        if commands.text(elements, commands.SOP_INSTANCE_UID) not in {"", sop_instance_uid}:
            raise AssociationLost(f"{self.peer} answered for another object than the one sent")
        status = commands.number(elements, commands.STATUS)
        if status is None:
            raise AssociationLost(f"{self.peer} answered without a status")
        return status

    def _message(self, deadline: float, *, is_command: bool) -> bytes:
        """The command set, or the data set, that must come next."""
        data = bytearray()
        while True:
            while self._fragments:
                is_of_command, is_last, fragment = self._fragments.popleft()
                if is_of_command != is_command:
                    what = "a data set instead of its answer" if is_command else "an answer without its data set"
                    raise AssociationLost(f"{self.peer} sent {what}")
                data += fragment
                if len(data) > _MAX_ANSWER:
                    raise AssociationLost(f"{self.peer} sends an answer without an end")
                if is_last:
                    return bytes(data)
            kind, body = self._receive(deadline)
            if kind == pdus.ABORT:
                raise AssociationLost(f"{self.peer} aborted the association")
            if kind == pdus.RELEASE_RQ:
                self._send(pdus.RELEASE_REPLY, deadline)
                raise AssociationLost(f"{self.peer} released the association before it answered")
            if kind != pdus.DATA_TF:
                raise AssociationLost(f"{self.peer} sent a PDU of type {kind} instead of its answer")
            for _, is_of_command, is_last, piece in pdus.iter_pdvs(memoryview(body), strict=False):
                self._fragments.append((is_of_command, is_last, bytes(piece)))

    @contextlib.contextmanager
    def _closed_on_loss(self) -> Iterator[None]:
        try:
            yield
        except AssociationLost:
            # Half a message may be on its way: nothing else can be said on this association.
            with contextlib.suppress(OSError):
                self._socket.settimeout(1.0)
                self._socket.sendall(pdus.encode_abort(0, 0))
            self._socket.close()
            raise

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            # The time-out of an encrypted socket begins anew with each record.
            step = _RECORD if isinstance(self._socket, ssl.SSLSocket) else len(data)
            for begin in range(0, len(data), step):
                self._arm(deadline)
                self._socket.sendall(memoryview(data)[begin : begin + step])
        except TimeoutError as error:
            raise AssociationLost(f"{self.peer} stopped reading; is it hanging?") from error
        except OSError as error:
            raise AssociationLost(self._loss(error)) from error

    def _receive(self, deadline: float) -> tuple[int, bytes]:
        kind, length = pdus.HEADER.unpack(self._read(pdus.HEADER.size, deadline))
        if not pdus.ASSOCIATE_RQ <= kind <= pdus.ABORT or length > _MAX_ANSWER:
            raise AssociationLost(f"{self.peer} sent something that is no DICOM; check host and port")
        return kind, self._read(length, deadline)

    def _read(self, length: int, deadline: float) -> bytes:
        data = bytearray()
        try:
            while len(data) < length:
                self._arm(deadline)
                chunk = self._socket.recv(length - len(data))
                if not chunk:
                    raise AssociationLost(f"{self.peer} closed the connection without an answer")
                data += chunk
        except TimeoutError as error:
            raise AssociationLost(f"{self.peer} gave no answer within {self.peer.timeout_s:g} s") from error
        except OSError as error:
            raise AssociationLost(self._loss(error)) from error
        return bytes(data)

    def _loss(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLError) and self.peer.tls is not None:
            # With TLS 1.3 a server judges our certificate after the handshake.
            return f"{self.peer}: {tls_fault(error, self.peer.tls)}"
        return f"{self.peer} closed the connection: {error.strerror}"

    def _arm(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def _command_field(command_set: bytes) -> int | None:
    return commands.number(commands.decode_command_set(command_set, strict=False), commands.COMMAND_FIELD)


def _event(data: bytes) -> commands.Request:
    try:
        return commands.parse_request(data)
    except commands.CommandError as error:
        raise AssociationLost(f"the peer sent a request that cannot be read: {error}") from error


def _name(uid: str) -> str:
    """Errors end up in the journal, which holds no UIDs; names say more anyway."""
    name = UID(uid).name
    return name if name != uid else "private"


#: Results of a presentation context (PS3.8 Table 9-18) that will be the same tomorrow.
_REFUSED: dict[int, str] = {
    Result.ABSTRACT_SYNTAX_NOT_SUPPORTED: "this SOP Class",
    Result.TRANSFER_SYNTAXES_NOT_SUPPORTED: "this Transfer Syntax for it",
}
#: Source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21), in words that tell what to mend.
_REJECTIONS = {
    (1, 3): "does not know our AE title {calling!r}; enter it there with this box's address",
    (1, 7): "does not answer to the AE title {called!r}; correct ae_title of the destination",
    (3, 1): "is congested; it is tried again",
    (3, 2): "has no association left; it is tried again",
}


def _rejection(peer: Peer, source: int, reason: int) -> str:
    # Whether the peer calls it permanent or transient makes no difference: peers are careless, we retry for ever.
    words = _REJECTIONS.get((source, reason), "rejects the association (source {source}, reason {reason})")
    return f"{peer} " + words.format(calling=peer.calling_ae, called=peer.called_ae, source=source, reason=reason)
