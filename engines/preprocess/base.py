"""What every preprocessor is."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from engines.types import Image, Prepared, Stack, Tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """The tensors of one run and the way back from their grid to the pictures.

    Attributes:
        tensors: By the graph's input names.
        stack: What they were made of.
        members: Per index of the grid's first axis, the indices into ``stack.slices`` that went into it.
        thickness_mm: Per index of the first axis: how much of the patient it stands for.
        pixel_mm: (row, column) spacing of the grid.
        origin: (row, column) of the grid's first pixel in the prepared picture.
        numbers: What was measured on the way.
    """

    tensors: Tensors
    stack: Stack
    members: tuple[tuple[int, ...], ...] = ((0,),)
    thickness_mm: tuple[float, ...] = (1.0,)
    pixel_mm: tuple[float, float] = (1.0, 1.0)
    origin: tuple[int, int] = (0, 0)
    numbers: dict[str, float] = field(default_factory=dict)

    def to_picture(self, member: int, row: float, column: float) -> tuple[float, float]:
        """Turn a grid position into (column, row) of the original picture ``stack.slices[member]``.

        Args:
            member: Index into ``stack.slices``.
            row: Pixel centre in the grid, 0-based.
            column: The same.
        """
        made = self.stack.slices[member]
        rows, columns = made.array.shape[-2:]
        original_rows, original_columns = made.shape
        return (
            (column + self.origin[1] + 0.5) * original_columns / columns - 0.5,
            (row + self.origin[0] + 0.5) * original_rows / rows - 0.5,
        )


class Preprocessor(BaseModel):
    """Parameters as fields, work as two methods. Numpy only, plus OpenCV imported where it is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
