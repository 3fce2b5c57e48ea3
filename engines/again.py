"""Looking again where an earlier step looked (``take`` in the manifest): a new grid is laid through the same series."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engines.errors import ContentError, SessionError
from engines.flow import Take
from engines.grid import Grid, resample
from engines.heads.maps import read_map
from engines.peaks import find_peaks, keep_apart
from engines.preprocess.base import Assembled, Candidate, Volumetric, volume_of
from engines.types import Tensors


class Again:
    """What one ``take`` gives: grids through the series of the earlier step, and their tensors."""

    def __init__(self, take: Take, outputs: Tensors, assembled: Assembled, preprocessor: Volumetric) -> None:
        """Read the earlier step's map.

        Args:
            take: What to do.
            outputs: Of the earlier step.
            assembled: What it looked at.
            preprocessor: Of the series.

        Raises:
            ContentError: The output is no map over the earlier grid.
            SessionError: The map has too few channels.
        """
        channels, place = read_map(outputs, take.output, assembled)
        if take.channel >= len(channels):
            raise SessionError(f"output {take.output!r} has {len(channels)} channels, take asks for {take.channel}")
        if place.grid is None:
            raise SessionError("take needs a series that was resampled to a grid; use the preprocessor ct-volume")
        self._take, self._place, self._grid = take, place, place.grid
        self._map: NDArray[np.float32] = channels[take.channel].astype(np.float32, copy=False)
        self._preprocessor = preprocessor

    def candidates(self) -> tuple[Candidate, ...]:
        """The peaks of the map, best first, none closer to a better one than ``apart_mm``."""
        voxels, scores = find_peaks(self._map, self._take.threshold)
        positions = np.asarray([self._grid.to_mm(v) for v in voxels], np.float64).reshape(-1, 3)
        kept = keep_apart(positions, scores, self._take.apart_mm)[: self._take.at_most]
        return tuple(Candidate(position_mm=self._grid.to_mm(voxels[k])) for k in kept)

    def crops(self, candidates: tuple[Candidate, ...]) -> Iterator[Tensors]:
        """The tensors of one candidate after the other."""
        assert self._take.size is not None  # noqa: S101 - flow_faults refuses peaks without
        for one in candidates:
            yield self._tensors(Grid.around(one.position_mm, self._take.size, self._take.spacing_mm))

    def whole(self) -> Assembled:
        """The box, or all of the earlier grid, at the new spacing.

        Raises:
            ContentError: ``out_of_envelope``: nothing reaches the threshold, or the new grid is too large.
        """
        low, high = np.asarray(self._grid.low_mm), np.asarray(self._grid.high_mm)
        spacing = self._take.spacing_mm
        if self._take.by == "box":
            where = np.argwhere(self._map >= self._take.threshold)
            if not len(where):
                raise ContentError("out_of_envelope", "what the AI package examines is not in the images")
            margin, size = self._take.margin_mm, np.asarray(self._grid.spacing_mm)
            begin, end = low + where.min(axis=0) * size - margin, low + (where.max(axis=0) + 1) * size + margin
            low, high = np.maximum(begin, low), np.minimum(end, high)
        if self._take.size is not None:
            grid = Grid.around(((low + high) / 2).tolist(), self._take.size, spacing)
        else:
            grid = Grid.covering(low.tolist(), high.tolist(), spacing)
        return volume_of(self._place.stack, grid, self._tensors(grid), self._place.numbers)

    def _tensors(self, grid: Grid) -> Tensors:
        """Volume and map on a grid, as the manifest names them: [1, 1, D, H, W] each."""
        tensors: Tensors = {}
        if self._take.tensor is not None:
            tensors[self._take.tensor] = self._preprocessor.sample(self._place.stack, grid)[None, None]
        if self._take.map_tensor is not None:
            tensors[self._take.map_tensor] = resample(self._map, self._grid, grid)[None, None]
        return tensors
