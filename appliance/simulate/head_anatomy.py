"""The inside of a head as a function of the place: HU and tissue at any points, in mm.

Tissue is painted from the outside in, so that what is painted later lies on top. Coordinates: ``head_place``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from appliance.simulate.head_brain import Fields, paint_brain
from appliance.simulate.head_place import Canvas, Sizes
from appliance.simulate.head_skull import paint_scalp, paint_skull
from appliance.simulate.phantom import Draw, Floats, ellipsoid, f32, texture

_GRID_MM = 3.0  # of the random fields
_WIDEST_MM, _TOP_MM = 15.0, 103.0  # heights where the vault is widest and where it closes


class HeadAnatomy:
    """One head, drawn from the ranges of ``phantoms.yaml``."""

    def __init__(self, draw: Draw) -> None:
        """Draw sizes and densities, and the fields that fold the cortex and fill the bone."""
        self.sizes = Sizes.drawn(draw)
        # Folds are longer in z than they are wide, so that they run through neighbouring slices.
        self._folds = texture(draw.rng, (72, 72, 72), (1.9, 1.7, 1.7))
        self._cells = texture(draw.rng, (72, 72, 72), 0.8)

    def paint(self, x: Floats, y: Floats, z: Floats) -> Canvas:
        """The slice at these points; ``x`` [1, W], ``y`` and ``z`` [H, 1]."""
        side = np.abs(x)
        shape = np.broadcast_shapes(x.shape, y.shape)
        canvas = Canvas(
            x=x,
            y=y,
            z=z,
            depth=self._depth(side, y, z),
            outer=self._outer(side, y, z),
            hu=np.full(shape, -1000, np.float32),
            tissue=np.zeros(shape, np.uint8),
        )
        fields = Fields(
            folds=_sample(self._folds, canvas, _GRID_MM),
            bend=_sample(self._folds, canvas, _GRID_MM * 2.2),
            cells=_sample(self._cells, canvas, _GRID_MM),
        )
        paint_scalp(canvas)
        paint_skull(canvas, self.sizes, fields.cells)
        paint_brain(canvas, self.sizes, fields)
        return canvas

    def _depth(self, side: Floats, y: Floats, z: Floats) -> Floats:
        """Millimetres below the inner surface of the skull; negative outside the brain's room."""
        wide, long = self.sizes.half_width, self.sizes.half_length
        share = _vault(z, _TOP_MM)
        vault = (1 - _oval(side, y, f32(wide * share), f32(long * share))) * wide
        vault = np.minimum(vault, (_TOP_MM - z) * 2)
        # The floor rises from the tentorium's level behind to the roof of the orbits in front.
        floor = f32(np.where(y < -22, 4.0, np.where(y < 20, -2.0, -6.0)))
        # Steep, so that a slice just above the floor is brain and not all of it "close to the surface".
        vault = np.minimum(vault, (z - floor) * 5)
        middle = (1 - ellipsoid(side, y, z, (36, -4, -4), (25, 33, 22))) * 23
        posterior = (1 - ellipsoid(side, y, z, (0, 46, -14), (wide * 0.82, 37, 37))) * 36
        stem = (1 - np.hypot(side / 17, (y - 14 - 0.55 * np.clip(-z - 18, 0, 40)) / 16)) * 15
        stem = np.where((z < 8) & (z > -70), stem, -50)
        return f32(np.maximum(np.maximum(vault, middle), np.maximum(posterior, stem)))

    def _outer(self, side: Floats, y: Floats, z: Floats) -> Floats:
        """Millimetres below the outer surface of the skull."""
        wide, long = self.sizes.half_width + self.sizes.skull, self.sizes.half_length + self.sizes.skull
        share = _vault(z, _TOP_MM + self.sizes.skull) * (1 - 0.0028 * np.clip(-z - 10, 0, 60))
        return f32((1 - _oval(side, y, f32(wide * share), f32(long * share))) * wide)


def _vault(z: Floats, top: float) -> Floats:
    """Width of the vault at a height, as a share of its greatest width (superellipse, fuller than an ellipse)."""
    up = np.clip((z - _WIDEST_MM) / (top - _WIDEST_MM), 0, 1)
    return f32(np.power(np.maximum(1 - np.power(up, 2.3), 0), 1 / 2.3))


def _oval(side: Floats, y: Floats, half_width: Floats, half_length: Floats) -> Floats:
    """Normalised radius in the outline of a head seen from above: widest behind the middle, fuller than an oval."""
    widened = half_width * (1 + np.float32(0.0012) * np.clip(y, -90, 60))
    u, v = side / np.maximum(widened, 1), np.abs(y) / np.maximum(half_length, 1)
    return f32(np.power(np.power(u, 2.2) + np.power(v, 2.2), 1 / 2.2))


def _sample(field: Floats, canvas: Canvas, step_mm: float) -> Floats:
    """A random field [N, N, N] (z, y, x) at the points of a slice, straight interpolation; it repeats at its ends."""
    size = field.shape[0]

    def taps(place: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
        index = np.mod(place.ravel() / step_mm, size)
        low = index.astype(np.intp) % size
        return low, (low + 1) % size, f32(index - np.floor(index))

    z0, z1, wz = taps(canvas.z)
    y0, y1, wy = taps(canvas.y)
    x0, x1, wx = taps(canvas.x)
    # Rows first (each row has one y and one z), then columns: small gathers instead of eight full ones.
    rows = (
        field[z0, y0] * ((1 - wz) * (1 - wy))[:, None]
        + field[z0, y1] * ((1 - wz) * wy)[:, None]
        + field[z1, y0] * (wz * (1 - wy))[:, None]
        + field[z1, y1] * (wz * wy)[:, None]
    )
    return f32(rows[:, x0] * (1 - wx) + rows[:, x1] * wx)
