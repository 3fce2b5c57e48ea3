"""Nodules in the lungs: peaks of the ``chest-ct-nodule`` graph's map, each measured in the lungs themselves.

Takes what the preprocessor ``ct-lungs`` leaves of a chest: lungs, and around them nothing denser. From a peak the
densities are followed outwards in all directions until they have fallen half way to those of the lung. The middle of
these distances, not their mean, is the radius, so that a vessel that leads away does not count; how uneven they are
tells a ball from a knot of vessels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from engines.errors import ContentError
from engines.grid import Floats
from engines.heads.base import Head, check_range
from engines.heads.lung_cover import LungCover
from engines.heads.maps import box_region, is_in_picture, read_map
from engines.peaks import find_peaks, keep_apart
from engines.preprocess.base import Assembled
from engines.types import Mark, Measured, ModelOutput, Region, Tensors

_DIRECTIONS = 96
_STEP_MM = 0.5
_REACH_MM = 18.0
#: The density of a nodule is looked for so far around its middle.
_CORE_MM = 0.7
#: How often the middle is moved to where the distances are even, and how far: distances from off the middle are
#: uneven by two thirds of it.
_ROUNDS = 3
_MOVE = 1.5
#: What smoothing on the way to the grid takes off a radius: the outside of a ball is larger than its inside.
_SMOOTHED_MM = 0.25
#: Distances beyond this share of the radius lie in what leads away.
_BEYOND = 1.3
#: Peaks that are measured at most, the best.
_MOST_PEAKS = 400


@dataclass(frozen=True, slots=True)
class Ball:
    """One measured candidate; position in the stack's frame."""

    position_mm: tuple[float, float, float]
    diameter_mm: float
    volume_mm3: float
    #: Spread of the distances as a share of the radius.
    uneven: float


