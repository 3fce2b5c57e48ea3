"""Where a finding lies in an image, in the coordinates of SCOORD and of presentation states.

Both count from the outer corner of the first pixel (PS3.3 C.18.6.1.2, C.10.5.1.2); ours are 0-based pixel centres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from appliance.records import Region

Points = NDArray[np.float64]
#: A contour may pass this far from the edge of its mask, in pixels, besides the half pixel from edge to centre: it
#: keeps a curve at tens of points instead of thousands.
_TOLERANCE = 0.35


def outline(region: Region) -> Points:
    """(column, row) of a point, or of the closed line around a box, along the outer edges of its pixels: [n, 2]."""
    if region.kind == "point":
        return np.asarray(region.points, np.float64) + 0.5
    (left, top), (right, bottom) = region.points
    return _closed_box(left, top, right, bottom)


def contours(mask: NDArray[np.bool_]) -> list[Points]:
    """Closed lines through the centres of a mask's border pixels, holes included; a speck has a box around it."""
    import cv2

    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    lines = []
    for border in found:
        points = cv2.approxPolyDP(border, _TOLERANCE, closed=True).reshape(-1, 2).astype(np.float64)
        if len(points) < 3:
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            lines.append(_closed_box(left, top, right, bottom))
        else:
            lines.append(np.vstack([points, points[:1]]) + 0.5)
    return lines


def _closed_box(left: float, top: float, right: float, bottom: float) -> Points:
    corners = [(left, top), (right + 1, top), (right + 1, bottom + 1), (left, bottom + 1), (left, top)]
    return np.maximum(np.array(corners, np.float64), 0.0)
