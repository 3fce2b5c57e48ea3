"""What destinations are owed: one row per object and destination, from OWED until SENT or PARKED. Nothing is deleted.

A row stays OWED until its SENT is committed, so a crash in between sends the object again under the same SOP Instance
UID (at least once); nothing has to be recovered at start.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from appliance.errors import NotFoundError
from appliance.records import SYSTEM, Actor, DeliveryKind, Identity, Severity
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts.deliveries import (
    DeliveryBuilt,
    DeliveryFailed,
    DeliveryParked,
    DeliveryRetried,
    DeliverySent,
)
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.jsonable import dump
from appliance.store.notes import NoteToBuild, object_of, read_notes
from appliance.store.orders import carried
from appliance.store.said import Said, read_said
from appliance.store.to_build import ToBuild, read_to_build

#: While a delivery has failed fewer times than this, the later ones of its study wait for it. Then it goes on being
#: retried, but one object that breaks a PACS's association every time must not keep the rest of its study back.
HOLDS_ORDER_FOR = 5
#: No retry is planned further ahead than minutes: a row due later than this was planned before the clock was set back.
_TOO_FAR = timedelta(minutes=15)
_RETRY_MARK = "delivery_retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One object owed to one destination; ``path`` is relative to the spool."""

    id: int
    destination: str
    kind: DeliveryKind
    study_id: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    #: Of the data set, without preamble and file meta information.
    sha256: str
    calling_ae: str
    attempt: int
    owed_at: datetime
    #: 1 for the first data set received under this SOP Instance UID and for results.
    version_n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What one destination has not got yet."""

    destination: str
    owed: int
    #: Results that are not built, and images that wait for a comparison.
    held: int
    parked: int
    oldest_at: datetime | None
    last_error: str


class Deliveries:
    """Acts on deliveries; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def next_owed(self, destination: str, now: datetime, batch: int) -> list[Delivery]:
        """What can be sent now, oldest first, keeping the order within each study.

        A delivery waits for an earlier one of its study that is to be tried again later; parked and held ones hold
        nobody back. Of a destination that a person has paused there is nothing.

        Args:
            destination: Its name.
            now: The wall clock.
            batch: At most so many.
        """
        # The repeated "state <> 'sent'" lets SQLite use the partial index.
        rows = self._db.all(
            "WITH waiting AS (SELECT study_id, min(id) AS first FROM delivery"
            "  WHERE destination = :destination AND state = 'owed' AND state <> 'sent'"
            "  AND next_at > :now AND next_at <= :far AND attempt < :holds GROUP BY study_id)"
            " SELECT d.*, v.n AS version_n FROM delivery d LEFT JOIN waiting w ON w.study_id = d.study_id"
            " LEFT JOIN version v ON v.id = d.version_id"
            " WHERE d.destination = :destination AND d.state = 'owed' AND d.state <> 'sent'"
            " AND (d.next_at <= :now OR d.next_at > :far) AND (w.first IS NULL OR w.first > d.id)"
            " AND NOT EXISTS (SELECT 1 FROM destination_state WHERE destination = :destination"
            "  AND paused_at IS NOT NULL)"
            " ORDER BY d.id LIMIT :batch",
            {
                "destination": destination,
                "now": iso(now),
                "far": iso(now + _TOO_FAR),
                "holds": HOLDS_ORDER_FOR,
                "batch": batch,
            },
        )
        return [_delivery(row) for row in rows]

    def is_still_owed(self, delivery: Delivery) -> bool:
        """Whether it is owed as it was when it was read: an identity corrected since takes the object back.

        Nothing is owed now where a person has paused the destination since.
        """
        return (
            self._db.one(
                "SELECT 1 FROM delivery WHERE id = ? AND state = 'owed' AND path = ? AND sop_instance_uid = ?"
                " AND NOT EXISTS (SELECT 1 FROM destination_state WHERE destination = ? AND paused_at IS NOT NULL)",
                (delivery.id, delivery.path, delivery.sop_instance_uid, delivery.destination),
            )
            is not None
        )

    def sent(self, delivery_id: int, status: int) -> None:
        """The destination has answered that it stored the object; ``status`` is that answer."""
        with self._db.write() as tx:
            row = _open_row(tx, delivery_id)
            if row is None:
                return
            attempt = row["attempt"] + 1
            tx.execute(
                "UPDATE delivery SET state = 'sent', sent_at = ?, status = ?, attempt = ?, error = '' WHERE id = ?",
                (tx.at, status, attempt, delivery_id),
            )
            tx.journal(
                DeliverySent(
                    delivery=delivery_id,
                    destination=row["destination"],
                    object=row["kind"],
                    attempt=attempt,
                    status=status,
                ),
                study_id=row["study_id"],
            )

    def failed(self, delivery_id: int, error: str, next_at: datetime, status: int | None = None) -> None:
        """A try of this object failed; it is tried again from ``next_at``. The first and every tenth are journalled."""
        with self._db.write() as tx:
            row = _open_row(tx, delivery_id)
            if row is None:
                return
            attempt = row["attempt"] + 1
            tx.execute(
                "UPDATE delivery SET attempt = ?, next_at = ?, error = ?, status = ? WHERE id = ?",
                (attempt, iso(next_at), error, status, delivery_id),
            )
            if attempt == 1 or attempt % 10 == 0:
                _journal_failure(tx, row, attempt, error)

    def unreachable(self, delivery_id: int, error: str, *, raise_issue_too: bool) -> None:
        """The destination did not take an association: nothing is wrong with this object, which was next.

        Args:
            delivery_id: The delivery that was next.
            error: Why, and how to mend it.
            raise_issue_too: It lasts long enough to be shown as the issue DESTINATION_UNREACHABLE.
        """
        with self._db.write() as tx:
            row = _open_row(tx, delivery_id)
            if row is None:
                return
            if row["error"] != error:
                tx.execute("UPDATE delivery SET error = ? WHERE id = ?", (error, delivery_id))
                _journal_failure(tx, row, row["attempt"], error)
            if raise_issue_too:
                name = row["destination"]
                raise_issue(tx, "DESTINATION_UNREACHABLE", name, Severity.WARNING, {"error": error})

    def reached(self, destination: str) -> None:
        """The destination took an association: its issue ends, if there is one."""
        subject = ("DESTINATION_UNREACHABLE", destination)
        sql = "SELECT 1 FROM issue WHERE code = ? AND subject = ? AND cleared_at IS NULL"
        if self._db.one(sql, subject) is not None:
            with self._db.write() as tx:
                clear_issue(tx, *subject)

    def parked(self, delivery_id: int, status: int | None, error: str, *, corrupt: bool = False) -> None:
        """The object is set aside until a person has looked; others go on. Raises the issue that says so.

        Args:
            delivery_id: The delivery.
            status: The DIMSE status that refused it, if one did.
            error: Why, and how to mend it.
            corrupt: The file in the spool is no longer what was received (bit rot); it must not leave the box.
        """
        with self._db.write() as tx:
            row = _open_row(tx, delivery_id)
            if row is None:
                return
            _park(tx, row, status, error)
            detail = {"delivery": delivery_id, "error": error}
            if corrupt:
                if row["kind"] != DeliveryKind.ORIGINAL:
                    # A result can be made again, and a retry makes it.
                    tx.execute("UPDATE delivery SET path = NULL, sha256 = NULL WHERE id = ?", (delivery_id,))
                raise_issue(tx, "SPOOL_CORRUPT", f"delivery {delivery_id}", Severity.FAULT, detail, row["study_id"])
            raise_issue(tx, "DELIVERY_PARKED", row["destination"], Severity.FAULT, detail, row["study_id"])

    def retry(self, destination: str | None = None, actor: Actor = SYSTEM) -> int:
        """Send what is owed and what is parked again now; objects that could not be built are built again.

        What was sent and is not committed to is asked for again, too.

        Args:
            destination: Only what this one is owed; None = all.
            actor: Who asks.

        Returns:
            How many deliveries are tried again.

        Raises:
            NotFoundError: Nothing was ever owed to a destination of that name.
        """
        with self._db.write() as tx:
            known = [row["destination"] for row in tx.all("SELECT DISTINCT destination FROM delivery")]
            if destination is not None and destination not in known:
                raise NotFoundError(
                    f"nothing was ever owed to {destination!r}; 'scanside dest list' shows the destinations"
                )
            total = 0
            for name in known if destination is None else [destination]:
                count = tx.execute(
                    "UPDATE delivery SET state = CASE WHEN path IS NULL THEN 'held' ELSE 'owed' END,"
                    " attempt = 0, next_at = ? WHERE destination = ? AND state IN ('owed', 'parked')"
                    " AND state <> 'sent'",
                    (tx.at, name),
                ).rowcount
                tx.execute(
                    "UPDATE delivery SET commit_next_at = '' WHERE destination = ? AND state = 'sent'"
                    " AND committed_at IS NULL AND removed_at IS NULL",
                    (name,),
                )
                if count:
                    seq = tx.journal(DeliveryRetried(destination=name, deliveries=count), subject=name, actor=actor)
                    tx.execute(
                        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        (_RETRY_MARK, str(seq)),
                    )
                    clear_issue(tx, "DELIVERY_PARKED", name)
                total += count
            return total

    def retry_mark(self) -> str:
        """Changes when someone, also in another process, has asked for a retry: a pause of a destination is over."""
        row = self._db.one("SELECT value FROM meta WHERE key = ?", (_RETRY_MARK,))
        return str(row["value"]) if row else ""

    def analyses_to_build(self, limit: int = 8) -> list[int]:
        """Ids of the analyses with result objects that are owed and not built, oldest first."""
        rows = self._db.all(
            "SELECT analysis_id, min(id) AS first FROM delivery WHERE state = 'held' AND state <> 'sent'"
            " AND path IS NULL AND analysis_id IS NOT NULL GROUP BY analysis_id ORDER BY first LIMIT ?",
            (limit,),
        )
        return [int(row["analysis_id"]) for row in rows]

    def built(
        self,
        analysis_id: int,
        kind: DeliveryKind,
        *,
        sop_instance_uid: str,
        identity: Identity,
        identity_revision: int,
        procedure: str,
        path: str,
        sha256: str,
        size: int,
        sop_class_uid: str,
        transfer_syntax_uid: str,
        ms: float,
    ) -> None:
        """The object lies in the spool for good: its destinations are owed it from now on.

        Args:
            analysis_id: The analysis that it tells of.
            kind: What it is.
            sop_instance_uid: Of the object.
            identity: That it was built under.
            identity_revision: Of the study when it was built; where the identity has changed since, it is built again.
            procedure: What the RIS says is to be done; where it or the order's number came only since, the same.
            path: Relative to the spool.
            sha256: Of the data set, without preamble and file meta information.
            size: Bytes of the file.
            sop_class_uid: Of the object.
            transfer_syntax_uid: Of the object.
            ms: How long the building took.
        """
        with self._db.write() as tx:
            study_id = _study_of(tx, analysis_id)
            # A note is about objects of an identity that may hold no longer.
            is_note = kind is DeliveryKind.REJECTION_NOTE
            if not is_note and carried(tx, study_id) != (identity, procedure):
                return
            changed = tx.execute(
                "UPDATE delivery SET path = ?, sha256 = ?, sop_class_uid = ?, transfer_syntax_uid = ?,"
                " study_instance_uid = ?, identity = ?, state = 'owed', next_at = ? WHERE analysis_id = ? AND kind = ?"
                " AND sop_instance_uid = ? AND state IN ('held', 'parked') AND path IS NULL AND identity_revision = ?",
                (
                    *(path, sha256, sop_class_uid, transfer_syntax_uid, identity.study_instance_uid, dump(identity)),
                    *(tx.at, analysis_id, str(kind), sop_instance_uid, identity_revision),
                ),
            ).rowcount
            if not changed:
                return
            tx.execute("UPDATE analysis SET files_removed_at = NULL WHERE id = ?", (analysis_id,))
            tx.journal(DeliveryBuilt(analysis=analysis_id, object=str(kind), size=size, ms=ms), study_id=study_id)
            clear_issue(tx, "RESULT_NOT_BUILT", object_of(analysis_id, str(kind)))

    def build_failed(self, analysis_id: int, kind: DeliveryKind | None, reason: str) -> None:
        """The object cannot be built: its deliveries are parked, and the issue says why. ``retry`` builds it again.

        Args:
            analysis_id: The analysis that it should tell of.
            kind: What it is; None = whatever is not built yet but rejection notes, which need no image.
            reason: Why, without patient data.
        """
        with self._db.write() as tx:
            rows = tx.all(
                "SELECT * FROM delivery WHERE analysis_id = ? AND state = 'held' AND path IS NULL", (analysis_id,)
            )
            kinds = {row["kind"] for row in rows} - {str(DeliveryKind.REJECTION_NOTE)} if kind is None else {str(kind)}
            rows = [row for row in rows if row["kind"] in kinds]
            for row in rows:
                _park(tx, row, None, reason)
                subject = object_of(analysis_id, row["kind"])
                raise_issue(tx, "RESULT_NOT_BUILT", subject, Severity.FAULT, {"reason": reason}, row["study_id"])

    def backlog(self) -> list[Backlog]:
        """Of each destination that has not got everything, by name."""
        rows = self._db.all(
            "SELECT destination, sum(state = 'owed') AS owed, sum(state = 'held') AS held,"
            " sum(state = 'parked') AS parked, min(CASE WHEN state = 'owed' THEN owed_at END) AS oldest_at"
            " FROM delivery WHERE state <> 'sent' AND state NOT IN ('replaced', 'forgotten')"
            " GROUP BY destination ORDER BY destination"
        )
        return [
            Backlog(
                destination=row["destination"],
                owed=row["owed"],
                held=row["held"],
                parked=row["parked"],
                oldest_at=from_iso(row["oldest_at"]) if row["oldest_at"] else None,
                last_error=self._last_error(row["destination"]),
            )
            for row in rows
        ]

    def _last_error(self, destination: str) -> str:
        row = self._db.one(
            "SELECT error FROM delivery WHERE destination = ? AND state <> 'sent' AND state <> 'forgotten'"
            " AND error <> '' ORDER BY state = 'parked' DESC, id LIMIT 1",
            (destination,),
        )
        return str(row["error"]) if row else ""

    def said(self, delivery_id: int) -> Said | None:
        """What the analysis said that a delivery tells of; None where its row does not tell."""
        return read_said(self._db, delivery_id)

    def notes_to_build(self, analysis_id: int) -> list[NoteToBuild]:
        """The rejection notes about objects of an analysis that are owed and not built."""
        return read_notes(self._db, analysis_id)

    def owes_results(self, analysis_id: int) -> bool:
        """Whether anything but rejection notes is owed of an analysis and not built."""
        sql = (
            "SELECT 1 FROM delivery WHERE analysis_id = ? AND state = 'held' AND path IS NULL"
            " AND kind <> 'rejection_note' LIMIT 1"
        )
        return self._db.one(sql, (analysis_id,)) is not None

    def to_build(self, analysis_id: int) -> ToBuild:
        """What an analysis said, of which files, and which objects are to tell it.

        Raises:
            NotFoundError: The analysis has no result or no images.
        """
        return read_to_build(self._db, analysis_id)


