"""How long ``scanside demo --once`` takes once everything is installed."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.rows import ROOT, Bench, Row

_BOUND_S = 30.0


def measure(bench: Bench) -> list[Row]:
    """Run it once, as a newcomer does; every study must end as expected."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "appliance.cli", "demo", "--once", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=False)
    took = time.perf_counter() - begun
    bench.say(f"demo ended with {done.returncode}")
    return [
        Row(
            name="demo",
            figure="scanside demo --once: box, worker, PACS, seven studies, all ended as expected",
            measured=f"{took:.1f} s" + ("" if done.returncode == 0 else f", exit {done.returncode}"),
            bound=f"{_BOUND_S:g} s",
            ok=took <= _BOUND_S and done.returncode == 0,
            details={"seconds": round(took, 2), "exit": done.returncode},
        )
    ]
