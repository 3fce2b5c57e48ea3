"""What the painters of a head share: tissues, drawn sizes, and the slice under the brush.

Coordinates are patient coordinates (LPS) with the origin between the eyes' and the ears' planes: x to the patient's
left, y to the back, z to the vertex. The brain reaches from about z = -50 (foramen magnum) to z = 103 (vertex).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from appliance.simulate.phantom import Draw, Floats


class Tissue(IntEnum):
    """What a voxel is; bleeds are grown within these."""

    OUTSIDE = 0
    SOFT = 1
    BONE = 2
    BRAIN = 3
    #: Cerebrospinal fluid between the gyri and in the cisterns.
    FLUID = 4
    VENTRICLE = 5
    FALX = 6


@dataclass(frozen=True, slots=True)
class Sizes:
    """One head's sizes in mm and densities in HU."""

    half_width: float
    half_length: float
    skull: float
    grey: float
    white: float
    csf: float
    falx: float
    bone: float
    diploe: float
    #: Scale of the ventricles; 1 is a middle-aged adult.
    ventricle: float

    @classmethod
    def drawn(cls, draw: Draw) -> Sizes:
        """Draw all of them from ``phantoms.yaml``."""
        mean, contrast = draw("brain_mean_hu"), draw("grey_white_contrast_hu")
        return cls(
            half_width=draw("head_width_mm") / 2,
            half_length=draw("head_length_mm") / 2,
            skull=draw("skull_thickness_mm"),
            grey=mean + contrast / 2,
            white=mean - contrast / 2,
            csf=draw("csf_hu"),
            falx=draw("falx_hu"),
            bone=draw("skull_hu"),
            diploe=draw("diploe_hu"),
            ventricle=draw("ventricle_scale"),
        )

    def with_brain(self, mean_hu: float) -> Sizes:
        """The same head with another mean of grey and white matter; their difference stays."""
        half = (self.grey - self.white) / 2
        return replace(self, grey=mean_hu + half, white=mean_hu - half)


@dataclass(frozen=True, slots=True)
class Canvas:
    """One slice: where it lies, how deep, and what has been painted so far. Arrays are [H, W] unless said."""

    #: [1, W]; ``y`` and ``z`` are [H, 1]: a row lies at one y and one z, even under gantry tilt.
    x: Floats
    y: Floats
    z: Floats
    #: Millimetres below the inner surface of the skull; negative outside the brain's room.
    depth: Floats
    #: Millimetres below the outer surface of the skull; negative in the scalp and in the air.
    outer: Floats
    hu: Floats
    tissue: npt.NDArray[np.uint8]

    @property
    def side(self) -> Floats:
        """Distance from the midline [1, W]."""
        side: Floats = np.abs(self.x)
        return side

    def paint(self, where: npt.NDArray[np.bool_], hu: Floats | float, tissue: Tissue | None = None) -> None:
        """Lay a density, and a tissue if it is another, over the voxels ``where``."""
        np.copyto(self.hu, np.float32(hu) if isinstance(hu, (int, float)) else hu, where=where, casting="same_kind")
        if tissue is not None:
            self.tissue[where] = tissue
