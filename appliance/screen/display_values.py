"""What the pixels of a frame are on a screen: 16 bits or colours, their meaning after rescale, and their windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.dicom import luts, tags
from appliance.dicom.attributes import Attributes
from appliance.errors import NotAnalysable
from appliance.records import Reason

_PALETTES = ((0x00281101, 0x00281201), (0x00281102, 0x00281202), (0x00281103, 0x00281203))
#: Of what is looked at for the window "auto", so many values a side.
_SAMPLED = 128
_SIXTEEN = 65535


def values_of(
    stored: NDArray[Any], padding: NDArray[np.bool_] | None, photometric: str, groups: Sequence[Attributes]
) -> tuple[NDArray[Any], dict[str, Any]]:
    """What a viewer takes, [H, W] of 16 bits or [H, W, 3] of 8, and what it means."""
    top = groups[-1]
    if photometric == "PALETTE COLOR":
        stored = np.asarray(_coloured(stored, top))
    if stored.ndim == 3:
        return _eight_bits(stored), {"type": "rgb"}
    if photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise NotAnalysable(Reason.CANNOT_DECODE, "colours of the kind {photometric}", photometric=photometric[:16])
    inverted = photometric == "MONOCHROME1"
    if padding is not None and padding.any() and not padding.all():
        stored = _without_padding(stored, padding, inverted=inverted)
    windows = _windows(groups)
    slope, intercept = _one(groups, tags.RESCALE_SLOPE), _one(groups, tags.RESCALE_INTERCEPT)
    slope, intercept = slope or 1.0, intercept or 0.0
    if tags.MODALITY_LUT_SEQUENCE in top or tags.VOI_LUT_SEQUENCE in top:
        values = luts.modality_values(stored, top)
        slope, intercept = 1.0, 0.0
        if tags.VOI_LUT_SEQUENCE in top:
            # The image's own curve is taken into the values; over these the window LINEAR below is the identity.
            values = np.rint(luts.values_of_interest(values, top, None) * _SIXTEEN)
            windows = [[(_SIXTEEN + 1) / 2, _SIXTEEN + 1, "LINEAR"]]
        stored = values
    out, scale, low = _sixteen_bits(stored)
    slope, intercept = slope * scale, slope * low + intercept
    seen = out if padding is None or padding.all() else out[~padding]
    first, last = sorted(float(value) * slope + intercept for value in (seen.min(), seen.max()))
    return out, {
        "type": "i2" if out.dtype.kind == "i" else "u2",
        "slope": slope,
        "intercept": intercept,
        "windows": windows,
        "range": [first, last],
        "auto": _auto(seen, slope, intercept),
        "inverted": inverted,
        "doubtful": _contradicts(top, inverted=inverted),
        "units": "HU" if top.ascii(0x00080060) == "CT" and first < 0 else "",
    }


def _without_padding(stored: NDArray[Any], padding: NDArray[np.bool_], *, inverted: bool) -> NDArray[Any]:
    """Padding as black as anything in the image: its own value may be white."""
    seen = stored[~padding]
    out = np.array(stored)
    if inverted:
        out[padding] = seen.max()
    else:
        # A value below all others stays: outside its circle a CT is blacker than air.
        out[padding] = np.minimum(out[padding], seen.min())
    return out


def _sixteen_bits(stored: NDArray[Any]) -> tuple[NDArray[Any], float, float]:
    """The values in 16 bits, and (scale, low) with value = scale * stored + low."""
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        return stored.astype("<i2" if stored.dtype.kind == "i" else "<u2", copy=False), 1.0, 0.0
    finite = np.nan_to_num(np.asarray(stored, np.float64), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= _SIXTEEN and bool((finite == np.rint(finite)).all()):
        return finite.astype("<u2"), 1.0, 0.0
    scale = max(high - low, 1e-12) / _SIXTEEN
    return np.rint((finite - low) / scale).astype("<u2"), scale, low


def _eight_bits(colour: NDArray[Any]) -> NDArray[np.uint8]:
    if colour.dtype == np.uint8:
        return np.asarray(colour, np.uint8)
    return np.asarray(colour.astype(np.uint32) >> 8 * (colour.dtype.itemsize - 1), np.uint8)


def _coloured(stored: NDArray[Any], top: Attributes) -> NDArray[np.uint8]:
    """The colours of a palette (PS3.3 §C.7.6.3.1.5, §C.7.6.3.1.6)."""
    order: Any = "big" if top.encoding.big else "little"
    channels = []
    for descriptor_tag, data_tag in _PALETTES:
        descriptor, data = top.raw(descriptor_tag, 6), top.raw(data_tag, 1 << 18)
        count = int.from_bytes(descriptor[:2], order) or 1 << 16
        first = int.from_bytes(descriptor[2:4], order, signed=stored.dtype.kind == "i")
        bits = int.from_bytes(descriptor[4:6], order)
        if len(descriptor) != 6 or bits not in {8, 16} or len(data) < count:
            raise NotAnalysable(Reason.CANNOT_DECODE, "a palette that cannot be read")
        wide = len(data) >= 2 * count
        table = np.frombuffer(data, (">u2" if top.encoding.big else "<u2") if wide else np.uint8, count)
        index = np.clip(stored.astype(np.int64) - first, 0, count - 1)
        channels.append((table[index] >> (bits - 8)).astype(np.uint8))
    return np.stack(channels, axis=-1)


def _windows(groups: Sequence[Attributes]) -> list[list[Any]]:
    """[centre, width, function] of each window that the image names."""
    for group in groups:
        if tags.WINDOW_CENTER in group:
            function = group.ascii(tags.VOI_LUT_FUNCTION) or "LINEAR"
            pairs = zip(group.decimals(tags.WINDOW_CENTER), group.decimals(tags.WINDOW_WIDTH), strict=False)
            return [[centre, width, function] for centre, width in pairs if width > 0][:8]
    return []


def _auto(seen: NDArray[Any], slope: float, intercept: float) -> list[float]:
    """Centre and width that show nearly everything that is there."""
    step = max(1, int((seen.size / _SAMPLED**2) ** 0.5))
    sampled = seen[::step, ::step] if seen.ndim == 2 else seen[:: step * step]
    low, high = sorted(float(value) * slope + intercept for value in np.percentile(sampled, (0.5, 99.5)))
    return [(low + high) / 2, max(high - low, slope, 1e-6)]


def _contradicts(top: Attributes, *, inverted: bool) -> bool:
    """Photometric Interpretation and Presentation LUT Shape differ about what is white: the former is shown."""
    return (top.ascii(tags.PRESENTATION_LUT_SHAPE), inverted) in {("IDENTITY", True), ("INVERSE", False)}


def _one(groups: Sequence[Attributes], tag: int) -> float | None:
    return next((group.decimal(tag) for group in groups if tag in group), None)
