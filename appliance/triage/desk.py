"""How the worker answers each message: limits around foreign work, errors turned into reasons."""

from __future__ import annotations

import ctypes
import gc
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import cv2

from appliance.dicom.pixels import same_pixels
from appliance.errors import NotAnalysable
from appliance.records import Measurement, Reason, Region
from appliance.triage.protocol import (
    Add,
    Compare,
    Compared,
    Drop,
    Failed,
    Finish,
    Load,
    Loaded,
    Message,
    Open,
    Progress,
    ProtocolError,
    Refused,
    Result,
    Scored,
    SeriesInput,
    Step,
    ToWorker,
)
from appliance.triage.shelf import OpenPackage, Shelf
from appliance.triage.workbench import (
    Answer,
    Piece,
    decode_and_prepare,
    draw_key_pictures,
    finish_ct,
    finish_xray,
    merge,
    split_id,
)
from engines.errors import ContentError, EngineError
from engines.pipeline import Pipeline
from engines.types import ModelOutput

log = logging.getLogger(__name__)

#: One file ahead of time: a JPEG 2000 slice takes 50 ms, an enhanced object of 1,000 frames half a minute.
DECODE_LIMIT_S = 60.0
LOAD_LIMIT_S = 120.0
_DETAIL = 1000

#: Lets the kernel end the process if its block takes longer than so many seconds.
Limited = Callable[[float], AbstractContextManager[None]]
Say = Callable[[Message], None]


class Desk:
    """Answers messages. One thread uses it."""

    def __init__(self, spool_root: Path, shelf: Shelf, *, say: Say, limited: Limited) -> None:
        """Answer from ``shelf``.

        Args:
            spool_root: Below it lie all files that a message may name.
            shelf: Packages and prepared series.
            say: Sends a message to the daemon.
            limited: Guards foreign work.
        """
        # OpenCV's own threads would fight those of the inference.
        cv2.setNumThreads(1)
        self.spool_root = spool_root.resolve()
        self.shelf = shelf
        self.say = say
        self.limited = limited

    def handle(self, message: ToWorker) -> None:
        """Do what a message asks for, answer included."""
        if isinstance(message, Finish):
            self.say(self._finish(message))
        elif isinstance(message, Add):
            self._add(message)
        elif isinstance(message, Open):
            self.shelf.begin(message.series_key, message.kind, message.packages)
        elif isinstance(message, Drop):
            self.shelf.drop(message.series_key)
        elif isinstance(message, Compare):
            self.say(self._compare(message))
        elif isinstance(message, Load):
            self.say(self._load(message))
        else:
            self.shelf.unload(message.package)

    @staticmethod
    def give_memory_back() -> None:
        """Return what was freed to the system; the allocator would keep the peak of the largest CT for ever."""
        gc.collect()
        with suppress(AttributeError):  # glibc's; others need no reminder
            ctypes.CDLL(None).malloc_trim(0)

    def path(self, text: str) -> Path:
        """The file that a message names.

        Raises:
            ProtocolError: It does not lie in the spool.
        """
        path = Path(text).resolve()
        if not path.is_relative_to(self.spool_root):
            raise ProtocolError("a path outside of the spool was named; it is not opened")
        return path

    def _load(self, message: Load) -> Loaded | Refused:
        begun = time.perf_counter()
        try:
            with self.limited(LOAD_LIMIT_S):
                opened = self.shelf.load(message.package, Path(message.folder), message.digest)
        except EngineError as error:
            why = str(error)
        except MemoryError:
            why = "the worker has not enough memory to load it"
        except Exception as error:
            log.exception("package %s", message.package)
            why = f"{type(error).__name__} while it was loaded; the worker's log has more"
        else:
            session = opened.pipelines[0].session
            return Loaded(
                package=message.package,
                digest=opened.package.digest,
                engine_digest=session.digest,
                backend=session.backend,
                precision=session.precision,
                ms=(time.perf_counter() - begun) * 1000,
            )
        return Refused(package=message.package, message=why[:_DETAIL])

    def _add(self, message: Add) -> None:
        """Prepare ahead of time. What goes wrong here goes wrong again, and is told, when the series is finished."""
        kind = self.shelf.kind_of(message.series_key)
        pipelines = self.shelf.wants(message.series_key, message.version_key)
        if kind is None or not pipelines:
            return
        self.say(Progress(step="decode", series_key=message.series_key, version_key=message.version_key))
        try:
            with self.limited(DECODE_LIMIT_S):
                piece = decode_and_prepare(self.path(message.path), kind, pipelines)
        except (NotAnalysable, ProtocolError, OSError, MemoryError):
            return
        except Exception:
            log.exception("version %s", message.version_key)
            return
        self.shelf.put(message.series_key, message.version_key, piece)

    def _compare(self, message: Compare) -> Compared:
        self.say(Progress(step="compare"))
        try:
            with self.limited(message.limit_s):
                same = same_pixels(self.path(message.path_a), self.path(message.path_b))
            return Compared(request_id=message.request_id, same=same)
        except (NotAnalysable, ProtocolError) as error:
            why = str(error)
        except OSError as error:
            why = f"a file of the spool cannot be read: {error.strerror}"
        except Exception as error:
            log.exception("comparison %d", message.request_id)
            why = type(error).__name__
        return Compared(request_id=message.request_id, same=False, detail=why[:_DETAIL])

    def _finish(self, message: Finish) -> Result | Failed:
        hops_ms: dict[str, float] = {}
        opened = self.shelf.package(message.package)
        if opened is None:
            reason, detail = Reason.AI_UNAVAILABLE, f"package {message.package} is not loaded"
        else:
            try:
                return Analysis(self, message, opened, hops_ms).run()
            except NotAnalysable as error:
                reason, detail = error.reason, str(error)
            except ContentError as error:
                reason, detail = Reason(error.reason), str(error)
            except (EngineError, ProtocolError) as error:
                reason, detail = Reason.FAILED, str(error)
            except OSError as error:
                reason, detail = Reason.FAILED, f"a file of the spool cannot be read: {error.strerror}"
            except MemoryError:
                self.shelf.drop_all()
                reason, detail = Reason.FAILED, "the analysis needs more memory than the worker may take"
            except Exception as error:  # one study's bug must not take the worker from the next
                log.exception("analysis %d of %s", message.analysis_id, message.study)
                reason, detail = Reason.FAILED, f"{type(error).__name__} in the worker; its log has more"
        return Failed(
            analysis_id=message.analysis_id,
            reason=reason,
            detail=detail[:_DETAIL],
            package_digest=opened.package.digest if opened is not None else "",
            hops_ms=hops_ms,
        )


