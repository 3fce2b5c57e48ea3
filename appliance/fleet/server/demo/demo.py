"""The demo put together: the server, its boxes in two processes, the story, and what of it holds."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from appliance.fleet.server.demo import agents, swarm
from appliance.fleet.server.demo.agent import Character
from appliance.fleet.server.demo.cast import Part, cast
from appliance.fleet.server.demo.child import Child
from appliance.fleet.server.demo.story import NotSoFast, Told, add_model, begin, publish, revert, roll_out
from appliance.fleet.server.demo.view import Check, View
from appliance.fleet.server.demo.world import PEOPLE, VERSIONS, World, open_world, register, set_windows, tokens
from appliance.fleet.server.rollout.plan import BoxWord, RollOutState

BEFORE, BAD, GOOD = VERSIONS
REAL, SIMULATED = 20, 300
_ANSWER_S, _LOOK_S = 20.0, 0.5
#: How many there are when the story was told to its end.
_CHECKS = 9
_HOURS = 24
_SPREAD_S, _HEARTBEAT_S, _REAL_HEALTH_S = 5.0, 30.0, 30


class Demo:
    """A context manager; ``run`` once."""

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        *,
        real: int = REAL,
        simulated: int = SIMULATED,
        limit_s: float = 60.0,
    ) -> None:
        """Prepare.

        Args:
            folder: For everything; empty.
            say: Tells a person a line.
            real: How many real agents.
            simulated: How many simulated boxes.
            limit_s: How long each part may take.
        """
        self._folder = folder
        self._say = say
        self._limit_s = limit_s
        self._parts = cast(real, simulated)
        self._stack = contextlib.ExitStack()
        self.checks: list[Check] = []
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Demo:  # noqa: PYI034 - typing.Self came with Python 3.11
        """Start server and boxes."""
        begun = time.monotonic()
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        self.seconds["started"] = time.monotonic() - begun
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Boxes first, then the server."""
        self._stack.close()

    @property
    def console(self) -> str:
        """Where people look."""
        return str(self.world.server.addresses()["console"])

    @property
    def sign_in(self) -> dict[str, Any]:
        """Names and the password of all."""
        return {"url": self.console, "names": [one[0] for one in PEOPLE], "password": self.world.password}

    def run(self) -> bool:
        """The story; whether all went as it should."""
        begun = time.monotonic()
        self._wait_online()
        self.seconds["online"] = time.monotonic() - begun
        self._say(f"Roll-out of {BAD}, which fails on one make of scanner:")
        told = roll_out(self.world, BAD, self._say, self._limit_s)
        self.seconds["stopped"] = time.monotonic() - begun
        self._judge(told)
        back = revert(self.world, told.ident, self._limit_s)
        here = self._settle()
        self.seconds["reverted"] = time.monotonic() - begun
        self._judge_end(told, back, here)
        return self.is_well

    def let_good_out(self, limit_s: float) -> Told:
        """The good version goes to every box; how that ended."""
        add_model(self.world, GOOD)
        return roll_out(self.world, GOOD, self._say, limit_s)

    def go_on(self) -> None:
        """Let the good version out, and wait for nothing."""
        add_model(self.world, GOOD)
        begin(self.world, GOOD, self._say)

    @property
    def is_well(self) -> bool:
        """Whether everything that was looked at held, to the end."""
        return len(self.checks) == _CHECKS and all(one.ok for one in self.checks)

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "ok": self.is_well,
            "boxes": {"real": len(self._of(real=True)), "simulated": len(self._of(real=False))},
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "sign_in": self.sign_in,
            "checks": {one.name: {"ok": one.ok, **one.seen} for one in self.checks},
        }

    # Setting up ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.world: World = self._stack.enter_context(open_world(self._folder))
        self._view = View(self.world)
        url = self.world.server.addresses()["https"]
        model = self.world.models[BEFORE]
        real, simulated = self._of(real=True), self._of(real=False)
        given = tokens(self.world, real)
        folder = self._folder / "boxes"
        self._agents = self._child("agents", str(folder))
        self._agents.tell(
            agents.Asked(
                url=url,
                maker=self.world.release.public.pem(),
                archive=str(model.path),
                version=model.version,
                digest=model.digest,
                hours=_HOURS,
                boxes=tuple(_character(part, given[part.number]) for part in real),
            ).line()
        )
        papers = self._folder / "papers"
        ids = register(self.world, simulated, papers)
        broker = self.world.server.addresses()["brokers"][0]
        self._swarm = self._child("swarm")
        self._swarm.tell(
            swarm.Asked(
                host=broker["host"],
                port=broker["port"],
                certificates=str(papers),
                version=model.version,
                digest=model.digest,
                spread_s=min(_SPREAD_S, len(simulated) / 50),
                hours=_HOURS,
                heartbeat_s=_HEARTBEAT_S,
                boxes=tuple(_paper(part, ids[part.number]) for part in simulated),
            ).line()
        )
        publish(self.world, BAD)
        self._swarm.hear(self._limit_s)
        found = self._agents.hear(self._limit_s)["boxes"]
        devices = [one["device"] for one in found]
        self.real = set(devices)
        set_windows(self.world, devices, _REAL_HEALTH_S)
        set_windows(self.world, list(ids.values()), int(_HEARTBEAT_S))

    def _child(self, name: str, *arguments: str) -> Child:
        module = f"{__package__}.{name}"
        return self._stack.enter_context(Child(module, *arguments, log=self._folder / f"{name}.log"))

    def _of(self, *, real: bool) -> list[Part]:
        return [part for part in self._parts if part.is_real is real]

    # Looking ---------------------------------------------------------------------------------------------------------

    def _wait_online(self) -> None:
        n, told = len(self._parts), -1

        def is_there() -> bool:
            nonlocal told
            seen = self._view.presence()
            if seen["online"] != told:
                told = seen["online"]
                self._say(f"  {told} of {n} boxes online")
            return seen == {"online": n, "health": n, "results": n, "equipment": n, "desired": n, "serves": n}

        self._until(is_there, "not every box is online with its health and results", self._view.presence)
        self.checks.append(Check("all_online", ok=True, seen=self._view.presence()))

    def _judge(self, told: Told) -> None:
        page = told.page
        wave = next(one for one in page.waves if one.number == page.row.wave)
        failed = [one for one in wave.verdicts if one.word == "failed"]
        bad = told.of(BoxWord.FAILED, BoxWord.ROLLED_BACK)
        outside = [one for one in told.touched if one.wave != wave.number]
        for one in bad:
            kind = "a real agent" if one.device in self.real else "simulated"
            self._say(f"  box {one.number} ({kind}, {self._view.source(one.device)}) {one.state}: {one.code}")
        for verdict in failed:
            codes = ", ".join(f"{n} {code}" for code, n in sorted(verdict.codes.items()))
            self._say(f"  gate {verdict.gate}: failed: {codes} of {verdict.n} boxes that came to an end")
        waiting = len(told.boxes) - len(told.touched)
        self._say(f"  stopped in wave {wave.number} ({wave.name}): {len(bad)} bad, {waiting} boxes never touched")
        self.checks += [
            Check("maker_cannot_approve", told.refused_own),
            Check(
                "bad_canary_stopped_it",
                page.row.state is RollOutState.PAUSED and wave.name == "canaries" and bool(failed) and len(bad) == 1,
                {"wave": wave.name, "why": page.row.paused_why, "failed": len(bad), "code": bad[0].code if bad else ""},
            ),
            Check("only_canaries_touched", not outside and waiting > 0, {"outside": len(outside), "spared": waiting}),
            Check(
                "good_canaries_took_it",
                all(one.word is BoxWord.SUCCEEDED for one in told.touched if one not in bad),
                {"succeeded": len(told.of(BoxWord.SUCCEEDED))},
            ),
        ]

    def _judge_end(self, told: Told, back: Told, here: dict[str, Any]) -> None:
        serves, counts = self._view.serves(), self._view.records()
        n = len(self._parts)
        own = {one["device"]: one["records"] for one in here["real"]} | here["simulated"]["records"]
        # A box may have told more since: it goes on.
        lost = {device: said - counts.get(device, 0) for device, said in own.items() if said > counts.get(device, 0)}
        on_boxes = sum(BEFORE in one["serves"] for one in here["real"]) + here["simulated"]["serves"].get(BEFORE, 0)
        self._say(f"  taken back: {serves.get(BEFORE, 0)} of {n} boxes serve {BEFORE}")
        refused = self._view.refused()
        self.checks += [
            Check(
                "reverted",
                back.page.row.state is RollOutState.REVERTED and serves == {BEFORE: n} and on_boxes == n,
                {"serves": serves, "on_boxes": on_boxes, "reverted": len(told.of(BoxWord.SUCCEEDED))},
            ),
            Check("nothing_lost", not lost, {"records": sum(counts.values()), "lost": lost}),
            Check(
                "nothing_refused",
                not refused and not here["simulated"]["refused"] and not here["simulated"]["nonsense"],
                {"by_server": refused},
            ),
            Check(
                "no_box_was_deceived",
                not any("FLEET_FORGED" in one["issues"] for one in here["real"]),
                {"issues": sorted({code for one in here["real"] for code in one["issues"]})},
            ),
        ]
        self._say(f"  {sum(counts.values())} records of {n} boxes, {len(lost)} boxes with a loss")

    def _boxes(self) -> dict[str, Any]:
        return {"real": self._agents.ask(_ANSWER_S)["boxes"], "simulated": self._swarm.ask(_ANSWER_S)}

    def _settle(self) -> dict[str, Any]:
        """Wait until every box was told that the server has all of its records, and says what serves: what they say."""
        n, here = len(self._parts), {}

        def is_settled() -> bool:
            if self._view.serves() != {BEFORE: n}:
                return False
            here.update(self._boxes())
            return here["simulated"]["told"] and all(one["told"] for one in here["real"])

        self._until(is_settled, "boxes do not settle", self._view.serves)
        return here

    def _until(self, is_so: Callable[[], bool], what: str, seen: Callable[[], Any]) -> None:
        until, pause = time.monotonic() + self._limit_s, threading.Event()
        while not is_so():
            if time.monotonic() > until:
                raise NotSoFast(f"{what} within {self._limit_s:g} s: {seen()}")
            pause.wait(_LOOK_S)


def _character(part: Part, token: str) -> Character:
    return Character(
        name=f"box-{part.number:02d}",
        serial=part.serial,
        token=token,
        source=part.source,
        hardware=part.hardware,
        fails=BAD if part.is_odd else "",
    )


def _paper(part: Part, device: str) -> swarm.Paper:
    return swarm.Paper(
        device=device,
        tenant=part.hospital.tenant,
        number=part.number,
        source=part.source,
        step_s=part.step_s,
        flaps_s=part.flaps_s,
    )
