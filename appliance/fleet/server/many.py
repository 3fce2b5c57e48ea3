"""One job for many boxes: for all that may be told, or, of a change of keys, for those that have not taken it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, exists, select

from appliance.fleet.server.key_rotation import behind, changed_at
from appliance.fleet.server.registry import DeviceState, Scope
from appliance.fleet.server.tables import device, job
from appliance.fleet.wire import Op
from appliance.fleet.wire_jobs import ENDED

#: What is asked of many at once: nothing that touches the work of a box.
FOR_MANY = (Op.PING, Op.COLLECT_LOGS, Op.ROOT_UPDATE)


def boxes_for(connection: Connection, op: Op, scope: Scope, now: datetime, site: str | None = None) -> list[str]:
    """Boxes that are to do ``op`` and have not been asked yet, by id: asking twice asks nobody twice.

    Args:
        connection: To read.
        op: One of ``FOR_MANY``.
        scope: Whose boxes.
        now: The server's clock.
        site: Of this one alone.
    """
    since = changed_at(connection)
    c = device.c
    asked = (
        exists()
        .where(job.c.device == c.id, job.c.op == str(op), job.c.state.not_in([str(one) for one in ENDED]))
        .where(job.c.expires_at > now)
    )
    found = select(c.id).where(c.state == str(DeviceState.ENROLLED), scope.holds(c.tenant))
    if op is Op.ROOT_UPDATE:
        if since is None:
            return []
        asked = asked.where(job.c.made_at >= since)
        found = found.where(c.id.in_(behind(since)))
    found = found if site is None else found.where(c.site == site)
    return list(connection.execute(found.where(~asked).order_by(c.number)).scalars())
