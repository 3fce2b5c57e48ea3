"""A head made of ellipsoids, for golden cases and unit tests: small, analytic, its volumes known exactly.

Simpler than the phantoms of ``appliance.simulate`` on purpose: a different author's head guards against a rule that
only fits one. Millimetres, origin in the middle of the brain, x to the left, y to the back, z to the vertex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.types import Volume

BRAIN = (66.0, 84.0, 78.0)
SKULL_MM = 7.0
SCALP_MM = 5.0
_VENTRICLES = (((13.0, -8.0, 10.0), (6.0, 26.0, 12.0)), ((-13.0, -8.0, 10.0), (6.0, 26.0, 12.0)))
_PLEXUS = ((15.0, 14.0, 8.0), (-15.0, 14.0, 8.0))
_SUB_SLICES = 3


@dataclass(frozen=True, slots=True)
class Ball:
    """A sphere of one density: a bleed, or calcium."""

    centre: tuple[float, float, float]
    radius_mm: float
    hu: float

    @property
    def volume_ml(self) -> float:
        """Its volume."""
        return 4 / 3 * np.pi * self.radius_mm**3 / 1000


def ball(volume_ml: float, hu: float = 65.0, centre: tuple[float, float, float] = (32.0, 20.0, 14.0)) -> Ball:
    """A bleed of a given volume; the default place is deep in the left half, clear of ventricle and skull."""
    return Ball(centre, (volume_ml * 1000 * 3 / 4 / np.pi) ** (1 / 3), hu)


def head(
    seed: int = 0,
    *,
    balls: Sequence[Ball] = (),
    brain_hu: float = 34.0,
    noise_hu: float = 4.0,
    thickness_mm: float = 5.0,
    slices: int | None = None,
    pixel_mm: float = 1.0,
    shape: tuple[int, int] = (220, 190),
    skull: bool = True,
    ventricles: bool = True,
    calcified: bool = False,
) -> Volume:
    """A head CT of evenly spaced slices around the middle of the brain: [slices, *shape] int16."""
    rng = np.random.default_rng(seed)
    count = slices or round(150 / thickness_mm)
    lumps = list(balls)
    if calcified:
        lumps += [Ball(place, 3.0, 250.0) for place in _PLEXUS]
    heights = (np.arange(count) - (count - 1) / 2) * thickness_mm
    y = ((np.arange(shape[0]) - (shape[0] - 1) / 2) * pixel_mm)[:, None]
    x = ((np.arange(shape[1]) - (shape[1] - 1) / 2) * pixel_mm)[None, :]
    array = np.empty((count, *shape), np.int16)
    for k, height in enumerate(heights):
        offsets = (np.arange(_SUB_SLICES) - (_SUB_SLICES - 1) / 2) * thickness_mm / _SUB_SLICES
        parts = [
            _paint(x, y, height + dz, lumps, brain_hu, pixel_mm, skull=skull, ventricles=ventricles) for dz in offsets
        ]
        array[k] = np.rint(np.mean(parts, axis=0) + rng.normal(0, noise_hu, shape))
    return Volume(
        array=array,
        slice_ids=tuple(f"slice-{k}" for k in range(count)),
        positions_mm=tuple(float(h) for h in heights),
        spacing_mm=(pixel_mm, pixel_mm),
    )


def _paint(
    x: NDArray[Any],
    y: NDArray[Any],
    z: float,
    lumps: Sequence[Ball],
    brain_hu: float,
    pixel_mm: float,
    *,
    skull: bool,
    ventricles: bool,
) -> NDArray[Any]:
    def inside(centre: tuple[float, float, float], semi: tuple[float, ...]) -> NDArray[Any]:
        radius = np.sqrt(
            ((x - centre[0]) / semi[0]) ** 2 + ((y - centre[1]) / semi[1]) ** 2 + ((z - centre[2]) / semi[2]) ** 2
        )
        return np.clip((1 - radius) * min(semi) / pixel_mm + 0.5, 0, 1)

    out = np.full(np.broadcast_shapes(x.shape, y.shape), -1000.0)
    origin = (0.0, 0.0, 0.0)
    layers = [(tuple(s + SKULL_MM + SCALP_MM for s in BRAIN), -60.0), (tuple(s + SKULL_MM for s in BRAIN), 1000.0)]
    if not skull:
        layers = []
    for semi, hu in (*layers, (BRAIN, brain_hu)):
        share = inside(origin, semi)
        out = out * (1 - share) + hu * share
    if ventricles:
        for centre, semi in _VENTRICLES:
            share = inside(centre, semi)
            out = out * (1 - share) + 6.0 * share
    for lump in lumps:
        share = inside(lump.centre, (lump.radius_mm,) * 3)
        out = out * (1 - share) + lump.hu * share
    return out
