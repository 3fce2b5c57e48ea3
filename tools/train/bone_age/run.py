"""The one command: hands, weights, figures, and every file of the package."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from bone_age.card import card_text, manifest_text
from bone_age.data import Hands, phantom_hands, prepare, read_hands
from bone_age.fit import read_out, said_by, trained
from bone_age.network import SPAN, Weights, graph, untrained
from bone_age.phantom import hand

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "engines/models/bone-age"
SHIPPED_VERSION = "0.1.0"
SEED = 0
PHANTOMS = 240
#: Phantoms that are trained on begin here, golden cases there.
FIRST_SEED, GOLDEN_SEED = 50_000, 90_000
GOLDEN_MONTHS = (60.0, 150.0)
#: What an engine may differ by on the golden cases, in months.
BOUND_MONTHS = 1.0


def main() -> int:
    """Write a package."""
    parser = argparse.ArgumentParser(description="Write or train the package bone-age")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, help="train on the images of this folder; its one .csv names them")
    what.add_argument("--phantom", action="store_true", help="train on simulated hands, to see the path work")
    what.add_argument("--untrained", action="store_true", help="write the package as it ships, which is not trained")
    parser.add_argument("--out", type=Path, help=f"the package's folder (with --untrained: {FOLDER.relative_to(ROOT)})")
    parser.add_argument("--epochs", type=int, default=0, help="train all weights, with PyTorch (default: the read-out)")
    parser.add_argument("--version", default="1.0.0", help="of a trained package (default: %(default)s)")
    asked = parser.parse_args()
    out = asked.out or (FOLDER if asked.untrained else None)
    if out is None:
        parser.error("say with --out where the package is to be written")
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", flush=True)

    hands = read_hands(asked.data) if asked.data else phantom_hands(PHANTOMS, FIRST_SEED)
    say(f"{len(hands.months)} hands")
    learn = ~hands.held_out
    if learn.sum() < 2 or hands.held_out.sum() < 2:
        parser.error(f"{len(hands.months)} hands are too few to hold some of them out")
    weights = read_out(untrained(SEED), hands.pictures[learn], hands.months[learn])
    if asked.epochs:
        weights = trained(weights, hands.pictures[learn], hands.months[learn], asked.epochs, SEED, say)
    figures = _figures(graph(weights), hands)
    say(f"mean absolute error {figures['mae_months']} months on {figures['held_out']} that were held out")
    metrics: dict[str, Any] = {
        "package": f"bone-age {SHIPPED_VERSION if asked.untrained else asked.version}",
        "trained_on": "images" if asked.data else "phantoms" if asked.phantom else "nothing",
        "epochs": asked.epochs,
        "seed": SEED,
        "data": {"sha256": hands.digest, "images": len(hands.months)},
        "code_sha256": code_digest(),
        "figures": figures,
        "sd_months": SPAN if asked.untrained else figures["rmse_months"],
    }
    write_package(out, untrained(SEED) if asked.untrained else weights, metrics)
    say(f"{out} is written")
    return 0


def write_package(folder: Path, weights: Weights, metrics: dict[str, Any]) -> None:
    """Write every file of the package; ``metrics`` gets what only the finished graph tells."""
    data = graph(weights)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    metrics["golden_months"] = _write_golden(folder / "golden", data)
    metrics["onnx_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (folder / "CARD.md").write_text(card_text(metrics))
    # Last: a folder without it is no package yet.
    (folder / "model.yaml").write_text(manifest_text(metrics))


def code_digest() -> str:
    """SHA-256 over the files of this folder that make figures and graph; the texts around them may change."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).resolve().parent.glob("*.py")):
        if path.name != "card.py":
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _figures(data: bytes, hands: Hands) -> dict[str, Any]:
    """Errors on the hands that were held out, and how many of them the rule takes for no hand."""
    some = hands.held_out
    months, likeness = said_by(data, hands.pictures[some])
    truth, sex = hands.months[some], np.array(hands.sex)[some]
    error = months - truth
    groups = {
        "below 72 months": truth < 72,
        "72 to 144 months": (truth >= 72) & (truth < 144),
        "from 144 months": truth >= 144,
        "girls": sex == "F",
        "boys": sex == "M",
    }
    return {
        "held_out": len(truth),
        "mae_months": round(float(np.abs(error).mean()), 1),
        "rmse_months": round(float(np.sqrt((error**2).mean())), 1),
        "bias_months": round(float(error.mean()), 1),
        "within_12_months": round(float((np.abs(error) <= 12).mean()), 3),
        "refused": round(float((likeness < 0.5).mean()), 4),
        "groups": {
            name: {"images": int(part.sum()), "mae_months": round(float(np.abs(error[part]).mean()), 1)}
            for name, part in groups.items()
            if part.any()
        },
    }


def _write_golden(folder: Path, data: bytes) -> dict[str, float]:
    """Two phantoms; what the graph says of each, by file. They hold engines to the graph, and the graph to nothing."""
    folder.mkdir(exist_ok=True)
    listing, said = [], {}
    for number, months in enumerate(GOLDEN_MONTHS):
        name = f"hand-{months:g}-months.npz"
        phantom = hand(GOLDEN_SEED + number, months)
        # Coarser grey values make smaller files.
        film = (phantom.pixels // 32 * 32).astype(np.int16)
        arrays = {"array": film[None], "positions_mm": np.zeros(1), "spacing_mm": np.array(phantom.spacing_mm)}
        _write_arrays(folder / name, arrays)
        (found,), _ = said_by(data, prepare(film)[None])
        said[name] = round(float(found), 2)
        bounds = [round(said[name] - BOUND_MONTHS, 2), round(said[name] + BOUND_MONTHS, 2)]
        listing.append({"file": name, "origin": "phantom", "scores": {"bone-age": bounds}})
    (folder / "golden.json").write_text(json.dumps(listing, indent=2) + "\n")
    return said


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """One case; the same bytes every time (``np.savez`` would put the time of day into the archive)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for key, values in arrays.items():
            held = io.BytesIO()
            np.save(held, values, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, held.getvalue(), zipfile.ZIP_DEFLATED)
