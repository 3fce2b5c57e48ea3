"""What goes into a pipeline and what comes out: arrays and ids, nothing of DICOM's transport.

An input is one picture (X-ray) or a stack of parallel pictures (CT). Pictures are prepared one by one, as they
arrive, into something small (``Prepared``); when the last one is in, ``Stack`` puts them in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.message import Message

#: Tensors by the names that the ONNX graph gives them.
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One decoded picture.

    Attributes:
        id: The caller's name of it (the appliance uses the SOP Instance UID); comes back in key slices and regions.
        array: [H, W]; CT in HU, X-ray in MONOCHROME2 sense (bright = dense) after modality and VOI LUTs. Any real
            dtype; float32 and int16 are taken without a copy.
        spacing_mm: Distance of (row, column) centres, ``None`` where the header has none.
        numbers: Further facts that the output shall carry for drift and replay.
    """

    id: str
    array: NDArray[Any]
    spacing_mm: tuple[float, float] | None = None
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One picture made small by a preprocessor, with what is needed to find the way back to its own pixels."""

    id: str
    array: NDArray[Any]
    #: Rows and columns of the picture it was made of.
    shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Prepared pictures of one series revision, sorted by position along their common normal (one for an X-ray).

    Attributes:
        slices: In order of rising position.
        positions_mm: Of each slice along the normal, strictly rising; ``(0.0,)`` for a single picture.
        normal: Unit vector of rising positions in the patient's axes (x left, y back, z head).
        tilt_deg: Gantry tilt: angle between the normal and the line through the slices' first pixels.
        shifts_mm: Of each slice's first pixel against that of the first slice, (down the rows, along the columns):
            what a tilted gantry shears. Empty: none.
    """

    slices: tuple[Prepared, ...]
    positions_mm: tuple[float, ...] = (0.0,)
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)
    tilt_deg: float = 0.0
    shifts_mm: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """A stack that is empty or out of order cannot exist; the caller's geometry check must have refused it."""
        if not self.slices or len(self.slices) != len(self.positions_mm):
            msg = f"{len(self.slices)} slices with {len(self.positions_mm)} positions"
            raise ValueError(msg)
        if any(b <= a for a, b in zip(self.positions_mm, self.positions_mm[1:], strict=False)):
            msg = "positions do not rise; sort the slices and refuse duplicates before"
            raise ValueError(msg)
        if self.shifts_mm and len(self.shifts_mm) != len(self.slices):
            msg = f"{len(self.slices)} slices with {len(self.shifts_mm)} shifts"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A whole CT series at once, for golden cases, tools and tests; the worker prepares slice by slice instead.

    Attributes:
        array: [D, H, W] in HU, int16 or float32, rising positions.
        spacing_mm: In plane, (row, column).
        positions_mm: [D] along the normal.
        shifts_mm: See ``Stack``.
    """

    array: NDArray[Any]
    slice_ids: tuple[str, ...]
    positions_mm: tuple[float, ...]
    spacing_mm: tuple[float, float]
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)
    tilt_deg: float = 0.0
    shifts_mm: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A place in one picture. ``points`` are (column, row) in the ORIGINAL picture, 0-based pixel centres.

    A ``box`` has two points (top left, bottom right), a ``point`` has one.
    """

    slice_id: str
    kind: Literal["box", "point"]
    points: tuple[tuple[float, float], ...]
    finding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number with its UCUM unit."""

    name: str
    value: float
    unit: str
    sd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One place that a detector found, best seen in one picture."""

    finding: str
    slice_id: str
    #: (column, row) in the original picture, 0-based pixel centres.
    point: tuple[float, float]
    #: In the stack's frame (see ``engines.grid``): along the normal, down the rows, along the columns.
    position_mm: tuple[float, float, float]
    diameter_mm: float
    score: float
    #: Where the head measures it.
    volume_mm3: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutput:
    """What a package says of one input, before any threshold of the site.

    Attributes:
        scores: By finding id, for every finding of the stage; compared with the operating point elsewhere.
        measurements: By finding id.
        key_slices: By finding id: ids of the pictures that show it best, most telling first.
        regions: Of all findings.
        numbers: What was measured besides (slices, spacing, brain volume, ...), for drift and replay.
        warnings: For a person, where the package has any.
        masks: By finding id, in the grid of the graph's output; for objects that draw outlines. Empty where a head
            makes none. ``Assembled.overlay`` gives them their way back to the pictures.
        marks: Of all findings, each finding's best first. Empty where a head makes none.
    """

    scores: dict[str, float]
    measurements: dict[str, tuple[Measured, ...]] = field(default_factory=dict)
    key_slices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    regions: tuple[Region, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)
    warnings: tuple[Message, ...] = ()
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
