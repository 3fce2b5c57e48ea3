"""What people of the console do about an issue. Neither act ends it: only its box says that it is over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, select, update

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.registry import Scope, find_device, write_audit

#: Nothing stays on the shelf longer: whoever put it there may be gone.
LONGEST_ON_SHELF = timedelta(days=30)


def acknowledge(
    connection: Connection, scope: Scope, device: str, ref: str, *, now: datetime, actor: str, by: int
) -> None:
    """Somebody has seen it.

    Raises:
        NotFoundError: No such issue in the scope.
        ConflictError: It is over.
    """
    row, tenant = _find(connection, scope, device, ref)
    _change(connection, row, acknowledged_by=by, acknowledged_at=now)
    _told(connection, "issue.acknowledge", row, tenant, now, actor, by, {})


def shelve(
    connection: Connection,
    scope: Scope,
    device: str,
    ref: str,
    until: datetime,
    *,
    why: str,
    now: datetime,
    actor: str,
    by: int,
) -> None:
    """Somebody wants to hear of it again at ``until``.

    Raises:
        NotFoundError: No such issue in the scope.
        ConflictError: It is over, or ``until`` is past or further than ``LONGEST_ON_SHELF``.
    """
    if not now < until <= now + LONGEST_ON_SHELF:
        raise ConflictError(f"an issue is put off for at most {LONGEST_ON_SHELF.days} days")
    row, tenant = _find(connection, scope, device, ref)
    _change(connection, row, shelved_by=by, shelved_until=until)
    told = {"until": until.isoformat(), "why": why}
    _told(connection, "issue.shelve", row, tenant, now, actor, by, told)


def _find(connection: Connection, scope: Scope, device: str, ref: str) -> tuple[Row[Any], str]:
    box = find_device(connection, scope, device)
    c = t.issue_state.c
    row = connection.execute(select(t.issue_state).where(c.device == device, c.ref == ref)).first()
    if row is None:
        raise NotFoundError(f"there is no issue {ref!r} of {device!r}")
    if row.cleared_at is not None:
        raise ConflictError("the box says that this is over")
    return row, str(box.tenant)


def _change(connection: Connection, row: Row[Any], **values: Any) -> None:
    c = t.issue_state.c
    connection.execute(update(t.issue_state).where(c.device == row.device, c.ref == row.ref).values(**values))


def _told(
    connection: Connection,
    act: str,
    row: Row[Any],
    tenant: str,
    now: datetime,
    actor: str,
    by: int,
    detail: dict[str, Any],
) -> None:
    told = {"code": row.code, "ref": row.ref, **detail}
    write_audit(
        connection, act=act, subject=row.device, actor=actor, account=by, tenant_id=tenant, now=now, detail=told
    )
