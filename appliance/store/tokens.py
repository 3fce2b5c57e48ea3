"""Programs that may ask the API: a scanner's console, a monitoring system. What is kept of a token is its digest."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, UserRole
from appliance.store.database import Database, from_iso, iso
from appliance.store.facts.access import TokenChanged
from appliance.store.hashing import secret_digest

#: What a program may be: what a screen may (alerts of its sources), what a viewer may, or health alone.
ROLES = frozenset({UserRole.SCREEN, UserRole.VIEWER, UserRole.SERVICE})
#: Stands before every token, so that one that leaked is recognised by who scans for such things.
PREFIX = "scanside_"
_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A program; ``sources`` empty means all."""

    id: int
    name: str
    role: UserRole
    sources: tuple[str, ...]
    made_at: datetime
    used_at: datetime | None
    ends_at: datetime | None
    revoked_at: datetime | None


class Tokens:
    """Acts on tokens; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def all(self) -> list[TokenView]:
        """Those that are not revoked."""
        return [_view(row) for row in self._db.all("SELECT * FROM api_token WHERE revoked_at IS NULL ORDER BY name")]

    def add(
        self, name: str, role: UserRole, sources: Sequence[str], actor: Actor, *, life: timedelta | None = None
    ) -> str:
        """A new token.

        Args:
            name: Of the program; stands in the journal as who acted.
            role: One of ``ROLES``.
            sources: Sources whose studies it sees; empty for all.
            actor: Who makes it.
            life: How long it holds; None: until it is revoked.

        Returns:
            The token; nothing here keeps it.

        Raises:
            ConflictError: The name is taken, or the role is no program's.
        """
        if role not in ROLES:
            raise ConflictError(f"a token cannot have the role {role}; give one of {', '.join(sorted(ROLES))}")
        token = PREFIX + secrets.token_urlsafe(32)
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM api_token WHERE name = ? AND revoked_at IS NULL", (name,)):
                raise ConflictError(f"a token is named {name!r} already; revoke it first, or choose another name")
            tx.insert(
                "api_token",
                name=name,
                digest=secret_digest(token),
                role=str(role),
                sources=json.dumps(list(sources)),
                made_at=tx.at,
                ends_at=iso(tx.now + life) if life else None,
            )
            tx.journal(TokenChanged(token=name, change="added", role=role, sources=tuple(sources)), actor=actor)
        return token

    def find(self, token: str) -> TokenView | None:
        """The program of a token that holds now."""
        row = self._db.one("SELECT * FROM api_token WHERE digest = ? AND revoked_at IS NULL", (secret_digest(token),))
        if row is None:
            return None
        view, now = _view(row), self._db.clock.now()
        if view.ends_at is not None and view.ends_at <= now:
            return None
        if view.used_at is None or now - view.used_at > _USED_EVERY:
            with self._db.write() as tx:
                tx.execute("UPDATE api_token SET used_at = ? WHERE id = ?", (tx.at, view.id))
        return view

    def revoke(self, name: str, actor: Actor) -> None:
        """The program is refused from now on.

        Raises:
            NotFoundError: No such token.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM api_token WHERE name = ? AND revoked_at IS NULL", (name,))
            if row is None:
                raise NotFoundError(f"no token is named {name!r}; 'scanside token list' shows those that are")
            tx.execute("UPDATE api_token SET revoked_at = ? WHERE id = ?", (tx.at, row["id"]))
            tx.journal(TokenChanged(token=name, change="revoked", role=UserRole(row["role"])), actor=actor)


def _view(row: sqlite3.Row) -> TokenView:
    return TokenView(
        id=row["id"],
        name=row["name"],
        role=UserRole(row["role"]),
        sources=tuple(json.loads(row["sources"])),
        made_at=from_iso(row["made_at"]),
        used_at=from_iso(row["used_at"]) if row["used_at"] else None,
        ends_at=from_iso(row["ends_at"]) if row["ends_at"] else None,
        revoked_at=from_iso(row["revoked_at"]) if row["revoked_at"] else None,
    )
