"""Head CT phantoms: a head, what is put into it, and the scanner that looks at it.

A phantom is computed on a grid of at most 256 x 256 and doubled to 512 x 512, as a reconstruction would smooth it;
the noise is made at full size. The truth is counted in voxels of the slices that are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.simulate.bleed import Bleed, Room, grow
from appliance.simulate.head_anatomy import HeadAnatomy
from appliance.simulate.head_place import Canvas, Tissue
from appliance.simulate.phantom import Draw, Floats, Phantom, ellipsoid, f32, parameters, ramp, reconstruct

_BASE_MM = -50.0  # z of the lowest slice


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadScan:
    """How the head is scanned and what is wrong with the scan; the defaults are a faultless one.

    ``None`` means: drawn from ``phantoms.yaml``.
    """

    slices: int | None = None
    thickness_mm: float | None = None
    #: 128, 256 or 512 rows and columns.
    matrix: int = 512
    #: Gantry tilt: the slices lean, the table still moves along z.
    tilt_deg: float = 0.0
    #: Heights of the slices above the lowest one, if they are not evenly spaced.
    heights_mm: tuple[float, ...] = ()
    #: Indices of slices that are lost; their instance numbers stay free.
    missing: tuple[int, ...] = ()
    noise_hu: float | None = None
    beam_hardening: bool = True
    #: Calcium in both choroid plexuses and the pineal gland, as most adults have it.
    calcified_plexus: bool = False


def head_ct(
    seed: int, *, bleeds: Sequence[Bleed] = (), scan: HeadScan | None = None, brain_hu: float | None = None
) -> Phantom:
    """Make head phantom number ``seed``: [D, matrix, matrix] int16 HU.

    Args:
        seed: Number of the head.
        bleeds: What is put in, in this order.
        scan: How it is scanned.
        brain_hu: Mean of grey and white matter; ``None``: drawn from ``phantoms.yaml``.

    Raises:
        ValueError: A bleed does not fit into the room it belongs to, or the matrix is not 128, 256 or 512.
    """
    scan = scan or HeadScan()
    if scan.matrix not in {128, 256, 512}:
        raise ValueError(f"matrix {scan.matrix}: a head phantom has 128, 256 or 512 rows and columns")
    draw = Draw("head_ct", seed)
    anatomy = HeadAnatomy(draw)
    if brain_hu is not None:
        anatomy.sizes = anatomy.sizes.with_brain(brain_hu)
    grid = _Grid.of(scan)
    slices = [anatomy.paint(*grid.points(k)) for k in range(len(grid.kept))]
    hu = np.stack([s.hu for s in slices])
    mask = np.zeros(hu.shape, np.bool_)
    if scan.calcified_plexus:
        _calcify(hu, grid, draw, slices)
    room = Room(
        tissue=np.stack([s.tissue for s in slices]),
        depth=np.stack([s.depth for s in slices]),
        points=[grid.points(k) for k in range(len(slices))],
        voxel_ml=grid.voxel_ml,
        taken=mask,
    )
    found = [_bleed(hu, room, draw, bleed) for bleed in bleeds]
    pixels = _scan(slices, hu, grid, scan, draw)
    factor = grid.factor
    full = mask.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else mask
    volume = float((full.sum(axis=(1, 2)) * grid.voxel_ml).sum() / factor**2)
    return Phantom(
        kind="head_ct",
        pixels=pixels,
        spacing_mm=(grid.spacing / factor, grid.spacing / factor),
        positions_mm=grid.positions(),
        orientation=grid.orientation,
        thickness_mm=grid.thickness,
        instance_numbers=tuple(k + 1 for k in grid.kept),
        mask=full,
        truth={"bleeds": found, "volume_ml": volume, "calcified_plexus": scan.calcified_plexus},
    )


def random_head_ct(seed: int, *, kind: str | None = None, scan: HeadScan | None = None) -> Phantom:
    """A head with one bleed of ``kind`` (``None``: without), volume and place drawn from ``phantoms.yaml``."""
    if kind is None:
        return head_ct(seed, scan=scan)
    low, high = parameters("head_ct")["volume_ml"][kind]
    rng = np.random.default_rng([seed, *kind.encode()])
    return head_ct(seed, bleeds=[Bleed.drawn(rng, kind, float(rng.uniform(low, high)))], scan=scan)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the voxels are: the slices' heights, their lean, the coarse grid in the plane."""

    heights: tuple[float, ...]
    kept: tuple[int, ...]
    thickness: float
    size: int
    factor: int
    spacing: float
    tilt: float

    @classmethod
    def of(cls, scan: HeadScan) -> _Grid:
        section = parameters("head_ct")
        thickness = scan.thickness_mm or float(section["thickness_mm"])
        count = len(scan.heights_mm) or scan.slices or int(section["slices"])
        heights = scan.heights_mm or tuple(k * thickness for k in range(count))
        size = min(scan.matrix, 256)
        return cls(
            heights,
            tuple(k for k in range(count) if k not in scan.missing),
            thickness,
            size,
            scan.matrix // size,
            float(section["field_of_view_mm"]) / size,
            radians(scan.tilt_deg),
        )

    @property
    def offsets(self) -> Floats:
        """Centres of the coarse pixels in one direction, mm from the middle."""
        return ((np.arange(self.size) - (self.size - 1) / 2) * self.spacing).astype(np.float32)

    @property
    def orientation(self) -> tuple[float, float, float, float, float, float]:
        return (1.0, 0.0, 0.0, 0.0, round(cos(self.tilt), 8), round(-sin(self.tilt), 8) + 0.0)

    @property
    def voxel_ml(self) -> Floats:
        """Volume of one coarse voxel per kept slice: each slice stands for its full thickness along z."""
        area = self.spacing**2 * cos(self.tilt)
        gaps = np.gradient(np.asarray(self.heights)) if len(set(np.diff(self.heights).round(6))) > 1 else None
        extent = np.full(len(self.heights), self.thickness) if gaps is None else gaps
        if gaps is None and len(self.heights) > 1:
            extent = np.full(len(self.heights), self.heights[1] - self.heights[0])
        return (extent[list(self.kept)] * area / 1000).astype(np.float32)

    def points(self, index: int) -> tuple[Floats, Floats, Floats]:
        """X [1, W], y [H, 1], z [H, 1] of slice ``index`` in mm."""
        along = self.offsets[:, None]
        height = _BASE_MM + self.heights[self.kept[index]]
        y = (along * cos(self.tilt)).astype(np.float32)
        return self.offsets[None, :], y, (height - along * sin(self.tilt)).astype(np.float32)

    def positions(self) -> tuple[tuple[float, float, float], ...]:
        """Image Position (Patient) per slice: the centre of the first pixel of the full matrix."""
        fine = self.spacing / self.factor
        first = -(self.size * self.factor - 1) / 2 * fine
        return tuple(
            (
                round(first, 5),
                round(first * cos(self.tilt), 5),
                round(_BASE_MM + self.heights[k] - first * sin(self.tilt), 5),
            )
            for k in self.kept
        )


