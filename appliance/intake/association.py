"""The life of one association, on one thread: A-ASSOCIATE, then messages until release, abort, loss or silence."""

from __future__ import annotations

import contextlib
import time
from typing import Protocol

from appliance.dicom import commands, pdus
from appliance.dicom.commands import CommandError, Request
from appliance.dicom.pdus import AssociateRequest, ProtocolError
from appliance.errors import StoreError
from appliance.intake.negotiation import ContextResult, accept_roles, is_storage, negotiate, refusal
from appliance.intake.peers import Peers, Rejection, harmless
from appliance.intake.receive import Parts, Peer, StoreOperation
from appliance.intake.service import ServiceOperation
from appliance.intake.transport import LostError, SilenceError, Wire
from appliance.records import SourceRef

_MAX_COMMAND_BYTES = 64 * 1024
#: A message slower than this is no transfer; it stops a peer that sends one short PDU every half minute.
_MIN_BYTES_PER_S = 4096
_CALLING_AE_REJECTED = (1, 1, 3)
_VERSION_REJECTED = (1, 2, 2)
_APPLICATION_CONTEXT_REJECTED = (1, 1, 2)
_BUSY_REJECTED = (2, 3, 1)
LOCAL_LIMIT_REJECTED = (2, 3, 2)


class StoppingError(Exception):
    """The box stops; the association is aborted."""


class Gate(Protocol):
    """What the listener decides for its associations."""

    def admit(self) -> str | None:
        """Take one place; None, or why there is none."""
        ...

    def release(self) -> None:
        """Give the place back, if one was taken."""
        ...

    def check_stop(self, *, idle: bool) -> None:
        """Raise ``StoppingError`` when the association must end: at once if ``idle``, else when the grace is over."""
        ...


class _Answer:
    """A request that needs no work: its data set, if it has one, is read and forgotten."""

    def __init__(self, status: int) -> None:
        self._status = status
        self.received = 0

    def data(self, fragment: memoryview) -> None:
        self.received += len(fragment)

    def finish(self) -> int:
        return self._status

    def abort(self) -> None:
        """Nothing to undo."""


