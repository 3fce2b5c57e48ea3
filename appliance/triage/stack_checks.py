"""Which stacks of slices must not be scored, by their geometry. Pure; every refusal names what was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from appliance.dicom.geometry import Geometry, SlicePlace
from appliance.errors import NotAnalysable
from appliance.records import Reason
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
    named = [" and ".join(numbers[index] for index in group) for group in geometry.duplicates[:_NAMED_AT_MOST]]
    more = ", ..." if len(geometry.duplicates) > _NAMED_AT_MOST else ""
    raise NotAnalysable(
        Reason.OUT_OF_ENVELOPE,
        f"{len(geometry.duplicates)} positions hold more than one slice (images {', '.join(named)}{more})",
    )


def refuse_gaps(geometry: Geometry) -> None:
    """Name the slices that are missing.

    Raises:
        NotAnalysable: INCOMPLETE.
    """
    if not geometry.gaps:
        return
    total = len(geometry.order) + geometry.missing
    named = [
        str(gap.first_number) if gap.count == 1 else f"{gap.first_number} to {gap.last_number}"
        for gap in geometry.gaps[:_NAMED_AT_MOST]
    ]
    more = ", ..." if len(geometry.gaps) > _NAMED_AT_MOST else ""
    slices = "1 slice is" if geometry.missing == 1 else f"{geometry.missing} slices are"
    raise NotAnalysable(
        Reason.INCOMPLETE, f"{slices} missing: {', '.join(named)}{more} of {total}, counted along the series"
    )


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
    faults = []
    count = len(places)
    if envelope.slices is not None and not envelope.slices.holds(count):
        faults.append(f"{count} slices are not covered")
    told = [place.thickness_mm for place in places if place.thickness_mm]
    thickness = float(np.median(told)) if told else geometry.spacing_mm
    if envelope.slice_thickness_mm is not None and thickness and not envelope.slice_thickness_mm.holds(thickness):
        faults.append(f"slices of {thickness:g} mm are not covered")
    if envelope.pixel_spacing_mm is not None and pixel_mm and not all(map(envelope.pixel_spacing_mm.holds, pixel_mm)):
        faults.append(f"pixels of {pixel_mm[0]:g} x {pixel_mm[1]:g} mm are not covered")
    widest = float(np.max(np.diff(geometry.positions_mm), initial=0.0))
    if envelope.max_gap_mm is not None and widest > envelope.max_gap_mm + 1e-3:
        faults.append(f"slices {widest:.1f} mm apart are not covered, at most {envelope.max_gap_mm:g} mm")
    if envelope.max_tilt_deg is not None and geometry.tilt_deg > envelope.max_tilt_deg:
        faults.append(f"a gantry tilt of {geometry.tilt_deg:.0f} degrees is not covered")
    if envelope.orientation is not None:
        axis = ("sagittal", "coronal", "axial").index(envelope.orientation)
        oblique = float(np.degrees(np.arccos(min(1.0, abs(geometry.normal[axis])))))
        if geometry.plane not in {envelope.orientation, "oblique"}:
            faults.append(f"{geometry.plane} slices are not covered")
        elif envelope.max_oblique_deg is not None and oblique > envelope.max_oblique_deg:
            faults.append(f"slices {oblique:.0f} degrees off the {envelope.orientation} plane are not covered")
        elif geometry.plane == "oblique" and envelope.max_oblique_deg is None:
            faults.append("oblique slices are not covered")
    if faults:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "; ".join(faults))
