"""From starting the daemon to the first C-STORE that it accepts, with 10,000 instances stored."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.box import HEAD_CT, Box
from bench.images import Sample, small_ct_template
from bench.rows import ROOT, Bench, Row
from bench.send import send_in_one
from bench.watch import Watch

_BOUND_S = 3.0
_PER_STUDY = 250


def measure(bench: Bench) -> list[Row]:
    """Fill a state folder, let a daemon take all of it in once, then start and stop daemons on it."""
    instances = 1000 if bench.quick else 10_000
    folder = bench.new_folder("start")
    template = small_ct_template(_PER_STUDY)
    box = Box(folder, packages=[HEAD_CT])
    begun = time.monotonic()
    script = Path(__file__).with_name("fill.py")
    subprocess.run([sys.executable, script, box.state, str(instances), str(_PER_STUDY)], cwd=ROOT, check=True)
    filling_s = time.monotonic() - begun
    with box, Watch(box.state) as watch:
        box.wait(lambda: watch.count("revision") >= instances // _PER_STUDY, "took the stored series as whole")
    took = []
    for number in range(bench.size(5)):
        took.append(_start(box, template.study(10**6 + number)))
        with Watch(box.state) as watch:
            stored = watch.count("instance")
        box.stop()
    median = statistics.median(took)
    return [
        Row(
            name="start",
            figure=f"daemon started to first C-STORE accepted, {instances} instances stored",
            measured=f"{median:.2f} s (most {max(took):.2f} s, n={len(took)})",
            bound=f"{_BOUND_S:g} s",
            ok=median <= _BOUND_S,
            details={"seconds": [round(one, 3) for one in took], "instances": stored, "filling_s": round(filling_s, 1)},
        )
    ]


def _start(box: Box, study: Sample) -> float:
    begun = box.start()
    first = study.images[:1]

    def sent() -> bool:
        try:
            send_in_one(box.port, "CT-1", first)
        except OSError:
            return False
        return True

    box.wait(sent, "accepted a C-STORE")
    return time.monotonic() - begun
