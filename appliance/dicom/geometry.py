"""The slices of a series in space: order, spacing, tilt, holes and doubles (PS3.3 §C.7.6.2).

Positions decide, never InstanceNumber or SliceLocation: a hole is named, not interpolated, and a tilted gantry is
told as such, because a volume built from it as if it stood upright is sheared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appliance.errors import NotAnalysable
from appliance.records import Reason, Vector

Orientation = tuple[float, float, float, float, float, float]

TILT_DEGREES = 0.5
#: Positions closer than this are one position.
SAME_POSITION_MM = 0.01
#: A distance that differs by less than this share of the spacing (and 0.05 mm) is the spacing.
EVEN_SHARE = 0.05
EVEN_MM = 0.05
#: A direction within 35 degrees of a body axis belongs to it; gantries tilt up to 30.
PLANE_COSINE = 0.82


@dataclass(frozen=True, slots=True)
class SlicePlace:
    """Where one slice lies: Image Position (Patient) in mm, Image Orientation (Patient), Slice Thickness in mm."""

    position: Vector
    orientation: Orientation
    thickness_mm: float | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Slices that are not there.

    Slices are counted from 1 along the normal, missing ones too: the first missing one is ``first_number``.
    """

    first_number: int
    count: int
    #: Positions along the normal of the neighbours that are there.
    after_mm: float
    before_mm: float

    @property
    def last_number(self) -> int:
        """The number of the last missing slice."""
        return self.first_number + self.count - 1


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the positions of a series say."""

    #: Indexes of the given slices in rising position along the normal, one for each position.
    order: tuple[int, ...]
    #: Positions along the normal, in ``order``.
    positions_mm: tuple[float, ...]
    #: The usual distance between neighbours along the normal; ``None`` for fewer than two positions.
    spacing_mm: float | None
    #: Angle between the way from slice to slice and the normal; 0 where it is not above 0.5 degrees.
    tilt_deg: float
    #: Distances differ in a way that missing slices do not explain.
    uneven: bool
    gaps: tuple[Gap, ...]
    #: Indexes of the given slices that share a position, the one in ``order`` first.
    duplicates: tuple[tuple[int, ...], ...]
    #: axial, coronal, sagittal or oblique.
    plane: str
    #: Unit normal of the slices: the direction of rising position.
    normal: Vector

    @property
    def regular(self) -> bool:
        """Every slice once, at even distances."""
        return not (self.uneven or self.gaps or self.duplicates)

    @property
    def missing(self) -> int:
        """How many slices are not there, as far as the positions tell."""
        return sum(gap.count for gap in self.gaps)


def sort_slices(slices: Sequence[SlicePlace]) -> Geometry:
    """Put slices in order along their normal and say what is wrong with them.

    Raises:
        NotAnalysable: OUT_OF_ENVELOPE; no slices, no usable orientation, or slices that are not parallel.
    """
    if not slices:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "the series has no slices with a position")
    normals = _normals([place.orientation for place in slices])
    normal = normals[0]
    if np.any(normals @ normal < np.cos(np.radians(TILT_DEGREES))):
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "the slices of the series are not parallel")
    positions = np.array([place.position for place in slices], dtype=np.float64)
    along = positions @ normal
    order, duplicates = _unique(along)
    places = along[order]
    steps = np.diff(places)
    spacing = float(np.median(steps)) if len(steps) else None
    gaps, uneven = _gaps(places, [slices[index].thickness_mm for index in order], spacing)
    return Geometry(
        order=tuple(order),
        positions_mm=tuple(float(value) for value in places),
        spacing_mm=spacing,
        tilt_deg=_tilt(positions[order], normal),
        uneven=uneven,
        gaps=gaps,
        duplicates=duplicates,
        plane=_plane(normal),
        normal=(float(normal[0]), float(normal[1]), float(normal[2])),
    )


def in_plane_shifts(slices: Sequence[SlicePlace]) -> tuple[tuple[float, float], ...]:
    """How far each slice's first pixel lies from that of the first slice, within the plane.

    Args:
        slices: Of one series, in order.

    Returns:
        (down the rows, along the columns) in mm for each slice; empty where no slice is shifted.
    """
    along, down = np.array(slices[0].orientation, dtype=np.float64).reshape(2, 3)
    ways = np.array([place.position for place in slices], dtype=np.float64) - slices[0].position
    shifts = np.stack([ways @ down, ways @ along], axis=1)
    if np.abs(shifts).max() < SAME_POSITION_MM:
        return ()
    return tuple((float(d), float(a)) for d, a in shifts)


def regular(slices: Sequence[SlicePlace]) -> bool:
    """Whether positions alone let a series look complete: two or more parallel slices, each once, evenly spaced."""
    if len(slices) < 2:
        return False
    try:
        return sort_slices(slices).regular
    except NotAnalysable:
        return False


def _normals(orientations: Sequence[Orientation]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Unit normals, one row per slice."""
    cosines = np.array(orientations, dtype=np.float64)
    normals = np.cross(cosines[:, :3], cosines[:, 3:])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    # Direction cosines that are not unit vectors at a right angle place nothing (PS3.3 §C.7.6.2.1.1).
    if not np.all(np.abs(lengths - 1.0) <= 0.01):
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "Image Orientation (Patient) is not two perpendicular unit vectors")
    result: np.ndarray[tuple[int, int], np.dtype[np.float64]] = normals / lengths
    return result


