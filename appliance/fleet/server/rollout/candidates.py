"""The boxes that a choice names, as the server knows them."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from sqlalchemy import Connection, or_, select, true

from appliance.errors import NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import Presence, Scope, presence
from appliance.fleet.server.rollout.choose import Candidate, Source
from appliance.fleet.server.rollout.holding import held_devices
from appliance.fleet.server.rollout.plan import Chosen, Role


def candidates(
    connection: Connection, scope: Scope, chosen: Chosen, package: str, version: str, role: Role, now: datetime
) -> list[Candidate]:
    """All boxes of a choice within a scope.

    Raises:
        NotFoundError: A tenant, site or box that is named is not in the scope.
    """
    _check(connection, scope, chosen)
    d = t.device.c
    below = [Scope.of(connection, ident) for ident in chosen.tenants]
    named = [one.holds(d.tenant) for one in below]
    named += [d.site.in_(chosen.sites)] if chosen.sites else []
    named += [d.id.in_({*chosen.devices, *chosen.lab})] if chosen.devices else []
    every = not (chosen.tenants or chosen.sites or chosen.devices)
    lab = d.id.in_(chosen.lab) if chosen.lab and not every else None
    rows = connection.execute(
        select(
            d.id,
            d.site,
            d.tenant,
            d.hardware,
            d.state,
            t.site.c.country,
            t.status.c.online,
            t.status.c.due_at,
            t.status.c.last_seen_at,
            t.health_now.c.body,
        )
        .join(t.site, t.site.c.id == d.site)
        .outerjoin(t.status, t.status.c.device == d.id)
        .outerjoin(t.health_now, t.health_now.c.device == d.id)
        .where(scope.holds(d.tenant), true() if every else or_(*named, *([] if lab is None else [lab])))
        .order_by(d.id)
    ).all()
    e = t.equipment.c
    sources: dict[str, set[Source]] = defaultdict(set)
    for one in connection.execute(select(e.device, e.modality, e.make, e.model)):
        sources[one.device].add((one.modality, one.make, one.model))
    p = t.package_state.c
    roles = {role, "live"}
    there = set(
        connection.scalars(
            select(p.device).where(p.package == package, p.version == version, p.serves.is_(True), p.role.in_(roles))
        )
    )
    held = held_devices(connection, now)
    return [
        Candidate(
            device=row.id,
            site=row.site,
            tenant=row.tenant,
            country=row.country,
            hardware=row.hardware,
            is_enrolled=row.state == "enrolled",
            is_online=presence(row, now) is Presence.ONLINE,
            studies=int((row.body or {}).get("studies_24h", 0)),
            sources=frozenset(sources[row.id]),
            has_it=row.id in there,
            held=row.id in held,
        )
        for row in rows
        if row.state != "replaced"
    ]


def _check(connection: Connection, scope: Scope, chosen: Chosen) -> None:
    named = (
        ("tenant", t.tenant.c.id, t.tenant.c.id, chosen.tenants),
        ("site", t.site.c.id, t.site.c.tenant, chosen.sites),
        ("device", t.device.c.id, t.device.c.tenant, (*chosen.devices, *chosen.lab)),
    )
    for kind, ident, owner, wanted in named:
        found = set(connection.scalars(select(ident).where(ident.in_(wanted), scope.holds(owner)))) if wanted else set()
        for missing in sorted(set(wanted) - found):
            raise NotFoundError(f"there is no {kind} {missing!r}")
