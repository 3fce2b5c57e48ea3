"""What people and screens do with alerts. Raising and withdrawing follow from analyses, in ``store.settle``.

raised > presented > acknowledged > communicated > decided. An alert may skip steps, never go back; withdrawn ends it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, AlertState
from appliance.store.database import Database, Transaction
from appliance.store.escalations import clear_notices
from appliance.store.facts.alerts import AlertAcknowledged, AlertDecided, AlertPresented

#: Nobody has said that they have seen it.
OPEN = frozenset({AlertState.RAISED, AlertState.PRESENTED})


class Alerts:
    """Acts on alerts; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def presented(self, alert_id: int, screen: str = "") -> None:
        """A screen has painted the alert. Only the first time counts: what matters is when somebody could see it.

        Args:
            alert_id: The alert.
            screen: Which paired screen; empty for somebody's browser.

        Raises:
            NotFoundError: No such alert.
        """
        with self._db.write() as tx:
            row = alert_row(tx, alert_id)
            if row["state"] != AlertState.RAISED:
                return
            tx.execute(
                "UPDATE alert SET state = ?, presented_at = ? WHERE id = ?",
                (str(AlertState.PRESENTED), tx.at, alert_id),
            )
            tx.journal(AlertPresented(alert=alert_id, screen=screen), study_id=row["study_id"])

    def acknowledge(self, alert_id: int, actor: Actor) -> None:
        """A named person says that they have seen the alert. It is recorded once: later ones change nothing.

        Args:
            alert_id: The alert.
            actor: The person; the name stands in the journal.

        Raises:
            NotFoundError: No such alert.
            ConflictError: The alert was withdrawn meanwhile, or nobody is named.
        """
        if not actor.name.strip():
            raise ConflictError(f"alert {alert_id}: an acknowledgement needs the name of the person who gives it")
        with self._db.write() as tx:
            acknowledge_row(tx, standing_row(tx, alert_id), actor)


def alert_row(tx: Transaction, alert_id: int) -> sqlite3.Row:
    """The row of an alert.

    Raises:
        NotFoundError: No such alert.
    """
    row = tx.one("SELECT * FROM alert WHERE id = ?", (alert_id,))
    if row is None:
        raise NotFoundError(f"alert {alert_id} does not exist; 'scanside alert list' shows those that do")
    return row


def standing_row(tx: Transaction, alert_id: int) -> sqlite3.Row:
    """The row of an alert that still holds.

    Raises:
        NotFoundError: No such alert.
        ConflictError: It was withdrawn.
    """
    row = alert_row(tx, alert_id)
    if row["state"] == AlertState.WITHDRAWN:
        raise ConflictError(
            f"alert {alert_id} was withdrawn ({row['withdrawn_why']}); look at the study's present alert"
        )
    return row


def acknowledge_row(tx: Transaction, row: sqlite3.Row, actor: Actor) -> None:
    """Acknowledge an alert inside a transaction; one that is acknowledged already keeps its first name."""
    if AlertState(row["state"]) not in OPEN:
        return
    tx.execute(
        "UPDATE alert SET state = ?, acknowledged_at = ?, acknowledged_by = ? WHERE id = ?",
        (str(AlertState.ACKNOWLEDGED), tx.at, actor.name, row["id"]),
    )
    tx.journal(AlertAcknowledged(alert=row["id"]), study_id=row["study_id"], actor=actor)
    clear_notices(tx, row["id"])


def decide_alert(tx: Transaction, study_id: int, decision: str, actor: Actor, judged: Collection[int]) -> None:
    """A radiologist has said what the study's alert is: it calls nobody any more. Part of the act of a review.

    Args:
        tx: The review's transaction.
        study_id: The study; one without a standing alert changes nothing.
        decision: The review's code. A later one replaces it; both stand in the journal.
        actor: The radiologist.
        judged: The analyses that they were shown; an alert of another goes on.
    """
    row = tx.one(
        "SELECT * FROM alert WHERE study_id = ? AND state <> 'withdrawn' ORDER BY id DESC LIMIT 1", (study_id,)
    )
    if row is None or row["analysis_id"] not in judged:
        return
    tx.execute(
        "UPDATE alert SET state = ?, decided_at = ?, decided_by = ?, decision = ? WHERE id = ?",
        (str(AlertState.DECIDED), tx.at, actor.name, decision, row["id"]),
    )
    tx.journal(AlertDecided(alert=row["id"], decision=decision), study_id=study_id, actor=actor)
    clear_notices(tx, row["id"])
