"""Bright regions in the brain of a head CT: components, volume, key slices, and every reason not to say anything.

Takes the three maps of the ``head-ct-hyperdensity`` graph. Content guards come first: what is no adult head with a
brain in it (a trunk, a limb, a phantom, altered pixels) ends in ``ContentError`` and never gets a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from engines.errors import ContentError
from engines.heads.base import Head, check_range
from engines.heads.brain_guard import BrainGuard
from engines.preprocess.base import Assembled
from engines.types import Measured, ModelOutput, Region, Tensors

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

_MAPS = ("contrast", "candidate", "inside")
_HU_SPAN = 4200.0
#: Voxels whose whole neighbourhood is blood tell its density; fewer than this are too few.
_MIN_CORE = 20
#: Share of its contrast at which a region's edge is drawn, and the ramp's width. A blurred ball has half its contrast
#: inside its edge, by about (blur)^2 / radius; 0.4 gave the least bias on phantoms of 5 to 40 ml.
_EDGE = 0.4
_EDGE_WIDTH = 0.4


@dataclass(frozen=True, slots=True)
class _Bright:
    """One bright region: its voxels as a box in the grid and a mask in it, its volume, its contrast."""

    box: tuple[slice, slice, slice]
    mask: Mask
    volume_ml: float
    contrast_hu: float


class Hyperdensity(Head):
    """The score is the volume in ml of the largest bright region; the volume measured is that of all regions.

    Attributes:
        finding: Finding id.
        input: Name of the graph's input, for the guards.
        min_region_ml: Smaller regions are noise, calcium or vessels and are not counted.
        small_ml: Below this volume a region must also be as bright as ``small_contrast_hu``: the meeting of falx and
            tentorium is bright too, but fainter than fresh blood.
        small_contrast_hu: Over local brain.
        margin_mm: How far around a region its blurred rim is looked for.
        max_key_slices: How many slices are named.
        guard: What must be seen for the input to be a head with a brain in it.
    """

    finding: str
    input: str = "hu"
    min_region_ml: float = Field(default=0.4, gt=0)
    small_ml: float = Field(default=5.0, ge=0)
    small_contrast_hu: float = Field(default=18.5, ge=0)
    margin_mm: float = Field(default=3.0, ge=0)
    max_key_slices: int = Field(default=3, ge=1, le=10)
    guard: BrainGuard = BrainGuard()

    def warmup(self) -> None:
        """Load SciPy, some 30 MB and a quarter of a second."""
        import scipy.ndimage  # noqa: F401 - loaded, not used

    def decide(self, outputs: Tensors, assembled: Assembled) -> ModelOutput:
        """See ``Head.decide``."""
        hu = assembled.tensors[self.input][:, 0]
        maps: dict[str, NDArray[Any]] = {}
        for name in _MAPS:
            if name not in outputs or outputs[name].shape != assembled.tensors[self.input].shape:
                raise ContentError(
                    "unreliable_output", "output '{output}' is missing or has not the input's shape", output=name
                )
            maps[name] = outputs[name][:, 0]
        contrast = maps["contrast"]
        check_range("contrast", contrast, -_HU_SPAN, _HU_SPAN)
        numbers = dict(assembled.numbers) | self.guard.check(hu, maps["inside"], assembled)
        if not np.ptp(contrast[maps["inside"]]) > 0:
            raise ContentError("unreliable_output", "output 'contrast' is the same everywhere in the brain")
        regions = self._regions(contrast, maps["candidate"], assembled)
        largest = max((r.volume_ml for r in regions), default=0.0)
        numbers |= {"regions": float(len(regions)), "largest_ml": largest}
        if regions:
            numbers["largest_contrast_hu"] = regions[0].contrast_hu
        key_slices, boxes = self._key_slices(regions, assembled)
        volume = Measured(name="volume", value=sum(r.volume_ml for r in regions), unit="ml")
        return ModelOutput(
            scores={self.finding: largest},
            measurements={self.finding: (volume,)} if regions else {},
            key_slices={self.finding: key_slices},
            regions=boxes,
            numbers=numbers,
        )

    def _regions(self, contrast: Floats, candidate: Mask, assembled: Assembled) -> list[_Bright]:
        """Connected regions that are no sheets and no specks, largest first."""
        from scipy import ndimage

        # Opening in the plane: falx, tentorium and the rim along the bone are one or two pixels thin.
        square = np.ones((1, 3, 3), np.bool_)
        rows, columns = (_span(np.any(candidate, axis=(0, 2))), _span(np.any(candidate, axis=(0, 1))))
        opened = np.zeros_like(candidate)
        opened[:, rows, columns] = ndimage.binary_opening(candidate[:, rows, columns], square)
        labels, _ = ndimage.label(opened, ndimage.generate_binary_structure(3, 2))
        voxel_ml = np.asarray(assembled.thickness_mm) * assembled.pixel_mm[0] * assembled.pixel_mm[1] / 1000
        margin = (1, round(self.margin_mm / assembled.pixel_mm[0]), round(self.margin_mm / assembled.pixel_mm[1]))
        found = []
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            per_slab = (labels[box] == index).sum(axis=(1, 2))
            if (per_slab * voxel_ml[box[0]]).sum() < self.min_region_ml / 2:
                continue
            region = self._measure(contrast, labels, index, _grow(box, margin, labels.shape), voxel_ml)
            bright = region.volume_ml >= self.small_ml or region.contrast_hu >= self.small_contrast_hu
            if region.volume_ml >= self.min_region_ml and bright:
                found.append(region)
        return sorted(found, key=lambda r: r.volume_ml, reverse=True)

    def _measure(
        self,
        contrast: Floats,
        labels: NDArray[np.int32],
        index: int,
        box: tuple[slice, slice, slice],
        voxel_ml: NDArray[np.float64],
    ) -> _Bright:
        """Volume with the share of blood in each voxel of the region and of its blurred rim."""
        from scipy import ndimage

        mine = labels[box] == index
        values = contrast[box]
        core = ndimage.binary_erosion(mine, ndimage.generate_binary_structure(3, 1))
        core = ndimage.binary_erosion(core, np.ones((1, 3, 3), np.bool_))
        plateau = float(np.median(values[core])) if core.sum() >= _MIN_CORE else float(np.percentile(values[mine], 75))
        near = ndimage.binary_dilation(mine, _ball(self.margin_mm))
        near &= (labels[box] == 0) | mine
        # A ramp over the edge: the noise of the brain around adds nothing, a voxel that is partly filled counts partly.
        share = np.clip((values / plateau - _EDGE) / _EDGE_WIDTH + 0.5, 0, 1) * near
        volume = float((share.sum(axis=(1, 2)) * voxel_ml[box[0]]).sum())
        return _Bright(box, mine, volume, plateau)

    def _key_slices(self, regions: list[_Bright], assembled: Assembled) -> tuple[tuple[str, ...], tuple[Region, ...]]:
        """Slices with the largest bright area, and a box around each region in them."""
        area = np.zeros(len(assembled.members))
        for region in regions:
            area[region.box[0]] += region.mask.sum(axis=(1, 2))
        best = [int(k) for k in np.argsort(-area, kind="stable")[: self.max_key_slices] if area[k] > 0]
        ids, boxes = [], []
        for slab in best:
            group = assembled.members[slab]
            member = group[len(group) // 2]
            ids.append(assembled.stack.slices[member].id)
            for region in regions:
                if region.box[0].start <= slab < region.box[0].stop:
                    mask = region.mask[slab - region.box[0].start]
                    if mask.any():
                        boxes.append(self._box(mask, region, member, assembled))
        return tuple(ids), tuple(boxes)

    def _box(self, mask: Mask, region: _Bright, member: int, assembled: Assembled) -> Region:
        rows, columns = _span(np.any(mask, axis=1)), _span(np.any(mask, axis=0))
        top, left = region.box[1].start, region.box[2].start
        made = assembled.stack.slices[member]
        corners = []
        for row, column in (
            (top + rows.start - 0.5, left + columns.start - 0.5),
            (top + rows.stop - 0.5, left + columns.stop - 0.5),
        ):
            x, y = assembled.to_picture(member, row, column)
            corners.append((min(max(x, 0.0), made.shape[1] - 1.0), min(max(y, 0.0), made.shape[0] - 1.0)))
        return Region(slice_id=made.id, kind="box", points=tuple(corners), finding=self.finding)


def _span(marks: NDArray[np.bool_]) -> slice:
    """From the first to the last true element; empty where there is none."""
    where = np.flatnonzero(marks)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0)


def _grow(
    box: tuple[slice, slice, slice], margin: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    a, b, c = (
        slice(max(0, part.start - more), min(size, part.stop + more))
        for part, more, size in zip(box, margin, shape, strict=True)
    )
    return a, b, c


def _ball(margin: float) -> Mask:
    """One slab up and down, a disc of ``margin`` pixels in the plane."""
    reach = max(1, round(margin))
    row, column = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = row**2 + column**2 <= (reach + 0.5) ** 2
    return np.stack([disc, disc, disc])
