"""The boxes connect, flood, and live through kills of broker and server; every record must be there once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appliance.fleet.simulate.boxes import Batched, SimulatedBox
from appliance.fleet.simulate.swarm import Swarm
from appliance.fleet.wire_records import HealthRollup, Machine, Quantiles, ResultsHour
from bench_fleet.scene import Scene

#: So many batches may be on the way in all; each box has its own window besides.
_ON_THE_WAY = 1500
_LIMIT_S = 900.0
Ready = tuple[SimulatedBox, str, Batched]


@dataclass(frozen=True, slots=True)
class Size:
    """How much of it.

    Attributes:
        flood: Batches of one record that are sent as fast as they are taken.
        paced: Batches sent at ``per_s`` while what ``kills`` names is killed, in turn.
    """

    boxes: int
    spread_s: float
    flood: int
    paced: int = 0
    per_s: int = 0
    kills: tuple[str, ...] = ()


async def storm(scene: Scene, size: Size, say: Callable[[str], None]) -> dict[str, Any]:
    """Run it; returns what was measured."""
    swarm = Swarm(scene.boxes, scene.place, random.Random(7))  # noqa: S311 - spreads connects
    figures = scene.figures
    begun = time.perf_counter()
    swarm.start(size.spread_s)
    await _until(lambda: figures.connected == size.boxes)
    told: dict[str, Any] = {"boxes": size.boxes, "connected_s": time.perf_counter() - begun}
    told["memory_mb"] = {name: one["rss_mb"] for name, one in scene.loads().items()}
    say(f"{size.boxes} boxes connected in {told['connected_s']:.1f} s")
    told["flood"] = await _flood(scene, swarm, size)
    say(f"{size.flood} batches at {told['flood']['per_s']:.0f}/s")
    if size.paced:
        told["kills"] = await _kills(scene, swarm, size, say)
    total = size.flood + size.paced
    kept = await asyncio.to_thread(scene.records)
    await swarm.stop()
    return {
        **told,
        "records": total,
        "kept": kept,
        "lost": total - kept,
        "sent": figures.sent,
        "sent_again": figures.resent,
        "lines_lost": figures.lost_lines,
        "refused": figures.refused,
        "nonsense": figures.nonsense,
    }


async def _flood(scene: Scene, swarm: Swarm, size: Size) -> dict[str, float]:
    """As fast as it goes, from the first batch sent to the last acknowledged after its commit."""
    ready = await asyncio.to_thread(_prepare, scene.boxes, size.flood)
    before, begun, acked = scene.loads(), time.perf_counter(), scene.figures.acked
    for n, (box, ident, batched) in enumerate(ready):
        room = n - _ON_THE_WAY + acked
        await _until(lambda least=room: scene.figures.acked > least)
        box.pending[ident] = batched
        swarm.send(box)
        if n % 50 == 0:
            await asyncio.sleep(0)
    await _until(lambda: scene.figures.acked - acked >= size.flood)
    took, after = time.perf_counter() - begun, scene.loads()
    used = {f"{name}_cpu_s": after[name]["cpu_s"] - before[name]["cpu_s"] for name in after}
    memory = {"ingest_rss_mb": after["ingest"]["rss_mb"], "broker_rss_mb": after["broker"]["rss_mb"]}
    return {"batches": size.flood, "seconds": took, "per_s": size.flood / took, **used, **memory}


async def _kills(scene: Scene, swarm: Swarm, size: Size, say: Callable[[str], None]) -> dict[str, Any]:
    """Broker and server, killed while batches come, each back at once."""
    ready = await asyncio.to_thread(_prepare, scene.boxes, size.paced)
    acked = scene.figures.acked
    back: list[float] = []
    part = len(ready) // (len(size.kills) + 1)
    for n, what in enumerate(size.kills):
        await _pace(swarm, ready[n * part : (n + 1) * part], size.per_s)
        begun = time.perf_counter()
        if what == "broker":
            connects = scene.figures.connects
            await asyncio.to_thread(scene.restart_broker)
            await _until(lambda was=connects: _are_back(scene, size, was))
            back.append(time.perf_counter() - begun)
            say(f"broker killed; all boxes back after {back[-1]:.1f} s")
        else:
            await asyncio.to_thread(scene.kill_server)
            await asyncio.to_thread(scene.start_server)
            say("server killed and started again")
    await _pace(swarm, ready[part * len(size.kills) :], size.per_s)
    begun = time.perf_counter()
    await _until(lambda: scene.figures.acked - acked >= size.paced)
    return {"batches": size.paced, "back_s": back, "settled_s": time.perf_counter() - begun}


async def _pace(swarm: Swarm, ready: list[Ready], per_s: int) -> None:
    begun = time.perf_counter()
    for n, (box, ident, batched) in enumerate(ready, 1):
        box.pending[ident] = batched
        swarm.send(box)
        ahead = n / per_s - (time.perf_counter() - begun)
        if ahead > 0.005:
            await asyncio.sleep(ahead)


def _are_back(scene: Scene, size: Size, connects: int) -> bool:
    """Whether every line is a new one: none may still count as up that was not seen to fall."""
    return scene.figures.connected == size.boxes and scene.figures.connects >= connects + size.boxes


async def _until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + _LIMIT_S
    while not is_so():
        if time.monotonic() > until:
            raise RuntimeError("this does not end; look at the broker and the ingest")
        await asyncio.sleep(0.02)


def _prepare(boxes: list[SimulatedBox], n: int) -> list[Ready]:
    """Batches of one record each, signed, in turn over all boxes."""
    return [(box := boxes[i % len(boxes)], *box.prepare(_told(box.seq))) for i in range(n)]


def _told(n: int) -> HealthRollup | ResultsHour:
    """Of four records three are of health, as of a box that does little."""
    if n % 4 < 3:
        machine = Machine(cpu=12.5, memory=40.0, disk=20.0, temperature_c=50.0)
        return HealthRollup(minutes=5, machine=machine, studies=3)
    hour = f"2026-03-{1 + n // 24 % 28:02d}T{n % 24:02d}Z"
    return ResultsHour(
        package="chest", version="1.0", role="live", hour=hour, n=41, flagged={"nodule": 3}, nothing_flagged=38,
        ms=Quantiles(p50=4.0, p95=8.0),
    )  # fmt: skip
