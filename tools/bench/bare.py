"""The bare limit: the worker's own functions in one warmed process, on the same file in the page cache (DESIGN §9).

A process of its own with the worker's environment. A request is a line of JSON, ``{"kind": "ct", "paths": [...]}``;
so is the answer, milliseconds per hop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

from bench.rows import ROOT

_WARM_UP = 3


@final
class Bare:
    """The process, seen by who asks it; a context manager."""

    def __init__(self, package: Path) -> None:
        """Measure with one package."""
        limits = {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(package)],
            cwd=ROOT,
            env={**os.environ, **limits, "ORT_DISABLE_TELEMETRY": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Bare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def ms(self, kind: str, paths: Sequence[Path]) -> dict[str, float]:
        """Milliseconds: of an X-ray decode, prepare, finish; of a CT prepare and finish; their sum is ``total``."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(json.dumps({"kind": kind, "paths": [str(path) for path in paths]}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer


def main() -> None:
    """Answer until standard input ends."""
    import cv2

    from appliance.triage.workbench import decode_and_prepare, finish
    from engines.package import load_package
    from engines.pipeline import Pipeline

    cv2.setNumThreads(1)
    package = load_package(Path(sys.argv[1]), trusted=True)
    pipeline = Pipeline(package, threads=len(os.sched_getaffinity(0)))
    pipeline.warmup()
    (role,) = pipeline.inputs

    def once(kind: Any, paths: list[Path]) -> dict[str, float]:
        pieces = [decode_and_prepare(path, kind, [pipeline]) for path in paths]
        spent = {hop: sum(piece.hops_ms[hop] for piece in pieces) for hop in ("decode", "prepare")}
        begun = time.perf_counter()
        finish({role: pieces}, pipeline)
        spent["finish"] = (time.perf_counter() - begun) * 1000
        # Slices are decoded while they arrive: DESIGN §9 counts a CT from decoded slices.
        counted = [ms for hop, ms in spent.items() if kind != "ct" or hop != "decode"]
        return {**spent, "total": sum(counted)}

    warm = False
    for line in sys.stdin:
        asked = json.loads(line)
        paths = [Path(path) for path in asked["paths"]]
        for _ in range(0 if warm else _WARM_UP):
            once(asked["kind"], paths)
        warm = True
        print(json.dumps(once(asked["kind"], paths)), flush=True)


if __name__ == "__main__":
    main()
