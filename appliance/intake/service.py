"""One message of an N-service: collect its data set, read it, hand it on."""

from __future__ import annotations

import contextlib
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from appliance.dicom import commands, elements
from appliance.dicom.commands import Request
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN
from appliance.dicom.source import Source
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
        self.received = 0

    def data(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set."""
        self.received += len(fragment)
        if self.received <= _MAX_BYTES:
            self._data += fragment

    def abort(self) -> None:
        """Nothing to undo."""

    def finish(self) -> int:
        """Act, and give the status to answer."""
        request = self._request
        if request.sop_class_uid != self._context.abstract_syntax:
            return self._refused(commands.CLASS_NOT_SUPPORTED, "names another SOP Class than its presentation context")
        if self.received > _MAX_BYTES:
            return self._refused(commands.PROCESSING_FAILURE, f"has more than {_MAX_BYTES} bytes")
        ds = self._read()
        if ds is None:
            return self._refused(commands.INVALID_ARGUMENT, "has a data set that cannot be read")
        try:
            return self._parts.services[request.sop_class_uid][request.command_field](self._peer, request, ds)
        except StoreError:
            return self._refused(commands.PROCESSING_FAILURE, "cannot be recorded now")

    def _read(self) -> Dataset | None:
        is_implicit = self._context.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
        data = bytes(self._data)
        try:
            # It believes no length, and nests only so deep; pydicom takes what is cut off for whole.
            elements.walk(Source(data), 0, elements.IMPLICIT_LE if is_implicit else elements.EXPLICIT_LE)
            ds = read_dataset(BytesIO(data), is_implicit_VR=is_implicit, is_little_endian=True)
            # Elements are read when they are asked for: what is broken must break here.
            for _ in ds.iterall():
                pass
        except Exception:  # noqa: BLE001 - foreign bytes enter
            return None
        return ds

    def _refused(self, status: int, why: str) -> int:
        with contextlib.suppress(StoreError):  # the peer is told in any case
            self._parts.sink.refused(
                association_id=self._peer.association_id,
                source=self._peer.source.name,
                status=status,
                message=f"a request of another service than C-STORE {why}; look at the sender",
            )
        return status
