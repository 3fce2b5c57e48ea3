"""Painting scalp, skull, orbits, petrous bones and air cells of a head phantom."""

from __future__ import annotations

import numpy as np

from appliance.simulate.head_place import Canvas, Sizes, Tissue
from appliance.simulate.phantom import Floats, Mask, ellipsoid, ramp


def paint_scalp(canvas: Canvas) -> None:
    """Skin, fat and the temporal muscle; below the skull's base it is the soft tissue of the face and the neck."""
    side, y, z, outer = canvas.side, canvas.y, canvas.z, canvas.outer
    thickness = 5.5 + 5.0 * np.exp(-(((side - 70) / 22) ** 2) - ((y + 22) / 26) ** 2 - ((z - 6) / 34) ** 2)
    inside = outer > -thickness
    canvas.paint(inside, -75, Tissue.SOFT)
    canvas.paint(inside & (outer < -thickness + 2.6), 35)
    under = inside & (outer < -1) & (outer > -thickness + 3.2)
    canvas.paint(under & (side > 45) & (np.abs(y + 22) < 30) & (z < 45), 58)
    ear = (np.hypot((y - 22) / 13, (z + 12) / 24) < 1) & (outer < -4) & (outer > -12)
    canvas.paint(ear & ((np.abs(outer + 8) > 2.4) | (np.abs(y - 22) > 9)), -10)


def paint_skull(canvas: Canvas, sizes: Sizes, cells: Floats) -> None:
    """The vault with its tables and the diploe, the frontal sinuses, and the base; ``cells`` is a random field."""
    side, y, z = canvas.side, canvas.y, canvas.z
    bone = (canvas.outer > 0) & (canvas.depth <= 0)
    middle = np.minimum(canvas.outer, -canvas.depth)
    canvas.paint(bone, sizes.diploe + (sizes.bone - sizes.diploe) * (1 - ramp(middle, 1.2, 2.6)), Tissue.BONE)
    if float(z.min()) < 12:
        _paint_base(canvas, bone, cells)
    front = -(sizes.half_length + sizes.skull / 2 - 0.5)
    lobes = np.minimum(
        ellipsoid(side, y, z, (9, front, 14), (9, 4.5, 13)), ellipsoid(side, y, z, (0, front, 6), (4, 4, 6))
    )
    canvas.paint((lobes < 1) & bone & (side > 1.2), -990)


def _paint_base(canvas: Canvas, bone: Mask, cells: Floats) -> None:
    """Below the roof of the orbits: what the vault's rule would fill with bone is mostly other tissue."""
    side, y, z = canvas.side, canvas.y, canvas.z
    # The ring of the vault ends at the base: in front it gives way to the face, below to the neck.
    face = ((y < 2) & (z < -4 - 0.1 * (y + 90))) | (z < -44)
    low = bone & (z < 4) & ((canvas.outer > 7) | face) & (canvas.depth < -2.5)
    canvas.paint(low, np.where(cells > 1.1, np.float32(-70), np.float32(50)), Tissue.SOFT)
    petrous = np.hypot((y - 14 - (side - 15) * 0.42) / 8, (z + 17) / 11)
    canvas.paint(low & (petrous < 1) & (side > 12) & (side < 66), 1350 + 250 * cells)
    mastoid = ellipsoid(side, y, z, (58, 30, -22), (15, 17, 18)) < 1
    canvas.paint(low & mastoid, np.where(cells > -0.1, np.float32(-900), np.float32(800)))
    canvas.paint(low & (np.hypot((y - 16) / 3.5, (z + 20) / 4) < 1) & (side > 46), -980)  # ear canal
    canvas.paint(low & (ellipsoid(side, y, z, (0, -3, -24), (14, 9, 22)) < 1), 700)  # clivus
    canvas.paint(low & (ellipsoid(side, y, z, (0, -24, -16), (17.5, 15.5, 13.5)) < 1), 850)
    sphenoid = ellipsoid(side, y, z, (0, -24, -16), (15, 13, 11)) < 1
    canvas.paint(low & sphenoid & (side > 0.9), -985)
    wing = (np.abs(y + 30 + (side - 20) * 0.25) < 3) & (side > 16) & (z > -26)
    canvas.paint(low & wing, 900)
    _paint_orbit(canvas, low)
    ethmoid = low & (side < 11) & (y > -84) & (y < -38) & (z > -40)
    septum = (side < 0.9) | (np.abs(np.mod(y, 11) - 5.5) < 0.8) | (np.abs(side - 10.4) < 1)
    canvas.paint(ethmoid, np.where(septum, np.float32(260), np.float32(-960)))
    canvas.paint(low & (ellipsoid(side, y, z, (28, -58, -46), (16, 18, 15)) < 1), -985)  # maxillary sinus


def _paint_orbit(canvas: Canvas, low: Mask) -> None:
    """A cone of fat with the globe, its lens, the optic nerve and two eye muscles; thin bone around it."""
    side, y, z = canvas.side, canvas.y, canvas.z
    taper = np.clip((-36 - y) / 34, 0.12, 1)
    cone = np.hypot((side - 12 - 20 * taper) / (20 * taper), (z + 17) / (19 * taper))
    ahead = low & (y < -36)
    canvas.paint(ahead & (cone < 1.13), 500)
    fat = ahead & (cone < 1)
    canvas.paint(fat, -88)
    along = 12 + 20 * np.clip((-36 - y) / 30, 0, 1)
    canvas.paint(fat & (np.hypot(side - along, z + 17) < 2.2), 32)
    for off in (-8.0, 8.0):
        muscle = np.hypot((side - along - off * taper) / 2, (z + 17) / 5) < 1
        canvas.paint(fat & muscle & (y > -72), 48)
    globe = ellipsoid(side, y, z, (32, -74, -17), (12.3, 12.3, 12.3))
    canvas.paint(fat & (globe < 1), 45)
    canvas.paint(fat & (globe < 0.88), 12)
    canvas.paint(fat & (ellipsoid(side, y, z, (32, -83, -17), (5, 2.3, 5)) < 1), 75)
