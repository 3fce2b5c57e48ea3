"""Holds: nothing new is installed at a tenant, a site or a box. The server skips it, and the box refuses by itself.

The server skips from the moment of the act. Of many boxes the act tells some, and ``HoldTeller`` the rest, a portion in
a transaction: SQLite takes nothing else in meanwhile.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select, update

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.acts import set_desired
from appliance.fleet.server.registry import DeviceState, Scope, write_audit
from appliance.fleet.server.rollout.holding import covered, held_devices
from appliance.fleet.server.server_keys import ServerKeys
from appliance.fleet.wire import Desired

Kind = Literal["tenant", "site", "device"]

#: Documents that are signed in one transaction.
PORTION = 200


def add_hold(
    connection: Connection,
    keys: ServerKeys,
    scope: Scope,
    kind: Kind,
    subject: str,
    *,
    why: str,
    actor: str,
    now: datetime,
    account: int | None = None,
    until: datetime | None = None,
) -> int:
    """Hold it; returns the number of the hold.

    Raises:
        NotFoundError: No such tenant, site or box in the scope.
        ConflictError: ``until`` is over.
    """
    if until is not None and until <= now:
        raise ConflictError("the hold would be over before it begins")
    tenant = _owner(connection, scope, kind, subject)
    values = {kind: subject, "why": why, "made_by": account, "made_at": now, "until_at": until}
    number = int(connection.execute(insert(t.hold).values(**values).returning(t.hold.c.number)).scalar_one())
    hold = connection.execute(select(t.hold).where(t.hold.c.number == number)).one()
    told = _follow(connection, keys, hold, now, account, actor)
    detail = {"kind": kind, "subject": subject, "why": why, "boxes": told}
    detail |= {} if until is None else {"until": until.isoformat()}
    write_audit(
        connection,
        act="hold.add",
        subject=str(number),
        actor=actor,
        account=account,
        tenant_id=tenant,
        now=now,
        detail=detail,
    )
    return number


def lift_hold(
    connection: Connection,
    keys: ServerKeys,
    scope: Scope,
    number: int,
    *,
    why: str,
    actor: str,
    now: datetime,
    account: int | None = None,
) -> None:
    """Lift it; boxes over which another one stands stay held.

    Raises:
        NotFoundError: No such hold in the scope.
        ConflictError: It was lifted before.
    """
    row = connection.execute(select(t.hold).where(t.hold.c.number == number)).first()
    if row is None:
        raise NotFoundError(_unknown(number))
    kind: Kind = "tenant" if row.tenant else "site" if row.site else "device"
    try:
        tenant = _owner(connection, scope, kind, row.tenant or row.site or row.device)
    except NotFoundError:
        raise NotFoundError(_unknown(number)) from None
    if row.lifted_at is not None:
        raise ConflictError(f"hold {number} was lifted before")
    connection.execute(update(t.hold).where(t.hold.c.number == number).values(lifted_at=now, lifted_by=account))
    told = _follow(connection, keys, row, now, account, actor)
    write_audit(
        connection,
        act="hold.lift",
        subject=str(number),
        actor=actor,
        account=account,
        tenant_id=tenant,
        now=now,
        detail={"why": why, "boxes": told},
    )


def end_holds(connection: Connection, keys: ServerKeys, now: datetime) -> int:
    """Lift those whose time is over; returns how many."""
    c = t.hold.c
    over = connection.execute(select(c.number).where(c.lifted_at.is_(None), c.until_at <= now)).all()
    for row in over:
        lift_hold(connection, keys, Scope.everything(), row.number, why="its time is over", actor="system", now=now)
    return len(over)


class HoldTeller:
    """Tells boxes whether they are held: what an act left for later, and boxes that came under a hold since."""

    def __init__(self, keys: ServerKeys) -> None:
        """Look at all boxes the first time."""
        self._keys = keys
        self._mark: Row[Any] | None = None
        self._left: list[str] = []

    def waits(self, connection: Connection, now: datetime) -> bool:
        """Whether there is a box to be told; in a transaction of ``db.read``."""
        h, d = t.hold.c, t.device.c
        lives = select(func.count()).where(d.state == str(DeviceState.ENROLLED)).scalar_subquery()
        mark = connection.execute(select(func.max(h.number), func.count(h.lifted_at), lives)).one()
        if not self._left and mark != self._mark:
            self._mark, self._left = mark, _unlike(connection, now)
        return bool(self._left)

    def step(self, connection: Connection, now: datetime) -> None:
        """Tell a portion of them; in a transaction of ``db.write``."""
        portion, self._left = self._left[:PORTION], self._left[PORTION:]
        _tell_boxes(connection, self._keys, portion, now, None, "system")
        if not self._left:
            self._mark = None  # looked at once more: what was told in a transaction that failed was not told


def _unlike(connection: Connection, now: datetime) -> list[str]:
    """Boxes that were told something else than what stands over them now; those that are held first."""
    held, d = held_devices(connection, now), t.device.c
    says_so = t.twin.c.desired["held"].as_boolean().is_(True)
    told = set(
        connection.scalars(
            select(d.id)
            .join(t.twin, t.twin.c.device == d.id)
            .where(d.state == str(DeviceState.ENROLLED), t.twin.c.desired.is_not(None), says_so)
        )
    )
    return [*sorted(held - told), *sorted(told - held)]


def _follow(connection: Connection, keys: ServerKeys, hold: Any, now: datetime, account: int | None, actor: str) -> int:
    """Tell the boxes that a hold is about whether any stands over them now, at most a portion; returns how many are."""
    about = {row.device for row in covered(connection, hold)}
    boxes = [device for device in _unlike(connection, now) if device in about]
    _tell_boxes(connection, keys, boxes[:PORTION], now, account, actor)
    return len(boxes)


def _tell_boxes(
    connection: Connection, keys: ServerKeys, boxes: list[str], now: datetime, account: int | None, actor: str
) -> None:
    """Say to each whether it is held, where it was told something else."""
    d = t.device.c
    rows = connection.execute(
        select(d.id, t.twin.c.desired)
        .outerjoin(t.twin, t.twin.c.device == d.id)
        .where(d.id.in_(boxes), d.state == str(DeviceState.ENROLLED))
        .order_by(d.id)
    ).all()
    held = held_devices(connection, now, boxes)
    for row in rows:
        desired = Desired.model_validate(row.desired) if row.desired else Desired()
        if desired.held is not (row.id in held):
            new = desired.model_copy(update={"held": row.id in held})
            set_desired(connection, keys, Scope.everything(), row.id, new, now=now, by=account, actor=actor)


def _owner(connection: Connection, scope: Scope, kind: Kind, subject: str) -> str:
    table: Any = {"tenant": t.tenant, "site": t.site, "device": t.device}[kind]
    owner = table.c.id if kind == "tenant" else table.c.tenant
    found = connection.execute(select(owner).where(table.c.id == subject, scope.holds(owner))).scalar_one_or_none()
    if found is None:
        raise NotFoundError(f"there is no {kind} {subject!r}")
    return str(found)


def _unknown(number: int) -> str:
    return f"there is no hold {number}; 'scanside-fleet hold list' shows them"
