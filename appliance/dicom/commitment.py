"""The data sets of storage commitment (PS3.4 §J.3): what is asked, and what is reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from appliance.dicom.classes import STORAGE_COMMITMENT_PUSH
from appliance.dicom.commands import is_uid
from appliance.dicom.pdus import IMPLICIT_VR_LITTLE_ENDIAN

#: Action Type ID of the request, Event Type IDs of the two reports (PS3.4 Tables J.3-1, J.3-2).
REQUEST_COMMITMENT, ALL_COMMITTED, FAILURES_EXIST = 1, 1, 2
#: What we propose; both syntaxes, each as a context of its own.
CONTEXTS = tuple((STORAGE_COMMITMENT_PUSH, syntax) for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.1"))
_PROCESSING_FAILURE = 0x0110


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """What an N-ACTION asks for; ``wanted`` is SOP Instance UID: SOP Class UID."""

    transaction_uid: str
    wanted: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an N-EVENT-REPORT says of SOP Instance UIDs."""

    transaction_uid: str
    committed: frozenset[str]
    #: With the Failure Reason (0008,1197).
    failed: Mapping[str, int]


def encode_request(transaction_uid: str, wanted: Iterable[tuple[str, str]], transfer_syntax: str) -> bytes:
    """The data set of an N-ACTION for these (SOP Class, SOP Instance) UIDs."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = [_item(*uids) for uids in wanted]
    return _encoded(ds, transfer_syntax)


def encode_report(
    transaction_uid: str,
    committed: Iterable[tuple[str, str]],
    failed: Iterable[tuple[str, str, int]],
    transfer_syntax: str,
) -> bytes:
    """The data set of an N-EVENT-REPORT; a sequence without items is left out, as the standard has it."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    kept = [_item(*uids) for uids in committed]
    if kept:
        ds.ReferencedSOPSequence = kept
    lost = []
    for sop_class, uid, reason in failed:
        item = _item(sop_class, uid)
        item.FailureReason = reason
        lost.append(item)
    if lost:
        ds.FailedSOPSequence = lost
    return _encoded(ds, transfer_syntax)


def read_request(ds: Dataset) -> CommitmentRequest:
    """Read the data set of an N-ACTION.

    Raises:
        ValueError: It has no Transaction UID, names nothing, or names what is no UID.
    """
    wanted = {uid: sop_class for sop_class, uid, _ in _named(ds, "ReferencedSOPSequence")}
    if not wanted:
        raise ValueError("names no object")
    return CommitmentRequest(transaction_uid=_transaction(ds), wanted=wanted)


def read_report(ds: Dataset) -> CommitmentReport:
    """Read the data set of an N-EVENT-REPORT. What stands in both sequences has failed; what has no UID is left out.

    Raises:
        ValueError: It has no Transaction UID.
    """
    failed = {
        uid: reason if reason is not None else _PROCESSING_FAILURE
        for _, uid, reason in _named(ds, "FailedSOPSequence", strict=False)
    }
    committed = {uid for _, uid, _ in _named(ds, "ReferencedSOPSequence", strict=False)}
    return CommitmentReport(
        transaction_uid=_transaction(ds), committed=frozenset(committed - failed.keys()), failed=failed
    )


def _transaction(ds: Dataset) -> str:
    uid = str(ds.get("TransactionUID", ""))
    if not is_uid(uid):
        raise ValueError("has no Transaction UID")
    return uid


def _named(ds: Dataset, sequence: str, *, strict: bool = True) -> list[tuple[str, str, int | None]]:
    found: list[tuple[str, str, int | None]] = []
    items = ds.get(sequence) or ()
    is_sequence = isinstance(items, (Sequence, tuple))  # in Explicit VR a peer may send it as a number
    if not is_sequence:
        raise ValueError(f"has a {sequence} that is no sequence")
    for item in items:
        sop_class, uid = str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", ""))
        reason = item.get("FailureReason")
        if not is_uid(uid) or not is_uid(sop_class):
            if strict:
                raise ValueError("names an object without well-formed UIDs")
            if not is_uid(uid):
                continue
        found.append((sop_class, uid, reason if isinstance(reason, int) else None))
    return found


def _item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _encoded(ds: Dataset, transfer_syntax: str) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian = True
    stream.is_implicit_VR = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    write_dataset(stream, ds)
    return bytes(stream.getvalue())
