"""What a report is made of: plain values that pass as JSON to the child that builds it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from appliance.errors import ApplianceError
from appliance.records import AnalysisResult, DeliveryKind, FindingResult, Identity, SignedReview

if TYPE_CHECKING:
    from engines.manifest import Code, Manifest


class NotBuildable(ApplianceError):  # noqa: N818 - an outcome, like NotAnalysable
    """An object cannot be built, for a reason that a person can mend; the message holds no patient data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCode:
    """One coded concept (PS3.3 §8.1)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMeasurement:
    """How a measurement of a finding is called; ``name`` is the one in ``records.Measurement``."""

    name: str
    code: ReportCode


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFinding:
    """One finding that a package looks for."""

    id: str
    code: ReportCode
    title: str
    #: CID 7035, 1 to 3.
    category: int
    site: ReportCode | None = None
    #: UCUM unit of the score; empty where it is a bare score of 0 to 1.
    score_unit: str = ""
    measurements: tuple[ReportMeasurement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPackage:
    """What a report says of the package itself."""

    name: str
    title: str
    status: str
    intended_use: str
    looked_for: str
    not_looked_for: str
    findings: tuple[ReportFinding, ...]
    #: That its inputs take (Body Part Examined).
    body_parts: tuple[str, ...] = ()

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> ReportPackage:
        """The English texts and the codes of an installed package."""
        return cls(
            name=manifest.name,
            title=manifest.title.en,
            status=manifest.status,
            intended_use=manifest.intended_use,
            looked_for=manifest.looked_for.en,
            not_looked_for=manifest.not_looked_for.en,
            findings=tuple(
                ReportFinding(
                    id=finding.id,
                    code=_code(finding.code),
                    title=finding.title.en,
                    category=finding.category,
                    site=_code(finding.site) if finding.site else None,
                    score_unit=finding.score_unit,
                    measurements=tuple(
                        ReportMeasurement(name=item.name, code=_code(item.code)) for item in finding.measurements
                    ),
                )
                for finding in manifest.findings
            ),
            body_parts=tuple(part for feed in manifest.inputs for part in feed.input.envelope.body_parts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportImage:
    """One image that was analysed; ``path`` is absolute, and no more of the file is read than an object needs."""

    sop_instance_uid: str
    series_instance_uid: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPredecessor:
    """An earlier object of ours that this one replaces, in the same study or, after a correction, in another."""

    sop_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportObject:
    """An object of ours in the study, of the package that the request names."""

    kind: DeliveryKind
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """One object to build."""

    kind: DeliveryKind
    sop_instance_uid: str
    #: What was said before, by earlier analyses of this package or under another identity, newest first.
    predecessors: tuple[ReportPredecessor, ...]
    output_path: str
    package: ReportPackage
    package_version: str
    box_version: str
    result: AnalysisResult
    #: Ended after its deadline or as backlog.
    late: bool
    #: ``site.mode`` is evaluation.
    evaluation: bool
    done_at: datetime
    identity: Identity
    study_description: str
    study_date: str
    study_time: str
    patient_age: str
    modality: str
    images: tuple[ReportImage, ...]
    #: The key picture to show (PNG) and the masks (``engines.overlay``), absolute; empty where there is none.
    picture_path: str
    masks_path: str
    #: In which CT slices are shown: centre and width in HU.
    window: tuple[float, float] = (40.0, 400.0)
    #: Kind: SOP Instance UID of the other objects of this analysis that are built with this one.
    siblings: dict[DeliveryKind, str] = field(default_factory=dict)
    #: What the RIS says is to be done (modality worklist); empty where it does not say.
    procedure: str = ""
    #: Of a rejection note: what holds no longer, in this very study.
    rejected: tuple[ReportObject, ...] = ()
    #: What a radiologist signed of this study; None where no person has.
    review: SignedReview | None = None

    @property
    def flagged(self) -> tuple[FindingResult, ...]:
        """The findings that were flagged, in the order of the package."""
        return tuple(finding for finding in self.result.findings if finding.flagged)

    def declaration(self, finding: str) -> ReportFinding:
        """What the package says of one of its findings.

        Raises:
            NotBuildable: It does not declare that finding.
        """
        for declared in self.package.findings:
            if declared.id == finding:
                return declared
        raise NotBuildable(
            f"package {self.package.name} as installed now does not declare finding {finding!r}, which its"
            f" version {self.package_version} gave; install that version again, then retry"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``; ``child.handle`` reads them."""
        values = {**dataclasses.asdict(self), "done_at": self.done_at.isoformat()}
        if self.review is not None:
            values["review"]["signed_at"] = self.review.signed_at.isoformat()
        return values


def _code(code: Code) -> ReportCode:
    return ReportCode(value=code.value, scheme=code.scheme, meaning=code.meaning)
