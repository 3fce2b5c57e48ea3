"""Every picture that the network learns from and is measured on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from cxr.data import Row, folds_of

from cxr_quality.faults import SIDE, Made, Patient, of_one
from cxr_quality.others import blanks, no_chests, phantoms


def patients_of(folder: Path, rows: list[Row]) -> list[Patient]:
    """Each image of ``labels.csv``."""
    folds = folds_of(rows)
    pictures = [read(folder / row.file) for row in rows]
    by_fold = {fold: tuple(p for p, f in zip(pictures, folds, strict=True) if f == fold) for fold in set(folds)}
    return [
        Patient(row.patient, int(fold), picture, by_fold[fold])
        for row, fold, picture in zip(rows, folds, pictures, strict=True)
    ]


def read(path: Path) -> np.ndarray:
    """One image as float32 0..1, [SIDE, SIDE]."""
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise SystemExit(f"{path}: cannot be read; labels.csv names it")
    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def everything(chests: list[Patient], *, phantom_count: int, each: int, blank_count: int, seed: int) -> list[Made]:
    """All pictures: of chests, of phantoms of chests, of other things, of nothing."""
    rng = np.random.default_rng(seed)
    made = [one for patient in (*chests, *phantoms(phantom_count)) for one in of_one(patient, rng)]
    return [*made, *no_chests(each, seed + 1), *blanks(blank_count, seed + 2)]
