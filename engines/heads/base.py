"""What every head is, and the checks that all of them make first."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from engines.errors import ContentError
from engines.preprocess.base import Assembled
from engines.types import ModelOutput, Tensors


class Head(BaseModel):
    """Parameters as fields, work as one method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the graph's outputs that it needs; looked for when the graph is opened. Empty: it tells later."""
        return ()

    @property
    def reads_candidates(self) -> bool:
        """Whether it takes what a step looked at one by one (``take: {by: peaks}``)."""
        return False

    def warmup(self) -> None:
        """Load what is loaded late, so that the first study does not pay for it."""

    @abstractmethod
    def decide(self, outputs: Tensors, assembled: Assembled) -> ModelOutput:
        """Turn a graph's outputs into what the package says. No threshold of a site is known here.

        Args:
            outputs: By the graph's output names, already known to be finite.
            assembled: What the graph was given, and the way back to the pictures.

        Raises:
            ContentError: The input must not be scored, or the outputs cannot be believed.
        """


def check_finite(outputs: Tensors) -> None:
    """Refuse NaN and infinity in any output.

    Raises:
        ContentError: ``unreliable_output``, naming the output.
    """
    for name, array in outputs.items():
        # A sum is finite only if every element is (or it overflows, which is as bad); isfinite alone makes a mask
        # as large as the output.
        if array.dtype.kind == "f" and not np.isfinite(array.sum(dtype=np.float64)):
            raise ContentError("unreliable_output", "output '{output}' holds NaN or infinity", output=name)


def check_range(name: str, array: NDArray[Any], low: float, high: float) -> None:
    """Refuse values outside what the head can mean.

    Raises:
        ContentError: ``unreliable_output`` with the extremes seen.
    """
    seen = float(array.min()), float(array.max())
    if seen[0] < low or seen[1] > high:
        raise ContentError(
            "unreliable_output",
            "output '{output}' lies in {least}..{most}, possible is {low}..{high}",
            output=name,
            least=seen[0],
            most=seen[1],
            low=low,
            high=high,
        )
