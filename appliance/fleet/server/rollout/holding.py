"""Which boxes a hold stands over, and how the box itself is told. Holds are of a tenant, a site or a box."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, literal, or_, select

from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import DeviceState


def stands(now: datetime) -> ColumnElement[bool]:
    """For a WHERE over ``hold``: it has neither been lifted nor run out."""
    c = t.hold.c
    return and_(c.lifted_at.is_(None), or_(c.until_at.is_(None), c.until_at > now))


def held_devices(connection: Connection, now: datetime, among: Sequence[str] | None = None) -> set[str]:
    """Boxes over which any hold stands; ``among``: of these alone."""
    holds = connection.execute(select(t.hold).where(stands(now))).all()
    found = {row.device for hold in holds for row in covered(connection, hold)}
    return found if among is None else found & set(among)


def is_held(connection: Connection, device: str, now: datetime) -> bool:
    """Whether a hold stands over a box."""
    d, h = t.device.c, t.hold.c
    row = connection.execute(
        select(d.site, t.tenant.c.path).join(t.tenant, t.tenant.c.id == d.tenant).where(d.id == device)
    ).first()
    if row is None:
        return False
    over = or_(h.device == device, h.site == row.site, h.tenant.in_(row.path.strip("/").split("/")))
    return connection.execute(select(h.number).where(stands(now), over).limit(1)).first() is not None


def covered(connection: Connection, hold: Any) -> list[Any]:
    """``device`` and ``tenant`` of the boxes that a hold is about; of a tenant, also of those below it."""
    d = t.device.c
    if hold.device is not None:
        which: ColumnElement[bool] = d.id == hold.device
    elif hold.site is not None:
        which = d.site == hold.site
    else:
        path = select(t.tenant.c.path).where(t.tenant.c.id == hold.tenant).scalar_subquery()
        below = select(t.tenant.c.id).where(t.tenant.c.path.like(path + literal("%")))
        which = d.tenant.in_(below)
    rows = connection.execute(
        select(d.id.label("device"), d.tenant).where(which, d.state == str(DeviceState.ENROLLED)).order_by(d.id)
    )
    return list(rows.all())
