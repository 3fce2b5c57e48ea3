"""A graph's own word on whether a picture is of the kind that it was made for."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from engines.errors import ContentError
from engines.heads.maps import activated


def likeness_of(values: NDArray[Any] | None, name: str, least: float) -> float:
    """How much the picture is of that kind, 0..1, high enough to be scored.

    Args:
        values: The output, [1, 1]; None where the graph did not give it.
        name: Of the output.
        least: Below this the picture gets no score.

    Raises:
        ContentError: ``out_of_envelope`` below the least, ``unreliable_output`` for what is no such value.
    """
    if values is None or values.shape != (1, 1):
        raise ContentError(
            "unreliable_output",
            "output '{output}' has shape {shape}, expected (1, {count})",
            output=name,
            shape=str(None if values is None else values.shape),
            count=1,
        )
    likeness = float(activated(values, "none", name)[0, 0])
    if likeness < least:
        raise ContentError(
            "out_of_envelope",
            "the picture is not of the kind that the package was made for (likeness {likeness}, at least {least})",
            likeness=round(likeness, 3),
            least=least,
        )
    return likeness
