"""Who may use the screens. Passwords come as hashes: this module never sees one."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, UserRole
from appliance.store.database import Database, Transaction, from_iso
from appliance.store.facts.access import AccountChanged, SignedOut

#: Why an account changes that nobody here changed.
DIRECTORY = "the hospital's directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person who may sign in."""

    id: int
    name: str
    full_name: str
    role: UserRole
    has_password: bool
    must_change: bool
    #: Issuer and subject of the OIDC identity that signs in as this account; empty for none.
    subject: str
    is_active: bool
    made_at: datetime


def account_of(row: sqlite3.Row) -> Account:
    """An account's row."""
    return Account(
        id=row["id"],
        name=row["name"],
        full_name=row["full_name"],
        role=UserRole(row["role"]),
        has_password=row["password"] is not None,
        must_change=bool(row["must_change"]),
        subject=row["subject"] or "",
        is_active=bool(row["is_active"]),
        made_at=from_iso(row["made_at"]),
    )


class Accounts:
    """Acts on accounts; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def all(self) -> list[Account]:
        """Every account, those that may no longer sign in too."""
        return [account_of(row) for row in self._db.all("SELECT * FROM account ORDER BY name")]

    def has_administrator(self) -> bool:
        """Whether somebody may administer the box; where nobody may, the set-up is open."""
        return has_administrator(self._db)

    def get(self, account_id: int) -> Account:
        """One account.

        Raises:
            NotFoundError: No such account.
        """
        row = self._db.one("SELECT * FROM account WHERE id = ?", (account_id,))
        if row is None:
            raise NotFoundError(f"account {account_id} does not exist")
        return account_of(row)

    def by_name(self, name: str) -> tuple[Account, str] | None:
        """An account with its password hash, empty for none; None where nobody is called so."""
        row = self._db.one("SELECT * FROM account WHERE name = ?", (name,))
        return (account_of(row), row["password"] or "") if row else None

    def by_subject(self, subject: str) -> Account | None:
        """The account of an OIDC identity."""
        row = self._db.one("SELECT * FROM account WHERE subject = ?", (subject,))
        return account_of(row) if row else None

    def add(
        self,
        name: str,
        full_name: str,
        role: UserRole,
        password: str | None,
        actor: Actor,
        *,
        must_change: bool = False,
        subject: str | None = None,
    ) -> int:
        """A new account.

        Args:
            name: What the person types; unique whatever the case.
            full_name: What stands on screens and in the journal.
            role: Any but ``screen``.
            password: Argon2id hash, or None for one that signs in elsewhere.
            actor: Who adds it.
            must_change: Whether the password was given by somebody else and must be changed at the first sign-in.
            subject: Issuer and subject of its OIDC identity.

        Returns:
            Its id.

        Raises:
            ConflictError: The name is taken, or the role is not a person's.
        """
        _of_a_person(role)
        with self._db.write() as tx:
            must_be_free(tx, name, full_name)
            account_id = tx.insert(
                "account",
                name=name,
                full_name=full_name,
                role=str(role),
                password=password,
                must_change=int(must_change),
                subject=subject,
                made_at=tx.at,
            )
            tx.journal(AccountChanged(account=name, change="added", role=role), actor=actor)
        return account_id

    def know(self, subject: str, name: str, full_name: str, role: UserRole) -> Account:
        """The account of an OIDC identity, made at its first sign-in, with the role that the provider gives it now.

        It never becomes an account that is there already: whoever calls themselves administrator at the provider is
        another person than ours.

        Raises:
            ConflictError: It is switched off; or the last administrator would become something else.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM account WHERE subject = ?", (subject,))
            if row is None:
                name, full_name = _free(tx, "name", name), _free(tx, "full_name", full_name)
                values = {"name": name, "full_name": full_name, "role": str(role), "subject": subject, "made_at": tx.at}
                tx.insert("account", **values)
                tx.journal(AccountChanged(account=name, change="added", role=role, reason=DIRECTORY))
            elif not row["is_active"]:
                raise ConflictError(f"the account {row['name']!r} is switched off")
            elif row["role"] != role:
                tx.execute("UPDATE account SET role = ? WHERE id = ?", (str(role), row["id"]))
                _still_administered(tx, row)
                _sign_out(tx, row, "revoked")
                tx.journal(AccountChanged(account=row["name"], change="role", role=role, reason=DIRECTORY))
            found = tx.one("SELECT * FROM account WHERE subject = ?", (subject,))
            assert found is not None  # noqa: S101 - found or made above
            return account_of(found)

    def set_password(self, account_id: int, password: str, actor: Actor, *, must_change: bool) -> None:
        """Another password; every other browser of the account is signed out."""
        with self._db.write() as tx:
            row = _row(tx, account_id)
            tx.execute(
                "UPDATE account SET password = ?, must_change = ? WHERE id = ?",
                (password, int(must_change), account_id),
            )
            _sign_out(tx, row, "revoked")
            tx.journal(AccountChanged(account=row["name"], change="password", role=UserRole(row["role"])), actor=actor)

    def rehash(self, account_id: int, old: str, new: str) -> None:
        """Keep the same password in another way; nothing if it was changed meanwhile. No fact: nobody did anything."""
        with self._db.write() as tx:
            tx.execute("UPDATE account SET password = ? WHERE id = ? AND password = ?", (new, account_id, old))

    def set_role(self, account_id: int, role: UserRole, actor: Actor, *, reason: str = "", was: str = "") -> None:
        """Another role; the account is signed out everywhere, so that nothing of the old one is left.

        Args:
            account_id: Whose.
            role: The new one.
            actor: Who changes it.
            reason: What they said.
            was: The role that they saw; empty: whatever it is.

        Raises:
            ConflictError: The last active administrator would go, or somebody else has changed the role since.
        """
        _of_a_person(role)
        with self._db.write() as tx:
            row = _row(tx, account_id)
            if was not in {"", row["role"]}:
                raise ConflictError(f"somebody else has made {row['name']} {row['role']} since you looked; look again")
            if row["role"] == role:
                return
            tx.execute("UPDATE account SET role = ? WHERE id = ?", (str(role), account_id))
            _still_administered(tx, row)
            _sign_out(tx, row, "revoked")
            tx.journal(AccountChanged(account=row["name"], change="role", role=role, reason=reason), actor=actor)

    def set_active(self, account_id: int, actor: Actor, *, active: bool, reason: str = "") -> None:
        """Let an account sign in again, or no more. Accounts are never deleted: the journal names them.

        Raises:
            ConflictError: The last active administrator would go.
        """
        with self._db.write() as tx:
            row = _row(tx, account_id)
            if bool(row["is_active"]) == active:
                return
            tx.execute("UPDATE account SET is_active = ? WHERE id = ?", (int(active), account_id))
            _still_administered(tx, row)
            if not active:
                _sign_out(tx, row, "disabled")
            change = "enabled" if active else "disabled"
            tx.journal(
                AccountChanged(account=row["name"], change=change, role=UserRole(row["role"]), reason=reason),
                actor=actor,
            )