class Nodule(Head):
    """Ranked marks with position, diameter and volume; the score is that of the best mark, 0 without any.

    Attributes:
        finding: Finding id.
        heat_map: Name of the graph's output.
        input: Name of the graph's input: the lungs.
        least_peak: Lower peaks are not measured.
        least_score: Candidates below are no marks.
        diameter_mm: Smaller and larger ones are no marks.
        even: Up to this share of unevenness a candidate keeps its score, beyond the score falls in proportion.
        lung_span: Densities between lung and what stands for the most that is thinner, in the tensor's measure: what
            is below counts as lung around a nodule.
        apart_mm: Of marks closer than this the best stands.
        at_most: Marks, the best.
        max_key_slices: How many slices are named: those of the best marks.
        cover: Where the slices may end.
    """

    finding: str
    heat_map: str = "score"
    input: str = "lungs"
    least_peak: float = Field(default=0.2, gt=0, le=1)
    least_score: float = Field(default=0.35, gt=0, le=1)
    diameter_mm: tuple[float, float] = (4.0, 26.0)
    even: float = Field(default=0.15, gt=0)
    lung_span: float = 0.25
    apart_mm: float = Field(default=8.0, gt=0)
    at_most: int = Field(default=10, ge=1, le=100)
    max_key_slices: int = Field(default=3, ge=1, le=10)
    cover: LungCover = LungCover()

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``Head.reads``."""
        return (self.heat_map,)

    def warmup(self) -> None:
        """Load SciPy, some 30 MB and a quarter of a second."""
        import scipy.ndimage  # noqa: F401 - loaded, not used

    def decide(self, outputs: Tensors, assembled: Assembled) -> ModelOutput:
        """See ``Head.decide``."""
        channels, place = read_map(outputs, self.heat_map, assembled)
        lungs = assembled.tensors[self.input][0, 0]
        if channels.shape != (1, *lungs.shape):
            raise ContentError(
                "unreliable_output", "output '{output}' does not lie over the input", output=self.heat_map
            )
        # A ball of bone would score 1.2.
        check_range(self.heat_map, channels, -1e-3, 2.0)
        voxels, heights = find_peaks(channels[0], self.least_peak)
        balls, scores = self._measured(lungs, voxels[:_MOST_PEAKS], heights[:_MOST_PEAKS], place)
        positions = np.asarray([ball.position_mm for ball in balls], np.float64).reshape(-1, 3)
        marks, regions = [], []
        for index in keep_apart(positions, scores, self.apart_mm)[: self.at_most]:
            found = self._mark(balls[index], float(scores[index]), place)
            if found is not None:
                marks.append(found[0])
                regions.append(found[1])
        best = marks[0] if marks else None
        score = best.score if best is not None else 0.0
        numbers = {**assembled.numbers, f"marks.{self.finding}": float(len(marks)), "peaks": float(len(voxels))}
        warnings = self.cover.check(assembled.numbers, score)
        return ModelOutput(
            scores={self.finding: score},
            measurements={self.finding: _size(best)} if best is not None else {},
            key_slices={self.finding: tuple(dict.fromkeys(m.slice_id for m in marks))[: self.max_key_slices]},
            regions=tuple(regions),
            numbers=numbers,
            warnings=warnings,
            marks=tuple(marks),
        )

    def _measured(
        self, lungs: NDArray[np.float32], voxels: NDArray[np.intp], heights: Floats, place: Assembled
    ) -> tuple[list[Ball], Floats]:
        """Candidates that may be marks, with their scores."""
        balls, scores = [], []
        for voxel, height in zip(voxels, heights, strict=True):
            ball = self._measure(lungs, voxel, place)
            score = min(1.0, float(height)) * min(1.0, self.even / max(ball.uneven, 1e-6))
            if self.diameter_mm[0] <= ball.diameter_mm <= self.diameter_mm[1] and score >= self.least_score:
                balls.append(ball)
                scores.append(score)
        return balls, np.asarray(scores, np.float64)

    def _measure(self, lungs: NDArray[np.float32], voxel: NDArray[np.intp], place: Assembled) -> Ball:
        from scipy import ndimage

        spacing = np.asarray((float(np.median(place.thickness_mm)), *place.pixel_mm))
        directions = _directions()
        steps = np.arange(0, _REACH_MM + _STEP_MM / 2, _STEP_MM)
        away = directions[:, None, :] * steps[None, :, None] / spacing
        centre = voxel.astype(np.float64)
        around = self._around(lungs, voxel, spacing)
        distances = np.zeros(len(directions))
        for last in range(1, _ROUNDS + 1):
            near = centre + directions * _CORE_MM / spacing
            core = float(ndimage.map_coordinates(lungs, near.T, order=1, mode="nearest").mean())
            lines = ndimage.map_coordinates(lungs, (centre + away).transpose(2, 0, 1), order=1, mode="constant")
            distances = _fall(lines, (core + around) / 2)
            distances = np.minimum(distances, _BEYOND * np.median(distances))
            if last < _ROUNDS:
                centre = centre + (directions * distances[:, None]).mean(axis=0) * _MOVE / spacing
        distances += _SMOOTHED_MM
        radius = float(np.median(distances))
        z, y, x = place.to_mm(*(float(c) for c in centre))
        volume = float((distances**3).mean()) * 4 / 3 * np.pi
        return Ball((z, y, x), 2 * radius, volume, float(distances.std()) / radius)

    def _around(self, lungs: NDArray[np.float32], voxel: NDArray[np.intp], spacing: Floats) -> float:
        """Density of the lung around."""
        reach = [round(_REACH_MM * 2 / 3 / mm) for mm in spacing]
        box = tuple(slice(max(0, int(v) - r), int(v) + r + 1) for v, r in zip(voxel, reach, strict=True))
        values = lungs[box]
        thin = values[values < self.lung_span]
        return float(np.median(thin)) if thin.size else 0.0

    def _mark(self, ball: Ball, score: float, place: Assembled) -> tuple[Mark, Region] | None:
        """The mark in the slice nearest to its middle, with a box around it; None beside the picture."""
        assert place.grid is not None  # noqa: S101 - the preprocessor lays one
        member = place.member_at(ball.position_mm[0])
        _, row, column = place.grid.to_voxel(ball.position_mm)
        point = place.to_picture(member, row, column)
        if not is_in_picture(place, member, point):
            return None
        half = [ball.diameter_mm / 2 / mm for mm in place.pixel_mm]
        low, high = (row - half[0], column - half[1]), (row + half[0], column + half[1])
        region = box_region(self.finding, place, member, low, high)
        mark = Mark(
            finding=self.finding,
            slice_id=region.slice_id,
            point=point,
            position_mm=ball.position_mm,
            diameter_mm=ball.diameter_mm,
            score=score,
            volume_mm3=ball.volume_mm3,
        )
        return mark, region


def _size(mark: Mark) -> tuple[Measured, ...]:
    return (
        Measured(name="diameter", value=mark.diameter_mm, unit="mm"),
        Measured(name="volume", value=mark.volume_mm3 or 0.0, unit="mm3"),
    )


def _directions() -> Floats:
    """[N, 3] unit vectors, evenly over the sphere (a spiral by the golden angle)."""
    index = np.arange(_DIRECTIONS) + 0.5
    polar = np.arccos(1 - 2 * index / _DIRECTIONS)
    turn = np.pi * (1 + 5**0.5) * index
    return np.stack([np.cos(polar), np.sin(turn) * np.sin(polar), np.cos(turn) * np.sin(polar)], axis=1)


def _fall(lines: NDArray[np.float32], level: float) -> Floats:
    """Distance in mm at which each line first falls below a level, straight between its samples; else its length."""
    below = lines < level
    first = np.where(below.any(axis=1), below.argmax(axis=1), lines.shape[1] - 1).clip(1)
    rows = np.arange(len(lines))
    before, after = lines[rows, first - 1], lines[rows, first]
    share = np.clip((before - level) / np.maximum(before - after, 1e-6), 0, 1)
    return np.asarray((first - 1 + share) * _STEP_MM, np.float64)
