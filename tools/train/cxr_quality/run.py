"""The one command: folds, thresholds, figures, the shipped network, and every file of the package."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from cxr.data import FOLDS, Row, digest_of, folds_of, prepare, read_rows

from cxr_quality.card import card_text, manifest_text
from cxr_quality.data import everything, patients_of
from cxr_quality.export import exported
from cxr_quality.faults import FAULTS, Made, plain
from cxr_quality.figures import figures_of
from cxr_quality.fit import Bank, Recipe, bank_of, fitted, scores_of
from cxr_quality.golden import write_golden

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "engines/models/cxr-quality"
#: Kinds of what is no chest that one more network never sees: how far its idea of "no chest" carries.
UNSEEN = ("knee", "hand", "belly")
#: Networks that were looked at on these folds before the recipe was frozen.
TRIED = 2
#: How many chests of fold 0 the check takes with ``faults.plain``.
PLAIN = 30


def main() -> int:
    """Make the package."""
    parser = argparse.ArgumentParser(description="Train cxr-quality and write its package")
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the images it names")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the package's folder (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="networks that are fitted at a time (default: %(default)s)")
    asked = parser.parse_args()
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", flush=True)

    recipe, rows = Recipe(), read_rows(asked.data)
    pieces = everything(
        patients_of(asked.data, rows),
        phantom_count=recipe.phantoms,
        each=recipe.no_chests_each,
        blank_count=recipe.blanks,
        seed=recipe.seed,
    )
    say(f"{len(rows)} images, {len(pieces)} pictures")
    scores, unseen, net = _fitted_all(pieces, recipe, asked.jobs)
    say("networks")
    folds = np.array([piece.fold for piece in pieces])
    metrics: dict[str, Any] = figures_of(pieces, scores, folds, rows)
    metrics["unseen_kinds"] = {
        kind: round(float(np.mean(unseen[[p.kind == kind for p in pieces], 0] >= metrics["thresholds"][0])), 3)
        for kind in UNSEEN
    }
    data = exported(net)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "model.onnx").write_bytes(data)
    metrics["phantoms"] = write_golden(asked.out / "golden", data)
    metrics["in_sample"] = in_sample(data, asked.data, rows, metrics["thresholds"])
    metrics |= {
        "package": "cxr-quality 0.1.0",
        "onnx_sha256": hashlib.sha256(data).hexdigest(),
        "data": {
            "sha256": digest_of(asked.data, rows),
            "images": len(rows),
            "patients": len({row.patient for row in rows}),
            "pictures": len(pieces),
        },
        "code_sha256": code_digest(),
        "recipe": dataclasses.asdict(recipe),
        "recipes_tried": TRIED,
        "torch": torch.__version__.split("+")[0],
    }
    (asked.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (asked.out / "CARD.md").write_text(card_text(metrics))
    # Last: a folder without it is no package yet.
    (asked.out / "model.yaml").write_text(manifest_text(metrics))
    for fault, held in metrics["findings"].items():
        at = held["operating_points"]["standard"]
        say(f"{fault}: sensitivity {at['sensitivity']}, false warnings {1 - at['specificity']:.4f}")
    say(f"{asked.out}: {len(data)} bytes of graph; any warning on a good image: {metrics['good']['any']}")
    return 0


def code_digest() -> str:
    """SHA-256 over the files of this folder that make figures and graph; the texts around them may change."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).resolve().parent.glob("*.py")):
        if path.name != "card.py":
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _fitted_all(pieces: list[Made], recipe: Recipe, jobs: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Out-of-fold scores [N, faults], scores by a network that saw none of ``UNSEEN``, and the network that ships."""
    bank = bank_of(pieces)
    folds = torch.tensor([piece.fold for piece in pieces])
    strange = torch.tensor([piece.kind in UNSEEN for piece in pieces])
    learned = [*(folds != fold for fold in range(FOLDS)), (folds != 0) & ~strange, torch.ones_like(strange)]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "bank.pt"
        torch.save([bank.pictures, bank.wanted, bank.counts], kept)
        # Processes, one thread each: the same numbers however many run at a time.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            nets = list(pool.map(_fitted_one, [kept] * len(learned), learned, [recipe] * len(learned)))
    torch.set_num_threads(1)
    scores = np.zeros((len(pieces), len(FAULTS)))
    for fold in range(FOLDS):
        test = folds == fold
        scores[test.numpy()] = scores_of(nets[fold], bank.pictures[test]).numpy()
    unseen = np.zeros_like(scores)
    unseen[strange.numpy()] = scores_of(nets[FOLDS], bank.pictures[strange]).numpy()
    return scores, unseen, nets[-1]


def _fitted_one(kept: Path, learned: torch.Tensor, recipe: Recipe) -> Any:
    """One network, in a process of its own."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    return fitted(Bank(*torch.load(kept)).some(torch.where(learned)[0]), recipe)


def in_sample(data: bytes, folder: Path, rows: list[Row], least: list[float]) -> dict[str, Any]:
    """What the shipped graph says of images of fold 0, on which it was fitted too: a check, no figure of merit."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def warned(picture: np.ndarray) -> np.ndarray:
        return session.run(None, {"image": prepare(picture)[None, None]})[0][0] >= np.array(least)

    chosen = [row for row, fold in zip(rows, folds_of(rows), strict=True) if fold == 0]
    pictures = [cv2.imread(str(folder / row.file), cv2.IMREAD_GRAYSCALE) for row in chosen]
    hits: dict[str, list[bool]] = {}
    for one, other in itertools.pairwise(pictures[: PLAIN + 1]):
        for fault, picture in plain(one, other).items():
            hits.setdefault(fault, []).append(bool(warned(np.ascontiguousarray(picture))[FAULTS.index(fault)]))
    return {
        "fold": 0,
        "images": len(chosen),
        "any_warning": int(sum(warned(picture).any() for picture in pictures)),
        "plain": PLAIN,
        "warned": {fault: sum(held) for fault, held in hits.items()},
    }
