"""The NIH ChestX-ray14 images: labels, patient-wise folds, and pictures as the box itself prepares them."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.preprocess.xray import Xray
from engines.types import Image

SIZE = 128
FOLDS = 5
#: The findings in the order of the graph's output, each with the labels that count as it.
TARGETS = {"effusion": {"Effusion"}, "opacity": {"Pneumonia", "Infiltration", "Consolidation"}}


@dataclass(frozen=True)
class Row:
    """One image of ``labels.csv``."""

    file: str
    patient: str
    age: float
    sex: str
    view: str
    labels: frozenset[str]
    #: (label, x, y, width, height) in pixels of the 512-pixel image.
    boxes: tuple[tuple[str, float, float, float, float], ...]


def read_rows(folder: Path) -> list[Row]:
    """Read ``labels.csv``, in its order."""
    rows = []
    with (folder / "labels.csv").open(newline="") as held:
        for line in csv.DictReader(held):
            boxes = json.loads(line["boxes_512px"] or "[]")
            rows.append(
                Row(
                    file=line["file"],
                    patient=line["patient_id"],
                    age=float(line["age"]),
                    sex=line["sex"],
                    view=line["view"],
                    labels=frozenset(line["findings"].split("|")),
                    boxes=tuple((b["label"], b["x"], b["y"], b["w"], b["h"]) for b in boxes),
                )
            )
    return rows


def folds_of(rows: list[Row], salt: str = "") -> NDArray[np.int64]:
    """The fold of each row: all images of a patient lie in one. ``salt`` makes another division."""
    return np.array([int(hashlib.sha256((salt + row.patient).encode()).hexdigest(), 16) % FOLDS for row in rows])


def targets_of(rows: list[Row]) -> NDArray[np.float64]:
    """[rows, findings], 1 where a label says so."""
    return np.array([[float(bool(row.labels & names)) for names in TARGETS.values()] for row in rows])


def prepare(picture: NDArray[np.generic]) -> NDArray[np.float32]:
    """One picture [H, W] as the graph gets it on the box: by the very preprocessor that ``model.yaml`` names."""
    return np.asarray(Xray(size=SIZE).prepare(Image(id="", array=picture)).array, np.float32)


def read_pictures(folder: Path, rows: list[Row]) -> NDArray[np.float32]:
    """All pictures, prepared: [rows, SIZE, SIZE] in 0..1."""
    pictures = []
    for row in rows:
        picture = cv2.imread(str(folder / row.file), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise SystemExit(f"{folder / row.file}: cannot be read; labels.csv names it")
        pictures.append(prepare(picture))
    return np.stack(pictures)


def digest_of(folder: Path, rows: list[Row]) -> str:
    """SHA-256 over ``labels.csv`` and every image, in its order."""
    total = hashlib.sha256((folder / "labels.csv").read_bytes())
    for row in rows:
        total.update(hashlib.sha256((folder / row.file).read_bytes()).digest())
    return total.hexdigest()
