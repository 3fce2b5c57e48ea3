"""The worker's own work as plain functions: files in, ``ModelOutput`` out. No socket, no cache, no clock of the daemon.

The bench calls these functions in one warmed process and takes their time as the bare limit (DESIGN §9).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from appliance.dicom.geometry import SlicePlace, in_plane_shifts, sort_slices
from appliance.dicom.headers import read_header
from appliance.dicom.pixels import hu_slices, xray_image
from appliance.errors import NotAnalysable, RejectedInstance
from appliance.records import Detail, Header, Reason, slice_id
from appliance.triage.claims import envelope_faults, shows, unclaimed
from appliance.triage.protocol import SeriesKind
from appliance.triage.stack_checks import refuse_duplicates, refuse_gaps, refuse_outside
from engines.errors import ContentError
from engines.inputs import OpenInput
from engines.overlay import Overlay
from engines.pipeline import Pipeline
from engines.types import Image, ModelOutput, Prepared, Stack

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One instance, decoded and made small."""

    path: Path
    header: Header
    #: One per frame; empty for an X-ray.
    places: tuple[SlicePlace, ...]
    #: Per preparation (``OpenInput.preparation``) one small picture per frame, or why it must not be scored.
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
    """What a package says of its input."""

    output: ModelOutput
    #: Of the output's masks, by finding id.
    overlays: dict[str, Overlay] = field(default_factory=dict)
    caveats: tuple[Detail, ...] = ()
    #: Milliseconds of ``assemble``, ``inference``, ``head``.
    hops_ms: dict[str, float] = field(default_factory=dict)


