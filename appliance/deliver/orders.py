"""Modality worklist queries: the keys that are asked for, the entries that come, and what they tell. Pure.

A priority only changes the order in which studies are looked at, so an entry that fits patient, day and modality is
enough for it. An accession number decides where a result is filed: it takes the order's own Study Instance UID, which
no other examination can have (docs/adr/0032).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from appliance.dicom import elements
from appliance.dicom.attributes import Attributes
from appliance.dicom.charsets import decode_text
from appliance.dicom.source import Source
from appliance.records import OrderState
from appliance.store.orders import Answer, ToAsk

#: Requested Procedure Priorities (PS3.3 C.4.11), the most urgent first.
_PRIORITIES = ("STAT", "HIGH", "MEDIUM", "ROUTINE", "LOW")
#: Characters that make a key match more than itself (PS3.4 §C.2.2.2).
_WILD = frozenset("*?\\")
_CHARSET, _SCHEDULED_STEPS = 0x00080005, 0x00400100
_TEXTS = {
    "accession_number": (0x00080050, "SH"),
    "patient_id": (0x00100020, "LO"),
    "issuer_of_patient_id": (0x00100021, "LO"),
    "patient_birth_date": (0x00100030, "DA"),
    "study_instance_uid": (0x0020000D, "UI"),
    "procedure_description": (0x00321060, "LO"),
    "procedure_id": (0x00401001, "SH"),
    "priority": (0x00401003, "CS"),
}
_STEP_TEXTS = {"modality": (0x00080060, "CS"), "step_description": (0x00400007, "LO")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a worklist; empty where it says nothing."""

    accession_number: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: str = ""
    study_instance_uid: str = ""
    procedure_description: str = ""
    procedure_id: str = ""
    priority: str = ""
    modality: str = ""
    step_description: str = ""

    @property
    def procedure(self) -> str:
        """What is to be done, in the RIS's words."""
        return self.procedure_description or self.step_description


def asks_by(asked: ToAsk) -> str:
    """What a study can be asked for by: accession, else patient (with the day); empty where its header has neither."""
    if _is_plain(asked.identity.accession_number):
        return "accession"
    return "patient" if _is_plain(asked.identity.patient_id) and _is_plain(asked.study_date) else ""


def _is_plain(key: str) -> bool:
    return bool(key) and not _WILD & set(key)


def identifier(asked: ToAsk) -> bytes:
    """The keys of a C-FIND for one study, in Implicit VR Little Endian (PS3.4 Table K.6-1)."""
    ds, step = Dataset(), Dataset()
    is_by_accession = asks_by(asked) == "accession"
    keys = (
        {"AccessionNumber": asked.identity.accession_number}
        if is_by_accession
        else {"PatientID": asked.identity.patient_id}
    )
    if not all(value.isascii() for value in keys.values()):
        ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (
        "AccessionNumber",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "StudyInstanceUID",
        "RequestedProcedureDescription",
        "RequestedProcedureID",
        "RequestedProcedurePriority",
    ):
        setattr(ds, keyword, keys.get(keyword, ""))
    for keyword in (
        "Modality",
        "ScheduledStationAETitle",
        "ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepStartTime",
        "ScheduledProcedureStepDescription",
        "ScheduledProcedureStepID",
    ):
        setattr(step, keyword, "")
    if not is_by_accession:
        step.ScheduledProcedureStepStartDate = asked.study_date
    ds.ScheduledProcedureStepSequence = [step]
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = True, True
    write_dataset(stream, ds)
    return bytes(stream.getvalue())


def read_entry(data: bytes, assume_charset: str = "") -> Entry:
    """One match of a C-FIND, as it came in Implicit VR Little Endian.

    Args:
        data: The bytes.
        assume_charset: What the RIS really sends where it declares nothing (``charsets.decode_text``).

    Raises:
        RejectedInstance: The bytes are no data set.
    """
    source = Source(data)
    ds = elements.walk(source, 0, elements.IMPLICIT_LE)
    attributes = Attributes(source, ds.encoding, ds.places)
    charset = attributes.ascii(_CHARSET)
    steps = attributes.items(_SCHEDULED_STEPS)
    return Entry(
        **{name: decode_text(attributes.raw(tag), charset, vr, assume_charset) for name, (tag, vr) in _TEXTS.items()},
        **{
            name: decode_text(steps[0].raw(tag), charset, vr, assume_charset) if steps else ""
            for name, (tag, vr) in _STEP_TEXTS.items()
        },
    )


def judge(asked: ToAsk, entries: Sequence[Entry]) -> Answer:
    """What the entries tell of a study.

    Args:
        asked: The study.
        entries: All that the RIS sent for it.
    """
    by, mine = asks_by(asked), asked.identity
    if by == "accession":  # a peer may ignore a key
        found = [entry for entry in entries if entry.accession_number == mine.accession_number]
    else:
        found = [entry for entry in entries if entry.patient_id == mine.patient_id]
    same_patient = [entry for entry in found if not _is_other_patient(asked, entry)]
    if found and not same_patient:
        return Answer(state=OrderState.OTHER_PATIENT, entries=len(entries), by=by)
    own = [entry for entry in same_patient if entry.study_instance_uid == mine.study_instance_uid]
    fitting = own or same_patient
    if by == "patient" and not own:
        fitting = [entry for entry in same_patient if not entry.modality or _modality(entry.modality) in _taken(asked)]
        if len({(entry.accession_number, entry.procedure_id, entry.study_instance_uid) for entry in fitting}) > 1:
            return Answer(state=OrderState.SEVERAL, entries=len(entries), by=by)
    if not fitting:
        return Answer(state=OrderState.NONE, entries=len(entries), by=by)
    accessions = {entry.accession_number for entry in own if _is_same_procedure(asked, entry)}
    priorities = [entry.priority for entry in fitting if entry.priority in _PRIORITIES]
    return Answer(
        state=OrderState.FOUND,
        entries=len(entries),
        by=by,
        priority=min(priorities, key=_PRIORITIES.index, default=""),
        procedure_id=_joined(entry.procedure_id for entry in fitting),
        procedure_description=_joined(entry.procedure for entry in fitting),
        accession_number=accessions.pop() if not mine.accession_number and len(accessions) == 1 else "",
    )


def _is_other_patient(asked: ToAsk, entry: Entry) -> bool:
    """Whether something that both sides say of the patient differs; names are written too differently to tell."""
    mine = asked.identity
    pairs = (
        (mine.patient_id, entry.patient_id),
        (mine.issuer_of_patient_id, entry.issuer_of_patient_id),
        (mine.patient_birth_date, entry.patient_birth_date),
    )
    return any(ours and theirs and ours != theirs for ours, theirs in pairs)


def _is_same_procedure(asked: ToAsk, entry: Entry) -> bool:
    mine = asked.identity.requested_procedure_id
    return not mine or not entry.procedure_id or mine == entry.procedure_id


def _taken(asked: ToAsk) -> set[str]:
    return {_modality(modality) for modality in asked.modalities}


def _modality(text: str) -> str:
    """Worklists do not tell plate from detector."""
    return "DX" if text == "CR" else text


def _joined(texts: object) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))  # type: ignore[attr-defined]
