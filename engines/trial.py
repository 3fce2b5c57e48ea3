"""What a package takes on this very box: its golden cases on ONNX Runtime, in a limited child, before it is installed.

The clock starts at the pictures, as they would come decoded, and ends at the scores: preparing, assembling, every
stage, the head. That it is fast enough is for the caller to say; that it says what it should, and keeps to its own
limits of time and memory, is checked here.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.child import LIBRARIES_MB, Limits, Progress, run_limited
from engines.errors import ChildError, ContentError, PackageError, SessionError
from engines.package import Package, load_package
from engines.signing import PublicKey, load_public

_MIN_RUNS = 5
_MAX_RUNS = 40
#: Once every case ran, no run begins after this.
_ENOUGH_S = 10.0


@dataclass(frozen=True, slots=True)
class TrialReport:
    """Milliseconds from pictures to scores, the memory that the package took on top of the libraries, and the runs."""

    p50_ms: float
    p95_ms: float
    peak_mb: float
    runs: int


def try_package(
    package: Package, keys: Sequence[PublicKey], *, threads: int = 1, trusted: bool = False, limit_s: float = 600.0
) -> TrialReport:
    """Run a package's golden cases in a limited child. The package has passed ``engines.gate`` before.

    Args:
        package: A loaded package.
        keys: Whose signatures count.
        threads: Threads within one operator, as the worker would use.
        trusted: For makers, who try before they sign.
        limit_s: Wall time for everything.

    Raises:
        PackageError: A golden case fails, or the package is over its own limits or this time.
    """
    request = {
        "folder": str(package.path),
        "keys": [key.pem() for key in keys],
        "trusted": trusted,
        "digest": package.digest,
        "threads": threads,
    }
    memory_mb = LIBRARIES_MB + 2 * math.ceil(package.manifest.limits.memory_mb)
    limits = Limits(wall_s=limit_s, cpu_s=limit_s * max(1, threads), memory_mb=memory_mb)
    try:
        answer = run_limited("engines.trial", request, limits)
    except ChildError as error:
        why = {
            "timeout": f"its golden cases take longer than {limit_s:g} s",
            "memory": f"its golden cases take far more than limits.memory_mb ({package.manifest.limits.memory_mb:g})",
        }.get(error.fault, "its golden cases end the process that runs them")
        raise PackageError(f"{package.path}: refused: {why} ({error})") from error
    if "refused" in answer:
        raise PackageError(f"{package.path}: {answer['refused']}")
    return TrialReport(**answer)


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Be the child: ``{folder, keys, trusted, digest, threads}`` becomes ``TrialReport`` as data, or ``{refused}``."""
    try:
        package = load_package(
            Path(request["folder"]), keys=[load_public(str(k)) for k in request["keys"]], trusted=request["trusted"]
        )
        if package.digest != request["digest"]:
            raise PackageError("was altered while it was tried; copy it anew")  # noqa: TRY301 - one way out for all
        return _measure(package, request["threads"], progress)
    except (PackageError, SessionError) as error:
        return {"refused": str(error)}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _measure(package: Package, threads: int, progress: Progress) -> dict[str, Any]:
    import engines.backends.onnxruntime  # noqa: F401 - its own memory is not the package's
    from engines.golden import check_golden, golden_cases
    from engines.pipeline import Pipeline

    cases = list(golden_cases(package))
    if not cases:
        raise PackageError("has no golden case, so this box cannot try it; ask its maker for golden/golden.json")
    before = _memory_mb("VmRSS")
    with Pipeline(package, threads=threads) as pipeline:
        pipeline.warmup()
        check_golden(pipeline, cases)
        spent: list[float] = []
        begun = time.monotonic()
        turns = itertools.cycle(cases)
        least = max(_MIN_RUNS, len(cases))
        while len(spent) < least or (len(spent) < _MAX_RUNS and time.monotonic() - begun < _ENOUGH_S):
            case = next(turns)
            start = time.perf_counter()
            try:
                pipeline.run_volumes(case.inputs)
            except ContentError as error:
                raise PackageError(f"golden case {case.name} was scored once and refused then: {error}") from error
            spent.append((time.perf_counter() - start) * 1000)
            progress({"runs": len(spent), "ms": round(spent[-1], 3)})
    peak = _memory_mb("VmHWM") - before
    p95 = percentile(spent, 0.95)
    limits = package.manifest.limits
    if p95 > limits.time_s * 1000:
        raise PackageError(f"takes {p95 / 1000:.1f} s here (p95), more than limits.time_s ({limits.time_s:g})")
    if peak > limits.memory_mb:
        raise PackageError(f"takes {peak:.0f} MB here, more than limits.memory_mb ({limits.memory_mb:g})")
    return {"p50_ms": percentile(spent, 0.5), "p95_ms": p95, "peak_mb": peak, "runs": len(spent)}


def _memory_mb(what: str) -> float:
    # Not getrusage: its maximum is inherited from whoever started this process.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0
