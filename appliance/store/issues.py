"""Coded health facts with since-when. Raising one that is open, or clearing one that is not, changes nothing."""

from __future__ import annotations

import json
from typing import Any

from appliance.records import Issue, Severity
from appliance.store.database import Database, Transaction, from_iso
from appliance.store.facts.box import IssueCleared, IssueRaised


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
        """All that stand, oldest first."""
        return [
            Issue(
                code=row["code"],
                subject=row["subject"],
                severity=Severity(row["severity"]),
                since_at=from_iso(row["since_at"]),
                detail=json.loads(row["detail"]),
                study_id=row["study_id"],
            )
            for row in self._db.all("SELECT * FROM issue WHERE cleared_at IS NULL ORDER BY id")
        ]
