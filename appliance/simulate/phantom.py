"""What every phantom is made of: the record, the drawing of parameters, and small image operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

#: Row direction +x, column direction +y: an axial image without tilt, patient on the back, head first (LPS).
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def f32(values: npt.ArrayLike) -> Floats:
    """As float32, which halves the memory that each operation moves."""
    return np.asarray(values, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """Pixels with geometry and the truth about them.

    ``pixels`` is [D, H, W] int16 in HU for a CT and [H, W] uint16 in grey values (white is high) for an X-ray.
    ``mask`` has the shape of ``pixels`` and marks what was put in (bleed, nodule, effusion, opacity), or is ``None``.
    ``truth`` holds plain values: volumes in ml, centres in mm, slice indices.
    """

    kind: str
    pixels: npt.NDArray[Any]
    #: Between rows, between columns.
    spacing_mm: tuple[float, float]
    #: Centre of the first pixel per slice, patient coordinates (LPS); empty for an X-ray.
    positions_mm: tuple[tuple[float, float, float], ...] = ()
    orientation: tuple[float, float, float, float, float, float] = AXIAL
    thickness_mm: float = 0.0
    #: One per slice, as a scanner would number them; a gap where slices are missing.
    instance_numbers: tuple[int, ...] = ()
    mask: Mask | None = None
    truth: Mapping[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _parameters() -> dict[str, Any]:
    text = Path(__file__).with_name("phantoms.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def parameters(kind: str) -> Mapping[str, Any]:
    """The section ``kind`` of ``phantoms.yaml``."""
    section: Mapping[str, Any] = _parameters()[kind]
    return section


class Draw:
    """Seeded draws from one section of ``phantoms.yaml``: the same kind and seed give the same phantom for ever."""

    def __init__(self, kind: str, seed: int) -> None:
        """Begin the sequence of draws of phantom ``seed`` of this kind."""
        self.section = parameters(kind)
        self.rng = np.random.default_rng([seed, *kind.encode()])

    def __call__(self, name: str) -> float:
        """A value drawn evenly from the range ``name``."""
        low, high = self.section[name]
        return float(self.rng.uniform(low, high))

    def count(self, name: str) -> int:
        """A whole number drawn evenly from the range ``name``, both ends included."""
        low, high = self.section[name]
        return int(self.rng.integers(low, high, endpoint=True))


def ellipsoid(x: Floats, y: Floats, z: Floats, centre: tuple[float, ...], semi: tuple[float, ...]) -> Floats:
    """Normalised radius of an ellipsoid at points: below 1 is inside. Arguments in mm, broadcast together."""
    u = (x - centre[0]) / semi[0]
    v = (y - centre[1]) / semi[1]
    w = (z - centre[2]) / semi[2]
    radius: Floats = np.sqrt(u * u + v * v + w * w)
    return radius


def ramp(value: Floats, low: float, high: float) -> Floats:
    """0 below ``low``, 1 above ``high``, straight between."""
    out: Floats = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return out


def soften(image: Floats) -> Floats:
    """Blur with the binomial 3 x 3 kernel (about 0.7 pixels), the point spread of a scanner. Edges repeat."""
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    out: Floats = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) * np.float32(1 / 16)
    return out


def double(image: Floats) -> Floats:
    """Twice the rows and columns by straight interpolation; each old pixel covers a 2 x 2 block of new ones."""
    out = image
    for axis in (0, 1):
        padded = np.pad(out, [(1, 1) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        here = 0.75 * out
        before = here + 0.25 * (padded[:-2] if axis == 0 else padded[:, :-2])
        after = here + 0.25 * (padded[2:] if axis == 0 else padded[:, 2:])
        out = np.stack((before, after), axis=axis + 1).reshape(
            (out.shape[0] * 2, out.shape[1]) if axis == 0 else (out.shape[0], out.shape[1] * 2)
        )
    return out.astype(np.float32, copy=False)


def ct_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Noise of standard deviation 1 with the grain of a soft reconstruction kernel: neighbours are correlated."""
    out = soften(rng.standard_normal(shape, dtype=np.float32))
    # The kernel leaves sqrt(6*6 / 16*16) of the deviation of white noise in each direction pair: 36/256 in variance.
    return f32(out * np.float32(16 / 6))


def reconstruct(image: Floats, factor: int, noise_hu: float, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """What the scanner makes of one slice: point spread, the full matrix (``factor`` 1 or 2), noise, whole HU."""
    out = soften(image)
    if factor == 2:
        out = double(out)
    if noise_hu:
        out = out + ct_noise(rng, out.shape) * np.float32(noise_hu)
    return np.asarray(np.clip(np.rint(out), -1024, 3071), np.int16)


def texture(rng: np.random.Generator, shape: tuple[int, ...], sigma: float | tuple[float, ...]) -> Floats:
    """Smooth random field of mean 0 and deviation 1; ``sigma`` in samples gives the size of its lumps."""
    from scipy.ndimage import gaussian_filter

    out: Floats = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    out -= out.mean()
    out /= out.std()
    return out
