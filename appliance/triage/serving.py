"""A package that serves in the worker: on which engine, since what happened, and what to do when it fails.

An engine that serves was accepted on this box, and says on a golden case what the reference said then. One that fails
at that three times in a row is rejected for good; an earlier engine, else ONNX Runtime with the package's own graph,
takes its place between two analyses.

A package may run on a KServe server instead. What the server does not do, its sessions compute here, and ``fallback``
says why; a server that gives another answer to a golden case is not asked again before the worker is a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.triage.engine_messages import EngineWish, KServeWish
from engines.accept import spot_check
from engines.backends.kserve import KServeServer, KServeSession, open_all
from engines.choice import Choice, open_best
from engines.errors import SessionError
from engines.golden import check_golden
from engines.package import Package
from engines.pipeline import Pipeline
from engines.session import Session, open_sessions
from engines.store import EngineStore, Entry

#: Spot checks that fail in a row before an engine is given up.
TRIES = 3
#: For warm-up and golden cases on a server; the same here, in the worst case, has the rest of a load's limit.
SERVER_PROOF_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a package is to be run: the reference's backend, threads, the wished engine or server, or why neither."""

    backend: str
    threads: int
    wish: EngineWish | None = None
    kserve: KServeWish | None = None
    no_engine: str = ""


