"""The measurement groups of a report: TID 1410 where a finding has a place in an image, TID 1501 where it has none.

One report holds one of the two kinds: mixed, validators take the one for a broken case of the other. So do those that
would name a segment (TID 1411) beside regions; the segmentation is evidence of the report instead, and one tracking
pair names the finding in both.
"""

from __future__ import annotations

from collections.abc import Mapping

from highdicom import sr

from appliance.records import FindingResult, Measurement, Outcome, Region
from appliance.report.kinds import may_show_places
from appliance.report.maker import MANUFACTURER, PRIVATE_SCHEME, SHORT, coded, tracking_uid
from appliance.report.places import outline
from appliance.report.request import ReportCode, ReportFinding, ReportRequest
from appliance.report.sources import Sources

Group = sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations


class Groups:
    """Builds the groups of one report."""

    def __init__(self, request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> None:
        """Build for ``request``.

        Args:
            request: What the analysis said.
            sources: The images that were analysed.
            codes: The table of coded concepts by name.
        """
        self._request = request
        self._sop_classes = sources.sop_classes
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
        declared = self._request.declaration(finding.id)
        key_instances = finding.key_instances if may_show_places(self._request.package.intended_use) else ()
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
        declared = self._request.declaration(finding.id)
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

    def _regions(self, finding: FindingResult) -> list[Region]:
        if not may_show_places(self._request.package.intended_use):
            return []
        return [region for region in finding.regions if region.sop_instance_uid in self._sop_classes]

    def _image_region(self, region: Region) -> sr.ImageRegion:
        uid = region.sop_instance_uid
        frames = [region.frame_number] if region.frame_number is not None else None
        source = sr.SourceImageForRegion(self._sop_classes[uid], uid, frames)
        kind = sr.GraphicTypeValues.POINT if region.kind == "point" else sr.GraphicTypeValues.POLYLINE
        return sr.ImageRegion(kind, outline(region), source)

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
        code = code or ReportCode(value=item.name[:16].upper(), scheme=PRIVATE_SCHEME, meaning=item.name[:SHORT])
        unit = self._unit(item.unit)
        found = [sr.Measurement(name=coded(code), value=_rounded(item.value), unit=unit)]
        if item.sd is not None:
            derivation = self._code("standard_deviation")
            found.append(sr.Measurement(coded(code), _rounded(item.sd), unit, derivation=derivation))
        return found

    def _unit(self, ucum: str) -> sr.CodedConcept:
        meanings = {code.value: code.meaning for code in self._codes.values() if code.scheme == "UCUM"}
        return sr.CodedConcept(value=ucum, scheme_designator="UCUM", meaning=meanings.get(ucum, ucum))

    def _algorithm(self, findings: tuple[FindingResult, ...]) -> sr.AlgorithmIdentification | None:
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
            manufacturer=MANUFACTURER,
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
        return sr.TrackingIdentifier(uid=tracking_uid(self._request, finding), identifier=identifier[:SHORT])

    def _sites(self, declared: ReportFinding) -> list[sr.FindingSite] | None:
        return [sr.FindingSite(anatomic_location=coded(declared.site))] if declared.site else None

    def _code(self, name: str) -> sr.CodedConcept:
        return coded(self._codes[name])


def _rounded(value: float) -> float:
    """Six significant digits: they fit a DS, and no measurement of ours is better."""
    return float(f"{value:.6g}")
