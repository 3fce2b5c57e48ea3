"""Key pictures: the slice or X-ray that shows a finding best, as PNG in the spool; beside them the masks, as numbers.

A picture holds pixels and, for a ``detection`` package, the outline of what it flagged: no text, no names, no scores.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.pixels import hu_slices, xray_image
from appliance.dicom.pixels import picture as windowed
from appliance.dicom.windows import window_of
from appliance.records import split_id
from appliance.triage.verdict import is_flagged
from appliance.triage.workbench import Piece
from engines.durable import sync_folder
from engines.overlay import Overlay, pack
from engines.pipeline import Pipeline
from engines.types import ModelOutput, Region

log = logging.getLogger(__name__)

MAX_PICTURES = 3
#: Longest side; X-rays of 3,000 pixels are shrunk, slices are not.
MAX_PIXELS = 1024
#: Blue, green, red. Yellow is told from grey by everybody; the outline is not the message.
_OUTLINE = (0, 220, 255)
_MARGIN_PIXELS = 4
_POINT_RADIUS = 12


def draw_key_pictures(
    output: ModelOutput,
    pieces: Sequence[Piece],
    pipeline: Pipeline,
    spool_root: Path,
    operating_points: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Draw the key slices, the best of each finding first, at most ``MAX_PICTURES``.

    Args:
        output: Names the key slices.
        pieces: Of all series that the package was run on.
        pipeline: The package.
        spool_root: Where pictures are kept.
        operating_points: Finding: point, where the site picked another than the package's. What is not flagged is not
            outlined: two findings may share a picture, and a picture goes into the PACS.

    Returns:
        Paths relative to the spool root, in the order of the key slices; shorter if the disk refuses one.
    """
    # In the order of the manifest, as the findings of a result stand: who has the result knows what each picture shows.
    manifest = pipeline.package.manifest
    lists = [output.key_slices.get(finding.id, ()) for finding in manifest.findings]
    wanted = list(dict.fromkeys(_by_rank(lists)))[:MAX_PICTURES]
    by_uid = {piece.header.sop_instance_uid: piece for piece in pieces}
    window = window_of(part for taken in pipeline.inputs.values() for part in taken.input.envelope.body_parts)
    outlined = {
        finding.id
        for finding in manifest.findings
        if manifest.intended_use == "detection"
        and is_flagged(manifest, finding, output.scores.get(finding.id, math.nan), operating_points)
    }
    kept = []
    for slice_id in wanted:
        uid, frame = split_id(slice_id)
        piece = by_uid.get(uid)
        if piece is None:
            continue
        if piece.places:
            # Decoded once more: a slice costs milliseconds, keeping the raw series would cost 150 MB.
            image, scale = shrink(hu_slices(piece.path).hu[(frame or 1) - 1])
            shown = windowed(image, window)
        else:
            image, scale = shrink(xray_image(piece.path) if piece.image is None else piece.image)
            shown = windowed(image)
        regions = [r for r in output.regions if r.slice_id == slice_id and r.finding in outlined]
        relative = keep(spool_root, draw(shown, regions, scale), "png")
        if relative is not None:
            kept.append(relative)
    return tuple(kept)


def shrink(image: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """A picture of at most ``MAX_PIXELS`` a side, and its scale; small ones are given back as they are."""
    import cv2

    scale = min(1.0, MAX_PIXELS / max(image.shape))
    if scale == 1:
        return image, 1.0
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def draw(picture: NDArray[np.uint8], regions: Iterable[Region] = (), scale: float = 1.0) -> bytes:
    """A PNG of an 8-bit grey picture with outlines.

    Args:
        picture: [H, W].
        regions: In pixels of the image it was made of; a box is drawn a little outside, so that it hides nothing.
        scale: Size of ``picture`` to that image.
    """
    import cv2

    shown: NDArray[Any] = picture
    outlined = list(regions)
    if outlined:
        shown = cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR)
    for region in outlined:
        points = [(round((x + 0.5) * scale - 0.5), round((y + 0.5) * scale - 0.5)) for x, y in region.points]
        if region.kind == "box":
            (left, top), (right, bottom) = points
            first, last = (
                (left - _MARGIN_PIXELS, top - _MARGIN_PIXELS),
                (right + _MARGIN_PIXELS, bottom + _MARGIN_PIXELS),
            )
            cv2.rectangle(shown, first, last, _OUTLINE, 1, cv2.LINE_AA)
        else:
            cv2.circle(shown, points[0], _POINT_RADIUS, _OUTLINE, 1, cv2.LINE_AA)
    # Noise has no repetitions to look for: this takes half of the time and fewer bytes, and the alert waits for it.
    fast = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    encoded, png = cv2.imencode(".png", shown, fast)
    if not encoded:
        raise ValueError(f"a picture of shape {picture.shape} cannot be written as PNG")
    return bytes(png)


def keep_masks(overlays: Mapping[str, Overlay], spool_root: Path) -> str | None:
    """Put masks by finding id into the spool, for the objects that draw them. Their path, None where there is none."""
    drawn = {finding: overlay for finding, overlay in overlays.items() if overlay.mask.any()}
    return keep(spool_root, pack(drawn), "npz") if drawn else None


def keep(spool_root: Path, data: bytes, suffix: str) -> str | None:
    """Put a file into the spool for good.

    The order is that of ``store.spool``, which the worker does not import: it has no part in the store.

    Returns:
        Path relative to the spool root; None if the disk refuses, for an alert does not wait for its picture.
    """
    name = secrets.token_hex(16)
    relative = f"pictures/{name[:2]}/{name}.{suffix}"
    part, final = spool_root / "incoming" / f"{name}.part", spool_root / relative
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fdatasync(fd)
        finally:
            os.close(fd)
        part.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        log.warning("a key picture or mask was not kept: %s", error.strerror)
        return None
    return relative


def _by_rank(lists: Iterable[Sequence[str]]) -> list[str]:
    """The first of every list, then the second of every list, ..."""
    given = [list(one) for one in lists]
    longest = max((len(one) for one in given), default=0)
    return [one[rank] for rank in range(longest) for one in given if rank < len(one)]
