"""Bright regions in the brain of a head CT: components, volume, key slices, and every reason not to say anything.

Takes the three maps of the ``head-ct-hyperdensity`` graph. Content guards come first: what is no adult head with a
brain in it (a trunk, a limb, a phantom, altered pixels) ends in ``ContentError`` and never gets a score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from engines.errors import ContentError
from engines.heads.base import Head, check_range
from engines.heads.brain_guard import BrainGuard
from engines.heads.bright import Bright, BrightRegions, span
from engines.heads.head_cover import HeadCover
from engines.heads.slice_order import check_order
from engines.preprocess.base import Assembled
from engines.types import Measured, ModelOutput, Region, Tensors

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

_MAPS = ("contrast", "candidate", "inside")
_HU_SPAN = 4200.0


class Hyperdensity(Head):
    """The score is the volume in ml of the largest bright region; the volume measured is that of all regions.

    Attributes:
        finding: Finding id.
        input: Name of the graph's input, for the guards.
        regions: Which candidates are regions.
        max_key_slices: How many slices are named.
        guard: What must be seen for the input to be a head with a brain in it.
        cover: Where its slices may end.
    """

    finding: str
    input: str = "hu"
    regions: BrightRegions = BrightRegions()
    max_key_slices: int = Field(default=3, ge=1, le=10)
    guard: BrainGuard = BrainGuard()
    cover: HeadCover = HeadCover()

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
        inside = maps["inside"]
        area = inside.sum(axis=(1, 2)) * (assembled.pixel_mm[0] * assembled.pixel_mm[1] / 100)
        numbers = dict(assembled.numbers) | self.guard.check(hu, inside, assembled) | check_order(assembled, area)
        if not np.ptp(contrast[inside]) > 0:
            raise ContentError("unreliable_output", "output 'contrast' is the same everywhere in the brain")
        regions = self.regions.find(hu, contrast, maps["candidate"], assembled)
        largest = max((r.volume_ml for r in regions), default=0.0)
        warnings, ends = self.cover.check(hu, inside, assembled, numbers["brain_hu"], largest)
        numbers |= {"regions": float(len(regions)), "largest_ml": largest} | ends
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
            warnings=warnings,
        )

    def _key_slices(self, regions: list[Bright], assembled: Assembled) -> tuple[tuple[str, ...], tuple[Region, ...]]:
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

    def _box(self, mask: Mask, region: Bright, member: int, assembled: Assembled) -> Region:
        rows, columns = span(np.any(mask, axis=1)), span(np.any(mask, axis=0))
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
