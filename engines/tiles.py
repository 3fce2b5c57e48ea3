"""A graph run piece by piece, so that memory does not grow with the series; several graphs whose mean counts.

What is held at once: the inputs; for each output 4 bytes an element, whatever the number of patches, mirrored runs and
graphs; and what one run on one patch takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import SessionError
from engines.manifest import Tile, Window
from engines.session import Session
from engines.types import Tensors

#: Share of a patch that is one sigma of its Gaussian, as nnU-Net has it.
_SIGMA = 1 / 8


def run_in_window(session: Session, tensors: Tensors, window: Window | None) -> Tensors:
    """Run a session piece by piece along the first axis of all its tensors; at once without a window.

    Raises:
        SessionError: The backend failed, or an output has another length than the inputs.
    """
    length = min(len(t) for t in tensors.values())
    if window is None or length <= window.length:
        return session.run(tensors)
    whole: Tensors = {}
    for start in range(0, length, window.length):
        stop = min(start + window.length, length)
        low, high = max(0, start - window.overlap), min(length, stop + window.overlap)
        for name, piece in session.run({name: t[low:high] for name, t in tensors.items()}).items():
            if len(piece) != high - low:
                raise SessionError(f"output {name!r} has length {len(piece)} for {high - low}; it cannot be windowed")
            whole.setdefault(name, np.empty((length, *piece.shape[1:]), piece.dtype))
            whole[name][start:stop] = piece[start - low : stop - low]
    return whole


def mean_of(runs: Sequence[Tensors]) -> Tensors:
    """The mean of each output over several graphs; of one graph, its own."""
    if len(runs) == 1:
        return runs[0]
    return {name: np.asarray(np.mean([run[name] for run in runs], axis=0, dtype=np.float32)) for name in runs[0]}


def tile_starts(length: int, patch: int, overlap: float) -> tuple[int, ...]:
    """Where patches begin along one axis: as few as the overlap allows, evenly spread, the last ends at the end.

    Args:
        length: Of the axis, at least ``patch``.
        patch: Of the patch.
        overlap: Least share of a patch that its neighbour repeats (rounded to whole voxels).
    """
    room = length - patch
    count = int(np.ceil(room / max(1.0, patch * (1 - overlap)))) + 1
    return tuple(round(k * room / (count - 1)) for k in range(count)) if count > 1 else (0,)


def tile_weights(patch: int, weights: str) -> NDArray[np.float32]:
    """How much each place of a patch counts along one axis: 1 in the middle."""
    if weights == "uniform":
        return np.ones(patch, np.float32)
    away = (np.arange(patch) - (patch - 1) / 2) / (patch * _SIGMA)
    return np.asarray(np.exp(-0.5 * away**2), np.float32)


def run_in_tiles(sessions: Sequence[Session], tensors: Tensors, tile: Tile) -> Tensors:
    """Run one or several graphs over a volume in overlapping patches; the weighted mean of all outputs counts.

    Args:
        sessions: Graphs with equal inputs and outputs.
        tensors: All with equal last axes, as many as the patch has.
        tile: Patch, overlap, weights, mirror axes.

    Returns:
        Every output, float32, with the tensors' last axes.

    Raises:
        SessionError: A backend failed, a tensor has other last axes, or an output has not the patch's.
    """
    axes = len(tile.patch)
    shape = next(iter(tensors.values())).shape[-axes:]
    for name, tensor in tensors.items():
        if tensor.ndim <= axes or tensor.shape[-axes:] != shape:
            raise SessionError(f"tensor {name!r} of shape {tensor.shape} cannot be cut like one that ends in {shape}")
    # As nnU-Net: what is smaller than a patch lies in the middle of zeros.
    before = tuple(max(0, p - n) // 2 for p, n in zip(tile.patch, shape, strict=True))
    padded = tuple(max(p, n) for p, n in zip(tile.patch, shape, strict=True))
    if padded != shape:
        around = [(b, full - n - b) for b, full, n in zip(before, padded, shape, strict=True)]
        tensors = {k: np.pad(t, [(0, 0)] * (t.ndim - axes) + around) for k, t in tensors.items()}
    starts = [tile_starts(n, p, tile.overlap) for n, p in zip(padded, tile.patch, strict=True)]
    lines = [tile_weights(p, tile.weights) for p in tile.patch]
    weight = _outer(lines)
    total: Tensors = {}
    for begin in itertools.product(*starts):
        cut = _last_axes(begin, tile.patch)
        piece = {name: tensor[cut] for name, tensor in tensors.items()}
        for name, output in _outputs(sessions, piece, tile):
            if name not in total:
                total[name] = np.zeros((*output.shape[:-axes], *padded), np.float32)
            total[name][cut] += output * weight
    # Starts and weights are products of their axes, so is their sum: no second volume is needed.
    runs = len(sessions) * 2 ** len(tile.mirror_axes)
    sums = [_along(n, begins, line) for n, begins, line in zip(padded, starts, lines, strict=True)]
    inner = _last_axes(before, shape)
    for name in total:
        for axis, line in enumerate(sums):
            total[name] /= line.reshape([-1 if k == axis else 1 for k in range(axes)])
        total[name] /= runs
        total[name] = total[name][inner]
    return total


def _outputs(sessions: Sequence[Session], piece: Tensors, tile: Tile) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The outputs of one patch: of every graph, as it is and mirrored, turned back."""
    axes = len(tile.patch)
    chosen = itertools.chain.from_iterable(
        itertools.combinations(tile.mirror_axes, k) for k in range(len(tile.mirror_axes) + 1)
    )
    for mirrored in chosen:
        flips = tuple(axis - axes for axis in mirrored)
        turned = {name: np.ascontiguousarray(np.flip(tensor, flips)) for name, tensor in piece.items()}
        for session in sessions:
            for name, output in session.run(turned).items():
                if output.ndim <= axes or output.shape[-axes:] != tile.patch:
                    raise SessionError(f"output {name!r} of shape {output.shape} does not end in {tile.patch}")
                yield name, np.flip(output, flips)


def _last_axes(begin: Sequence[int], shape: Sequence[int]) -> Any:
    """Index of a box in the last axes of an array."""
    return (..., *(slice(b, b + n) for b, n in zip(begin, shape, strict=True)))


def _outer(lines: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    out = lines[0]
    for line in lines[1:]:
        out = np.multiply.outer(out, line)
    return out


def _along(length: int, starts: Sequence[int], line: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of the weights of all patches along one axis."""
    total = np.zeros(length, np.float32)
    for start in starts:
        total[start : start + len(line)] += line
    return total
