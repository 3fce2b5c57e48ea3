"""Hands with their ages: images of your own, or phantoms. Pictures are prepared as the box itself does it."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.dicom.pixels import xray_image
from bone_age.network import SIZE
from bone_age.phantom import AGES, hand
from engines.preprocess.xray import Xray
from engines.types import Image

#: Columns of the table by their possible names; the first of each as in the RSNA Pediatric Bone Age Challenge of 2017.
_ID, _MONTHS, _MALE, _SEX = ("id", "image id"), ("boneage", "months"), ("male",), ("sex",)
_ENDINGS = (".png", ".jpg", ".jpeg", ".dcm")
#: One image of five is held out, by the hash of its id.
_HELD_OUT = 5


@dataclass(frozen=True)
class Hands:
    """Pictures [N, 256, 256] in 0..1 with what is known of them; ``digest`` is of the bytes that they came from."""

    pictures: NDArray[np.float32]
    months: NDArray[np.float64]
    sex: tuple[str, ...]
    held_out: NDArray[np.bool_]
    digest: str


def prepare(picture: NDArray[np.generic]) -> NDArray[np.float32]:
    """One picture [H, W] as the graph gets it on the box: by the very preprocessor that ``model.yaml`` names."""
    return np.asarray(Xray(size=SIZE).prepare(Image(id="", array=picture)).array, np.float32)


def read_hands(folder: Path) -> Hands:
    """The one table (.csv) in ``folder`` and the images that it names, which may lie in folders below.

    Columns: ``id`` or ``image id`` (the image's file name, with or without its ending), ``boneage`` or ``months``, and
    ``male`` (True, False) or ``sex`` (M, F), which may be missing.

    Raises:
        SystemExit: What is wrong, and with which line.
    """
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise SystemExit(f"{folder}: {len(tables)} tables (.csv), one is needed")
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _ENDINGS:
            files.setdefault(path.stem, path)
    total = hashlib.sha256(tables[0].read_bytes())
    pictures, months, sex, ids = [], [], [], []
    with tables[0].open(newline="", encoding="utf-8-sig") as held:
        for number, raw in enumerate(csv.DictReader(held), start=2):
            row = {str(name).strip().lower(): str(value or "").strip() for name, value in raw.items()}
            name, age = _of(row, _ID), _of(row, _MONTHS)
            path = files.get(name) or files.get(Path(name).stem)
            if path is None:
                raise SystemExit(f"{tables[0]}, line {number}: no image {name!r} ({', '.join(_ENDINGS)}) in {folder}")
            try:
                months.append(float(age))
            except ValueError:
                raise SystemExit(f"{tables[0]}, line {number}: {age!r} is no age in months") from None
            total.update(hashlib.sha256(path.read_bytes()).digest())
            pictures.append(prepare(_picture(path)))
            sex.append(_of(row, _SEX)[:1].upper() or {"true": "M", "false": "F"}.get(_of(row, _MALE).lower(), ""))
            ids.append(name)
    if not pictures:
        raise SystemExit(f"{tables[0]}: no line")
    return Hands(np.stack(pictures), np.array(months), tuple(sex), _held_out(ids), total.hexdigest())


def phantom_hands(count: int, seed: int) -> Hands:
    """Phantoms of all ages: each seed below is a hand of its own."""
    months = np.round(np.random.default_rng(seed).uniform(*AGES, count), 1)
    films = [hand(seed + number, float(age)).pixels for number, age in enumerate(months)]
    total = hashlib.sha256()
    for film in films:
        total.update(film.tobytes())
    pictures = np.stack([prepare(film) for film in films])
    ids = [str(number) for number in range(count)]
    return Hands(pictures, months, ("",) * count, _held_out(ids), total.hexdigest())


def _held_out(ids: Iterable[str]) -> NDArray[np.bool_]:
    return np.array([int(hashlib.sha256(one.encode()).hexdigest(), 16) % _HELD_OUT == 0 for one in ids])


def _of(row: Mapping[str, str], names: Iterable[str]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def _picture(path: Path) -> NDArray[np.generic]:
    if path.suffix.lower() == ".dcm":
        return np.asarray(xray_image(path))
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise SystemExit(f"{path}: cannot be read as an image")
    return picture
