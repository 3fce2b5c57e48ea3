"""Destinations that the configuration no longer names, or no longer asks: what they have not got or committed to."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from appliance.errors import ConflictError, NotFoundError
from appliance.records import SYSTEM, Actor, Severity
from appliance.store.commitments import Commitments
from appliance.store.database import Database, Transaction
from appliance.store.deliveries import Deliveries
from appliance.store.facts.deliveries import DestinationForgotten
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.notes import object_of

GONE = "DESTINATION_GONE"
#: Issues of a destination that is asked for storage commitment.
_OF_COMMITMENT = ("COMMITMENT_REFUSED", "COMMITMENT_UNANSWERED", "COMMITMENT_FAILED")
#: Every issue of a destination.
_OF_DESTINATION = (GONE, "DESTINATION_UNREACHABLE", "DELIVERY_PARKED", *_OF_COMMITMENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a destination that the configuration no longer names has not got, or not committed to."""

    owed: int = 0
    held: int = 0
    parked: int = 0
    uncommitted: int = 0


def gone_committing(db: Database, configured: Collection[str]) -> tuple[str, ...]:
    """Destinations that were asked for storage commitment and that the configuration no longer names, sorted.

    What they were sent and have not committed to stays: a name that was mistyped must not end in a deletion. To let it
    go a person forgets the destination, or configures it again with ``commitment: false``.

    Args:
        db: The database.
        configured: Names of all destinations of the configuration.
    """
    rows = db.all("SELECT DISTINCT destination FROM commitment ORDER BY 1")
    return tuple(row["destination"] for row in rows if row["destination"] not in configured)


def left_of_gone(db: Database, configured: Collection[str]) -> dict[str, Left]:
    """By name, each destination that something waits for and nobody sends to.

    Args:
        db: The database.
        configured: Names of all destinations of the configuration.
    """
    backlog = {one.destination: one for one in Deliveries(db).backlog()}
    uncommitted = {one.destination: one.objects for one in Commitments(db).waiting(gone_committing(db, configured))}
    names = sorted(name for name in {*backlog, *uncommitted} if name not in configured)
    found = {}
    for name in names:
        one = backlog.get(name)
        found[name] = Left(
            owed=one.owed if one else 0,
            held=one.held if one else 0,
            parked=one.parked if one else 0,
            uncommitted=uncommitted.get(name, 0),
        )
    return found


def tell_gone(db: Database, configured: Collection[str]) -> None:
    """Raise DESTINATION_GONE for each that something waits for and nobody sends to, and clear the rest.

    At the start, and now and then: a correction of what a gone one once got is owed to it.

    Args:
        db: The database.
        configured: Names of all destinations of the configuration.
    """
    left = left_of_gone(db, configured)
    told = _open_subjects(db, GONE)
    if set(left) == told:
        return
    with db.write() as tx:
        for name in sorted(told - set(left)):
            clear_issue(tx, GONE, name)
        for name in sorted(set(left) - told):
            one = left[name]
            words = (
                f"the configuration names no destination {name!r}, but {one.owed + one.held + one.parked} objects are"
                f" owed to it and {one.uncommitted} that it got are not committed to; they stay here: name it again"
                " under destinations, with commitment: false if it is never to commit, or give it up with"
                f" 'scanside dest forget {name} --reason TEXT'"
            )
            raise_issue(tx, GONE, name, Severity.WARNING, {"why": words})


def clear_unasked(db: Database, committing: Collection[str]) -> None:
    """Once at the start: clear the issues of commitment of every destination that is asked for none.

    Args:
        db: The database.
        committing: Names of the destinations that are.
    """
    stale = [(code, name) for code in _OF_COMMITMENT for name in sorted(_open_subjects(db, code) - set(committing))]
    if stale:
        with db.write() as tx:
            for code, name in stale:
                clear_issue(tx, code, name)


def forget(db: Database, name: str, configured: Collection[str], reason: str, actor: Actor = SYSTEM) -> Left:
    """A person gives up a destination that is no longer configured: it is owed nothing more and need not commit.

    Nothing is deleted. Its images may leave the box as those of any other, so long after this as after a delivery.

    Args:
        db: The database.
        name: The destination.
        configured: Names of all destinations of the configuration.
        reason: Why, for the journal.
        actor: Who.

    Returns:
        What ended.

    Raises:
        ConflictError: It is configured, or no reason is given.
        NotFoundError: Nothing waits for it.
    """
    if not reason.strip():
        raise ConflictError(f"giving up {name!r} needs a reason, for the journal")
    if name in configured:
        raise ConflictError(
            f"{name!r} is configured and is still sent to; take it out of destinations and restart the box first, or"
            " set commitment: false where only its commitment is to be waited for no more"
        )
    was_asked = name in gone_committing(db, configured)
    with db.write() as tx:
        rows = tx.all(
            "SELECT state, analysis_id, kind, path FROM delivery WHERE destination = ? AND state <> 'sent'"
            " AND state IN ('held', 'owed', 'parked')",
            (name,),
        )
        tx.execute(
            "UPDATE delivery SET state = 'forgotten', forgotten_at = ?, rejected_by = NULL, commit_reason = NULL"
            " WHERE destination = ? AND state <> 'sent' AND state IN ('held', 'owed', 'parked')",
            (tx.at, name),
        )
        uncommitted = 0
        if was_asked:
            uncommitted = tx.execute(
                "UPDATE delivery SET forgotten_at = ?, rejected_by = NULL, commit_reason = NULL WHERE destination = ?"
                " AND state = 'sent' AND committed_at IS NULL AND removed_at IS NULL AND forgotten_at IS NULL",
                (tx.at, name),
            ).rowcount
        if not rows and not uncommitted:
            raise NotFoundError(f"nothing is owed to a destination {name!r}, nor waits for its commitment")
        states = Counter(row["state"] for row in rows)
        left = Left(owed=states["owed"], held=states["held"], parked=states["parked"], uncommitted=uncommitted)
        tx.journal(
            DestinationForgotten(destination=name, reason=reason, **dataclasses.asdict(left)), subject=name, actor=actor
        )
        for code in _OF_DESTINATION:
            clear_issue(tx, code, name)
        for row in rows:
            if row["state"] == "parked" and row["path"] is None and row["analysis_id"] is not None:
                _clear_not_built(tx, row["analysis_id"], row["kind"])
    return left


def _clear_not_built(tx: Transaction, analysis_id: int, kind: str) -> None:
    """An object that could not be built and that nobody else is owed is missed by nobody."""
    others = "SELECT 1 FROM delivery WHERE analysis_id = ? AND kind = ? AND state = 'parked' AND path IS NULL"
    if tx.one(others, (analysis_id, kind)) is None:
        clear_issue(tx, "RESULT_NOT_BUILT", object_of(analysis_id, kind))


def _open_subjects(db: Database, code: str) -> set[str]:
    rows = db.all("SELECT subject FROM issue WHERE code = ? AND cleared_at IS NULL", (code,))
    return {row["subject"] for row in rows}