def decode_and_prepare(path: Path, kind: SeriesKind, pipelines: Iterable[Pipeline]) -> Piece:
    """Decode one file and make it small for every input of these pipelines that takes such series.

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
        ids = [uid] if len(places) == 1 else [slice_id(uid, n) for n in range(1, len(places) + 1)]
        images = [
            Image(id=i, array=hu, spacing_mm=decoded.pixel_spacing_mm) for i, hu in zip(ids, decoded.hu, strict=True)
        ]
    else:
        whole = xray_image(path)
        images = [Image(id=uid, array=whole, spacing_mm=header.pixel_spacing_mm)]
    middle = time.perf_counter()
    prepared: dict[str, tuple[Prepared, ...] | ContentError] = {}
    for pipeline in pipelines:
        for role, taken in pipeline.inputs.items():
            if taken.preparation not in prepared and ("CT" in taken.input.modality) == (kind == "ct"):
                try:
                    prepared[taken.preparation] = tuple(pipeline.prepare(role, image) for image in images)
                except ContentError as error:
                    prepared[taken.preparation] = error
    ended = time.perf_counter()
    hops_ms = {"decode": (middle - begun) * 1000, "prepare": (ended - middle) * 1000}
    return Piece(path=path, header=header, places=places, prepared=prepared, hops_ms=hops_ms, image=whole)


def finish(series: Mapping[str, Sequence[Piece]], pipeline: Pipeline) -> Answer:
    """Run a package on its series. Of X-rays every image in the envelope is run; the highest score counts.

    Args:
        series: By role: everything that the series revision consists of. Optional inputs may be missing.
        pipeline: The package.

    Raises:
        NotAnalysable: INCOMPLETE naming the missing slices, OUT_OF_ENVELOPE.
        ContentError: The pixels, or the output made of them, must not be scored.
        SessionError: The backend failed.
    """
    caveats: list[Detail] = []
    given: dict[str, list[Stack]] = {}
    numbers: dict[str, float] = {}
    for role, pieces in series.items():
        taken = pipeline.inputs[role]
        if any(piece.places for piece in pieces):
            stacks, told, seen = _ct_stack(pieces, taken)
        else:
            stacks, told, seen = _xrays(pieces, taken, is_only=len(pipeline.inputs) == 1)
        caveats += told
        numbers |= seen
        if stacks:
            given[role] = stacks
    answers = []
    # Of two frontal images and a lateral one there are two pairs; what a series does not show is left to zeros.
    for chosen in itertools.product(*given.values()):
        finished = pipeline.finish(dict(zip(given, chosen, strict=True)))
        output = _checked(finished.output, {})
        answers.append(Answer(output=output, overlays=finished.overlays, hops_ms=finished.hops_ms))
    merged = merge(answers)
    missing = [one.id for one in pipeline.package.manifest.findings if one.id not in merged.output.scores]
    if missing:
        raise ContentError(
            "unreliable_output", "the package gave no score for its finding {finding}", finding=missing[0]
        )
    return replace(merged, output=_checked(merged.output, numbers), caveats=tuple(caveats))


def _ct_stack(pieces: Sequence[Piece], wanted: OpenInput) -> tuple[list[Stack], list[Detail], dict[str, float]]:
    """The slices of a series in their order, once its geometry is found good."""
    taken, caveats = _images_of_the_series(pieces, wanted)
    slices = [
        (piece, place, prepared)
        for piece in taken
        for place, prepared in zip(piece.places, _prepared(piece, wanted), strict=True)
    ]
    geometry = sort_slices([place for _, place, _ in slices])
    ordered = [slices[index] for index in geometry.order]
    numbers_of = [_number(piece) for piece, _, _ in slices]
    refuse_duplicates(geometry, numbers_of)
    refuse_gaps(geometry)
    refuse_outside(wanted.input.envelope, geometry, [place for _, place, _ in ordered], ordered[0][2].spacing_mm)
    if geometry.uneven:
        caveats.append(Detail("the distance between slices changes within the series"))
    stack = Stack(
        slices=tuple(prepared for _, _, prepared in ordered),
        positions_mm=geometry.positions_mm,
        normal=geometry.normal,
        tilt_deg=geometry.tilt_deg,
        shifts_mm=in_plane_shifts([place for _, place, _ in ordered]),
    )
    numbers = {"slices": float(len(ordered)), **({"spacing_mm": geometry.spacing_mm} if geometry.spacing_mm else {})}
    return [stack], caveats, numbers


def _xrays(
    pieces: Sequence[Piece], wanted: OpenInput, *, is_only: bool
) -> tuple[list[Stack], list[Detail], dict[str, float]]:
    """Each image of a series that lies in the envelope, alone.

    Args:
        pieces: The series.
        wanted: The input.
        is_only: The package has no other input. If it has, the views in one series are told apart by ViewPosition, so
            an image without one cannot be placed, and one of another view is no loss to speak of.
    """
    taken, caveats = _images_of_the_series(pieces, wanted)
    outside: list[Detail] = []
    inside: list[Piece] = []
    elsewhere = 0
    for piece in taken:
        if not is_only and not shows(wanted.input.envelope, piece.header):
            elsewhere += 1
            continue
        faults = envelope_faults(wanted.input.envelope, piece.header, 1)
        if faults:
            outside += faults
        else:
            inside.append(piece)
    if not inside and not (wanted.optional and elsewhere == len(taken)):
        raise NotAnalysable(
            Reason.OUT_OF_ENVELOPE, tuple(dict.fromkeys(outside or [Detail("this view is not covered")]))
        )
    if outside:
        left = {"count": len(taken) - elsewhere - len(inside), "total": len(taken)}
        caveats += [Detail("{count} of {total} images were not analysed", left), *dict.fromkeys(outside)]
    stacks = [Stack(slices=_prepared(piece, wanted)) for piece in inside]
    return stacks, caveats, {"images": float(len(inside))} if is_only else {}


def merge(answers: Sequence[Answer]) -> Answer:
    """One answer of several: each finding as the answer with its highest score says; times are added."""
    scores: dict[str, float] = {}
    best: dict[str, Answer] = {}
    hops_ms: dict[str, float] = {}
    for answer in answers:
        for finding, score in answer.output.scores.items():
            if finding not in scores or score > scores[finding]:
                scores[finding], best[finding] = score, answer
        for hop, ms in answer.hops_ms.items():
            hops_ms[hop] = hops_ms.get(hop, 0.0) + ms
    output = ModelOutput(
        scores=scores,
        measurements={f: a.output.measurements[f] for f, a in best.items() if f in a.output.measurements},
        key_slices={f: a.output.key_slices[f] for f, a in best.items() if f in a.output.key_slices},
        regions=tuple(r for f, a in best.items() for r in a.output.regions if r.finding == f),
        numbers={name: value for answer in answers for name, value in answer.output.numbers.items()},
        warnings=tuple(dict.fromkeys(w for answer in answers for w in answer.output.warnings)),
        marks=tuple(m for f, a in best.items() for m in a.output.marks if m.finding == f),
    )
    caveats = tuple(dict.fromkeys(c for answer in answers for c in answer.caveats))
    overlays = {f: a.overlays[f] for f, a in best.items() if f in a.overlays}
    return Answer(output=output, overlays=overlays, caveats=caveats, hops_ms=hops_ms)


def _images_of_the_series(pieces: Sequence[Piece], wanted: OpenInput) -> tuple[list[Piece], list[Detail]]:
    """The images that the package's input claims; scanners put localizers and reformats into the same series."""
    taken: list[Piece] = []
    left_out: dict[str, int] = {}
    for piece in pieces:
        why = unclaimed(wanted.input, piece.header)
        if why is None:
            taken.append(piece)
        else:
            left_out[why] = left_out.get(why, 0) + 1
    told = [replace(_LEFT_OUT[why], values={"count": n, "total": len(pieces)}) for why, n in left_out.items()]
    if not taken:
        raise NotAnalysable(Reason.OUT_OF_ENVELOPE, told)
    return taken, told


def _prepared(piece: Piece, wanted: OpenInput) -> tuple[Prepared, ...]:
    made = piece.prepared[wanted.preparation]
    if isinstance(made, ContentError):
        raise made
    return made


def _number(piece: Piece) -> str:
    number = piece.header.instance_number
    return "?" if number is None else str(number)


def _checked(output: ModelOutput, numbers: dict[str, float]) -> ModelOutput:
    """The output with further numbers, once everything in it is a number (T31)."""
    values = [*output.scores.values(), *(m.value for ms in output.measurements.values() for m in ms)]
    values += [m.sd for ms in output.measurements.values() for m in ms if m.sd is not None]
    values += [v for region in output.regions for point in region.points for v in point]
    merged = {**output.numbers, **numbers}
    if not np.all(np.isfinite([*values, *merged.values()])):
        raise ContentError("unreliable_output", "a score or measurement is not a finite number")
    # Masks are as large as the volume; the overlays keep what is wanted of them.
    return replace(output, numbers=merged, masks={})
