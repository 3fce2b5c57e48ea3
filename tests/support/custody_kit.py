"""For tests of storage commitment: a PACS and a scanner by pynetdicom, which do as they are told."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel

from appliance.simulate.scanner import give_answers_back

INSTANCE = "1.2.840.10008.1.20.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"


def item(uid, sop_class=CTImageStorage, reason=None):
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class, uid
    if reason is not None:
        ds.FailureReason = reason
    return ds


def report(transaction_uid, committed=(), failed=None):
    """The data set of an N-EVENT-REPORT."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    if committed:
        ds.ReferencedSOPSequence = [item(uid) for uid in committed]
    if failed:
        ds.FailedSOPSequence = [item(uid, reason=reason) for uid, reason in failed.items()]
    return ds


@dataclass
class Waits:
    """A list that a test waits on."""

    rows: list = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, row):
        with self.changed:
            self.rows.append(row)
            self.changed.notify_all()

    def wait(self, count=1, timeout_s=60):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.rows) >= count, timeout_s), f"only {self.rows}"
            return self.rows


def send_event(port, ds, event_type, *, calling, called, host="127.0.0.1", tls=None):
    """Report on a new association, as the SCP of the class; returns the status, None where it was not taken.

    ``tls``: the context of the one who calls, and the name that it expects in the certificate.
    """
    ae = AE(ae_title=calling)
    ae.add_requested_context(StorageCommitmentPushModel)
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
    assoc = ae.associate(host, port, ae_title=called, ext_neg=roles, tls_args=tls)
    give_answers_back(assoc)
    if not assoc.is_established:
        return None
    status, _ = assoc.send_n_event_report(ds, event_type, StorageCommitmentPushModel, INSTANCE)
    assoc.release()
    return status.Status if status else None


class CommittingPacs:
    """Takes images and requests for commitment, over TLS too; ``here`` makes a report on the same association."""

    def __init__(self, *, action_status=0x0000, here=None, ae_title="PACS", tls=None):
        self.action_status, self.here, self.ae_title, self._tls = action_status, here, ae_title, tls
        self.requests, self.images, self.callers = Waits(), Waits(), []

    def __enter__(self):
        ae = AE(ae_title=self.ae_title)
        ae.add_supported_context(CTImageStorage, EXPLICIT)
        ae.add_supported_context(StorageCommitmentPushModel)
        self.server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            ssl_context=self._tls,
            evt_handlers=[(evt.EVT_C_STORE, self._stored), (evt.EVT_N_ACTION, self._asked)],
        )
        self.port = self.server.socket.getsockname()[1]
        return self

    def __exit__(self, *_):
        self.server.shutdown()

    def _stored(self, event):
        self.images.add(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _asked(self, event):
        ds = event.action_information
        uids = [str(one.ReferencedSOPInstanceUID) for one in ds.ReferencedSOPSequence]
        self.callers.append(event.assoc.requestor.ae_title)
        status = self.action_status
        if self.here and not status:
            give_answers_back(event.assoc)
            threading.Timer(0.05, self._report_here, (event.assoc, ds.TransactionUID, uids)).start()
        self.requests.add((str(ds.TransactionUID), uids))
        return status, None

    def _report_here(self, assoc, transaction_uid, uids):
        with contextlib.suppress(RuntimeError, ValueError):
            ds = self.here(transaction_uid, uids)
            assoc.send_n_event_report(ds, 2 if "FailedSOPSequence" in ds else 1, StorageCommitmentPushModel, INSTANCE)


class AskingScanner:
    """Sends images, asks for commitment, and takes reports on a listener of its own, over TLS too."""

    def __init__(self, ae_title="CT-1", *, report_status=0x0000, port=0, tls=None):
        self.ae_title, self.report_status, self._port, self._tls = ae_title, report_status, port, tls
        self.reports = Waits()

    def __enter__(self):
        ae = AE(ae_title=self.ae_title)
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        self.server = ae.start_server(
            ("127.0.0.1", self._port),
            block=False,
            ssl_context=self._tls,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._reported)],
        )
        self.port = self.server.socket.getsockname()[1]
        return self

    def __exit__(self, *_):
        self.server.shutdown()

    def _reported(self, event):
        ds = event.event_information
        self.reports.add(
            {
                "event": event.event_type,
                "transaction": str(ds.TransactionUID),
                "committed": {str(one.ReferencedSOPInstanceUID) for one in ds.get("ReferencedSOPSequence", ())},
                "failed": {
                    str(one.ReferencedSOPInstanceUID): one.FailureReason for one in ds.get("FailedSOPSequence", ())
                },
                "calling": event.assoc.requestor.ae_title,
                "called": event.assoc.requestor.primitive.called_ae_title,
            }
        )
        return self.report_status, None

    def ask(self, port, uids, *, called="SCANSIDE", transaction_uid=None, sop_class=CTImageStorage):
        """N-ACTION; returns (status, transaction UID); the status is None where the association or class is refused."""
        ds = Dataset()
        ds.TransactionUID = transaction_uid or generate_uid()
        ds.ReferencedSOPSequence = [item(uid, sop_class) for uid in uids]
        ae = AE(ae_title=self.ae_title)
        ae.add_requested_context(StorageCommitmentPushModel)
        assoc = ae.associate("127.0.0.1", port, ae_title=called)
        give_answers_back(assoc)
        if not assoc.is_established:
            return None, str(ds.TransactionUID)
        status, _ = assoc.send_n_action(ds, 1, StorageCommitmentPushModel, INSTANCE)
        assoc.release()
        return (status.Status if status else None), str(ds.TransactionUID)
