"""Which stacks of slices must not be scored, by their geometry. Pure; every refusal names what was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from appliance.dicom.geometry import Geometry, SlicePlace
from appliance.errors import NotAnalysable
from appliance.records import Detail, Reason
from appliance.triage.claims import count_not_covered, plane_not_covered, thickness_not_covered
from engines.manifest import Envelope

_NAMED_AT_MOST = 6


def refuse_duplicates(geometry: Geometry, numbers: Sequence[str]) -> None:
    """Name the slices that share a position.

    Args:
        geometry: Of the slices.
        numbers: Their instance numbers, in the order in which they were given.

    Raises:
        NotAnalysable: OUT_OF_ENVELOPE.
    """
    if not geometry.duplicates:
        return
    named = ["/".join(numbers[index] for index in group) for group in geometry.duplicates]
    raise NotAnalysable(
        Reason.OUT_OF_ENVELOPE, "several slices lie at the same position (images {images})", images=_listed(named)
    )


def refuse_gaps(geometry: Geometry) -> None:
    """Name the slices that are missing.

    Raises:
        NotAnalysable: INCOMPLETE.
    """
    if not geometry.gaps:
        return
    total = len(geometry.order) + geometry.missing
    named = _listed(
        [str(gap.first_number) if gap.count == 1 else f"{gap.first_number}-{gap.last_number}" for gap in geometry.gaps]
    )
    if geometry.missing == 1:
        raise NotAnalysable(
            Reason.INCOMPLETE,
            "1 slice is missing: {slices} of {total}, counted along the series",
            slices=named,
            total=total,
        )
    raise NotAnalysable(
        Reason.INCOMPLETE,
        "{count} slices are missing: {slices} of {total}, counted along the series",
        count=geometry.missing,
        slices=named,
        total=total,
    )


def _listed(names: Sequence[str]) -> str:
    """The first few, without words."""
    return ", ".join([*names[:_NAMED_AT_MOST], *(["..."] if len(names) > _NAMED_AT_MOST else [])])


def refuse_outside(
    envelope: Envelope, geometry: Geometry, places: Sequence[SlicePlace], pixel_mm: tuple[float, float] | None
) -> None:
    """Hold what positions and pixels tell against the envelope; the header alone was looked at by routing.

    Args:
        envelope: What the package declares.
        geometry: Of the slices.
        places: Of the slices that are taken.
        pixel_mm: Between rows, between columns.

    Raises:
        NotAnalysable: OUT_OF_ENVELOPE, naming everything that does not fit.
    """
    faults: list[Detail] = []
    count = len(places)
    if envelope.slices is not None and not envelope.slices.holds(count):
        faults.append(count_not_covered(count))
    told = [place.thickness_mm for place in places if place.thickness_mm]
    thickness = float(np.median(told)) if told else geometry.spacing_mm
    if envelope.slice_thickness_mm is not None and thickness and not envelope.slice_thickness_mm.holds(thickness):
        faults.append(thickness_not_covered(thickness))
    if envelope.pixel_spacing_mm is not None and pixel_mm and not all(map(envelope.pixel_spacing_mm.holds, pixel_mm)):
        faults.append(
            Detail("pixels of {rows} x {columns} mm are not covered", {"rows": pixel_mm[0], "columns": pixel_mm[1]})
        )
    widest = float(np.max(np.diff(geometry.positions_mm), initial=0.0))
    if envelope.max_gap_mm is not None and widest > envelope.max_gap_mm + 1e-3:
        faults.append(
            Detail(
                "slices {gap} mm apart are not covered, at most {most} mm",
                {"gap": round(widest, 1), "most": envelope.max_gap_mm},
            )
        )
    if envelope.max_tilt_deg is not None and geometry.tilt_deg > envelope.max_tilt_deg:
        faults.append(Detail("a gantry tilt of {tilt} degrees is not covered", {"tilt": round(geometry.tilt_deg)}))
    if envelope.orientation is not None:
        axis = ("sagittal", "coronal", "axial").index(envelope.orientation)
        oblique = float(np.degrees(np.arccos(min(1.0, abs(geometry.normal[axis])))))
        if geometry.plane not in {envelope.orientation, "oblique"}:
            faults.append(plane_not_covered(geometry.plane))
        elif envelope.max_oblique_deg is not None and oblique > envelope.max_oblique_deg:
            faults.append(Detail("slices {angle} degrees off their plane are not covered", {"angle": round(oblique)}))
        elif geometry.plane == "oblique" and envelope.max_oblique_deg is None:
            faults.append(plane_not_covered("oblique"))
    if faults:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, faults)
