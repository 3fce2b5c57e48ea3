"""What a report is made of: plain values that pass as JSON to the child that builds it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from appliance.errors import ApplianceError
from appliance.records import AnalysisResult, DeliveryKind, Identity

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
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportImage:
    """One image that was analysed; ``path`` is absolute, its file meta information is all that is read of it."""

    sop_instance_uid: str
    series_instance_uid: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """One object to build."""

    kind: DeliveryKind
    sop_instance_uid: str
    #: SOP Instance UIDs of what earlier analyses of this package said of the study, newest first.
    predecessors: tuple[str, ...]
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
    #: The first key picture (PNG) and the masks (``engines.overlay``), absolute; empty where there is none.
    picture_path: str
    masks_path: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``; ``child.handle`` reads them."""
        return {**dataclasses.asdict(self), "done_at": self.done_at.isoformat()}


def _code(code: Code) -> ReportCode:
    return ReportCode(value=code.value, scheme=code.scheme, meaning=code.meaning)
