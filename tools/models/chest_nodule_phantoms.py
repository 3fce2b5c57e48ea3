"""The phantoms that ``chest-ct-nodule`` is measured on, drawn from ``chest_nodule_ranges.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from head_ct_phantoms import volume_from_phantom

from appliance.simulate.chest_ct import ChestScan, Nodule, chest_ct
from engines.types import Mark, Volume

RANGES = Path(__file__).with_name("chest_nodule_ranges.yaml")


@dataclass(frozen=True, slots=True)
class Case:
    """One chest: which group it belongs to, its number and its slices."""

    group: str
    seed: int
    thickness_mm: float


@dataclass(frozen=True, slots=True)
class Truth:
    """One nodule that was put in; position in the stack's frame (``engines.grid``)."""

    position_mm: tuple[float, float, float]
    diameter_mm: float
    volume_mm3: float


@lru_cache(maxsize=1)
def ranges() -> Mapping[str, Any]:
    """All of ``chest_nodule_ranges.yaml``."""
    loaded: dict[str, Any] = yaml.safe_load(RANGES.read_text(encoding="utf-8"))
    return loaded


def cases(group: str) -> Iterator[Case]:
    """The scans of a group, in all thicknesses by turns, also where only every tenth is taken."""
    plan, thicknesses = ranges()[group], ranges()["thickness_mm"]
    for index in range(plan["scans"]):
        thickness = thicknesses[(index + index // 10) % len(thicknesses)]
        yield Case(group, plan["first_seed"] + index, float(thickness))


def make(case: Case) -> tuple[Volume, list[Truth]]:
    """The volume and its nodules."""
    drawn = ranges()
    rng = np.random.default_rng(case.seed)
    diameters = [float(rng.uniform(low, high)) for low, high in drawn[case.group].get("diameter_mm", ())]
    nodules = [
        Nodule(diameter_mm=mm, solid=case.group != "subsolid", pleural=case.group == "pleural") for mm in diameters
    ]
    scan = ChestScan(
        matrix=drawn["matrix"],
        thickness_mm=case.thickness_mm,
        slices=int(drawn["cover_mm"] / case.thickness_mm),
    )
    phantom = chest_ct(case.seed, nodules=nodules, scan=scan)
    left, front, _ = phantom.positions_mm[0]
    truths = []
    for one in phantom.truth["nodules"]:
        x, y, z = one["centre_mm"]
        truths.append(Truth((z, y - front, x - left), one["diameter_mm"], 1000 * one["volume_ml"]))
    return volume_from_phantom(phantom), truths


def match(truths: Sequence[Truth], marks: Sequence[Mark]) -> tuple[dict[int, Mark], list[Mark]]:
    """Which mark finds which nodule (its best), and which find none; a second one on a nodule is neither."""
    least = float(ranges()["least_reach_mm"])
    found: dict[int, Mark] = {}
    false = []
    for mark in sorted(marks, key=lambda m: -m.score):
        away = [float(np.linalg.norm(np.subtract(t.position_mm, mark.position_mm))) for t in truths]
        near = [k for k, mm in enumerate(away) if mm <= max(truths[k].diameter_mm / 2, least)]
        if near:
            found.setdefault(min(near, key=away.__getitem__), mark)
        else:
            false.append(mark)
    return found, false