def has_administrator(db: Database | Transaction) -> bool:
    """Whether an administrator is there who may sign in."""
    return db.one("SELECT 1 FROM account WHERE role = 'administrator' AND is_active = 1 LIMIT 1") is not None


def must_be_free(tx: Transaction, name: str, full_name: str) -> None:
    """Nobody may be called so already.

    Raises:
        ConflictError: Somebody is.
    """
    if tx.one("SELECT 1 FROM account WHERE name = ?", (name,)):
        raise ConflictError(f"an account is named {name!r} already; choose another name")
    if tx.one("SELECT 1 FROM account WHERE full_name = ?", (full_name,)):
        # The journal and every page tell people apart by it.
        raise ConflictError(f"somebody is called {full_name!r} already; add what tells the two apart")


def _free(tx: Transaction, column: str, wanted: str) -> str:
    """``wanted``, or with a number behind it where somebody else is called so."""
    for number in range(1, 1000):
        text = wanted if number == 1 else f"{wanted} {number}" if column == "full_name" else f"{wanted}.{number}"
        if not tx.one(f"SELECT 1 FROM account WHERE {column} = ?", (text,)):  # noqa: S608 - one of two names above
            return text
    raise ConflictError(f"too many are called {wanted!r}")


def _of_a_person(role: UserRole) -> None:
    if role is UserRole.SCREEN:
        raise ConflictError("a person cannot have the role screen; pair a screen instead")


def _row(tx: Transaction, account_id: int) -> sqlite3.Row:
    row = tx.one("SELECT * FROM account WHERE id = ?", (account_id,))
    if row is None:
        raise NotFoundError(f"account {account_id} does not exist; 'scanside user list' shows those that do")
    return row


def _still_administered(tx: Transaction, before: sqlite3.Row) -> None:
    """Refuse where the act took the last administrator away; where there was none, it takes nothing."""
    if before["role"] == UserRole.ADMINISTRATOR and before["is_active"] and not has_administrator(tx):
        raise ConflictError("the last administrator cannot go; make somebody else administrator first")


def _sign_out(tx: Transaction, row: sqlite3.Row, why: str) -> None:
    if tx.execute("DELETE FROM session WHERE account_id = ?", (row["id"],)).rowcount:
        tx.journal(SignedOut(why=why), subject=row["name"])
