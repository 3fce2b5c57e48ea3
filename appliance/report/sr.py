"""Comprehensive 3D SR (PS3.3 A.35.13) by TID 1500: what one analysis said, for the PACS.

Complete, unverified, preliminary: a program's statement that no person has looked at, until one has signed a review.
What was not flagged is never said to be absent by the program, and what was not analysed says so with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from appliance.records import DeliveryKind, Outcome
from appliance.report import uids
from appliance.report.groups import Groups
from appliance.report.identity import clean
from appliance.report.maker import (
    WithoutIdentity,
    coded,
    complete,
    device_observer,
    evidence,
    origin,
    permitted_use,
    reference,
    series_uid,
)
from appliance.report.request import ReportCode, ReportPredecessor, ReportRequest
from appliance.report.review import (
    ReviewedGroups,
    is_attested,
    observer,
    organization,
    person_name,
    review_words,
    reviewed,
)
from appliance.report.sentences import LATE, REASONS
from appliance.report.sources import Sources


class Report(WithoutIdentity, sr.Comprehensive3DSR):
    """A Comprehensive 3D SR."""


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
        evidence=_evidence(request, sources),
        content=_content(request, sources, codes),
        is_complete=True,
        is_final=is_attested(request),
        is_verified=is_attested(request),
        verifying_observer_name=person_name(request.review.reviewer) if request.review else None,
        verifying_organization=organization(request) if request.review else None,
        previous_versions=[_predecessor(request, one) for one in request.predecessors] or None,
        **origin(request, codes),
    )
    complete(report, request)
    if request.review is not None and is_attested(request):
        signed = request.review.signed_at.astimezone()
        report.VerifyingObserverSequence[0].VerificationDateTime = signed.strftime("%Y%m%d%H%M%S%z")
    if request.procedure:
        report.ReferencedRequestSequence = [_order(request)]
    return report


def _order(request: ReportRequest) -> Dataset:
    """What was asked for, as the worklist says (PS3.3 Table C.17-2); what is not known stays empty."""
    identity, ds = request.identity, Dataset()
    ds.StudyInstanceUID = identity.study_instance_uid
    ds.ReferencedStudySequence = []
    ds.AccessionNumber = clean(identity.accession_number)
    ds.PlacerOrderNumberImagingServiceRequest = ""
    ds.FillerOrderNumberImagingServiceRequest = ""
    ds.RequestedProcedureID = clean(identity.requested_procedure_id)[:16]
    ds.RequestedProcedureDescription = clean(request.procedure)[:64]
    ds.RequestedProcedureCodeSequence = []
    return ds


def _content(request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> sr.MeasurementReport:
    # To PixelMed's validator, which IHE uses and which has CID 100 as of 2019, its code for X-rays is an error.
    procedure = {"CT": "ct_procedure"}
    groups = ReviewedGroups if reviewed(request) else Groups
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_person_context=observer(request, codes),
            observer_device_context=device_observer(request, codes),
        ),
        procedure_reported=coded(codes[procedure.get(request.modality, "imaging_procedure")]),
        imaging_measurements=groups(request, sources, codes).build(),
        title=coded(codes["imaging_measurement_report"]),
    )
    for name, text in statements(request):
        report[0].ContentSequence.append(
            sr.TextContentItem(
                name=coded(codes[name]), value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS
            )
        )
    return report


def statements(request: ReportRequest) -> list[tuple[str, str]]:
    """Name of the concept and text, in the order in which a person should read them."""
    result, package = request.result, request.package
    found = [("permitted_use", words) for words in permitted_use(request)]
    found += [("human_review", words) for words in review_words(request)]
    found.append(("outcome_of_analysis", _outcome(request)))
    if result.reason is not None:
        found.append(("reason_not_analysed", " ".join((str(REASONS[result.reason]), result.detail)).strip()))
    found += [("looked_for", package.looked_for), ("not_looked_for", package.not_looked_for)]
    found += [("caveat", str(detail)) for detail in (*result.caveats, *result.warnings)]
    if request.late:
        found.append(("caveat", str(LATE)))
    return found


def _outcome(request: ReportRequest) -> str:
    if request.result.outcome is Outcome.NOT_ANALYSED:
        return "Not analysed."
    # A title says the whole suspicion ("Suspected bleed in the head"); nothing is put before it.
    titles = {finding.id: request.declaration(finding.id).title for finding in request.result.findings}
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


def _evidence(request: ReportRequest, sources: Sources) -> list[Dataset]:
    """Every image that was analysed, and the segmentation that is sent beside the report."""
    items = evidence(request, sources.sop_classes, [image.sop_instance_uid for image in request.images])
    if DeliveryKind.SEG in request.siblings:
        items.append(
            reference(
                request,
                sop_class_uid=SegmentationStorage,
                sop_instance_uid=request.siblings[DeliveryKind.SEG],
                series_instance_uid=series_uid(request, DeliveryKind.SEG),
            )
        )
    return items


def _predecessor(request: ReportRequest, earlier: ReportPredecessor) -> Dataset:
    study = earlier.study_instance_uid
    ds = reference(
        request,
        sop_class_uid=Comprehensive3DSRStorage,
        sop_instance_uid=earlier.sop_instance_uid,
        series_instance_uid=uids.series_uid(study, request.package.name, str(request.kind)),
    )
    ds.StudyInstanceUID = study
    return ds
