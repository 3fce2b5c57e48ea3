"""The desired document of a box that took another's place: the old one's, signed for the new one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Row, exists, or_, select

from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import set_desired
from appliance.fleet.server.registry import DeviceState, Scope
from appliance.fleet.server.rollout.holding import is_held
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.wire import Desired

_MOST_AT_ONCE = 50


def pass_documents(connection: Connection, keys: ServerKeys, now: datetime) -> int:
    """Make those that are still to be made; returns how many. A box that has one of its own keeps it."""
    made = 0
    for row in _heirs(connection):
        desired = Desired.model_validate(row.desired) if row.desired else Desired()
        desired = desired.model_copy(update={"held": is_held(connection, row.new, now)})
        if row.desired or desired != Desired():
            set_desired(connection, keys, Scope.everything(), row.new, desired, now=now, actor="replacement")
            made += 1
    return made


def waits(connection: Connection) -> bool:
    """Whether ``pass_documents`` may have something to do; cheaper, and in a transaction of ``db.read``."""
    return bool(_heirs(connection))


def _heirs(connection: Connection) -> list[Row[tuple[str, dict[str, object] | None]]]:
    """Boxes that took a place and have no document, where the old one had one or a hold stands over the new one."""
    new, theirs, mine = t.device.alias("new"), t.twin.alias("theirs"), t.twin.alias("mine")
    d, h = t.device.c, t.hold.c
    held = exists().where(h.device == new.c.id, h.lifted_at.is_(None))
    rows = connection.execute(
        select(new.c.id.label("new"), theirs.c.desired)
        .select_from(t.device)
        .join(new, new.c.id == d.replaced_by)
        .outerjoin(theirs, theirs.c.device == d.id)
        .outerjoin(mine, mine.c.device == new.c.id)
        .where(
            new.c.state == str(DeviceState.ENROLLED),
            mine.c.desired.is_(None),
            or_(theirs.c.desired.is_not(None), held),
        )
        .order_by(new.c.id, d.disabled_at.desc())
        .limit(_MOST_AT_ONCE)
    ).all()
    return list({row.new: row for row in reversed(rows)}.values())
