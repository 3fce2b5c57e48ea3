"""Images as they arrive: associations, studies, series, instances and their versions."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from appliance.errors import ConflictError, NotFoundError
from appliance.records import (
    SYSTEM,
    Actor,
    DeliveryState,
    Identity,
    Received,
    Severity,
    VersionState,
    Word,
)
from appliance.store.database import Database
from appliance.store.facts.intake import (
    AssociationClosed,
    AssociationOpened,
    ImageRestored,
    InstanceRepeated,
    InstanceStored,
    Refused,
    VersionChosen,
    VersionCompared,
    VersionStored,
)
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.jsonable import load
from appliance.store.receiving import (
    Original,
    correct_identity,
    insert_original,
    insert_version,
    owe_original,
    raise_conflict,
    series_for,
    study_for,
    take_version,
)
from appliance.store.rejections import reject_images, rejected_as
from appliance.store.retention import restore_image


class Change(Word):
    """How a data set differs from the current version under its SOP Instance UID."""

    IDENTITY = "identity"
    ATTRIBUTES = "attributes"
    SYNTAX = "syntax"
    PIXELS = "pixels"
    #: Another transfer syntax: the worker must compare the decoded values.
    COMPARING = "comparing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One stored version of an instance."""

    id: int
    instance_id: int
    n: int
    state: VersionState
    path: str
    data_sha256: str
    transfer_syntax_uid: str
    meaning_digest: str
    identity: Identity
    #: Of its pixel data, where retention has removed the file; else None.
    removed_pixels: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where a recorded image went."""

    study_id: int
    series_id: int
    version_id: int


def current_of(known: list[Version]) -> Version:
    """The version that stands for an instance, be it rejected, among all of that instance."""
    return next(one for one in known if one.state in {VersionState.CURRENT, VersionState.REJECTED})


class Studies:
    """Acts on received images; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    # Associations -----------------------------------------------------------------------------------------------

    def open_association(
        self, *, source: str, calling_ae: str, called_ae: str, address: str, can_store: bool = True
    ) -> int:
        """Note an accepted association, on which images may come or not; returns its id."""
        with self._db.write() as tx:
            association_id = tx.insert(
                "association",
                source=source,
                calling_ae=calling_ae,
                called_ae=called_ae,
                address=address,
                opened_at=tx.at,
                can_store=int(can_store),
            )
            tx.journal(AssociationOpened(association=association_id, source=source))
            return association_id

    def close_association(self, association_id: int, *, how: str, images: int) -> None:
        """Note how an association ended: released, aborted or lost. A second call changes nothing."""
        with self._db.write() as tx:
            row = tx.one("SELECT source FROM association WHERE id = ? AND how IS NULL", (association_id,))
            if row is None:
                return
            tx.execute(
                "UPDATE association SET closed_at = ?, how = ?, images = ? WHERE id = ?",
                (tx.at, how, images, association_id),
            )
            tx.journal(AssociationClosed(association=association_id, source=row["source"], how=how, images=images))

    def refused(self, *, association_id: int | None, source: str, status: int, message: str, times: int = 1) -> None:
        """Note that an association or an object was not taken."""
        with self._db.write() as tx:
            tx.journal(
                Refused(source=source, status=status, message=message, association=association_id, times=times),
                subject=source,
            )

    def close_open_associations(self) -> int:
        """After a start: associations of an earlier run are lost. Returns how many."""
        rows = self._db.all("SELECT id FROM association WHERE how IS NULL")
        for row in rows:
            images = self._db.one("SELECT count(*) AS n FROM version WHERE association_id = ?", (row["id"],))
            self.close_association(row["id"], how="lost", images=images["n"] if images else 0)
        return len(rows)

    def files(self) -> dict[str, int]:
        """Path in the spool: version id, of every version whose file must be there."""
        rows = self._db.all("SELECT path, id FROM version WHERE removed_at IS NULL")
        return {row["path"]: row["id"] for row in rows}

    # Images ------------------------------------------------------------------------------------------------------

    def versions(self, sop_instance_uid: str) -> list[Version]:
        """All versions kept under a SOP Instance UID, oldest first; empty when it is new."""
        sql = (
            "SELECT v.* FROM version v JOIN instance i ON i.id = v.instance_id WHERE i.sop_instance_uid = ? ORDER BY n"
        )
        return [_version(row) for row in self._db.all(sql, (sop_instance_uid,))]

    def add_new(self, received: Received, originals: tuple[Original, ...]) -> Stored | None:
        """Record an image whose SOP Instance UID is new, with the deliveries that are owed.

        Returns:
            None, with nothing changed, when another association has recorded that UID meanwhile.
        """
        header = received.header
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM instance WHERE sop_instance_uid = ?", (header.sop_instance_uid,)):
                return None
            study_id = study_for(tx, received)
            series_id = series_for(tx, study_id, received)
            instance_id = tx.insert("instance", sop_instance_uid=header.sop_instance_uid, series_id=series_id)
            title = rejected_as(tx, header.sop_instance_uid)
            state = VersionState.REJECTED if title else VersionState.CURRENT
            version_id = insert_version(tx, instance_id, 1, state, received)
            tx.execute("UPDATE instance SET version_id = ? WHERE id = ?", (version_id, instance_id))
            tx.execute(
                "UPDATE series SET open = 1, changed_at = ?, changed_mono = ?, boot = ? WHERE id = ?",
                (tx.at, received.received_mono, tx.boot, series_id),
            )
            tx.execute(
                "UPDATE study SET last_at = ?, images = images + 1, stat = max(stat, ?), kept = 1 WHERE id = ?",
                (tx.at, int(received.stat), study_id),
            )
            for original in originals:
                owe_original(tx, study_id, version_id, received, original, DeliveryState.OWED)
            tx.journal(
                InstanceStored(
                    association=received.association_id,
                    source=received.source,
                    series=series_id,
                    version=version_id,
                    size=received.size,
                    owed=tuple(original.destination for original in originals),
                    rejected=title,
                ),
                study_id=study_id,
            )
            if header.rejection is not None:
                reject_images(tx, self._db.stream, study_id, version_id, header.rejection, received.source)
            return Stored(study_id=study_id, series_id=series_id, version_id=version_id)

    def add_repeat(self, received: Received, version_id: int) -> bool:
        """Note that known bytes came again: success, no new work.

        Returns:
            Whether the box keeps the file that came: retention had removed the one it had.
        """
        association_id = received.association_id
        with self._db.write() as tx:
            row = tx.one(
                "SELECT s.study_id, v.removed_at FROM version v JOIN instance i ON i.id = v.instance_id"
                " JOIN series s ON s.id = i.series_id WHERE v.id = ?",
                (version_id,),
            )
            study_id = row["study_id"] if row else None
            is_restored = row is not None and row["removed_at"] is not None
            if row is not None and is_restored:
                restore_image(tx, row["study_id"], version_id, received.path, received.size)
                tx.journal(ImageRestored(association=association_id, version=version_id), study_id=study_id)
            else:
                tx.journal(InstanceRepeated(association=association_id, version=version_id), study_id=study_id)
            return is_restored

    def add_version(
        self, received: Received, known: list[Version], change: Change, originals: tuple[Original, ...]
    ) -> Stored | None:
        """Record another data set under a known SOP Instance UID (issue "From the scanner to the alert" §3).

        Args:
            received: What came.
            known: What ``versions`` gave when ``change`` was decided.
            change: How it differs from the current version.
            originals: Deliveries owed if it is forwarded at all; a conflict owes none until a person chooses.

        Returns:
            None, with nothing changed, when a further version was recorded since ``known`` was read.
        """
        instance_id = known[0].instance_id
        with self._db.write() as tx:
            count = tx.one("SELECT count(*) AS n FROM version WHERE instance_id = ?", (instance_id,))
            if count is None or count["n"] != len(known):
                return None
            row = tx.one(
                "SELECT s.id, s.study_id FROM instance i JOIN series s ON s.id = i.series_id WHERE i.id = ?",
                (instance_id,),
            )
            if row is None:  # pragma: no cover - foreign keys forbid it
                return None
            study_id = row["study_id"]
            state = {Change.PIXELS: VersionState.CONFLICT, Change.COMPARING: VersionState.COMPARING}.get(
                change, VersionState.KEPT
            )
            version_id = insert_version(tx, instance_id, len(known) + 1, state, received)
            tx.execute("UPDATE study SET kept = 1 WHERE id = ?", (study_id,))
            tx.journal(
                VersionStored(
                    association=received.association_id, version=version_id, n=len(known) + 1, why=str(change)
                ),
                study_id=study_id,
            )
            if change is Change.PIXELS:
                raise_conflict(tx, study_id, version_id, len(known) + 1)
            else:
                held = DeliveryState.HELD if change is Change.COMPARING else DeliveryState.OWED
                for original in originals:
                    owe_original(tx, study_id, version_id, received, original, held)
            if change is Change.COMPARING:
                raise_issue(tx, "VERSION_COMPARING", f"version {version_id}", Severity.WARNING, study_id=study_id)
            if change is Change.IDENTITY:
                correct_identity(tx, study_id, version_id, received.header.identity)
            if received.header.rejection is not None:
                reject_images(tx, self._db.stream, study_id, version_id, received.header.rejection, received.source)
            return Stored(study_id=study_id, series_id=row["id"], version_id=version_id)

    def to_compare(self) -> list[tuple[Version, Version]]:
        """Pairs (current version, version in another transfer syntax) that the worker has still to compare."""
        # SQLite takes the index of these only for queries that say the state in these words.
        rows = self._db.all("SELECT * FROM version WHERE state = 'comparing' ORDER BY id")
        pairs = []
        for row in rows:
            sql = "SELECT v.* FROM version v JOIN instance i ON i.version_id = v.id WHERE i.id = ?"
            current = self._db.one(sql, (row["instance_id"],))
            if current is not None:
                pairs.append((_version(current), _version(row)))
        return pairs

    def compared(self, version_id: int, *, same_pixels: bool) -> None:
        """Record the worker's comparison: a kept version (forwarded now), an identity correction, or a conflict."""
        with self._db.write() as tx:
            row = tx.one(
                "SELECT v.*, s.study_id AS study_id, c.identity AS current_identity FROM version v"
                " JOIN instance i ON i.id = v.instance_id JOIN series s ON s.id = i.series_id"
                " JOIN version c ON c.id = i.version_id WHERE v.id = ? AND v.state = ?",
                (version_id, str(VersionState.COMPARING)),
            )
            if row is None:
                return
            state = VersionState.KEPT if same_pixels else VersionState.CONFLICT
            tx.execute("UPDATE version SET state = ? WHERE id = ?", (str(state), version_id))
            tx.journal(VersionCompared(version=version_id, same_pixels=same_pixels), study_id=row["study_id"])
            clear_issue(tx, "VERSION_COMPARING", f"version {version_id}")
            if not same_pixels:
                tx.execute("DELETE FROM delivery WHERE version_id = ? AND state = 'held'", (version_id,))
                raise_conflict(tx, row["study_id"], version_id, row["n"])
                return
            tx.execute("UPDATE delivery SET state = 'owed' WHERE version_id = ? AND state = 'held'", (version_id,))
            if row["identity"] != row["current_identity"]:
                correct_identity(tx, row["study_id"], version_id, load(Identity, row["identity"]))

    def choose(self, version_id: int, originals_of: Any, actor: Actor = SYSTEM) -> None:
        """A person decides a conflict: this version is analysed and forwarded from now on.

        Args:
            version_id: The version to take; the current one keeps things as they are and closes the issue.
            originals_of: ``source name -> tuple[Original, ...]``, what is owed for the chosen version.
            actor: Who chose.

        Raises:
            NotFoundError: No such version.
            ConflictError: The version is still being compared.
        """
        with self._db.write() as tx:
            row = tx.one(
                "SELECT v.*, i.version_id AS current_id, i.sop_instance_uid, s.id AS series_id, s.study_id,"
                " s.sop_class_uid FROM version v JOIN instance i ON i.id = v.instance_id"
                " JOIN series s ON s.id = i.series_id WHERE v.id = ?",
                (version_id,),
            )
            if row is None:
                msg = f"version {version_id} does not exist; 'scanside study versions STUDY' lists them"
                raise NotFoundError(msg)
            if row["state"] == VersionState.COMPARING:
                msg = f"version {version_id} is still being compared with the current one; try again in a minute"
                raise ConflictError(msg)
            if row["removed_at"] is not None:
                msg = f"the file of version {version_id} was removed from this box; send it again, then choose"
                raise ConflictError(msg)
            rivals = tx.all(
                "SELECT id FROM version WHERE instance_id = ? AND state = ?",
                (row["instance_id"], str(VersionState.CONFLICT)),
            )
            tx.journal(VersionChosen(version=version_id, n=row["n"]), study_id=row["study_id"], actor=actor)
            for rival in rivals:
                clear_issue(tx, "VERSION_CONFLICT", f"version {rival['id']}")
            if row["current_id"] == version_id:
                return
            take_version(tx, row["instance_id"], row["current_id"], version_id)
            tx.execute(
                "UPDATE series SET open = 1, changed_at = ?, changed_mono = ?, boot = ? WHERE id = ?",
                (tx.at, tx.mono, tx.boot, row["series_id"]),
            )
            for original in originals_of(row["source"]):
                insert_original(
                    tx,
                    row["study_id"],
                    version_id,
                    row["sop_instance_uid"],
                    row["sop_class_uid"],
                    row["transfer_syntax_uid"],
                    row["path"],
                    row["data_sha256"],
                    original,
                    DeliveryState.OWED,
                )

    def paths(self, revision_id: int) -> list[tuple[int, str, str]]:
        """(version id, path in the spool, SOP Instance UID) of every image of a revision."""
        sql = (
            "SELECT v.id, v.path, i.sop_instance_uid FROM revision_version rv JOIN version v ON v.id = rv.version_id"
            " JOIN instance i ON i.id = v.instance_id WHERE rv.revision_id = ? ORDER BY v.id"
        )
        return [(row["id"], row["path"], row["sop_instance_uid"]) for row in self._db.all(sql, (revision_id,))]


def _version(row: sqlite3.Row) -> Version:
    return Version(
        id=row["id"],
        instance_id=row["instance_id"],
        n=row["n"],
        state=VersionState(row["state"]),
        path=row["path"],
        data_sha256=row["data_sha256"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        meaning_digest=row["meaning_digest"],
        identity=load(Identity, row["identity"]),
        removed_pixels=row["pixel_sha256"] if row["removed_at"] is not None else None,
    )
