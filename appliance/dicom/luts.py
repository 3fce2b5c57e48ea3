"""Grey values: from stored values to Hounsfield units, and to what a reader sees (PS3.3 §C.11, PS3.4 §N.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.dicom import tags
from appliance.dicom.attributes import Attributes
from appliance.errors import NotAnalysable
from appliance.records import Reason

#: HU of air: what lies outside the field of view is shown and computed as air.
AIR_HU = -1024


def hounsfield(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.int16]:
    """Whole Hounsfield units, from air to the end of int16."""
    if slope == 1 and intercept == int(intercept) and abs(intercept) < 1 << 24 and stored.dtype.itemsize <= 2:
        values: NDArray[Any] = np.add(stored, np.int32(intercept), dtype=np.int32)
    else:
        values = np.rint(stored * np.float64(slope) + intercept)
    hu: NDArray[np.int16] = np.clip(values, AIR_HU, np.iinfo(np.int16).max).astype(np.int16)
    return hu


def is_inverted(attributes: Attributes) -> bool:
    """Whether the smallest value is white (PS3.3 §C.7.6.3.1.2, §C.8.11.3.1).

    Raises:
        NotAnalysable: OUT_OF_ENVELOPE; no grey-scale image, or its attributes say both.
    """
    photometric = attributes.ascii(tags.PHOTOMETRIC_INTERPRETATION)
    shape = attributes.ascii(tags.PRESENTATION_LUT_SHAPE)
    if photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, "not a grey-scale image")
    inverted = photometric == "MONOCHROME1"
    if (shape, inverted) in {("IDENTITY", True), ("INVERSE", False)}:
        # A model that takes bone for air must not guess which of the two attributes is wrong.
        raise NotAnalysable(
            Reason.OUT_OF_ENVELOPE,
            "{photometric} and Presentation LUT Shape {shape} contradict one another",
            photometric=photometric,
            shape=shape,
        )
    return inverted


def modality_values(stored: NDArray[Any], attributes: Attributes) -> NDArray[np.float32]:
    """Manufacturer independent values: by the Modality LUT, else by slope and intercept (PS3.3 §C.11.1).

    Raises:
        NotAnalysable: CANNOT_DECODE, a broken LUT.
    """
    for item in attributes.items(tags.MODALITY_LUT_SEQUENCE):
        return _look_up(stored, item, signed=attributes.short(tags.PIXEL_REPRESENTATION) == 1)[0]
    slope, intercept = attributes.decimal(tags.RESCALE_SLOPE), attributes.decimal(tags.RESCALE_INTERCEPT)
    values = stored.astype(np.float32)
    if slope is not None and slope != 1:
        values *= np.float32(slope)
    if intercept:
        values += np.float32(intercept)
    return values


def values_of_interest(
    values: NDArray[np.float32], attributes: Attributes, padding: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Values from 0 to 1: by the first VOI LUT, else the first window, else the range of what is no padding.

    Raises:
        NotAnalysable: CANNOT_DECODE, a broken LUT.
    """
    for item in attributes.items(tags.VOI_LUT_SEQUENCE):
        signed = tags.MODALITY_LUT_SEQUENCE not in attributes and (
            attributes.short(tags.PIXEL_REPRESENTATION) == 1 or (attributes.decimal(tags.RESCALE_INTERCEPT) or 0) < 0
        )
        entries, bits = _look_up(values, item, signed=signed)
        return _unit(entries / np.float32((1 << bits) - 1))
    centre, width = attributes.decimal(tags.WINDOW_CENTER), attributes.decimal(tags.WINDOW_WIDTH)
    if centre is not None and width is not None and width > 0:
        return window_values(values, centre, width, attributes.ascii(tags.VOI_LUT_FUNCTION))
    seen = values if padding is None or padding.all() else values[~padding]
    low, high = float(seen.min()), float(seen.max())
    return _unit((values - np.float32(low)) / np.float32(max(high - low, 1e-6)))


def window_values(
    values: NDArray[np.float32], centre: float, width: float, function: str = "LINEAR"
) -> NDArray[np.float32]:
    """VOI LUT functions LINEAR, LINEAR_EXACT and SIGMOID (PS3.3 §C.11.2.1.2, §C.11.2.1.3), from 0 to 1."""
    if function == "SIGMOID":
        return _unit(1 / (1 + np.exp(np.clip(-4 * (values - np.float32(centre)) / np.float32(width), -80, 80))))
    if function == "LINEAR_EXACT" or width <= 1:
        return _unit((values - np.float32(centre)) / np.float32(width) + np.float32(0.5))
    return _unit((values - np.float32(centre - 0.5)) / np.float32(width - 1) + np.float32(0.5))


def _unit(values: NDArray[Any]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = np.clip(values, 0, 1).astype(np.float32, copy=False)
    return unit


def _look_up(values: NDArray[Any], item: Attributes, *, signed: bool) -> tuple[NDArray[np.float32], int]:
    """The entries of a LUT for each value, and their bits (PS3.3 §C.11.1.1)."""
    order: Any = "big" if item.encoding.big else "little"
    descriptor, data = item.raw(tags.LUT_DESCRIPTOR, 6), item.raw(tags.LUT_DATA, 1 << 18)
    if len(descriptor) != 6:
        raise NotAnalysable(Reason.CANNOT_DECODE, "a look-up table without a descriptor")
    count = int.from_bytes(descriptor[:2], order) or 1 << 16
    first = int.from_bytes(descriptor[2:4], order, signed=signed)
    bits = int.from_bytes(descriptor[4:6], order)
    wide = np.dtype(">u2" if item.encoding.big else "<u2")
    dtype = wide if len(data) >= 2 * count else np.dtype(np.uint8)
    if len(data) < count or not 8 <= bits <= 16:
        raise NotAnalysable(
            Reason.CANNOT_DECODE,
            "a look-up table of {count} entries of {bits} bits in {length} bytes",
            count=count,
            bits=bits,
            length=len(data),
        )
    table = np.frombuffer(data, dtype=dtype, count=count).astype(np.float32)
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)
    return table[index], bits
