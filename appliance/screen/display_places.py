"""Where a frame lies and how large it is, as its headers say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.dicom import tags
from appliance.dicom.attributes import Attributes

_VIEW_POSITION, _IMAGER_PIXEL_SPACING, _CALIBRATION_TYPE = 0x00185101, 0x00181164, 0x00280A02
_PIXEL_ASPECT_RATIO, _IMAGE_LATERALITY, _LATERALITY = 0x00280034, 0x00200062, 0x00200060


def place_of(groups: Sequence[Attributes], shape: tuple[int, ...]) -> dict[str, Any]:
    """Where the frame lies and how large it is."""
    top = groups[-1]
    spacing, at = _spacing(groups)
    ratio = top.decimals(_PIXEL_ASPECT_RATIO)
    aspect = spacing[0] / spacing[1] if spacing else ratio[0] / ratio[1] if len(ratio) == 2 and min(ratio) > 0 else 1.0
    return {
        "cols": shape[1],
        "rows": shape[0],
        "spacing": spacing,
        "spacing_at": at,
        #: Height of a pixel to its width.
        "aspect": aspect,
        "orientation": _list(groups, tags.IMAGE_ORIENTATION_PATIENT, 6),
        "position": _list(groups, tags.IMAGE_POSITION_PATIENT, 3),
        "towards": [part.strip()[:4] for part in top.ascii(tags.PATIENT_ORIENTATION).split("\\")[:2]],
        "laterality": (top.ascii(_IMAGE_LATERALITY) or top.ascii(_LATERALITY))[:1],
        "view": top.ascii(_VIEW_POSITION)[:16],
    }


def _spacing(groups: Sequence[Attributes]) -> tuple[list[float] | None, str]:
    """Distances between rows and columns in mm, and where they hold: patient | detector | "" (PS3.3 §10.7.1.3)."""
    own, imager = _list(groups, tags.PIXEL_SPACING, 2), _list(groups, _IMAGER_PIXEL_SPACING, 2)
    own, imager = (one if one and min(one) > 0 else None for one in (own, imager))
    in_space = _list(groups, tags.IMAGE_ORIENTATION_PATIENT, 6) is not None
    calibrated = in_space or bool(groups[-1].ascii(_CALIBRATION_TYPE)) or (imager is not None and own != imager)
    if own and calibrated:
        return own, "patient"
    if imager:
        return imager, "detector"
    # Of a projection that does not say what its spacing means, no length is told.
    return own, ""


def _list(groups: Sequence[Attributes], tag: int, count: int) -> list[float] | None:
    for group in groups:
        if tag in group:
            numbers = group.decimals(tag)
            return list(numbers) if len(numbers) == count else None
    return None
