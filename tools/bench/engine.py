"""How long a start takes with an engine that is stored: found, its MAC checked, opened and warmed."""

from __future__ import annotations

import statistics
import sys
import time

from bench.rows import ROOT, Bench, Row

_BOUND_S = 1.0
_PACKAGE = "head-ct-hyperdensity"


def measure(bench: Bench) -> list[Row]:
    """Build the bundled head CT package's engine for ONNX Runtime once, then open it as the worker does."""
    sys.path.insert(0, str(ROOT))
    from engines.build import build_engine
    from engines.choice import open_best
    from engines.package import bundled_packages, load_package
    from engines.prove import prove_engine
    from engines.store import EngineStore

    root = bench.new_folder("engine") / "engines"
    package = load_package(bundled_packages()[_PACKAGE])
    store = EngineStore(root)
    entry = build_engine(package, precision="fp32", flavour="onnxruntime", store=store)
    prove_engine(package, entry, store)
    took = []
    for _ in range(bench.size(20, least=3)):
        begun = time.perf_counter()
        choice = open_best(package, root=root, flavour="onnxruntime", precision="fp32", threads=1)
        for session in choice.sessions:
            session.warmup()
        took.append(time.perf_counter() - begun)
        for session in choice.sessions:
            session.close()
    median = statistics.median(took)
    return [
        Row(
            name="engine",
            figure=f"stored engine of {_PACKAGE} found, checked, opened and warmed (ONNX Runtime)",
            measured=f"{median:.3f} s (most {max(took):.3f} s, n={len(took)})",
            bound=f"{_BOUND_S:g} s",
            ok=median <= _BOUND_S and choice.entry is not None,
            details={"seconds": [round(one, 4) for one in took]},
        )
    ]
