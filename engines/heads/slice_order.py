"""Do neighbouring slices show neighbouring anatomy? Positions may be wrong where the pixels are right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.errors import ContentError
from engines.preprocess.base import Assembled

_BONE_HU = 300
#: Bone is compared in every fourth row and column.
_STEP = 4
#: A slice is compared with its neighbour and with one so far away.
_FAR_MM = 15.0
_FAR_SLICES = 3
#: Neighbours that differ nearly as much as distant slices do not belong together. Vaults in order: up to 0.6; every
#: pair of slices of 5 mm swapped: 0.85; slices in no order: 0.8 to 1.1.
_MOST_ALIKE = 0.75
#: Only slices are compared whose slab is at least so large inside, by its share of the widest: the vault changes
#: slowly, the base of the skull and the jaws do not.
_VAULT = 0.5
_MIN_SLICES = 6
#: Inside a skull there is one widest place. A narrow place between two wide ones, by this share of the widest, is the
#: meeting of two ends. The jaws and the neck below a head make a second wide place, but a smaller one.
_DEEPEST_VALLEY = 0.5


def check_order(assembled: Assembled, area_cm2: NDArray[np.float64]) -> dict[str, float]:
    """Refuse slices whose positions cannot be right.

    Args:
        assembled: The slices, sorted by position, and the slabs made of them.
        area_cm2: [D], the inside of the skull per slab.

    Returns:
        What was measured.

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
            "the slices do not follow one another: the inside of the skull narrows to {seen} cm2 between two places"
            " of {wide} cm2 and more",
            seen=round(float(area_cm2[deepest])),
            wide=round(float(min(before[deepest], behind[deepest]))),
        )
    numbers = {"valley_cm2": float(valley[deepest])}
    wide = np.flatnonzero(area_cm2 >= _VAULT * area_cm2.max())
    members = [m for slab in range(int(wide[0]), int(wide[-1]) + 1) for m in assembled.members[slab]]
    if len(members) < _MIN_SLICES:
        return numbers
    stack = assembled.stack
    bone = np.stack([stack.slices[m].array[::_STEP, ::_STEP] > _BONE_HU for m in members]).reshape(len(members), -1)
    gap = float(np.median(np.diff([stack.positions_mm[m] for m in members])))
    far = min(max(_FAR_SLICES, round(_FAR_MM / gap)), len(bone) - 1)
    near_change = float((bone[:-1] ^ bone[1:]).sum(axis=1).mean())
    far_change = float((bone[:-far] ^ bone[far:]).sum(axis=1).mean())
    order = near_change / far_change if far_change else 1.0
    if order > _MOST_ALIKE:
        raise ContentError(
            "quality",
            "the slices do not follow one another: neighbours differ {seen} times as much as slices {far} mm apart,"
            " expected at most {most}",
            seen=round(order, 2),
            far=round(far * gap),
            most=_MOST_ALIKE,
        )
    return numbers | {"order": order}
