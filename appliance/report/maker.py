"""What every object of ours says the same: who made it, in which series, when, and what it may be used for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept, DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.dataset import Dataset

from appliance.records import DeliveryKind
from appliance.report import uids
from appliance.report.identity import empty_identity, set_identity
from appliance.report.request import ReportCode, ReportRequest
from appliance.report.sentences import EVALUATION, REVIEWED, USES

MANUFACTURER = "Scanside"
PRIVATE_SCHEME = "99SCANSIDE"
#: What LO and SH-like texts of a segment, a series or a tracking identifier may hold.
SHORT = 64

#: Far above what scanners number their own series with.
_SERIES_NUMBERS = {
    DeliveryKind.SR: 9901,
    DeliveryKind.SEG: 9902,
    DeliveryKind.GSPS: 9903,
    DeliveryKind.KO: 9904,
    DeliveryKind.SC: 9905,
    DeliveryKind.REJECTION_NOTE: 9906,
}


class WithoutIdentity:
    """Mix-in for objects of highdicom whose patient and study come from the request, not from a scanner's data set."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing: ``set_identity`` writes what was decoded, cleaned, in one character set."""


def coded(code: ReportCode) -> CodedConcept:
    """A concept as highdicom wants it."""
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def origin(request: ReportRequest, codes: Mapping[str, ReportCode]) -> dict[str, Any]:
    """The arguments that every object of highdicom takes alike."""
    return {
        "series_instance_uid": series_uid(request),
        "series_number": _SERIES_NUMBERS[request.kind],
        "sop_instance_uid": request.sop_instance_uid,
        "instance_number": len(request.predecessors) + 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": request.box_version,
        "series_description": _series_description(request),
        "contributing_equipment": [_equipment(request, codes)],
        "coding_schemes": [
            CodingSchemeIdentificationItem(
                designator=PRIVATE_SCHEME, name="Scanside codes", responsible_organization=MANUFACTURER
            )
        ],
        "specific_character_set": None,
    }


def complete(ds: Dataset, request: ReportRequest) -> None:
    """Write whose object it is, and when the analysis ended, in local time like all times without a zone.

    highdicom writes when it built the object; built again, the object must be the same.
    """
    set_identity(ds, request)
    local = request.done_at.astimezone()
    date, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    dates = {element.keyword for element in ds if element.VR in {"DA", "TM"}} - {"StudyDate", "StudyTime"}
    dates -= {"PatientBirthDate"}
    for keyword in dates | {"InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"}:
        setattr(ds, keyword, date if keyword.startswith("Date") or keyword.endswith("Date") else time)
    for item in ds.ContributingEquipmentSequence:
        item.ContributionDateTime = date + time


def evidence(request: ReportRequest, sop_classes: Mapping[str, str], uids_wanted: Iterable[str]) -> list[Dataset]:
    """Analysed images as far as a reference needs them; the first one must have empty type 2 attributes."""
    series = {image.sop_instance_uid: image.series_instance_uid for image in request.images}
    items = [
        reference(request, sop_class_uid=sop_classes[uid], sop_instance_uid=uid, series_instance_uid=series[uid])
        for uid in uids_wanted
    ]
    empty_identity(items[0])
    return items


def reference(
    request: ReportRequest, *, sop_class_uid: str, sop_instance_uid: str, series_instance_uid: str
) -> Dataset:
    """An object of the study, as far as highdicom must know it to name it."""
    ds = Dataset()
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = sop_instance_uid
    ds.StudyInstanceUID = request.identity.study_instance_uid
    ds.SeriesInstanceUID = series_instance_uid
    return ds


def series_uid(request: ReportRequest, kind: DeliveryKind | None = None) -> str:
    """The series of all objects of one kind that this package makes of the study."""
    return uids.series_uid(request.identity.study_instance_uid, request.package.name, str(kind or request.kind))


def algorithm_uid(request: ReportRequest) -> str:
    """Device UID of the package as it ran."""
    return uids.algorithm_uid(request.package.name, request.package_version, request.result.package_digest)


def device_observer(request: ReportRequest, codes: Mapping[str, ReportCode]) -> ObserverContext:
    """The package as the observer of what an object says (TID 1004)."""
    return ObserverContext(
        observer_type=coded(codes["device"]),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=hd.UID(algorithm_uid(request)),
            name=request.package.title[:64],
            manufacturer_name=MANUFACTURER,
            model_name=request.package.name,
        ),
    )


def tracking_uid(request: ReportRequest, finding: str) -> hd.UID:
    """Tracking Unique Identifier of a finding, the same in every object of the analysis."""
    return hd.UID(
        uids.tracking_uid(request.identity.study_instance_uid, request.package.name, request.done_at, finding)
    )


def permitted_use(request: ReportRequest) -> list[str]:
    """What the object may be used for, the narrowest first."""
    is_reviewed = request.review is not None and request.package.status == "cleared"
    use = REVIEWED if is_reviewed else USES[request.package.status]
    return [str(EVALUATION)] * request.evaluation + [str(use)]


def in_short(request: ReportRequest) -> str:
    """The same in the 64 characters of a content description."""
    if request.evaluation:
        return str(EVALUATION)
    return "Preliminary, not verified." if request.package.status == "cleared" else "Not for clinical use."


def _series_description(request: ReportRequest) -> str:
    """What a list of series in a PACS shows: an evaluation must not look like a result for care even there."""
    mark = "Evaluation, not for patient care: " if request.evaluation else "Scanside: "
    # Where nobody honours a note, it stands among the results.
    verb = "rejects " if request.kind is DeliveryKind.REJECTION_NOTE else ""
    return f"{mark}{verb}{request.package.name}"[:SHORT]


def _equipment(request: ReportRequest, codes: Mapping[str, ReportCode]) -> hd.ContributingEquipment:
    """The algorithm (IHE AIR 6.5.3.1): another Device UID whenever the package changes."""
    item = hd.ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=coded(codes["processing_equipment"]),
        manufacturer_model_name=request.package.name,
        software_versions=[request.package_version, request.box_version],
        contribution_description=request.package.title,
    )
    item.DeviceUID = algorithm_uid(request)
    return item
