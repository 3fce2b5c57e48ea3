"""The measurement groups of a report: TID 1410 where a finding has a place in an image, TID 1501 where it has none.

One report holds one of the two kinds: mixed, validators take the one for a broken case of the other.
"""

from __future__ import annotations

from collections.abc import Mapping

import highdicom as hd
import numpy as np
from highdicom import sr

from appliance.records import FindingResult, Measurement, Outcome, Region
from appliance.report import uids
from appliance.report.request import NotBuildable, ReportCode, ReportFinding, ReportRequest

PRIVATE_SCHEME = "99SCANSIDE"
#: A tracking identifier is LO in the segment that may name it later.
_SHORT = 64

Group = sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations


def coded(code: ReportCode) -> sr.CodedConcept:
    """A concept as highdicom wants it."""
    return sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


class Groups:
    """Builds the groups of one report."""

    def __init__(self, request: ReportRequest, sop_classes: Mapping[str, str], codes: Mapping[str, ReportCode]) -> None:
        """Build for ``request``.

        Args:
            request: What the analysis said.
            sop_classes: SOP Instance UID: SOP Class UID of the images that were analysed.
            codes: The table of coded concepts by name.
        """
        self._request = request
        self._sop_classes = sop_classes
        self._codes = codes
        self._declared = {finding.id: finding for finding in request.package.findings}

    def build(self) -> list[Group]:
        """All groups of the report; the first one carries the summary (CID 6047)."""
        result = self._request.result
        if result.outcome is not Outcome.FINDING:
            return [self._summary_group()]
        shown = [finding for finding in result.findings if finding.flagged] or list(result.findings)
        if all(self._regions(finding) for finding in shown):
            return [
                self._planar(finding, region, is_first=finding is shown[0] and n == 0, has_numbers=n == 0)
                for finding in shown
                for n, region in enumerate(self._regions(finding))
            ]
        return [self._plain(finding, is_first=finding is shown[0]) for finding in shown]

    def _summary(self) -> sr.QualitativeEvaluation:
        """(111017, DCM) with what can be said of the whole analysis; never that something is absent."""
        result = self._request.result
        if result.outcome is Outcome.NOT_ANALYSED:
            value = "none_succeeded"
        else:
            # A caveat says that something which was to be looked at could not be.
            whole = "not_all_succeeded" if result.caveats else "all_succeeded"
            value = f"{whole}_{'with' if result.outcome is Outcome.FINDING else 'without'}_findings"
        return sr.QualitativeEvaluation(name=self._code("cad_summary"), value=self._code(value))

    def _summary_group(self) -> Group:
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(self._request.package.name, "analysis"),
            algorithm_id=self._algorithm(self._request.result.findings),
            qualitative_evaluations=[self._summary()],
        )

    def _plain(self, finding: FindingResult, *, is_first: bool) -> Group:
        declared = self._declaration(finding)
        key_instances = finding.key_instances if self._may_show_places() else ()
        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=self._tracking(declared.title, finding.id),
            finding_type=coded(declared.code),
            finding_sites=self._sites(declared),
            algorithm_id=self._algorithm((finding,)),
            measurements=self._measurements(declared, finding),
            qualitative_evaluations=self._evaluations(declared, is_first=is_first),
            source_images=[
                sr.SourceImageForMeasurementGroup(self._sop_classes[uid], uid)
                for uid in dict.fromkeys(key_instances)
                if uid in self._sop_classes
            ],
        )

    def _planar(self, finding: FindingResult, region: Region, *, is_first: bool, has_numbers: bool) -> Group:
        declared = self._declaration(finding)
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            # The same tracking pair in every slice: it is one finding.
            tracking_identifier=self._tracking(declared.title, finding.id),
            referenced_region=self._image_region(region),
            finding_type=coded(declared.code),
            finding_sites=self._sites(declared),
            algorithm_id=self._algorithm((finding,)),
            # Numbers belong to the whole finding and stand once, so that no reader adds them up.
            measurements=self._measurements(declared, finding) if has_numbers else None,
            qualitative_evaluations=self._evaluations(declared, is_first=is_first),
            geometric_purpose=self._code("bounded_by") if region.kind == "box" else None,
        )

    def _declaration(self, finding: FindingResult) -> ReportFinding:
        if finding.id not in self._declared:
            request = self._request
            raise NotBuildable(
                f"package {request.package.name} as installed now does not declare finding {finding.id!r}, which its"
                f" version {request.package_version} gave; install that version again, then retry"
            )
        return self._declared[finding.id]

    def _may_show_places(self) -> bool:
        """For triage, key slices count as a region, and a region is detection, not triage."""
        return self._request.package.intended_use != "triage"

    def _regions(self, finding: FindingResult) -> list[Region]:
        if not self._may_show_places():
            return []
        return [region for region in finding.regions if region.sop_instance_uid in self._sop_classes]

    def _image_region(self, region: Region) -> sr.ImageRegion:
        uid = region.sop_instance_uid
        frames = [region.frame_number] if region.frame_number is not None else None
        source = sr.SourceImageForRegion(self._sop_classes[uid], uid, frames)
        if region.kind == "point":
            ((column, row),) = region.points
            return sr.ImageRegion(sr.GraphicTypeValues.POINT, np.array([[column + 0.5, row + 0.5]]), source)
        (left, top), (right, bottom) = region.points
        # Our points are 0-based pixel centres; SCOORD counts from the outer corner of the first pixel (PS3.3
        # C.18.6.1.2), so the outer edges of the pixels lie at left and right + 1. A polyline must be closed.
        corners = [(left, top), (right + 1, top), (right + 1, bottom + 1), (left, bottom + 1), (left, top)]
        return sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, np.maximum(np.array(corners), 0.0), source)

    def _evaluations(self, declared: ReportFinding, *, is_first: bool) -> list[sr.QualitativeEvaluation]:
        urgency = sr.QualitativeEvaluation(
            name=self._code("actionable_finding"), value=self._code(f"actionable_category_{declared.category}")
        )
        return [self._summary(), urgency] if is_first else [urgency]

    def _measurements(self, declared: ReportFinding, finding: FindingResult) -> list[sr.Measurement]:
        names = {item.name: item.code for item in declared.measurements}
        numbers = [number for item in finding.measurements for number in self._measurement(item, names)]
        if not declared.score_unit and 0.0 <= finding.score <= 1.0:
            percent = Measurement(name="certainty_of_finding", value=finding.score * 100, unit="%")
            numbers += self._measurement(percent, names)
        return numbers

    def _measurement(self, item: Measurement, names: Mapping[str, ReportCode]) -> list[sr.Measurement]:
        """TID 300, with the standard deviation as one of its own."""
        code = names.get(item.name) or self._codes.get(item.name)
        code = code or ReportCode(value=item.name[:16].upper(), scheme=PRIVATE_SCHEME, meaning=item.name[:_SHORT])
        unit = self._unit(item.unit)
        found = [sr.Measurement(name=coded(code), value=_rounded(item.value), unit=unit)]
        if item.sd is not None:
            derivation = self._code("standard_deviation")
            found.append(sr.Measurement(coded(code), _rounded(item.sd), unit, derivation=derivation))
        return found

    def _unit(self, ucum: str) -> sr.CodedConcept:
        meanings = {code.value: code.meaning for code in self._codes.values() if code.scheme == "UCUM"}
        return sr.CodedConcept(value=ucum, scheme_designator="UCUM", meaning=meanings.get(ucum, ucum))

    def _algorithm(self, findings: tuple[FindingResult, ...]) -> sr.AlgorithmIdentification:
        """TID 4019 at the level of the group: not repeated at each measurement."""
        request, result = self._request, self._request.result
        parameters = [self._parameter(finding) for finding in findings]
        if result.backend:
            parameters.append(f"backend {result.backend}, precision {result.precision}")
        for what, digest in (("package", result.package_digest), ("engine", result.engine_digest)):
            if digest:
                parameters.append(f"{what} digest {digest}")
        return sr.AlgorithmIdentification(
            name=request.package.name,
            version=request.package_version,
            manufacturer="Scanside",
            parameters=parameters or None,
        )

    def _parameter(self, finding: FindingResult) -> str:
        declared = self._declared.get(finding.id)
        unit = f" {declared.score_unit}" if declared and declared.score_unit else ""
        return (
            f"{finding.id}: score {finding.score:.4g}{unit}, operating point {finding.operating_point},"
            f" threshold {finding.threshold:.4g}{unit}, {'flagged' if finding.flagged else 'not flagged'}"
        )

    def _tracking(self, identifier: str, finding: str) -> sr.TrackingIdentifier:
        uid = uids.tracking_uid(self._request.sop_instance_uid, finding)
        return sr.TrackingIdentifier(uid=hd.UID(uid), identifier=identifier[:_SHORT])

    def _sites(self, declared: ReportFinding) -> list[sr.FindingSite] | None:
        return [sr.FindingSite(anatomic_location=coded(declared.site))] if declared.site else None

    def _code(self, name: str) -> sr.CodedConcept:
        return coded(self._codes[name])


def _rounded(value: float) -> float:
    """Six significant digits: they fit a DS, and no measurement of ours is better."""
    return float(f"{value:.6g}")
