"""Candidates from a map, and which of them stand for the same thing (non-maximum suppression, on the host)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engines.grid import Floats

Clash = Callable[[int, NDArray[np.intp]], NDArray[np.bool_]]

#: Local maxima that are compared at most, the best; a map with more is noise.
_MOST = 4000


def find_peaks(values: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.intp], Floats]:
    """Local maxima (of 26 neighbours, ends of the map included) at or above a threshold, best first.

    Args:
        values: [D, H, W].
        threshold: In the map's own measure.

    Returns:
        Voxels [N, 3] and their values [N]; voxels of a plateau all count.
    """
    from scipy import ndimage

    high = values >= threshold
    if not high.any():
        return np.empty((0, 3), np.intp), np.empty(0)
    voxels = np.argwhere(high & (ndimage.maximum_filter(values, size=3, mode="nearest") == values))
    scores = values[tuple(voxels.T)].astype(np.float64)
    order = np.argsort(-scores, kind="stable")[:_MOST]
    return voxels[order], scores[order]


def keep_apart(positions_mm: Floats, scores: Floats, apart_mm: float) -> NDArray[np.intp]:
    """Of places closer than ``apart_mm`` the best stands.

    Args:
        positions_mm: [N, 3].
        scores: [N].
        apart_mm: Least distance of what is kept.

    Returns:
        Indices of what is kept, best first; of equal scores the earlier.
    """

    def clash(best: int, others: NDArray[np.intp]) -> NDArray[np.bool_]:
        away = np.linalg.norm(positions_mm[others] - positions_mm[best], axis=1)
        return np.asarray(away < apart_mm)

    return _suppress(scores, clash)


def keep_by_iou(positions_mm: Floats, diameters_mm: Floats, scores: Floats, iou: float) -> NDArray[np.intp]:
    """Of places whose boxes (cubes as wide as their diameters) overlap by more than ``iou`` the best stands.

    Args:
        positions_mm: [N, 3], centres.
        diameters_mm: [N].
        scores: [N].
        iou: Intersection over union of the boxes.

    Returns:
        Indices of what is kept, best first; of equal scores the earlier.
    """
    half = diameters_mm[:, None] / 2
    low, high = positions_mm - half, positions_mm + half

    def clash(best: int, others: NDArray[np.intp]) -> NDArray[np.bool_]:
        sides = np.minimum(high[others], high[best]) - np.maximum(low[others], low[best])
        shared = np.prod(np.clip(sides, 0, None), axis=1)
        both = diameters_mm[others] ** 3 + diameters_mm[best] ** 3 - shared
        return np.asarray(shared > iou * both)

    return _suppress(scores, clash)


def _suppress(scores: Floats, clash: Clash) -> NDArray[np.intp]:
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        left = left[~clash(best, left)]
    return np.asarray(kept, np.intp)
