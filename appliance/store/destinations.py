"""Destinations that the configuration no longer names, and that have not got everything or committed to it."""

from __future__ import annotations

from collections.abc import Collection

from appliance.records import Severity
from appliance.store.commitments import Commitments
from appliance.store.database import Database
from appliance.store.deliveries import Deliveries
from appliance.store.issues import clear_issue, raise_issue

GONE = "DESTINATION_GONE"


def gone_committing(db: Database, configured: Collection[str]) -> tuple[str, ...]:
    """Destinations that were asked for storage commitment and that the configuration no longer names, sorted.

    What they were sent and have not committed to stays: a name that was mistyped must not end in a deletion. To let it
    go a person configures the destination again, with ``commitment: false``.

    Args:
        db: The database.
        configured: Names of all destinations of the configuration.
    """
    rows = db.all("SELECT DISTINCT destination FROM commitment ORDER BY 1")
    return tuple(row["destination"] for row in rows if row["destination"] not in configured)


def tell_gone(db: Database, configured: Collection[str]) -> None:
    """Once at the start: raise DESTINATION_GONE for each that something waits for and nobody sends to; clear the rest.

    Args:
        db: The database.
        configured: Names of all destinations of the configuration.
    """
    left = {one.destination: one.owed + one.held + one.parked for one in Deliveries(db).backlog()}
    uncommitted = {one.destination: one.objects for one in Commitments(db).waiting(gone_committing(db, configured))}
    names = {name for name in (*left, *uncommitted) if name not in configured}
    told = {
        row["subject"] for row in db.all("SELECT subject FROM issue WHERE code = ? AND cleared_at IS NULL", (GONE,))
    }
    if names == told:
        return
    with db.write() as tx:
        for name in sorted(told - names):
            clear_issue(tx, GONE, name)
        for name in sorted(names - told):
            words = (
                f"the configuration names no destination {name!r}, but {left.get(name, 0)} objects are owed to it and"
                f" {uncommitted.get(name, 0)} that it got are not committed to; they stay here: name it again under"
                " destinations, with commitment: false if it is never to commit"
            )
            raise_issue(tx, GONE, name, Severity.WARNING, {"why": words})
