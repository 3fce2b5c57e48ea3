"""Runs an engine beside the reference and asks ``acceptance`` what it thinks of the differences.

``accept`` decides whether a fresh engine may serve: every golden case of its package, then edge tensors on each bare
graph. ``spot_check`` looks after one that serves: a golden case, against what the report remembers of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.acceptance import CaseReport, Report, Seen, compare, compare_edges, overlap
from engines.errors import ContentError, EngineError, SessionError
from engines.golden import GoldenCase, golden_cases
from engines.package import Package
from engines.pipeline import Pipeline
from engines.session import Closing, Session, TensorSpec
from engines.types import Tensors

#: Of heads that give no masks: the graph's own output that is one.
_BARE_MASKS: Mapping[str, str] = {"hyperdensity": "candidate"}

Masks = dict[str, NDArray[np.bool_]]


def accept(
    package: Package,
    candidate: Pipeline,
    reference: Pipeline,
    on_case: Callable[[float], None] = lambda _: None,
) -> Report:
    """Compare an engine with the reference on everything that the package gives for it.

    Args:
        package: Whose engine it is.
        candidate: The package on the engine.
        reference: The package on ONNX Runtime in FP32.
        on_case: Told the share that is done.

    Returns:
        The verdict. A failure of the engine is a reason in it.

    Raises:
        PackageError: A golden case cannot be read.
        SessionError: The engine lost its device for this process (``sticky``), or the reference failed.
    """
    cases = list(golden_cases(package))
    bare = _BARE_MASKS.get(package.manifest.head.name)
    reports: list[CaseReport] = []
    with Watched(reference, bare) as expected, Watched(candidate, bare) as got:
        for index, case in enumerate(cases):
            reports.append(_compare_case(package, case, expected, got))
            on_case((index + 1) / (len(cases) + 1))
        edges = expected.edges()
    try:
        reports += _compare_edges(package, reference.sessions, candidate.sessions, edges, candidate.precision)
    except SessionError as error:
        if error.sticky:
            raise
        reports.append(CaseReport(name="edges", faults=(str(error),)))
    reasons = [f"{report.name}: {fault}" for report in reports for fault in report.faults]
    if not cases:
        reasons.append("the package has no golden cases, so nothing shows that an engine is right; add some")
    return Report(
        package=f"{package.name} {package.version}",
        package_digest=package.digest,
        precision=candidate.precision,
        backend=candidate.backend,
        passed=not reasons,
        reasons=tuple(reasons),
        cases=tuple(reports),
    )


def spot_check(pipeline: Pipeline, report: Mapping[str, Any]) -> list[str]:
    """Run one golden case and compare it with what the reference said when the engine was accepted.

    Args:
        pipeline: What serves.
        report: ``Report.as_json`` of its acceptance.

    Returns:
        What is wrong; empty when all is well.

    Raises:
        PackageError: The golden case cannot be read.
        SessionError: The engine lost its device for this process (``sticky``).
    """
    remembered = {one["name"]: one["reference"] for one in report["cases"] if one.get("reference")}
    case = next((one for one in golden_cases(pipeline.package) if one.name in remembered), None)
    if case is None:
        return ["no golden case is in the report of its acceptance"]
    try:
        seen, _ = said(pipeline, case)
    except EngineError as error:
        if isinstance(error, SessionError) and error.sticky:
            raise
        return [f"{case.name}: {error}"]
    faults, _ = compare(pipeline.package.manifest, report["precision"], Seen.from_json(remembered[case.name]), seen)
    return [f"{case.name}: {fault}" for fault in faults]


class _Probe(Closing):
    """A session that remembers what went through it."""

    def __init__(self, session: Session, mask: str | None) -> None:
        self._session = session
        self._mask = mask
        self.backend = session.backend
        self.precision = session.precision
        self.digest = session.digest
        self.inputs: tuple[TensorSpec, ...] = session.inputs
        self.outputs: tuple[TensorSpec, ...] = session.outputs
        #: Per input: least and largest value so far.
        self.range: dict[str, tuple[float, float]] = {}
        self.smallest: dict[str, tuple[int, ...]] = {}
        self.last: Tensors = {}
        self.masks: list[NDArray[np.bool_]] = []

    def warmup(self) -> None:
        """As the session."""
        self._session.warmup()

    def run(self, tensors: Tensors) -> Tensors:
        """As the session."""
        size = sum(t.size for t in tensors.values())
        if not self.smallest or size < sum(int(np.prod(s)) for s in self.smallest.values()):
            self.smallest = {name: t.shape for name, t in tensors.items()}
        for name, tensor in tensors.items():
            low, high = self.range.get(name, (np.inf, -np.inf))
            self.range[name] = (min(low, float(tensor.min())), max(high, float(tensor.max())))
        self.last = tensors
        outputs = self._session.run(tensors)
        if self._mask is not None and self._mask in outputs:
            self.masks.append(outputs[self._mask].astype(np.bool_))
        return outputs

    def close(self) -> None:
        """As the session."""
        self._session.close()


def differs(pipeline: Pipeline, before: Seen, now: Seen) -> bool:
    """Whether two answers of one engine to one case are further apart than an engine may be from the reference."""
    return bool(compare(pipeline.package.manifest, pipeline.precision, before, now)[0])


class Watched:
    """A pipeline with probes around its sessions for as long as the block lasts."""

    def __init__(self, pipeline: Pipeline, mask: str | None) -> None:
        """Watch ``pipeline``; ``mask`` names an output whose values are kept as masks."""
        self.pipeline = pipeline
        self._mask = mask
        self._sessions = pipeline.sessions
        self.probes = [_Probe(session, mask) for session in pipeline.sessions]

    def __enter__(self) -> Watched:  # noqa: PYI034 - Self came with Python 3.11
        """Put the probes in."""
        self.pipeline.replace(self.probes)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the sessions back."""
        self.pipeline.replace(self._sessions)

    def say(self, case: GoldenCase) -> tuple[Seen, Masks]:
        """What the pipeline says of a case, with masks: the head's, or the graph's own."""
        for probe in self.probes:
            probe.masks.clear()
        seen, masks = said(self.pipeline, case)
        bare = [mask.ravel() for probe in self.probes for mask in probe.masks]
        if not masks and self._mask is not None and bare:
            masks = {self._mask: np.concatenate(bare)}
        return seen, masks

    def edges(self) -> list[dict[str, Tensors]]:
        """Per stage and by name: tensors of the smallest shape seen, filled with zeros and with the extremes seen."""
        return [
            {
                "zeros": {s.name: np.zeros(probe.smallest[s.name], s.dtype) for s in probe.inputs},
                "lowest": {
                    s.name: np.full(probe.smallest[s.name], probe.range[s.name][0], s.dtype) for s in probe.inputs
                },
                "highest": {
                    s.name: np.full(probe.smallest[s.name], probe.range[s.name][1], s.dtype) for s in probe.inputs
                },
            }
            if probe.smallest
            else {}
            for probe in self.probes
        ]