def _open_row(tx: Transaction, delivery_id: int) -> Any:
    """The row while it is owed: a second answer for the same delivery changes nothing."""
    return tx.one("SELECT * FROM delivery WHERE id = ? AND state = 'owed'", (delivery_id,))


def _study_of(tx: Transaction, analysis_id: int) -> int:
    row = tx.one("SELECT study_id FROM analysis WHERE id = ?", (analysis_id,))
    if row is None:  # pragma: no cover - analyses stay
        raise NotFoundError(f"analysis {analysis_id} does not exist")
    return int(row["study_id"])


def _journal_failure(tx: Transaction, row: Any, attempt: int, error: str) -> None:
    tx.journal(
        DeliveryFailed(
            delivery=row["id"], destination=row["destination"], object=row["kind"], attempt=attempt, error=error
        ),
        study_id=row["study_id"],
    )


def _park(tx: Transaction, row: Any, status: int | None, error: str) -> None:
    tx.execute(
        "UPDATE delivery SET state = 'parked', attempt = attempt + 1, status = ?, error = ? WHERE id = ?",
        (status, error, row["id"]),
    )
    tx.journal(
        DeliveryParked(
            delivery=row["id"], destination=row["destination"], object=row["kind"], status=status, error=error
        ),
        study_id=row["study_id"],
    )


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row["id"],
        destination=row["destination"],
        kind=DeliveryKind(row["kind"]),
        study_id=row["study_id"],
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        path=row["path"],
        sha256=row["sha256"],
        calling_ae=row["calling_ae"],
        attempt=row["attempt"],
        owed_at=from_iso(row["owed_at"]),
        version_n=row["version_n"] or 1,
    )
