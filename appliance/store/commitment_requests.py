"""What scanners have asked this box to keep for good (storage commitment, PS3.4 Annex J), until they have been told.

The box vouches for nothing itself: an image is committed when every destination that its source's images go to for good
has committed to it. That may take days; a request waits as long, and then gets one report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.records import Severity
from appliance.store.commitments import NO_SUCH_OBJECT
from appliance.store.database import Database, Transaction, from_iso
from appliance.store.facts.deliveries import CommitmentNotReported, CommitmentReported, CommitmentRequested
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.viewrows import marks

#: Failure Reasons (PS3.3 §C.14.1.1) that scanners are told, besides that of an object which never came.
PROCESSING_FAILURE, CLASS_INSTANCE_CONFLICT = 0x0110, 0x0119
_AT_ONCE = 500

#: Source: the destinations that must commit to its images before we say so.
Committing = Callable[[str], Collection[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one scanner is to be told: UIDs as (SOP Class, SOP Instance)."""

    request_id: int
    transaction_uid: str
    #: AE titles of the scanner, and of us as it called us.
    calling_ae: str
    called_ae: str
    asked_at: datetime
    attempt: int
    committed: tuple[tuple[str, str], ...]
    #: With the Failure Reason.
    failed: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequests:
    """What one source waits for."""

    source: str
    requests: int
    #: Images of them that are not decided.
    undecided: int
    oldest_at: datetime
    last_error: str


class CommitmentRequests:
    """Acts on the requests of scanners; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def add(
        self,
        *,
        source: str,
        transaction_uid: str,
        calling_ae: str,
        called_ae: str,
        association_id: int,
        wanted: Mapping[str, str],
    ) -> int:
        """Keep a request; when this returns it may be answered with success. Asked anew it is reported anew.

        Args:
            source: Who asks.
            transaction_uid: Theirs.
            calling_ae: Their AE title.
            called_ae: Ours, as they called it.
            association_id: On which it came.
            wanted: SOP Instance UID: SOP Class UID.

        Returns:
            The id of the request.
        """
        with self._db.write() as tx:
            old = tx.one(
                "SELECT id FROM commitment_request WHERE source = ? AND transaction_uid = ?", (source, transaction_uid)
            )
            if old is not None:
                request_id = int(old["id"])
                tx.execute("DELETE FROM commitment_item WHERE request_id = ?", (request_id,))
                tx.execute(
                    "UPDATE commitment_request SET state = 'waiting', reported_at = NULL, attempt = 0, error = '',"
                    " calling_ae = ?, called_ae = ?, asked_at = ? WHERE id = ?",
                    (calling_ae, called_ae, tx.at, request_id),
                )
            else:
                request_id = tx.insert(
                    "commitment_request",
                    source=source,
                    transaction_uid=transaction_uid,
                    calling_ae=calling_ae,
                    called_ae=called_ae,
                    state="waiting",
                    asked_at=tx.at,
                )
            for uid, sop_class in wanted.items():
                tx.execute(
                    "INSERT INTO commitment_item (request_id, sop_instance_uid, sop_class_uid) VALUES (?, ?, ?)",
                    (request_id, uid, sop_class),
                )
            tx.journal(
                CommitmentRequested(request=request_id, source=source, objects=len(wanted), association=association_id),
                subject=source,
            )
            return request_id

    def decide(self, source: str, committing: Committing) -> int:
        """Decide what can be decided of a source's requests. Returns how many images were."""
        rows = self._db.all(
            "SELECT i.request_id, i.sop_instance_uid, i.sop_class_uid FROM commitment_request r"
            " JOIN commitment_item i ON i.request_id = r.id"
            " WHERE r.source = ? AND r.state = 'waiting' AND i.reason IS NULL",
            (source,),
        )
        count = 0
        for at in range(0, len(rows), _AT_ONCE):
            some = rows[at : at + _AT_ONCE]
            facts = _Facts(self._db, {row["sop_instance_uid"] for row in some}, source, committing)
            decided = [(row, facts.reason(row["sop_instance_uid"], row["sop_class_uid"])) for row in some]
            decided = [(row, reason) for row, reason in decided if reason is not None]
            if decided:
                with self._db.write() as tx:
                    for row, reason in decided:
                        tx.execute(
                            "UPDATE commitment_item SET reason = ? WHERE request_id = ? AND sop_instance_uid = ?",
                            (reason, row["request_id"], row["sop_instance_uid"]),
                        )
            count += len(decided)
        return count

    def next_report(self, source: str) -> Report | None:
        """The oldest request of a source of which every image is decided."""
        row = self._db.one(
            "SELECT * FROM commitment_request r WHERE source = ? AND state = 'waiting' AND NOT EXISTS"
            " (SELECT 1 FROM commitment_item i WHERE i.request_id = r.id AND i.reason IS NULL)"
            # One that the scanner does not take must not keep the others back.
            " ORDER BY attempt, id LIMIT 1",
            (source,),
        )
        if row is None:
            return None
        items = self._db.all(
            "SELECT * FROM commitment_item WHERE request_id = ? ORDER BY sop_instance_uid", (row["id"],)
        )
        return Report(
            request_id=row["id"],
            transaction_uid=row["transaction_uid"],
            calling_ae=row["calling_ae"],
            called_ae=row["called_ae"],
            asked_at=from_iso(row["asked_at"]),
            attempt=row["attempt"],
            committed=tuple((one["sop_class_uid"], one["sop_instance_uid"]) for one in items if one["reason"] == 0),
            failed=tuple(
                (one["sop_class_uid"], one["sop_instance_uid"], one["reason"]) for one in items if one["reason"]
            ),
        )

    def reported(self, report: Report) -> None:
        """The scanner has taken the report. A second call, or one after it has asked anew, changes nothing."""
        with self._db.write() as tx:
            row = _same(tx, report)
            if row is None:
                return
            tx.execute(
                "UPDATE commitment_request SET state = 'reported', reported_at = ?, error = '' WHERE id = ?",
                (tx.at, report.request_id),
            )
            source = row["source"]
            tx.journal(
                CommitmentReported(
                    request=report.request_id,
                    source=source,
                    committed=len(report.committed),
                    failed=len(report.failed),
                ),
                subject=source,
            )
            clear_issue(tx, "COMMITMENT_UNREPORTED", source)

    def not_reported(self, report: Report, error: str, *, raise_issue_too: bool) -> None:
        """The scanner did not take the report; it is tried again for ever.

        Args:
            report: What it should have taken.
            error: Why not, and how to mend it.
            raise_issue_too: It lasts long enough to be shown as the issue COMMITMENT_UNREPORTED.
        """
        with self._db.write() as tx:
            row = _same(tx, report)
            if row is None:
                return
            attempt = row["attempt"] + 1
            tx.execute("UPDATE commitment_request SET attempt = ?, error = ? WHERE id = ?", (attempt, error, row["id"]))
            source = row["source"]
            if attempt == 1 or attempt % 10 == 0:
                tx.journal(
                    CommitmentNotReported(request=row["id"], source=source, attempt=attempt, error=error),
                    subject=source,
                )
            if raise_issue_too:
                raise_issue(tx, "COMMITMENT_UNREPORTED", source, Severity.WARNING, {"why": error})

    def open(self) -> list[OpenRequests]:
        """What each source waits for, by name."""
        rows = self._db.all(
            "SELECT source, count(*) AS n, min(asked_at) AS oldest, max(error) AS error, sum((SELECT count(*)"
            " FROM commitment_item i WHERE i.request_id = r.id AND i.reason IS NULL)) AS undecided"
            " FROM commitment_request r WHERE state = 'waiting' GROUP BY source ORDER BY source"
        )
        return [
            OpenRequests(
                source=row["source"],
                requests=row["n"],
                undecided=row["undecided"],
                oldest_at=from_iso(row["oldest"]),
                last_error=row["error"],
            )
            for row in rows
        ]


