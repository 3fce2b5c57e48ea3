"""A whole package, ready to work: its preprocessors, one session for each of its stages, its head.

The worker calls ``prepare`` for each picture as it arrives and ``finish`` when the last one is in.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engines.again import Again
from engines.errors import SessionError
from engines.heads import HEADS
from engines.heads.base import check_finite
from engines.inputs import OpenInput, check_flow
from engines.manifest import Run
from engines.overlay import Overlay
from engines.package import Package
from engines.preprocess.base import Assembled, Volumetric
from engines.session import Closing, Session, open_sessions, smallest_inputs
from engines.tiles import mean_of, run_in_tiles, run_in_window
from engines.types import Image, ModelOutput, Prepared, Stack, Tensors, Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What one run gave and how long each hop took."""

    output: ModelOutput
    #: The output's masks by finding id, with their way back to the pictures.
    overlays: dict[str, Overlay] = field(default_factory=dict)
    #: Milliseconds of ``assemble``, ``inference`` and ``head``.
    hops_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a step gave, where it looked, and in which series."""

    outputs: Tensors
    assembled: Assembled
    role: str


class _Watch:
    """Adds up the time of each hop."""

    def __init__(self) -> None:
        self.hops_ms: dict[str, float] = {}
        self._mark = time.perf_counter()

    def spent(self, hop: str) -> None:
        """What passed since the last call belongs to this hop."""
        now = time.perf_counter()
        self.hops_ms[hop] = self.hops_ms.get(hop, 0.0) + (now - self._mark) * 1000
        self._mark = now


class Pipeline(Closing):
    """A package with its sessions. One thread uses it."""

    def __init__(
        self,
        package: Package,
        *,
        sessions: Sequence[Session] | None = None,
        backend: str = "onnxruntime",
        threads: int = 1,
    ) -> None:
        """Open the graphs of all stages.

        Args:
            package: A loaded package.
            sessions: One for each stage, opened elsewhere; they are closed with the pipeline. Absent: they are opened
                here.
            backend: See ``open_session``.
            threads: Threads within one operator.

        Raises:
            PackageError: A graph was altered since the package was loaded.
            SessionError: The backend refuses a graph, the number of sessions is not that of the stages, or a tensor
                that the manifest names is not there.
        """
        manifest = package.manifest
        self.package = package
        self.inputs = {feed.input.role: OpenInput(feed) for feed in manifest.inputs}
        self.head = HEADS[manifest.head.name].model_validate(manifest.head.params)
        self._sessions: tuple[Session, ...] = ()
        if sessions is not None:
            self.replace(sessions)
            return
        self._sessions = open_sessions(package, backend=backend, threads=threads)
        try:
            self.replace(self._sessions)
        except BaseException:
            self.close()
            raise

    @property
    def sessions(self) -> tuple[Session, ...]:
        """What runs each stage's graph."""
        return self._sessions

    @property
    def digest(self) -> str:
        """SHA-256 that tells this engine from every other; where the stages are of one engine it is that one's."""
        digests = list(dict.fromkeys(session.digest for session in self._sessions))
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def backend(self) -> str:
        """Name of the backend; where the stages have different ones, of each."""
        # A session may itself stand for two: of one study a server computed some, this box the rest.
        return "+".join(dict.fromkeys(name for session in self._sessions for name in session.backend.split("+")))

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16`` or ``int8``; where the stages have different ones, each."""
        return "+".join(dict.fromkeys(session.precision for session in self._sessions))

    def replace(self, sessions: Sequence[Session]) -> tuple[Session, ...]:
        """Let other sessions run the graphs from now on.

        Returns:
            Those that did so far; the caller closes them.

        Raises:
            SessionError: Their number is not that of the stages, or a tensor has another name; nothing has changed.
        """
        count = len(self.package.manifest.stages)
        if len(sessions) != count:
            raise SessionError(f"{len(sessions)} sessions for the {count} stages of {self.package.name}")
        check_flow(self.package.manifest, sessions, self.inputs, self.head)
        before, self._sessions = self._sessions, tuple(sessions)
        return before

    def warmup(self) -> None:
        """Load late libraries and run every stage once on zeros, so that the first study does not pay for it.

        Raises:
            SessionError: A backend failed.
        """
        for taken in self.inputs.values():
            taken.preprocessor.warmup()
        self.head.warmup()
        for session in self._sessions:
            session.warmup()

    def prepare(self, role: str, image: Image) -> Prepared:
        """Make one picture of an input small, while others still arrive.

        Raises:
            ContentError: No series with this picture can be scored.
        """
        return self.inputs[role].preprocessor.prepare(image)

    def finish(self, stacks: Mapping[str, Stack]) -> Finished:
        """Run on complete series.

        Args:
            stacks: By role; only an optional one may be missing.

        Raises:
            ContentError: The input must not be scored, or the output cannot be believed.
            SessionError: A backend failed.
        """
        watch = _Watch()
        assembled = {role: self.inputs[role].preprocessor.assemble(stack) for role, stack in stacks.items()}
        watch.spent("assemble")
        seen: list[_Seen] = []
        for run in self.package.manifest.steps:
            seen.append(self._run(run, assembled, seen, watch))
            check_finite(seen[-1].outputs)
        output = self.head.decide(seen[-1].outputs, seen[-1].assembled)
        overlays = {finding: seen[-1].assembled.overlay(mask) for finding, mask in output.masks.items()}
        watch.spent("head")
        return Finished(output=output, overlays=overlays, hops_ms=watch.hops_ms)

    def _run(self, run: Run, assembled: Mapping[str, Assembled], seen: Sequence[_Seen], watch: _Watch) -> _Seen:
        """One step: the tensors of its inputs, and what it takes from an earlier step, through its stages."""
        tensors, role = self._fed(run, assembled)
        if run.take is None:
            outputs = self._through(run, tensors)
            watch.spent("inference")
            return _Seen(outputs, assembled[role], role)
        before = seen[run.take.from_]
        again = Again(run.take, before.outputs, before.assembled, self._volumetric(before.role))
        if run.take.by != "peaks":
            place = again.whole()
            watch.spent("assemble")
            outputs = self._through(run, tensors | place.tensors)
            watch.spent("inference")
            return _Seen(outputs, place, before.role)
        candidates = again.candidates()
        runs = []
        for crop in again.crops(candidates):
            watch.spent("assemble")
            runs.append(self._through(run, tensors | crop))
            watch.spent("inference")
        outputs = {name: np.concatenate([one[name] for one in runs]) for name in runs[0]} if runs else {}
        return _Seen(outputs, replace(before.assembled, candidates=candidates), before.role)

    def _fed(self, run: Run, assembled: Mapping[str, Assembled]) -> tuple[Tensors, str]:
        """The tensors of a step's inputs, and the role of the first; an optional one that is missing gives zeros."""
        tensors: Tensors = {}
        first = ""
        for role, taken in self.inputs.items():
            if taken.stage != run.stages[0]:
                continue
            if role in assembled:
                tensors |= assembled[role].tensors
                first = first or role
            else:
                specs = self._sessions[taken.stage].inputs
                tensors |= smallest_inputs(tuple(s for s in specs if s.name == taken.preprocessor.tensor))
        return tensors, first

    def _through(self, run: Run, tensors: Tensors) -> Tensors:
        """The mean of what the stages of a step make of the same tensors."""
        sessions = [self._sessions[index] for index in run.stages]
        if run.tile is not None:
            return run_in_tiles(sessions, tensors, run.tile)
        stages = self.package.manifest.stages
        return mean_of([run_in_window(s, tensors, stages[k].window) for s, k in zip(sessions, run.stages, strict=True)])

    def _volumetric(self, role: str) -> Volumetric:
        preprocessor = self.inputs[role].preprocessor
        assert isinstance(preprocessor, Volumetric)  # noqa: S101 - check_flow refuses others
        return preprocessor

    def run_volumes(self, volumes: Mapping[str, Volume]) -> Finished:
        """Prepare and run whole series at once; for golden cases, tools and tests.

        Args:
            volumes: By role; an X-ray is a volume of one slice.

        Raises:
            ContentError: The input must not be scored, or the output cannot be believed.
            SessionError: A backend failed.
        """
        stacks = {}
        for role, volume in volumes.items():
            slices = tuple(
                self.prepare(role, Image(id=name, array=picture, spacing_mm=volume.spacing_mm))
                for name, picture in zip(volume.slice_ids, volume.array, strict=True)
            )
            stacks[role] = Stack(
                slices=slices,
                positions_mm=volume.positions_mm,
                normal=volume.normal,
                tilt_deg=volume.tilt_deg,
                shifts_mm=volume.shifts_mm,
            )
        return self.finish(stacks)

    def run_volume(self, volume: Volume) -> Finished:
        """Prepare and run a whole volume of the package's only input at once.

        Raises:
            ContentError: The input must not be scored, or the output cannot be believed.
            SessionError: A backend failed.
            ValueError: The package has several inputs.
        """
        (role,) = self.inputs
        return self.run_volumes({role: volume})

    def close(self) -> None:
        """Free the sessions."""
        for session in self._sessions:
            session.close()
