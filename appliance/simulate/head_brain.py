"""Painting the brain of a head phantom: grey and white matter, sulci, cisterns, ventricles, falx and tentorium."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from appliance.simulate.head_place import Canvas, Sizes, Tissue
from appliance.simulate.phantom import Floats, Mask, ellipsoid, f32, ramp

#: Paired structures as (centre, semi-axes) of the left side; the right side is the mirror image.
_VENTRICLES = (
    ((9.5, -27, 22), (4.5, 13, 8)),  # frontal horn
    ((10.5, -2, 32), (5, 26, 5.5)),  # body
    ((21, 32, 20), (6, 11, 9)),  # atrium
    ((23, 47, 15), (3.5, 12, 5)),  # occipital horn
    ((33, 4, -4), (2.5, 12, 3)),  # temporal horn
    ((0, 3, 11), (2.4, 13, 8)),  # third, in the midline
    ((0, 36, -19), (6.5, 4.5, 8)),  # fourth, in the midline
)
_DEEP_GREY = (
    ((14.5, -20, 20), (4.5, 10, 9)),  # head of the caudate
    ((26, -3, 12), (7, 16, 10)),  # lentiform nucleus
    ((11.5, 10, 14), (8.5, 13, 9)),  # thalamus
)


@dataclass(frozen=True, slots=True)
class Fields:
    """Random fields over one slice [H, W], mean 0, deviation 1."""

    #: Its zero crossings are the sulci.
    folds: Floats
    #: Slow: bends both halves each its own way.
    bend: Floats
    #: Fast: the grain of the cerebellum.
    cells: Floats


def paint_brain(canvas: Canvas, sizes: Sizes, fields: Fields) -> None:
    """Everything inside the skull."""
    x, y, z, depth = canvas.x, canvas.y, canvas.z, canvas.depth
    low, high = float(z.min()), float(z.max())
    bend = np.clip(fields.bend, -2, 2)
    side = np.abs(x + 1.2 * bend)
    bent = y + 2.2 * bend
    # Distance to the nearest free surface: skull, interhemispheric fissure, Sylvian fissure.
    split = np.where((z > 40) | (y < -42) | ((y > 36) & (z > 4)), np.abs(x + 0.4 * bend), 99)
    surface = f32(np.minimum(depth, split))
    if low < 26 and high > -6:
        surface = np.minimum(surface, _sylvian(side + 1.6 * fields.folds, bent - 1.6 * fields.folds, z))
    width = 0.13 * (1 - ramp(surface, 4, 19))
    fluid = (1 - ramp(np.abs(fields.folds) - width, 0, 0.14)) * (surface < 19) * 0.9
    cortex = (1 - ramp(f32(np.abs(fields.folds) - 0.36), 0, 0.1)) * (1 - ramp(surface, 14, 24))
    cortex = np.maximum(cortex, 1 - ramp(surface, 3.2, 5.0))
    if low < 32 and high > 0:
        for centre, semi in _DEEP_GREY:
            cortex = np.maximum(cortex, 1 - ramp(ellipsoid(side, bent, z, centre, semi), 0.88, 1.05))
    fluid = np.maximum(fluid, 1 - ramp(surface, 0.6, 2.0))
    if low < 12:
        behind = _posterior_fossa(side, y, z, depth)
        cortex = np.where(behind, 0.55 + 0.2 * np.clip(fields.cells, -1, 1), cortex)
        fluid = np.where(behind, 1 - ramp(depth, 0.5, 1.6), fluid)
        fluid = np.maximum(fluid, _cisterns(side, bent, z))
    matter = sizes.white + (sizes.grey - sizes.white) * cortex
    hu = matter + (sizes.csf - matter) * fluid
    tissue = np.where(fluid > 0.45, Tissue.FLUID, Tissue.BRAIN)
    if low < 42 and high > -30:
        ventricle = _ventricle_radius(side, bent, z, sizes.ventricle)
        hu = sizes.csf + (hu - sizes.csf) * ramp(ventricle, 0.94, 1.06)
        tissue[ventricle < 1] = Tissue.VENTRICLE
    sheet = (np.abs(x) < 1.0) & (split < 99) & (z > 8)
    if low < 16:
        sheet |= (np.abs(z - _tentorium(side, y)) < 0.9) & (y > 28) & (side > 2) & (side < 52)
    hu[sheet] = sizes.falx
    tissue[sheet] = Tissue.FALX
    inside = depth > 0
    canvas.paint(inside, f32(hu))
    canvas.tissue[inside] = tissue[inside]


def _sylvian(side: Floats, y: Floats, z: Floats) -> Floats:
    """Millimetres to the Sylvian fissure (outwards) and the insular cistern (front to back); 99 off its levels."""
    outwards = np.abs(y + 12 - 0.5 * (z - 8) + 0.25 * (side - 40)) + 0.5
    outwards = np.where((side > 39) & (z > -6) & (z < 26), outwards, 99)
    insula = np.abs(side - 41 + 0.011 * (y + 4) ** 2) + 0.5
    insula = np.where((np.abs(y + 4) < 21) & (z > 0) & (z < 26), insula, 99)
    return f32(np.minimum(outwards, insula))


def _tentorium(side: Floats, y: Floats) -> Floats:
    """Height of the tentorium: a tent, highest in the midline."""
    return f32(10 - 0.42 * np.maximum(side - 6, 0) + 0.1 * (y - 40))


def _posterior_fossa(side: Floats, y: Floats, z: Floats, depth: Floats) -> Mask:
    """Where cerebellum and brain stem lie: below the tentorium, behind the clivus."""
    out: Mask = (z < _tentorium(side, y)) & (y > 2) & ((side < 0.9 * y + 14) | (z < -14)) & (depth > 0)
    return out


def _cisterns(side: Floats, y: Floats, z: Floats) -> Floats:
    """Share of fluid in the suprasellar star, around the midbrain, in front of the pons and behind the medulla."""
    star = np.hypot(side, y + 9) - 11 - 4.5 * np.cos(5 * (np.arctan2(side, y + 9)))
    suprasellar = (1 - ramp(star, -2, 0.5)) * (np.abs(z + 3) < 6)
    midbrain = np.hypot(side / 17, (y - 11) / 14)
    ring = (1 - ramp(np.abs(midbrain - 1) * 15, 1.2, 2.6)) * (np.abs(z - 3) < 8) * (y > -4)
    vein = (1 - ramp(np.hypot(side / 8, (y - 27) / 5), 0.8, 1.1)) * (np.abs(z - 6) < 7)
    pons = (1 - ramp(np.hypot(side / 12, (y + 4.5) / 3), 0.7, 1.1)) * (z > -34) * (z < -6)
    magna = (1 - ramp(np.hypot(side / 14, (y - 66) / 7), 0.7, 1.1)) * (np.abs(z + 36) < 9)
    return f32(np.maximum.reduce([suprasellar, ring, vein, pons, magna]))


def _ventricle_radius(side: Floats, y: Floats, z: Floats, scale: float) -> Floats:
    """Normalised radius of the ventricles; below 1 is inside one of them."""
    radii = []
    for centre, semi in _VENTRICLES:
        # Frontal horns bow outwards from front to back.
        bow = 0.0035 * (y - centre[1]) ** 2 if centre[0] and centre[1] < 0 else 0
        grown = (semi[0] * scale, semi[1] * min(scale, 1.1), semi[2] * min(scale, 1.15))
        radii.append(ellipsoid(side - bow, y, z, centre, grown))
    return f32(np.minimum.reduce(radii))
