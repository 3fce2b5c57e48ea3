"""Where are the lungs, and is this an adult's chest at all? Asked of the pixels, whatever the header says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from engines.errors import ContentError
from engines.grid import Grid, Triple
from engines.message import Message
from engines.types import Stack

Mask = NDArray[np.bool_]

#: Denser than this is body; thinner than that, inside the body, is lung or air.
_BODY_HU = -300.0
_AIRY_HU = -500.0
#: A piece of lung has so many HU in its middle: gas in the bowel is thinner, fat is denser.
_LUNG_HU = (-970.0, -550.0)
#: What is narrower than twice this between airy places belongs to the lung: vessels, nodules, also those on the wall.
_CLOSING_MM = 15.0
#: How far off the edge of the closed lungs dense voxels are the lung's own and not the wall's.
_DEEP_MM = 3.0
#: Margin for the closing.
_PAD = 7

#: Slices are compared with their neighbours and with those so far away, in every fourth row and column.
_FAR_MM = 15.0
_COMPARE = 4
_MOST_ALIKE = 0.7
#: A valley of the area that is deeper than this share of the widest place is none of a chest.
_DEEPEST_VALLEY = 0.5

_NO_CHEST = {
    "lung_ml": Message("no chest with two lungs: {seen} ml of lung, expected {least} to {most}"),
    "side_share": Message(
        "no chest with two lungs: the smaller side has {seen} of the lung, expected {least} to {most}"
    ),
    "lung_mm": Message("no chest with two lungs: they are {seen} mm high, expected {least} to {most}"),
    "lung_hu": Message("no chest with two lungs: the median of the lungs is {seen} HU, expected {least} to {most}"),
    "lung_spread_hu": Message(
        "no chest with two lungs: the spread of the lungs is {seen} HU, expected {least} to {most}"
    ),
}


@dataclass(frozen=True, slots=True)
class Lungs:
    """Masks over one grid [D, H, W]."""

    #: What is airy.
    airy: Mask
    #: With vessels, nodules and what leans on the wall.
    closed: Mask
    #: The same without its edge.
    deep: Mask
    #: Column between the sides.
    middle: int


def find_lungs(hu: NDArray[np.float32], spacing_mm: Triple, piece_ml: float) -> Lungs | None:
    """Large pieces of lung density inside the body; ``None`` without any.

    Args:
        hu: [D, H, W], coarse (about 3 mm): the work grows with it.
        spacing_mm: Of its voxels.
        piece_ml: Smaller pieces are no lung.
    """
    from scipy import ndimage

    cube = np.ones((3, 3, 3), np.bool_)
    labels, count = ndimage.label(ndimage.binary_opening(hu > _BODY_HU, cube))
    if not count:
        return None
    body = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    # In each slice by itself: the windpipe opens upwards.
    for plane in body:
        plane[:] = ndimage.binary_fill_holes(plane)
    pieces, count = ndimage.label(ndimage.binary_opening((hu < _AIRY_HU) & body, cube))
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = [k for k in range(1, count + 1) if sizes[k] * voxel_ml >= piece_ml]
    kept = [k for k in large if _LUNG_HU[0] < float(np.median(hu[pieces == k])) < _LUNG_HU[1]]
    airy = np.isin(pieces, kept)
    if not kept or not airy.any():
        return None
    along = np.flatnonzero(airy.any(axis=(0, 1)))
    middle = int(np.clip((columns[0] + columns[-1]) // 2, along[0] + 1, along[-1])) if len(along) > 1 else int(along[0])
    closed, deep = np.zeros_like(airy), np.zeros_like(airy)
    # Each side by itself, so that nothing between the two is closed.
    for side in (slice(0, middle), slice(middle, None)):
        closed[..., side], deep[..., side] = _close(airy[..., side], spacing_mm)
    return Lungs(airy, closed, deep, middle)


def _close(airy: Mask, spacing_mm: Triple) -> tuple[Mask, Mask]:
    """Dilate and erode by a ball, as distances; and the part off the edge."""
    from scipy import ndimage

    closed, deep = np.zeros_like(airy), np.zeros_like(airy)
    if not airy.any():
        return closed, deep
    box = ndimage.find_objects(airy.astype(np.uint8))[0]
    padded = np.pad(airy[box], _PAD)
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing_mm) <= _CLOSING_MM
    inside = ndimage.distance_transform_edt(grown, sampling=spacing_mm)
    core = (slice(_PAD, -_PAD),) * 3
    closed[box] = (inside > _CLOSING_MM)[core] | airy[box]
    deep[box] = (inside > _CLOSING_MM + _DEEP_MM)[core]
    return closed, deep


class LungGuard(BaseModel):
    """Bounds that every adult's chest keeps and that heads, bellies, limbs and phantoms break.

    Attributes:
        piece_ml: Smaller pieces are no lung.
        lung_ml: Volume of what is airy.
        side_share: Least share of it on either side.
        lung_mm: Their height.
        lung_hu: Median density.
        spread_hu: Middle half of their densities; a phantom or altered pixels have less.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    piece_ml: float = 100.0
    lung_ml: tuple[float, float] = (1000.0, 10000.0)
    side_share: float = 0.2
    lung_mm: tuple[float, float] = (120.0, 400.0)
    lung_hu: tuple[float, float] = (-950.0, -600.0)
    spread_hu: tuple[float, float] = (8.0, 250.0)

    def check(self, hu: NDArray[np.float32], grid: Grid, stack: Stack) -> tuple[Lungs, dict[str, float]]:
        """Find the lungs, measure them, and refuse what is no chest.

        Args:
            hu: [D, H, W], coarse.
            grid: Where its voxels lie.
            stack: Says which end is the top.

        Returns:
            The lungs, and what was measured, for drift and replay; ``top_cm2`` and ``base_cm2`` are the area of lung
            in the uppermost and the lowest plane.

        Raises:
            ContentError: ``out_of_envelope``, naming the bound that is broken.
        """
        lungs = find_lungs(hu, grid.spacing_mm, self.piece_ml)
        if lungs is None:
            raise ContentError("out_of_envelope", "no chest with two lungs: nothing as thin as lung lies in the body")
        airy = lungs.airy
        values = hu[airy]
        low, median, high = (float(v) for v in np.percentile(values, (25, 50, 75)))
        left = int(airy[..., : lungs.middle].sum())
        area = airy.sum(axis=(1, 2)) * (grid.spacing_mm[1] * grid.spacing_mm[2] / 100)
        planes = np.flatnonzero(area)
        ends = (float(area[0]), float(area[-1]))
        base, top = ends if stack.normal[2] >= 0 else ends[::-1]
        numbers = {
            "lung_ml": len(values) * grid.voxel_mm3 / 1000,
            "side_share": min(left, len(values) - left) / len(values),
            "lung_mm": float(planes[-1] + 1 - planes[0]) * grid.spacing_mm[0],
            "lung_hu": median,
            "lung_spread_hu": high - low,
            "top_cm2": top,
            "base_cm2": base,
        }
        for name, (least, most) in (
            ("lung_ml", self.lung_ml),
            ("side_share", (self.side_share, 0.5)),
            ("lung_mm", self.lung_mm),
            ("lung_hu", self.lung_hu),
            ("lung_spread_hu", self.spread_hu),
        ):
            if not least <= numbers[name] <= most:
                seen = float(f"{numbers[name]:.3g}")
                raise ContentError("out_of_envelope", _NO_CHEST[name].text, seen=seen, least=least, most=most)
        _check_valley(area)
        return lungs, numbers | {"order": _check_order(stack, grid.centres(0)[planes[[0, -1]]])}


