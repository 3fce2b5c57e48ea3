"""What the demo's server knows, counted: what a person would read on the pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, func, select

from appliance.fleet.server import tables as t
from appliance.fleet.server.db import read
from appliance.fleet.server.demo.model import PACKAGE
from appliance.fleet.server.demo.world import World

_P = t.package_state.c
_SERVES = and_(_P.package == PACKAGE, _P.serves.is_(True), _P.role == "live")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: what, and what was seen."""

    name: str
    ok: bool
    seen: dict[str, Any] = field(default_factory=dict)


class View:
    """Reads one server."""

    def __init__(self, world: World) -> None:
        """Read its database."""
        self._engine = world.engine

    def presence(self) -> dict[str, int]:
        """Boxes that are online; that have told health, results, and their scanner; that hold what is desired."""
        asked = {
            "online": select(func.count()).select_from(t.status).where(t.status.c.online.is_(True)),
            "health": select(func.count()).select_from(t.health_now),
            "results": select(func.count(func.distinct(t.results_hour.c.device))),
            "equipment": select(func.count(func.distinct(t.equipment.c.device))),
            "desired": select(func.count()).select_from(t.twin).where(t.twin.c.applied_dv >= t.twin.c.dv),
            "serves": select(func.count(func.distinct(t.package_state.c.device))).where(_SERVES),
        }
        with read(self._engine) as connection:
            return {name: int(connection.execute(one).scalar_one()) for name, one in asked.items()}

    def serves(self) -> dict[str, int]:
        """On how many boxes each version serves."""
        c = t.package_state.c
        asked = select(c.version, func.count()).where(_SERVES).group_by(c.version).order_by(c.version)
        with read(self._engine) as connection:
            return {row[0]: int(row[1]) for row in connection.execute(asked)}

    def records(self) -> dict[str, int]:
        """By device."""
        c = t.record.c
        with read(self._engine) as connection:
            return {
                row[0]: int(row[1]) for row in connection.execute(select(c.device, func.count()).group_by(c.device))
            }

    def refused(self) -> dict[str, int]:
        """Messages that were not taken, by reason."""
        c = t.refusal.c
        with read(self._engine) as connection:
            asked = select(c.reason, func.sum(c.n)).group_by(c.reason)
            return {row[0]: int(row[1]) for row in connection.execute(asked)}

    def source(self, device: str) -> str:
        """Make and model of a box's scanner."""
        c = t.equipment.c
        with read(self._engine) as connection:
            row = connection.execute(select(c.make, c.model).where(c.device == device).limit(1)).first()
        return "no scanner" if row is None else f"{row.make} {row.model}"
