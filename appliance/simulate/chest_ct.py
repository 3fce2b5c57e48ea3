"""Chest CT phantoms: lungs with vessel trees, and nodules of known place, size and kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from appliance.simulate.chest_anatomy import Branch, ChestAnatomy, vessels
from appliance.simulate.phantom import Draw, Floats, Mask, Phantom, f32, parameters, reconstruct


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodule:
    """A round lesion in a lung; ``pleural`` ones sit on the chest wall."""

    diameter_mm: float
    solid: bool = True
    pleural: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestScan:
    """How the chest is scanned; ``None`` means: as in ``phantoms.yaml``."""

    slices: int | None = None
    thickness_mm: float | None = None
    #: 128, 256 or 512 rows and columns.
    matrix: int = 512
    noise_hu: float | None = None


@dataclass(frozen=True, slots=True)
class _Grid:
    offsets: Floats
    heights: Floats
    spacing: float
    thickness: float

    def box(self, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> tuple[slice, slice, slice]:
        """The index ranges (z, y, x) of the voxels whose centres lie between two corners (x, y, z)."""
        rows = slice(*np.searchsorted(self.offsets, (low[1], high[1])))
        columns = slice(*np.searchsorted(self.offsets, (low[0], high[0])))
        return slice(*np.searchsorted(self.heights, (low[2], high[2]))), rows, columns

    def squared(self, box: tuple[slice, slice, slice], centre: npt.NDArray[np.float64]) -> Floats:
        """Squared distance in mm2 of the voxels of ``box`` to a point."""
        z = (self.heights[box[0]] - centre[2])[:, None, None]
        y = (self.offsets[box[1]] - centre[1])[None, :, None]
        x = (self.offsets[box[2]] - centre[0])[None, None, :]
        return f32(x * x + y * y + z * z)


@dataclass(frozen=True, slots=True)
class _Chest:
    """The chest while things are put into it: HU, where lung is, where nodules are (all [D, H, W])."""

    hu: Floats
    lung: Mask
    mask: Mask
    grid: _Grid


def chest_ct(seed: int, *, nodules: Sequence[Nodule] = (), scan: ChestScan | None = None) -> Phantom:
    """Make chest phantom number ``seed``: [D, matrix, matrix] int16 HU.

    Raises:
        ValueError: A nodule finds no room, or the matrix is not 128, 256 or 512.
    """
    scan = scan or ChestScan()
    if scan.matrix not in {128, 256, 512}:
        raise ValueError(f"matrix {scan.matrix}: a chest phantom has 128, 256 or 512 rows and columns")
    section, draw = parameters("chest_ct"), Draw("chest_ct", seed)
    size = min(scan.matrix, 256)
    spacing = float(section["field_of_view_mm"]) / size
    thickness = scan.thickness_mm or float(section["thickness_mm"])
    offsets = ((np.arange(size) - (size - 1) / 2) * spacing).astype(np.float32)
    heights = (-40 + thickness * np.arange(scan.slices or int(section["slices"]))).astype(np.float32)
    grid = _Grid(offsets, heights, spacing, thickness)
    anatomy = ChestAnatomy(draw)
    x, y = offsets[None, :], offsets[:, None]
    hu = np.stack([anatomy.paint(x, y, float(z)) for z in heights])
    lung = np.stack([anatomy.lungs(x, y, float(z)) for z in heights])
    mask = np.zeros(hu.shape, np.bool_)
    chest = _Chest(hu, lung, mask, grid)
    for branch in vessels(draw):
        _vessel(chest, branch, anatomy.blood)
    truth = [_nodule(chest, draw, nodule) for nodule in nodules]
    factor = scan.matrix // size
    noise = draw("noise_hu") if scan.noise_hu is None else scan.noise_hu
    pixels = np.stack([reconstruct(image, factor, noise, draw.rng) for image in hu])
    first = round(float(-(scan.matrix - 1) / 2 * spacing / factor), 5)
    return Phantom(
        kind="chest_ct",
        pixels=pixels,
        spacing_mm=(spacing / factor, spacing / factor),
        positions_mm=tuple((first, first, round(float(z), 5)) for z in heights),
        thickness_mm=thickness,
        instance_numbers=tuple(range(1, len(heights) + 1)),
        mask=mask.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else mask,
        truth={"nodules": truth},
    )


def _vessel(chest: _Chest, branch: Branch, density: float) -> None:
    """Paint a tapering tube; thin ones only partly fill their voxels."""
    hu, lung, grid = chest.hu, chest.lung, chest.grid
    reach = max(branch.radii) + grid.spacing
    upright = max(reach, grid.thickness / 2)
    margin = np.array([reach, reach, upright])
    box = grid.box(np.minimum(branch.start, branch.end) - margin, np.maximum(branch.start, branch.end) + margin)
    if any(part.start >= part.stop for part in box):
        return
    axis = branch.end - branch.start
    length2 = float(axis @ axis)
    z = (grid.heights[box[0]] - branch.start[2])[:, None, None]
    y = (grid.offsets[box[1]] - branch.start[1])[None, :, None]
    x = (grid.offsets[box[2]] - branch.start[0])[None, None, :]
    along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / length2, 0, 1)
    away = np.sqrt((x - along * axis[0]) ** 2 + (y - along * axis[1]) ** 2 + (z - along * axis[2]) ** 2)
    radius = branch.radii[0] + (branch.radii[1] - branch.radii[0]) * along
    share = np.clip((radius - away) / grid.spacing + 0.5, 0, 1) * lung[box]
    hu[box] += (share * (density - hu[box])).astype(np.float32)


def _nodule(chest: _Chest, draw: Draw, nodule: Nodule) -> dict[str, Any]:
    """Put one nodule in; the facts about it."""
    hu, lung, mask, grid = chest.hu, chest.lung, chest.mask, chest.grid
    radius = nodule.diameter_mm / 2
    centre = _place(chest, draw.rng, nodule)
    margin = radius + max(grid.spacing, grid.thickness)
    box = grid.box(centre - margin, centre + margin)
    away = np.sqrt(grid.squared(box, centre))
    density = draw("nodule_solid_hu" if nodule.solid else "nodule_subsolid_hu")
    share = np.clip((radius - away) / grid.spacing + 0.5, 0, 1) * lung[box]
    hu[box] += (share * (np.maximum(density, hu[box]) - hu[box])).astype(np.float32)
    inside = (away < radius) & lung[box]
    mask[box] |= inside
    return {
        "centre_mm": tuple(round(float(v), 2) for v in centre),
        "diameter_mm": nodule.diameter_mm,
        "solid": nodule.solid,
        "pleural": nodule.pleural,
        "hu": round(density, 1),
        "volume_ml": float(inside.sum()) * grid.spacing**2 * grid.thickness / 1000,
        "slice": int(np.argmin(np.abs(grid.heights - centre[2]))),
    }


def _place(chest: _Chest, rng: np.random.Generator, nodule: Nodule) -> npt.NDArray[np.float64]:
    """A drawn voxel of the lung with enough, or for a pleural nodule with half, lung around it.

    Raises:
        ValueError: After 400 draws there is none.
    """
    lung, mask, grid = chest.lung, chest.mask, chest.grid
    radius = nodule.diameter_mm / 2
    inside = np.argwhere(lung)
    for _ in range(400):
        k, row, column = inside[rng.integers(len(inside))]
        centre = np.array([grid.offsets[column], grid.offsets[row], grid.heights[k]], np.float64)
        margin = max(radius + 3, grid.thickness)
        box = grid.box(centre - margin, centre + margin)
        ball = np.sqrt(grid.squared(box, centre)) < radius + 2
        around = float(lung[box][ball].mean())
        fits = 0.5 < around < 0.8 if nodule.pleural else around > 0.999
        if fits and not mask[box].any():
            return centre
    where = "on the pleura" if nodule.pleural else "in the lungs"
    raise ValueError(f"a nodule of {nodule.diameter_mm:g} mm finds no room {where} of this phantom")
