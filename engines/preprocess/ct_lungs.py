"""A chest CT becomes its lungs alone: one volume around them, everything else as thin as lung.

The lungs are looked for in the pixels, whatever the header says; what shows none is refused here, before any graph
runs. Chest wall, heart and diaphragm are taken away, so that a graph that looks for dense things in the lungs sees no
other, and what only leans on the wall stands free. The grid is no larger than the lungs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.grid import Grid
from engines.preprocess.base import Assembled, volume_of
from engines.preprocess.ct_volume import CtVolume
from engines.preprocess.lungs import LungGuard, Lungs
from engines.types import Stack

#: Kept around the lungs on every side.
_MARGIN_MM = 6.0
#: Air and what is partly air, in HU: kept up to the very edge of the lungs. Denser things there belong to the wall.
_AIRY_HU = -500.0


class CtLungs(CtVolume):
    """Fills a tensor [1, 1, D, H, W] float32 with the lungs; elsewhere it holds ``lung_hu``, normalised.

    Attributes:
        lung_hu: What stands where there is no lung.
        guard: What must be seen for the input to be a chest.
    """

    lung_hu: float = -850.0
    guard: LungGuard = LungGuard()

    def warmup(self) -> None:
        """Load SciPy besides, some 30 MB and a quarter of a second."""
        import scipy.ndimage  # noqa: F401 - loaded, not used

        super().warmup()

    def assemble(self, stack: Stack) -> Assembled:
        """Find the lungs, and lay a grid around them.

        Raises:
            ContentError: See ``CtVolume.assemble``; ``out_of_envelope`` where no pair of lungs is seen.
        """
        depth, rows, columns = self.spacing_mm
        wide = self.model_copy(update={"spacing_mm": (2 * depth, 2 * rows, 2 * columns)})
        seen = super(CtLungs, wide).assemble(stack)
        assert seen.grid is not None  # noqa: S101 - CtVolume lays one
        hu = seen.tensors[self.tensor][0, 0]
        hu *= np.float32(self.sd)
        hu += np.float32(self.mean)
        lungs, numbers = self.guard.check(hu, seen.grid, stack)
        grid, near, deep = self._around(lungs, seen.grid)
        values = self.sample(stack, grid)
        airy = np.float32((_AIRY_HU - self.mean) / self.sd)
        keep = deep | (near & (values < airy))
        values[~keep] = np.float32((self.lung_hu - self.mean) / self.sd)
        numbers |= {"slices": float(len(stack.slices)), "voxels": float(values.size), "tilt_deg": stack.tilt_deg}
        return volume_of(stack, grid, {self.tensor: values[None, None]}, numbers)

    def _around(self, lungs: Lungs, coarse: Grid) -> tuple[Grid, NDArray[np.bool_], NDArray[np.bool_]]:
        """The fine grid around the lungs, and on it: in or at the lungs; inside them, off their edge."""
        where = [np.flatnonzero(lungs.closed.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        margin = [round(_MARGIN_MM / mm) for mm in coarse.spacing_mm]
        low = [max(0, int(found[0]) - m) for found, m in zip(where, margin, strict=True)]
        high = [min(n, int(found[-1]) + 1 + m) for found, m, n in zip(where, margin, coarse.shape, strict=True)]
        box: Any = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        begin = [o + (a - 0.5) * s for o, a, s in zip(coarse.origin_mm, low, coarse.spacing_mm, strict=True)]
        end = [o + (b - 0.5) * s for o, b, s in zip(coarse.origin_mm, high, coarse.spacing_mm, strict=True)]
        grid = Grid.covering(begin, end, self.spacing_mm)
        # Two fine voxels to each coarse one, along every axis.
        near, deep = (
            mask[box].repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2) for mask in (lungs.closed, lungs.deep)
        )
        return grid, near, deep
