"""The simulated boxes of the demo, all in one process: ``python -m appliance.fleet.server.demo.swarm``.

It reads one line of JSON (``Asked``), says a line once it has begun, and then answers each line with how its boxes
stand. It ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from appliance.fleet.keys import DeviceKey
from appliance.fleet.server.demo.model import PACKAGE
from appliance.fleet.simulate.boxes import Figures, SimulatedBox
from appliance.fleet.simulate.conduct import Conduct, Slots, equipment, results
from appliance.fleet.simulate.swarm import Place, Swarm
from appliance.fleet.wire_jobs import JobState
from appliance.fleet.wire_records import DaemonChange

_TELL_S = 1.0
#: Analyses in an hour.
_STUDIES = 100


@dataclass(frozen=True, slots=True)
class Paper:
    """One simulated box, which the server has in its registry.

    Attributes:
        source: (modality, make, model) of its scanner.
        step_s: How long each step of a job takes, from .. to.
        fails: Versions that fail on it, with the state in which they do.
        code: Why.
    """

    device: str
    tenant: str
    number: int
    source: tuple[str, str, str]
    step_s: tuple[float, float] = (0.05, 0.5)
    fails: dict[str, str] = field(default_factory=dict)
    code: str = "GOLDEN"
    flaps_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the process is told.

    Attributes:
        certificates: Folder with ``{device}.crt``, ``ca.crt`` and the one key that all share, ``device.key``.
        spread_s: Over so long they connect.
        hours: Of the past, which each box tells of.
        heartbeat_s: How often each says how it is.
    """

    host: str
    port: int
    certificates: str
    version: str
    digest: str
    spread_s: float
    hours: int
    heartbeat_s: float
    boxes: tuple[Paper, ...]

    def line(self) -> str:
        """As the process reads it."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> Asked:
        """What ``line`` wrote."""
        told = json.loads(line)
        pairs = ("source", "step_s")
        boxes = tuple(Paper(**{**one, **{name: tuple(one[name]) for name in pairs}}) for one in told.pop("boxes"))
        return cls(**told, boxes=boxes)


def main() -> None:
    """Be the boxes until the input ends."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.run(_live(Asked.read(sys.stdin.readline())))


async def _live(asked: Asked) -> None:
    rng = random.Random(7)  # noqa: S311 - paces a simulation
    figures = Figures()
    folder = Path(asked.certificates)
    key = DeviceKey.load(folder / "device.key")
    boxes = [_box(paper, asked, key, figures, rng) for paper in asked.boxes]

    def tls(device: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / f"{device}.crt", folder / "device.key")
        return context

    swarm = Swarm(boxes, Place(asked.host, asked.port, tls=tls), rng, heartbeat_s=asked.heartbeat_s)
    swarm.start(asked.spread_s)
    begin = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    for box, paper in zip(boxes, asked.boxes, strict=True):
        past = [begin - timedelta(hours=n) for n in range(asked.hours, 0, -1)]
        told = [results(PACKAGE, asked.version, hour, box.conduct, rng) for hour in past]
        box.record(DaemonChange(state="started", mode="evaluation"), equipment(1, paper.source), *told)
    teller = asyncio.ensure_future(_tell(boxes, asked.version, rng))
    _say({"boxes": len(boxes)})
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        _say(_state(boxes, figures))
    teller.cancel()
    await swarm.stop()


async def _tell(boxes: list[SimulatedBox], version: str, rng: random.Random) -> None:
    """A day's results of whatever version serves anew: a demo does not wait for them."""
    told = {(box.device, version) for box in boxes}
    while True:
        await asyncio.sleep(_TELL_S)
        today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
        for box in boxes:
            live = box.slots[PACKAGE].live
            if live is not None and (box.device, live[0]) not in told:
                told.add((box.device, live[0]))
                box.record(results(PACKAGE, live[0], today, box.conduct, rng, hours=24))


def _box(paper: Paper, asked: Asked, key: DeviceKey, figures: Figures, rng: random.Random) -> SimulatedBox:
    conduct = Conduct(
        step_s=paper.step_s,
        fails={version: JobState(state) for version, state in paper.fails.items()},
        code=paper.code,
        flaps_s=paper.flaps_s,
        studies=_STUDIES,
    )
    slots = {PACKAGE: Slots(live=(asked.version, asked.digest))}
    return SimulatedBox(paper.device, paper.tenant, key, paper.number, figures, conduct=conduct, slots=slots, rng=rng)


def _state(boxes: list[SimulatedBox], figures: Figures) -> dict[str, Any]:
    versions: dict[str, int] = {}
    records = {box.device: box.seq for box in boxes}  # before what is pending: what is told then holds for all of them
    for box in boxes:
        live = box.slots[PACKAGE].live
        versions[live[0] if live else ""] = versions.get(live[0] if live else "", 0) + 1
    return {
        "connected": figures.connected,
        "told": not any(box.pending for box in boxes),
        "pending": [box.device for box in boxes if box.pending][:9],
        "records": records,
        "serves": versions,
        "jobs": figures.jobs,
        "refused": figures.refused,
        "nonsense": figures.nonsense,
    }


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
