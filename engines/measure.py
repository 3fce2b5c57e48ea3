"""How fast an engine is, and whether it stays so: cold, warm and recorded runs, and a soak. In a limited child.

Times are of all stages one after another, on the tensors of a golden case: sessions only, no preparing, no head.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from engines.accept import Watched, differs, said
from engines.acceptance import Seen
from engines.child import Progress, resident_mb, run_limited
from engines.errors import BuildError, PackageError
from engines.golden import golden_cases
from engines.package import Package, load_package
from engines.pipeline import Pipeline
from engines.prove import prove_limits
from engines.session import Session, open_engine, open_sessions
from engines.store import EngineStore, Entry
from engines.trial import percentile
from engines.types import Tensors

#: More of its own memory than this at the end of a soak than after its first tenth is a leak.
MAX_DRIFT_MB = 64.0
_SHARES = (0.5, 0.95, 0.99)


def measure(
    package: Package,
    entry: Entry | None,
    store: EngineStore | None,
    *,
    runs: int,
    soak_s: float = 0.0,
    threads: int = 1,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure an engine, or with ``entry`` None the reference, in a limited child.

    Args:
        package: Whose it is.
        entry: The engine.
        store: Where it lies.
        runs: Warm ones.
        soak_s: How long the whole package is run again and again on a golden case; 0: not.
        threads: Threads within one operator.
        on_progress: Told ``{share}`` of the soak.

    Returns:
        ``{open_ms, first_ms, plain, graph, mode, soak}``; ``plain`` and ``graph`` hold p50, p95, p99 and max in ms,
        None where runs are not made so.

    Raises:
        ChildError: The child died, or an engine failed in it.
    """
    request = {
        "folder": str(package.path),
        "digest": package.digest,
        "store": str(store.root) if store is not None else "",
        "engine": entry.digest if entry is not None else "",
        "runs": runs,
        "soak_s": soak_s,
        "threads": threads,
    }
    return run_limited("engines.measure", request, prove_limits(package, wall_s=600 + 2 * soak_s), on_progress)


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Be the child; see ``measure``."""
    package = load_package(Path(request["folder"]), trusted=True)
    if package.digest != request["digest"]:
        raise PackageError(f"{package.path} was altered since it was loaded; load it again")
    engine, threads = _engine(request), request["threads"]
    tensors = _stage_tensors(package, threads)
    begun = time.perf_counter()
    with ExitStack() as held:
        sessions = [held.enter_context(session) for session in _open(package, engine, threads, graphs=True)]
        opened = time.perf_counter()
        _run(sessions, tensors)
        first = time.perf_counter()
        for session in sessions:
            session.warmup()
        times = _times(sessions, tensors, request["runs"])
        modes = {str(getattr(session, "graph", "plain")) for session in sessions}
        soak = _soak(Pipeline(package, sessions=sessions), request["soak_s"], progress) if request["soak_s"] else None
    plain = times if modes == {"plain"} else None
    if plain is None:
        with ExitStack() as held:
            sessions = [held.enter_context(session) for session in _open(package, engine, threads, graphs=False)]
            _run(sessions, tensors)
            plain = _times(sessions, tensors, request["runs"])
    return {
        "open_ms": (opened - begun) * 1000,
        "first_ms": (first - opened) * 1000,
        "plain": plain,
        "graph": times if modes & {"graph", "internal"} else None,
        "mode": "+".join(sorted(modes)),
        "soak": soak,
    }


def _engine(request: dict[str, Any]) -> tuple[Entry, list[bytes]] | None:
    """The engine with its plans; None: the reference."""
    if not request["engine"]:
        return None
    store = EngineStore(Path(request["store"]))
    entry = store.entry(request["engine"])
    return entry, store.plans(entry)


def _open(
    package: Package, engine: tuple[Entry, list[bytes]] | None, threads: int, *, graphs: bool
) -> tuple[Session, ...]:
    """The sessions as they serve, or without recorded graphs, which only a GPU has."""
    if engine is None:
        return open_sessions(package, threads=threads)
    return open_engine(*engine, package, threads=threads, graphs=graphs)


def _stage_tensors(package: Package, threads: int) -> list[Tensors]:
    """What each stage got last when the reference ran the first golden case."""
    case = next(golden_cases(package), None)
    if case is None:
        raise BuildError("the package has no golden cases, so there is nothing to measure with")
    with Pipeline(package, threads=threads) as reference, Watched(reference, None) as watched:
        watched.say(case)
        return [probe.last for probe in watched.probes]


def _run(sessions: Sequence[Session], tensors: Sequence[Tensors]) -> None:
    for session, given in zip(sessions, tensors, strict=True):
        if given:  # a stage may have found nothing to look at
            session.run(given)


def _times(sessions: Sequence[Session], tensors: Sequence[Tensors], runs: int) -> dict[str, float]:
    spent = []
    for _ in range(runs):
        begun = time.perf_counter()
        _run(sessions, tensors)
        spent.append((time.perf_counter() - begun) * 1000)
    return {f"p{share * 100:.0f}_ms": percentile(spent, share) for share in _SHARES} | {"max_ms": max(spent)}


def _soak(pipeline: Pipeline, soak_s: float, progress: Progress) -> dict[str, Any]:
    """Run a golden case again and again: the same answer each time, and no more memory."""
    case = next(golden_cases(pipeline.package))
    first, _ = said(pipeline, case)
    spent: list[float] = []
    begun, wrong, early_mb = time.monotonic(), 0, 0.0
    while (passed := time.monotonic() - begun) < soak_s or not spent:
        start = time.perf_counter()
        seen: Seen = said(pipeline, case)[0]
        spent.append((time.perf_counter() - start) * 1000)
        wrong += differs(pipeline, first, seen)
        if passed >= soak_s / 10 and not early_mb:
            early_mb = resident_mb(os.getpid())
        if len(spent) % 20 == 0:
            progress({"share": min(1.0, passed / soak_s)})
    held_mb = resident_mb(os.getpid())
    drift = held_mb - (early_mb or held_mb)
    half = len(spent) // 2 or 1
    return {
        "seconds": time.monotonic() - begun,
        "runs": len(spent),
        "wrong": wrong,
        "drift_mb": drift,
        "p95_first_half_ms": percentile(spent[:half], 0.95),
        "p95_second_half_ms": percentile(spent[half:] or spent, 0.95),
        "passed": wrong == 0 and drift <= MAX_DRIFT_MB,
    }
