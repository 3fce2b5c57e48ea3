"""Simulated boxes that connect, stay, and come back: all of them in one thread (asyncio)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from appliance.fleet.simulate.boxes import SimulatedBox
from appliance.fleet.simulate.line import BoxLine

_SLOWEST_S, _STABLE_S = 300.0, 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the broker is, and how to reach it.

    Attributes:
        sources: Loopback addresses to come from, in turn: one has ports for 28,000 connections.
        tls: Of a box; None on a broker without.
    """

    host: str
    port: int
    sources: tuple[str, ...] = ("127.0.0.1",)
    tls: Callable[[str], ssl.SSLContext] | None = None


class Swarm:
    """Boxes that connect, stay, and come back by full jitter. ``run`` until ``stop``."""

    def __init__(
        self, boxes: list[SimulatedBox], place: Place, rng: random.Random, *, heartbeat_s: float = 60.0
    ) -> None:
        """Prepare."""
        self.boxes = boxes
        self.lines: dict[str, BoxLine] = {}
        self._place = place
        self._rng = rng
        self._heartbeat_s = heartbeat_s
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, within_s: float) -> None:
        """Connect all, spread over so many seconds."""
        there = [box for box in self.boxes if not box.conduct.is_offline]
        self._tasks = [asyncio.ensure_future(self._live(box, self._rng.uniform(0, within_s))) for box in there]
        self._tasks += [asyncio.ensure_future(self._flap(box)) for box in there if box.conduct.flaps_s]
        self._tasks.append(asyncio.ensure_future(self._beat()))

    async def stop(self) -> None:
        """Every box says goodbye."""
        for line in self.lines.values():
            line.bid_farewell()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, box: SimulatedBox) -> int:
        """Send what the box has; what cannot go now goes when it can."""
        line = self.lines.get(box.device)
        return line.send(asyncio.get_running_loop().time()) if line is not None else 0

    async def _live(self, box: SimulatedBox, first_s: float) -> None:
        await asyncio.sleep(first_s)
        loop, tries, why = asyncio.get_running_loop(), 0, "start"
        while True:
            ended = asyncio.Event()
            line = BoxLine(box, ended, why)
            begin = loop.time()
            if await self._dial(line, box):
                self.lines[box.device] = line
                why = "reconnect"
                await ended.wait()
                if loop.time() - begin > _STABLE_S:
                    tries = 0
            tries += 1
            await asyncio.sleep(self._rng.uniform(0, min(_SLOWEST_S, 2.0**tries)))

    async def _flap(self, box: SimulatedBox) -> None:
        """A bad line: it falls, again and again."""
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / box.conduct.flaps_s))
            line = self.lines.get(box.device)
            if line is not None and line.is_up:
                line.close()

    async def _dial(self, line: BoxLine, box: SimulatedBox) -> bool:
        place = self._place
        source = place.sources[box.number % len(place.sources)]
        tls = place.tls(box.device) if place.tls is not None else None
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().create_connection(
                lambda: line,
                place.host,
                place.port,
                local_addr=(source, 0),
                ssl=tls,
                server_hostname="localhost" if tls is not None else None,
            )
            return True
        return False

    async def _beat(self) -> None:
        """Heartbeats of all, spread evenly; and what was lost on the way goes again."""
        loop, at = asyncio.get_running_loop(), 0
        ticks = max(1, int(self._heartbeat_s))
        while True:
            await asyncio.sleep(self._heartbeat_s / ticks)
            now = loop.time()
            for box in self.boxes[at::ticks]:
                line = self.lines.get(box.device)
                if line is not None:
                    line.beat()
            for box in self.boxes:
                line = self.lines.get(box.device)
                if box.pending and line is not None:
                    line.send(now)
            at = (at + 1) % ticks
