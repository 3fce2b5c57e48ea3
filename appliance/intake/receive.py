"""One C-STORE, from the command set to the status: what must be true before the box says 0x0000.

Order: admission > stream to a part file, hashing > read the header > fdatasync > rename > fsync of the folder > one
transaction of the sink > success. Whatever fails on the way removes the file and becomes a status; the rest of the data
set is still read, because the peer listens only after its last byte.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydicom.dataset import Dataset

from appliance.clock import Clock
from appliance.dicom import commands
from appliance.dicom.commands import Request
from appliance.dicom.file_meta import file_meta
from appliance.dicom.headers import check_against_command
from appliance.errors import ApplianceError, RejectedInstance, StoreError
from appliance.intake.budget import Budget
from appliance.intake.contract import HeaderReader, ScpSettings, Sink
from appliance.intake.negotiation import ContextResult
from appliance.records import Header, Received, SourceRef
from appliance.store.part import PartFile
from appliance.store.spool import Spool

log = logging.getLogger(__name__)


class Service(Protocol):
    """Who carries out one N-service, on the association's thread."""

    def __call__(self, peer: Peer, request: Request, ds: Dataset) -> int:
        """Act, for good, and give the status to answer (PS3.7 Annex C).

        Args:
            peer: Who asks.
            request: The command set.
            ds: The data set; empty where none came. Nothing in it is checked.

        Raises:
            StoreError: It cannot be recorded now; answered as a processing failure.
        """
        ...


Services = Mapping[str, Mapping[int, Service]]

#: Of the data sets of N-services that are on their way: four of the largest.
_SERVICES_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every association needs of the box."""

    settings: ScpSettings
    sink: Sink
    spool: Spool
    read_header: HeaderReader
    clock: Clock
    #: By SOP Class and command field: who carries out N-services.
    services: Services = field(default_factory=dict)
    #: What their data sets may take until they are read.
    budget: Budget = field(default_factory=lambda: Budget(_SERVICES_BYTES))
    #: One request of an N-service at a time: while a long list is read, it takes some hundred MB.
    reading: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end of an accepted association."""

    association_id: int
    source: SourceRef
    calling_ae: str
    called_ae: str


class StoreOperation:
    """The receipt of one object. ``data`` raises nothing that peer or disk caused; ``finish`` tells the status."""

    def __init__(self, parts: Parts, peer: Peer, request: Request, context: ContextResult) -> None:
        """Admit or refuse what the command set announces."""
        self._parts = parts
        self._peer = peer
        self._request = request
        self._part: PartFile | None = None
        self._refusal: RejectedInstance | None = None
        #: Bytes of the data set so far, kept or not.
        self.received = 0
        self._attempt(lambda: self._admit(context))

    def _admit(self, context: ContextResult) -> None:
        request = self._request
        if request.sop_class_uid != context.abstract_syntax:
            raise RejectedInstance(
                commands.CLASS_NOT_SUPPORTED, "the request names another SOP Class than its presentation context"
            )
        if not (commands.is_uid(request.sop_class_uid) and commands.is_uid(request.sop_instance_uid)):
            raise RejectedInstance(
                commands.CANNOT_UNDERSTAND,
                "the request has no well-formed SOP Class and Instance UID; correct the sender",
            )
        meta = file_meta(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax=context.transfer_syntax,
            calling_ae=self._peer.calling_ae,
            called_ae=self._peer.called_ae,
        )
        self._part = self._parts.spool.open_part(meta)

    def data(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set."""
        self.received += len(fragment)
        if self._part is not None:
            self._attempt(lambda: self._write(fragment))

    def _write(self, fragment: memoryview) -> None:
        limit = self._parts.settings.max_object_bytes
        if self.received > limit:
            raise RejectedInstance(commands.OUT_OF_RESOURCES, f"the object is larger than the allowed {limit} bytes")
        self._open_part().write(fragment)

    def finish(self) -> int:
        """Check, keep for good and record.

        Returns:
            The C-STORE status to answer.
        """
        if self._part is not None:
            self._attempt(self._keep)
        if self._refusal is None:
            return commands.SUCCESS
        with contextlib.suppress(StoreError):  # the peer is answered in any case
            self._parts.sink.refused(
                association_id=self._peer.association_id,
                source=self._peer.source.name,
                status=self._refusal.status,
                message=str(self._refusal),
            )
        return self._refusal.status

    def _keep(self) -> None:
        part = self._open_part()
        try:
            header = self._read_header(part)
        except RejectedInstance:
            part.quarantine()
            raise
        path = part.commit()
        source = self._peer.source
        received = Received(
            header=header,
            path=path,
            size=part.file_size,
            data_sha256=part.data_sha256,
            association_id=self._peer.association_id,
            source=source.name,
            stat=source.stat or self._request.high_priority,
            received_mono=self._parts.clock.monotonic(),
        )
        try:
            self._parts.sink.store(received)
        except BaseException:
            self._parts.spool.remove(path)
            raise

    def _read_header(self, part: PartFile) -> Header:
        try:
            header = self._parts.read_header(part.path, assume_charset=self._peer.source.assume_charset)
        except ApplianceError:
            raise
        except OSError as error:
            raise part.failed("read", error) from error
        except Exception as error:
            raise RejectedInstance(
                commands.CANNOT_UNDERSTAND,
                f"the data set cannot be read ({type(error).__name__}); see quarantine/",
            ) from error
        check_against_command(header, self._request.sop_class_uid, self._request.sop_instance_uid)
        return header

    def abort(self) -> None:
        """The association ended before the data set did: nothing stays."""
        if self._part is not None:
            self._part.abort()
            self._part = None

    def _open_part(self) -> PartFile:
        assert self._part is not None  # noqa: S101 - for the type checker: callers have looked
        return self._part

    def _attempt(self, step: Callable[[], None]) -> None:
        """Run a step; turn what the world did wrong into the refusal, and a bug of ours into "try again later"."""
        try:
            step()
            return
        except RejectedInstance as refusal:
            self._refusal = refusal
        except StoreError as error:
            self._refusal = RejectedInstance(commands.OUT_OF_RESOURCES, f"the object could not be kept: {error}")
        except Exception as error:
            log.exception("a received object could not be kept")
            self._refusal = RejectedInstance(
                commands.OUT_OF_RESOURCES, f"the object could not be kept: internal error {type(error).__name__}"
            )
        self.abort()
