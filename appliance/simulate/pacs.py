"""A PACS that keeps every byte and misbehaves on demand: a storage SCP on a bare socket.

It takes any SOP class in the first transfer syntax proposed. Written without a library so that what is stored is what
came over the wire, and so that a fault can be put at every step.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import final

from appliance.dicom import commands, pdus
from appliance.dicom.implementation import SIMULATOR
from appliance.dicom.pdus import AssociateRequest, ContextAnswer, ProposedContext, Result
from appliance.records import Word
from appliance.simulate import upper_layer as ul
from appliance.simulate.incoming import Incoming
from appliance.simulate.part10 import meta_information

_STORED = {0x0000, 0xB000, 0xB006, 0xB007}


class Manner(Word):
    """How the PACS treats an association or an object."""

    ANSWER = "answer"
    #: Takes the object, stores it and never answers.
    SILENT = "silent"
    #: Stores the object and aborts before the response: the sender must send again and must not make two of it.
    LOSE_RESPONSE = "lose_response"
    #: Refuses every association (A-ASSOCIATE-RJ, transient, local limit exceeded).
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One object that came, whatever was answered."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling: str
    called: str
    #: DIMSE priority: 0 medium, 1 high, 2 low.
    priority: int
    #: SHA-256 and size of the data set's bytes as sent.
    sha256: str
    size: int
    status: int
    #: The Part 10 file, or ``None`` when the status says that it was not stored.
    path: Path | None
    at_mono: float


@final
class Pacs:
    """A storage SCP on loopback; a context manager. ``status`` and ``manner`` may be changed while it runs."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        ae_title: str = "PACS",
        syntaxes: Collection[str] | None = None,
        max_pdu: int = 131072,
    ) -> None:
        """Prepare a PACS that stores under ``folder``.

        Args:
            folder: Where the objects go, as ``000001.dcm`` and so on; made if absent.
            port: 0 takes a free one; see ``port`` after ``start``.
            ae_title: Only for display: any called AE title is taken.
            syntaxes: Transfer syntaxes that it takes; ``None`` is any.
            max_pdu: The longest P-DATA-TF payload that it announces.
        """
        self.folder, self.port, self.ae_title = folder, port, ae_title
        self._syntaxes, self._max_pdu = syntaxes, max_pdu
        #: Answer to every C-STORE, or a rule from SOP Instance UID to status.
        self.status: int | Callable[[str], int] = 0x0000
        self.manner = Manner.ANSWER
        self._arrivals: list[Arrival] = []
        self._associations: list[str] = []
        self._changed = threading.Condition()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Pacs:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after ``stop`` again on the same port."""
        self.folder.mkdir(parents=True, exist_ok=True)
        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._begin(self._accept, listener)

    def stop(self) -> None:
        """Go down: stop listening and cut every open connection. What was stored stays."""
        if self._listener is not None:
            # close() alone leaves a thread in accept(), and with it the port, where they are.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._changed:
            for connection in self._open:
                with suppress(OSError):  # whose peer has just gone
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()

    @property
    def arrivals(self) -> list[Arrival]:
        """What came so far, in order of arrival."""
        with self._changed:
            return list(self._arrivals)

    @property
    def associations(self) -> list[str]:
        """Calling AE title of each association that was asked for, refused ones too."""
        with self._changed:
            return list(self._associations)

    def stored(self) -> dict[str, Arrival]:
        """The last stored arrival per SOP Instance UID."""
        return {arrival.sop_instance_uid: arrival for arrival in self.arrivals if arrival.path is not None}

    def wait_for(self, count: int, timeout_s: float = 30.0) -> list[Arrival]:
        """Wait until ``count`` objects have come.

        Raises:
            TimeoutError: Fewer came in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._arrivals) >= count, timeout_s):
                raise TimeoutError(f"{len(self._arrivals)} of {count} objects reached the PACS in {timeout_s:g} s")
            return list(self._arrivals)

    # -- inside --------------------------------------------------------------------------------------------------

    def _begin(self, work: Callable[[socket.socket], None], connection: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(connection,), name=f"pacs-{self.ae_title}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                if self._listener is not listener:
                    connection.close()
                    return
                self._open.add(connection)
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._associate(connection)
        except OSError:
            pass  # the peer went away, or stop() cut the connection
        finally:
            with self._changed:
                self._open.discard(connection)
            connection.close()

    def _associate(self, connection: socket.socket) -> None:
        kind, payload = ul.read_pdu(connection)
        if kind != pdus.ASSOCIATE_RQ:
            return
        request = pdus.decode_associate_request(payload, strict=False)
        with self._changed:
            self._associations.append(request.calling_ae)
            self._changed.notify_all()
        if self.manner is Manner.REFUSE:
            connection.sendall(pdus.encode_associate_reject(2, 3, 2))
            return
        answers = [self._choose(context) for context in request.contexts]
        syntaxes = {answer.context_id: answer.transfer_syntax for answer in answers if answer.accepted}
        connection.sendall(pdus.encode_associate_accept(request, answers, self._max_pdu, SIMULATOR))
        message = Incoming()
        try:
            while True:
                kind, payload = ul.read_pdu(connection)
                if kind == pdus.RELEASE_RQ:
                    connection.sendall(pdus.RELEASE_REPLY)
                if kind != pdus.DATA_TF:
                    return
                for context_id, is_command, is_last, part in pdus.iter_pdvs(memoryview(payload), strict=False):
                    if not self._take(message, is_command, is_last, part, syntaxes.get(context_id, "")):
                        continue
                    if not self._finish(connection, context_id, message, request):
                        return
                    message = Incoming()
        finally:
            message.drop()

    def _take(self, message: Incoming, is_command: bool, is_last: bool, part: memoryview, syntax: str) -> bool:  # noqa: FBT001 - a PDV's two flags
        """Add one fragment; whether the message is now complete."""
        if not is_command:
            message.add(part)
            return is_last
        message.command += part
        if is_last:
            self._begin_message(message, syntax)
        return is_last and message.values.get(commands.DATA_SET_TYPE) == commands.NO_DATA_SET

    def _choose(self, context: ProposedContext) -> ContextAnswer:
        for syntax in context.transfer_syntaxes:
            if self._syntaxes is None or syntax in self._syntaxes:
                return ContextAnswer(context.context_id, Result.ACCEPTANCE, syntax)
        return ContextAnswer(context.context_id, Result.TRANSFER_SYNTAXES_NOT_SUPPORTED, pdus.IMPLICIT_VR_LITTLE_ENDIAN)

    def _begin_message(self, message: Incoming, syntax: str) -> None:
        message.values = ul.parse_command(bytes(message.command))
        message.syntax = syntax
        if message.values.get(commands.COMMAND_FIELD) != commands.C_STORE_RQ:
            return
        head = meta_information(message.text(commands.SOP_CLASS_UID), message.text(commands.SOP_INSTANCE_UID), syntax)
        message.open(self.folder / f".{threading.get_ident()}.part", head)

    def _finish(self, connection: socket.socket, context_id: int, message: Incoming, request: AssociateRequest) -> bool:
        """Store, record and answer; whether the association goes on."""
        field = int(message.values.get(commands.COMMAND_FIELD, 0))
        status = 0x0000
        if field == commands.C_STORE_RQ:
            instance = message.text(commands.SOP_INSTANCE_UID)
            status = self.status(instance) if callable(self.status) else self.status
            self._record(message, request, instance, status)
            if self.manner is Manner.SILENT:
                return True
            if self.manner is Manner.LOSE_RESPONSE:
                connection.sendall(pdus.encode_abort(0, 0))
                return False
        elif field != commands.C_ECHO_RQ:
            status = commands.UNRECOGNIZED_OPERATION
        answer: dict[int, int | str] = {
            commands.SOP_CLASS_UID: message.text(commands.SOP_CLASS_UID),
            commands.COMMAND_FIELD: field | commands.RESPONSE,
            commands.ANSWERED_ID: message.values.get(commands.MESSAGE_ID, 0),
            commands.DATA_SET_TYPE: commands.NO_DATA_SET,
            commands.STATUS: status,
        }
        if field == commands.C_STORE_RQ:
            answer[commands.SOP_INSTANCE_UID] = message.text(commands.SOP_INSTANCE_UID)
        bound = request.max_pdu_bytes
        for head, part in ul.fragments(context_id, ul.command(answer), is_command=True, max_pdu=bound):
            connection.sendall(bytes(head) + bytes(part))
        return True

    def _record(self, message: Incoming, request: AssociateRequest, instance: str, status: int) -> None:
        with self._changed:
            stored = status in _STORED
            path = self.folder / f"{len(self._arrivals) + 1:06d}.dcm" if stored else None
            message.close(path)
            self._arrivals.append(
                Arrival(
                    sop_class_uid=message.text(commands.SOP_CLASS_UID),
                    sop_instance_uid=instance,
                    transfer_syntax_uid=message.syntax,
                    calling=request.calling_ae,
                    called=request.called_ae,
                    priority=int(message.values.get(commands.PRIORITY, 0)),
                    sha256=message.digest.hexdigest(),
                    size=message.size,
                    status=status,
                    path=path,
                    at_mono=time.monotonic(),
                )
            )
            self._changed.notify_all()
