"""Acceptance as a limited child: a fresh engine is opened and run for the first time where it can harm nothing else.

The verdict and the report are kept beside the engine. The same module is the child's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.accept import accept
from engines.child import LIBRARIES_MB, Limits, Progress, run_limited
from engines.errors import BuildError, ChildError, EngineError
from engines.package import Package, load_package
from engines.pipeline import Pipeline
from engines.session import open_engine
from engines.store import EngineStore, Entry

_SHOWN = 3


def prove_limits(package: Package, *, wall_s: float = 1800) -> Limits:
    """What acceptance may take: the package twice over, and libraries; CUDA reserves address space at will."""
    return Limits(
        wall_s=wall_s,
        cpu_s=wall_s * (os.cpu_count() or 1),
        memory_mb=LIBRARIES_MB + 2 * int(package.manifest.limits.memory_mb),
        open_files=256,
        address_space=False,
    )


def prove_engine(
    package: Package,
    entry: Entry,
    store: EngineStore,
    *,
    threads: int = 1,
    limits: Limits | None = None,
    on_progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Entry:
    """Let an engine in state ``verifying`` show that it says what the reference says.

    Args:
        package: Whose engine it is.
        entry: The engine.
        store: Where it lies.
        threads: Threads within one operator.
        limits: Of the child; ``prove_limits`` by default.
        on_progress: Told ``{share}``.
        cancelled: Asked several times a second.

    Returns:
        The entry, ``ready`` or ``rejected`` with its reason, and with its report.

    Raises:
        BuildError: Kind ``cancelled``, ``timeout``, ``integrity`` or ``unreadable``: there is no verdict.
    """
    request = {
        "folder": str(package.path),
        "digest": package.digest,
        "store": str(store.root),
        "engine": entry.digest,
        "threads": threads,
    }
    try:
        answer = run_limited("engines.prove", request, limits or prove_limits(package), on_progress, cancelled)
    except ChildError as error:
        if error.fault == "cancelled" or error.fault == "timeout":  # noqa: PLR1714 - narrows the type
            raise BuildError(f"acceptance of {package.name}: {error}", error.fault) from error
        # An engine that ends the process that runs it has given its answer.
        return store.reject(entry.digest, f"it ended the process that ran it: {error}", {})
    if "failed" in answer:
        if answer["kind"]:
            raise BuildError(answer["failed"], answer["kind"])
        return store.reject(entry.digest, answer["failed"], {})
    report = answer["report"]
    if report["passed"]:
        return store.accept(entry.digest, report)
    more = len(report["reasons"]) - _SHOWN
    told = "; ".join(report["reasons"][:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return store.reject(entry.digest, told, report)


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Be the child: ``{folder, digest, store, engine, threads}`` becomes ``{report}`` or ``{failed, kind}``."""
    os.nice(10)
    try:
        # The parent has checked who signed it; here it must be the same.
        package = load_package(Path(request["folder"]), trusted=True)
        if package.digest != request["digest"]:
            return {"failed": f"{package.path} was altered since it was loaded; load it again", "kind": "integrity"}
        store = EngineStore(Path(request["store"]))
        entry = store.entry(request["engine"])
        sessions = open_engine(entry, store.plans(entry), package, threads=request["threads"])
        with (
            Pipeline(package, sessions=sessions) as candidate,
            Pipeline(package, threads=request["threads"]) as reference,
        ):
            report = accept(package, candidate, reference, lambda share: progress({"share": round(share, 3)}))
    except EngineError as error:
        return {"failed": str(error), "kind": error.kind if isinstance(error, BuildError) else ""}
    return {"report": report.as_json()}
