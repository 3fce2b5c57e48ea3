"""Patient and study of an object that we make: the identity as the box decoded it, in UTF-8."""

from __future__ import annotations

import re
from datetime import datetime

from pydicom.dataset import Dataset

from appliance.report.request import ReportRequest

#: Unicode for every object of ours, whatever the scanner used (PS3.3 C.12.1.1.2).
CHARACTER_SET = "ISO_IR 192"

_TIME = re.compile(r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d(?:\.\d{1,6})?)?)?\Z")
_AGE = re.compile(r"\d{3}[DWMY]\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: What highdicom reads of a source image; ``set_identity`` writes what is true.
_READ_OF_SOURCES = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def set_identity(ds: Dataset, request: ReportRequest) -> None:
    """Write the Patient, General Study and Patient Study attributes (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2).

    Identifiers stay as they came, even where a scanner broke their length: another value would be another patient.
    Type 2 attributes without a value are empty.
    """
    identity = request.identity
    ds.SpecificCharacterSet = CHARACTER_SET
    ds.PatientID = clean(identity.patient_id)
    if identity.issuer_of_patient_id:
        ds.IssuerOfPatientID = clean(identity.issuer_of_patient_id)
    ds.PatientName = clean(identity.patient_name)
    ds.PatientBirthDate = _date(identity.patient_birth_date)
    ds.PatientSex = identity.patient_sex if identity.patient_sex in {"M", "F", "O"} else ""
    if _AGE.match(request.patient_age):
        ds.PatientAge = request.patient_age
    ds.StudyInstanceUID = identity.study_instance_uid
    ds.StudyID = clean(identity.study_id)
    ds.StudyDate = _date(request.study_date)
    ds.StudyTime = request.study_time if _TIME.match(request.study_time) else ""
    ds.AccessionNumber = clean(identity.accession_number)
    ds.ReferringPhysicianName = clean(identity.referring_physician_name)
    if request.study_description:
        ds.StudyDescription = clean(request.study_description)[:64]


def empty_identity(ds: Dataset) -> None:
    """Give a source image nobody's identity, for highdicom asks for one."""
    for keyword in _READ_OF_SOURCES:
        setattr(ds, keyword, "")


def clean(value: str) -> str:
    """A value without control characters."""
    return _CONTROL.sub("", value).strip()


def _date(value: str) -> str:
    try:
        datetime.strptime(value, "%Y%m%d")  # noqa: DTZ007 - a date has no zone
    except ValueError:
        return ""
    return value if len(value) == 8 else ""