class Association:
    """One connection from A-ASSOCIATE-RQ to its end."""

    def __init__(self, parts: Parts, peers: Peers, gate: Gate, wire: Wire, address: str) -> None:
        """Prepare; ``run`` does everything."""
        self._parts = parts
        self._peers = peers
        self._gate = gate
        self._wire = wire
        self._address = address
        self._contexts: dict[int, ContextResult] = {}
        self._peer: Peer | None = None
        self._command = bytearray()
        self._context_id = 0
        self._request: Request | None = None
        self._operation: StoreOperation | ServiceOperation | _Answer | None = None
        self._began_mono = 0.0
        self._images = 0

    def run(self, certificate_names: frozenset[str] | None) -> None:
        """Serve until the end and close the connection.

        Args:
            certificate_names: Names in the client's certificate, where its AE title must be among them; else None.
        """
        how, goodbye = "lost", b""
        try:
            goodbye = self._negotiate(certificate_names)
            if not goodbye:
                how, goodbye = self._serve()
        except LostError:
            goodbye = b""
        except SilenceError:
            goodbye = pdus.encode_abort(2, 0) if self._peer else b""
        except (ProtocolError, CommandError) as error:
            how = "aborted"
            goodbye = pdus.encode_abort(2, getattr(error, "reason", 0))
            if self._peer is not None:
                self._refused(0, f"association aborted: {error}")
        except StoppingError:
            how, goodbye = "aborted", pdus.encode_abort(0, 0)
        finally:
            self._end(how)
            self._wire.close(goodbye)

    def _end(self, how: str) -> None:
        if self._operation is not None:
            self._operation.abort()
        self._gate.release()
        if self._peer is not None:
            with contextlib.suppress(StoreError):  # nothing hangs on it that the next start would not mend
                self._parts.sink.association_closed(self._peer.association_id, how=how, images=self._images)

    def _negotiate(self, certificate_names: frozenset[str] | None) -> bytes:
        """Read and answer the request; the PDU to reject it with, or nothing where it was accepted."""
        kind, body = self._wire.read_pdu(self._parts.settings.acse_timeout_s, self._check_stop)
        if kind != pdus.ASSOCIATE_RQ:
            raise ProtocolError("a PDU before the A-ASSOCIATE-RQ", pdus.UNEXPECTED_PDU)
        request = pdus.decode_associate_request(body)
        if not request.protocol_version & 1:
            return self._reject(_VERSION_REJECTED, "it speaks another version of the DICOM upper layer")
        if request.application_context != pdus.APPLICATION_CONTEXT:
            return self._reject(_APPLICATION_CONTEXT_REJECTED, "it names another application context than DICOM's")
        found = self._peers.resolve(request.calling_ae, request.called_ae, self._address)
        if isinstance(found, Rejection):
            return self._reject((found.result, found.source, found.reason), found.message)
        if certificate_names is not None and request.calling_ae not in certificate_names:
            return self._reject(
                _CALLING_AE_REJECTED, f"AE title {harmless(request.calling_ae)!r} is not in the client's certificate"
            )
        full = self._gate.admit()
        if full is not None:
            return self._reject(LOCAL_LIMIT_REJECTED, full)
        return self._open(request, found)

    def _open(self, request: AssociateRequest, source: SourceRef) -> bytes:
        calling_ae, called_ae = harmless(request.calling_ae), harmless(request.called_ae)
        results = negotiate(request.contexts, self._parts.services, may_store=source.may_store)
        try:
            association_id = self._parts.sink.association_opened(
                calling_ae=calling_ae,
                called_ae=called_ae,
                address=self._address,
                source=source,
                can_store=any(result.accepted and is_storage(result.abstract_syntax) for result in results),
            )
        except StoreError:
            return self._reject(_BUSY_REJECTED, "it cannot be recorded now")
        self._peer = Peer(association_id=association_id, source=source, calling_ae=calling_ae, called_ae=called_ae)
        self._contexts = {result.context_id: result for result in results if result.accepted}
        lost = refusal(request.contexts, results)
        if lost is not None:
            self._refused(0, lost)
        max_pdu_bytes, roles = self._parts.settings.max_pdu_bytes, accept_roles(request.roles)
        self._wire.send(pdus.encode_associate_accept(request, results, max_pdu_bytes, roles=roles))
        return b""

    def _reject(self, codes: tuple[int, int, int], message: str) -> bytes:
        self._refused(0, f"association rejected: {message}")
        return pdus.encode_associate_reject(*codes)

    def _refused(self, status: int, message: str) -> None:
        peer = self._peer
        with contextlib.suppress(StoreError):  # the peer is told in any case
            self._parts.sink.refused(
                association_id=peer.association_id if peer else None,
                source=peer.source.name if peer else self._address,
                status=status,
                message=message,
            )

    def _serve(self) -> tuple[str, bytes]:
        """Messages until the peer ends the association: how it ended, and our last PDU."""
        while True:
            self._gate.check_stop(idle=False)  # a peer that never pauses must hear it too
            kind, body = self._wire.read_pdu(self._wait_s(), self._check_stop)
            if kind == pdus.DATA_TF:
                for context_id, is_command, is_last, fragment in pdus.iter_pdvs(body):
                    self._take(context_id, fragment, is_command=is_command, is_last=is_last)
            elif kind == pdus.RELEASE_RQ and self._is_idle():
                return "released", pdus.RELEASE_REPLY
            elif kind == pdus.ABORT:
                return "aborted", b""
            else:
                raise ProtocolError("a PDU that has no place here", pdus.UNEXPECTED_PDU)

    def _is_idle(self) -> bool:
        return self._operation is None and not self._command

    def _check_stop(self) -> None:
        self._gate.check_stop(idle=self._is_idle())

    def _wait_s(self) -> float:
        settings = self._parts.settings
        if self._operation is None:
            return settings.network_timeout_s
        slowest_s = settings.pdu_deadline_s + self._operation.received / _MIN_BYTES_PER_S
        return min(settings.pdu_deadline_s, self._began_mono + slowest_s - time.monotonic())

    def _take(self, context_id: int, fragment: memoryview, *, is_command: bool, is_last: bool) -> None:
        """One fragment: of a command set while none is complete, of its data set afterwards (PS3.7 §6.3.1)."""
        if is_command != (self._operation is None) or (not self._is_idle() and context_id != self._context_id):
            raise ProtocolError("fragments of two messages are mixed", pdus.UNEXPECTED_PDU)
        if self._operation is not None:
            self._operation.data(fragment)
            # The peer hears us only after its last byte; one that goes on for ever is cut off.
            if self._operation.received > 2 * self._parts.settings.max_object_bytes:
                raise ProtocolError("the data set has no end")
            if is_last:
                self._answer()
            return
        self._context_id = context_id
        self._command += fragment
        if len(self._command) > _MAX_COMMAND_BYTES:
            raise ProtocolError("the command set is too long")
        if is_last:
            request = commands.parse_request(bytes(self._command))
            self._command.clear()
            self._begin(request)

    def _begin(self, request: Request) -> None:
        context = self._contexts.get(self._context_id)
        if context is None:
            raise ProtocolError("a message on a presentation context that was not accepted")
        self._request = request
        self._began_mono = time.monotonic()
        if request.command_field == commands.C_STORE_RQ and request.has_data_set:
            assert self._peer is not None  # noqa: S101 - for the type checker
            self._operation = StoreOperation(self._parts, self._peer, request, context)
        elif request.command_field == commands.C_STORE_RQ:
            self._operation = _Answer(commands.CANNOT_UNDERSTAND)
        elif request.command_field == commands.C_ECHO_RQ:
            self._operation = _Answer(commands.SUCCESS)
        elif request.command_field in self._parts.services.get(context.abstract_syntax, {}):
            assert self._peer is not None  # noqa: S101 - for the type checker
            self._operation = ServiceOperation(self._parts, self._peer, request, context)
        else:
            self._operation = _Answer(commands.UNRECOGNIZED_OPERATION)
        if not request.has_data_set:
            self._answer()

    def _answer(self) -> None:
        operation, request = self._operation, self._request
        assert operation is not None and request is not None  # noqa: S101, PT018 - for the type checker
        status = operation.finish()
        self._operation = self._request = None
        if isinstance(operation, StoreOperation) and status == commands.SUCCESS:
            self._images += 1
        if request.command_field != commands.C_CANCEL_RQ:  # has no response (PS3.7 §9.3.2.3)
            response = commands.encode_response(request, status)  # far below any maximum length
            self._wire.send(pdus.encode_fragment(self._context_id, response, is_command=True, is_last=True))
