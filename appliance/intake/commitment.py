"""Storage commitment on the box's own listener (PS3.4 Annex J): requests of scanners, and reports of destinations.

Who asks or reports is a claim by its AE title. What guards a report is its Transaction UID, which nobody but the
destination has ever seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from pydicom.dataset import Dataset

from appliance.clock import Clock
from appliance.config import Config
from appliance.dicom import commands
from appliance.dicom.classes import STORAGE_COMMITMENT_INSTANCE, STORAGE_COMMITMENT_PUSH
from appliance.dicom.commands import Request
from appliance.dicom.commitment import REQUEST_COMMITMENT, read_report, read_request
from appliance.errors import StoreError
from appliance.intake.receive import Peer, Service, Services
from appliance.intake.record import Refusals
from appliance.store import Store


class CommitmentService:
    """Both sides of the class, called on association threads."""

    def __init__(self, store: Store, config: Config, clock: Clock, *, wake_reports: Callable[[], None]) -> None:
        """Record into ``store``.

        Args:
            store: Where requests and reports go.
            config: Who may ask, and whom we ask.
            clock: Counts floods of refusals.
            wake_reports: Called when a scanner has asked, or a destination has committed to something.
        """
        self._store = store
        self._config = config
        self._sources = {source.name: source for source in config.sources}
        self._titles = {one.name: one.ae_title.strip() for one in config.commitment_destinations}
        self._refusals = Refusals(clock)
        self._wake_reports = wake_reports

    def services(self) -> Services:
        """What the receiver is given; nothing where nobody could use it."""
        acts: dict[int, Service] = {}
        if self._sources:
            acts[commands.N_ACTION_RQ] = self.requested
        if self._titles:
            acts[commands.N_EVENT_REPORT_RQ] = self.reported
        return {STORAGE_COMMITMENT_PUSH: acts} if acts else {}

    def requested(self, peer: Peer, request: Request, ds: Dataset) -> int:
        """A scanner asks: keep it, then say yes; or say no at once where no answer could ever be given."""
        source = self._sources.get(peer.source.name)
        if source is None or not self._config.committing(source.name):
            why = (
                "storage commitment refused: no destination with commitment: true gets the images of this source"
                " through this box; let the scanner ask the PACS itself"
            )
            return self._refused(peer, commands.PROCESSING_FAILURE, why)
        if not source.commitment_host:
            why = (
                "storage commitment refused: the source has no commitment_host and commitment_port to report to; enter"
                " where the scanner listens"
            )
            return self._refused(peer, commands.PROCESSING_FAILURE, why)
        if request.sop_instance_uid != STORAGE_COMMITMENT_INSTANCE:
            why = "storage commitment refused: another instance than the one of the standard is asked"
            return self._refused(peer, commands.NO_SUCH_INSTANCE, why)
        if request.type_id != REQUEST_COMMITMENT:
            why = "storage commitment refused: another action than the one of the standard is asked"
            return self._refused(peer, commands.NO_SUCH_ACTION, why)
        try:
            wanted = read_request(ds)
        except ValueError as error:
            return self._refused(peer, commands.INVALID_ARGUMENT, f"storage commitment refused: the request {error}")
        self._store.commitment_requests.add(
            source=source.name,
            transaction_uid=wanted.transaction_uid,
            calling_ae=peer.calling_ae,
            called_ae=peer.called_ae,
            association_id=peer.association_id,
            wanted=wanted.wanted,
        )
        self._wake_reports()
        return commands.SUCCESS

    def reported(self, peer: Peer, request: Request, ds: Dataset) -> int:
        """A destination reports. What we never asked of it is answered, journalled and changes nothing."""
        del request  # the data set says all
        try:
            report = read_report(ds)
        except ValueError as error:
            return self._refused(peer, commands.INVALID_ARGUMENT, f"a storage commitment report {error}")
        destination = self._store.commitments.destination_of(report.transaction_uid)
        if destination is None or self._titles.get(destination) != peer.calling_ae:
            self._refused(peer, commands.SUCCESS, "a storage commitment report that this box never asked that peer for")
            return commands.SUCCESS
        self._store.commitments.answered(report.transaction_uid, report.committed, report.failed)
        self._wake_reports()
        return commands.SUCCESS

    def _refused(self, peer: Peer, status: int, message: str) -> int:
        times = self._refusals.times(peer.source.name, status)
        if times:
            with contextlib.suppress(StoreError):  # the peer is told in any case
                self._store.studies.refused(
                    association_id=peer.association_id,
                    source=peer.source.name,
                    status=status,
                    message=message,
                    times=times,
                )
        return status
