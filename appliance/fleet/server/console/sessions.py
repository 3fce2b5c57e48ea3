"""Who is signed in: a row for each browser, found by the digest of its cookie."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, insert, select, update

from appliance.errors import NotFoundError
from appliance.fleet.server import tables as t
from appliance.fleet.server.console.people import Member, Person, by_number
from appliance.fleet.server.db import read, write
from appliance.fleet.server.registry import Scope

#: Unused for so long, it is over.
IDLE = timedelta(minutes=30)
#: Used or not.
LONGEST = timedelta(hours=12)
#: A page that is used writes no oftener than this.
_NOTED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's: whose, and as what they look now."""

    digest: str
    person: Person
    member: Member
    scope: Scope


def open_session(connection: Connection, person: Person, now: datetime) -> str:
    """Begin one as the first of what somebody is; returns the cookie, which is kept nowhere.

    Raises:
        NotFoundError: The account is nothing anywhere.
    """
    if not person.members:
        raise NotFoundError(f"{person.name!r} has no role in any tenant")
    cookie = secrets.token_urlsafe(32)
    connection.execute(delete(t.session).where(t.session.c.made_at < now - LONGEST))
    connection.execute(
        insert(t.session).values(
            digest=_digest(cookie),
            account=person.number,
            tenant=person.members[0].tenant,
            made_at=now,
            seen_at=now,
            proved_at=now,
        )
    )
    return cookie


def find_session(engine: Engine, cookie: str, now: datetime, *, used: bool) -> Session | None:
    """The session of a cookie; None where it is over. ``used``: by a person, which keeps it."""
    digest = _digest(cookie)
    with read(engine) as connection:
        row = connection.execute(select(t.session).where(t.session.c.digest == digest)).first()
        if row is None or now - row.seen_at > IDLE or now - row.made_at > LONGEST:
            return None
        person = by_number(connection, row.account)
        member = next((one for one in person.members if one.tenant == row.tenant), None)
        if not person.is_active or member is None:
            return None
        scope = Scope.of(connection, member.tenant)
    if used and now - row.seen_at > _NOTED:
        with write(engine) as connection:
            connection.execute(update(t.session).where(t.session.c.digest == digest).values(seen_at=now))
    return Session(digest, person, member, scope)


def end_session(connection: Connection, digest: str) -> None:
    """End one."""
    connection.execute(delete(t.session).where(t.session.c.digest == digest))


def look_as(connection: Connection, session: Session, tenant: str) -> None:
    """Look as what one is in another tenant.

    Raises:
        NotFoundError: One is nothing there.
    """
    if all(one.tenant != tenant for one in session.person.members):
        raise NotFoundError("you have no role in that tenant")
    connection.execute(update(t.session).where(t.session.c.digest == session.digest).values(tenant=tenant))


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
