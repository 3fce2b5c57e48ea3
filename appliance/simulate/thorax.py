"""The parts of a chest as a ray meets them on the way to the film: thickness maps over the image plane.

Plane coordinates in mm from the middle of the film, as in ``projection``: the patient's left side is at u > 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from appliance.simulate.phantom import Draw, Floats, f32, ramp, texture
from appliance.simulate.projection import develop, solid, spread, stroke, tube

LUNG_WATER = 0.24  # density of lung, as a share of water


class Thorax:
    """The parts of one chest as thickness maps over the image plane."""

    def __init__(self, draw: Draw, u: Floats, v: Floats) -> None:
        """Draw sizes; ``u`` [1, W] and ``v`` [H, 1] in mm."""
        scale = draw("lung_scale")
        self.u, self.v, self.side = u / np.float32(scale), v / np.float32(scale), np.abs(u / np.float32(scale))
        self.heart_ratio = draw("heart_ratio")
        self.lumps = texture(draw.rng, (48, 48), 1.0)
        #: Half width of the chest's inside per row.
        rise = np.clip((self.v + 158) / 190, 0.0004, 1)
        self.cavity = f32(136 * np.power(1 - (1 - rise) ** 2.4, 0.62))
        self.lung = self._lung()

    def _dome(self) -> Floats:
        right = 66 + 0.0092 * (self.u + 62) ** 2
        left = 80 + 0.0088 * (self.u - 66) ** 2
        return f32(np.where(self.u < 0, right, left))

    def _mediastinum(self) -> Floats:
        """Signed mm inside the shadow of heart and great vessels (positive inside)."""
        heart_half = self.heart_ratio * 130
        shift = 0.36 * heart_half
        heart = 1 - np.hypot((self.u - shift + 0.22 * (self.v - 48)) / heart_half, (self.v - 42) / 56)
        knob = 1 - np.hypot((self.u - 17) / 18, (self.v + 70) / 19)
        trunk = 1 - np.hypot((self.u - 24) / 20, (self.v + 34) / 28)
        band = 1 - np.abs(self.u + 2) / np.clip(24 + 0.06 * (self.v + 60), 19, 34)
        parts = (heart * 45, knob * 18, trunk * 22, band * 22)
        return f32(np.maximum.reduce(parts))

    def _lung(self) -> Floats:
        """Thickness of lung in mm along the ray."""
        share = self.side / self.cavity
        deep = 150 * np.sqrt(np.clip(1 - share**2.6, 0, 1)) * ramp(self.v, -160, -70) ** 0.6
        clear_below = ramp(self._dome() - self.v, -1, 16) * 0.75 + 0.25 * ramp(self._dome() - self.v, -2, 2)
        clear_middle = 1 - ramp(self._mediastinum(), -4, 3) * 0.93
        return f32(deep * clear_below * clear_middle)

    def body(self) -> Floats:
        """Thickness of the body in mm of water, with the lungs counted as full."""
        slope = np.clip((self.v + 186) / 62, 0, 1)
        half = 56 + 150 * slope * slope * (3 - 2 * slope) - 42 * ramp(self.v, -110, 40)
        deep = 130 + 90 * ramp(self.v, -170, -20)
        out = deep * np.power(np.clip(1 - (self.side / half) ** 4, 0, 1), 0.5)
        air = 14 * solid(np.abs(self.u - 0.02 * self.v), 8.5) * (self.v < -42)  # trachea
        carina = np.clip(self.v + 46, 0, 40)
        bronchi = 11 * solid(np.abs(self.side - 0.85 * carina), 6.5) * (self.v >= -46) * (self.v < -14)
        gas = 55 * solid(np.hypot((self.u - 72) / 30, (self.v - 122) / 16) * 10, 10)
        return f32(out - air - bronchi - gas)

    def fluid(self, sign: int, height_mm: float) -> Floats:
        """Share of the lung's thickness that fluid has taken: it climbs along the chest wall (meniscus)."""
        outwards = np.clip((self.side - 25) / np.maximum(self.cavity - 25, 1), 0, 1)
        level = 112 - height_mm * (0.45 + 0.55 * outwards**3)
        return f32(ramp(self.v - level, -8, 14) * (self.u * sign > 0))

    def patch(self, draw: Draw, sign: int, radius_mm: float) -> Floats:
        """Share of the lung's thickness that is filled, a cloudy patch in the middle or lower zone."""
        u0, v0 = sign * draw.rng.uniform(62, 92), draw.rng.uniform(-25, 40)
        cloud = spread(self.lumps, self.lung.shape)
        away = np.hypot(self.u - u0, self.v - v0) / radius_mm + 0.12 * cloud
        return f32(0.5 * (1 - ramp(away, 0.45, 1.1)))

    def vessels(self, draw: Draw) -> Floats:
        """Branching shadows from both hila outwards, in mm of water."""
        canvas = np.zeros(self.lung.shape, np.float32)
        for sign in (-1, 1):
            for _ in range(13):
                angle = draw.rng.uniform(-1.25, 1.35)
                start = (sign * 34.0, (-14.0 if sign > 0 else -6.0) + 14 * np.sin(angle))
                radius = float(draw.rng.uniform(3.4, 6.0))
                self._branch(canvas, draw.rng, start, sign=sign, angle=angle, radius=radius, left=4)
        return canvas * ramp(self.lung, 5, 60)

    def _branch(
        self,
        canvas: Floats,
        rng: np.random.Generator,
        start: tuple[float, float],
        *,
        sign: int,
        angle: float,
        radius: float,
        left: int,
    ) -> None:
        """One piece of a vessel and, ``left`` times more, the two that it divides into."""
        step = rng.uniform(13, 24)
        end = (start[0] + sign * step * np.cos(angle), start[1] + step * np.sin(angle))
        stroke(canvas, (self.u, self.v), start, end, radii=(radius, radius * 0.8), weight=2.2)
        if left:
            for turn in (-1, 1):
                bent = angle + turn * rng.uniform(0.08, 0.42)
                thinner = radius * float(rng.uniform(0.6, 0.8))
                self._branch(canvas, rng, end, sign=sign, angle=bent, radius=thinner, left=left - 1)

    def bones(self) -> Floats:
        """Spine, ribs, clavicles, shoulder blades and upper arms, in mm of water beyond the soft tissue."""
        out = np.zeros(self.lung.shape, np.float32)
        disc = np.abs(np.mod(self.v, 25) - 12.5) < 2.2
        out += np.where(disc, 6, 17) * np.clip(1 - (self.side / 18) ** 6, 0, 1)
        out += 12 * tube(np.hypot(self.side - 11, (np.mod(self.v + 6, 25) - 12.5) * 0.7), 4.5, 1.5)
        share = np.clip(self.side / self.cavity, 0, 1.2)
        rib = np.zeros_like(out)
        for number in range(10):
            wide = 5.2 + 0.15 * number
            top = -142 + 22.5 * number
            slope = 30 + 3.2 * number
            behind = top - 10 * np.sin(2.6 * share) + slope * share**2.4
            inside = ramp(1.03 - share, 0, 0.04) * (self.side > 15)
            np.maximum(rib, 15 * tube(np.abs(self.v - behind) * 0.93, wide, 1.3) * inside, out=rib)
            ahead = top + slope + 8 + (52 + 2 * number) * np.clip(1 - share, 0, 1) ** 1.15
            bone = inside * ramp(share, 0.42, 0.6) * (number < 7)
            np.maximum(rib, 10 * tube(np.abs(self.v - ahead) * 0.86, wide + 1, 1.3) * bone, out=rib)
        out += rib
        clavicle = -132 - 22 * ramp(self.side, 10, 150) + 5 * np.sin(self.side / 24)
        ends = ramp(self.side, 8, 13) * (1 - ramp(self.side, 148, 152))
        out += 20 * tube(np.abs(self.v - clavicle), 6.5, 1.8) * ends
        blade = ramp(self.side - (112 + 0.16 * (self.v + 40)), 0, 3) * (1 - ramp(self.side, 158, 166))
        blade *= ramp(self.v, -138, -130) * (1 - ramp(self.v - 0.9 * (150 - self.side), -12, -4))
        out += 9 * blade
        out += 34 * solid(np.hypot(self.side - 172, self.v + 132), 25)
        shaft = (self.v > -132) * (self.v < 20)
        out += 26 * tube(np.abs(self.side - 178 - 0.05 * self.v), 12, 4) * shaft
        return out

    def film(self, water: Floats, draw: Draw) -> npt.NDArray[np.uint16]:
        """Grey values of what the rays have met, in mm of water."""
        return develop(water, 25, 265, draw("noise"), draw.rng)
