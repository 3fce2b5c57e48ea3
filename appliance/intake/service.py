"""One message of an N-service: collect its data set, read it, hand it on."""

from __future__ import annotations

import contextlib

from appliance.dicom import commands
from appliance.dicom.commands import Request
from appliance.dicom.message import read_data_set
from appliance.errors import StoreError
from appliance.intake.negotiation import ContextResult
from appliance.intake.receive import Parts, Peer

#: A storage commitment of 10,000 images takes 2 MB.
_MAX_BYTES = 8 << 20


class ServiceOperation:
    """The same calls as a ``StoreOperation``."""

    def __init__(self, parts: Parts, peer: Peer, request: Request, context: ContextResult) -> None:
        """Prepare; ``finish`` acts."""
        self._parts = parts
        self._peer = peer
        self._request = request
        self._context = context
        self._data = bytearray()
        #: The answer, once it is known that nothing is done: what comes still is forgotten.
        self._status: int | None = None
        self.received = 0

    def data(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set."""
        self.received += len(fragment)
        if self._status is None:
            self._keep(fragment)

    def _keep(self, fragment: memoryview) -> None:
        if self.received > _MAX_BYTES:
            self._status = self._refused(commands.PROCESSING_FAILURE, f"has more than {_MAX_BYTES} bytes")
        elif not self._parts.budget.take(len(fragment)):
            words = "came while others had the memory for such requests"
            self._status = self._refused(commands.RESOURCE_LIMITATION, words)
        else:
            self._data += fragment
            return
        self.abort()

    def abort(self) -> None:
        """Forget what came."""
        self._parts.budget.give_back(len(self._data))
        self._data = bytearray()

    def finish(self) -> int:
        """Act, and give the status to answer."""
        try:
            return self._act() if self._status is None else self._status
        finally:
            self.abort()

    def _act(self) -> int:
        request = self._request
        if request.sop_class_uid != self._context.abstract_syntax:
            return self._refused(commands.CLASS_NOT_SUPPORTED, "names another SOP Class than its presentation context")
        with self._parts.reading:
            ds = read_data_set(bytes(self._data), self._context.transfer_syntax)
            if ds is None:
                return self._refused(commands.INVALID_ARGUMENT, "has a data set that cannot be read")
            try:
                return self._parts.services[request.sop_class_uid][request.command_field](self._peer, request, ds)
            except StoreError:
                return self._refused(commands.PROCESSING_FAILURE, "cannot be recorded now")

    def _refused(self, status: int, why: str) -> int:
        with contextlib.suppress(StoreError):  # the peer is told in any case
            self._parts.sink.refused(
                association_id=self._peer.association_id,
                source=self._peer.source.name,
                status=status,
                message=f"a request of another service than C-STORE {why}; look at the sender",
            )
        return status
