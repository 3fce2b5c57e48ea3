"""Candidates become marks: those that stand for the same thing are joined here, on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from engines.errors import ContentError
from engines.grid import Floats
from engines.heads.base import Head
from engines.heads.maps import Activation, activated, box_region, is_in_picture, read_map
from engines.peaks import find_peaks, keep_apart, keep_by_iou
from engines.preprocess.base import Assembled
from engines.types import Mark, Measured, ModelOutput, Region, Tensors

#: Diameters by a map are looked for this far around a peak.
_REACH_MM = 40.0


class Detect(Head):
    """Marks with position, diameter and score; the score of the finding is that of its best mark, 0 without any.

    Candidates are the peaks of a heat map, or what a step with ``take: {by: peaks}`` looked at one by one.

    Attributes:
        finding: Finding id.
        heat_map: Name of the graph's output that is a map; its peaks are the candidates.
        channel: Which channel of it.
        scores: Or the output [N, K] with the scores of the N candidates that were looked at one by one.
        column: Which of its K columns.
        activation: What makes the map, or the row of scores, probabilities.
        least_score: Candidates below are no marks. Marks below the operating point still are: a reader may want them.
        diameters: Output [N] or [N, 1] with the candidates' diameters in mm. Absent: of a heat map the ball as large
            as what is above half of the peak, otherwise ``diameter_mm``.
        diameter_mm: Where nothing tells it.
        apart_mm: Of marks closer than this the best stands;
        iou: or of marks whose boxes overlap by more than this share.
        at_most: Marks, the best.
        max_key_slices: How many slices are named: those of the best marks.
    """

    finding: str
    heat_map: str | None = None
    channel: int = Field(default=0, ge=0)
    scores: str | None = None
    column: int = Field(default=0, ge=0)
    activation: Activation = "none"
    least_score: float = Field(default=0.1, ge=0, le=1)
    diameters: str | None = None
    diameter_mm: float = Field(default=10.0, gt=0)
    apart_mm: float | None = Field(default=None, gt=0)
    iou: float | None = Field(default=None, ge=0, lt=1)
    at_most: int = Field(default=10, ge=1, le=100)
    max_key_slices: int = Field(default=3, ge=1, le=10)

    @model_validator(mode="after")
    def _one_of_two(self) -> Detect:
        if (self.heat_map is None) == (self.scores is None):
            raise ValueError("give heat_map, or scores of candidates, and not both")
        if (self.apart_mm is None) == (self.iou is None):
            raise ValueError("give apart_mm or iou, and not both")
        if self.heat_map is not None and self.diameters is not None:
            raise ValueError("diameters are of candidates; with heat_map they are measured in the map")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``Head.reads``."""
        return tuple(name for name in (self.heat_map, self.scores, self.diameters) if name is not None)

    @property
    def reads_candidates(self) -> bool:
        """See ``Head.reads_candidates``."""
        return self.scores is not None

    def warmup(self) -> None:
        """Load SciPy, some 30 MB and a quarter of a second."""
        import scipy.ndimage  # noqa: F401 - loaded, not used

    def decide(self, outputs: Tensors, assembled: Assembled) -> ModelOutput:
        """See ``Head.decide``."""
        if assembled.stack.slices[0].spacing_mm is None:
            raise ContentError("out_of_envelope", "a picture without pixel spacing cannot be measured")
        if self.scores is None:
            positions, diameters, scores, place = self._from_map(outputs, assembled)
        else:
            positions, diameters, scores = self._from_candidates(outputs, assembled)
            place = assembled
        good = scores >= self.least_score
        positions, diameters, scores = positions[good], diameters[good], scores[good]
        if self.apart_mm is not None:
            kept = keep_apart(positions, scores, self.apart_mm)
        else:
            kept = keep_by_iou(positions, diameters, scores, self.iou or 0.0)
        marks, regions = [], []
        for index in kept[: self.at_most]:
            found = self._mark(positions[index], float(diameters[index]), float(scores[index]), place)
            if found is not None:
                marks.append(found[0])
                regions.append(found[1])
        best = marks[0] if marks else None
        size = () if best is None else (Measured(name="diameter", value=best.diameter_mm, unit="mm"),)
        keys = tuple(dict.fromkeys(mark.slice_id for mark in marks))[: self.max_key_slices]
        return ModelOutput(
            scores={self.finding: best.score if best is not None else 0.0},
            measurements={self.finding: size} if size else {},
            key_slices={self.finding: keys} if keys else {},
            regions=tuple(regions),
            numbers={**assembled.numbers, f"marks.{self.finding}": float(len(marks))},
            marks=tuple(marks),
        )

    def _from_map(self, outputs: Tensors, assembled: Assembled) -> tuple[Floats, Floats, Floats, Assembled]:
        """Positions [N, 3], diameters [N], scores [N] of the peaks, and the map's own place."""
        assert self.heat_map is not None  # noqa: S101 - the caller has looked
        channels, place = read_map(outputs, self.heat_map, assembled)
        if self.channel >= len(channels):
            raise ContentError("unreliable_output", "output '{output}' has too few channels", output=self.heat_map)
        if self.activation == "softmax":
            heat = activated(channels, "softmax", self.heat_map)[self.channel]
        else:
            heat = activated(channels[self.channel], self.activation, self.heat_map)
        voxels, scores = find_peaks(heat, self.least_score)
        positions = np.asarray([place.to_mm(*map(float, v)) for v in voxels], np.float64).reshape(-1, 3)
        if self.apart_mm is not None:  # before each is measured
            kept = keep_apart(positions, scores, self.apart_mm)[: self.at_most]
            voxels, scores, positions = voxels[kept], scores[kept], positions[kept]
        sizes = [self._extent(heat, voxel, place) for voxel in voxels]
        return positions, np.asarray(sizes, np.float64), scores, place

    def _extent(self, heat: NDArray[np.float32], voxel: NDArray[np.intp], place: Assembled) -> float:
        """Diameter in mm of the ball as large as what hangs together with a peak above half of it."""
        from scipy import ndimage

        spacing = (float(np.median(place.thickness_mm)), *place.pixel_mm)
        reach = [max(1, round(_REACH_MM / 2 / mm)) for mm in spacing]
        low = [max(0, int(v) - r) for v, r in zip(voxel, reach, strict=True)]
        box = tuple(slice(a, int(v) + r + 1) for a, v, r in zip(low, voxel, reach, strict=True))
        labels, _ = ndimage.label(heat[box] >= heat[tuple(voxel)] / 2, np.ones((3, 3, 3), np.bool_))
        mine = labels == labels[tuple(int(v) - a for v, a in zip(voxel, low, strict=True))]
        if len(place.stack.slices) == 1:
            return float(2 * np.sqrt(mine.sum() * spacing[1] * spacing[2] / np.pi))
        return float(2 * np.cbrt(mine.sum() * np.prod(spacing) * 3 / 4 / np.pi))

    def _from_candidates(self, outputs: Tensors, assembled: Assembled) -> tuple[Floats, Floats, Floats]:
        """Positions [N, 3], diameters [N], scores [N] of the candidates."""
        count = len(assembled.candidates)
        if not count:
            return np.empty((0, 3)), np.empty(0), np.empty(0)
        assert self.scores is not None  # noqa: S101 - the caller has looked
        rows = self._rows(outputs, self.scores, count)
        if self.column >= rows.shape[1]:
            raise ContentError("unreliable_output", "output '{output}' has too few columns", output=self.scores)
        scores = activated(rows, self.activation, self.scores, axis=1)[:, self.column].astype(np.float64)
        diameters = np.full(count, self.diameter_mm)
        if self.diameters is not None:
            diameters = self._rows(outputs, self.diameters, count)[:, 0].astype(np.float64)
            if diameters.min() <= 0:
                raise ContentError(
                    "unreliable_output", "output '{output}' gives a diameter of 0 or less", output=self.diameters
                )
        return np.asarray([c.position_mm for c in assembled.candidates], np.float64), diameters, scores

    @staticmethod
    def _rows(outputs: Tensors, name: str, count: int) -> NDArray[Any]:
        output = outputs.get(name)
        if output is None or len(output) != count or output.size == 0:
            raise ContentError(
                "unreliable_output",
                "output '{output}' has shape {shape}, expected {count} rows",
                output=name,
                shape=str(None if output is None else output.shape),
                count=count,
            )
        return output.reshape(count, -1)

    def _mark(self, position: Floats, diameter_mm: float, score: float, place: Assembled) -> tuple[Mark, Region] | None:
        """The mark in the slice nearest to its middle, with a box around it; None beside the picture."""
        z, y, x = (float(v) for v in position)
        if place.grid is None:
            index = int(np.argmin([abs(place.to_mm(k, 0, 0)[0] - z) for k in range(len(place.members))]))
            group = place.members[index]
            member = group[len(group) // 2]
            row, column = y / place.pixel_mm[0], x / place.pixel_mm[1]
        else:
            member = place.member_at(z)
            _, row, column = place.grid.to_voxel(position.tolist())
        point = place.to_picture(member, row, column)
        if not is_in_picture(place, member, point):
            return None
        half = [diameter_mm / 2 / mm for mm in place.pixel_mm]
        low, high = (row - half[0], column - half[1]), (row + half[0], column + half[1])
        region = box_region(self.finding, place, member, low, high)
        mark = Mark(
            finding=self.finding,
            slice_id=region.slice_id,
            point=point,
            position_mm=(z, y, x),
            diameter_mm=diameter_mm,
            score=score,
        )
        return mark, region
