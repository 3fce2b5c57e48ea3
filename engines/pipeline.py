"""One stage of a package, ready to work: preprocessor, session and head in a row.

The worker calls ``prepare`` for each picture as it arrives and ``finish`` when the last one is in.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from engines.errors import SessionError
from engines.heads import HEADS
from engines.heads.base import check_finite
from engines.manifest import Window
from engines.package import Package
from engines.preprocess import PREPROCESSORS
from engines.session import Session, open_session
from engines.types import Image, ModelOutput, Prepared, Stack, Tensors, Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What one run gave and how long each hop took."""

    output: ModelOutput
    #: Milliseconds of ``assemble``, ``inference`` and ``head``.
    hops_ms: dict[str, float] = field(default_factory=dict)


def run_in_window(session: Session, tensors: Tensors, window: Window | None) -> Tensors:
    """Run a session piece by piece along the first axis of all its tensors; at once without a window.

    Raises:
        SessionError: The backend failed, or an output has another length than the inputs.
    """
    length = min(len(t) for t in tensors.values())
    if window is None or length <= window.length:
        return session.run(tensors)
    whole: Tensors = {}
    for start in range(0, length, window.length):
        stop = min(start + window.length, length)
        low, high = max(0, start - window.overlap), min(length, stop + window.overlap)
        for name, piece in session.run({name: t[low:high] for name, t in tensors.items()}).items():
            if len(piece) != high - low:
                raise SessionError(f"output {name!r} has length {len(piece)} for {high - low}; it cannot be windowed")
            whole.setdefault(name, np.empty((length, *piece.shape[1:]), piece.dtype))
            whole[name][start:stop] = piece[start - low : stop - low]
    return whole


class Pipeline:
    """Preprocessor, session and head of one stage. One thread uses it."""

    def __init__(self, package: Package, index: int = 0, *, backend: str = "onnxruntime", threads: int = 1) -> None:
        """Open the stage's graph.

        Args:
            package: A loaded package.
            index: Which of its stages.
            backend: See ``open_session``.
            threads: Threads within one operator.

        Raises:
            PackageError: The graph was altered since the package was loaded.
            SessionError: The backend refuses the graph.
        """
        stage = package.manifest.stages[index]
        self.package = package
        self.stage = stage
        self.preprocessor = PREPROCESSORS[stage.preprocess.name].model_validate(stage.preprocess.params)
        self.head = HEADS[stage.head.name].model_validate(stage.head.params)
        self.session: Session = open_session(package, index, backend=backend, threads=threads)

    def warmup(self) -> None:
        """Load late libraries and run once on zeros, so that the first study does not pay for it.

        Raises:
            SessionError: The backend failed.
        """
        self.preprocessor.warmup()
        self.head.warmup()
        self.session.warmup()

    def prepare(self, image: Image) -> Prepared:
        """Make one picture small, while others still arrive.

        Raises:
            ContentError: No input with this picture can be scored.
        """
        return self.preprocessor.prepare(image)

    def finish(self, stack: Stack) -> Finished:
        """Run on a complete stack.

        Raises:
            ContentError: The input must not be scored, or the output cannot be believed.
            SessionError: The backend failed.
        """
        marks = [time.perf_counter()]
        assembled = self.preprocessor.assemble(stack)
        marks.append(time.perf_counter())
        outputs = run_in_window(self.session, assembled.tensors, self.stage.window)
        marks.append(time.perf_counter())
        check_finite(outputs)
        output = self.head.decide(outputs, assembled)
        marks.append(time.perf_counter())
        spent = [(b - a) * 1000 for a, b in itertools.pairwise(marks)]
        return Finished(output=output, hops_ms=dict(zip(("assemble", "inference", "head"), spent, strict=True)))

    def run_volume(self, volume: Volume) -> Finished:
        """Prepare and run a whole volume at once; for golden cases, tools and tests.

        Raises:
            ContentError: The input must not be scored, or the output cannot be believed.
            SessionError: The backend failed.
        """
        slices = tuple(
            self.prepare(Image(id=name, array=picture, spacing_mm=volume.spacing_mm))
            for name, picture in zip(volume.slice_ids, volume.array, strict=True)
        )
        stack = Stack(slices=slices, positions_mm=volume.positions_mm, normal=volume.normal, tilt_deg=volume.tilt_deg)
        return self.finish(stack)

    def close(self) -> None:
        """Free the session."""
        self.session.close()

    def __enter__(self) -> Pipeline:  # noqa: PYI034 - Self came with Python 3.11
        """Use as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
