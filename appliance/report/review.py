"""What a radiologist signed, in a report: said in words, coded finding by finding, and attested (PS3.3 C.17.2).

Only here a report says that something is absent, and only where a person signed it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from highdicom import sr

from appliance.records import (
    FindingResult,
    Presence,
    Region,
    ReviewDecision,
    ReviewedFinding,
    ReviewReason,
)
from appliance.report.groups import Group, Groups
from appliance.report.identity import clean
from appliance.report.maker import coded
from appliance.report.request import ReportCode, ReportFinding, ReportRequest
from appliance.report.sources import Sources

_DECISIONS = {
    ReviewDecision.AGREE: "Confirmed",
    ReviewDecision.DISAGREE: "Rejected",
    ReviewDecision.AMEND: "Amended",
    ReviewDecision.CANNOT_JUDGE: "Not decided, the images do not allow it,",
}
_REASONS = {
    ReviewReason.ARTEFACT: "Artefact.",
    ReviewReason.ANATOMY: "Variant of anatomy.",
    ReviewReason.OLD_FINDING: "Old finding.",
    ReviewReason.WRONG_SUBJECT: "Another patient or part of the body.",
    ReviewReason.OTHER: "",
}


def reviewed(request: ReportRequest) -> tuple[ReviewedFinding, ...]:
    """What a person signed of the analysis that is reported."""
    return request.review.findings if request.review else ()


def is_attested(request: ReportRequest) -> bool:
    """Whether a person stands for what the report says: not where they could not judge it."""
    return bool(reviewed(request)) and all(one.presence is not Presence.UNDETERMINED for one in reviewed(request))


def review_words(request: ReportRequest) -> list[str]:
    """The review in words, for a person who reads the report."""
    review = request.review
    if review is None:
        return []
    at = review.signed_at.astimezone().strftime("%Y-%m-%d %H:%M")
    said = (
        f"{_DECISIONS[review.decision]} by {clean(review.reviewer)} ({clean(review.role)}), {at}, version"
        f" {review.version}."
    )
    words = [said, _REASONS[review.reason] if review.reason else "", clean(review.note.replace("\n", " "))]
    return [" ".join(filter(None, words)), *(_line(request, one) for one in review.findings)]


def stands(request: ReportRequest, finding: str) -> bool:
    """Whether what the package flagged is not refuted."""
    return all(one.is_right is not False for one in reviewed(request) if one.finding == finding and not one.added)


def observer(request: ReportRequest, codes: Mapping[str, ReportCode]) -> sr.ObserverContext | None:
    """The person, beside the device (TID 1003)."""
    review = request.review
    if review is None:
        return None
    return sr.ObserverContext(
        observer_type=coded(codes["person"]),
        observer_identifying_attributes=sr.PersonObserverIdentifyingAttributes(
            name=person_name(review.reviewer),
            organization_name=organization(request),
            role_in_procedure=coded(codes["verifying"]),
        ),
    )


def organization(request: ReportRequest) -> str:
    """Whose radiologist; never empty, as C.17.2 wants."""
    return (clean(request.review.organization) if request.review else "")[:64] or "Not stated"


def person_name(name: str) -> str:
    """A name as a person gave it as a DICOM person name: all of it is the family name, since nobody knows its parts."""
    return f"{clean(name).replace('^', ' ').replace('=', ' ')[:63]}^"


class ReviewedGroups(Groups):
    """The groups of a report that a person reviewed: one finding a group, present, absent or undetermined."""

    def __init__(self, request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> None:
        """As ``Groups``; the request has a review that says something of its analysis."""
        #: Id of a group's finding: what the person said of it.
        self._said: dict[str, ReviewedFinding] = {}
        self._cases: list[FindingResult] = []
        declared: list[ReportFinding] = []
        results = {finding.id: finding for finding in request.result.findings}
        for n, one in enumerate(reviewed(request)):
            concept = declaration(request, one, codes, f"reviewed-{n}")
            result = results.get(one.finding) if not one.added else None
            self._cases.append(_result(one, result, concept.id))
            self._said[concept.id] = one
            declared.append(concept)
        self._own = request
        package = dataclasses.replace(request.package, findings=(*declared, *request.package.findings))
        super().__init__(dataclasses.replace(request, package=package), sources, codes)

    def build(self) -> list[Group]:
        """All groups; the first one carries the package's own summary, which a person's word does not change."""
        if all(self._regions(case) for case in self._cases):
            return [
                self._planar(case, region, is_first=case is self._cases[0] and n == 0, has_numbers=n == 0)
                for case in self._cases
                for n, region in enumerate(self._regions(case))
            ]
        return [self._plain(case, is_first=case is self._cases[0]) for case in self._cases]

    def _regions(self, finding: FindingResult) -> list[Region]:
        said = self._said[finding.id]
        if said.region is not None:
            # A person's own mark; the rule that a triage package shows no place is about the package.
            return [said.region] if said.region.sop_instance_uid in self._sop_classes else []
        return super()._regions(finding)

    def _evaluations(self, declared: ReportFinding, *, is_first: bool) -> list[sr.QualitativeEvaluation]:
        said = self._said[declared.id]
        found = super()._evaluations(declared, is_first=is_first)
        if said.presence is not Presence.PRESENT:
            found.pop()  # what is not there is not urgent
        found.append(
            sr.QualitativeEvaluation(name=self._code("presence_of_property"), value=self._code(str(said.presence)))
        )
        if said.side is not None and declared.site is None:
            found.append(sr.QualitativeEvaluation(name=self._code("laterality"), value=self._code(f"side_{said.side}")))
        return found

    def _sites(self, declared: ReportFinding) -> list[sr.FindingSite] | None:
        side = self._said[declared.id].side
        if side is None or declared.site is None:
            return super()._sites(declared)
        return [sr.FindingSite(coded(declared.site), laterality=self._code(f"side_{side}"))]

    def _measurements(self, declared: ReportFinding, finding: FindingResult) -> list[sr.Measurement]:
        """The package's numbers belong to what the package marked, while that stands."""
        said = self._said[finding.id]
        if said.added or said.region is not None or said.presence is not Presence.PRESENT or not said.is_right:
            return []
        return super()._measurements(declared, finding)

    def _algorithm(self, findings: tuple[FindingResult, ...]) -> sr.AlgorithmIdentification | None:
        said = self._said[findings[0].id]
        if said.added:
            return None
        return super()._algorithm(tuple(dataclasses.replace(one, id=said.finding) for one in findings))

    def _tracking(self, identifier: str, finding: str) -> sr.TrackingIdentifier:
        """The package's finding keeps its pair; another one gets its own."""
        said = self._said.get(finding)
        return super()._tracking(identifier, said.finding if said is not None and not said.added else finding)


