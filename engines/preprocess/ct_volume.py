"""A CT series becomes one volume of fixed voxel size, as nnU-Net prepares it: clip, normalise, resample.

Slices are kept in HU at ``keep_mm`` as they arrive. At the end they are carried to the grid from where they really
lie: uneven distances and the shift of a tilted gantry are taken as they are, so that the grid is upright and the way
back to a slice's own pixels is exact. Between slices values are straight; where slices or pixels lie denser than the
grid they are averaged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from engines.envelope import Millimetres
from engines.errors import ContentError
from engines.grid import Grid, Taps, apply, taps
from engines.preprocess.base import Assembled, Volumetric, volume_of
from engines.types import Image, Prepared, Stack


class CtVolume(Volumetric):
    """Fills a tensor [1, 1, D, H, W] float32.

    Memory: the prepared slices, and 4 bytes a voxel of the grid, at most ``max_voxels``.

    Attributes:
        spacing_mm: Of the grid: along the normal, down the rows, along the columns.
        clip_hu: Values beyond are cut off.
        mean: Is subtracted after that.
        sd: Divides after that.
        keep_mm: Pixels are kept at this size, or as they came if larger; absent: the grid's own. Smaller where a later
            step looks closer.
        max_voxels: A larger grid is refused.
        min_slices: Fewer are no examination.
    """

    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    clip_hu: tuple[float, float] = (-1024.0, 3071.0)
    mean: float = 0.0
    sd: float = Field(default=1.0, gt=0)
    keep_mm: Millimetres | None = None
    max_voxels: int = Field(default=100_000_000, ge=1)
    min_slices: int = Field(default=2, ge=2)

    @model_validator(mode="after")
    def _ordered(self) -> CtVolume:
        if not -32000 <= self.clip_hu[0] < self.clip_hu[1] <= 32000:
            raise ValueError("clip_hu needs a low and a high end, in HU")
        return self

    def prepare(self, image: Image) -> Prepared:
        """Cut off what is clipped anyway, and shrink to ``keep_mm``, by area, whole pixels.

        Raises:
            ContentError: ``out_of_envelope`` without pixel spacing.
        """
        import cv2

        if image.spacing_mm is None or image.array.ndim != 2 or min(image.spacing_mm) <= 0:
            raise ContentError("out_of_envelope", "a slice without pixel spacing cannot be measured")
        low, high = int(np.floor(self.clip_hu[0])), int(np.ceil(self.clip_hu[1]))
        kept = np.clip(image.array, low, high).astype(np.int16)
        shape = (image.array.shape[0], image.array.shape[1])
        keep = self.keep_mm or min(self.spacing_mm[1:])
        rows, columns = (min(n, max(1, round(n * mm / keep))) for n, mm in zip(shape, image.spacing_mm, strict=True))
        if (rows, columns) != shape:
            kept = np.asarray(cv2.resize(kept, (columns, rows), interpolation=cv2.INTER_AREA), np.int16)
        return Prepared(id=image.id, array=kept, shape=shape, spacing_mm=image.spacing_mm, numbers=dict(image.numbers))

    def assemble(self, stack: Stack) -> Assembled:
        """Lay a grid over everything that the slices show, and fill it.

        Raises:
            ContentError: ``out_of_envelope`` for too few slices, slices of different size, or too large a volume.
        """
        count = len(stack.slices)
        if count < self.min_slices:
            raise ContentError(
                "out_of_envelope", "{count} slices, at least {least} are needed", count=count, least=self.min_slices
            )
        if len({(made.array.shape, made.spacing_mm) for made in stack.slices}) > 1:
            raise ContentError("out_of_envelope", "the slices differ in size or pixel spacing")
        grid = self._grid(stack)
        tensors = {self.tensor: self.sample(stack, grid)[None, None]}
        numbers = {"slices": float(count), "voxels": float(np.prod(grid.shape)), "tilt_deg": stack.tilt_deg}
        return volume_of(stack, grid, tensors, numbers)

    def sample(self, stack: Stack, grid: Grid) -> NDArray[np.float32]:
        """See ``Volumetric.sample``: [D, H, W], clipped and normalised."""
        voxels = float(np.prod(grid.shape, dtype=np.float64))
        if voxels > self.max_voxels:
            raise ContentError(
                "out_of_envelope",
                "a volume of {count} million voxels is not covered, at most {most} million",
                count=round(voxels / 1e6, 1),
                most=round(self.max_voxels / 1e6, 1),
            )
        low, high = self.clip_hu
        air = np.float32((low - self.mean) / self.sd)
        along = taps(np.asarray(stack.positions_mm), grid.centres(0), grid.spacing_mm[0])
        out = np.zeros(grid.shape, np.float32)
        # One slice at a time: what it gives to each plane of the grid.
        used = np.flatnonzero(np.bincount(along.sources.ravel(), along.weights.ravel(), len(stack.slices)))
        in_plane: dict[tuple[float, float], tuple[Taps, Taps]] = {}
        for member in (int(k) for k in used):
            shift = stack.shifts_mm[member] if stack.shifts_mm else (0.0, 0.0)
            if shift not in in_plane:
                in_plane[shift] = self._in_plane(stack.slices[member], shift, grid)
            down, across = in_plane[shift]
            cut = stack.slices[member].array[down.reach, across.reach]
            values = np.clip(cut.astype(np.float32), low, high)
            values -= np.float32(self.mean)
            values /= np.float32(self.sd)
            plane = apply(across.within, apply(down.within, values, 0), 1)
            plane[~down.is_inside] = air
            plane[:, ~across.is_inside] = air
            for index, tap in np.argwhere((along.sources == member) & (along.weights > 0)):
                out[index] += along.weights[index, tap] * plane
        out[~along.is_inside] = air
        return out

    def _grid(self, stack: Stack) -> Grid:
        """Everything between the outermost slices and pixels, each with the half that it stands for."""
        made, positions = stack.slices[0], stack.positions_mm
        assert made.spacing_mm is not None  # noqa: S101 - prepare refused it
        shifts = np.asarray(stack.shifts_mm or [(0.0, 0.0)])
        low = [positions[0] - (positions[1] - positions[0]) / 2, *(shifts.min(axis=0) - np.divide(made.spacing_mm, 2))]
        far = (np.asarray(made.shape) - 0.5) * made.spacing_mm
        high = [positions[-1] + (positions[-1] - positions[-2]) / 2, *(shifts.max(axis=0) + far)]
        return Grid.covering(low, high, self.spacing_mm)

    @staticmethod
    def _in_plane(made: Prepared, shift: tuple[float, float], grid: Grid) -> tuple[Taps, Taps]:
        """How a slice's rows and columns are carried to the grid's."""
        assert made.spacing_mm is not None  # noqa: S101 - prepare refused it
        found = []
        for axis in (0, 1):
            mm = made.spacing_mm[axis] * made.shape[axis] / made.array.shape[axis]
            # The centre of the first kept pixel, which may be wider than the original ones.
            first = shift[axis] + (mm - made.spacing_mm[axis]) / 2
            nodes = first + np.arange(made.array.shape[axis]) * mm
            found.append(taps(nodes, grid.centres(axis + 1), grid.spacing_mm[axis + 1]))
        return found[0], found[1]
