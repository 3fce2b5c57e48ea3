"""Accounts of the console. Each act is one function in the caller's transaction, and an audit row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.engine import Row

from appliance.errors import ConflictError, NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.console.roles import PLACES, FleetRole
from appliance.fleet.server.registry import TenantKind, write_audit

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{1,63}")
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Member:
    """What somebody is, and where."""

    tenant: str
    tenant_name: str
    role: FleetRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """An account with what it is where; ``members`` in the order of roles."""

    number: int
    name: str
    full_name: str
    must_change: bool
    is_active: bool
    members: tuple[Member, ...] = ()


def add_person(
    connection: Connection,
    name: str,
    full_name: str,
    tenant: str,
    role: FleetRole,
    password: str,
    *,
    now: datetime,
    actor: str,
    by: int | None = None,
) -> int:
    """Add an account that is ``role`` in ``tenant``, or make one that is there so too; returns its number.

    Args:
        connection: Of ``db.write``.
        name: What it signs in by.
        full_name: As it stands on pages; an account that is there keeps its own.
        tenant: Where.
        role: What it is there.
        password: Hash of the one that must be changed at the first sign-in; an account that is there keeps its own.
        now: The server's clock.
        actor: Who does it.
        by: Their account.

    Raises:
        NotFoundError: No such tenant.
        ConflictError: The name does not do, the role does not fit the tenant, or it is so already.
    """
    if not _NAME.fullmatch(name):
        raise ConflictError(f"{name!r}: a name is 2 to 64 letters, digits and . _ @ -")
    kind = connection.execute(select(t.tenant.c.kind).where(t.tenant.c.id == tenant)).scalar_one_or_none()
    if kind is None:
        raise NotFoundError(f"there is no tenant {tenant!r}; 'scanside-fleet tenant list' shows them")
    if TenantKind(kind) not in PLACES[role]:
        raise ConflictError(f"nobody is {role} in a tenant of kind {kind}")
    found = by_name(connection, name)
    if found is None:
        made = insert(t.account).values(
            name=name,
            full_name=(full_name.strip() or name)[:_LONGEST_NAME],
            password=password,
            must_change=True,
            is_active=True,
            made_at=now,
        )
        number = int(connection.execute(made.returning(t.account.c.number)).scalar_one())
    else:
        number = found[0].number
        if any(one.tenant == tenant and one.role is role for one in found[0].members):
            raise ConflictError(f"{name!r} is {role} in {tenant!r} already")
    connection.execute(insert(t.account_role).values(account=number, tenant=tenant, role=str(role)))
    told = {"tenant": tenant, "role": str(role)}
    write_audit(
        connection, act="user.add", subject=name, actor=actor, account=by, tenant_id=tenant, now=now, detail=told
    )
    return number


def by_name(connection: Connection, name: str) -> tuple[Person, str] | None:
    """An account and the hash of its password; capitals do not count."""
    row = connection.execute(select(t.account).where(func.lower(t.account.c.name) == name.lower())).first()
    return None if row is None else (_person(row, _members(connection, [row.number])), row.password or "")


def by_number(connection: Connection, number: int) -> Person:
    """An account.

    Raises:
        NotFoundError: There is none.
    """
    row = connection.execute(select(t.account).where(t.account.c.number == number)).first()
    if row is None:
        raise NotFoundError(f"there is no account {number}")
    return _person(row, _members(connection, [number]))


def everybody(connection: Connection) -> list[Person]:
    """All accounts by name."""
    rows = connection.execute(select(t.account).order_by(t.account.c.name)).all()
    members = _members(connection, None)
    return [_person(row, members) for row in rows]


def names_of(connection: Connection, numbers: Sequence[int]) -> dict[int, str]:
    """What stands on pages for accounts."""
    c = t.account.c
    return {
        row.number: row.full_name
        for row in connection.execute(select(c.number, c.full_name).where(c.number.in_(numbers)))
    }


def is_there_an_operator(connection: Connection) -> bool:
    """Whether somebody can keep the server."""
    c = t.account_role.c
    asked = select(c.account).join(t.account, t.account.c.number == c.account)
    asked = asked.where(c.role == str(FleetRole.OPERATOR), t.account.c.is_active.is_(True))
    return connection.execute(asked.limit(1)).first() is not None


def set_password(
    connection: Connection,
    person: Person,
    password: str,
    *,
    must_change: bool,
    now: datetime,
    actor: str,
    by: int | None = None,
) -> None:
    """Give an account another password; every browser of it is signed out."""
    values = {"password": password, "must_change": must_change}
    connection.execute(update(t.account).where(t.account.c.number == person.number).values(**values))
    connection.execute(delete(t.session).where(t.session.c.account == person.number))
    _told(connection, "user.password", person, now, actor, by, {"must_change": must_change})


def rehash(connection: Connection, number: int, before: str, after: str) -> None:
    """Keep the same password by today's parameters, unless it was changed meanwhile."""
    c = t.account.c
    connection.execute(update(t.account).where(c.number == number, c.password == before).values(password=after))


def switch(connection: Connection, number: int, *, on: bool, now: datetime, actor: str, by: int | None = None) -> None:
    """Let an account in, or no more; then its browsers are signed out.

    Raises:
        NotFoundError: There is none.
        ConflictError: It is the last operator's, or one's own.
    """
    person = by_number(connection, number)
    if not on and number == by:
        raise ConflictError("nobody switches off their own account")
    connection.execute(update(t.account).where(t.account.c.number == number).values(is_active=on))
    if not on:
        connection.execute(delete(t.session).where(t.session.c.account == number))
        if any(one.role is FleetRole.OPERATOR for one in person.members) and not is_there_an_operator(connection):
            raise ConflictError("this is the last operator; somebody must be able to keep the server")
    _told(connection, "user.on" if on else "user.off", person, now, actor, by, {})


def _told(
    connection: Connection,
    act: str,
    person: Person,
    now: datetime,
    actor: str,
    by: int | None,
    detail: dict[str, Any],
) -> None:
    write_audit(connection, act=act, subject=person.name, actor=actor, account=by, now=now, detail=detail)


def _members(connection: Connection, numbers: Sequence[int] | None) -> dict[int, list[Member]]:
    c = t.account_role.c
    asked = select(c.account, c.tenant, c.role, t.tenant.c.name).join(t.tenant, t.tenant.c.id == c.tenant)
    if numbers is not None:
        asked = asked.where(c.account.in_(numbers))
    found: dict[int, list[Member]] = {}
    known = {str(role) for role in FleetRole}
    for row in connection.execute(asked.order_by(t.tenant.c.path)):
        if row.role in known:
            found.setdefault(row.account, []).append(Member(row.tenant, row.name, FleetRole(row.role)))
    order = list(FleetRole)
    for members in found.values():
        members.sort(key=lambda one: order.index(one.role))
    return found


def _person(row: Row[Any], members: dict[int, list[Member]]) -> Person:
    return Person(
        number=row.number,
        name=row.name,
        full_name=row.full_name,
        must_change=row.must_change,
        is_active=row.is_active,
        members=tuple(members.get(row.number, ())),
    )
