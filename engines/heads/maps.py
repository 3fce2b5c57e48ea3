"""What heads that read maps share: the map itself, and boxes in the original pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.errors import ContentError
from engines.heads.base import check_range
from engines.preprocess.base import Assembled
from engines.types import Region, Tensors

#: What turns the graph's numbers into probabilities; ``none``: the graph has done it.
Activation = Literal["none", "sigmoid", "softmax"]
_ROUNDING = 1e-5


def read_map(outputs: Tensors, name: str, assembled: Assembled) -> tuple[NDArray[Any], Assembled]:
    """A map over the grid as [C, D, H, W], and the grid in the map's own voxels.

    A volume gives [1, C, D, H, W]; slabs or one picture, whose batch is the first axis, give [D, C, H, W].

    Raises:
        ContentError: ``unreliable_output`` if it is missing or lies over no grid; ``out_of_envelope`` for a picture
            without pixel spacing, in which nothing can be measured.
    """
    output = outputs.get(name)
    if output is not None and output.ndim == 5 and len(output) == 1:
        found = output[0]
    elif output is not None and output.ndim == 4:
        found = output.transpose(1, 0, 2, 3)
    else:
        shape = str(None if output is None else output.shape)
        raise ContentError(
            "unreliable_output", "output '{output}' of shape {shape} is no map", output=name, shape=shape
        )
    if assembled.stack.slices[0].spacing_mm is None:
        raise ContentError("out_of_envelope", "a picture without pixel spacing cannot be measured")
    try:
        place = assembled.divided(found.shape[1:])
    except ValueError as error:
        raise ContentError("unreliable_output", "output '{output}' does not lie over the input", output=name) from error
    given = {tensor.shape[-2:] for tensor in assembled.tensors.values()}
    # Only a grid of voxels knows its way back when its rows and columns are fewer.
    if assembled.grid is None and given and found.shape[2:] not in given:
        raise ContentError("unreliable_output", "output '{output}' does not lie over the input", output=name)
    return found, place


def activated(values: NDArray[Any], activation: Activation, name: str, axis: int = 0) -> NDArray[np.float32]:
    """Probabilities, 0 to 1.

    Args:
        values: The graph's output.
        activation: What is still to be done.
        name: Of the output.
        axis: Of the channels.

    Raises:
        ContentError: ``unreliable_output`` if what should be probabilities is not.
    """
    floats = values.astype(np.float32, copy=False)
    if activation == "none":
        # What rounding adds to a softmax is not worth a refusal.
        if floats.min(initial=0.0) < -_ROUNDING or floats.max(initial=0.0) > 1 + _ROUNDING:
            check_range(name, floats, 0.0, 1.0)
        return np.asarray(np.clip(floats, 0, 1), np.float32)
    if activation == "sigmoid":
        # exp of a large number is infinity, and 1 / infinity is the right answer.
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-floats)), np.float32)
    shifted = np.exp(floats - floats.max(axis=axis, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=axis, keepdims=True), np.float32)


def box_region(finding: str, assembled: Assembled, member: int, low: Sequence[float], high: Sequence[float]) -> Region:
    """A box in an original picture, cut off at its borders.

    Args:
        finding: Finding id.
        assembled: The way back.
        member: Index into ``stack.slices``.
        low: (row, column) in the grid where it begins; the edge of the first pixel, half a pixel before its centre.
        high: The same where it ends.
    """
    made = assembled.stack.slices[member]
    corners = []
    for row, column in (low, high):
        x, y = assembled.to_picture(member, row, column)
        corners.append((min(max(x, 0.0), made.shape[1] - 1.0), min(max(y, 0.0), made.shape[0] - 1.0)))
    return Region(slice_id=made.id, kind="box", points=tuple(corners), finding=finding)


def is_in_picture(assembled: Assembled, member: int, point: tuple[float, float]) -> bool:
    """Whether (column, row) lies in the original picture ``stack.slices[member]``."""
    rows, columns = assembled.stack.slices[member].shape
    return -0.5 <= point[0] <= columns - 0.5 and -0.5 <= point[1] <= rows - 0.5