def _same(tx: Transaction, report: Report) -> Any:
    """The request of a report, unless it was reported or asked anew since."""
    row = tx.one("SELECT * FROM commitment_request WHERE id = ? AND state = 'waiting'", (report.request_id,))
    return row if row is not None and from_iso(row["asked_at"]) == report.asked_at else None


class _Facts:
    """What the rows say of some images, read in a few queries."""

    def __init__(self, db: Database, uids: set[str], asking: str, committing: Committing) -> None:
        wanted = tuple(sorted(uids))
        #: SOP Instance UID: name of the source that it came from; of several the one that asks.
        self._sources: dict[str, str] = {}
        #: Those with a version that nobody has decided on, or that is being compared.
        self._undecided: set[str] = set()
        for row in db.all(
            "SELECT i.sop_instance_uid AS uid, v.source, v.state, EXISTS (SELECT 1 FROM issue WHERE cleared_at IS NULL"  # noqa: S608
            " AND code = 'VERSION_CONFLICT' AND subject = 'version ' || v.id) AS open_conflict"
            f" FROM instance i JOIN version v ON v.instance_id = i.id WHERE i.sop_instance_uid IN ({marks(wanted)})"
            " ORDER BY v.id",
            wanted,
        ):
            if self._sources.get(row["uid"]) != asking:
                self._sources[row["uid"]] = row["source"]
            if row["state"] == "comparing" or row["open_conflict"]:
                self._undecided.add(row["uid"])
        self._destinations = {source: tuple(committing(source)) for source in set(self._sources.values())}
        names = tuple(sorted({name for some in self._destinations.values() for name in some}))
        #: (SOP Instance UID, destination): what is, or was, owed.
        self._deliveries: dict[tuple[str, str], list[Any]] = defaultdict(list)
        if not names:
            return
        for row in db.all(
            "SELECT sop_instance_uid AS uid, destination, sop_class_uid, state, committed_at,"  # noqa: S608 - marks only
            " coalesce(removed_at, forgotten_at) AS given_up_at FROM delivery"
            f" WHERE destination IN ({marks(names)}) AND sop_instance_uid IN ({marks(wanted)})",
            (*names, *wanted),
        ):
            self._deliveries[row["uid"], row["destination"]].append(row)

    def reason(self, uid: str, sop_class_uid: str) -> int | None:
        """0 when committed, a Failure Reason when it never will be, None while it may."""
        source = self._sources.get(uid)
        if source is None:
            return NO_SUCH_OBJECT
        names = self._destinations[source]
        rows = [row for name in names for row in self._deliveries[uid, name]]
        if not rows:
            return PROCESSING_FAILURE  # it goes to nobody who could vouch for it
        if any(row["sop_class_uid"] != sop_class_uid for row in rows):
            return CLASS_INSTANCE_CONFLICT
        if any(row["state"] == "parked" for row in rows):
            return PROCESSING_FAILURE  # refused for good, or no longer what came: the scanner must not delete it
        if any(row["committed_at"] is None and row["given_up_at"] is not None for row in rows):
            # It went when nobody was to commit to it, or a person gave the destination up: nobody is asked any more.
            return PROCESSING_FAILURE
        if uid in self._undecided or any(row["committed_at"] is None for row in rows):
            return None
        return 0
