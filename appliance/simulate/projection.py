"""Small tools for X-ray phantoms: what a ray meets, in mm of water, and how a detector shows it.

Plane coordinates: u to the right of the image, v downwards, both in mm from the middle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from appliance.simulate.phantom import Floats, f32, ramp, soften

FULL_SCALE = 4095  # 12 bits stored


def plane(matrix: int, field_of_view_mm: float) -> tuple[Floats, Floats, float]:
    """U [1, W], v [H, 1] and the pixel spacing in mm."""
    spacing = field_of_view_mm / matrix
    offsets = ((np.arange(matrix) - (matrix - 1) / 2) * spacing).astype(np.float32)
    return offsets[None, :], offsets[:, None], spacing


def solid(away: Floats, radius: Floats | float) -> Floats:
    """Share of the greatest thickness that a ray meets in a round bar, ``away`` mm from its middle."""
    inside = np.clip(1 - (away / np.maximum(radius, 1e-3)) ** 2, 0, 1)
    return f32(np.sqrt(inside))


def tube(away: Floats, radius: float, cortex: float) -> Floats:
    """The same for a hollow bar: brightest where the ray runs along the wall, as in a rib."""
    inner = max(radius - cortex, 0.1)
    wall = radius * solid(away, radius) - inner * solid(away, inner)
    return f32(wall / np.sqrt(radius**2 - inner**2))


def stroke(
    canvas: Floats,
    plane_mm: tuple[Floats, Floats],
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    radii: tuple[float, float],
    weight: float,
) -> None:
    """Add a tapering round bar to ``canvas``: ``weight`` times its thickness in mm, within its bounding box."""
    u, v = plane_mm
    margin = max(radii) + 1
    columns = slice(*np.searchsorted(u[0], (min(start[0], end[0]) - margin, max(start[0], end[0]) + margin)))
    rows = slice(*np.searchsorted(v[:, 0], (min(start[1], end[1]) - margin, max(start[1], end[1]) + margin)))
    x, y = u[:, columns] - np.float32(start[0]), v[rows] - np.float32(start[1])
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy + 1e-6), 0, 1)
    away = np.hypot(x - along * dx, y - along * dy)
    radius = radii[0] + (radii[1] - radii[0]) * along
    # Pieces overlap at their joints: the thicker one counts, so that no knots show.
    np.maximum(canvas[rows, columns], weight * 2 * radius * solid(away, radius), out=canvas[rows, columns])


def spread(field: Floats, shape: tuple[int, ...]) -> Floats:
    """A small field stretched over an image of ``shape``, straight interpolation between its samples."""

    def taps(size: int, count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
        place = np.linspace(0, size - 1, count, dtype=np.float32)
        low = np.minimum(place.astype(np.intp), size - 2)
        return low, low + 1, f32(place - low)

    top, bottom, down = taps(field.shape[0], shape[0])
    left, right, across = taps(field.shape[1], shape[1])
    rows = field[top] * (1 - down)[:, None] + field[bottom] * down[:, None]
    return f32(rows[:, left] * (1 - across) + rows[:, right] * across)


def develop(
    water_mm: Floats, low: float, high: float, noise: float, rng: np.random.Generator
) -> npt.NDArray[np.uint16]:
    """Grey values of a detector with processing for presentation: dense is bright, both ends are compressed."""
    grey = ramp(water_mm, low, high)
    grey = grey * grey * (3 - 2 * grey) * 0.35 + grey * 0.65
    # Unsharp masking, as every maker's processing has it.
    blurred = grey
    for _ in range(6):
        blurred = soften(blurred)
    grey = soften(grey) + np.float32(0.5) * (grey - blurred)
    grey = grey + soften(rng.standard_normal(grey.shape, dtype=np.float32)) * np.float32(noise * 16 / 6)
    return np.asarray(np.rint(np.clip(grey * 0.92 + 0.03, 0, 1) * FULL_SCALE), np.uint16)
