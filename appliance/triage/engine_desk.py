"""The worker's side of engines: builds on a thread of its own, swaps and spot checks between two analyses.

Building and acceptance run in limited children, so the thread only waits and tells. What touches sessions is done by
the one thread that serves: the builder asks it to look again by ``LookAgain``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from appliance.triage.analysis import Tools
from appliance.triage.engine_messages import Build, Building, Built, Checked, EngineLost, NotBuilt, SpotCheck
from appliance.triage.protocol import Loaded, Progress
from appliance.triage.serving import TRIES, OpenPackage
from engines.build import build_engine, build_limits
from engines.errors import BuildError, EngineError, PackageError, SessionError
from engines.package import Package
from engines.prove import prove_engine, prove_limits
from engines.store import EngineStore, Entry

log = logging.getLogger(__name__)

#: Exit status of a worker whose device an engine broke.
LOST = 70
#: Opening an engine, its warm-up and its golden cases.
OPEN_LIMIT_S = 300.0
_DETAIL = 1000


@dataclass(frozen=True, slots=True)
class LookAgain:
    """From the builder to the thread that serves: a package may have a better engine now."""

    package: str


def loaded_message(key: str, opened: OpenPackage, ms: float) -> Loaded:
    """What is said of a package that serves."""
    pipeline = opened.pipeline
    return Loaded(
        package=key,
        digest=opened.package.digest,
        engine_digest=pipeline.digest,
        backend=pipeline.backend,
        precision=pipeline.precision,
        ms=ms,
        fallback=opened.fallback[:_DETAIL],
        lacks_engine=opened.lacks_engine,
    )


def end_lost(say: Callable[[EngineLost], None], package: str, error: SessionError) -> None:
    """The device is lost for this process: say so and end it; the daemon starts another."""
    say(EngineLost(package=package, message=str(error)[:_DETAIL]))
    log.error("an engine of %s broke the device: %s", package, error)
    os._exit(LOST)


class EngineDesk:
    """Answers what the daemon asks of engines. The serving thread uses it."""

    def __init__(self, tools: Tools, *, soon: Callable[[LookAgain], None], cancelled: threading.Event) -> None:
        """Prepare.

        Args:
            tools: Of the worker.
            soon: Has the serving thread look again, before the next analysis.
            cancelled: Set while the build that runs should end.
        """
        self._tools = tools
        self._soon = soon
        self._cancelled = cancelled
        self._thread: threading.Thread | None = None

    def build(self, message: Build) -> None:
        """Begin to build; the answer comes from the builder's thread."""
        opened = self._tools.shelf.package(message.package)
        if opened is None:
            self._tools.say(_not_built(message, "unsupported", "the package is not loaded"))
        elif self._thread is not None and self._thread.is_alive():
            self._tools.say(_not_built(message, "busy", "another engine is being built; wait, or cancel it"))
        else:
            serving = frozenset(entry.digest for entry in self._tools.shelf.entries())
            work = (message, opened.package, serving)
            self._thread = threading.Thread(target=self._build, args=work, name="builder", daemon=True)
            self._thread.start()

    def look_again(self, message: LookAgain) -> None:
        """Let a better engine serve if there is one."""
        opened = self._tools.shelf.package(message.package)
        if opened is not None:
            self._guarded(message.package, opened.look_again)
            # Said also where nothing changed: the daemon then knows that this is all there is.
            self._tools.say(loaded_message(message.package, opened, 0.0))

    def check(self, message: SpotCheck) -> None:
        """Try what serves, up to three times; an engine that fails them all serves no longer."""
        opened = self._tools.shelf.package(message.package)
        if opened is None:
            return
        digest, fault, before = opened.pipeline.digest, "", opened.fallback
        can_fall_back = opened.can_fall_back
        try:
            for _ in range(TRIES):
                fault = str(self._guarded(message.package, opened.check))
                if not fault:
                    self._tools.say(Checked(package=message.package, engine_digest=digest, ok=True))
                    if opened.fallback != before:
                        self._tools.say(loaded_message(message.package, opened, 0.0))
                    return
        except PackageError as error:
            can_fall_back, fault = False, str(error)
        told = Checked(package=message.package, engine_digest=digest, ok=False, message=fault[:_DETAIL])
        if not can_fall_back:
            # A new process loads the package anew, and refuses it if it is still wrong.
            self._tools.say(told)
            log.error("%s fails its golden cases: %s", message.package, fault)
            os._exit(1)
        self._guarded(message.package, lambda: opened.give_up(fault))
        self._tools.say(told.model_copy(update={"fell_back": True}))
        self._tools.say(loaded_message(message.package, opened, 0.0))

    def _guarded(self, package: str, work: Callable[[], object]) -> object:
        """Do foreign work on an engine; the process ends if not even the reference is left after it."""
        self._tools.say(Progress(step="engine", package=package))
        try:
            with self._tools.limited(OPEN_LIMIT_S):
                return work()
        except SessionError as error:
            end_lost(self._tools.say, package, error)
            raise

    # -- the builder's thread ----------------------------------------------------------------------------------------

    def _build(self, message: Build, package: Package, serving: frozenset[str]) -> None:
        begun = time.monotonic()
        answer: Built | NotBuilt
        try:
            answer = self._built(message, package, serving, begun)
        except BuildError as error:
            answer = _not_built(message, error.kind, str(error))
        except EngineError as error:
            answer = _not_built(message, "build", str(error))
        except OSError as error:
            answer = _not_built(message, "build", f"the folder of engines cannot be used: {error.strerror}")
        except Exception as error:
            log.exception("build of %s", message.package)
            answer = _not_built(message, "build", f"{type(error).__name__} in the builder; the worker's log has more")
        self._tools.say(answer)
        if isinstance(answer, Built):
            self._soon(LookAgain(message.package))

    def _built(self, message: Build, package: Package, serving: frozenset[str], begun: float) -> Built | NotBuilt:
        store = EngineStore(Path(message.store))
        entry = build_engine(
            package,
            precision=message.precision,
            flavour=message.flavour,
            store=store,
            limits=build_limits(wall_s=message.wall_s, memory_mb=message.memory_mb),
            on_progress=lambda told: self._tell(message.package, told),
            cancelled=self._cancelled.is_set,
        )
        entry = prove_engine(
            package,
            entry,
            store,
            limits=prove_limits(package, wall_s=message.wall_s),
            on_progress=lambda told: self._tell(message.package, {"step": "accept", **told}),
            cancelled=self._cancelled.is_set,
        )
        if entry.state != "ready":
            return _not_built(message, "rejected", entry.reason)
        store.gc(keep=message.keep, serving=serving)
        return Built(
            package=message.package,
            engine_digest=entry.digest,
            flavour=message.flavour,
            precision=message.precision,
            ms=(time.monotonic() - begun) * 1000,
            differences=largest(entry),
        )

    def _tell(self, package: str, told: dict[str, Any]) -> None:
        step = cast('Literal["lower", "build", "accept"]', told["step"])
        # A builder's own shares are of phases that it does not count; of several stages it is known which one it is.
        share = told.get("share") if step == "accept" else told["stage"] / told["stages"]
        self._tools.say(Building(package=package, step=step, share=share))


def largest(entry: Entry) -> dict[str, float]:
    """The largest difference to the reference over all cases of an engine's report, by what was compared."""
    found: dict[str, float] = {}
    for case in entry.report.get("cases", ()):
        for name, value in case["differences"].items():
            worst = min if name == "dice" else max
            found[name] = worst(value, found.get(name, value))
    return found


def _not_built(message: Build, kind: str, why: str) -> NotBuilt:
    return NotBuilt(
        package=message.package,
        flavour=message.flavour,
        precision=message.precision,
        kind=kind,
        message=why[:_DETAIL],
    )
