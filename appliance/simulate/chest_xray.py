"""Chest X-ray phantoms, PA view: lungs, heart, ribs, vessels; an effusion or an opacity of known place.

The image shows the patient as the reader sees him: his left side is on the right of the image (u > 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from appliance.simulate.phantom import Draw, Mask, Phantom
from appliance.simulate.projection import plane
from appliance.simulate.thorax import LUNG_WATER, Thorax
from appliance.simulate.thorax_lifelike import LifelikeThorax


@dataclass(frozen=True, slots=True, kw_only=True)
class Effusion:
    """Fluid in one pleural space; ``None`` is drawn from ``phantoms.yaml``."""

    side: str = "left"
    height_mm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opacity:
    """A round patch of denser lung; ``None`` is drawn from ``phantoms.yaml``."""

    side: str = "right"
    radius_mm: float | None = None


def chest_xray(
    seed: int,
    *,
    effusion: Effusion | None = None,
    opacity: Opacity | None = None,
    matrix: int = 1024,
    lifelike: bool = False,
) -> Phantom:
    """Make chest film number ``seed``: [matrix, matrix] uint16, 12 bits, dense is bright (MONOCHROME2).

    ``lifelike`` draws a body that fills the film and shades it as a hospital's films are. The plain ones stay as they
    are: they take part in the training of ``cxr-triage``, whose bytes are pinned.
    """
    draw = Draw("chest_xray", seed)
    u, v, spacing = plane(matrix, float(draw.section["field_of_view_mm"]))
    thorax = (LifelikeThorax if lifelike else Thorax)(draw, u, v)
    lung = thorax.lung
    truth: dict[str, Any] = {}
    mask = np.zeros(lung.shape, np.bool_)
    water = thorax.body() - (1 - LUNG_WATER) * lung
    if effusion:
        height = effusion.height_mm or draw("effusion_height_mm")
        share = thorax.fluid(-1 if effusion.side == "right" else 1, height)
        water += share * (1 - LUNG_WATER) * lung
        found = (share > 0.5) & (lung > 1)
        mask |= found
        truth["effusion"] = {"side": effusion.side, "height_mm": round(height, 1), **_extent(found, spacing)}
    if opacity:
        radius = opacity.radius_mm or draw("opacity_radius_mm")
        share = thorax.patch(draw, -1 if opacity.side == "right" else 1, radius)
        water += share * (1 - LUNG_WATER) * lung
        found = (share > 0.25) & (lung > 1)
        mask |= found
        truth["opacity"] = {"side": opacity.side, "radius_mm": round(radius, 1), **_extent(found, spacing)}
    water += thorax.vessels(draw) + thorax.bones()
    return Phantom(
        kind="chest_xray",
        pixels=thorax.film(water, draw),
        spacing_mm=(spacing, spacing),
        mask=mask,
        truth=truth,
    )


def _extent(found: Mask, spacing: float) -> dict[str, Any]:
    """Area in cm2 and bounding box (first column, first row, last column, last row) of a marked region."""
    rows, columns = np.nonzero(found.any(axis=1))[0], np.nonzero(found.any(axis=0))[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])) if len(rows) else ()
    return {"area_cm2": float(found.sum()) * spacing**2 / 100, "box": box}
