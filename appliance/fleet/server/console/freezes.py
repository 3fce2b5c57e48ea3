"""Holds that stand over boxes: their own, their site's, or that of a tenant at or above theirs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, literal, or_, select
from sqlalchemy.engine import Row

from appliance.fleet.server import tables as t
from appliance.fleet.server.rollout.holding import stands


def is_held(now: datetime) -> ColumnElement[bool]:
    """For a WHERE over ``device``."""
    h, d = t.hold.c, t.device.c
    above, below = t.tenant.alias("holder"), t.tenant.alias("held")
    tenants = (
        select(below.c.id)
        .join(above, below.c.path.like(above.c.path + literal("%")))
        .join(t.hold, h.tenant == above.c.id)
        .where(stands(now))
    )
    return or_(
        d.id.in_(select(h.device).where(h.device.is_not(None), stands(now))),
        d.site.in_(select(h.site).where(h.site.is_not(None), stands(now))),
        d.tenant.in_(tenants),
    )


def holds_over(connection: Connection, tenant: str, site: str, device: str | None, *, now: datetime) -> list[Row[Any]]:
    """Those that stand over a box, or over a site where ``device`` is None, the newest first, with their ``maker``.

    Whoever may see a box may see what holds it, from above their own tenant too.
    """
    h, above, own = t.hold.c, t.tenant.alias("holder"), t.tenant.alias("own")
    chain = select(above.c.id).join(own, own.c.path.like(above.c.path + literal("%"))).where(own.c.id == tenant)
    over = [h.tenant.in_(chain), h.site == site]
    if device is not None:
        over.append(h.device == device)
    asked = (
        select(t.hold, t.account.c.full_name.label("maker"))
        .outerjoin(t.account, t.account.c.number == h.made_by)
        .where(stands(now), or_(*over))
    )
    return list(connection.execute(asked.order_by(h.number.desc())))


def held_of(connection: Connection, ids: Sequence[str], *, now: datetime) -> set[str]:
    """Which of these boxes are on hold."""
    asked = select(t.device.c.id).where(t.device.c.id.in_(ids), is_held(now))
    return set(connection.scalars(asked))
