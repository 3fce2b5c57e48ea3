"""Whether a header speaks for or against a package: the part of routing that the worker looks at again. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from appliance.dicom.classes import SLICE_CLASSES
from appliance.records import Detail, Header
from appliance.triage.protocol import SeriesKind
from engines.manifest import Envelope, Input

#: Values of ImageType (PS3.3 C.8.2.1.1.1, C.7.6.1.1.2) that make a series something else than the acquired images.
_NEVER_CLAIMED = {
    "LOCALIZER": "localizer",
    "REFORMATTED": "reformat",
    "MPR": "reformat",
    "CSA MPR": "reformat",
    "CSA REFORMAT": "reformat",
    "PROJECTION IMAGE": "projection",
    "MIP": "projection",
    "SCREEN SAVE": "screen save",
}
_DOSE_REPORTS = frozenset({"1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.76"})
_AGE = re.compile(r"(\d{3})([DWMY])\Z")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_NO_CONTRAST = frozenset({"", "NO", "NONE"})
_PLANE_NOT_COVERED = {
    "axial": Detail("axial slices are not covered"),
    "coronal": Detail("coronal slices are not covered"),
    "sagittal": Detail("sagittal slices are not covered"),
    "oblique": Detail("oblique slices are not covered"),
}
#: In-plane axes closer than this to a patient axis make a series axial, coronal or sagittal.
_OBLIQUE_DEG = 30.0


def series_kind(header: Header) -> SeriesKind:
    """Whether a series is a stack of slices or projections: how the worker decodes it."""
    return "ct" if header.modality == "CT" or header.sop_class_uid in SLICE_CLASSES else "xray"


def unclaimed(wanted: Input, header: Header) -> str | None:
    """Why an input does not claim a series, or None when it does."""
    if header.sop_class_uid in _DOSE_REPORTS:
        return "dose report"
    if not header.has_pixels:
        return "no image"
    for value in header.image_type:
        if value.upper() in _NEVER_CLAIMED:
            return _NEVER_CLAIMED[value.upper()]
    # A missing Modality is told by the class: some converters drop the tag.
    if header.sop_class_uid not in wanted.sop_classes or (header.modality and header.modality not in wanted.modality):
        return "other modality"
    envelope = wanted.envelope
    if header.body_part_examined:
        if envelope.body_parts and header.body_part_examined.upper() not in envelope.body_parts:
            return "other body part"
    elif _protocol_speaks(envelope.refuse_protocol_patterns, header):
        return "other body part"
    return None


def speaks_for_part(envelope: Envelope, header: Header) -> bool:
    """Whether the header of a claimed series names a body part of the envelope, rather than leave it to the content."""
    return bool(header.body_part_examined) or _protocol_speaks(envelope.protocol_patterns, header)


def _protocol_speaks(patterns: Iterable[str], header: Header) -> bool:
    text = f"{header.protocol_name} {header.series_description} {header.study_description}"
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)


def envelope_faults(envelope: Envelope, header: Header, images: int) -> list[Detail]:
    """What the header says against a series that a package claims; empty when it lies in the declared envelope.

    A value that the header does not give speaks against nothing; the worker looks again where pixels can tell.
    """
    faults = []
    makes = [name.lower() for name in envelope.manufacturers]
    if makes and header.manufacturer and not any(make in header.manufacturer.lower() for make in makes):
        faults.append(Detail("this make of scanner is not covered"))
    # A series may show several views, one header speaks for one image only: the worker looks at each.
    view = header.view_position.upper() if images == 1 else ""
    if envelope.view_positions and view and view not in envelope.view_positions:
        faults.append(Detail("this view is not covered"))
    age = age_years(header.patient_age)
    if envelope.age_years is not None and age is not None and not envelope.age_years.holds(age):
        faults.append(Detail("the patient's age is not covered"))
    is_stack = header.modality == "CT"
    slices = header.number_of_frames or images
    if is_stack and envelope.slices is not None and not envelope.slices.holds(slices):
        faults.append(count_not_covered(slices))
    thickness = header.slice_thickness_mm
    if envelope.slice_thickness_mm is not None and thickness and not envelope.slice_thickness_mm.holds(thickness):
        faults.append(thickness_not_covered(thickness))
    orientation = plane(header.image_orientation_patient)
    if envelope.orientation is not None and orientation is not None and orientation != envelope.orientation:
        faults.append(plane_not_covered(orientation))
    if any(re.search(pattern, header.convolution_kernel, re.IGNORECASE) for pattern in envelope.refuse_kernels):
        faults.append(Detail("this convolution kernel is not covered"))
    if not envelope.allow_contrast and has_contrast(header):
        faults.append(Detail("a contrast agent was given"))
    if not envelope.allow_lossy and header.lossy_image_compression == "01":
        faults.append(Detail("the images were compressed with loss"))
    if not envelope.allow_derived and header.image_type[:1] == ("DERIVED",):
        faults.append(Detail("the images are derived"))
    return faults


def shows(envelope: Envelope, header: Header) -> bool:
    """Whether an X-ray is known to be of a view that the input takes (ViewPosition, PS3.3 C.8.11.2)."""
    return not envelope.view_positions or header.view_position.upper() in envelope.view_positions


def count_not_covered(slices: int) -> Detail:
    """A series of so many slices lies outside the envelope."""
    return Detail("{count} slices are not covered", {"count": slices})


def thickness_not_covered(thickness_mm: float) -> Detail:
    """Slices of that thickness lie outside the envelope."""
    return Detail("slices of {thickness} mm are not covered", {"thickness": thickness_mm})


def plane_not_covered(orientation: str) -> Detail:
    """Axial, coronal, sagittal or oblique slices lie outside the envelope."""
    return _PLANE_NOT_COVERED[orientation]


def has_contrast(header: Header) -> bool:
    """Whether the header names a contrast agent (PS3.3 C.7.6.4)."""
    return header.contrast_bolus_agent.strip().upper() not in _NO_CONTRAST


def age_years(text: str) -> float | None:
    """PatientAge (VR AS, PS3.5 §6.2) in years, None where it is missing or malformed."""
    match = _AGE.match(text.strip())
    return int(match[1]) * _YEARS[match[2]] if match else None


def plane(orientation: tuple[float, ...] | None) -> str | None:
    """axial, coronal, sagittal or oblique, from ImageOrientationPatient; None without one."""
    if orientation is None:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if not np.isfinite(length) or length == 0:
        return None
    axis = int(np.argmax(np.abs(normal)))
    if abs(normal[axis]) / length < np.cos(np.radians(_OBLIQUE_DEG)):
        return "oblique"
    return ("sagittal", "coronal", "axial")[axis]
