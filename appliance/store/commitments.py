"""What destinations have been asked to keep for good, and what they answered (storage commitment, PS3.4 Annex J).

A transaction is on disk before it is sent. An answer counts however late it comes and by whichever transaction, but for
one that is older than a loss which the destination has told since; asking again, with another one, changes nothing of
what is committed already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from appliance.records import Severity
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts.deliveries import CommitmentAnswered, CommitmentAsked, CommitmentFailed, CommitmentNotAsked
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.viewrows import marks

#: A report that has not come after this long is given up, and another transaction asks for the same.
REPORT_WITHIN = timedelta(hours=1)
#: Failed or unanswered so often, it is a person's turn; the box goes on asking.
TRIES_TO_ISSUE = 3
#: Failure Reason (0008,1197): no such object instance.
NO_SUCH_OBJECT = 0x0112
_FIRST, _LONGEST = timedelta(minutes=1), REPORT_WITHIN
#: Nothing is planned further ahead: a row due later than this was planned before the clock was set back.
_TOO_FAR = 2 * REPORT_WITHIN
_UNCOMMITTED = (
    "SELECT id, sop_class_uid, sop_instance_uid, sent_at FROM delivery WHERE destination = :destination"
    " AND state = 'sent' AND committed_at IS NULL AND removed_at IS NULL AND forgotten_at IS NULL"
)
_REASONS = {
    0x0110: "it could not process the request",
    NO_SUCH_OBJECT: "it has no such object",
    0x0119: "it has the object under another SOP Class",
    0x0122: "it does not commit to objects of this SOP Class",
    0x0131: "it met the same Transaction UID twice",
    0x0213: "it lacks resources",
}


def reason_in_words(reason: int) -> str:
    """A Failure Reason for a person (PS3.3 §C.14.1.1)."""
    return f"{_REASONS.get(reason, 'it names no reason that the standard knows')} (0x{reason:04X})"


def again_after(tries: int) -> timedelta:
    """How long an object whose commitment failed waits before it is asked for again: doubling from 1 min to 1 h."""
    doublings = min(max(tries, 1) - 1, 10)
    return min(_LONGEST, _FIRST * (1 << doublings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncommitted:
    """An object that a destination has stored and has not committed to."""

    delivery_id: int
    sop_class_uid: str
    sop_instance_uid: str
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What one destination has stored and not committed to."""

    destination: str
    objects: int
    #: When the oldest of them was sent.
    oldest_at: datetime
    #: What it last said against one of them; empty while nothing failed.
    last_error: str