class Analysis:
    """One ``finish``: what is missing is decoded, each stage runs on its series, key pictures are drawn."""

    def __init__(self, desk: Desk, message: Finish, opened: OpenPackage, hops_ms: dict[str, float]) -> None:
        """Begin; the limit counts from here."""
        self._desk = desk
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
        answers: list[Answer] = []
        pictures: list[str] = []
        for pipeline in self._opened.pipelines:
            role = pipeline.stage.input.role
            given = self._message.inputs.get(role)
            if given is None:
                raise ProtocolError(f"the analysis has no input {role!r}, which the package takes")
            pieces = self._pieces(given, pipeline)
            self._tell("infer", given)
            with self._desk.limited(self._left_s()):
                finish = finish_ct if given.kind == "ct" else finish_xray
                answers.append(finish(pieces, pipeline))
            pictures += self._draw(answers[-1], given, pieces, pipeline)
        merged = merge(answers)
        for hop, ms in merged.hops_ms.items():
            self._spent(hop, ms)
        return self._result(merged, tuple(pictures))

    def _pieces(self, given: SeriesInput, pipeline: Pipeline) -> list[Piece]:
        """Everything that the revision consists of, whether it was prepared ahead of time or not."""
        shelf, pieces = self._desk.shelf, []
        for instance in given.instances:
            piece = shelf.get(given.series_key, instance.key, pipeline)
            if piece is None:
                path = self._desk.path(instance.path)
                self._tell("decode", given, instance.key)
                with self._desk.limited(self._left_s()):
                    piece = decode_and_prepare(path, given.kind, self._opened.pipelines)
                shelf.put(given.series_key, instance.key, piece)
                for hop, ms in piece.hops_ms.items():
                    self._spent(hop, ms)
            else:
                self._spent("ahead", sum(piece.hops_ms.values()))
            pieces.append(piece)
        return pieces

    def _draw(self, answer: Answer, given: SeriesInput, pieces: list[Piece], pipeline: Pipeline) -> tuple[str, ...]:
        begun = time.perf_counter()
        self._tell("picture", given)
        try:
            with self._desk.limited(self._left_s()):
                return draw_key_pictures(answer.output, pieces, given.kind, pipeline, self._desk.spool_root)
        except (NotAnalysable, OSError):
            # The scores stand: an alert does not wait for, or fail by, its picture.
            log.warning("analysis %d: its key pictures could not be drawn", self._message.analysis_id)
            return ()
        finally:
            self._spent("picture", (time.perf_counter() - begun) * 1000)

    def _result(self, answer: Answer, pictures: tuple[str, ...]) -> Result:
        output, session = answer.output, self._opened.pipelines[0].session
        return Result(
            analysis_id=self._message.analysis_id,
            findings=tuple(_scored(output, finding.id) for finding in self._opened.package.manifest.findings),
            numbers=output.numbers,
            caveats=answer.caveats,
            warnings=output.warnings,
            package_digest=self._opened.package.digest,
            engine_digest=session.digest,
            backend=session.backend,
            precision=session.precision,
            pictures=pictures,
            hops_ms=self._hops_ms,
        )

    def _left_s(self) -> float:
        return self._message.limit_s - (time.monotonic() - self._begun)

    def _spent(self, hop: str, ms: float) -> None:
        self._hops_ms[hop] = self._hops_ms.get(hop, 0.0) + ms

    def _tell(self, step: Step, given: SeriesInput, version_key: str = "") -> None:
        self._desk.say(
            Progress(
                step=step,
                analysis_id=self._message.analysis_id,
                series_key=given.series_key,
                version_key=version_key,
                ms=(time.monotonic() - self._begun) * 1000,
            )
        )


def _scored(output: ModelOutput, finding: str) -> Scored:
    if finding not in output.scores:
        raise ContentError("unreliable_output", f"the package gave no score for its finding {finding!r}")
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
