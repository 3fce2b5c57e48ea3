"""A regular grid of voxels laid through a stack of pictures, and how a volume is carried from one to the other.

The frame is the stack's own, in mm: z along the normal (``Stack.positions_mm``), y down the rows and x along the
columns, both from the centre of the first pixel of the first slice. Slices of a tilted gantry are shifted against one
another in it (``Stack.shifts_mm``), which shears nothing: every slice is sampled where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Voxels [D, H, W] of one size.

    Attributes:
        shape: Voxels per axis.
        spacing_mm: Distance of voxel centres per axis.
        origin_mm: Centre of the first voxel, (z, y, x).
    """

    shape: Shape
    spacing_mm: Triple
    origin_mm: Triple

    @classmethod
    def covering(cls, low_mm: Sequence[float], high_mm: Sequence[float], spacing_mm: Triple) -> Grid:
        """The grid whose voxels fill a box, up to half a voxel, with the box's middle as its own.

        Args:
            low_mm: The box's near corner, where voxels begin (not a voxel's centre).
            high_mm: Its far corner.
            spacing_mm: Kept as it is.
        """
        shape: list[int] = []
        origin: list[float] = []
        for low, high, spacing in zip(low_mm, high_mm, spacing_mm, strict=True):
            count = max(1, round((high - low) / spacing))
            shape.append(count)
            origin.append((low + high) / 2 - (count - 1) / 2 * spacing)
        depth, rows, columns = shape
        return cls(shape=(depth, rows, columns), spacing_mm=spacing_mm, origin_mm=_triple(origin))

    @classmethod
    def around(cls, centre_mm: Sequence[float], shape: Shape, spacing_mm: Triple) -> Grid:
        """The grid of a given shape around a point."""
        origin = [c - (n - 1) / 2 * s for c, n, s in zip(centre_mm, shape, spacing_mm, strict=True)]
        return cls(shape=shape, spacing_mm=spacing_mm, origin_mm=_triple(origin))

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing_mm))

    @property
    def low_mm(self) -> Triple:
        """Where the first voxel begins."""
        return _triple([o - s / 2 for o, s in zip(self.origin_mm, self.spacing_mm, strict=True)])

    @property
    def high_mm(self) -> Triple:
        """Where the last voxel ends."""
        return _triple([low + n * s for low, n, s in zip(self.low_mm, self.shape, self.spacing_mm, strict=True)])

    def centres(self, axis: int) -> Floats:
        """Positions in mm of the voxel centres along an axis."""
        return np.asarray(self.origin_mm[axis] + np.arange(self.shape[axis]) * self.spacing_mm[axis], np.float64)

    def to_mm(self, voxel: Sequence[float]) -> Triple:
        """Where a voxel centre (z, row, column), fractions allowed, lies."""
        return _triple([o + v * s for o, v, s in zip(self.origin_mm, voxel, self.spacing_mm, strict=True)])

    def to_voxel(self, mm: Sequence[float]) -> Triple:
        """Which (z, row, column) lies at a position."""
        return _triple([(p - o) / s for p, o, s in zip(mm, self.origin_mm, self.spacing_mm, strict=True)])

    def divided(self, shape: Shape) -> Grid:
        """The same box in another number of voxels: where the outputs of a graph with strides lie."""
        if shape == self.shape:
            return self
        spacing = _triple([(high - low) / n for low, high, n in zip(self.low_mm, self.high_mm, shape, strict=True)])
        origin = _triple([low + s / 2 for low, s in zip(self.low_mm, spacing, strict=True)])
        return Grid(shape=shape, spacing_mm=spacing, origin_mm=origin)


@dataclass(frozen=True, slots=True)
class Taps:
    """For every target position, which sources are added with which weights; rows of weights sum to 1, or are 0."""

    #: [N, T]; a source that a target does not need has weight 0.
    sources: NDArray[np.intp]
    weights: NDArray[np.float32]

    @property
    def is_inside(self) -> NDArray[np.bool_]:
        """[N]: which targets lie where there are sources."""
        return np.asarray(self.weights.any(axis=1))

    @property
    def reach(self) -> slice:
        """From the first to the last source that is needed."""
        return slice(int(self.sources.min()), int(self.sources.max()) + 1)

    @property
    def within(self) -> Taps:
        """The same, for sources that were cut to ``reach``."""
        return Taps(self.sources - self.sources.min(), self.weights)


def taps(nodes: Floats, targets: Floats, spacing: float) -> Taps:
    """How to carry values from rising positions, even or not, to targets.

    Straight between two neighbours where the sources are as wide apart as the targets or wider; where they are
    denser, a triangle as wide as the targets' spacing averages over them, each with what it stands for. Beyond the
    ends, up to half of the last gap, the last value stands; further out there is nothing.

    Args:
        nodes: [M], strictly rising, mm.
        targets: [N], mm.
        spacing: Of the targets.
    """
    if len(nodes) == 1:
        near = np.abs(targets - nodes[0]) <= spacing / 2
        return Taps(np.zeros((len(targets), 1), np.intp), near.astype(np.float32)[:, None])
    gaps = np.diff(nodes)
    owned = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    inside = (targets >= nodes[0] - gaps[0] / 2) & (targets <= nodes[-1] + gaps[-1] / 2)
    at = np.clip(targets, nodes[0], nodes[-1])
    after = np.clip(np.searchsorted(nodes, at, side="right"), 1, len(nodes) - 1)
    share = (at - nodes[after - 1]) / gaps[after - 1]
    # A hundredth: spacings come as decimal text.
    is_wide = gaps[after - 1] > 0.99 * spacing
    first = np.searchsorted(nodes, at - spacing, side="right")
    last = np.searchsorted(nodes, at + spacing, side="left")
    reach = int(np.max(np.where(is_wide, 2, last - first), initial=2))
    sources = np.clip(np.where(is_wide, after - 1, first)[:, None] + np.arange(reach), 0, len(nodes) - 1)
    step = np.arange(reach)[None, :]
    straight = np.where(step == 0, 1 - share[:, None], np.where(step == 1, share[:, None], 0.0))
    tent = np.clip(1 - np.abs(nodes[sources] - at[:, None]) / spacing, 0, None) * owned[sources]
    tent[step + first[:, None] >= last[:, None]] = 0
    weights = np.where(is_wide[:, None], straight, tent)
    weights *= inside[:, None]
    total = weights.sum(axis=1, keepdims=True)
    np.divide(weights, total, out=weights, where=total > 0)
    return Taps(sources, weights.astype(np.float32))


def apply(along: Taps, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Carry an array along one axis; targets without a source become 0."""
    shape = [1] * values.ndim
    shape[axis] = len(along.sources)
    out = None
    for k in range(along.sources.shape[1]):
        weight = along.weights[:, k]
        if not weight.any():
            continue
        part = np.take(values, along.sources[:, k], axis=axis)
        part *= weight.reshape(shape)
        out = part if out is None else np.add(out, part, out=out)
    if out is None:
        size = list(values.shape)
        size[axis] = len(along.sources)
        return np.zeros(size, np.float32)
    return out


def resample(values: NDArray[np.float32], source: Grid, target: Grid) -> NDArray[np.float32]:
    """Carry a map [D, H, W] from one grid to another of the same frame; outside of the first there are zeros."""
    for axis in range(3):
        values = apply(taps(source.centres(axis), target.centres(axis), target.spacing_mm[axis]), values, axis)
    return values


def _triple(values: Sequence[float]) -> Triple:
    a, b, c = values
    return float(a), float(b), float(c)
