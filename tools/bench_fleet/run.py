"""Measure, print the table, write the figures, and say what is over its bound."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path

from bench.rows import Row

from bench_fleet.pages import page_figures
from bench_fleet.scene import Scene
from bench_fleet.storm import Size, storm

#: boxes, seconds to connect over, batches of the flood, batches over the kills, their pace.
FULL = Size(10_000, 30.0, 20_000, 12_000, 500, ("broker", "server", "broker"))
QUICK = Size(300, 0.5, 900, 600, 600, ("broker", "server"))
FULL_TLS, QUICK_TLS = Size(300, 5.0, 10_000), Size(20, 0.5, 200)
_SPARE_FILES = 300


def main() -> int:
    """Returns 1 where a figure is over its bound or a record is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 boxes: that nothing is lost, not how fast it is")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--link-s", type=float, default=60.0, help="watch the link of one real box so long; 0: do not")
    asked = parser.parse_args()
    size, tls = (QUICK, QUICK_TLS) if asked.quick else (FULL, FULL_TLS)
    _allow_files(size.boxes)
    load = os.getloadavg()[0]
    rows = [*_storm(size, tls=False), *_storm(tls, tls=True), *_pages(size.boxes)]
    if asked.link_s and not asked.quick:
        rows += _link(asked.link_s)
    for row in rows:
        sys.stdout.write(f"{row.verdict:5} {row.figure}: {row.measured} (bound: {row.bound})\n")
    machine = {"cores": os.cpu_count(), "load_before": load, "load_after": os.getloadavg()[0], "quick": asked.quick}
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"machine": machine, "rows": [row.document() for row in rows]}
        asked.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    sys.stdout.write(f"load {load:.1f} before, {machine['load_after']:.1f} after, on {machine['cores']} cores\n")
    return int(any(row.ok is False for row in rows if not asked.quick or row.name in {"fleet-lost", "fleet-lost-tls"}))


def _storm(size: Size, *, tls: bool) -> list[Row]:
    begun = time.perf_counter()
    with Scene(size.boxes, tls=tls) as scene:
        told = asyncio.run(storm(scene, size, _say))
    told["whole_s"] = time.perf_counter() - begun
    end, over = ("-tls", " over TLS") if tls else ("", "")
    flood, memory = told["flood"], told["memory_mb"]
    each_us = flood["ingest_cpu_s"] / flood["batches"] * 1e6
    speed = (
        f"{flood['per_s']:.0f} batches/s; ingest {each_us:.0f} us of processor each, {flood['ingest_rss_mb']:.0f} MB"
    )
    rows = [
        Row(
            name=f"fleet-ingest{end}",
            figure=f"one-record batches ingested, committed and acknowledged by one process{over}, {size.boxes} boxes",
            measured=speed,
            bound="stated" if tls else ">= 1000/s",
            ok=None if tls else flood["per_s"] >= 1000,
            details=told,
        ),
        Row(
            name=f"fleet-lost{end}",
            figure=f"records lost{over}" + (f", killed: {', '.join(size.kills)}" if size.kills else ""),
            measured=f"{told['lost']} of {told['records']}; {told['sent_again']} batches sent again",
            bound="0",
            ok=told["lost"] == 0,
        ),
    ]
    if tls:
        return rows
    connected = f"in {told['connected_s']:.1f} s; broker {memory['broker']:.0f} MB, boxes {memory['boxes']:.0f} MB"
    back = max(told["kills"]["back_s"])
    return [
        Row(
            name="fleet-connected",
            figure=f"{size.boxes} simulated boxes connected to one mosquitto",
            measured=connected,
            bound="all",
            ok=True,
        ),
        *rows,
        Row(
            name="fleet-back",
            figure="all boxes back after the broker was killed, the slowest",
            measured=f"{back:.1f} s",
            bound="300 s",
            ok=back <= 300,
        ),
    ]


def _pages(boxes: int) -> list[Row]:
    told = page_figures(boxes)
    figure = f"console with {boxes} boxes (SQLite, over HTTP, median of a few tries, the slowest of three people)"
    return [
        Row(name=f"fleet-{name}", figure=f"{figure}: {what}", measured=f"{told[key]:.0f} ms", bound=f"{bound} ms",
            ok=told[key] <= bound, details=told)
        for name, what, key, bound in (
            ("page", "first page", "first_page_ms", 1000), ("filter", "a filter", "filter_ms", 300),
        )
    ]  # fmt: skip


def _link(seconds: float) -> list[Row]:
    from bench.fleet_link import link_cost

    told = link_cost(seconds)
    return [
        Row(name="fleet-link-memory", figure="memory that the link adds to the daemon",
            measured=f"{told['memory_mb']:.1f} MB", bound="30 MB", ok=told["memory_mb"] <= 30, details=dict(told)),
        Row(name="fleet-link-cpu", figure=f"processor time of the link at rest, over {seconds:g} s",
            measured=f"{told['cpu_percent']:.2f} % of a core", bound="1 %", ok=told["cpu_percent"] <= 1),
    ]  # fmt: skip


def _allow_files(boxes: int) -> None:
    """A connection is a file, here and in the broker, which inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < boxes + _SPARE_FILES:
        raise SystemExit(
            f"{boxes} boxes need {boxes + _SPARE_FILES} open files; this machine allows {most}: ulimit -Hn"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _say(text: str) -> None:
    sys.stderr.write(f"bench-fleet: {text}\n")
