"""Is this an adult head with a brain in it? Asked of the pixels, whatever the header says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from engines.errors import ContentError
from engines.message import Message
from engines.preprocess.base import Assembled

_BONE_HU = 250
_TISSUE_HU = (-20, 110)
_FLUID_HU = (-5, 18)
_DIRECTIONS = 72
_RAY_STEP = 2
#: Fluid is looked for in blocks of 4 x 4 pixels, at least 12 mm from the skull, in at least so many of them.
_BLOCK = 4
_DEEP_BLOCKS = 7
_MIN_BLOCKS = 40
_THINNER_HU = 12
_THINNEST_HU = 60
#: What is said of a bound that is broken.
_NO_HEAD = {
    "brain_ml": Message("no head with a brain: {seen} ml inside the skull, expected {least} to {most}"),
    "tissue_share": Message(
        "no head with a brain: {seen} of the inside is neither fat nor air, expected {least} to {most}"
    ),
    "brain_hu": Message("no head with a brain: the median of the inside is {seen} HU, expected {least} to {most}"),
    "brain_spread_hu": Message(
        "no head with a brain: the spread of the inside is {seen} HU, expected {least} to {most}"
    ),
    "fluid_share": Message("no head with a brain: {seen} of the inside is fluid, expected {least} to {most}"),
    "flat_share": Message("no head with a brain: {seen} of neighbouring pixels are equal, expected {least} to {most}"),
    "ring_share": Message("no head with a brain: {seen} of the directions meet bone, expected {least} to {most}"),
}


class BrainGuard(BaseModel):
    """Bounds that every adult head keeps and that trunks, limbs, phantoms and altered pixels break.

    Attributes:
        slab_cm2: A slab shows brain where the inside of the skull is at least so large.
        brain_mm: How much of the patient must show brain.
        brain_ml: Volume of the inside of the skull that is seen.
        brain_hu: Median density of it.
        tissue_share: Least share of it that is neither fat nor air.
        spread_hu: Middle half of its densities; a phantom or altered pixels have less, noise that hides all has more.
        fluid_share: Least share of it that is as thin as cerebrospinal fluid.
        flat_share: Most of its neighbouring pixels, in the plane and from slab to slab, that may be equal: a scanner's
            image has grain, an altered or computed one has not.
        ring_share: Least share of directions in which a skull closes around it.
        shifted_down_hu: Densities of brain and of fluid; both below: the scanner measures too low.
        shifted_up_hu: Both above: too high.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slab_cm2: float = 30.0
    brain_mm: float = 60.0
    brain_ml: tuple[float, float] = (400.0, 2200.0)
    brain_hu: tuple[float, float] = (24.0, 44.0)
    tissue_share: float = 0.9
    spread_hu: tuple[float, float] = (1.0, 16.0)
    fluid_share: float = 0.002
    flat_share: float = 0.6
    ring_share: float = 0.9
    shifted_down_hu: tuple[float, float] = (28.0, -1.0)
    shifted_up_hu: tuple[float, float] = (37.0, 13.0)

    def check(self, hu: NDArray[np.float32], inside: NDArray[np.bool_], assembled: Assembled) -> dict[str, float]:
        """Measure, and refuse what is no head.

        Args:
            hu: [D, H, W].
            inside: [D, H, W], inside of the skull as the graph sees it.
            assembled: For sizes.

        Returns:
            What was measured, for drift and replay.

        Raises:
            ContentError: ``out_of_envelope``, naming the bound that is broken.
        """
        pixel_cm2 = assembled.pixel_mm[0] * assembled.pixel_mm[1] / 100
        thickness = np.asarray(assembled.thickness_mm)
        area = inside.sum(axis=(1, 2)) * pixel_cm2
        brainy = np.flatnonzero(area >= self.slab_cm2)
        extent = float(thickness[brainy].sum())
        if extent < self.brain_mm:
            raise ContentError(
                "out_of_envelope",
                "{extent} mm show the inside of a skull, at least {least} mm are needed",
                extent=round(extent),
                least=self.brain_mm,
            )
        volume = float((area * thickness)[brainy].sum() / 10)
        values = hu[brainy][inside[brainy]]
        tissue = values[(values > _TISSUE_HU[0]) & (values < _TISSUE_HU[1])]
        share = len(tissue) / len(values)
        low, median, high = (float(v) for v in np.percentile(tissue, (25, 50, 75)))
        fluid = float(((tissue > _FLUID_HU[0]) & (tissue < _FLUID_HU[1])).mean())
        ring = float(np.median([_ring(hu[k], inside[k]) for k in brainy]))
        flat = max(_equal(hu[brainy], inside[brainy], axis) for axis in (0, 2))
        fluid_hu = _fluid_hu(hu[brainy], inside[brainy], median)
        numbers = {
            "brain_mm": extent,
            "brain_ml": volume,
            "brain_hu": median,
            "brain_spread_hu": high - low,
            "tissue_share": share,
            "fluid_share": fluid,
            "flat_share": flat,
            "ring_share": ring,
        }
        for name, (least, most) in (
            ("brain_ml", self.brain_ml),
            ("tissue_share", (self.tissue_share, 1.0)),
            ("brain_hu", self.brain_hu),
            ("brain_spread_hu", self.spread_hu),
            ("fluid_share", (self.fluid_share, 1.0)),
            ("flat_share", (0.0, self.flat_share)),
            ("ring_share", (self.ring_share, 1.0)),
        ):
            if not least <= numbers[name] <= most:
                seen = float(f"{numbers[name]:.3g}")
                raise ContentError("out_of_envelope", _NO_HEAD[name].text, seen=seen, least=least, most=most)
        if fluid_hu is not None:
            numbers["fluid_hu"] = fluid_hu
            self._check_scale(median, fluid_hu)
        return numbers

    def _check_scale(self, brain: float, fluid: float) -> None:
        """Refuse densities that brain and fluid together say are shifted.

        Either alone varies with age and scanner: an old brain is thin, a narrow ventricle is blurred with brain.
        """
        low, high = self.shifted_down_hu, self.shifted_up_hu
        if (brain < low[0] and fluid < low[1]) or (brain > high[0] and fluid > high[1]):
            raise ContentError(
                "quality",
                "the densities are shifted: brain has {brain} HU and fluid {fluid} HU; the scanner's calibration may be"
                " off",
                brain=round(brain),
                fluid=round(fluid),
            )


