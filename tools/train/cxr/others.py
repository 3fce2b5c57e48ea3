"""Pictures that are no upright adult chest, and phantoms that are one, for the guard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from appliance.simulate.chest_xray import Effusion, Opacity, chest_xray
from appliance.simulate.knee_xray import knee_xray
from cxr.data import prepare

Pictures = NDArray[np.float32]
#: Seeds of phantoms that only the guard's fit sees; golden cases and tests take small ones.
FIRST_SEED = 50_000
KINDS = ("turned left", "turned right", "upside down", "inverted", "a part of it")


def changed(pictures: Pictures, seed: int) -> dict[str, Pictures]:
    """Each chest turned, upside down, inverted, and a part of it enlarged: [N, H, W] by kind."""
    rng = np.random.default_rng(seed)
    size = pictures.shape[1]
    parts = []
    for picture in pictures:
        side = int(rng.integers(size // 5, size // 2))
        top, left = rng.integers(0, size - side, 2)
        parts.append(prepare(picture[top : top + side, left : left + side] + _grain(rng, side)))
    made = (np.rot90(pictures, 1, (1, 2)), np.rot90(pictures, -1, (1, 2)), pictures[:, ::-1], 1 - pictures)
    return dict(zip(KINDS, [np.ascontiguousarray(m) for m in made] + [np.stack(parts)], strict=True))


def _grain(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Next to nothing: so that no part is blank."""
    return rng.normal(0, 0.003, (side, side))


def chest_phantoms(count: int) -> Pictures:
    """Phantoms of chests, every third with an effusion, every third with an opacity."""
    drawn = ({}, {"effusion": Effusion()}, {"opacity": Opacity()})
    return np.stack([prepare(chest_xray(FIRST_SEED + k, matrix=256, **drawn[k % 3]).pixels) for k in range(count)])


def no_chests(count: int) -> Pictures:
    """Phantoms of knees, each way up, and pictures of nothing: noise, gradients, stripes, boxes."""
    rng = np.random.default_rng(FIRST_SEED)
    knees = [prepare(knee_xray(FIRST_SEED + k, matrix=256).pixels) for k in range(count)]
    turned = [np.rot90(knee, k % 4) for k, knee in enumerate(knees)]
    return np.stack([*knees, *turned, *(prepare(p) for p in _nothing(rng, count))]).astype(np.float32)


def _nothing(rng: np.random.Generator, count: int) -> Iterator[NDArray[np.float64]]:
    rows, columns = np.mgrid[:256, :256] / 256
    for _ in range(count):
        angle, noise = rng.uniform(0, 2 * np.pi), rng.normal(0, 1, (256, 256))
        along = rows * np.sin(angle) + columns * np.cos(angle)
        yield noise
        yield along + 0.02 * noise
        yield np.sin(along * rng.uniform(5, 100)) + 0.05 * noise
        low, high = np.sort(rng.uniform(0, 1, (2, 2)), axis=1)
        inside = (rows > low[0]) & (rows < low[1] + 0.1) & (columns > high[0]) & (columns < high[1] + 0.1)
        yield inside + 0.02 * noise
