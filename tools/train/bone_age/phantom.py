"""Phantoms of hands whose bones ripen with age. They show that the path works; they look like no atlas.

What grows with age, in a straight line: the size of the hand, the width of each epiphysis against its shaft, and the
carpal bones; what shrinks: the gap of each growth plate. Each phantom differs in size, place, turn, spread of the
fingers, density and noise, so that no single pixel tells the age.
"""

from __future__ import annotations

import numpy as np

from appliance.simulate.phantom import Floats, Phantom, f32
from appliance.simulate.projection import develop, plane, stroke

#: Youngest and oldest, in months.
AGES = (12.0, 216.0)
FIELD_MM = 230.0
#: A left hand, palm down, as ages are read from. Angle from straight up, in degrees;
#: metacarpal and phalanges, in mm; width of the shafts, in mm.
_FINGERS = (
    (48.0, (42.0, 30.0, 22.0), 9.5),
    (17.0, (64.0, 38.0, 24.0, 17.0), 8.5),
    (3.0, (62.0, 42.0, 28.0, 18.0), 8.5),
    (-10.0, (56.0, 39.0, 26.0, 18.0), 8.0),
    (-23.0, (52.0, 31.0, 19.0, 16.0), 7.0),
)
#: Centre in mm from the middle of the wrist, size, and how ripe a hand is when the bone appears.
_CARPALS = (
    ((3.0, -14.0), 8.0, 0.0),
    ((-6.0, -15.0), 7.5, 0.02),
    ((-9.0, -6.0), 6.5, 0.14),
    ((-1.0, -4.5), 7.0, 0.2),
    ((11.0, -15.0), 6.5, 0.27),
    ((17.0, -14.0), 6.5, 0.3),
    ((9.0, -6.0), 7.5, 0.36),
    ((-13.0, -7.5), 4.5, 0.55),
)

Point = tuple[float, float]


def hand(seed: int, months: float, *, matrix: int = 256) -> Phantom:
    """Make hand film number ``seed`` at that age: [matrix, matrix] uint16, fingers up, dense is bright (MONOCHROME2).

    Args:
        seed: Decides all but the age.
        months: Within ``AGES``.
        matrix: Rows and columns.
    """
    return _Hand(seed, months, matrix).develop()


class _Hand:
    """Canvases that grow by one bone at a time: bones, and the flesh around them, in mm of water."""

    def __init__(self, seed: int, months: float, matrix: int) -> None:
        self._rng = np.random.default_rng([seed, *b"hand"])
        draw = self._rng.uniform
        self._ripe = (months - AGES[0]) / (AGES[1] - AGES[0])
        self._scale = (0.68 + 0.24 * self._ripe) * draw(0.99, 1.01)
        self._turn = np.radians(draw(-3, 3))
        self._spread = draw(1.0, 1.1)
        self._density = draw(0.85, 1.15)
        self._wrist = (draw(-4, 4), draw(50, 56))
        self._matrix = matrix
        u, v, self._spacing = plane(matrix, FIELD_MM)
        self._plane = (u, v)
        self._bone: Floats = np.zeros((matrix, matrix), np.float32)
        self._flesh: Floats = np.zeros((matrix, matrix), np.float32)
        self._months = months

    def develop(self) -> Phantom:
        self._forearm()
        for degrees, lengths, width in _FINGERS:
            self._finger(np.radians(degrees * self._spread), lengths, width)
        for centre, size, appears in _CARPALS:
            grown = min(1.0, max(0.0, (self._ripe - appears) * 2.2 + 0.15))
            if self._ripe >= appears:
                self._bar(centre, (centre[0] + 0.8, centre[1] - 0.8), size * (0.35 + 0.65 * grown), 0.8)
        water = f32(self._flesh * 0.9 + self._bone * np.float32(self._density))
        return Phantom(
            kind="hand_xray",
            pixels=develop(water, 1, 66, 0.004, self._rng),
            spacing_mm=(self._spacing, self._spacing),
            truth={"months": self._months},
        )

    def _forearm(self) -> None:
        for side, width in ((8.5, 12.0), (-9.5, 8.0)):
            self._long_bone((side, 140.0), (side, 4.0), width, head_first=False)
        self._around((0.0, 150.0), (0.0, 0.0), (27.0, 21.0))

    def _finger(self, angle: float, lengths: tuple[float, ...], width: float) -> None:
        up = (float(np.sin(angle)), -float(np.cos(angle)))
        place = (up[0] * 22.0, up[1] * 22.0)
        for number, length in enumerate(lengths):
            end = (place[0] + up[0] * length, place[1] + up[1] * length)
            # A metacarpal has its growth plate at the far end, a phalanx at the near one.
            self._long_bone(place, end, width * (1.05 - 0.08 * number), head_first=number > 0)
            if number == 0:
                self._around((0.0, 0.0), end, (15.0, 13.0))
            else:
                self._around(place, (end[0] + up[0] * 3, end[1] + up[1] * 3), (width * 1.12, width * 0.95))
            place = (end[0] + up[0] * 2.0, end[1] + up[1] * 2.0)

    def _long_bone(self, start: Point, end: Point, width: float, *, head_first: bool) -> None:
        """A shaft, the gap of its growth plate, and the epiphysis beyond."""
        if head_first:
            start, end = end, start
        length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length)
        gap = max(0.0, 5.0 * (1 - self._ripe) - 0.15)
        cap = 1.5 + 2.0 * self._ripe

        def at(back: float) -> Point:
            return (end[0] - along[0] * back, end[1] - along[1] * back)

        self._bar(start, at(cap + gap + width * 0.3), width / 2, 0.7)
        if self._ripe > 0.03:
            across = (along[1], -along[0])
            half = width / 2 * (0.25 + 0.8 * self._ripe)
            middle = at(cap / 2)
            left = (middle[0] - across[0] * half, middle[1] - across[1] * half)
            right = (middle[0] + across[0] * half, middle[1] + across[1] * half)
            self._bar(left, right, max(cap / 2, 1.0), 1.1)

    def _bar(self, start: Point, end: Point, radius: float, weight: float) -> None:
        radius = radius * self._scale
        weight = weight * 8.0 / max(radius, 2.0)
        stroke(
            self._bone,
            self._plane,
            self._placed(start),
            self._placed(end),
            radii=(radius, radius * 0.98),
            weight=weight,
        )

    def _around(self, start: Point, end: Point, radii: tuple[float, float]) -> None:
        scaled = (radii[0] * self._scale, radii[1] * self._scale)
        stroke(self._flesh, self._plane, self._placed(start), self._placed(end), radii=scaled, weight=1.0)

    def _placed(self, point: Point) -> Point:
        """From mm of an average hand to mm of the picture."""
        x, y = point[0] * self._scale, point[1] * self._scale
        sin, cos = float(np.sin(self._turn)), float(np.cos(self._turn))
        return (self._wrist[0] + cos * x - sin * y, self._wrist[1] + sin * x + cos * y)
