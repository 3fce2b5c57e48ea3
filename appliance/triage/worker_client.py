"""The daemon's side of the worker: ask it, wait for its answer, notice its end. Standard library and messages only.

Rules:
- One worker at a time. Its connection is its life: when it ends, every open question ends with it.
- Hints (``open``, ``add``, ``drop``) are never waited for and may be lost; ``finish`` names the whole truth again.
- What comes from the worker is foreign: garbage, a flood, half a message or an answer nobody asked for ends it.
- Whether a worker should run is told by ``want`` (``availability.WorkerPolicy`` decides); what happened is taken
  from ``events``, for the journal and for that rule.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from appliance.clock import Clock
from appliance.records import Detail, Reason
from appliance.triage.engine_messages import Build, CancelBuild, Checked, EngineLost, EngineNews, SpotCheck
from appliance.triage.engine_watch import EngineWatch
from appliance.triage.frames import ProtocolError
from appliance.triage.message_base import Message
from appliance.triage.protocol import (
    PROTOCOL,
    Add,
    Compare,
    Compared,
    Drop,
    Failed,
    Finish,
    FromWorker,
    Hello,
    Load,
    Loaded,
    Open,
    Progress,
    Refused,
    Result,
    SeriesInput,
    SeriesKind,
    Unload,
    encode,
    from_worker,
)
from appliance.triage.worker_events import (
    Event,
    PackagesChanged,
    WorkerEnded,
    WorkerLost,
    WorkerReady,
    WorkerStarted,
    WorkerTimedOut,
)
from appliance.triage.worker_peer import WorkerPeer

#: The worker ends itself at its limit; this much later the daemon does.
GRACE_S = 2.0
#: Hints are dropped while this much waits to be sent: the worker is busy, and decodes later what it needs.
_MAX_HINT_BACKLOG = 4 << 20


Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Worker:
    """What is known of the worker that runs now."""

    pid: int
    greeted: bool = False
    asked: bool = False
    loaded: dict[str, Loaded] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    #: Per key, answers still to come for packages that are no longer wanted; and every key that was asked for once.
    moot: Counter[str] = field(default_factory=Counter)
    former: set[str] = field(default_factory=set)
    ready_at: float | None = None
    in_hand: Progress | None = None
    #: Set when it is gone.
    ended: str = ""
    by_alarm: bool = False


class WorkerLink:
    """The daemon's end of the worker's socket. Every method may be called from any thread."""

    def __init__(
        self,
        socket_path: Path,
        spool_root: Path,
        *,
        clock: Clock,
        packages: Sequence[Load] = (),
        spawn: bool = True,
        threads: int = 0,
        arguments: Sequence[str] = (),
        on_event: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing is opened before ``start``.

        Args:
            socket_path: Where to listen; made readable for this user only.
            spool_root: Below it lie all paths that the worker may be told.
            clock: For limits and event times.
            packages: What every new worker loads before it is ready. Only folders that the daemon trusts.
            spawn: Start the worker as a child; False where systemd runs it as its own unit.
            threads: Threads of one inference; 0 = all cores.
            arguments: Further arguments of a child; tests and the bench use them, no configuration does.
            on_event: Called from the I/O thread when ``events`` has something new; must not block.
        """
        command = [sys.executable, "-m", "appliance.triage.worker", "--socket", str(socket_path)]
        command += ["--spool", str(spool_root), "--threads", str(threads), "--die-with-parent", *arguments]
        self._clock = clock
        self._packages = {load.package: load for load in packages}
        self._on_event = on_event
        self._changed = threading.Condition()
        self._peer = WorkerPeer(socket_path, command if spawn else None, clock=clock, owner=self)
        self._wanted = False
        self._worker: _Worker | None = None
        self._events: list[Event] = []
        self._answers: dict[int, Result | Failed | None] = {}
        self._compared: dict[int, Compared | None] = {}
        self._requests = 0
        self._engines = EngineWatch()

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen. A worker is started, or let in, once ``want(True)`` is said.

        Raises:
            StoreError: The socket cannot be made.
        """
        self._peer.start()

    def stop(self) -> None:
        """End the worker and stop listening. Open questions end with ``WorkerLost``."""
        self._peer.stop()

    def want(self, wanted: bool) -> None:  # noqa: FBT001 - want(True), want(False)
        """Say whether a worker should run. No longer: the one that runs is ended, the next waits unasked."""
        with self._changed:
            self._wanted = wanted
            self._peer.want(wanted)
            self._ask_to_load()

    def kill(self, why: str) -> None:
        """End the worker at once; ``WorkerEnded`` tells ``why``."""
        self._peer.kill(why)

    def events(self) -> list[Event]:
        """What happened since the last call, oldest first."""
        with self._changed:
            taken, self._events = self._events, []
            return taken

    @property
    def ready_since_mono(self) -> float | None:
        """Since when questions are taken; None while they are not."""
        worker = self._worker
        return worker.ready_at if worker is not None else None

    @property
    def is_ready(self) -> bool:
        """Whether ``finish`` and ``compare`` would be taken now."""
        return self.ready_since_mono is not None

    @property
    def loaded(self) -> Mapping[str, Loaded]:
        """The packages that serve at this moment."""
        with self._changed:
            return dict(self._worker.loaded) if self._worker is not None else {}

    @property
    def refused(self) -> Mapping[str, str]:
        """The packages that the present worker has refused, with its message."""
        with self._changed:
            return dict(self._worker.refused) if self._worker is not None else {}

    def serve(self, loads: Sequence[Load]) -> None:
        """Say which packages should be loaded from now on; a worker that runs loads and unloads the difference.

        Whoever calls ``finish`` calls this too, from the same thread, so that an analysis never meets another version
        under its package's key.
        """
        with self._changed:
            before, self._packages = self._packages, {load.package: load for load in loads}
            worker = self._worker
            if worker is None or not worker.asked:
                return
            kept = {key for key, load in before.items() if _is_same(load, self._packages.get(key))}
            for key in before.keys() - kept:
                self._take_back(worker, key)
            for key in self._packages.keys() - kept:
                self._peer.send(encode(self._engines.load(self._packages[key])))
                worker.former.discard(key)
            self._look_whether_ready(worker)

    def _take_back(self, worker: _Worker, key: str) -> None:
        if worker.loaded.pop(key, None) is None and worker.refused.pop(key, None) is None:
            worker.moot[key] += 1
        worker.former.add(key)
        self._peer.send(encode(Unload(package=key)))

    @property
    def is_loading(self) -> bool:
        """Whether the worker has yet to answer for a package; analyses would wait behind it."""
        worker = self._worker
        if worker is None:
            return False
        return any(key not in worker.loaded and key not in worker.refused for key in self._packages)

    # -- what a worker is asked --------------------------------------------------------------------------------------

    def open(self, series_key: str, kind: SeriesKind, packages: Sequence[str]) -> None:
        """A series begins that these packages may want. A hint."""
        self._hint(Open(series_key=series_key, kind=kind, packages=tuple(packages)))

    def add(self, series_key: str, version_key: str, path: Path) -> None:
        """One more instance of an open series. A hint."""
        self._hint(Add(series_key=series_key, version_key=version_key, path=str(path)))

    def drop(self, series_key: str) -> None:
        """A series is finished with. A hint."""
        self._hint(Drop(series_key=series_key))

    def finish(
        self,
        analysis_id: int,
        package: str,
        inputs: Mapping[str, SeriesInput],
        *,
        limit_s: float,
        study: str = "",
        operating_points: Mapping[str, str] = MappingProxyType({}),
    ) -> Result | Failed:
        """Analyse, and wait for the answer.

        Args:
            analysis_id: The analysis row's id.
            package: One of ``packages``.
            inputs: Per input role of the package: the series revision.
            limit_s: Wall time; the worker is ended ``GRACE_S`` later.
            study: The study's local id, for the worker's log.
            operating_points: Finding: point, where the site picked another than the package's.

        Raises:
            WorkerTimedOut: It took longer than ``limit_s``.
            WorkerLost: The worker ended before it answered, or none is ready.
        """
        why = self.refused.get(package)
        if why is not None:
            refused = Detail("the AI package was refused: {why}", {"why": why})
            return Failed(analysis_id=analysis_id, reason=Reason.AI_UNAVAILABLE, details=(refused,))
        question = Finish(
            analysis_id=analysis_id,
            package=package,
            inputs=dict(inputs),
            limit_s=limit_s,
            study=study,
            operating_points=dict(operating_points),
        )
        deadline = self._clock.monotonic() + limit_s + GRACE_S
        try:
            encoded = encode(question)
        except ProtocolError as error:
            too_long = Detail("fault in the AI engine: {fault}", {"fault": str(error)})
            return Failed(analysis_id=analysis_id, reason=Reason.FAILED, details=(too_long,))
        with self._changed:
            worker = self._ask(encoded)
            self._answers[analysis_id] = None
            try:
                while (answer := self._answers[analysis_id]) is None:
                    if worker.ended:
                        raise self._lost(worker, analysis_id, is_late=self._clock.monotonic() > deadline - GRACE_S)
                    left = deadline - self._clock.monotonic()
                    if left <= 0:
                        worker.ready_at = None
                        worker.ended = f"no answer within {limit_s:g} s"
                        self._peer.kill(worker.ended)
                        continue
                    self._changed.wait(min(left, 1.0))
            finally:
                del self._answers[analysis_id]
            if isinstance(answer, Result):
                self._engines.worked(package)
        return answer

    def compare(self, path_a: Path, path_b: Path, *, limit_s: float = 60.0) -> Compared:
        """Ask whether two files hold equal decoded pixels, and wait; behind an analysis that runs, too.

        Raises:
            WorkerLost: The worker ended before it answered, or none is ready.
        """
        with self._changed:
            self._requests += 1
            request = self._requests
            question = Compare(request_id=request, path_a=str(path_a), path_b=str(path_b), limit_s=limit_s)
            worker = self._ask(encode(question))
            self._compared[request] = None
            try:
                while (answer := self._compared[request]) is None:
                    if worker.ended:
                        raise WorkerLost(worker.ended)
                    self._changed.wait(1.0)
            finally:
                del self._compared[request]
        return answer

    def build(self, build: Build) -> None:
        """Have an engine built while studies go on. ``engine_news`` tells how it goes and how it ends.

        Raises:
            WorkerLost: No worker is ready.
        """
        with self._changed:
            self._ask(encode(build))
            self._engines.build = build

    @property
    def is_building(self) -> bool:
        """Whether a build runs."""
        with self._changed:
            return self._engines.build is not None

    def cancel_build(self) -> None:
        """End the build that runs; ``engine_news`` tells its end."""
        self._peer.send(encode(CancelBuild()))

    def spot_check(self, package: str) -> None:
        """Have a golden case run on what serves. ``engine_news`` tells how it went.

        Raises:
            WorkerLost: No worker is ready.
        """
        with self._changed:
            self._ask(encode(SpotCheck(package=package)))

    def engine_news(self) -> list[EngineNews | Loaded]:
        """What was told of engines since the last call, oldest first; ``Loaded``: this one serves now."""
        with self._changed:
            return self._engines.news()

    def _ask(self, encoded: bytes) -> _Worker:
        worker = self._worker
        if worker is None or worker.ready_at is None:
            raise WorkerLost("no worker is ready")
        self._peer.send(encoded)
        return worker

    def _hint(self, message: Message) -> None:
        if self.is_ready and self._peer.backlog_bytes < _MAX_HINT_BACKLOG:
            self._peer.send(encode(message))

    @staticmethod
    def _lost(worker: _Worker, analysis_id: int, *, is_late: bool) -> WorkerLost | WorkerTimedOut:
        in_hand = worker.in_hand.analysis_id if worker.in_hand is not None else None
        # Of a worker that is no child only the time is known, not the signal that ended it.
        if (worker.by_alarm or is_late) and in_hand == analysis_id:
            return WorkerTimedOut(worker.ended, analysis_id)
        return WorkerLost(worker.ended, in_hand)

    # -- what the peer tells, from its thread ------------------------------------------------------------------------

    def on_started(self, pid: int) -> None:
        """See ``worker_peer.Owner``."""
        with self._changed:
            self._worker = _Worker(pid)
            self._tell(WorkerStarted(at_mono=self._clock.monotonic(), pid=pid))

    def on_frame(self, body: bytes) -> None:
        """See ``worker_peer.Owner``."""
        with self._changed:
            if self._worker is not None:
                self._take(self._worker, from_worker(body))
                self._changed.notify_all()

    def on_ended(self, pid: int, why: str, *, by_alarm: bool) -> None:
        """See ``worker_peer.Owner``."""
        with self._changed:
            worker, self._worker = self._worker, None
            in_hand = worker.in_hand if worker is not None else None
            if worker is not None:
                worker.ready_at = None
                worker.ended = worker.ended or why
                worker.by_alarm = worker.by_alarm or by_alarm
            self._engines.ended(in_hand, why)
            self._tell(
                WorkerEnded(
                    at_mono=self._clock.monotonic(),
                    pid=pid,
                    why=why,
                    analysis_id=in_hand.analysis_id if in_hand is not None else None,
                    series_key=in_hand.series_key if in_hand is not None else "",
                )
            )

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._changed.notify_all()
        self._on_event()

    def _take(self, worker: _Worker, message: FromWorker) -> None:
        if isinstance(message, Hello):
            if worker.greeted or message.protocol != PROTOCOL:
                raise ProtocolError(f"said hello with protocol {message.protocol}, this daemon speaks {PROTOCOL}")
            worker.greeted = True
            self._ask_to_load()
        elif not worker.greeted:
            raise ProtocolError(f"said {message.type} before hello")
        elif isinstance(message, Progress):
            worker.in_hand = message if message.step != "idle" else None
        elif isinstance(message, Loaded | Refused):
            self._answered_load(worker, message)
        elif isinstance(message, Compared):
            _put(self._compared, message.request_id, message)
            worker.in_hand = None
        elif isinstance(message, Result | Failed):
            _put(self._answers, message.analysis_id, message)
            worker.in_hand = None
        elif message.package in self._packages or message.package in worker.former:
            self._engines.take(message)
            if isinstance(message, Checked | EngineLost):
                # A lost engine's worker ends for its engine, not for the study that it worked on.
                worker.in_hand = None
        else:
            raise ProtocolError(f"told of an engine of package {message.package!r}, which it was not asked to load")

    def _ask_to_load(self) -> None:
        worker = self._worker
        if worker is None or not worker.greeted or worker.asked or not self._wanted:
            return
        worker.asked = True
        for load in self._packages.values():
            self._peer.send(encode(self._engines.load(load)))
        self._look_whether_ready(worker)

    def _answered_load(self, worker: _Worker, message: Loaded | Refused) -> None:
        wanted = self._packages.get(message.package)
        if worker.moot[message.package]:
            worker.moot[message.package] -= 1
            return
        is_stale = isinstance(message, Loaded) and wanted is not None and message.digest != wanted.digest
        if is_stale or message.package in worker.former:
            return
        known = worker.asked and wanted is not None
        if isinstance(message, Loaded):
            worker.in_hand = None
            self._engines.loaded(message)
            if known and message.package in worker.loaded:
                worker.loaded[message.package] = message
                return
        if not known or message.package in worker.loaded or message.package in worker.refused:
            raise ProtocolError(f"answered for package {message.package!r}, which it was not asked to load")
        if isinstance(message, Loaded):
            worker.loaded[message.package] = message
        else:
            worker.refused[message.package] = message.message
        self._look_whether_ready(worker)

    def _look_whether_ready(self, worker: _Worker) -> None:
        if len(worker.loaded) + len(worker.refused) < len(self._packages) or (self._packages and not worker.loaded):
            return
        digests = {name: loaded.digest for name, loaded in worker.loaded.items()}
        if worker.ready_at is not None:
            now = self._clock.monotonic()
            self._tell(PackagesChanged(at_mono=now, packages=digests, refused=dict(worker.refused)))
            return
        worker.ready_at = self._clock.monotonic()
        self._tell(WorkerReady(at_mono=worker.ready_at, pid=worker.pid, packages=digests, refused=dict(worker.refused)))


def _is_same(load: Load, other: Load | None) -> bool:
    """Whether the worker need not notice: it does the same whatever an analysis's role."""
    return other is not None and other.model_copy(update={"role": load.role}) == load


def _put(answers: dict[int, Answer | None], key: int, answer: Answer) -> None:
    """Hand an answer to who waits for it."""
    if answers.get(key, answer) is not None:
        raise ProtocolError(f"an answer that nobody asked for ({key})")
    answers[key] = answer
