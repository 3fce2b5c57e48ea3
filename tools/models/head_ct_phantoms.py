"""The phantoms that ``head-ct-hyperdensity`` is measured on, drawn from ``head_ct_phantoms.yaml``.

Thick slices are means of thin planes, as a scanner makes them: a bleed that ends within a slice fills it partly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from appliance.simulate.bleed import Bleed
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.phantom import Phantom, ct_noise
from engines.types import Volume

RANGES = Path(__file__).with_name("head_ct_phantoms.yaml")


@dataclass(frozen=True, slots=True)
class Case:
    """One head: its number, its slices, and the true volume of its bleed (0: none)."""

    seed: int
    thickness_mm: float
    volume_ml: float


@lru_cache(maxsize=1)
def ranges() -> Mapping[str, Any]:
    """All of ``head_ct_phantoms.yaml``."""
    loaded: dict[str, Any] = yaml.safe_load(RANGES.read_text(encoding="utf-8"))
    return loaded


def volume_from_phantom(phantom: Phantom) -> Volume:
    """What the worker would make of the phantom's files."""
    row, column = np.array(phantom.orientation[:3]), np.array(phantom.orientation[3:])
    normal = np.cross(row, column)
    return Volume(
        array=phantom.pixels,
        slice_ids=tuple(f"slice {n}" for n in phantom.instance_numbers),
        positions_mm=tuple(float(normal @ np.array(p)) for p in phantom.positions_mm),
        spacing_mm=phantom.spacing_mm,
        normal=(float(normal[0]), float(normal[1]), float(normal[2])),
    )


def with_bleed() -> Iterator[Case]:
    """Every volume in every thickness; one of each comes before the second of any."""
    plan = ranges()["volumes"]
    for index in range(plan["each"]):
        for at, thickness in enumerate(plan["fine_ml"]):
            for rank, volume in enumerate(plan["ml"]):
                yield Case(plan["first_seed"] + 1000 * index + 100 * at + rank, float(thickness), float(volume))


def without_bleed() -> Iterator[Case]:
    """As many as the file says, in all thicknesses by turns, also where only every tenth is taken."""
    plan = ranges()["without_bleed"]
    thicknesses = list(ranges()["planes"])
    for index in range(plan["count"]):
        yield Case(plan["first_seed"] + index, float(thicknesses[(index + index // 10) % len(thicknesses)]), 0.0)


def tolerance(case: Case) -> float:
    """How far the measured volume may be off, as a share of the true one."""
    plan = ranges()["volumes"]
    return float(plan["fine"] if case.volume_ml >= plan["fine_ml"][case.thickness_mm] else plan["coarse"])


def make(case: Case) -> tuple[Volume, float]:
    """The volume and the true ml of its bleed."""
    drawn = ranges()
    rng = np.random.default_rng(case.seed)

    def draw(name: str) -> float:
        return float(rng.uniform(*drawn[name]))

    brain, blood, noise, tilt = (draw(n) for n in ("brain_hu", "bleed_hu", "noise_hu", "tilt_deg"))
    towards = rng.normal(size=3)
    towards *= rng.uniform() ** (1 / 3) / np.linalg.norm(towards)
    x, y, z = np.array(drawn["centre_mm"]) + towards * np.array(drawn["centre_reach_mm"])
    bleeds = [Bleed(kind="IPH", volume_ml=case.volume_ml, hu=blood, centre_mm=(x, y, z))] if case.volume_ml else []
    planes = drawn["planes"][case.thickness_mm]
    slices = int(drawn["cover_mm"] / case.thickness_mm)
    scan = HeadScan(
        matrix=256,
        thickness_mm=case.thickness_mm / planes,
        slices=slices * planes,
        tilt_deg=tilt,
        noise_hu=0.0,
        calcified_plexus=True,
    )
    phantom = head_ct(case.seed, bleeds=bleeds, scan=scan, brain_hu=brain)
    fine = volume_from_phantom(phantom)
    shape = fine.array.shape[1:]
    means = fine.array.reshape(slices, planes, *shape).mean(axis=1, dtype=np.float32)
    grain = np.stack([ct_noise(rng, shape) for _ in range(slices)]) * np.float32(noise)
    heights = np.asarray(fine.positions_mm).reshape(slices, planes).mean(axis=1)
    volume = Volume(
        array=np.rint(np.clip(means + grain, -1024, 3071)).astype(np.int16),
        slice_ids=tuple(f"slice {k}" for k in range(slices)),
        positions_mm=tuple(float(h) for h in heights),
        spacing_mm=fine.spacing_mm,
        normal=fine.normal,
    )
    return volume, float(phantom.truth["volume_ml"])
