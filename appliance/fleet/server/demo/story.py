"""What happens in the demo: a version that is bad on one kind of scanner goes out, is stopped, and comes back.

Two people and a release key, as everywhere: one makes and starts the roll-out, the other approves it. Everything is
done by the acts that the command line and the console call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.clock import SystemClock
from appliance.errors import ApplianceError, ConflictError
from appliance.fleet.server.db import read, write
from appliance.fleet.server.demo.cast import VENDOR
from appliance.fleet.server.demo.model import PACKAGE
from appliance.fleet.server.demo.world import PEOPLE, World
from appliance.fleet.server.models import Signers, bring_model, list_model
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.repository import TUF, Repository
from appliance.fleet.server.rollout import acts
from appliance.fleet.server.rollout.plan import BoxWord, Chosen, Plan, RollOutState
from appliance.fleet.server.rollout.query import RollOutBox, RollOutPage, get_roll_out, list_boxes
from appliance.fleet.server.server_keys import trust

_LOOK_S = 0.5
_MOST_BOXES = 1000
#: A demo is over in a minute: everybody is told at once, and nothing soaks.
_PLAN = Plan(per_minute=1000, soak_h=0.0, soak_studies=0)
_MAKER, _APPROVER = PEOPLE[0][0], PEOPLE[1][0]


class NotSoFast(ApplianceError):  # noqa: N818 - a state
    """Something did not come in its time."""


@dataclass(slots=True)
class Told:
    """What was seen of one roll-out.

    Attributes:
        refused_own: Its maker could not approve it.
        page: As it stood when it ended or stood still.
        boxes: Every box of it then.
    """

    ident: str
    refused_own: bool
    page: RollOutPage
    boxes: list[RollOutBox] = field(default_factory=list)

    def of(self, *words: BoxWord) -> list[RollOutBox]:
        """Boxes that fare so."""
        return [one for one in self.boxes if one.word in words]

    @property
    def touched(self) -> list[RollOutBox]:
        """Those that were told anything."""
        return [one for one in self.boxes if one.job is not None]


def publish(world: World, version: str) -> None:
    """Make the repository of models, with a version in it."""
    with write(world.engine) as connection:
        obeyed = trust(connection, world.config.release_threshold)
    _repository(world).create(obeyed, [world.release], world.keys.online, SystemClock().now())
    add_model(world, version)


def add_model(world: World, version: str) -> None:
    """Bring a version in, checked as boxes check it."""
    repository = _repository(world)
    found = bring_model(repository, world.models[version].path, [world.release.public])
    signers = Signers([world.release], world.keys.online)
    list_model(world.engine, repository, found, signers, actor="demo", now=SystemClock().now())


def _repository(world: World) -> Repository:
    return Repository(world.config.folder / TUF)


def roll_out(world: World, version: str, say: Callable[[str], None], limit_s: float) -> Told:
    """Make, submit, approve and start one; wait until it stands still or ends.

    Raises:
        NotSoFast: It does neither in time.
    """
    ident, refused = begin(world, version, say)
    seen: set[tuple[int, str]] = set()

    def is_over() -> RollOutPage | None:
        page = _page(world, ident)
        for wave in page.waves:
            key = (wave.number, str(wave.state))
            if wave.began_at is not None and key not in seen:
                seen.add(key)
                boxes = sum(wave.counts.values())
                say(f"  wave {wave.number} ({wave.name}, {boxes} boxes): {wave.state}".lower())
        return page if page.row.state in {RollOutState.PAUSED, RollOutState.FINISHED} else None

    page = _until(is_over, limit_s, f"roll-out {version} neither stands still nor ends")
    # Boxes of the wave that were told before it stood still end what they began.
    _until(lambda: None if _working(world, ident) else True, limit_s, "boxes that were told do not end")
    return Told(ident, refused, page, _boxes(world, ident))


def revert(world: World, ident: str, limit_s: float) -> Told:
    """Take it back, and wait until it is.

    Raises:
        NotSoFast: It is not in time.
    """
    account = world.accounts[_MAKER]
    with write(world.engine) as connection:
        acts.revert(
            connection, _scope(connection), ident, why="demo", account=account, actor=_MAKER, now=SystemClock().now()
        )

    def is_back() -> RollOutPage | None:
        page = _page(world, ident)
        return page if page.row.state is RollOutState.REVERTED else None

    page = _until(is_back, limit_s, "the roll-out is not taken back")
    return Told(ident, refused_own=True, page=page, boxes=_boxes(world, ident))


def begin(world: World, version: str, say: Callable[[str], None]) -> tuple[str, bool]:
    """Make, submit, approve and start one; its id, and whether its maker was kept from approving it."""
    model, clock = world.models[version], SystemClock()
    maker, approver = world.accounts[_MAKER], world.accounts[_APPROVER]
    with write(world.engine) as connection:
        ident = acts.make(
            connection,
            _scope(connection),
            tenant=VENDOR,
            package=PACKAGE,
            version=version,
            digest=model.digest,
            target=model.target,
            role="live",
            chosen=Chosen(canaries=5),
            plan=_PLAN,
            account=maker,
            actor=_MAKER,
            now=clock.now(),
        )
    with write(world.engine) as connection:
        acts.submit(connection, _scope(connection), ident, account=maker, actor=_MAKER, now=clock.now())
    told: dict[str, Any] = {"threshold": world.config.release_threshold, "release": world.release}
    refused = False
    try:
        with write(world.engine) as connection:
            acts.approve(connection, _scope(connection), ident, account=maker, actor=_MAKER, now=clock.now(), **told)
    except ConflictError as error:
        refused = True
        say(f"  {_MAKER} cannot approve it: {error}")
    with write(world.engine) as connection:
        acts.approve(connection, _scope(connection), ident, account=approver, actor=_APPROVER, now=clock.now(), **told)
    with write(world.engine) as connection:
        acts.start(connection, _scope(connection), ident, account=maker, actor=_MAKER, now=clock.now())
    say(f"  {_APPROVER} approved it with the release key; it runs")
    return ident, refused


def _scope(connection: Any) -> Scope:
    return Scope.of(connection, VENDOR)


def _page(world: World, ident: str) -> RollOutPage:
    with read(world.engine) as connection:
        return get_roll_out(connection, _scope(connection), ident, SystemClock().now())


def _boxes(world: World, ident: str) -> list[RollOutBox]:
    with read(world.engine) as connection:
        return list_boxes(connection, _scope(connection), ident, SystemClock().now(), most=_MOST_BOXES)


def _working(world: World, ident: str) -> bool:
    words = {BoxWord.WORKING, BoxWord.SOAKING, BoxWord.PENDING}
    return any(one.word in words for one in _boxes(world, ident) if one.job is not None)


def _until(ask: Callable[[], Any], limit_s: float, what: str) -> Any:
    until, pause = time.monotonic() + limit_s, threading.Event()
    while (found := ask()) is None:
        if time.monotonic() > until:
            raise NotSoFast(f"{what} within {limit_s:g} s")
        pause.wait(_LOOK_S)
    return found