def _fluid_hu(hu: NDArray[np.float32], inside: NDArray[np.bool_], brain_hu: float) -> float | None:
    """Density of what is thinner than brain deep inside, in the ventricles; ``None`` where there is too little."""
    from scipy import ndimage

    slabs, rows, columns = hu.shape
    if rows % _BLOCK or columns % _BLOCK:
        return None
    blocks = (slabs, rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK)
    whole = inside.reshape(blocks).all(axis=(2, 4))
    deep = ndimage.binary_erosion(whole, np.ones((1, _DEEP_BLOCKS, _DEEP_BLOCKS), np.bool_))
    means = hu.reshape(blocks).mean(axis=(2, 4))[deep]
    thin = means[(means < brain_hu - _THINNER_HU) & (means > brain_hu - _THINNEST_HU)]
    return float(np.percentile(thin, 20)) if len(thin) >= _MIN_BLOCKS else None


def _equal(hu: NDArray[np.float32], inside: NDArray[np.bool_], axis: int) -> float:
    """Share of neighbours along an axis, both inside, whose values are the same."""
    length = hu.shape[axis]
    if length < 2:
        return 0.0
    one, other = ([slice(None)] * 3 for _ in range(2))
    one[axis], other[axis] = slice(0, length - 1), slice(1, length)
    a, b = tuple(one), tuple(other)
    both = inside[a] & inside[b]
    return float((hu[a][both] == hu[b][both]).mean()) if both.any() else 0.0


def _ring(hu: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Share of directions from the middle of the inside in which bone is met."""
    rows, columns = np.nonzero(inside)
    row, column = rows.mean(), columns.mean()
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    steps = np.arange(_RAY_STEP, max(hu.shape), _RAY_STEP)
    r = (row + np.sin(angles)[:, None] * steps).round().astype(int)
    c = (column + np.cos(angles)[:, None] * steps).round().astype(int)
    within = (r >= 0) & (r < hu.shape[0]) & (c >= 0) & (c < hu.shape[1])
    met = (hu[np.clip(r, 0, hu.shape[0] - 1), np.clip(c, 0, hu.shape[1] - 1)] > _BONE_HU) & within
    return float(met.any(axis=1).mean())
