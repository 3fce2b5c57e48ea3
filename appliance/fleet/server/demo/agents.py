"""The real box agents of the demo, all in one process: ``python -m appliance.fleet.server.demo.agents FOLDER``.

It reads one line of JSON (``Asked``), says one line once every box is in the fleet and serves, and then answers each
line with how its boxes stand. It ends with its input, so that no killed demo leaves boxes behind.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance.fleet.server.demo.agent import Agent, Character
from engines.signing import load_public

_AT_ONCE, _CONNECTS_S = 4, 10
_TELL_S = 2.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the process is told.

    Attributes:
        url: Where boxes enrol.
        maker: Public key (PEM) that signs packages.
        archive: The package that serves from the beginning, of ``version`` and ``digest``.
        hours: Of the past, which each box tells of.
    """

    url: str
    maker: str
    archive: str
    version: str
    digest: str
    hours: int
    boxes: tuple[Character, ...]

    def line(self) -> str:
        """As the process reads it."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> Asked:
        """What ``line`` wrote."""
        told = json.loads(line)
        boxes = tuple(Character(**{**one, "source": tuple(one["source"])}) for one in told.pop("boxes"))
        return cls(**told, boxes=boxes)


def main(folder: Path) -> None:
    """Be the boxes until the input ends."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asked = Asked.read(sys.stdin.readline())
    maker = load_public(asked.maker, "demo")
    rng = random.Random(11)  # noqa: S311 - figures of a demo

    def make(character: Character) -> Agent:
        agent = Agent(folder / character.name, character, asked.url, maker)
        agent.serve(Path(asked.archive), asked.version, asked.digest)
        agent.tell_past(asked.version, asked.hours)
        agent.sample(round(rng.uniform(4, 30), 1))
        return agent

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        agents = list(pool.map(make, asked.boxes))
    for agent in agents:
        agent.start(len(agents) / _CONNECTS_S)
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(agents, ended), name="demo-results", daemon=True)
    teller.start()
    _say({"boxes": [{"name": one.character.name, "device": one.device} for one in agents]})
    try:
        for _ in sys.stdin:
            _say({"boxes": [one.state() for one in agents]})
    finally:
        ended.set()
        teller.join()
        with ThreadPoolExecutor(len(agents)) as pool:
            list(pool.map(Agent.stop, agents))


def _tell(agents: list[Agent], ended: threading.Event) -> None:
    while not ended.wait(_TELL_S):
        for agent in agents:
            agent.tell_new()


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
