"""What people and screens do with alerts. Raising and withdrawing follow from analyses, in ``store.settle``."""

from __future__ import annotations

import sqlite3

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, AlertState
from appliance.store.database import Database, Transaction
from appliance.store.facts import AlertAcknowledged, AlertPresented


class Alerts:
    """Acts on alerts; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def presented(self, alert_id: int, screen: str = "") -> None:
        """A screen has painted the alert. Only the first time counts: what matters is when somebody could see it.

        Args:
            alert_id: The alert.
            screen: Which screen, as named in its address; empty for an unnamed one.

        Raises:
            NotFoundError: No such alert.
        """
        with self._db.write() as tx:
            row = _alert(tx, alert_id)
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
            row = _alert(tx, alert_id)
            if row["state"] == AlertState.WITHDRAWN:
                raise ConflictError(
                    f"alert {alert_id} was withdrawn ({row['withdrawn_why']}); look at the study's present alert"
                )
            if row["state"] == AlertState.ACKNOWLEDGED:
                return
            tx.execute(
                "UPDATE alert SET state = ?, acknowledged_at = ?, acknowledged_by = ? WHERE id = ?",
                (str(AlertState.ACKNOWLEDGED), tx.at, actor.name, alert_id),
            )
            tx.journal(AlertAcknowledged(alert=alert_id), study_id=row["study_id"], actor=actor)


def _alert(tx: Transaction, alert_id: int) -> sqlite3.Row:
    row = tx.one("SELECT * FROM alert WHERE id = ?", (alert_id,))
    if row is None:
        raise NotFoundError(f"alert {alert_id} does not exist; 'scanside alert list' shows those that do")
    return row
