"""Acceptance: whether an engine says what the reference says. Rules by head, pure, over what pipelines gave.

The reference is ONNX Runtime on the CPU with the package's own FP32 graph. An engine is compared on every golden case
of its package, and its bare graphs on edge tensors (zeros and the extremes that the golden cases reach), where only
NaN and infinity count and, for a ``classify`` head, the scores themselves. What the reference gave on the golden cases
is kept in the report (without masks): the spot check compares with it later, without the reference's own minutes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.heads.classify import Classify
from engines.heads.maps import activated
from engines.manifest import Manifest
from engines.types import ModelOutput, Tensors

#: Heads whose findings are regions of voxels with a volume.
_VOLUMES = frozenset({"segment", "hyperdensity"})
#: Heads whose findings are marks.
_MARKS = frozenset({"detect", "nodule"})
#: Voxels (or pixels) between the centres of one mark in both.
_MARK_APART = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far an engine may be from the reference: scores by difference, masks by Dice, volumes by share."""

    score: float
    dice: float
    volume: float


#: FP32 differs by the order of sums only; its masks and volumes are held to FP16's bounds.
BOUNDS: Mapping[str, Bounds] = {
    "fp32": Bounds(1e-4, 0.995, 0.02),
    "fp16": Bounds(1e-3, 0.995, 0.02),
    "int8": Bounds(3e-2, 0.98, 0.05),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one pipeline said of one case, as JSON can hold it.

    Attributes:
        refused: Reason of a ``ContentError``; empty where there are scores.
        scores: By finding.
        measurements: By finding, then name.
        marks: By finding: (index of the slice in the case, column, row) of each region's centre.
    """

    refused: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    measurements: dict[str, dict[str, float]] = field(default_factory=dict)
    marks: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, output: ModelOutput, slice_ids: Sequence[str]) -> Seen:
        """Take what is compared out of an output; ``slice_ids`` in the case's order."""
        order = {name: float(index) for index, name in enumerate(slice_ids)}
        marks: dict[str, list[tuple[float, float, float]]] = {}
        for region in output.regions:
            column, row = np.asarray(region.points, float).mean(axis=0)
            marks.setdefault(region.finding, []).append((order.get(region.slice_id, -1.0), float(column), float(row)))
        return cls(
            scores=dict(output.scores),
            measurements={f: {m.name: m.value for m in found} for f, found in output.measurements.items()},
            marks=marks,
        )

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Seen:
        """Read what ``asdict`` wrote."""
        marks = {f: [(float(a), float(b), float(c)) for a, b, c in found] for f, found in body["marks"].items()}
        return cls(refused=body["refused"], scores=body["scores"], measurements=body["measurements"], marks=marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReport:
    """One golden case or edge tensor: what was wrong, the largest differences, what the reference said."""

    name: str
    faults: tuple[str, ...] = ()
    #: Largest difference by what was compared: ``score``, ``dice`` (smallest), ``volume``, ``mark``, names of measures.
    differences: dict[str, float] = field(default_factory=dict)
    reference: Seen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The verdict on one engine."""

    package: str
    package_digest: str
    precision: str
    backend: str
    passed: bool
    #: Why not; one line a fault.
    reasons: tuple[str, ...] = ()
    cases: tuple[CaseReport, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As it lies beside the engine."""
        return asdict(self)


def compare(
    manifest: Manifest,
    precision: str,
    reference: Seen,
    candidate: Seen,
    dice: Mapping[str, float] | None = None,
) -> tuple[list[str], dict[str, float]]:
    """Compare what both said of one case.

    Args:
        manifest: Of the package.
        precision: The candidate's; chooses the bounds.
        reference: What ONNX Runtime said.
        candidate: What the engine said.
        dice: By finding, where both gave masks.

    Returns:
        The faults, and the largest difference of each thing compared.
    """
    if reference.refused or candidate.refused:
        if reference.refused == candidate.refused:
            return [], {}
        told = f"refused as {candidate.refused}" if candidate.refused else "scored"
        said = f"refused as {reference.refused}" if reference.refused else "scored"
        return [f"{told}, the reference {said}"], {}
    comparison = _Comparison(manifest, BOUNDS[precision])
    for finding in manifest.findings:
        comparison.score(finding.id, reference.scores.get(finding.id), candidate.scores.get(finding.id))
        comparison.measured(
            finding.id, reference.measurements.get(finding.id, {}), candidate.measurements.get(finding.id, {})
        )
        if manifest.head.name in _MARKS:
            comparison.marks(finding.id, reference.marks.get(finding.id, []), candidate.marks.get(finding.id, []))
    for finding_id, share in (dice or {}).items():
        comparison.dice(finding_id, share)
    return comparison.faults, comparison.differences


class _Comparison:
    """Collects faults and differences of one case."""

    def __init__(self, manifest: Manifest, bounds: Bounds) -> None:
        self._manifest = manifest
        self._bounds = bounds
        self._head = manifest.head.name
        self.faults: list[str] = []
        self.differences: dict[str, float] = {}

    def score(self, finding_id: str, reference: float | None, candidate: float | None) -> None:
        """The head's own bound on the score, and no decision on the other side of an operating point."""
        if reference is None or candidate is None or not math.isfinite(candidate):
            self.faults.append(f"{finding_id}: score {candidate}, the reference gave {reference}")
            return
        if self._head in _VOLUMES and self._manifest.finding(finding_id).score_unit:
            self._volume(f"{finding_id}: score", reference, candidate)
        elif self._head not in _MARKS | {"measure"}:
            self._note("score", abs(candidate - reference))
            if abs(candidate - reference) > self._bounds.score:
                self.faults.append(
                    f"{finding_id}: score {candidate:.6g}, the reference gave {reference:.6g}; "
                    f"at most {self._bounds.score:g} apart"
                )
        band = self._manifest.golden.band
        for point in self._manifest.finding(finding_id).operating_points:
            flips = (reference >= point.threshold) != (candidate >= point.threshold)
            if flips and abs(reference - point.threshold) > band:
                self.faults.append(
                    f"{finding_id}: the decision at {point.name} ({point.threshold:g}) flips: score {candidate:.6g}, "
                    f"the reference gave {reference:.6g}"
                )

    def measured(self, finding_id: str, reference: Mapping[str, float], candidate: Mapping[str, float]) -> None:
        """Each measurement within the manifest's tolerance, or the head's share where it states none."""
        if set(reference) != set(candidate):
            self.faults.append(f"{finding_id}: measures {sorted(candidate)}, the reference {sorted(reference)}")
            return
        for name, value in reference.items():
            apart, tolerance = abs(candidate[name] - value), self._manifest.golden.tolerance.get(name)
            if not math.isfinite(candidate[name]):
                self.faults.append(f"{finding_id}: {name} is {candidate[name]}")
            elif tolerance is None:
                self._volume(f"{finding_id}: {name}", value, candidate[name])
            else:
                self._note(name, apart)
                if apart > tolerance:
                    self.faults.append(
                        f"{finding_id}: {name} {candidate[name]:.6g}, the reference gave {value:.6g}; "
                        f"at most {tolerance:g} apart"
                    )

    def marks(
        self,
        finding_id: str,
        reference: list[tuple[float, float, float]],
        candidate: list[tuple[float, float, float]],
    ) -> None:
        """The same marks, each centre within one voxel."""
        if len(reference) != len(candidate):
            self.faults.append(f"{finding_id}: {len(candidate)} marks, the reference gave {len(reference)}")
            return
        left = list(candidate)
        for mark in reference:
            nearest = min(left, key=lambda other: _apart(mark, other))
            left.remove(nearest)
            self._note("mark", _apart(mark, nearest))
            if _apart(mark, nearest) > _MARK_APART:
                self.faults.append(
                    f"{finding_id}: no mark within {_MARK_APART:g} voxel of the reference's at {_place(mark)}; "
                    f"the nearest is at {_place(nearest)}"
                )

    def dice(self, finding_id: str, share: float) -> None:
        """Masks overlap enough."""
        self.differences["dice"] = min(share, self.differences.get("dice", 1.0))
        if share < self._bounds.dice:
            self.faults.append(
                f"{finding_id}: Dice {share:.4f} with the reference's mask; at least {self._bounds.dice:g}"
            )

    def _volume(self, what: str, reference: float, candidate: float) -> None:
        share = abs(candidate - reference) / abs(reference) if reference else float(candidate != reference)
        self._note("volume", share)
        if share > self._bounds.volume:
            self.faults.append(
                f"{what} {candidate:.6g}, the reference gave {reference:.6g}; at most {self._bounds.volume:.0%} apart"
            )

    def _note(self, what: str, value: float) -> None:
        self.differences[what] = max(value, self.differences.get(what, 0.0))


def overlap(reference: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 where both are empty, 0 where their shapes differ."""
    if reference.shape != candidate.shape:
        return 0.0
    both = int(reference.sum()) + int(candidate.sum())
    return 2 * int((reference & candidate).sum()) / both if both else 1.0


def compare_edges(manifest: Manifest, precision: str, reference: Tensors, candidate: Tensors) -> list[str]:
    """Compare the bare outputs of one graph on one edge tensor.

    Where the reference itself is not finite, nothing is asked of the engine: the head refuses such an output.
    """
    classifier = _classifier(manifest)
    faults = []
    for name, expected in reference.items():
        got = candidate.get(name)
        if got is None or got.shape != expected.shape:
            faults.append(f"output {name!r} has shape {None if got is None else got.shape}, not {expected.shape}")
        elif expected.dtype.kind == "f" and np.isfinite(expected).all():
            if not np.isfinite(got).all():
                faults.append(f"output {name!r} holds NaN or infinity, the reference's does not")
            elif classifier is not None:
                gaps = _scores(classifier, name, got) - _scores(classifier, name, expected)
                apart = float(np.abs(gaps).max(initial=0.0))
                if apart > BOUNDS[precision].score:
                    faults.append(f"output {name!r} is {apart:.3g} from the reference's")
    return faults


def _classifier(manifest: Manifest) -> Classify | None:
    """The head, where an output of the only graph is scores."""
    if manifest.head.name != "classify" or len(manifest.stages) != 1:
        return None
    return Classify.model_validate(manifest.head.params)


def _scores(head: Classify, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """What the head reads from an output: bounds are for scores, which logits are not yet."""
    if name == head.output and head.activation != "none":
        values = activated(values, head.activation, name, axis=-1)
    return values.astype(np.float64)


def _apart(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _place(mark: tuple[float, float, float]) -> str:
    return "slice {:g}, column {:.1f}, row {:.1f}".format(*mark)
