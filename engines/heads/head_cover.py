"""Was the head received whole? A series that ends in the middle of the brain must not pass for one that does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from engines.errors import ContentError
from engines.message import Message
from engines.preprocess.base import Assembled

_TISSUE_HU = (-20, 110)
_REFUSED = {
    (True, False): Message(
        "the head is cut off at the top: the uppermost slices show {top} cm2 inside the skull, at most {most} where the"
        " vertex is covered; the largest bright region in the rest has {volume} ml"
    ),
    (False, True): Message(
        "the head is cut off at the base: the lowest slices show {base} cm2 inside the skull, at most {most} where the"
        " base is covered; the largest bright region in the rest has {volume} ml"
    ),
    (True, True): Message(
        "the head is cut off at the top and at the base: the outermost slices show {top} and {base} cm2 inside the"
        " skull, at most {most} where the head is covered whole; the largest bright region in the rest has {volume} ml"
    ),
}
_WARNED = {
    (True, False): Message(
        "The head is cut off at the top ({top} cm2 inside the skull in the uppermost slices): there may be more than"
        " is shown here."
    ),
    (False, True): Message(
        "The head is cut off at the base ({base} cm2 inside the skull in the lowest slices): there may be more than is"
        " shown here."
    ),
    (True, True): Message(
        "The head is cut off at the top and at the base ({top} and {base} cm2 inside the skull in the outermost"
        " slices): there may be more than is shown here."
    ),
}


class HeadCover(BaseModel):
    """Where the slices may end.

    Attributes:
        end_cm2: A skull that is larger inside than this in the first or last slab goes on beyond it. A vault measures
            so much some 12 mm below its inner top; the posterior fossa some 25 mm above the foramen magnum.
        whole_mm: Below the vertex by so much, and more, no brain is left, whatever else bone encloses there.
        brain_hu: At the lower end only what is as dense as brain, within this, is brain: jaws enclose muscle.
        tissue_share: Nor is it brain with more fat and air in it.
        flagged_ml: From this volume on a region is flagged at every operating point; the head is then shown with a
            warning. Below, a head that is cut off is not scored: nobody would look for what was not seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    end_cm2: float = 60.0
    whole_mm: float = 165.0
    brain_hu: float = 10.0
    tissue_share: float = 0.85
    flagged_ml: float = 3.0

    def check(
        self,
        hu: NDArray[np.float32],
        inside: NDArray[np.bool_],
        assembled: Assembled,
        brain_hu: float,
        largest_ml: float,
    ) -> tuple[tuple[Message, ...], dict[str, float]]:
        """Refuse a head that is cut off and shows nothing, warn of one that shows something.

        Args:
            hu: [D, H, W].
            inside: [D, H, W], inside of the skull as the graph sees it.
            assembled: For sizes, and which end is the top.
            brain_hu: Median density of the brain.
            largest_ml: Volume of the largest bright region.

        Returns:
            Warnings, and what was measured.

        Raises:
            ContentError: ``incomplete``, naming the end.
        """
        # From the base to the top.
        up = slice(None) if assembled.stack.normal[2] >= 0 else slice(None, None, -1)
        area = (inside.sum(axis=(1, 2)) * (assembled.pixel_mm[0] * assembled.pixel_mm[1] / 100))[up]
        top, base = float(area[-1]), float(area[0])
        cut = (
            top > self.end_cm2,
            base > self.end_cm2 and self._is_brain(hu[up], inside[up], assembled, area, brain_hu),
        )
        numbers = {"top_cm2": top, "base_cm2": base}
        if not any(cut):
            return (), numbers
        values = {"top": round(top), "base": round(base)}
        if largest_ml < self.flagged_ml:
            volume = round(largest_ml, 1)
            raise ContentError("incomplete", _REFUSED[cut].text, **values, most=round(self.end_cm2), volume=volume)
        return (Message(_WARNED[cut].text, values),), numbers

    def _is_brain(
        self,
        hu: NDArray[np.float32],
        inside: NDArray[np.bool_],
        assembled: Assembled,
        area: NDArray[np.float64],
        brain_hu: float,
    ) -> bool:
        """Whether what bone encloses in the lowest slab is still brain; arrays run upwards."""
        thickness = np.asarray(assembled.thickness_mm)[:: 1 if assembled.stack.normal[2] >= 0 else -1]
        highest = int(np.flatnonzero(area)[-1])
        if thickness[: highest + 1].sum() > self.whole_mm:
            return False
        if (area[: int(np.argmax(area))] < self.end_cm2 / 2).any():
            return False  # it closed in between: the base of the skull was seen
        values = hu[0][inside[0]]
        tissue = values[(values > _TISSUE_HU[0]) & (values < _TISSUE_HU[1])]
        return (
            len(tissue) >= self.tissue_share * len(values) and abs(float(np.median(tissue)) - brain_hu) < self.brain_hu
        )
