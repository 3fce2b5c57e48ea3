"""Measure ``head-ct-hyperdensity`` on phantoms and write its ``metrics.json``.

    python tools/models/measure_head_ct.py [--quick]

Two sets, both of heads from ``appliance.simulate``: volumes and heads without a bleed, drawn from
``head_ct_phantoms.yaml`` beside this script; and bleeds of all kinds, drawn from the simulator's own
``phantoms.yaml``. The rule reads neither file, and these seeds were used for nothing else. Phantoms are no patients:
the figures say that the rule does what it was made for, not what it is worth in a hospital. ``--quick`` prints a
tenth and writes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from head_ct_phantoms import RANGES, Case, make, ranges, tolerance, volume_from_phantom, with_bleed, without_bleed

from appliance.simulate.head import HeadScan, random_head_ct
from appliance.simulate.phantom import Phantom
from engines.package import load_package
from engines.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "engines/models/head-ct-hyperdensity"
FIRST_SEED = 50_000
COVER_MM = 165.0
THICKNESS_MM = (1.25, 2.5, 5.0, 7.0)
KINDS = ("IPH", "IVH", "EDH", "SDH", "SAH")


def _scan(rng: np.random.Generator, thickness: float) -> HeadScan:
    return HeadScan(
        matrix=256,
        thickness_mm=thickness,
        slices=int(COVER_MM / thickness),
        tilt_deg=float(rng.uniform(-20, 20)),
        calcified_plexus=True,
    )


def _of_kind(kind: str, count: int) -> Iterable[Phantom]:
    for index in range(count):
        seed = FIRST_SEED + 1000 * (KINDS.index(kind) + 1) + index
        rng = np.random.default_rng(seed)
        yield random_head_ct(seed, kind=kind, scan=_scan(rng, float(rng.choice(THICKNESS_MM))))


def code_sha256() -> str:
    """Of the rule's own code, outside of the graph."""
    names = ("brain_guard", "bright", "head_cover", "hyperdensity", "slice_order")
    files = [ROOT / "engines/preprocess/ct_slabs.py", *(ROOT / f"engines/heads/{name}.py" for name in names)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def measured_ml(pipeline: Pipeline, case: Case) -> tuple[float, float, float]:
    """Of one phantom: the score, the volume measured, the true volume, in ml."""
    volume, truth = make(case)
    output = pipeline.run_volume(volume).output
    (finding,) = output.scores
    measurements = output.measurements.get(finding, ())
    return output.scores[finding], measurements[0].value if measurements else 0.0, truth


def measure(share: float) -> dict[str, Any]:
    """All figures, on that share of the phantoms."""
    package = load_package(FOLDER)
    finding = package.manifest.findings[0]

    def some(cases: Iterable[Case]) -> list[Case]:
        return list(cases)[:: round(1 / share)]

    with Pipeline(package) as pipeline:

        def score(phantom: Phantom) -> float:
            return pipeline.run_volume(volume_from_phantom(phantom)).output.scores[finding.id]

        empty = [measured_ml(pipeline, case)[0] for case in some(without_bleed())]
        volumes = {case: measured_ml(pipeline, case) for case in some(with_bleed())}
        kinds = {
            kind: [(p.truth["volume_ml"], score(p)) for p in _of_kind(kind, max(1, round(30 * share)))]
            for kind in KINDS
        }
    drawn = [s for pairs in kinds.values() for _, s in pairs]
    return {
        "package": f"{package.name} {package.version}",
        "onnx_sha256": package.files["model.onnx"],
        "code_sha256": code_sha256(),
        "phantoms_sha256": hashlib.sha256((ROOT / "appliance/simulate/phantoms.yaml").read_bytes()).hexdigest(),
        "ranges_sha256": hashlib.sha256(RANGES.read_bytes()).hexdigest(),
        "phantoms": {
            "without_bleed": len(empty),
            "volumes": len(volumes),
            "kinds": len(drawn),
            "kinds_first_seed": FIRST_SEED,
        },
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
        "volume": _volume_figures(volumes),
    }


def _volume_figures(volumes: dict[Case, tuple[float, float, float]]) -> dict[str, Any]:
    """Measured over true volume by thickness and volume, and how many lie within their tolerance."""
    ratios = {case: measured / truth for case, (_, measured, truth) in volumes.items()}
    table: dict[str, dict[str, dict[str, float]]] = {}
    for thickness in THICKNESS_MM:
        row = table.setdefault(f"{thickness:g} mm", {})
        for ml in ranges()["volumes"]["ml"]:
            held = [r for case, r in ratios.items() if (case.thickness_mm, case.volume_ml) == (thickness, ml)]
            if held:
                mean = round(float(np.mean(held)), 3)
                row[f"{ml:g} ml"] = {"mean": mean, "min": round(min(held), 3), "max": round(max(held), 3)}
    worst: dict[str, float] = {}
    for case, ratio in ratios.items():
        name = f"{tolerance(case):.0%}"
        worst[name] = round(max(worst.get(name, 0.0), abs(ratio - 1)), 3)
    return {
        "measured_over_true": table,
        "within_tolerance": sum(abs(r - 1) <= tolerance(case) for case, r in ratios.items()),
        "largest_error_by_tolerance": worst,
        "flagged_at_1.5_ml": sum(score >= 1.5 for score, _, _ in volumes.values()),
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