def _calcify(hu: Floats, grid: _Grid, draw: Draw, slices: list[Canvas]) -> None:
    places = [(sign * 21.0, 33.0, 19.0) for sign in (-1, 1)] + [(0.0, 19.0, 12.0)]
    for place in places:
        radius, density = draw("calcification_radius_mm"), draw("calcification_hu")
        for k in range(len(slices)):
            x, y, z = grid.points(k)
            lump = ellipsoid(x, y, z, place, (radius, radius * 1.3, max(radius, grid.thickness / 2)))
            inside = (lump < 1) & (slices[k].depth > 3)
            hu[k][inside] = density


def _bleed(hu: Floats, room: Room, draw: Draw, bleed: Bleed) -> dict[str, Any]:
    """Grow one bleed into ``hu`` and ``room.taken``; the facts about it."""
    grown = grow(bleed, room, draw.rng)
    density = bleed.hu or draw("subarachnoid_hu" if bleed.kind == "SAH" else "bleed_hu")
    if bleed.kind == "IPH":
        hu[grown.rim] += np.float32(draw("oedema_hu"))
    hu[grown.voxels] = density
    room.taken[grown.voxels] = True
    per_slice = grown.voxels.sum(axis=(1, 2))
    centre = room.coordinates(np.nonzero(grown.voxels))
    return {
        "kind": bleed.kind,
        "place": bleed.place,
        "hu": round(density, 1),
        "volume_ml": float((per_slice * room.voxel_ml).sum()),
        "centre_mm": tuple(round(float(axis.mean()), 2) for axis in centre),
        "slices": [int(k) for k in np.nonzero(per_slice)[0]],
    }


def _scan(slices: list[Canvas], hu: Floats, grid: _Grid, scan: HeadScan, draw: Draw) -> npt.NDArray[np.int16]:
    """Beam hardening and reconstruction of every slice."""
    noise = draw("noise_hu") if scan.noise_hu is None else scan.noise_hu
    hardening = draw("beam_hardening_hu") if scan.beam_hardening else 0.0
    pixels = []
    for canvas, image in zip(slices, hu, strict=True):
        hardened = image + _hardening(canvas) * np.float32(hardening) if hardening else image
        # Thick bone leaves fewer photons: the base of the skull is noisier.
        grain = noise * (1 + 0.5 * float(ramp(10 - canvas.z.mean(), 0, 40)))
        pixels.append(reconstruct(hardened, grid.factor, grain, draw.rng))
    return np.stack(pixels)


def _hardening(canvas: Canvas) -> Floats:
    """Bright rim under the bone and a dark band between the petrous bones, in units of the drawn strength."""
    x, y, z = canvas.x, canvas.y, canvas.z
    rim = 0.5 * np.exp(-np.clip(canvas.depth, 0, 60) / 5)
    band = np.exp(-(((y - 20 - 0.08 * x) / 5) ** 2)) + 0.7 * np.exp(-(((y - 34 + 0.05 * x) / 4) ** 2))
    band = band * (np.abs(x) < 48) * np.exp(-(((z + 18) / 11) ** 2))
    return f32((rim - band) * (canvas.tissue >= Tissue.BRAIN))