class Commitments:
    """Acts on storage commitment by destinations; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def due(self, destination: str, now: datetime, limit: int) -> list[Uncommitted]:
        """What is to be asked for now, oldest first."""
        rows = self._db.all(
            # Two queries, because of one with OR the index would be read whole, each second.
            f"{_UNCOMMITTED} AND commit_next_at <= :now UNION ALL {_UNCOMMITTED} AND commit_next_at > :far"
            " ORDER BY id LIMIT :limit",
            {"destination": destination, "now": iso(now), "far": iso(now + _TOO_FAR), "limit": limit},
        )
        return [
            Uncommitted(
                delivery_id=row["id"],
                sop_class_uid=row["sop_class_uid"],
                sop_instance_uid=row["sop_instance_uid"],
                sent_at=from_iso(row["sent_at"]),
            )
            for row in rows
        ]

    def begin(self, destination: str, transaction_uid: str, delivery_ids: Collection[int]) -> int:
        """Note a transaction that is about to be asked; returns the id of its row."""
        with self._db.write() as tx:
            commitment_id = tx.insert(
                "commitment",
                destination=destination,
                transaction_uid=transaction_uid,
                state="asking",
                asked_at=tx.at,
            )
            again_at = iso(tx.now + REPORT_WITHIN)
            for delivery_id in delivery_ids:
                tx.execute("INSERT INTO commitment_delivery VALUES (?, ?)", (commitment_id, delivery_id))
                tx.execute("UPDATE delivery SET commit_next_at = ? WHERE id = ?", (again_at, delivery_id))
            return commitment_id

    def asked(self, commitment_id: int) -> None:
        """The destination has taken the request; its report is awaited."""
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM commitment WHERE id = ?", (commitment_id,))
            if row is None:
                return
            # Its report may have come before its answer to the request.
            tx.execute("UPDATE commitment SET state = 'asked' WHERE id = ? AND state = 'asking'", (commitment_id,))
            named = "id IN (SELECT delivery_id FROM commitment_delivery WHERE commitment_id = ?)"
            count = tx.execute(
                f"UPDATE delivery SET commit_tries = commit_tries + 1 WHERE {named}",  # noqa: S608 - a literal
                (commitment_id,),
            ).rowcount
            name = row["destination"]
            tx.journal(CommitmentAsked(commitment=commitment_id, destination=name, objects=count), subject=name)
            clear_issue(tx, "COMMITMENT_REFUSED", name)
            silent = tx.one(
                f"SELECT max(commit_tries) AS tries FROM delivery WHERE {named} AND committed_at IS NULL"  # noqa: S608
                " AND commit_reason IS NULL",
                (commitment_id,),
            )
            if silent is not None and (silent["tries"] or 0) > TRIES_TO_ISSUE:
                words = (
                    f"{name} takes the request for storage commitment and never reports; enter this box's AE title,"
                    " address and port there, so that it can call back"
                )
                raise_issue(tx, "COMMITMENT_UNANSWERED", name, Severity.WARNING, {"why": words})

    def not_asked(self, commitment_id: int, error: str, *, times: int, raise_issue_too: bool) -> None:
        """The destination did not take the request; what it names is due again at once, in another transaction.

        Args:
            commitment_id: The transaction.
            error: Why, and how to mend it.
            times: How often in a row, this one included.
            raise_issue_too: It lasts long enough to be shown as the issue COMMITMENT_REFUSED.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM commitment WHERE id = ?", (commitment_id,))
            if row is None:
                return
            _give_back(tx, commitment_id)
            name = row["destination"]
            if times == 1 or times % 10 == 0:
                tx.journal(
                    CommitmentNotAsked(commitment=commitment_id, destination=name, times=times, error=error),
                    subject=name,
                )
            if raise_issue_too:
                raise_issue(tx, "COMMITMENT_REFUSED", name, Severity.WARNING, {"why": error})

    def recover(self, destination: str) -> int:
        """After a start: nobody knows whether these requests arrived, so the same is asked again. Returns how many."""
        rows = self._db.all("SELECT id FROM commitment WHERE destination = ? AND state = 'asking'", (destination,))
        if rows:
            with self._db.write() as tx:
                for row in rows:
                    _give_back(tx, row["id"])
        return len(rows)

    def is_awaited(self, commitment_id: int) -> bool:
        """Whether no report of this transaction has come yet."""
        return self._db.one("SELECT 1 FROM commitment WHERE id = ? AND state = 'asked'", (commitment_id,)) is not None

    def destination_of(self, transaction_uid: str) -> str | None:
        """Whom a transaction was asked of; None where we never asked."""
        row = self._db.one("SELECT destination FROM commitment WHERE transaction_uid = ?", (transaction_uid,))
        return str(row["destination"]) if row else None

    def answered(self, transaction_uid: str, committed: Collection[str], failed: Mapping[str, int]) -> None:
        """A report has come. What it does not name stays asked for; what nobody asked for is passed over.

        Args:
            transaction_uid: Of ``begin``; an unknown one changes nothing.
            committed: SOP Instance UIDs that are kept for good.
            failed: SOP Instance UID: Failure Reason.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM commitment WHERE transaction_uid = ?", (transaction_uid,))
            if row is None:
                return
            name = row["destination"]
            tx.execute(
                "UPDATE commitment SET state = 'answered', answered_at = coalesce(answered_at, ?) WHERE id = ?",
                (tx.at, row["id"]),
            )
            kept = refused = 0
            for delivery in tx.all(
                "SELECT d.* FROM commitment_delivery c JOIN delivery d ON d.id = c.delivery_id"
                " WHERE c.commitment_id = ? AND d.committed_at IS NULL AND d.forgotten_at IS NULL ORDER BY d.id",
                (row["id"],),
            ):
                uid = delivery["sop_instance_uid"]
                if uid in failed:
                    refused += 1
                    _not_committed(tx, delivery, failed[uid])
                    if failed[uid] == NO_SUCH_OBJECT:
                        # What was said of an earlier request, and comes only now, is older than this loss.
                        tx.execute(
                            "DELETE FROM commitment_delivery WHERE delivery_id = ? AND commitment_id < ?",
                            (delivery["id"], row["id"]),
                        )
                elif uid in committed:
                    kept += 1
                    # One that is owed again, because an earlier report missed it, need not be sent.
                    tx.execute(
                        "UPDATE delivery SET committed_at = ?, state = 'sent', error = '' WHERE id = ?",
                        (tx.at, delivery["id"]),
                    )
            tx.journal(
                CommitmentAnswered(commitment=row["id"], destination=name, committed=kept, failed=refused),
                subject=name,
            )
            clear_issue(tx, "COMMITMENT_UNANSWERED", name)
            _settle_issue(tx, name)

    def waiting(self, destinations: Collection[str]) -> list[Waiting]:
        """Of each of these that has stored something and not committed to it, by name."""
        rows = self._db.all(
            "SELECT destination, count(*) AS n, min(sent_at) AS oldest, max(commit_reason) AS reason FROM delivery"  # noqa: S608 - marks only
            f" WHERE destination IN ({marks(destinations)}) AND state = 'sent' AND committed_at IS NULL"
            " AND removed_at IS NULL AND forgotten_at IS NULL GROUP BY destination ORDER BY destination",
            tuple(destinations),
        )
        return [
            Waiting(
                destination=row["destination"],
                objects=row["n"],
                oldest_at=from_iso(row["oldest"]),
                last_error="" if row["reason"] is None else reason_in_words(row["reason"]),
            )
            for row in rows
        ]


def _give_back(tx: Transaction, commitment_id: int) -> None:
    """Close a request that may never have arrived: what it names is due at once. A report on it still counts."""
    tx.execute("UPDATE commitment SET state = 'refused' WHERE id = ? AND state <> 'answered'", (commitment_id,))
    tx.execute(
        "UPDATE delivery SET commit_next_at = '' WHERE committed_at IS NULL"
        " AND id IN (SELECT delivery_id FROM commitment_delivery WHERE commitment_id = ?)",
        (commitment_id,),
    )


def _not_committed(tx: Transaction, row: Any, reason: int) -> None:
    """One object that a report refuses: sent again where it is lost, asked for again later in any case."""
    is_lost = reason == NO_SUCH_OBJECT and row["state"] == "sent" and row["removed_at"] is None
    again_at = iso(tx.now + again_after(row["commit_tries"]))
    tx.execute("UPDATE delivery SET commit_next_at = ?, commit_reason = ? WHERE id = ?", (again_at, reason, row["id"]))
    if is_lost:
        # One attempt: the destination may have it after all, so a corrected result must name it as its predecessor.
        tx.execute(
            "UPDATE delivery SET state = 'owed', attempt = 1, next_at = ?, error = ? WHERE id = ?",
            (tx.at, f"no storage commitment: {reason_in_words(reason)}; it is sent again", row["id"]),
        )
    if is_lost or row["commit_reason"] != reason or row["commit_tries"] % 10 == 0:
        tx.journal(
            CommitmentFailed(
                delivery=row["id"],
                destination=row["destination"],
                object=row["kind"],
                reason=reason,
                owed_again=is_lost,
            ),
            study_id=row["study_id"],
        )
    if row["commit_tries"] >= TRIES_TO_ISSUE:
        words = (
            f"{row['destination']} was asked {row['commit_tries']} times and does not commit:"
            f" {reason_in_words(reason)}; look at the PACS"
        )
        raise_issue(
            tx, "COMMITMENT_FAILED", row["destination"], Severity.WARNING, {"delivery": row["id"], "why": words}
        )


def _settle_issue(tx: Transaction, destination: str) -> None:
    """Clear COMMITMENT_FAILED once nothing stands that was refused so often."""
    subject = ("COMMITMENT_FAILED", destination)
    if tx.one("SELECT 1 FROM issue WHERE code = ? AND subject = ? AND cleared_at IS NULL", subject) is None:
        return
    left = tx.one(
        "SELECT 1 FROM delivery WHERE destination = ? AND state <> 'held' AND committed_at IS NULL"
        " AND removed_at IS NULL AND commit_reason IS NOT NULL AND commit_tries >= ? LIMIT 1",
        (destination, TRIES_TO_ISSUE),
    )
    if left is None:
        clear_issue(tx, *subject)
