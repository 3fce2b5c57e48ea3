"""Who is signed in where: one row a browser. What is kept of a cookie is its digest."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.errors import StoreError
from appliance.records import Actor, ActorKind, UserRole
from appliance.store.accounts import Account, account_of
from appliance.store.database import Database, from_iso, iso
from appliance.store.facts.access import SignedIn, SignedOut
from appliance.store.hashing import secret_digest
from appliance.store.screens import ScreenView, screen_of

#: A browser that asks nothing for so long is signed out; who may change much is signed out soon.
IDLE = {
    UserRole.VIEWER: timedelta(hours=12),
    UserRole.TECHNOLOGIST: timedelta(hours=12),
    UserRole.RADIOLOGIST: timedelta(hours=2),
    UserRole.ADMINISTRATOR: timedelta(minutes=30),
    UserRole.SERVICE: timedelta(minutes=30),
}
#: However busy: a day's work, then the password again.
LONGEST = timedelta(hours=16)
#: How exactly the last request is remembered; every one of them would be a commit.
_SEEN_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A browser: of a person, or a paired screen."""

    digest: str
    account: Account | None
    screen: ScreenView | None
    made_at: datetime
    seen_at: datetime
    proved_at: datetime

    @property
    def role(self) -> UserRole:
        """What it may do."""
        return self.account.role if self.account else UserRole.SCREEN

    def is_over(self, now: datetime) -> bool:
        """Whether its time has run out; a screen's never does."""
        return self.account is not None and (now - self.seen_at > IDLE[self.role] or now - self.made_at > LONGEST)

    @property
    def actor(self) -> Actor:
        """Who acts, for the journal."""
        name = self.account.full_name if self.account else self.screen.name if self.screen else ""
        return Actor(kind=ActorKind.PERSON, name=name, role=str(self.role))


class Sessions:
    """Opens, finds and ends sessions."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def open(self, owner: Account | ScreenView, how: str, proved_at: datetime | None = None) -> str:
        """Sign in. The caller has checked password, identity or code.

        Args:
            owner: Whose session.
            how: In which way.
            proved_at: When the person last proved who they are, where that was not just now.

        Returns:
            The cookie's value; nothing here keeps it.
        """
        cookie = secrets.token_urlsafe(32)
        is_person = isinstance(owner, Account)
        role = owner.role if isinstance(owner, Account) else UserRole.SCREEN
        name = owner.full_name if isinstance(owner, Account) else owner.name
        with self._db.write() as tx:
            tx.execute(
                "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?)",
                (
                    secret_digest(cookie),
                    owner.id if is_person else None,
                    None if is_person else owner.id,
                    tx.at,
                    tx.at,
                    tx.at if proved_at is None else iso(min(proved_at, tx.now)),
                ),
            )
            tx.journal(SignedIn(how=how), actor=Actor(kind=ActorKind.PERSON, name=name, role=str(role)))
            # Those that are over and that no browser has asked for since.
            tx.execute("DELETE FROM session WHERE account_id IS NOT NULL AND made_at < ?", (iso(tx.now - LONGEST),))
        return cookie

    def find(self, cookie: str, *, used: bool = True) -> SessionView | None:
        """The session of a cookie, if it holds; one whose time is over ends here.

        Args:
            cookie: As the browser gives it.
            used: Whether a person did something; a page that refreshes itself keeps nobody signed in.
        """
        digest = secret_digest(cookie)
        row = self._db.one("SELECT * FROM session WHERE digest = ?", (digest,))
        if row is None:
            return None
        view = self._view(row)
        if view is None:
            return None
        now = self._db.clock.now()
        # A disk that cannot be written to keeps nobody from the alerts: the session only grows no younger.
        with contextlib.suppress(StoreError):
            if view.is_over(now):
                self._end(digest, "idle", view.actor)
            elif used and now - view.seen_at > _SEEN_EVERY:
                with self._db.write() as tx:
                    tx.execute("UPDATE session SET seen_at = ? WHERE digest = ?", (tx.at, digest))
        return None if view.is_over(now) else view

    def holds(self, session: SessionView) -> bool:
        """Whether a session that was found earlier still holds. To ask is not to use it: it grows no younger."""
        row = self._db.one("SELECT * FROM session WHERE digest = ?", (session.digest,))
        view = self._view(row) if row is not None else None
        return view is not None and not view.is_over(self._db.clock.now())

    def prove(self, session: SessionView) -> None:
        """The person gave their password again."""
        with self._db.write() as tx:
            tx.execute("UPDATE session SET proved_at = ? WHERE digest = ?", (tx.at, session.digest))

    def end(self, session: SessionView) -> None:
        """Sign out."""
        self._end(session.digest, "asked", session.actor)

    def _end(self, digest: str, why: str, actor: Actor) -> None:
        with self._db.write() as tx:
            if tx.execute("DELETE FROM session WHERE digest = ?", (digest,)).rowcount:
                tx.journal(SignedOut(why=why), actor=actor)

    def _view(self, row: sqlite3.Row) -> SessionView | None:
        account = screen = None
        if row["account_id"] is not None:
            found = self._db.one("SELECT * FROM account WHERE id = ? AND is_active = 1", (row["account_id"],))
            account = account_of(found) if found else None
        else:
            found = self._db.one("SELECT * FROM screen WHERE id = ? AND revoked_at IS NULL", (row["screen_id"],))
            screen = screen_of(found) if found else None
        if account is None and screen is None:
            return None
        return SessionView(
            digest=row["digest"],
            account=account,
            screen=screen,
            made_at=from_iso(row["made_at"]),
            seen_at=from_iso(row["seen_at"]),
            proved_at=from_iso(row["proved_at"]),
        )