def _check_valley(area_cm2: NDArray[np.float64]) -> None:
    """Lungs have one widest place: a narrow one between two wide ones is the meeting of two ends.

    Raises:
        ContentError: ``quality``.
    """
    before = np.maximum.accumulate(area_cm2)
    behind = np.maximum.accumulate(area_cm2[::-1])[::-1]
    valley = np.minimum(before, behind) - area_cm2
    deepest = int(np.argmax(valley))
    if valley[deepest] > _DEEPEST_VALLEY * area_cm2.max():
        raise ContentError(
            "quality",
            "the slices do not follow one another: the lungs narrow to {seen} cm2 between two places of {wide} cm2 and"
            " more",
            seen=round(float(area_cm2[deepest])),
            wide=round(float(min(before[deepest], behind[deepest]))),
        )


def _check_order(stack: Stack, ends_mm: NDArray[np.float64]) -> float:
    """How much neighbouring slices differ, as a share of how much distant ones do.

    Raises:
        ContentError: ``quality``: the slices do not follow one another, whatever their positions say.
    """
    positions = np.asarray(stack.positions_mm)
    members = np.flatnonzero((positions >= ends_mm[0]) & (positions <= ends_mm[1]))
    airy = np.stack([stack.slices[m].array[::_COMPARE, ::_COMPARE] < _AIRY_HU for m in members])
    far = int(np.clip(round(_FAR_MM / float(np.median(np.diff(positions)))), 3, len(airy) - 1))
    near_change, far_change = ((airy[:-n] ^ airy[n:]).sum(axis=(1, 2)).mean() for n in (1, far))
    order = float(near_change / far_change) if far_change else 1.0
    if order > _MOST_ALIKE:
        raise ContentError(
            "quality",
            "the slices do not follow one another: neighbours differ {seen} times as much as slices {far} mm apart,"
            " expected at most {most}",
            seen=round(order, 2),
            far=round(_FAR_MM),
            most=_MOST_ALIKE,
        )
    return order