class OpenPackage:
    """A package with its pipeline. One thread uses it."""

    def __init__(self, package: Package, plan: Plan) -> None:
        """Open the best engine that works, and let it show that it does.

        Raises:
            PackageError: A golden case cannot be read.
            SessionError: Not even the reference works, or an engine broke the device for this process (``sticky``).
        """
        self.package = package
        #: The engine; None: ONNX Runtime with the package's own graph.
        self.entry: Entry | None = None
        self.lacks_engine = False
        #: On a KServe server; empty where none is wished or it was given up.
        self._on_server: tuple[KServeSession, ...] = ()
        self._fallback = ""
        self._plan = plan
        self._no_engine = plan.no_engine
        sessions = self._choose()
        self.pipeline = Pipeline(package, sessions=sessions or self._reference())
        if not sessions:
            self._prove_reference()

    @property
    def fallback(self) -> str:
        """Why it is not the wished engine or server that serves; empty where it is."""
        reasons = [session.degraded for session in self._on_server if session.degraded]
        return "; ".join(dict.fromkeys(reasons)) or self._fallback

    @property
    def can_fall_back(self) -> bool:
        """Whether something else can serve in place of what serves now."""
        return self.entry is not None or bool(self._on_server)

    def begin_study(self, left_s: Callable[[], float]) -> None:
        """An analysis begins, which has so many seconds left: a server gets its share of them."""
        for session in self._on_server:
            session.begin_study(left_s)

    def check(self) -> str:
        """Run a golden case on what serves. Returns what is wrong; empty when all is well.

        Raises:
            PackageError: The package's files are no longer what they were.
            SessionError: The engine broke the device for this process (``sticky``).
        """
        if self.entry is not None:
            return "; ".join(spot_check(self.pipeline, self.entry.report))
        self.begin_study(_countdown(SERVER_PROOF_S))
        try:
            check_golden(self.pipeline)
        except SessionError as error:
            return str(error)
        return ""

    def give_up(self, why: str) -> None:
        """Reject the engine, or the server, that serves, and let the next best serve.

        Raises:
            SessionError: Not even the reference works.
        """
        if self._plan.kserve is not None and self._on_server:
            self._on_server, self._fallback = (), _not_on_server(self._plan.kserve, why)
            _close(self.pipeline.replace(self._reference()))
            self._prove_reference()
            return
        if self.entry is not None:
            self._reject(self.entry, why)
        self.look_again()

    def look_again(self) -> bool:
        """Let a better engine serve if there is one now; old sessions are closed. Returns whether another serves.

        Raises:
            SessionError: The engine is gone and not even the reference works.
        """
        if self._plan.kserve is not None:
            return False
        before, self._no_engine = self.entry, ""
        sessions = self._choose()
        if self.entry is not None and before is not None and self.entry.digest == before.digest:
            _close(sessions)
            return False
        if not sessions and before is None:
            return False
        old = self.pipeline.replace(sessions or self._reference())
        _close(old)
        if not sessions:
            self._prove_reference()
        return True

    def close(self) -> None:
        """Free everything."""
        self.pipeline.close()

    def _choose(self) -> tuple[Session, ...]:
        """Open, warm up and check the best engine; empty where none works. Remembers which, or why not."""
        plan = self._plan
        if plan.kserve is not None and not self._no_engine:
            self._on_server = self._open_server(plan.kserve)
            return self._on_server
        if plan.wish is None or self._no_engine:
            self.entry, self._fallback, self.lacks_engine = None, self._no_engine, False
            return ()
        while True:
            choice = open_best(
                self.package,
                root=Path(plan.wish.store),
                flavour=plan.wish.flavour,
                precision=plan.wish.precision,
                threads=plan.threads,
            )
            fault = self._try(choice)
            if choice.entry is None or not fault:
                break
            _close(choice.sessions)
            self._reject(choice.entry, fault)
        self.entry, self.lacks_engine = choice.entry, choice.lacks_engine
        self._fallback = choice.fallback
        return choice.sessions

    def _open_server(self, wish: KServeWish) -> tuple[KServeSession, ...]:
        """Open every stage on the server and let it show that it works; empty where it does not. Remembers why.

        A server that does not answer is no reason: its sessions compute here, and ask it again later.
        """
        sessions: tuple[KServeSession, ...] = ()
        try:
            sessions = open_all(self.package, KServeServer(**wish.model_dump()), threads=self._plan.threads)
            left_s = _countdown(SERVER_PROOF_S)
            for session in sessions:
                session.begin_study(left_s)
            pipeline = Pipeline(self.package, sessions=sessions)
            pipeline.warmup()
            check_golden(pipeline)
        except SessionError as error:
            _close(sessions)
            self._fallback = _not_on_server(wish, str(error)) if sessions else str(error)
            return ()
        except BaseException:
            _close(sessions)
            raise
        return sessions

    def _try(self, choice: Choice) -> str:
        """Warm an engine up and check it. Returns what is wrong ``TRIES`` times in a row."""
        if choice.entry is None:
            return ""
        pipeline, fault = Pipeline(self.package, sessions=choice.sessions), ""
        for _ in range(TRIES):
            try:
                pipeline.warmup()
                fault = "; ".join(spot_check(pipeline, choice.entry.report))
            except SessionError as error:
                if error.sticky:
                    raise
                fault = str(error)
            if not fault:
                return ""
        return fault

    def _reject(self, entry: Entry, why: str) -> None:
        if self._plan.wish is not None:
            store = EngineStore(Path(self._plan.wish.store))
            store.reject(entry.digest, f"its spot check failed {TRIES} times in a row: {why}", entry.report)

    def _reference(self) -> tuple[Session, ...]:
        return open_sessions(self.package, backend=self._plan.backend, threads=self._plan.threads)

    def _prove_reference(self) -> None:
        """The known answer, and the warm-up: the first study is not slower than the second."""
        try:
            self.pipeline.warmup()
            check_golden(self.pipeline)
        except BaseException:
            self.pipeline.close()
            raise


def _not_on_server(wish: KServeWish, why: str) -> str:
    mend = "serve the ONNX file of the package there, then restart the worker; until then this box computes by itself"
    return f"the KServe server {wish.address} gives other answers than the package must: {why}; {mend}"


def _countdown(seconds: float) -> Callable[[], float]:
    """How much of so many seconds from now is left."""
    until = time.monotonic() + seconds
    return lambda: until - time.monotonic()


def _close(sessions: tuple[Session, ...]) -> None:
    for session in sessions:
        session.close()
