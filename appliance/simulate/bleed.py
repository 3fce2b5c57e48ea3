"""Bleeds in a head phantom, by kind: each grows voxel by voxel within the room where such blood collects.

A kind is a field over the room, lowest where the blood begins; the lowest voxels are taken until the volume is
reached. So the volume is right to one voxel, whatever the shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.simulate.head_place import Tissue
from appliance.simulate.phantom import Floats, Mask, f32

Index = tuple[npt.NDArray[np.intp], ...]
Place = tuple[float, float, float]

#: Per kind, named centres in mm (LPS, see ``head_place``); "left" is the patient's left.
PLACES: dict[str, dict[str, Place]] = {
    "IPH": {
        "left basal ganglia": (27, -2, 12),
        "right basal ganglia": (-27, -2, 12),
        "left thalamus": (13, 12, 16),
        "right frontal lobe": (-30, -48, 38),
        "left parietal lobe": (34, 36, 58),
        "right cerebellum": (-26, 50, -16),
    },
    "IVH": {"both lateral ventricles": (0, 60, 10), "left lateral ventricle": (22, 55, 10)},
    "EDH": {
        "left temporal": (66, -14, 16),
        "right temporal": (-66, -14, 16),
        "right parietal": (-52, 40, 62),
        "left frontal": (36, -72, 36),
    },
    "SDH": {"left convexity": (60, 0, 45), "right convexity": (-60, 0, 45)},
    "SAH": {
        "suprasellar cistern": (0, -9, -3),
        "left Sylvian fissure": (44, -14, 8),
        "right Sylvian fissure": (-44, -14, 8),
        "right convexity": (-38, 20, 72),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bleed:
    """What to put in: IPH in the brain, IVH in the ventricles, EDH and SDH under the skull, SAH between the gyri."""

    kind: str
    volume_ml: float
    #: A key of ``PLACES[kind]``; empty: the first.
    place: str = ""
    #: Mean density; ``None``: drawn from ``phantoms.yaml``.
    hu: float | None = None
    #: Where it begins, in mm, instead of at ``place``: at the nearest voxel that such blood may fill.
    centre_mm: Place | None = None

    def __post_init__(self) -> None:
        """Name the place, or say which there are."""
        if self.kind not in PLACES:
            raise ValueError(f"no bleed of kind {self.kind!r}; there are {', '.join(PLACES)}")
        if not self.place:
            object.__setattr__(self, "place", next(iter(PLACES[self.kind])))
        if self.place not in PLACES[self.kind]:
            raise ValueError(f"no place {self.place!r} for {self.kind}; there are {', '.join(PLACES[self.kind])}")

    @classmethod
    def drawn(cls, rng: np.random.Generator, kind: str, volume_ml: float) -> Bleed:
        """A bleed of this kind and volume at a drawn place."""
        return cls(kind=kind, volume_ml=volume_ml, place=str(rng.choice(list(PLACES[kind]))))


@dataclass(frozen=True, slots=True)
class Room:
    """The voxels of a head: tissue and depth [D, H, W], coordinates per slice, volume of a voxel per slice."""

    tissue: npt.NDArray[np.uint8]
    depth: Floats
    points: Sequence[tuple[Floats, Floats, Floats]]
    voxel_ml: Floats
    #: Voxels that already hold blood.
    taken: Mask

    def coordinates(self, index: Index) -> tuple[Floats, Floats, Floats]:
        """x, y, z in mm of voxels given by index arrays."""
        plane, row, column = index
        x = self.points[0][0].ravel()[column]
        y = self.points[0][1].ravel()[row]
        z = np.stack([p[2].ravel() for p in self.points])[plane, row]
        return x, y, z


@dataclass(frozen=True, slots=True)
class Grown:
    """The voxels of a bleed and, for one in the brain, those of the swollen rim around it."""

    voxels: Mask
    rim: Mask


def grow(bleed: Bleed, room: Room, rng: np.random.Generator) -> Grown:
    """Fill the room of ``bleed.kind`` from its place until the volume is reached.

    Raises:
        ValueError: The room holds less than the volume.
    """
    index = np.nonzero(_allowed(bleed.kind, room) & ~room.taken)
    field = _field(bleed, room, index)
    order = np.argsort(field + _ripple(room, index, rng), kind="stable")
    total = np.cumsum(room.voxel_ml[index[0][order]], dtype=np.float64)
    if not len(total) or total[-1] < bleed.volume_ml:
        held = float(total[-1]) if len(total) else 0.0
        raise ValueError(f"{bleed.kind} of {bleed.volume_ml:g} ml: the room holds {held:.1f} ml in these slices")
    count = int(np.searchsorted(total, bleed.volume_ml)) + 1
    voxels, rim = (np.zeros(room.tissue.shape, np.bool_) for _ in range(2))
    taken = order[:count]
    voxels[tuple(axis[taken] for axis in index)] = True
    if bleed.kind == "IPH":
        around = order[count : count + count // 2]
        rim[tuple(axis[around] for axis in index)] = True
    return Grown(voxels, rim)


def _allowed(kind: str, room: Room) -> Mask:
    """Which voxels such blood may fill."""
    allowed: Mask
    if kind == "IPH":
        allowed = (room.tissue == Tissue.BRAIN) & (room.depth > 4)
    elif kind == "IVH":
        allowed = room.tissue == Tissue.VENTRICLE
    elif kind == "SAH":
        allowed = (room.tissue == Tissue.FLUID) & (room.depth > 0.5)
    else:
        # Blood outside the brain pushes it aside: here it takes its place.
        allowed = ((room.tissue == Tissue.BRAIN) | (room.tissue == Tissue.FLUID)) & (room.depth > 0)
    return allowed


def _field(bleed: Bleed, room: Room, index: Index) -> Floats:
    """Millimetres, about, from where the blood begins."""
    x, y, z = room.coordinates(index)
    px, py, pz = PLACES[bleed.kind][bleed.place]
    if bleed.centre_mm is not None and len(x):
        near = np.argmin(sum((axis - c) ** 2 for axis, c in zip((x, y, z), bleed.centre_mm, strict=True)))
        px, py, pz = (float(axis[near]) for axis in (x, y, z))
    depth = room.depth[index]
    if bleed.kind == "IVH":
        # Blood sinks: the patient lies on the back. One-sided bleeds stay on their side at first.
        other = np.where((px != 0) & (np.sign(x) != np.sign(px)), 14, 0)
        return f32(-y + 0.15 * np.abs(z - pz) + other)
    if bleed.kind == "EDH":
        # A lens: from a point on the bone it spreads along it; inwards the dura holds it.
        inwards = np.array([px, py, pz - 20]) / -np.linalg.norm([px, py, pz - 20])
        deep = (x - px) * inwards[0] + (y - py) * inwards[1] + (z - pz) * inwards[2]
        return f32(np.hypot(np.hypot(np.hypot(x - px, y - py), z - pz), 1.8 * np.maximum(deep, 0)))
    if bleed.kind == "SDH":
        # A crescent over one half of the brain, thinning out towards the midline, the ends and the base.
        far = np.hypot(y - py, 1.3 * (z - pz)) / 68
        wrong_side = np.where(np.sign(x) == np.sign(px), 0, 99)
        middle = 6 * np.clip(1 - np.abs(x) / 16, 0, 1)
        return f32(depth + 9 * far**2 + middle + wrong_side)
    # The falx holds a bleed on its side of the head.
    across = np.where((bleed.centre_mm is not None) & (x * px < 0), 99, 0)
    return f32(np.hypot(np.hypot(x - px, 0.85 * (y - py)), z - pz) + across)


def _ripple(room: Room, index: Index, rng: np.random.Generator) -> Floats:
    """A few crossing waves of 12 to 30 mm: no bleed has a smooth border."""
    x, y, z = room.coordinates(index)
    out = np.zeros(len(x), np.float32)
    for _ in range(5):
        wave = rng.normal(size=3)
        wave *= 2 * np.pi / rng.uniform(12, 30) / np.linalg.norm(wave)
        out += f32(0.55 * np.sin(wave[0] * x + wave[1] * y + wave[2] * z + rng.uniform(0, 2 * np.pi)))
    return out
