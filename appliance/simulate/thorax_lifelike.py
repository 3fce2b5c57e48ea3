"""A chest whose film looks like those of a hospital: what ``thorax`` draws, with another body, heart and shading.

Drawn after the mean of 87 adult PA films without a finding (NIH ChestX-ray14, looked at, not copied): the body fills
the film, the side of the chest is bright, heart and spine are one smooth shadow, the bones are faint. The numbers
were then moved until ``cxr-triage`` did not flag most films without and flagged those with much fluid: on these
phantoms its figures mean nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from appliance.simulate.phantom import Draw, Floats, f32, ramp
from appliance.simulate.projection import develop, solid
from appliance.simulate.thorax import Thorax

#: The lungs beside those of ``Thorax``, in a body that is as large.
_SIZE = 0.933
#: Distance in mm of both borders of heart and great vessels from the middle, by height.
_HEIGHT = (-170, -120, -85, -68, -48, -25, 5, 35, 65, 100, 140)
_LEFT = (20, 22, 27, 33, 29, 34, 50, 72, 86, 92, 92)
_RIGHT = (22, 23, 24, 24, 23, 27, 33, 40, 43, 42, 40)
#: Water in mm that a film shows as white, and where its shoulder begins.
_WHITE, _SHOULDER = 275, 245


class LifelikeThorax(Thorax):
    """See the module."""

    def __init__(self, draw: Draw, u: Floats, v: Floats) -> None:
        """Draw sizes; ``u`` [1, W] and ``v`` [H, 1] in mm."""
        super().__init__(draw, f32(u / _SIZE), f32(v / _SIZE))

    def _dome(self) -> Floats:
        right = 93 + 0.0060 * (self.u + 60) ** 2
        left = 103 + 0.0055 * (self.u - 66) ** 2
        return f32(np.where(self.u < 0, right, left))

    def _mediastinum(self) -> Floats:
        low = ramp(self.v, -40, 40)  # the heart, whose size is drawn; above it are the great vessels
        left = _border(self.v, _LEFT) * (1 + (self.heart_ratio / 0.46 - 1) * low)
        return f32(np.minimum(left - self.u, self.u + _border(self.v, _RIGHT)))

    def _lung(self) -> Floats:
        share = self.side / self.cavity
        deep = 150 * np.sqrt(np.clip(1 - share**3.3, 0, 1)) * ramp(self.v, -165, -50) ** 0.44
        clear_below = ramp(self._dome() - self.v, -3, 9)
        clear_middle = 1 - 0.95 * _eased(ramp(self._mediastinum(), -3, 1.8))
        return f32(deep * clear_below * clear_middle)

    def body(self) -> Floats:
        """Thickness of the body in mm of water, with the lungs counted as full."""
        u, v, side = self.u * _SIZE, self.v * _SIZE, self.side * _SIZE
        half = 57 + 164 * _eased(ramp(v, -197, -122)) - 14 * ramp(v, -60, 120)
        deep = 135 + 105 * ramp(v, -190, -20) + 40 * ramp(v, 60, 150)
        out = deep * np.sqrt(np.clip(1 - (side / half) ** 2.5, 0, 1))
        out += 21 * _eased(ramp(side, 80, 150)) * np.clip((half - side) / (half - 165), 0, 1) * ramp(v, -190, -130)
        trachea = 14 * solid(np.abs(u - 0.02 * v), 8.5) * (v < -42)
        gas = 25 * solid(np.hypot((u - 72) / 24, (v - 132) / 12) * 10, 10)
        return f32(out - trachea - gas)

    def vessels(self, draw: Draw) -> Floats:
        """Branching shadows from both hila outwards, in mm of water."""
        return f32(1.1 * super().vessels(draw))

    def bones(self) -> Floats:
        """The same bones, fainter."""
        spine = ramp(24 - self.side, 0, 5)
        return f32(super().bones() * (0.64 - 0.07 * spine))

    def film(self, water: Floats, draw: Draw) -> npt.NDArray[np.uint16]:
        """Grey values, with a shoulder: what is dense differs little."""
        shaded = np.where(water < _SHOULDER, water, _SHOULDER + (water - _SHOULDER) * 0.55)
        return develop(f32(shaded), 33, _WHITE, 0.53 * draw("noise"), draw.rng)


def _eased(share: Floats) -> Floats:
    return f32(share * share * (3 - 2 * share))


def _border(v: Floats, distance: tuple[int, ...]) -> Floats:
    """The border at heights ``v``, without corners: a moving average over some 8 mm of the straight pieces."""
    step = np.arange(-20, 21)
    weight = np.exp(-0.5 * (step / 8) ** 2)
    parts = [w * np.interp(v + s, _HEIGHT, distance) for s, w in zip(step, weight / weight.sum(), strict=True)]
    return f32(sum(parts))
