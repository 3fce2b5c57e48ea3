"""Knee X-ray phantoms, AP view: femur, tibia, fibula and patella. Nothing is wrong with them."""

from __future__ import annotations

import numpy as np

from appliance.simulate.phantom import Draw, Floats, Phantom, f32, ramp, texture
from appliance.simulate.projection import develop, plane, solid, spread


def knee_xray(seed: int, *, matrix: int = 1024) -> Phantom:
    """Make knee film number ``seed``: [matrix, matrix] uint16, 12 bits, dense is bright (MONOCHROME2)."""
    draw = Draw("knee_xray", seed)
    u, v, spacing = plane(matrix, float(draw.section["field_of_view_mm"]))
    scale = np.float32(draw("bone_scale"))
    u, v = u / scale, v / scale
    side = np.abs(u)
    grain = 1 + 0.06 * spread(texture(draw.rng, (matrix // 4, matrix // 4), 0.9), (matrix, matrix))
    leg = 60 - 0.05 * np.clip(v, -110, 110) + 5 * np.cos(v / 38)
    water = 105 * solid(np.broadcast_to(side, (matrix, matrix)), leg)
    # The femur: a shaft that widens into two condyles with a notch between them.
    widening = ramp(v, -85, -18)
    femur = 17 + 26 * widening * widening * (3 - 2 * widening) - 2 * ramp(v, -14, 0)
    bottom = -3 - 0.013 * (side - 23) ** 2
    notch = ramp(np.hypot(side / 9, (v + 1) / 17), 0.9, 1.05)
    water += _bone(side, femur, ramp(bottom - v, 0, 1.2) * notch, 1 - ramp(v, -75, -35), 52) * grain
    # The tibia: a plateau with its two spines, then a shaft.
    narrowing = 1 - ramp(v, 8, 75)
    tibia = 16.5 + 25 * narrowing * narrowing * (3 - 2 * narrowing)
    top = 4 - 4.5 * np.exp(-(((side - 5) / 3.2) ** 2)) + 0.9 * np.cos(side / 7) + 0.004 * side**2
    plateau = 0.5 * np.exp(-(((v - top - 1.5) / 1.5) ** 2))
    water += _bone(side, tibia, ramp(v - top, 0, 0.8) * (1 + plateau), ramp(v, 35, 70), 50) * grain
    fibula = 6.5 + 4.5 * np.exp(-(((v - 27) / 10) ** 2)) * ramp(v, 12, 22) ** 0.5
    beside = np.abs(u - 41 + 0.09 * (v - 26))
    water += _bone(beside, fibula, ramp(v - 0.25 * beside, 14, 16), ramp(v, 26, 50), 22) * grain
    patella = np.hypot(u / 20, (v + 33) / 21)
    water += (9 * solid(patella * 10, 10) + 4 * np.exp(-(((patella - 0.95) / 0.05) ** 2))) * grain
    return Phantom(
        kind="knee_xray",
        pixels=develop(f32(water), 12, 195, draw("noise"), draw.rng),
        spacing_mm=(spacing, spacing),
    )


def _bone(away: Floats, half: Floats, extent: Floats, shaft: Floats, weight: float) -> Floats:
    """A bone of half width ``half`` per row: cortex all round, thick where ``shaft`` is 1, thin over spongy ends."""
    depth = half - away
    cortex = 1.4 + 4.2 * shaft
    wall = np.exp(-(((depth - 0.6 * cortex) / cortex) ** 2)) * ramp(depth, 0, 0.8)
    return f32(weight * extent * (0.6 * solid(away, half) + (0.22 + 0.4 * shaft) * wall))