def said(pipeline: Pipeline, case: GoldenCase) -> tuple[Seen, Masks]:
    """What a pipeline says of a golden case; a refusal is an answer too.

    Raises:
        SessionError: The backend failed.
    """
    ids = [name for volume in case.inputs.values() for name in volume.slice_ids]
    try:
        output = pipeline.run_volumes(case.inputs).output
    except ContentError as error:
        return Seen(refused=error.reason), {}
    return Seen.of(output, ids), output.masks


def _compare_case(package: Package, case: GoldenCase, reference: Watched, candidate: Watched) -> CaseReport:
    expected, expected_masks = reference.say(case)
    try:
        seen, masks = candidate.say(case)
    except SessionError as error:
        if error.sticky:
            raise
        return CaseReport(name=case.name, faults=(str(error),), reference=expected)
    dice = {name: overlap(mask, masks[name]) if name in masks else 0.0 for name, mask in expected_masks.items()}
    faults, differences = compare(package.manifest, candidate.pipeline.precision, expected, seen, dice)
    faults += [
        f"{finding}: score {score:.6g}, the golden case says {low:g} to {high:g}"
        for finding, score, low, high in case.outside(seen.scores)
    ]
    return CaseReport(name=case.name, faults=tuple(faults), differences=differences, reference=expected)


def _compare_edges(
    package: Package,
    reference: Sequence[Session],
    candidate: Sequence[Session],
    edges: Sequence[Mapping[str, Tensors]],
    precision: str,
) -> list[CaseReport]:
    reports = []
    for index, (expected, got) in enumerate(zip(reference, candidate, strict=True)):
        for name, tensors in edges[index].items():
            faults = compare_edges(package.manifest, precision, expected.run(tensors), got.run(tensors))
            reports.append(CaseReport(name=f"{name}, stage {index}", faults=tuple(faults)))
    return reports
