"""Labelled voxels become components with a volume, key slices, boxes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from engines.errors import ContentError
from engines.heads.base import Head
from engines.heads.maps import Activation, activated, box_region, read_map
from engines.preprocess.base import Assembled
from engines.types import Measured, ModelOutput, Region, Tensors

Mask = NDArray[np.bool_]
_MM3_PER = {"ml": 1000.0, "mm3": 1.0}


class Segment(Head):
    """The score of a finding, and its measurement ``volume``, is the volume of all its components that count.

    Of a single picture it is the area in mm2 (measurement ``area``), whatever the unit.

    Attributes:
        output: Name of the graph's output: whole numbers (a label map), or one channel per label.
        labels: Per finding id its label: the number in a label map, or the channel.
        activation: Of channels. After ``softmax`` a voxel has the label of its largest channel; otherwise each channel
            for itself counts from ``threshold``.
        threshold: Least probability, without ``softmax``.
        min_mm3: Smaller components (of 26 neighbours) do not count; mm2 in a single picture.
        unit: UCUM unit of the volume.
        max_key_slices: How many slices are named per finding, those with the largest area.
    """

    output: str
    labels: dict[str, int] = Field(min_length=1)
    activation: Activation = "softmax"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    min_mm3: float = Field(default=0.0, ge=0)
    unit: Literal["ml", "mm3"] = "ml"
    max_key_slices: int = Field(default=3, ge=1, le=10)

    @property
    def reads(self) -> tuple[str, ...]:
        """See ``Head.reads``."""
        return (self.output,)

    def warmup(self) -> None:
        """Load SciPy, some 30 MB and a quarter of a second."""
        import scipy.ndimage  # noqa: F401 - loaded, not used

    def decide(self, outputs: Tensors, assembled: Assembled) -> ModelOutput:
        """See ``Head.decide``."""
        channels, place = read_map(outputs, self.output, assembled)
        is_flat = len(assembled.stack.slices) == 1
        name, unit = ("area", "mm2") if is_flat else ("volume", self.unit)
        scores: dict[str, float] = {}
        measurements: dict[str, tuple[Measured, ...]] = {}
        key_slices: dict[str, tuple[str, ...]] = {}
        regions: list[Region] = []
        masks: dict[str, Mask] = {}
        numbers = dict(assembled.numbers)
        for finding, mask in self._masks(channels).items():
            kept, boxes, count = self._components(mask, place, is_flat=is_flat)
            size = float((kept.sum(axis=(1, 2)) * _voxels(place, is_flat=is_flat)).sum())
            scores[finding] = size / (1.0 if is_flat else _MM3_PER[self.unit])
            numbers[f"components.{finding}"] = float(count)
            masks[finding] = kept
            if count:
                measurements[finding] = (Measured(name=name, value=scores[finding], unit=unit),)
                key_slices[finding], found = self._key_slices(finding, kept, boxes, place)
                regions += found
        return ModelOutput(
            scores=scores,
            measurements=measurements,
            key_slices=key_slices,
            regions=tuple(regions),
            numbers=numbers,
            masks=masks,
        )

    def _masks(self, channels: NDArray[Any]) -> dict[str, Mask]:
        """[D, H, W] per finding."""
        if channels.dtype.kind in "iub":
            if len(channels) != 1:
                raise ContentError(
                    "unreliable_output", "output '{output}' is a label map with several channels", output=self.output
                )
            return {finding: np.asarray(channels[0] == label) for finding, label in self.labels.items()}
        if max(self.labels.values()) >= len(channels):
            raise ContentError(
                "unreliable_output",
                "output '{output}' has {count} channels, label {label} has none",
                output=self.output,
                count=len(channels),
                label=max(self.labels.values()),
            )
        if self.activation == "softmax":
            best = channels.argmax(axis=0)
            return {finding: np.asarray(best == label) for finding, label in self.labels.items()}
        return {
            finding: activated(channels[label], self.activation, self.output) >= self.threshold
            for finding, label in self.labels.items()
        }

    def _components(
        self, mask: Mask, place: Assembled, *, is_flat: bool
    ) -> tuple[Mask, list[tuple[tuple[slice, slice, slice], Mask]], int]:
        """What is large enough: as one mask, and each component as its box and the mask in it."""
        from scipy import ndimage

        labels, _ = ndimage.label(mask, np.ones((3, 3, 3), np.bool_))
        voxel = _voxels(place, is_flat=is_flat)
        kept = np.zeros_like(mask)
        found = []
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            mine = labels[box] == index
            if (mine.sum(axis=(1, 2)) * voxel[box[0]]).sum() >= self.min_mm3:
                kept[box] |= mine
                found.append((box, mine))
        return kept, found, len(found)

    def _key_slices(
        self,
        finding: str,
        kept: Mask,
        components: list[tuple[tuple[slice, slice, slice], Mask]],
        place: Assembled,
    ) -> tuple[tuple[str, ...], list[Region]]:
        """The pictures with the largest area, and in each a box around every component."""
        area = kept.sum(axis=(1, 2))
        chosen: dict[int, int] = {}
        for index in (int(k) for k in np.argsort(-area, kind="stable") if area[k] > 0):
            group = place.members[index]
            # Several thin planes may show one slice: it is named once, for its best plane.
            chosen.setdefault(group[len(group) // 2], index)
            if len(chosen) == self.max_key_slices:
                break
        regions = []
        for member, index in chosen.items():
            for box, mask in components:
                if not box[0].start <= index < box[0].stop:
                    continue
                marks = np.argwhere(mask[index - box[0].start])
                if len(marks):
                    corner = (box[1].start - 0.5, box[2].start - 0.5)
                    low, high = marks.min(axis=0) + corner, marks.max(axis=0) + 1 + corner
                    regions.append(box_region(finding, place, member, low.tolist(), high.tolist()))
        return tuple(place.stack.slices[member].id for member in chosen), regions


def _voxels(place: Assembled, *, is_flat: bool) -> NDArray[np.float64]:
    """mm3 of one voxel per index of the first axis; mm2 of a pixel in a single picture."""
    thickness = np.ones(1) if is_flat else np.asarray(place.thickness_mm)
    return np.asarray(thickness * place.pixel_mm[0] * place.pixel_mm[1], np.float64)
