"""Measure ``chest-ct-nodule`` on phantoms and write its ``metrics.json``.

    python tools/models/chest_nodule_measure.py [--quick] [--package FOLDER]

Chests from ``appliance.simulate`` drawn from ``chest_nodule_ranges.yaml`` beside this script, which the rule does not
read; these seeds were used for nothing else. Phantoms are no patients: the figures say that the rule does what it was
made for, not what it is worth in a hospital. ``--quick`` prints a tenth and writes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from chest_nodule_phantoms import RANGES, Case, Truth, cases, make, match, ranges

from engines.package import load_package
from engines.pipeline import Pipeline
from engines.types import Mark

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "engines/models/chest-ct-nodule"
#: What the rule is made of.
CODE = (
    "tools/models/chest_nodule.py",
    "engines/heads/nodule.py",
    "engines/heads/lung_cover.py",
    "engines/preprocess/ct_lungs.py",
    "engines/preprocess/lungs.py",
)
GROUPS = ("solid", "empty", "pleural", "subsolid", "small")
THIRDS_MM = ((5, 10), (10, 15), (15, 20))


@dataclass(frozen=True, slots=True)
class Seen:
    """What came out of one scan."""

    case: Case
    truths: list[Truth]
    found: dict[int, Mark]
    false: list[Mark]


def code_sha256() -> str:
    """Of all files that the rule is made of."""
    told = hashlib.sha256()
    for name in CODE:
        told.update((ROOT / name).read_bytes())
    return told.hexdigest()


def see(pipeline: Pipeline, case: Case) -> Seen:
    """Run one scan."""
    volume, truths = make(case)
    found, false = match(truths, pipeline.run_volume(volume).output.marks)
    return Seen(case, truths, found, false)


def froc(scans: Sequence[Seen], threshold: float) -> dict[str, float]:
    """Share of the nodules found, and false marks a scan, by marks of that score and above."""
    found = sum(m.score >= threshold for s in scans for m in s.found.values())
    false = sum(m.score >= threshold for s in scans for m in s.false)
    nodules = sum(len(s.truths) for s in scans)
    told = {"false_marks": round(false / len(scans), 2)}
    return told | ({"sensitivity": round(found / nodules, 3)} if nodules else {})


def measure(package_folder: Path, share: float) -> dict[str, Any]:
    """All figures, on that share of the phantoms."""
    package = load_package(package_folder, trusted=True)
    finding = package.manifest.findings[0]
    seen: dict[str, list[Seen]] = {}
    with Pipeline(package) as pipeline:
        for group in GROUPS:
            seen[group] = [see(pipeline, case) for case in list(cases(group))[:: round(1 / share)]]
            print(group, froc(seen[group], 0.0), flush=True)
    points = {
        p.name: {
            "threshold": p.threshold,
            **{group: froc(seen[group], p.threshold) for group in GROUPS},
            "empty_scans_without_a_mark": round(
                float(np.mean([all(m.score < p.threshold for m in s.false) for s in seen["empty"]])), 3
            ),
        }
        for p in finding.operating_points
    }
    return {
        "package": f"{package.name} {package.version}",
        "onnx_sha256": package.files["model.onnx"],
        "code_sha256": code_sha256(),
        "phantoms_sha256": hashlib.sha256((ROOT / "appliance/simulate/phantoms.yaml").read_bytes()).hexdigest(),
        "ranges_sha256": hashlib.sha256(RANGES.read_bytes()).hexdigest(),
        "seeds": {group: ranges()[group]["first_seed"] for group in GROUPS},
        "scans": {group: len(seen[group]) for group in GROUPS},
        "nodules": {group: sum(len(s.truths) for s in seen[group]) for group in GROUPS},
        "operating_points": points,
        "by_diameter_mm": {f"{low}-{high}": _found(seen["solid"], low, high) for low, high in THIRDS_MM},
        "by_thickness_mm": {
            f"{mm:g}": froc([s for s in seen["solid"] if s.case.thickness_mm == mm], 0.0)
            for mm in ranges()["thickness_mm"]
            if any(s.case.thickness_mm == mm for s in seen["solid"])
        },
        "size": _size(seen["solid"]),
        "most_marks": max(len(s.found) + len(s.false) for group in GROUPS for s in seen[group]),
    }


def _found(scans: Sequence[Seen], low: float, high: float) -> float:
    """Share of the nodules of that size that have a mark at all."""
    hits = [k in s.found for s in scans for k, t in enumerate(s.truths) if low <= t.diameter_mm < high]
    return round(float(np.mean(hits)), 3)


def _size(scans: Sequence[Seen]) -> dict[str, float]:
    """Measured diameter and volume against the truth, of what was found."""
    pairs = [(s.truths[k], mark) for s in scans for k, mark in s.found.items()]
    off = np.array([mark.diameter_mm - truth.diameter_mm for truth, mark in pairs])
    ratio = np.array([(mark.volume_mm3 or 0.0) / truth.volume_mm3 for truth, mark in pairs])
    away = np.array([np.linalg.norm(np.subtract(t.position_mm, m.position_mm)) for t, m in pairs])
    return {
        "diameter_error_mm_median": round(float(np.median(off)), 2),
        "diameter_error_mm_largest_of_95_percent": round(float(np.percentile(np.abs(off), 95)), 2),
        "volume_ratio_median": round(float(np.median(ratio)), 3),
        "volume_ratio_5_percent": round(float(np.percentile(ratio, 5)), 3),
        "volume_ratio_95_percent": round(float(np.percentile(ratio, 95)), 3),
        "position_error_mm_largest_of_95_percent": round(float(np.percentile(away, 95)), 2),
    }


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Measure chest-ct-nodule on phantoms")
    parser.add_argument("--quick", action="store_true", help="a tenth of the phantoms; print, write nothing")
    parser.add_argument("--package", type=Path, default=FOLDER, help="the package's folder")
    arguments = parser.parse_args()
    text = json.dumps(measure(arguments.package, 0.1 if arguments.quick else 1.0), indent=2, sort_keys=True) + "\n"
    print(text)
    if not arguments.quick:
        (arguments.package / "metrics.json").write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
