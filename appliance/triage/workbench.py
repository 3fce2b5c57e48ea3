"""The worker's own work as plain functions: files in, ``ModelOutput`` out. No socket, no cache, no clock of the daemon.

The bench calls these functions in one warmed process and takes their time as the bare limit (DESIGN §9).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.geometry import SlicePlace, sort_slices
from appliance.dicom.headers import read_header
from appliance.dicom.pixels import hu_slices, picture, xray_image
from appliance.errors import NotAnalysable, RejectedInstance
from appliance.records import Detail, Header, Reason
from appliance.triage import pictures
from appliance.triage.claims import envelope_faults, unclaimed
from appliance.triage.protocol import SeriesKind
from appliance.triage.stack_checks import refuse_duplicates, refuse_gaps, refuse_outside
from engines.errors import ContentError
from engines.pipeline import Pipeline
from engines.types import Image, ModelOutput, Prepared, Stack

MAX_PICTURES = 3
#: What is said of images that ``claims.unclaimed`` does not let pass.
_LEFT_OUT = {
    "dose report": Detail("{count} of {total} images left out: dose report"),
    "localizer": Detail("{count} of {total} images left out: localizer"),
    "no image": Detail("{count} of {total} images left out: no image"),
    "other body part": Detail("{count} of {total} images left out: other body part"),
    "other modality": Detail("{count} of {total} images left out: other modality"),
    "projection": Detail("{count} of {total} images left out: projection"),
    "reformat": Detail("{count} of {total} images left out: reformat"),
    "screen save": Detail("{count} of {total} images left out: screen save"),
}
#: Stands between SOP Instance UID and frame number in the id of a picture; no UID can hold it.
_FRAME = "#"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One instance, decoded and made small."""

    path: Path
    header: Header
    #: One per frame; empty for an X-ray.
    places: tuple[SlicePlace, ...]
    #: Per preparation (``preparation_of``) one small picture per frame, or why it must not be scored.
    prepared: dict[str, tuple[Prepared, ...] | ContentError]
    #: Milliseconds of ``decode`` and ``prepare``.
    hops_ms: dict[str, float]
    #: The whole X-ray, for its key picture; not kept beyond the analysis that decoded it.
    image: NDArray[np.float32] | None = None

    def without_image(self) -> Piece:
        """What is kept."""
        return replace(self, image=None)

    @property
    def size_bytes(self) -> int:
        """What it holds in memory."""
        return sum(p.array.nbytes for made in self.prepared.values() if isinstance(made, tuple) for p in made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one stage of a package says of its input."""

    output: ModelOutput
    caveats: tuple[Detail, ...] = ()
    #: Milliseconds of ``assemble``, ``inference``, ``head``.
    hops_ms: dict[str, float] = field(default_factory=dict)


def preparation_of(pipeline: Pipeline) -> str:
    """What two packages share if they prepare pictures alike: the name of a preprocessor with its parameters."""
    return f"{pipeline.stage.preprocess.name} {pipeline.preprocessor.model_dump_json()}"


def decode_and_prepare(path: Path, kind: SeriesKind, pipelines: Iterable[Pipeline]) -> Piece:
    """Decode one file and make it small for every one of these pipelines.

    Raises:
        NotAnalysable: CANNOT_DECODE, or OUT_OF_ENVELOPE for what has no HU, no place, or two polarities.
        OSError: The file cannot be read.
    """
    begun = time.perf_counter()
    try:
        header = read_header(path)
    except RejectedInstance as error:
        raise NotAnalysable(Reason.CANNOT_DECODE, "the object cannot be read: {fault}", fault=str(error)) from error
    uid = header.sop_instance_uid
    places: tuple[SlicePlace, ...] = ()
    whole: NDArray[np.float32] | None = None
    if kind == "ct":
        decoded = hu_slices(path)
        places = decoded.places
        ids = [uid] if len(places) == 1 else [f"{uid}{_FRAME}{n}" for n in range(1, len(places) + 1)]
        images = [
            Image(id=i, array=hu, spacing_mm=decoded.pixel_spacing_mm) for i, hu in zip(ids, decoded.hu, strict=True)
        ]
    else:
        whole = xray_image(path)
        images = [Image(id=uid, array=whole, spacing_mm=header.pixel_spacing_mm)]
    middle = time.perf_counter()
    prepared: dict[str, tuple[Prepared, ...] | ContentError] = {}
    for pipeline in pipelines:
        key = preparation_of(pipeline)
        if key not in prepared:
            try:
                prepared[key] = tuple(pipeline.prepare(image) for image in images)
            except ContentError as error:
                prepared[key] = error
    ended = time.perf_counter()
    hops_ms = {"decode": (middle - begun) * 1000, "prepare": (ended - middle) * 1000}
    return Piece(path=path, header=header, places=places, prepared=prepared, hops_ms=hops_ms, image=whole)


def finish_ct(pieces: Sequence[Piece], pipeline: Pipeline) -> Answer:
    """Check the geometry of a whole series and run a package's stage on it.

    Raises:
        NotAnalysable: INCOMPLETE naming the missing slices, OUT_OF_ENVELOPE.
        ContentError: The pixels, or the output made of them, must not be scored.
        SessionError: The backend failed.
    """
    taken, caveats = _images_of_the_series(pieces, pipeline)
    slices = [
        (piece, place, prepared)
        for piece in taken
        for place, prepared in zip(piece.places, _prepared(piece, pipeline), strict=True)
    ]
    geometry = sort_slices([place for _, place, _ in slices])
    ordered = [slices[index] for index in geometry.order]
    envelope = pipeline.stage.input.envelope
    numbers_of = [_number(piece) for piece, _, _ in slices]
    refuse_duplicates(geometry, numbers_of)
    refuse_gaps(geometry)
    refuse_outside(envelope, geometry, [place for _, place, _ in ordered], ordered[0][2].spacing_mm)
    if geometry.uneven:
        caveats.append(Detail("the distance between slices changes within the series"))
    stack = Stack(
        slices=tuple(prepared for _, _, prepared in ordered),
        positions_mm=geometry.positions_mm,
        normal=geometry.normal,
        tilt_deg=geometry.tilt_deg,
    )
    finished = pipeline.finish(stack)
    numbers = {"slices": float(len(ordered)), **({"spacing_mm": geometry.spacing_mm} if geometry.spacing_mm else {})}
    output = _checked(finished.output, numbers)
    return Answer(output=output, caveats=tuple(caveats), hops_ms=finished.hops_ms)


def finish_xray(pieces: Sequence[Piece], pipeline: Pipeline) -> Answer:
    """Run a package's stage on every image of a series that lies in its envelope; the highest score counts.

    Raises:
        NotAnalysable: OUT_OF_ENVELOPE when no image does.
        ContentError: The pixels, or the output made of them, must not be scored.
        SessionError: The backend failed.
    """
    taken, caveats = _images_of_the_series(pieces, pipeline)
    outside: list[Detail] = []
    answers: list[Answer] = []
    for piece in taken:
        faults = envelope_faults(pipeline.stage.input.envelope, piece.header, 1)
        if faults:
            outside += faults
            continue
        finished = pipeline.finish(Stack(slices=_prepared(piece, pipeline)))
        answers.append(Answer(output=_checked(finished.output, {}), hops_ms=finished.hops_ms))
    if not answers:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, tuple(dict.fromkeys(outside)))
    if outside:
        left = {"count": len(taken) - len(answers), "total": len(taken)}
        caveats += [Detail("{count} of {total} images were not analysed", left), *dict.fromkeys(outside)]
    merged = merge(answers)
    return Answer(
        output=_checked(merged.output, {"images": float(len(answers))}),
        caveats=tuple(caveats),
        hops_ms=merged.hops_ms,
    )


def merge(answers: Sequence[Answer]) -> Answer:
    """One answer of several: each finding as the answer with its highest score says; times are added."""
    scores: dict[str, float] = {}
    best: dict[str, ModelOutput] = {}
    hops_ms: dict[str, float] = {}
    for answer in answers:
        for finding, score in answer.output.scores.items():
            if finding not in scores or score > scores[finding]:
                scores[finding], best[finding] = score, answer.output
        for hop, ms in answer.hops_ms.items():
            hops_ms[hop] = hops_ms.get(hop, 0.0) + ms
    output = ModelOutput(
        scores=scores,
        measurements={f: o.measurements[f] for f, o in best.items() if f in o.measurements},
        key_slices={f: o.key_slices[f] for f, o in best.items() if f in o.key_slices},
        regions=tuple(r for f, o in best.items() for r in o.regions if r.finding == f),
        numbers={name: value for answer in answers for name, value in answer.output.numbers.items()},
        warnings=tuple(dict.fromkeys(w for answer in answers for w in answer.output.warnings)),
    )
    caveats = tuple(dict.fromkeys(c for answer in answers for c in answer.caveats))
    return Answer(output=output, caveats=caveats, hops_ms=hops_ms)


def draw_key_pictures(
    output: ModelOutput, pieces: Sequence[Piece], kind: SeriesKind, pipeline: Pipeline, spool_root: Path
) -> tuple[str, ...]:
    """Draw the key slices, the best of each finding first, at most ``MAX_PICTURES``.

    Returns:
        Paths relative to the spool root, in the order of the key slices; shorter if the disk refuses one.
    """
    wanted = list(dict.fromkeys(_by_rank(output.key_slices.values())))[:MAX_PICTURES]
    by_uid = {piece.header.sop_instance_uid: piece for piece in pieces}
    window = pictures.window_of(pipeline.stage.input.envelope.body_parts)
    outlined = pipeline.package.manifest.intended_use == "detection"
    kept = []
    for slice_id in wanted:
        uid, frame = split_id(slice_id)
        piece = by_uid.get(uid)
        if piece is None:
            continue
        if kind == "ct":
            # Decoded once more: a slice costs milliseconds, keeping the raw series would cost 150 MB.
            image, scale = pictures.shrink(hu_slices(piece.path).hu[(frame or 1) - 1])
            shown = picture(image, window)
        else:
            image, scale = pictures.shrink(xray_image(piece.path) if piece.image is None else piece.image)
            shown = picture(image)
        regions = [r for r in output.regions if r.slice_id == slice_id] if outlined else []
        relative = pictures.keep(spool_root, pictures.draw(shown, regions, scale))
        if relative is not None:
            kept.append(relative)
    return tuple(kept)


def split_id(slice_id: str) -> tuple[str, int | None]:
    """SOP Instance UID and frame number (from 1; None for a single-frame object) of a picture's id."""
    uid, _, frame = slice_id.partition(_FRAME)
    return uid, int(frame) if frame else None


def _by_rank(lists: Iterable[Sequence[str]]) -> list[str]:
    """The first of every list, then the second of every list, ..."""
    given = [list(one) for one in lists]
    longest = max((len(one) for one in given), default=0)
    return [one[rank] for rank in range(longest) for one in given if rank < len(one)]


def _images_of_the_series(pieces: Sequence[Piece], pipeline: Pipeline) -> tuple[list[Piece], list[Detail]]:
    """The images that the package's input claims; scanners put localizers and reformats into the same series."""
    taken: list[Piece] = []
    left_out: dict[str, int] = {}
    for piece in pieces:
        why = unclaimed(pipeline.stage.input, piece.header)
        if why is None:
            taken.append(piece)
        else:
            left_out[why] = left_out.get(why, 0) + 1
    told = [replace(_LEFT_OUT[why], values={"count": n, "total": len(pieces)}) for why, n in left_out.items()]
    if not taken:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, told)
    return taken, told


def _prepared(piece: Piece, pipeline: Pipeline) -> tuple[Prepared, ...]:
    made = piece.prepared[preparation_of(pipeline)]
    if isinstance(made, ContentError):
        raise made
    return made


def _number(piece: Piece) -> str:
    number = piece.header.instance_number
    return "?" if number is None else str(number)


def _checked(output: ModelOutput, numbers: dict[str, float]) -> ModelOutput:
    """The output with further numbers, once everything in it is a number (T31)."""
    values = [*output.scores.values(), *(m.value for ms in output.measurements.values() for m in ms)]
    values += [v for region in output.regions for point in region.points for v in point]
    merged = {**output.numbers, **numbers}
    if not np.all(np.isfinite([*values, *merged.values()])):
        raise ContentError("unreliable_output", "a score or measurement is not a finite number")
    return ModelOutput(
        scores=output.scores,
        measurements=output.measurements,
        key_slices=output.key_slices,
        regions=output.regions,
        numbers=merged,
        warnings=output.warnings,
    )
