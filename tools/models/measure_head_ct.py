"""Measure ``head-ct-hyperdensity`` on phantoms and write its ``metrics.json``.

    python tools/models/measure_head_ct.py [--quick]

The phantoms come from ``appliance.simulate`` (ranges in its phantoms.yaml, which the rule never reads); the seeds
here were used for nothing else. Phantoms are no patients: the figures say that the rule does what it was made for,
not what it is worth in a hospital. ``--quick`` prints a tenth and writes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from appliance.simulate.bleed import Bleed
from appliance.simulate.head import HeadScan, head_ct, random_head_ct
from appliance.simulate.phantom import Phantom
from engines.package import load_package
from engines.pipeline import Pipeline
from engines.types import Volume

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "engines/models/head-ct-hyperdensity"
FIRST_SEED = 50_000
COVER_MM = 165.0
THICKNESS_MM = (1.25, 2.5, 5.0, 7.0)
KINDS = ("IPH", "IVH", "EDH", "SDH", "SAH")


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


def _scan(rng: np.random.Generator, thickness: float) -> HeadScan:
    return HeadScan(
        matrix=256,
        thickness_mm=thickness,
        slices=int(COVER_MM / thickness),
        tilt_deg=float(rng.uniform(-20, 20)),
        calcified_plexus=True,
    )


def _without(count: int) -> Iterable[Phantom]:
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        rng = np.random.default_rng(seed)
        yield random_head_ct(seed, scan=_scan(rng, float(rng.choice(THICKNESS_MM))))


def _of_kind(kind: str, count: int) -> Iterable[Phantom]:
    for index in range(count):
        seed = FIRST_SEED + 1000 * (KINDS.index(kind) + 1) + index
        rng = np.random.default_rng(seed)
        yield random_head_ct(seed, kind=kind, scan=_scan(rng, float(rng.choice(THICKNESS_MM))))


def _of_volume(volume_ml: float, thickness: float, count: int) -> Iterable[Phantom]:
    for index in range(count):
        seed = FIRST_SEED + 10_000 + int(volume_ml * 100) + int(thickness * 10_000) + index
        rng = np.random.default_rng(seed)
        yield head_ct(seed, bleeds=[Bleed.drawn(rng, "IPH", volume_ml)], scan=_scan(rng, thickness))


def measure(share: float) -> dict[str, Any]:
    """All figures, on that share of the phantoms."""
    package = load_package(FOLDER)
    finding = package.manifest.findings[0]

    def count(full: int) -> int:
        return max(1, round(full * share))

    with Pipeline(package) as pipeline:

        def score(phantom: Phantom) -> float:
            return pipeline.run_volume(volume_from_phantom(phantom)).output.scores[finding.id]

        empty = [score(p) for p in _without(count(100))]
        kinds = {kind: [(p.truth["volume_ml"], score(p)) for p in _of_kind(kind, count(30))] for kind in KINDS}
        volumes = {
            f"{thickness:g} mm": {
                f"{volume:g} ml": [score(p) / p.truth["volume_ml"] for p in _of_volume(volume, thickness, count(5))]
                for volume in (1, 2, 5, 10, 20, 40)
            }
            for thickness in THICKNESS_MM
        }
    drawn = [s for pairs in kinds.values() for _, s in pairs]
    return {
        "package": f"{package.name} {package.version}",
        "onnx_sha256": package.files["model.onnx"],
        "phantoms_sha256": hashlib.sha256((ROOT / "appliance/simulate/phantoms.yaml").read_bytes()).hexdigest(),
        "phantoms": {"without_bleed": len(empty), "with_bleed": len(drawn), "first_seed": FIRST_SEED},
        "operating_points": {
            p.name: {
                "threshold_ml": p.threshold,
                "sensitivity": round(float(np.mean(np.array(drawn) >= p.threshold)), 3),
                "specificity": round(float(np.mean(np.array(empty) < p.threshold)), 3),
                "by_kind": {
                    kind: round(float(np.mean([s >= p.threshold for _, s in pairs])), 3)
                    for kind, pairs in kinds.items()
                },
            }
            for p in finding.operating_points
        },
        "largest_score_without_bleed_ml": round(max(empty), 2),
        "largest_region_over_truth": {
            kind: round(float(np.median([s / v for v, s in pairs])), 2) for kind, pairs in kinds.items()
        },
        "measured_over_true_volume": {
            thickness: {
                volume: {"mean": round(float(np.mean(r)), 3), "min": round(min(r), 3), "max": round(max(r), 3)}
                for volume, r in row.items()
            }
            for thickness, row in volumes.items()
        },
    }


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Measure head-ct-hyperdensity on phantoms")
    parser.add_argument("--quick", action="store_true", help="a tenth of the phantoms; print, write nothing")
    quick = parser.parse_args().quick
    text = json.dumps(measure(0.1 if quick else 1.0), indent=2, sort_keys=True) + "\n"
    print(text)
    if not quick:
        (FOLDER / "metrics.json").write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
