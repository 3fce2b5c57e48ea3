"""What must go wrong well: an altered plan, another key, another driver, a second thread, a builder that is killed.

They are run on a store of their own, never on that of a box that serves.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engines.accept import Watched
from engines.build import build_engine
from engines.child import Limits, Progress, run_limited
from engines.choice import candidates
from engines.errors import BuildError, ChildError, EngineError
from engines.golden import golden_cases
from engines.package import Package, load_package
from engines.pipeline import Pipeline
from engines.session import open_engine
from engines.store import EngineStore, Entry

_LIMITS = Limits(wall_s=600, cpu_s=2400, memory_mb=16384, open_files=256, address_space=False)


@dataclass(frozen=True, slots=True)
class Drill:
    """What was done, whether it ended as it must, and what was seen."""

    name: str
    passed: bool
    told: str


def run_drills(package: Package, entry: Entry, store: EngineStore) -> list[Drill]:
    """Run every drill with an accepted engine.

    Args:
        package: Whose engine it is.
        entry: It; it does not survive.
        store: Where it lies; it does not survive either.
    """
    drills = (_second_thread, _killed_builder, _other_driver, _altered_plan, _other_key)
    return [drill(package, entry, store) for drill in drills]


def _second_thread(package: Package, entry: Entry, store: EngineStore) -> Drill:
    name = "a session is used from a second thread"
    request = {"folder": str(package.path), "store": str(store.root), "engine": entry.digest}
    try:
        answer = run_limited("engines.drills", request, _LIMITS)
    except ChildError as error:
        return Drill(name, passed=False, told=str(error))
    return Drill(name, passed=answer["passed"], told=answer["told"])


def handle(request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
    """Be the child that uses a session from a second thread: refused in words, or the same answer."""
    package = load_package(Path(request["folder"]), trusted=True)
    store = EngineStore(Path(request["store"]))
    entry = store.entry(request["engine"])
    with Pipeline(package, sessions=open_engine(entry, store.plans(entry), package)) as pipeline:
        with Watched(pipeline, None) as watched:
            watched.say(next(golden_cases(package)))
            tensors = watched.probes[0].last
        session = pipeline.sessions[0]
        expected = session.run(tensors)
        told: list[str] = []

        def use() -> None:
            try:
                got = session.run(tensors)
            except EngineError as error:
                told.append(f"refused: {error}")
                return
            same = all((got[name] == value).all() for name, value in expected.items())
            told.append("the same answer" if same else "ANOTHER answer")

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        again = session.run(tensors)
        same = all((again[name] == value).all() for name, value in expected.items())
    seen = told[0] if told else "the thread died"
    return {"passed": same and seen.startswith(("refused", "the same")), "told": seen}


def _killed_builder(package: Package, entry: Entry, store: EngineStore) -> Drill:
    name = "the builder is killed"
    before = [one.digest for one in store.entries()]

    def kill(_: dict[str, Any]) -> None:
        # The only children of this process are those that it builds with.
        for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)

    try:
        build_engine(package, precision=entry.precision, flavour=entry.flavour, store=store, on_progress=kill)
    except BuildError as error:
        is_whole = [one.digest for one in store.entries()] == before and store.in_progress() is None
        return Drill(name, passed=is_whole and bool(store.plans(entry)), told=str(error))
    return Drill(name, passed=False, told="the build ended as if nothing had happened")


def _other_driver(package: Package, entry: Entry, store: EngineStore) -> Drill:
    changed = replace(entry.key, driver=f"{entry.key.driver} and another")
    entries = store.entries()
    is_fit = entry in candidates(package, entries, entry.key, entry.precision)
    left = list(candidates(package, entries, changed, entry.precision))
    told = f"the engine {'still serves' if left else 'is stale'}"
    return Drill("the driver is another than the engine's", passed=is_fit and not left, told=told)


def _altered_plan(_: Package, entry: Entry, store: EngineStore) -> Drill:
    def alter(copy: EngineStore) -> None:
        path = copy.root / "entries" / entry.digest / "stage-0.plan"
        plan = bytearray(path.read_bytes())
        plan[len(plan) // 2] ^= 1
        path.write_bytes(plan)

    return _refused("one bit of a plan is flipped", entry, store, alter)


def _other_key(_: Package, entry: Entry, store: EngineStore) -> Drill:
    def alter(copy: EngineStore) -> None:
        (copy.root / "mac.key").write_bytes(os.urandom(32))

    return _refused("the store's key is another", entry, store, alter)


def _refused(name: str, entry: Entry, store: EngineStore, alter: Callable[[EngineStore], None]) -> Drill:
    copy = store.root.with_name(f"{store.root.name}-drill")
    shutil.copytree(store.root, copy)
    try:
        alter(EngineStore(copy))
        plans = EngineStore(copy).plans(entry)
    except BuildError as error:
        return Drill(name, passed=error.kind == "integrity", told=str(error))
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return Drill(name, passed=False, told=f"{len(plans)} plans were given out")


def as_json(drills: list[Drill]) -> list[dict[str, Any]]:
    """For a report."""
    return [asdict(drill) for drill in drills]
