"""Coded health facts with since-when. Raising one that is open, or clearing one that is not, changes nothing.

A person can acknowledge one (they have seen it) and shelve it (they want to hear of it again later). Neither ends it,
and neither keeps it from a list or from the fleet: only what raised an issue says that it is over.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta
from typing import Any

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, Issue, Severity
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts.box import IssueAcknowledged, IssueCleared, IssueRaised, IssueShelved

#: Nothing stays on the shelf longer: whoever put it there may be gone.
LONGEST_ON_SHELF = timedelta(days=30)
_OPEN = "code = ? AND subject = ? AND cleared_at IS NULL"


def raise_issue(
    tx: Transaction,
    code: str,
    subject: str,
    severity: Severity,
    detail: dict[str, Any] | None = None,
    study_id: int | None = None,
) -> bool:
    """Open an issue inside a transaction.

    Args:
        tx: The transaction of the act that meets the problem.
        code: What it is, as DISK_RESERVE.
        subject: What it is about: a destination, a source, a local row as "version 12". Never patient data.
        severity: How loudly it is shown.
        detail: Codes and numbers for the texts.
        study_id: The study that it concerns.

    Returns:
        Whether it is new.
    """
    if tx.one("SELECT 1 FROM issue WHERE code = ? AND subject = ? AND cleared_at IS NULL", (code, subject)):
        return False
    tx.insert(
        "issue",
        code=code,
        subject=subject,
        severity=str(severity),
        study_id=study_id,
        since_at=tx.at,
        detail=json.dumps(detail or {}, sort_keys=True),
    )
    tx.journal(IssueRaised(code=code, severity=str(severity), detail=detail or {}), study_id=study_id, subject=subject)
    return True


def clear_issue(tx: Transaction, code: str, subject: str) -> bool:
    """Close an issue inside a transaction. Returns whether it was open."""
    row = tx.one(
        "SELECT id, study_id FROM issue WHERE code = ? AND subject = ? AND cleared_at IS NULL", (code, subject)
    )
    if row is None:
        return False
    tx.execute("UPDATE issue SET cleared_at = ? WHERE id = ?", (tx.at, row["id"]))
    tx.journal(IssueCleared(code=code), study_id=row["study_id"], subject=subject)
    return True


class Issues:
    """Issues as acts of their own."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def raise_(
        self,
        code: str,
        subject: str,
        severity: Severity,
        detail: dict[str, Any] | None = None,
        study_id: int | None = None,
    ) -> None:
        """Open an issue; see ``raise_issue``. Reads before it writes: checks call this every few seconds."""
        if not self.is_open(code, subject):
            with self._db.write() as tx:
                raise_issue(tx, code, subject, severity, detail, study_id)

    def clear(self, code: str, subject: str) -> None:
        """Close an issue if it is open."""
        if self.is_open(code, subject):
            with self._db.write() as tx:
                clear_issue(tx, code, subject)

    def is_open(self, code: str, subject: str) -> bool:
        """Whether this very issue stands."""
        sql = "SELECT 1 FROM issue WHERE code = ? AND subject = ? AND cleared_at IS NULL"
        return self._db.one(sql, (code, subject)) is not None

    def open(self) -> list[Issue]:
        """All that stand, oldest first; those on the shelf too."""
        return [_issue(row) for row in self._db.all("SELECT * FROM issue WHERE cleared_at IS NULL ORDER BY id")]

    def acknowledge(self, code: str, subject: str, actor: Actor) -> None:
        """A named person has seen it. Recorded once: later ones change nothing.

        Raises:
            NotFoundError: It does not stand.
            ConflictError: Nobody is named.
        """
        with self._db.write() as tx:
            row = _standing(tx, code, subject, actor)
            if row["acknowledged_at"] is None:
                _acknowledge(tx, row, actor)

    def shelve(self, code: str, subject: str, until: datetime, actor: Actor) -> None:
        """A named person knows of it and wants to hear of it again at ``until``; that acknowledges it too.

        Raises:
            NotFoundError: It does not stand.
            ConflictError: Nobody is named, or the time is over already or too far away.
        """
        with self._db.write() as tx:
            row = _standing(tx, code, subject, actor)
            if not tx.now < until <= tx.now + LONGEST_ON_SHELF:
                raise ConflictError(
                    f"{code}: an issue is shelved for {LONGEST_ON_SHELF.days} days at most, and not into the past"
                )
            if row["acknowledged_at"] is None:
                _acknowledge(tx, row, actor)
            tx.execute("UPDATE issue SET shelved_until = ? WHERE id = ?", (iso(until), row["id"]))
            fact = IssueShelved(code=code, until=iso(until))
            tx.journal(fact, study_id=row["study_id"], subject=subject, actor=actor)

    def tell_anew(self) -> int:
        """What still stands after its time on the shelf is as new: nobody has seen it. Returns how many."""
        now = self._db.clock.now()
        due = "cleared_at IS NULL AND shelved_until IS NOT NULL AND (shelved_until <= ? OR shelved_until > ?)"
        # Beyond the longest time: the clock has been set back since.
        times = (iso(now), iso(now + LONGEST_ON_SHELF))
        if not self._db.all(f"SELECT 1 FROM issue WHERE {due} LIMIT 1", times):  # noqa: S608 - our own text
            return 0
        with self._db.write() as tx:
            rows = tx.all(f"SELECT * FROM issue WHERE {due} ORDER BY id", times)  # noqa: S608 - our own text
            for row in rows:
                tx.execute(
                    "UPDATE issue SET shelved_until = NULL, acknowledged_at = NULL, acknowledged_by = NULL"
                    " WHERE id = ?",
                    (row["id"],),
                )
                fact = IssueRaised(code=row["code"], severity=row["severity"], detail=json.loads(row["detail"]))
                tx.journal(fact, study_id=row["study_id"], subject=row["subject"])
            return len(rows)


def _standing(tx: Transaction, code: str, subject: str, actor: Actor) -> sqlite3.Row:
    if not actor.name.strip():
        raise ConflictError(f"{code}: this needs the name of the person who does it")
    row = tx.one(f"SELECT * FROM issue WHERE {_OPEN}", (code, subject))  # noqa: S608 - our own text
    if row is None:
        about = f" of {subject}" if subject else ""
        raise NotFoundError(f"no issue {code}{about} stands; 'scanside issue list' shows those that do")
    return row


def _acknowledge(tx: Transaction, row: sqlite3.Row, actor: Actor) -> None:
    tx.execute("UPDATE issue SET acknowledged_at = ?, acknowledged_by = ? WHERE id = ?", (tx.at, actor.name, row["id"]))
    fact = IssueAcknowledged(code=row["code"])
    tx.journal(fact, study_id=row["study_id"], subject=row["subject"], actor=actor)


def _issue(row: sqlite3.Row) -> Issue:
    return Issue(
        code=row["code"],
        subject=row["subject"],
        severity=Severity(row["severity"]),
        since_at=from_iso(row["since_at"]),
        detail=json.loads(row["detail"]),
        study_id=row["study_id"],
        acknowledged_at=from_iso(row["acknowledged_at"]) if row["acknowledged_at"] else None,
        acknowledged_by=row["acknowledged_by"] or "",
        shelved_until=from_iso(row["shelved_until"]) if row["shelved_until"] else None,
    )