def _unique(along: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
    """Indexes in rising order, one per position, and the groups that share one."""
    order: list[int] = []
    groups: list[list[int]] = []
    for index in np.argsort(along, kind="stable").tolist():
        if order and along[index] - along[order[-1]] < SAME_POSITION_MM:
            groups[-1].append(index)
        else:
            order.append(index)
            groups.append([index])
    return order, tuple(tuple(group) for group in groups if len(group) > 1)


def _gaps(
    places: np.ndarray[tuple[int], np.dtype[np.float64]], thicknesses: list[float | None], spacing: float | None
) -> tuple[tuple[Gap, ...], bool]:
    """Tell holes, which are whole multiples of the spacing, from series that change their spacing."""
    gaps: list[Gap] = []
    uneven = False
    if spacing is None:
        return (), False
    tolerance = max(EVEN_SHARE * spacing, EVEN_MM)
    usual = float(np.median([thickness or 0.0 for thickness in thicknesses]))
    number = 1
    for index, step in enumerate(np.diff(places).tolist()):
        number += 1
        if abs(step - spacing) <= tolerance:
            continue
        multiple = round(step / spacing)
        # A head protocol may go from thin to thick slices: where thickness grows with the step, nothing is missing.
        thicker = max(thicknesses[index] or 0.0, thicknesses[index + 1] or 0.0)
        covered = usual > 0 and thicker >= 0.9 * usual * multiple
        if multiple > 1 and not covered and abs(step - multiple * spacing) <= tolerance * multiple:
            gaps.append(Gap(number, multiple - 1, float(places[index]), float(places[index + 1])))
            number += multiple - 1
        else:
            uneven = True
    return tuple(gaps), uneven


def _tilt(positions: np.ndarray[tuple[int, int], np.dtype[np.float64]], normal: np.ndarray) -> float:
    """Degrees between the way from the first to the last slice and the normal."""
    if len(positions) < 2:
        return 0.0
    way = positions[-1] - positions[0]
    along = abs(float(way @ normal))
    across = float(np.linalg.norm(way - (way @ normal) * normal))
    degrees = float(np.degrees(np.arctan2(across, along)))
    return degrees if degrees > TILT_DEGREES else 0.0


def _plane(normal: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    axis = int(np.argmax(np.abs(normal)))
    return ("sagittal", "coronal", "axial")[axis] if abs(normal[axis]) >= PLANE_COSINE else "oblique"
