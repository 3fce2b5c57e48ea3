"""Key Object Selection (PS3.3 A.35.4) by TID 2010: which images to look at first, for what is urgent."""

from __future__ import annotations

from collections.abc import Mapping

from highdicom import ko
from pydicom.dataset import Dataset

from appliance.records import FindingResult
from appliance.report.kinds import URGENT, may_show_places
from appliance.report.maker import (
    WithoutIdentity,
    coded,
    complete,
    device_observer,
    evidence,
    origin,
    permitted_use,
)
from appliance.report.request import NotBuildable, ReportCode, ReportRequest
from appliance.report.sources import Sources


class KeyObjects(WithoutIdentity, ko.KeyObjectSelectionDocument):
    """A key object selection."""


def build_ko(request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> KeyObjects:
    """Build the key object selection of one analysis.

    Of a ``triage`` package it names every image that was analysed: to choose among them would be to show a place.

    Args:
        request: What the analysis said, of whom, of which images.
        sources: These images.
        codes: The table of coded concepts by name.

    Raises:
        NotBuildable: Nothing urgent was flagged, or an image cannot be read.
        ValueError: highdicom refuses a value; the message names it.
    """
    urgent = [finding for finding in request.flagged if finding.category <= URGENT]
    if not urgent:
        raise NotBuildable("no finding of category 1 or 2 was flagged")
    frames = _frames(urgent, sources) if may_show_places(request.package.intended_use) else {}
    named = evidence(request, sources.sop_classes, frames or sources.sop_classes)
    for one in named:
        # Only by its pixels highdicom knows an image; what it holds is not written.
        one.Rows = one.Columns = 1
    content = ko.KeyObjectSelection(
        document_title=coded(codes["of_interest"]),
        referenced_objects=named,
        observer_device_context=device_observer(request, codes),
        description=_description(request, urgent),
    )
    made = KeyObjects(evidence=named, content=content, **origin(request, codes))
    for item in made.ContentSequence:
        if item.ValueType == "IMAGE":
            _settle(item, frames)
    complete(made, request)
    return made


def _frames(findings: list[FindingResult], sources: Sources) -> dict[str, list[int]]:
    """The images that show the findings, the most telling first, and of multi-frame objects the frames with a place."""
    frames: dict[str, list[int]] = {}
    for finding in findings:
        for uid in (*finding.key_instances, *(region.sop_instance_uid for region in finding.regions)):
            if uid in sources.sop_classes:
                frames.setdefault(uid, [])
        for region in finding.regions:
            if region.frame_number is not None and region.sop_instance_uid in frames:
                frames[region.sop_instance_uid].append(region.frame_number)
    return frames


def _settle(item: Dataset, frames: Mapping[str, list[int]]) -> None:
    """Name no purpose, which TID 2010 has none for, and the frames where there are some."""
    del item.ConceptNameCodeSequence
    (named,) = item.ReferencedSOPSequence
    numbers = sorted(set(frames.get(named.ReferencedSOPInstanceUID, ())))
    if numbers:
        named.ReferencedFrameNumber = numbers


def _description(request: ReportRequest, urgent: list[FindingResult]) -> str:
    titles = ", ".join(request.declaration(finding.id).title for finding in urgent)
    replaced = ["This replaces what was said before."] if request.predecessors else []
    return " ".join([*permitted_use(request), f"{titles}.", *replaced])
