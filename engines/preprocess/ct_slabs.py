"""A CT series becomes a stack of slabs on a square grid of fixed pixel size.

Slices are shrunk to the grid's pixel size as they arrive (a 512 x 512 slice of a head becomes some 240 x 240 int16),
so that 300 of them take 35 MB. At the end neighbouring thin slices are averaged into slabs, as a reader looks at
5 mm images: it lowers noise and bounds the graph's work. Nothing is resampled along the normal; every slab knows how
much of the patient it stands for, so that uneven spacing does not bend volumes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from engines.errors import ContentError
from engines.preprocess.base import Assembled, Preprocessor
from engines.types import Image, Prepared, Stack

_AIR_HU = -1024
_TOP_HU = 3071
_BONE_HU = 300
#: Bone is looked for in every fourth row and column.
_STEP = 4


class CtSlabs(Preprocessor):
    """Shrink, sort into slabs, crop around bone.

    Attributes:
        tensor: Name of the graph's input, [D, 1, size, size] float32 in HU.
        size: Rows and columns of the grid.
        pixel_mm: Pixel size of the grid (true to 0.3 %: a whole number of pixels must fit the picture).
        slab_mm: Slices are averaged up to this thickness.
        max_slabs: Slabs grow thicker where there would be more.
        below_vertex_mm: Only so much below the highest bone is taken; absent: everything.
        min_slices: Fewer are no examination.
        min_extent_mm: Nor is less along the normal.
    """

    tensor: str = "hu"
    size: int = Field(default=256, ge=64, le=512, multiple_of=16)
    pixel_mm: float = Field(default=1.0, gt=0.2, le=4)
    slab_mm: float = Field(default=4.0, gt=0)
    max_slabs: int = Field(default=48, ge=4, le=256)
    below_vertex_mm: float | None = Field(default=None, gt=0)
    min_slices: int = Field(default=8, ge=1)
    min_extent_mm: float = Field(default=0.0, ge=0)

    def prepare(self, image: Image) -> Prepared:
        """Shrink one slice to the grid's pixel size, by area.

        Raises:
            ContentError: ``out_of_envelope`` without pixel spacing, or for a field of view that holds no head or trunk.
        """
        import cv2

        if image.spacing_mm is None or image.array.ndim != 2 or min(image.spacing_mm) <= 0:
            raise ContentError("out_of_envelope", "a slice without pixel spacing cannot be measured")
        shape = (image.array.shape[0], image.array.shape[1])
        rows, columns = (round(n * mm / self.pixel_mm) for n, mm in zip(shape, image.spacing_mm, strict=True))
        if min(rows, columns) < self.size // 2 or max(rows, columns) > 4 * self.size:
            field = " x ".join(f"{n * mm:.0f}" for n, mm in zip(shape, image.spacing_mm, strict=True))
            raise ContentError("out_of_envelope", "a field of view of {size} mm is not covered", size=field)
        # Padding outside the scan circle (-2000, -3024) must not bend the pixels at its border.
        clipped = np.clip(image.array, _AIR_HU, _TOP_HU).astype(np.int16, copy=False)
        small = cv2.resize(clipped, (columns, rows), interpolation=cv2.INTER_AREA)
        return Prepared(
            id=image.id,
            array=np.asarray(small, np.int16),
            shape=shape,
            spacing_mm=image.spacing_mm,
            numbers=dict(image.numbers),
        )

    def assemble(self, stack: Stack) -> Assembled:
        """Choose the slices, average them into slabs, crop around bone.

        Raises:
            ContentError: ``out_of_envelope`` for too few slices, too short a stack, slices of different size, no bone.
        """
        self._check(stack)
        bone = np.stack([made.array[::_STEP, ::_STEP] > _BONE_HU for made in stack.slices])
        chosen = self._below_vertex(bone, stack)
        groups = self._groups(chosen, np.asarray(stack.positions_mm))
        shape = stack.slices[0].array.shape
        origin = self._origin(np.any(bone[chosen], axis=0), shape)
        widths = _owned_mm(np.asarray(stack.positions_mm))
        thickness = tuple(float(widths[list(g)].sum()) for g in groups)
        tensor = np.full((len(groups), 1, self.size, self.size), _AIR_HU, np.float32)
        grid, picture = _overlap(origin, shape, self.size)
        for index, group in enumerate(groups):
            target = tensor[index, 0][grid]
            target[...] = stack.slices[group[0]].array[picture]
            for member in group[1:]:
                target += stack.slices[member].array[picture]
            target /= len(group)
        made = stack.slices[0]
        assert made.spacing_mm is not None  # noqa: S101 - prepare refused it
        pixel = (made.spacing_mm[0] * made.shape[0] / shape[0], made.spacing_mm[1] * made.shape[1] / shape[1])
        return Assembled(
            tensors={self.tensor: tensor},
            stack=stack,
            members=groups,
            thickness_mm=thickness,
            pixel_mm=pixel,
            origin=origin,
            numbers={
                "slices": float(len(stack.slices)),
                "slabs": float(len(groups)),
                "slab_mm": float(np.median(thickness)),
                "extent_mm": float(sum(thickness)),
                "tilt_deg": stack.tilt_deg,
            },
        )

    def _check(self, stack: Stack) -> None:
        count = len(stack.slices)
        extent = stack.positions_mm[-1] - stack.positions_mm[0]
        if count < max(self.min_slices, 2):
            raise ContentError(
                "out_of_envelope",
                "{count} slices, at least {least} are needed",
                count=count,
                least=max(self.min_slices, 2),
            )
        if extent < self.min_extent_mm:
            raise ContentError(
                "out_of_envelope",
                "the slices cover {extent} mm of the patient, at least {least} mm are needed",
                extent=round(extent),
                least=self.min_extent_mm,
            )
        if len({(made.array.shape, made.spacing_mm) for made in stack.slices}) > 1:
            raise ContentError("out_of_envelope", "the slices differ in size or pixel spacing")

    def _below_vertex(self, bone: NDArray[np.bool_], stack: Stack) -> NDArray[np.intp]:
        """Indices of the slices that are taken, in order."""
        # 3 cm2: a vertex shows as a small cap, a speck of metal or table does not.
        enough = 300 / (self.pixel_mm * _STEP) ** 2
        bony = np.flatnonzero(bone.sum(axis=(1, 2)) > enough)
        if not len(bony):
            raise ContentError("out_of_envelope", "no bone in any slice")
        positions = np.asarray(stack.positions_mm)
        if self.below_vertex_mm is None:
            return np.arange(len(positions))
        vertex = positions[bony[-1]] if stack.normal[2] >= 0 else positions[bony[0]]
        return np.flatnonzero(np.abs(positions - vertex) <= self.below_vertex_mm)

    def _groups(self, chosen: NDArray[np.intp], positions: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
        """Which slices make each slab: neighbours, as many per slab everywhere (the last may hold fewer)."""
        gap = float(np.median(np.diff(positions)))
        per_slab = max(1, int(self.slab_mm / gap + 1e-6), -(-len(chosen) // self.max_slabs))
        return tuple(tuple(int(i) for i in chosen[k : k + per_slab]) for k in range(0, len(chosen), per_slab))

    def _origin(self, bone: NDArray[np.bool_], shape: tuple[int, ...]) -> tuple[int, int]:
        """First (row, column) of the grid in the prepared picture, so that the bone lies in its middle."""
        out = []
        for axis in (0, 1):
            where = np.nonzero(bone)[axis] * _STEP
            # Percentiles: a tooth filling's streak or the head holder must not move the middle.
            low, high = np.percentile(where, (1, 99)) if len(where) else (0.0, float(shape[axis]))
            out.append(round((low + high) / 2 - self.size / 2))
        return out[0], out[1]


def _owned_mm(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half of the way to each neighbour; the ends own as much outwards as inwards."""
    gaps: NDArray[np.float64] = np.diff(positions)
    owned: NDArray[np.float64] = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    return owned


def _overlap(
    origin: tuple[int, int], shape: tuple[int, ...], size: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the grid that the picture covers, and the part of the picture that lies in the grid."""
    grid, picture = [], []
    for first, length in zip(origin, shape, strict=True):
        low, high = max(0, first), min(length, first + size)
        picture.append(slice(low, high))
        grid.append(slice(low - first, high - first))
    return (grid[0], grid[1]), (picture[0], picture[1])
