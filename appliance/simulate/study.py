"""Whose images a phantom's are said to be: fictitious persons, orders and devices, and UIDs that follow from a seed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

#: The character sets that scanners send, declared or not. "undeclared GBK" writes GBK bytes and declares nothing.
CHARSETS = ("ISO_IR 192", "GB18030", "GBK", "ISO_IR 100", "ISO 2022 IR 58", "undeclared GBK")

_CODECS = {
    "ISO_IR 192": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO_IR 100": "latin-1",
    "ISO 2022 IR 58": "gb2312",
    "undeclared GBK": "gbk",
}
_ESCAPE_IR_58 = b"\x1b$)A"
_NAMESPACE = uuid.UUID("1b0c8a52-6c1e-5d0e-9b42-7f1d3a6e2c90")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A person who does not exist."""

    name: str = "PHANTOM^Alpha"
    patient_id: str = "SIM-0001"
    birth_date: str = "19600101"
    sex: str = "O"
    age: str = "065Y"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked for, and when it was done."""

    accession_number: str = "SIMACC0001"
    study_id: str = "1"
    requested_procedure_id: str = "RP1"
    referring_physician_name: str = "SIMULATOR^Referring"
    study_description: str = ""
    study_date: str = "20260105"
    study_time: str = "080000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The scanner that is said to have made the images."""

    manufacturer: str = "Scanside Simulator"
    manufacturer_model_name: str = "Phantom CT"
    station_name: str = "SIM1"
    device_serial_number: str = "0001"
    software_versions: str = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study: the same seed gives the same UIDs, another seed others."""

    seed: str
    patient: Patient = field(default_factory=Patient)
    order: Order = field(default_factory=Order)
    device: Device = field(default_factory=Device)
    charset: str = "ISO_IR 192"

    def uid(self, *parts: object) -> UID:
        """A UID that follows from the seed and ``parts`` alone (PS3.5 Annex B.2: derived from a UUID)."""
        name = "/".join(str(part) for part in (self.seed, *parts))
        return UID(f"2.25.{uuid.uuid5(_NAMESPACE, name).int}")

    @property
    def study_instance_uid(self) -> UID:
        """The UID of the study."""
        return self.uid("study")


def describe(ds: Dataset, study: Study) -> None:
    """Write patient, study and equipment (PS3.3 C.7.1.1, C.7.2.1, C.7.5.1) into ``ds``."""
    patient, order, device = study.patient, study.order, study.device
    if study.charset == "ISO 2022 IR 58":
        ds.SpecificCharacterSet = ["", "ISO 2022 IR 58"]
    elif study.charset != "undeclared GBK":
        ds.SpecificCharacterSet = study.charset
    ds.PatientName = patient.name
    ds.PatientID = patient.patient_id
    ds.PatientBirthDate = patient.birth_date
    ds.PatientSex = patient.sex
    ds.PatientAge = patient.age
    ds.StudyInstanceUID = study.study_instance_uid
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = order.study_date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = order.study_time
    ds.AccessionNumber = order.accession_number
    ds.ReferringPhysicianName = order.referring_physician_name
    ds.StudyID = order.study_id
    if order.study_description:
        ds.StudyDescription = order.study_description
    ds.Manufacturer = device.manufacturer
    ds.ManufacturerModelName = device.manufacturer_model_name
    ds.StationName = device.station_name
    ds.DeviceSerialNumber = device.device_serial_number
    ds.SoftwareVersions = device.software_versions
    ds.InstitutionName = "Scanside Simulator"


def describe_acquisition(ds: Dataset, study: Study) -> None:
    """Write when an image was acquired and under which order (General Image, Request Attributes)."""
    ds.AcquisitionDate, ds.AcquisitionTime = study.order.study_date, study.order.study_time
    request = Dataset()
    request.RequestedProcedureID = study.order.requested_procedure_id
    request.ScheduledProcedureStepID = "1"
    ds.RequestAttributesSequence = [request]


def encode_text(ds: Dataset, charset: str) -> None:
    """Turn the top-level texts that are not ASCII into the bytes that a scanner with ``charset`` would send.

    pydicom itself writes no escape sequences for ISO 2022 IR 58, and cannot write bytes that nothing declares.

    Raises:
        ValueError: ``charset`` is none of ``CHARSETS``, or cannot say the text.
    """
    if charset not in _CODECS:
        raise ValueError(f"character set {charset!r}; there are {', '.join(CHARSETS)}")
    for element in list(ds):
        if element.VR not in {"PN", "LO", "SH", "ST", "LT", "UT"} or str(element.value).isascii():
            continue
        value = _bytes(str(element.value), charset)
        if len(value) % 2:
            value += b" "
        ds[element.tag] = RawDataElement(element.tag, element.VR, len(value), value, 0, False, True)  # noqa: FBT003


def _bytes(text: str, charset: str) -> bytes:
    if charset != "ISO 2022 IR 58":
        return text.encode(_CODECS[charset])
    # PS3.5 §6.1.2.5.3: after ^ and = the initial character set is in force again, so each part escapes anew.
    out, part = b"", ""
    for character in text + "\0":
        if character in "^=\\\0":
            out += part.encode() if part.isascii() else _ESCAPE_IR_58 + part.encode("gb2312")
            out += b"" if character == "\0" else character.encode()
            part = ""
        else:
            part += character
    return out
