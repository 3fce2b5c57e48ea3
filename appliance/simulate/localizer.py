"""The scout image of a CT study: a head phantom seen from the side."""

from __future__ import annotations

import numpy as np

from appliance.simulate.phantom import Floats, Phantom
from appliance.simulate.projection import spread


def localizer(volume: Phantom, *, matrix: int = 512) -> Phantom:
    """The lateral projection of a CT phantom without tilt: [matrix, matrix] int16, the patient looks to the left.

    Raises:
        ValueError: ``volume`` is no stack of slices.
    """
    if volume.pixels.ndim != 3 or len(volume.positions_mm) < 2:
        raise ValueError(f"a localizer is made of a CT volume, not of {volume.kind}")
    water: Floats = (np.clip(volume.pixels, -1000, None).astype(np.float32) + 1000).mean(axis=2)
    heights = np.array([p[2] for p in volume.positions_mm])
    extent = matrix * volume.spacing_mm[0] * volume.pixels.shape[1] / matrix
    spacing = extent / matrix
    top = heights[-1] + (extent - (heights[-1] - heights[0])) / 2
    wanted = top - spacing * np.arange(matrix)
    picture = spread(water, (len(heights), matrix))
    rows = np.stack([np.interp(wanted, heights, column, left=0, right=0) for column in picture.T], axis=1)
    return Phantom(
        kind="localizer",
        pixels=np.rint(np.clip(rows, 0, 3000) - 1000).astype(np.int16),
        spacing_mm=(spacing, spacing),
        positions_mm=((0.0, round(volume.positions_mm[0][1], 5), round(float(top), 5)),),
        orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
        thickness_mm=round(extent, 3),
        instance_numbers=(1,),
    )
