"""What daemon and worker hold of the machine's memory when the work is done."""

from __future__ import annotations

import time

import psutil

from bench.box import HEAD_CT, TOY_XRAY, Box
from bench.images import ct_template, xray_template
from bench.rows import Bench, Row
from bench.send import send_in_one
from bench.toy import toy_package
from bench.watch import Watch

_BOUND_MB = 500.0
_MB = 1e6


def measure(bench: Bench) -> list[Row]:
    """One CT, one X-ray, a minute's rest, then the resident memory of every process of the box."""
    folder = bench.new_folder("memory")
    slices, rest_s = (30, 1) if bench.quick else (300, 60)
    ct, xray = ct_template(slices).study(1), xray_template().study(1)
    with Box(folder, packages=[HEAD_CT, TOY_XRAY], toy=toy_package(folder)) as box, Watch(box.state) as watch:
        before = _resident(box)
        send_in_one(box.port, "CT-1", ct.images)
        send_in_one(box.port, "DX-1", xray.images)
        for study in (ct, xray):
            watch.wait(study.study_instance_uid, "alert_raised")
        peak = _resident(box)
        time.sleep(rest_s)
        after = _resident(box)
        shared = _proportional(box)
    total = sum(after.values())
    told = ", ".join(f"{name} {mb:.0f}" for name, mb in after.items())
    return [
        Row(
            name="memory",
            figure=f"RSS of daemon and worker, two packages, {rest_s} s after one CT of {slices} slices and one X-ray",
            measured=f"{total:.0f} MB ({told})",
            bound=f"{_BOUND_MB:.0f} MB",
            ok=total <= _BOUND_MB,
            details={
                "before_mb": before,
                "at_the_alert_mb": peak,
                "after_mb": after,
                # Pages that both map are counted twice above, and once here.
                "proportional_mb": shared,
            },
        )
    ]


def _resident(box: Box) -> dict[str, float]:
    return {name: round(one.memory_info().rss / _MB, 1) for name, one in _named(box)}


def _proportional(box: Box) -> dict[str, float]:
    return {name: round(one.memory_full_info().pss / _MB, 1) for name, one in _named(box)}


def _named(box: Box) -> list[tuple[str, psutil.Process]]:
    daemon, *children = box.processes
    named = [("daemon", daemon)]
    for child in children:
        is_worker = "appliance.triage.worker" in child.cmdline()
        named.append(("worker" if is_worker else f"child {child.pid}", child))
    return named
