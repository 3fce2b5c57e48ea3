"""What the pixel bytes of an object mean, as one digest (``records.Header.meaning_digest``).

Two objects with equal pixels and equal digests show the same picture in the same place with the same numbers, whatever
their transfer syntaxes; who it is, under which order, and the window somebody chose are not part of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from appliance.dicom import tags
from appliance.dicom.attributes import Attributes, decimals

#: Decimal strings are compared as numbers.
_DECIMALS = frozenset(
    {
        tags.IMAGE_POSITION_PATIENT,
        tags.IMAGE_ORIENTATION_PATIENT,
        tags.PIXEL_SPACING,
        tags.SLICE_THICKNESS,
        0x00181164,  # Imager Pixel Spacing
        0x00280034,  # Pixel Aspect Ratio
        tags.RESCALE_INTERCEPT,
        tags.RESCALE_SLOPE,
    }
)
_TEXTS = frozenset({tags.RESCALE_TYPE, tags.PATIENT_ORIENTATION, tags.PRESENTATION_LUT_SHAPE})
_BINARY = frozenset(
    {
        tags.SAMPLES_PER_PIXEL,
        tags.ROWS,
        tags.COLUMNS,
        tags.BITS_ALLOCATED,
        tags.BITS_STORED,
        tags.HIGH_BIT,
        tags.PIXEL_REPRESENTATION,
        tags.PIXEL_PADDING_VALUE,
        tags.PIXEL_PADDING_RANGE_LIMIT,
        0x00281101,  # palette descriptors and data
        0x00281102,
        0x00281103,
        0x00281201,
        0x00281202,
        0x00281203,
        tags.LUT_DESCRIPTOR,
        tags.LUT_DATA,
    }
)
_ALL = sorted(_DECIMALS | _TEXTS | _BINARY)
_SEQUENCES = (
    tags.MODALITY_LUT_SEQUENCE,
    tags.VOI_LUT_SEQUENCE,
    tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
)
#: JPEG 2000's own colour transforms are undone by its decoder: the pixels it gives are RGB.
_SAME_PHOTOMETRIC = {b"YBR_RCT": b"RGB", b"YBR_ICT": b"RGB"}


def meaning_digest(attributes: Attributes, *, native: bool) -> str:
    """SHA-256 in hexadecimal.

    Args:
        attributes: The top level of the data set.
        native: Whether the pixel data are not encapsulated.

    Raises:
        RejectedInstance: a sequence that counts cannot be read.
    """
    digest = hashlib.sha256()
    photometric = attributes.raw(tags.PHOTOMETRIC_INTERPRETATION, 64).strip(b"\0 ")
    digest.update(_SAME_PHOTOMETRIC.get(photometric, photometric))
    digest.update(b"%d frames;" % (attributes.integer(tags.NUMBER_OF_FRAMES) or 1))
    # Encapsulated data are put in order by their decoder; of native data, planes are the exception that matters.
    if native and attributes.short(tags.PLANAR_CONFIGURATION) == 1:
        digest.update(b"by plane")
    _add_values(digest, attributes)
    for sequence in _SEQUENCES:
        for number, item in enumerate(attributes.items(sequence)):
            digest.update(b"%08x item %d;" % (sequence, number))
            _add_values(digest, item)
    return digest.hexdigest()


def _add_values(digest: Any, attributes: Attributes) -> None:
    for tag in _ALL:
        if tag not in attributes:
            continue
        digest.update(b"%08x=" % tag)
        if tag in _BINARY:
            digest.update(attributes.canonical(tag))
        else:
            raw = attributes.raw(tag, 1024).strip(b"\0 ")
            numbers = decimals(raw) if tag in _DECIMALS else ()
            digest.update(repr(numbers).encode() if numbers else raw)
