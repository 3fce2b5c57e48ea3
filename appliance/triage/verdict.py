"""From scores to an outcome: the site's operating points applied to what a package says. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from appliance.records import AnalysisResult, Detail, FindingResult, Measurement, Outcome, Reason, Region
from engines.manifest import Finding, Manifest, OperatingPoint


class Scored(Protocol):
    """What the worker says of one finding."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def score(self) -> float: ...  # noqa: D102
    @property
    def measurements(self) -> tuple[Measurement, ...]: ...  # noqa: D102
    @property
    def key_instances(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def regions(self) -> tuple[Region, ...]: ...  # noqa: D102


class Answer(Protocol):
    """What the worker says of one analysis (``triage.protocol.Result``)."""

    @property
    def findings(self) -> tuple[Scored, ...]: ...  # noqa: D102
    @property
    def numbers(self) -> dict[str, float]: ...  # noqa: D102
    @property
    def caveats(self) -> tuple[Detail, ...]: ...  # noqa: D102
    @property
    def warnings(self) -> tuple[Detail, ...]: ...  # noqa: D102
    @property
    def package_digest(self) -> str: ...  # noqa: D102
    @property
    def engine_digest(self) -> str: ...  # noqa: D102
    @property
    def backend(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def pictures(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def masks(self) -> str | None: ...  # noqa: D102
    @property
    def hops_ms(self) -> dict[str, float]: ...  # noqa: D102


def operating_point(finding: Finding, picked: Mapping[str, str]) -> OperatingPoint:
    """The point that holds for a finding: the site's, where it picked one (finding id: name), else the package's."""
    name = picked.get(finding.id)
    return finding.point(name) if name else finding.default_point


def is_flagged(manifest: Manifest, finding: Finding, score: float, picked: Mapping[str, str]) -> bool:
    """Whether a score flags its finding; a measurement that gave its value is a finding by itself (DESIGN §2)."""
    return manifest.intended_use == "measurement" or score >= operating_point(finding, picked).threshold


def decide(
    manifest: Manifest,
    answer: Answer,
    operating_points: Mapping[str, str],
    *,
    hops_ms: Mapping[str, float],
    caveats: tuple[Detail, ...] = (),
) -> AnalysisResult:
    """The outcome of one analysis.

    Args:
        manifest: The package.
        answer: The worker's scores. One that is not finite, or missing, makes the whole output unreliable (T31).
        operating_points: finding id: name, where the site picked another than the package's default.
        hops_ms: What the daemon measured; joins the worker's own.
        caveats: What else limits the result.
    """
    findings = []
    scores = {scored.id: scored for scored in answer.findings}
    for finding in manifest.findings:
        scored = scores.get(finding.id)
        if scored is None or not math.isfinite(scored.score):
            return AnalysisResult(
                outcome=Outcome.NOT_ANALYSED,
                reason=Reason.UNRELIABLE_OUTPUT,
                details=(Detail("the package gave no usable score for {finding}", {"finding": finding.id}),),
                package_digest=answer.package_digest,
                engine_digest=answer.engine_digest,
                backend=answer.backend,
                precision=answer.precision,
                hops_ms={**answer.hops_ms, **hops_ms},
                numbers=dict(answer.numbers),
            )
        point = operating_point(finding, operating_points)
        findings.append(
            FindingResult(
                id=finding.id,
                score=scored.score,
                operating_point=point.name,
                threshold=point.threshold,
                flagged=is_flagged(manifest, finding, scored.score, operating_points),
                category=finding.category,
                measurements=scored.measurements,
                key_instances=scored.key_instances,
                regions=scored.regions,
            )
        )
    is_found = any(finding.flagged for finding in findings) and manifest.intended_use != "quality"
    return AnalysisResult(
        outcome=Outcome.FINDING if is_found else Outcome.NOTHING_FLAGGED,
        findings=tuple(findings),
        caveats=(*answer.caveats, *caveats),
        warnings=answer.warnings,
        package_digest=answer.package_digest,
        engine_digest=answer.engine_digest,
        backend=answer.backend,
        precision=answer.precision,
        pictures=answer.pictures,
        masks=answer.masks,
        hops_ms={**answer.hops_ms, **hops_ms},
        numbers=dict(answer.numbers),
    )
