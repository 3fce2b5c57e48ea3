"""One analysis in the worker, from the files of its series revisions to a result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import NotAnalysable
from appliance.records import Detail, Measurement, Region, split_id
from appliance.triage.frames import ProtocolError
from appliance.triage.message_base import Message
from appliance.triage.pictures import draw_key_pictures, keep_masks
from appliance.triage.protocol import Finish, Progress, Result, Scored, SeriesInput, Step
from appliance.triage.serving import OpenPackage
from appliance.triage.shelf import Shelf
from appliance.triage.workbench import Answer, Piece, decode_and_prepare, finish
from engines.inputs import OpenInput
from engines.types import ModelOutput

log = logging.getLogger(__name__)

#: Lets the kernel end the process if its block takes longer than so many seconds.
Limited = Callable[[float], AbstractContextManager[None]]
Say = Callable[[Message], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the work needs of the process around it.

    Attributes:
        spool_root: Below it lie all files that a message may name; resolved.
        shelf: Packages and prepared series.
        say: Sends a message to the daemon.
        limited: Guards foreign work.
    """

    spool_root: Path
    shelf: Shelf
    say: Say
    limited: Limited

    def path(self, text: str) -> Path:
        """The file that a message names.

        Raises:
            ProtocolError: It does not lie in the spool.
        """
        path = Path(text).resolve()
        if not path.is_relative_to(self.spool_root):
            raise ProtocolError("a path outside of the spool was named; it is not opened")
        return path


class Analysis:
    """One ``finish``: what is missing is decoded, the package runs, key pictures are drawn."""

    def __init__(self, tools: Tools, message: Finish, opened: OpenPackage, hops_ms: dict[str, float]) -> None:
        """Begin; the limit counts from here."""
        self._tools = tools
        self._message = message
        self._opened = opened
        self._hops_ms = hops_ms
        self._begun = time.monotonic()

    def run(self) -> Result:
        """Analyse.

        Raises:
            NotAnalysable: The input must not be scored.
            ContentError: The same, or the output cannot be believed.
            EngineError: The backend failed.
            ProtocolError: A path outside of the spool, or an input that the package does not have.
            OSError: A file cannot be read.
        """
        pipeline, series = self._opened.pipeline, {}
        self._opened.begin_study(self._left_s)
        for role, taken in pipeline.inputs.items():
            given = self._message.inputs.get(role)
            if given is not None:
                series[role] = self._pieces(given, taken)
            elif not taken.optional:
                raise ProtocolError(f"the analysis has no input {role!r}, which the package takes")
        first = next(iter(self._message.inputs.values()))
        self._tell("infer", first)
        with self._tools.limited(self._left_s()):
            answer = finish(series, pipeline)
        for hop, ms in answer.hops_ms.items():
            self._spent(hop, ms)
        pieces = [piece for pieces in series.values() for piece in pieces]
        pictures, masks = self._draw(answer, first, pieces)
        return self._result(answer, pictures, masks)

    def _pieces(self, given: SeriesInput, taken: OpenInput) -> list[Piece]:
        """Everything that the revision consists of, whether it was prepared ahead of time or not."""
        shelf, pieces = self._tools.shelf, []
        for instance in given.instances:
            piece = shelf.get(given.series_key, instance.key, taken.preparation)
            if piece is None:
                path = self._tools.path(instance.path)
                self._tell("decode", given, instance.key)
                with self._tools.limited(self._left_s()):
                    piece = decode_and_prepare(path, given.kind, [self._opened.pipeline])
                shelf.put(given.series_key, instance.key, piece)
                for hop, ms in piece.hops_ms.items():
                    self._spent(hop, ms)
            else:
                self._spent("ahead", sum(piece.hops_ms.values()))
            pieces.append(piece)
        return pieces

    def _draw(self, answer: Answer, given: SeriesInput, pieces: list[Piece]) -> tuple[tuple[str, ...], str | None]:
        """What the spool keeps beside the result: pictures, and masks where places may be shown."""
        pipeline, spool_root = self._opened.pipeline, self._tools.spool_root
        shows_places = pipeline.package.manifest.intended_use != "triage"
        pictures: tuple[str, ...] = ()
        begun = time.perf_counter()
        self._tell("picture", given)
        try:
            with self._tools.limited(self._left_s()):
                pictures = draw_key_pictures(
                    answer.output, pieces, pipeline, spool_root, self._message.operating_points
                )
                return pictures, keep_masks(answer.overlays, spool_root) if shows_places else None
        except (NotAnalysable, OSError):
            # The scores stand: an alert does not wait for, or fail by, its picture.
            log.warning("analysis %d: its key pictures could not be drawn", self._message.analysis_id)
            return pictures, None
        finally:
            self._spent("picture", (time.perf_counter() - begun) * 1000)

    def _result(self, answer: Answer, pictures: tuple[str, ...], masks: str | None) -> Result:
        output, pipeline = answer.output, self._opened.pipeline
        return Result(
            analysis_id=self._message.analysis_id,
            findings=tuple(_scored(output, finding.id) for finding in self._opened.package.manifest.findings),
            numbers=output.numbers,
            caveats=answer.caveats,
            warnings=tuple(Detail(warning.text, warning.values) for warning in output.warnings),
            package_digest=self._opened.package.digest,
            engine_digest=pipeline.digest,
            backend=pipeline.backend,
            precision=pipeline.precision,
            pictures=pictures,
            masks=masks,
            hops_ms=self._hops_ms,
        )

    def _left_s(self) -> float:
        return self._message.limit_s - (time.monotonic() - self._begun)

    def _spent(self, hop: str, ms: float) -> None:
        self._hops_ms[hop] = self._hops_ms.get(hop, 0.0) + ms

    def _tell(self, step: Step, given: SeriesInput, version_key: str = "") -> None:
        self._tools.say(
            Progress(
                step=step,
                analysis_id=self._message.analysis_id,
                series_key=given.series_key,
                version_key=version_key,
                ms=(time.monotonic() - self._begun) * 1000,
            )
        )


def _scored(output: ModelOutput, finding: str) -> Scored:
    regions = []
    for region in output.regions:
        if region.finding == finding:
            uid, frame = split_id(region.slice_id)
            regions.append(
                Region(
                    sop_instance_uid=uid, kind=region.kind, points=region.points, frame_number=frame, finding=finding
                )
            )
    measured = output.measurements.get(finding, ())
    return Scored(
        id=finding,
        score=output.scores[finding],
        measurements=tuple(Measurement(name=m.name, value=m.value, unit=m.unit, sd=m.sd) for m in measured),
        key_instances=tuple(dict.fromkeys(split_id(key)[0] for key in output.key_slices.get(finding, ()))),
        regions=tuple(regions),
    )
