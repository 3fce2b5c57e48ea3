"""Comprehensive 3D SR (PS3.3 A.35.13) by TID 1500: what one analysis said, for the PACS.

Complete, unverified, preliminary: a program's statement that no person has looked at. What was not flagged is never
said to be absent, and what was not analysed says so with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import highdicom as hd
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from appliance.records import Outcome, Reason
from appliance.report import uids
from appliance.report.groups import PRIVATE_SCHEME, Groups, coded
from appliance.report.identity import set_identity
from appliance.report.request import ReportCode, ReportRequest
from appliance.report.sources import Sources

MANUFACTURER = "Scanside"
#: Far above what scanners number their own series with.
_SERIES_NUMBER = 9901

_REASONS = {
    Reason.OUT_OF_ENVELOPE: "The series is not of the kind that this package was made for.",
    Reason.QUALITY: "The images are not good enough for this package.",
    Reason.CANNOT_DECODE: "The images could not be decoded.",
    Reason.INCOMPLETE: "The series is incomplete.",
    Reason.UNRELIABLE_OUTPUT: "The package gave an output that cannot be trusted.",
    Reason.FAILED: "The analysis failed.",
    Reason.TIMED_OUT: "The analysis did not end in time.",
    Reason.AI_UNAVAILABLE: "The AI was not available.",
    Reason.WITHDRAWN: "The AI package was taken out of service.",
}
_USE = {
    "demonstrator": "Demonstration. Not for clinical use.",
    "research": "Research software. Not for clinical use.",
    "cleared": "Preliminary result of a computer program that no person has verified.",
}


class Report(sr.Comprehensive3DSR):
    """A Comprehensive 3D SR whose patient and study come from the request, not from a data set of the scanner."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing: ``set_identity`` writes what was decoded, cleaned, in one character set."""


def build_sr(request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> Report:
    """Build the report of one analysis.

    Args:
        request: What the analysis said, of whom, of which images.
        sources: These images.
        codes: The table of coded concepts by name.

    Raises:
        NotBuildable: The package does not declare what the result names, or an image cannot be read.
        ValueError: highdicom refuses a value; the message names it.
    """
    report = Report(
        evidence=_evidence(request, sources.sop_classes),
        content=_content(request, sources.sop_classes, codes),
        series_instance_uid=_series_uid(request),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=request.sop_instance_uid,
        instance_number=len(request.predecessors) + 1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=request.box_version,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=_series_description(request),
        previous_versions=[_predecessor(request, uid) for uid in request.predecessors] or None,
        contributing_equipment=[_equipment(request, codes)],
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=PRIVATE_SCHEME, name="Scanside codes", responsible_organization=MANUFACTURER
            )
        ],
        specific_character_set=None,
    )
    set_identity(report, request)
    _set_times(report, request)
    return report


def _content(
    request: ReportRequest, sop_classes: Mapping[str, str], codes: Mapping[str, ReportCode]
) -> sr.MeasurementReport:
    procedure = {"CT": "ct_procedure", "CR": "xr_procedure", "DX": "xr_procedure", "RG": "xr_procedure"}
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=coded(codes["device"]),
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=hd.UID(_algorithm_uid(request)),
                    name=request.package.title[:64],
                    manufacturer_name=MANUFACTURER,
                    model_name=request.package.name,
                ),
            )
        ),
        procedure_reported=coded(codes[procedure.get(request.modality, "imaging_procedure")]),
        imaging_measurements=Groups(request, sop_classes, codes).build(),
        title=coded(codes["imaging_measurement_report"]),
    )
    for name, text in _statements(request):
        report[0].ContentSequence.append(
            sr.TextContentItem(
                name=coded(codes[name]), value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS
            )
        )
    return report


def _statements(request: ReportRequest) -> list[tuple[str, str]]:
    """Name of the concept and text, in the order in which a person should read them."""
    result, package = request.result, request.package
    found = [("permitted_use", _USE[package.status])]
    if request.evaluation:
        found.insert(0, ("permitted_use", "Evaluation, not for patient care."))
    found.append(("outcome_of_analysis", _outcome(request)))
    if result.reason is not None:
        found.append(("reason_not_analysed", " ".join((_REASONS[result.reason], result.detail)).strip()))
    found += [("looked_for", package.looked_for), ("not_looked_for", package.not_looked_for)]
    found += [("caveat", str(detail)) for detail in (*result.caveats, *result.warnings)]
    if request.late:
        found.append(("caveat", "This result came late."))
    return found


def _outcome(request: ReportRequest) -> str:
    if request.result.outcome is Outcome.NOT_ANALYSED:
        return "Not analysed."
    # A title says the whole suspicion ("Suspected bleed in the head"); nothing is put before it.
    titles = {finding.id: finding.title for finding in request.package.findings}
    flagged = [titles[finding.id] for finding in request.result.findings if finding.flagged]
    others = [titles[finding.id] for finding in request.result.findings if not finding.flagged]
    words = []
    if request.result.outcome is Outcome.NOTHING_FLAGGED:
        words.append("Nothing flagged.")
    elif flagged:
        words.append(f"{', '.join(flagged)}.")
    if others:
        words.append(f"Not flagged: {', '.join(others)}. What is not flagged is not excluded.")
    return " ".join(words) or "See the measurements."


def _evidence(request: ReportRequest, sop_classes: Mapping[str, str]) -> list[Dataset]:
    """Every image that was analysed, as far as references need it; the first one must have empty type 2 attributes."""
    items = []
    for image in request.images:
        ds = Dataset()
        ds.SOPClassUID = sop_classes[image.sop_instance_uid]
        ds.SOPInstanceUID = image.sop_instance_uid
        ds.StudyInstanceUID = request.identity.study_instance_uid
        ds.SeriesInstanceUID = image.series_instance_uid
        items.append(ds)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(items[0], keyword, "")
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(items[0], keyword, "")
    return items


def _predecessor(request: ReportRequest, sop_instance_uid: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = Comprehensive3DSRStorage
    ds.SOPInstanceUID = sop_instance_uid
    ds.StudyInstanceUID = request.identity.study_instance_uid
    ds.SeriesInstanceUID = _series_uid(request)
    return ds


def _equipment(request: ReportRequest, codes: Mapping[str, ReportCode]) -> hd.ContributingEquipment:
    """The algorithm (IHE AIR 6.5.3.1): another Device UID whenever the package changes."""
    item = hd.ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=coded(codes["processing_equipment"]),
        manufacturer_model_name=request.package.name,
        software_versions=[request.package_version, request.box_version],
        contribution_description=request.package.title,
    )
    item.DeviceUID = _algorithm_uid(request)
    return item


def _series_uid(request: ReportRequest) -> str:
    return uids.series_uid(request.identity.study_instance_uid, request.package.name, str(request.kind))


def _algorithm_uid(request: ReportRequest) -> str:
    return uids.algorithm_uid(request.package.name, request.package_version, request.result.package_digest)


def _series_description(request: ReportRequest) -> str:
    """What a list of series in a PACS shows: an evaluation must not look like a result for care even there."""
    mark = "Evaluation, not for patient care: " if request.evaluation else "Scanside: "
    return f"{mark}{request.package.name}"[:64]


def _set_times(report: Dataset, request: ReportRequest) -> None:
    """When the analysis ended, in local time like all times without a zone; not when this was built."""
    local = request.done_at.astimezone()
    date, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    report.ContentDate = report.InstanceCreationDate = report.SeriesDate = date
    report.ContentTime = report.InstanceCreationTime = report.SeriesTime = time
    for item in report.ContributingEquipmentSequence:
        item.ContributionDateTime = date + time
