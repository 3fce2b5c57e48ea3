"""Bright regions in maps of contrast: which there are, and how much blood each holds, partly filled voxels by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from engines.preprocess.base import Assembled

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Box = tuple[slice, slice, slice]

#: Voxels whose whole neighbourhood is blood tell its density; fewer than this are too few.
_MIN_CORE = 20
#: Share of the way from what lies around to the blood's own density at which its edge is drawn, and the ramp's width.
#: A blurred ball has less than half of it at its edge, by about (blur)^2 / radius; 0.4 had the least bias on phantoms.
_EDGE = 0.4
_EDGE_WIDTH = 0.2
#: How far around a region, in mm and slabs, its surroundings are averaged, and the average's width.
_AROUND_MM = 10
_AROUND_SLABS = 2
_AROUND_SIGMA = (0.6, 3.0, 3.0)
#: Where nothing of the surroundings is near, local brain (contrast 0) stands in for them with this weight.
_FAR = 1e-3
#: Surroundings are never taken for more than this share of the blood's own contrast.
_MOST_AROUND = 0.6
_BONE_HU = 150.0
_FAT_HU = -25.0


@dataclass(frozen=True, slots=True)
class Bright:
    """One bright region: its voxels as a box in the grid and a mask in it, its volume, its contrast."""

    box: Box
    mask: Mask
    volume_ml: float
    contrast_hu: float


class BrightRegions(BaseModel):
    """Which connected candidates are regions.

    Attributes:
        min_region_ml: Smaller regions are noise, calcium or vessels and are not counted.
        small_ml: Below this volume a region must also be as bright as ``small_contrast_hu`` (the meeting of falx and
            tentorium is bright too, but fainter than fresh blood).
        small_contrast_hu: Over local brain.
        on_bone_ml: Below this volume a region may not lie on bone.
        bone_share: It does where so large a share of its pixels has bone, fat or air in the slab above or below: the
            roof of an orbit, seen partly in thick slices, is as bright as blood.
        margin_mm: How far around a region its blurred rim is looked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_region_ml: float = Field(default=1.0, gt=0)
    small_ml: float = Field(default=5.0, ge=0)
    small_contrast_hu: float = Field(default=18.5, ge=0)
    on_bone_ml: float = Field(default=2.0, ge=0)
    bone_share: float = Field(default=0.5, gt=0, le=1)
    margin_mm: float = Field(default=2.0, ge=0)

    def find(self, hu: Floats, contrast: Floats, candidate: Mask, assembled: Assembled) -> list[Bright]:
        """Connected regions that are no sheets and no specks, largest first.

        Args:
            hu: [D, H, W].
            contrast: [D, H, W], HU above local brain; 0 where it is not known.
            candidate: [D, H, W].
            assembled: For sizes.
        """
        from scipy import ndimage

        # Opening in the plane: falx, tentorium and the rim along the bone are one or two pixels thin.
        square = np.ones((1, 3, 3), np.bool_)
        rows, columns = (span(np.any(candidate, axis=(0, 2))), span(np.any(candidate, axis=(0, 1))))
        opened = np.zeros_like(candidate)
        opened[:, rows, columns] = ndimage.binary_opening(candidate[:, rows, columns], square)
        labels, _ = ndimage.label(opened, ndimage.generate_binary_structure(3, 2))
        voxel_ml = np.asarray(assembled.thickness_mm) * assembled.pixel_mm[0] * assembled.pixel_mm[1] / 1000
        margin = (_AROUND_SLABS, *(round(_AROUND_MM / mm) for mm in assembled.pixel_mm))
        found = []
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            per_slab = (labels[box] == index).sum(axis=(1, 2))
            if (per_slab * voxel_ml[box[0]]).sum() < self.min_region_ml / 2:
                continue
            grown = _grow(box, margin, labels.shape)
            region = self._measure(contrast[grown], labels[grown], index, grown, voxel_ml[grown[0]])
            if region.volume_ml >= self.min_region_ml and self._is_blood(region, hu):
                found.append(region)
        return sorted(found, key=lambda r: r.volume_ml, reverse=True)

    def _is_blood(self, region: Bright, hu: Floats) -> bool:
        if region.volume_ml < self.small_ml and region.contrast_hu < self.small_contrast_hu:
            return False
        return region.volume_ml >= self.on_bone_ml or _on_bone(region, hu) < self.bone_share

    def _measure(
        self, values: Floats, labels: NDArray[np.int32], index: int, box: Box, voxel_ml: NDArray[np.float64]
    ) -> Bright:
        """Volume with the share of blood in each voxel of the region and of its blurred rim."""
        from scipy import ndimage

        mine = labels == index
        others = (labels != 0) & ~mine
        core = ndimage.binary_erosion(mine, ndimage.generate_binary_structure(3, 1))
        core = ndimage.binary_erosion(core, np.ones((1, 3, 3), np.bool_))
        plateau = float(np.median(values[core])) if core.sum() >= _MIN_CORE else float(np.percentile(values[mine], 75))
        near = ndimage.binary_dilation(mine, _ball(self.margin_mm))
        around = np.minimum(_surroundings(values, ~near & ~others & (values != 0)), _MOST_AROUND * plateau)
        # A ramp over the edge: the noise of the brain around adds nothing, a voxel that is partly filled counts partly.
        # What lies around is not always brain: beside fluid a half filled voxel is as dark as brain.
        share = np.clip(((values - around) / (plateau - around) - _EDGE) / _EDGE_WIDTH + 0.5, 0, 1) * (near & ~others)
        volume = float((share.sum(axis=(1, 2)) * voxel_ml).sum())
        return Bright(box, mine, volume, plateau)


def _surroundings(values: Floats, outside: Mask) -> Floats:
    """Average of the voxels ``outside`` that are near, for each voxel."""
    from scipy import ndimage

    total = ndimage.gaussian_filter(np.where(outside, values, 0).astype(np.float32), _AROUND_SIGMA)
    weight = ndimage.gaussian_filter(outside.astype(np.float32), _AROUND_SIGMA)
    average: Floats = total / (weight + np.float32(_FAR))
    return average


def _on_bone(region: Bright, hu: Floats) -> float:
    """Share of a region's pixels above or below which, in the next slab, the room of the brain ends."""
    from scipy import ndimage

    slabs, rows, columns = region.box
    first, last = max(0, slabs.start - 1), min(len(hu), slabs.stop + 1)
    values = hu[first:last, rows, columns]
    ends = ndimage.binary_dilation((values > _BONE_HU) | (values < _FAT_HU), np.ones((1, 3, 3), np.bool_))
    neighbours = np.zeros_like(region.mask)
    for k in range(slabs.start, slabs.stop):
        for other in (k - 1, k + 1):
            if first <= other < last:
                neighbours[k - slabs.start] |= ends[other - first]
    return float(neighbours[region.mask].mean())


def span(marks: NDArray[Any]) -> slice:
    """From the first to the last true element; empty where there is none."""
    where = np.flatnonzero(marks)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0)


def _grow(box: Box, margin: tuple[int, ...], shape: tuple[int, ...]) -> Box:
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
