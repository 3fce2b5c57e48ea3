"""The child process that makes pixels for screens: the daemon never decodes (docs/adr/0005, 0035).

Of each image it writes, into the study's folder of the cache: per frame the values as the viewer takes them (16-bit,
little-endian, in the order of rows; RGB as three bytes), shrunk to ``DISPLAY_PIXELS`` and, where that loses something,
whole; then one JSON document that says what they mean. The document comes last and by rename: what it names is whole.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.dicom import elements, headers, luts, pixels, tags
from appliance.dicom.attributes import Attributes
from appliance.dicom.source import open_source
from appliance.errors import NotAnalysable, RejectedInstance
from appliance.records import Detail, Reason
from engines.overlay import unpack

Progress = Callable[[dict[str, Any]], None]

#: The longest side that a screen of today shows whole.
DISPLAY_PIXELS = 1024
_VIEW_POSITION, _IMAGER_PIXEL_SPACING, _CALIBRATION_TYPE = 0x00185101, 0x00181164, 0x00280A02
_PIXEL_ASPECT_RATIO, _IMAGE_LATERALITY, _LATERALITY = 0x00280034, 0x00200062, 0x00200060
_PALETTES = ((0x00281101, 0x00281201), (0x00281102, 0x00281202), (0x00281103, 0x00281203))
_BAND = "not-for-diagnosis.png"
_WIDE = 1000
#: Of what is looked at for the window "auto", so many values a side.
_SAMPLED = 128
_SIXTEEN = 65535


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Prepare images in the order given.

    Args:
        request: ``folder`` of the study; ``images``: list of {stem, path}; ``masks``: list of {name, path}, made into
            lines after the first image; ``preview``: ``stem.frame`` to draw as PNG, or empty; ``limit_bytes`` to write
            at most; ``nice``.
        progress: Told {begin: stem} and {done: name} around each.

    Returns:
        ``{"bytes": written}``.
    """
    os.nice(request["nice"])
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    masks = list(request["masks"])
    for image in request["images"]:
        progress({"begin": image["stem"]})
        written += _prepare(folder, image["stem"], Path(image["path"]), request["preview"])
        progress({"done": image["stem"]})
        while masks:
            one = masks.pop()
            _write(folder / f"{one['name']}.json", json.dumps(_lines(Path(one["path"]))).encode())
            progress({"done": one["name"]})
        if written > request["limit_bytes"]:
            break
    return {"bytes": written}


def _prepare(folder: Path, stem: str, path: Path, preview: str) -> int:
    """Write everything of one image; what cannot be shown has a document that says why."""
    try:
        frames, written = _frames(folder, stem, path, preview)
        document: dict[str, Any] = {"frames": frames}
    except NotAnalysable as error:
        document, written = _fault(*error.details), 0
    except RejectedInstance as refused:
        document, written = _fault(Detail("the object cannot be read: {fault}", {"fault": str(refused)})), 0
    except MemoryError:
        document, written = _fault(Detail("the image is too large to be shown here")), 0
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        document, written = _fault(Detail("the image file cannot be read")), 0
    data = json.dumps(document).encode()
    _write(folder / f"{stem}.json", data)
    return written + len(data)


def _fault(*details: Detail) -> dict[str, Any]:
    return {"fault": [{"text": one.text, "values": dict(one.values)} for one in details]}


def _frames(folder: Path, stem: str, path: Path, preview: str) -> tuple[list[dict[str, Any]], int]:
    with open_source(path) as source:
        syntax, offset = elements.read_meta(source)
        ds = elements.walk(source, offset, headers.encoding_of(syntax))
        top = Attributes(source, ds.encoding, ds.places)
        decoded = pixels.decode(path)
        per_frame = top.items(tags.PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
        shared = top.items(tags.SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
        made, written = [], 0
        for n, stored in enumerate(decoded.frames):
            groups = [*per_frame[n : n + 1], *shared, top]
            padding = None if decoded.padding is None else decoded.padding[n]
            values, meta = _values(stored, padding, decoded.photometric_interpretation, groups)
            meta |= _place(groups, values.shape)
            name = f"{stem}.{n + 1}"
            shown = _shrunk(values)
            if shown is not values:
                written += _write(folder / f"{name}.full", _bytes(values))
            written += _write(folder / f"{name}.px", _bytes(shown))
            if name == preview:
                _write(folder / f"{name}.png", _picture(shown, meta))
            made.append(meta | {"size": [shown.shape[1], shown.shape[0]]})
    return made, written


# Values ------------------------------------------------------------------------------------------------------------


def _values(
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


# Places ------------------------------------------------------------------------------------------------------------


def _place(groups: Sequence[Attributes], shape: tuple[int, ...]) -> dict[str, Any]:
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


def _one(groups: Sequence[Attributes], tag: int) -> float | None:
    return next((group.decimal(tag) for group in groups if tag in group), None)


# Files -------------------------------------------------------------------------------------------------------------


def _shrunk(values: NDArray[Any]) -> NDArray[Any]:
    """At most ``DISPLAY_PIXELS`` a side; the very same array where it is small enough."""
    scale = DISPLAY_PIXELS / max(values.shape[:2])
    if scale >= 1:
        return values
    import cv2

    size = (max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale)))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), values.dtype)


def _bytes(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def _write(path: Path, data: bytes) -> int:
    """By rename, so that nobody reads half a file; without fsync, since all of this can be made again."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)
    part.rename(path)
    return len(data)


def _picture(values: NDArray[Any], meta: dict[str, Any]) -> bytes:
    """A PNG in the image's first window under the band "not for diagnosis", for browsers without scripts."""
    import cv2

    if meta["type"] == "rgb":
        grey = False
        shown: NDArray[Any] = values[:, :, ::-1]
    else:
        grey = True
        low, high = meta["range"]
        centre, width, function = (*meta["windows"], [(low + high) / 2, max(high - low, 1e-6), "LINEAR_EXACT"])[0]
        units = luts.window_values(
            values.astype(np.float32) * np.float32(meta["slope"]) + np.float32(meta["intercept"]),
            centre,
            width,
            function,
        )
        shown = pixels.picture(1 - units if meta["inverted"] else units)
    with resources.as_file(resources.files("appliance.report").joinpath("assets").joinpath(_BAND)) as path:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    band: NDArray[Any] = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    if shown.shape[1] < _WIDE:
        band = np.asarray(cv2.resize(band, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    if not grey:
        band = np.asarray(cv2.cvtColor(band, cv2.COLOR_GRAY2BGR))
    width = max(band.shape[1], shown.shape[1])
    encoded, png = cv2.imencode(".png", np.concatenate([_centred(band, width), _centred(shown, width)]))
    if not encoded:
        raise ValueError(f"a picture of shape {shown.shape} cannot be written as PNG")
    return bytes(png)


def _centred(image: NDArray[Any], width: int) -> NDArray[Any]:
    missing = width - image.shape[1]
    sides = [(0, 0), (missing // 2, missing - missing // 2), (0, 0)]
    return np.pad(image, sides[: image.ndim])


def _lines(path: Path) -> dict[str, dict[str, list[list[list[float]]]]]:
    """The masks of an analysis as lines by finding and slice id; none where the file is damaged or gone."""
    from appliance.report.places import contours

    try:
        overlays = unpack(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {
        finding: {
            slice_id: [np.round(line, 2).tolist() for line in contours(mask)] for slice_id, mask in overlay.on_slices()
        }
        for finding, overlay in overlays.items()
    }