def declaration(
    request: ReportRequest, said: ReviewedFinding, codes: Mapping[str, ReportCode], name: str
) -> ReportFinding:
    """Code, site and urgency of a reviewed finding, under an id of its own.

    Raises:
        NotBuildable: The package does not declare it.
    """
    if said.code:
        code = codes[said.code]
        return ReportFinding(id=name, code=code, title=code.meaning, category=said.category or 3)
    declared = request.declaration(said.finding)
    return dataclasses.replace(declared, id=name, category=said.category or declared.category)


def _result(said: ReviewedFinding, result: FindingResult | None, name: str) -> FindingResult:
    if result is None:
        return FindingResult(id=name, score=0.0, operating_point="", threshold=0.0, flagged=False)
    if said.presence is Presence.PRESENT:
        return dataclasses.replace(result, id=name)
    return dataclasses.replace(result, id=name, regions=(), key_instances=(), measurements=())


def _line(request: ReportRequest, said: ReviewedFinding) -> str:
    what = f"Code {said.code.replace('_', ' ')}" if said.code else request.declaration(said.finding).title
    words = [f"{what}: {said.presence}"]
    if said.added:
        words.append("added by the reviewer")
    if said.side:
        words.append(f"side: {said.side}")
    if said.category:
        words.append(f"category {said.category}")
    if said.region is not None:
        words.append("place marked by the reviewer")
    return f"{', '.join(words)}."
