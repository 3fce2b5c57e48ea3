"""The child process that makes pixels for screens: the daemon never decodes (docs/adr/0005, 0035).

Of each image it writes, into the study's folder of the cache: per frame the values as the viewer takes them (16-bit,
little-endian, in the order of rows; RGB as three bytes), shrunk to ``DISPLAY_PIXELS`` and, where that loses something,
whole; then one JSON document that says what they mean. The document comes last and by rename: what it names is whole.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.dicom import elements, headers, luts, pixels, tags
from appliance.dicom.attributes import Attributes
from appliance.dicom.source import open_source
from appliance.errors import NotAnalysable, RejectedInstance
from appliance.records import Detail
from appliance.screen.display_places import place_of
from appliance.screen.display_values import values_of
from engines.overlay import unpack

Progress = Callable[[dict[str, Any]], None]

#: The longest side that a screen of today shows whole.
DISPLAY_PIXELS = 1024
_BAND = "not-for-diagnosis.png"
_WIDE = 1000


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
            values, meta = values_of(stored, padding, decoded.photometric_interpretation, groups)
            meta |= place_of(groups, values.shape)
            name = f"{stem}.{n + 1}"
            shown = _shrunk(values)
            if shown is not values:
                written += _write(folder / f"{name}.full", _bytes(values))
            written += _write(folder / f"{name}.px", _bytes(shown))
            if name == preview:
                _write(folder / f"{name}.png", _picture(shown, meta))
            made.append(meta | {"size": [shown.shape[1], shown.shape[0]]})
    return made, written


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
