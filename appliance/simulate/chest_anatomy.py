"""The inside of a chest as a function of the place: HU and where the lungs are, at any points, in mm.

Patient coordinates (LPS): x to the patient's left, y to the back, z upwards; the lungs reach from the domes of the
diaphragm (z about 20 to 60) to z = 250. Arms are up, as for a CT of the chest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.simulate.phantom import Draw, Floats, Mask, ellipsoid, f32, ramp, texture

HILUM = (34.0, 12.0, 140.0)  # of the left lung; the right one is its mirror image


@dataclass(frozen=True, slots=True)
class Branch:
    """A piece of a pulmonary vessel: two ends and two radii in mm."""

    start: npt.NDArray[np.float64]
    end: npt.NDArray[np.float64]
    radii: tuple[float, float]


class ChestAnatomy:
    """One chest, drawn from the ranges of ``phantoms.yaml``."""

    def __init__(self, draw: Draw) -> None:
        """Draw sizes and densities."""
        self.wide, self.deep = draw("body_half_width_mm"), draw("body_half_depth_mm")
        self.lung, self.muscle, self.fat = draw("lung_hu"), draw("muscle_hu"), draw("fat_hu")
        self.blood, self.bone = draw("blood_hu"), draw("bone_hu")
        self._marble = texture(draw.rng, (96, 96), 1.6)

    def cavity(self, x: Floats, y: Floats, z: float) -> Floats:
        """Normalised radius of the chest's inside at height ``z``."""
        up = np.clip((z - 120) / 140, 0, 1)
        share = np.power(max(1 - up**2.2, 0.02), 0.5)
        wide, deep = (self.wide - 30) * share, (self.deep - 22) * (0.45 + 0.55 * share)
        u, v = np.abs(x) / wide, np.abs(y - 6 * (1 - share)) / deep
        return f32(np.power(np.power(u, 2.5) + np.power(v, 2.3), 1 / 2.4))

    def lungs(self, x: Floats, y: Floats, z: float) -> Mask:
        """Where there is lung in the slice at height ``z``."""
        inside = self.cavity(x, y, z) < 1
        middle = 16 + 10 * np.exp(-(((z - 140) / 40) ** 2)) - 8 * np.exp(-(((z - 190) / 30) ** 2)) * (y < -20)
        clear = (np.abs(x) > middle) & (self._heart(x, y, z) > 1.06) & (self._aorta(x, y, z) > 1.1)
        spine = np.hypot(x / 30, (y - 66) / 30) > 1
        out: Mask = inside & clear & spine & (z > self._dome(x, y))
        return out

    def paint(self, x: Floats, y: Floats, z: float) -> Floats:
        """HU of the slice at height ``z``; ``x`` [1, W], ``y`` [H, 1]."""
        shape = np.broadcast_shapes(x.shape, y.shape)
        hu = np.full(shape, -1000, np.float32)
        shoulder = 1 + 0.05 * float(ramp(np.float32(z), 190, 260))
        body = np.power(
            np.power(np.abs(x) / (self.wide * shoulder), 2.6) + np.power(np.abs(y) / self.deep, 2.4), 1 / 2.5
        )
        cavity = self.cavity(x, y, z)
        size = len(self._marble)
        rows = (np.abs(y.ravel()) / 3).astype(int) % size
        marble = self._marble[rows][:, (np.abs(x.ravel() + 200) / 3).astype(int) % size]
        hu[body < 1] = 30
        hu[body < 0.985] = self.fat
        wall = (body < 0.91) | ((cavity < 1.16) & (body < 0.96))
        hu[wall] = np.where(marble > 1.0, self.fat, self.muscle)[wall]
        self._wall_bones(hu, x, y, z, cavity)
        if 130 < z < 260:
            blade = (np.abs(y - 78 + 0.5 * (np.abs(x) - 70)) < 3.2) & (np.abs(np.abs(x) - 92) < 34)
            hu[blade & wall] = self.bone + 250
        hu[cavity < 1] = np.where(marble > 0.2, self.fat, 20)[cavity < 1]
        self._abdomen(hu, x, y, z, cavity)
        self._mediastinum(hu, x, y, z, cavity)
        lungs = self.lungs(x, y, z)
        hu[lungs] = (self.lung + 0.35 * y + 14 * marble)[lungs]
        self._spine(hu, x, y, z)
        self._airways(hu, x, y, z)
        return hu

    def _dome(self, x: Floats, y: Floats) -> Floats:
        """Height of the diaphragm."""
        right = 62 * np.exp(-(((x + 62) / 62) ** 2) - ((y + 8) / 62) ** 2)
        left = 48 * np.exp(-(((x - 62) / 58) ** 2) - ((y + 8) / 60) ** 2)
        return f32(-14 + right + left)

    @staticmethod
    def _heart(x: Floats, y: Floats, z: float) -> Floats:
        turned_x, turned_y = 0.82 * (x - 22) + 0.57 * (y + 30), -0.57 * (x - 22) + 0.82 * (y + 30)
        return ellipsoid(turned_x, turned_y, np.float32(z), (0, 0, 78), (62, 43, 56))

    @staticmethod
    def _aorta(x: Floats, y: Floats, z: float) -> Floats:
        descending = np.hypot(x - 22, y - 38) / 12.5 if z < 190 else np.full(np.broadcast_shapes(x.shape, y.shape), 9.0)
        # The arch runs from the right in front to the left behind.
        along = np.clip((y + 25) / 62, 0, 1)
        arch = np.hypot(np.hypot(x - (-14 + 34 * along), np.where((y > -25) & (y < 37), 0, 30)), z - 190) / 13.5
        return f32(np.minimum(descending, arch))

    def _wall_bones(self, hu: Floats, x: Floats, y: Floats, z: float, cavity: Floats) -> None:
        """Ribs slope downwards to the front, so that a slice cuts several of them; the sternum."""
        level = np.mod(z + 0.55 * (y + 100) + 3, 24) - 12
        rib = (np.abs(level) < 6.5) & (cavity > 1.02) & (cavity < 1.11) & (y > -self.deep + 36)
        core = (np.abs(level) < 4.5) & (cavity > 1.04) & (cavity < 1.09)
        hu[rib] = np.where(core, self.bone * 0.55, self.bone + 350)[rib]
        cartilage = (np.abs(level) < 6) & (cavity > 1.02) & (cavity < 1.10) & (y <= -self.deep + 36)
        hu[cartilage & (np.abs(x) > 18)] = 105
        front = -(self.deep - 22) * (0.45 + 0.55 * np.sqrt(max(1 - np.clip((z - 120) / 140, 0, 1) ** 2.2, 0.02))) - 7
        sternum = np.maximum(np.abs(x) / 17, np.abs(y - front) / 6) < 1
        hu[sternum & (z > 70) & (z < 225)] = self.bone * 0.6

    def _abdomen(self, hu: Floats, x: Floats, y: Floats, z: float, cavity: Floats) -> None:
        below = (cavity < 1) & (z <= self._dome(x, y))
        hu[below & (x < 34)] = 58  # liver
        hu[below & (x >= 34)] = 18
        hu[below & (ellipsoid(x, y, np.float32(z), (84, 34, 0), (30, 38, 42)) < 1)] = 50  # spleen
        hu[below & (ellipsoid(x, y, np.float32(z), (62, -34, 6), (32, 26, 26)) < 1)] = -960  # gas in the stomach

    def _mediastinum(self, hu: Floats, x: Floats, y: Floats, z: float, cavity: Floats) -> None:
        inside = cavity < 1
        up = z > self._dome(x, y) - 3
        hu[inside & up & (self._heart(x, y, z) < 1)] = self.blood
        hu[inside & (self._aorta(x, y, z) < 1)] = self.blood
        if 110 < z < 200:
            hu[inside & (np.hypot(x + 12, y + 24) < 16)] = self.blood  # ascending aorta
            hu[inside & (np.hypot(x + 32, y + 8) < 9)] = self.blood  # superior vena cava
        if 132 < z < 165:
            hu[inside & (np.hypot(x - 12, y + 26) < 14)] = self.blood  # pulmonary trunk
            hu[inside & (np.abs(y - 2 + 0.12 * x) < 8) & (np.abs(x) < 42)] = self.blood
        if z >= 200:
            for place in ((-16, -8), (4, -14), (20, 0)):
                hu[inside & (np.hypot(x - place[0], y - place[1]) < 6.5)] = self.blood
        hu[inside & (np.hypot(x - 6, y - 30) < 6)] = 30  # oesophagus

    def _spine(self, hu: Floats, x: Floats, y: Floats, z: float) -> None:
        disc = abs(np.mod(z, 25) - 12.5) < 2.6
        body = np.hypot(x / 18, (y - 62) / 15)
        hu[body < 1] = 90 if disc else self.bone * 0.45
        hu[(body < 1) & (body > 0.88)] = 95 if disc else self.bone + 120
        hu[np.hypot(x / 15, (y - 85) / 12) < 1] = self.bone + 200
        hu[(np.abs(x) < 3) & (y > 90) & (y < 108)] = self.bone
        hu[(np.abs(np.abs(x) - 22 - 0.4 * (y - 80)) < 14) & (np.abs(y - 82) < 4)] = self.bone * 0.8
        hu[np.hypot(x / 9, (y - 83) / 8) < 1] = 25  # canal

    @staticmethod
    def _airways(hu: Floats, x: Floats, y: Floats, z: float) -> None:
        if z > 158:
            tube = np.hypot(x, y - 14)
            hu[tube < 9.5] = 20
            hu[tube < 8] = -990
        elif z > 118:
            centre = (158 - z) * 0.85
            tube = np.hypot((np.abs(x) - centre) / 1.25, y - 15)
            hu[tube < 7.5] = 10
            hu[tube < 6] = -990


def vessels(draw: Draw) -> Iterator[Branch]:
    """The vessel trees of both lungs, from the hila outwards; every branch divides in two, five times."""
    for sign in (1.0, -1.0):
        hilum = np.array([sign * HILUM[0], HILUM[1], HILUM[2]])
        for _ in range(draw.count("vessels")):
            aim = draw.rng.normal(size=3) * (0.75, 0.9, 1.5)
            aim[0] = sign * (abs(aim[0]) + 0.55)
            yield from _grow(draw.rng, hilum, aim / np.linalg.norm(aim), float(draw.rng.uniform(3.2, 5.2)), 5)


def _grow(
    rng: np.random.Generator, start: npt.NDArray[np.float64], aim: npt.NDArray[np.float64], radius: float, left: int
) -> Iterator[Branch]:
    end = start + aim * rng.uniform(15, 27)
    yield Branch(start, end, (radius, radius * 0.85))
    if left:
        for _ in range(2):
            turned = aim + rng.normal(scale=0.42, size=3)
            yield from _grow(
                rng, end, turned / np.linalg.norm(turned), radius * float(rng.uniform(0.62, 0.78)), left - 1
            )
