"""What every preprocessor is."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from engines.grid import Grid, Triple
from engines.overlay import Laying, Overlay
from engines.types import Image, Prepared, Stack, Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A place that an earlier step found worth a closer look: position in the stack's frame."""

    position_mm: Triple


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """The tensors of one run and the way back from their grid to the pictures.

    Attributes:
        tensors: By the graph's input names.
        stack: What they were made of.
        members: Per index of the grid's first axis, the indices into ``stack.slices`` that went into it.
        thickness_mm: Per index of the first axis: how much of the patient it stands for.
        pixel_mm: (row, column) spacing of the grid.
        origin: (row, column) of the grid's first pixel in the prepared picture; where there is no ``grid``.
        grid: Where the voxels lie, of a volume that was resampled; then it alone tells the way back.
        candidates: What the last step looked at one by one, in the order of its outputs' first axis.
        numbers: What was measured on the way.
    """

    tensors: Tensors
    stack: Stack
    members: tuple[tuple[int, ...], ...] = ((0,),)
    thickness_mm: tuple[float, ...] = (1.0,)
    pixel_mm: tuple[float, float] = (1.0, 1.0)
    origin: tuple[int, int] = (0, 0)
    grid: Grid | None = None
    candidates: tuple[Candidate, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)

    def to_picture(self, member: int, row: float, column: float) -> tuple[float, float]:
        """Turn a grid position into (column, row) of the original picture ``stack.slices[member]``.

        Args:
            member: Index into ``stack.slices``.
            row: Pixel centre in the grid, 0-based.
            column: The same.
        """
        if self.grid is not None:
            _, y, x = self.grid.to_mm((0, row, column))
            return self.mm_to_picture(member, y, x)
        made = self.stack.slices[member]
        rows, columns = made.array.shape[-2:]
        original_rows, original_columns = made.shape
        return (
            (column + self.origin[1] + 0.5) * original_columns / columns - 0.5,
            (row + self.origin[0] + 0.5) * original_rows / rows - 0.5,
        )

    def mm_to_picture(self, member: int, y_mm: float, x_mm: float) -> tuple[float, float]:
        """Turn a position in the stack's frame into (column, row) of the original picture ``stack.slices[member]``."""
        spacing = self.stack.slices[member].spacing_mm or (1.0, 1.0)
        down, along = self.stack.shifts_mm[member] if self.stack.shifts_mm else (0.0, 0.0)
        return (x_mm - along) / spacing[1], (y_mm - down) / spacing[0]

    def to_mm(self, index: float, row: float, column: float) -> Triple:
        """Where a grid position lies: in the stack's frame; without a grid, from the grid's own first pixel."""
        if self.grid is not None:
            return self.grid.to_mm((index, row, column))
        heights = [float(np.mean([self.stack.positions_mm[i] for i in group])) for group in self.members]
        return (
            float(np.interp(index, range(len(heights)), heights)),
            row * self.pixel_mm[0],
            column * self.pixel_mm[1],
        )

    def member_at(self, z_mm: float) -> int:
        """The slice that lies nearest to a position along the normal."""
        return int(np.argmin(np.abs(np.asarray(self.stack.positions_mm) - z_mm)))

    def divided(self, shape: tuple[int, ...]) -> Assembled:
        """The same for a map [D, H, W] of another number of voxels, as graphs with strides give it.

        Raises:
            ValueError: The first axis has another length, and there is no grid to say what it means.
        """
        if self.grid is not None:
            depth, rows, columns = shape
            return volume_of(self.stack, self.grid.divided((depth, rows, columns)), {}, self.numbers)
        if shape[0] != len(self.members):
            raise ValueError(f"{shape[0]} slabs, the graph was given {len(self.members)}")
        return self

    def overlay(self, mask: NDArray[np.bool_]) -> Overlay:
        """A mask of this grid, or of one with another number of voxels over the same box, with its way back.

        Args:
            mask: [D, H, W].

        Raises:
            ValueError: Its first axis has another length, and there is no grid to say what it means.
        """
        place = self.divided((mask.shape[0], mask.shape[1], mask.shape[2]))
        slices = []
        for member, made in enumerate(place.stack.slices):
            index = place._index_of(member)  # noqa: SLF001 - its own kind
            if index is None:
                continue
            # The way back is straight in both directions: two points tell it.
            (left, top), (right, bottom) = place.to_picture(member, 0, 0), place.to_picture(member, 1, 1)
            down, along = 1 / (bottom - top), 1 / (right - left)
            slices.append(
                Laying(
                    slice_id=made.id,
                    shape=made.shape,
                    index=index,
                    row=(-top * down, down),
                    column=(-left * along, along),
                )
            )
        return Overlay(mask=mask, slices=tuple(slices))

    def _index_of(self, member: int) -> int | None:
        """Which index of the first axis a slice belongs to."""
        if self.grid is None:
            return next((k for k, group in enumerate(self.members) if member in group), None)
        index = round(self.grid.to_voxel((self.stack.positions_mm[member], 0, 0))[0])
        return index if 0 <= index < self.grid.shape[0] else None


def volume_of(stack: Stack, grid: Grid, tensors: Tensors, numbers: dict[str, float]) -> Assembled:
    """What a resampled volume is to a head: each voxel plane shows the slice that lies nearest to it."""
    positions = np.asarray(stack.positions_mm)
    nearest = np.abs(grid.centres(0)[:, None] - positions[None, :]).argmin(axis=1)
    return Assembled(
        tensors=tensors,
        stack=stack,
        members=tuple((int(k),) for k in nearest),
        thickness_mm=(grid.spacing_mm[0],) * grid.shape[0],
        pixel_mm=(grid.spacing_mm[1], grid.spacing_mm[2]),
        grid=grid,
        numbers=numbers,
    )


class Preprocessor(BaseModel):
    """Parameters as fields, work as two methods. Numpy only, plus OpenCV imported where it is used.

    Attributes:
        tensor: Name of the graph's input that it fills.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor: str = "image"

    def warmup(self) -> None:
        """Load what is loaded late, so that the first study does not pay for it."""
        import cv2  # noqa: F401 - every preprocessor so far shrinks with it

    @abstractmethod
    def prepare(self, image: Image) -> Prepared:
        """Make one picture small.

        Raises:
            ContentError: The picture cannot belong to any input that the package scores.
        """

    @abstractmethod
    def assemble(self, stack: Stack) -> Assembled:
        """Make the tensors of one run.

        Raises:
            ContentError: The stack cannot be scored.
        """


class Volumetric(Preprocessor):
    """A preprocessor whose series can be looked at again, on another grid (``take`` in the manifest)."""

    @abstractmethod
    def sample(self, stack: Stack, grid: Grid) -> NDArray[np.float32]:
        """The series on a grid: [D, H, W], values as the graph takes them; air where there is no slice.

        Raises:
            ContentError: ``out_of_envelope`` for too large a grid.
        """
