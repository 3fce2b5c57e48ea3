"""Objects that hold no longer: what waits of them is not sent any more, and rejection notes name what may have arrived.

A report names its predecessor. Segmentations, presentation states, key objects and captures have no attribute for it,
so a PACS goes on showing them. Destinations that ask for it are owed a note (IHE IOCM) that names each object once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.records import AnalysisResult, DeliveryKind, Identity
from appliance.store.database import Database, Transaction, from_iso
from appliance.store.facts.deliveries import DeliveryOwed, DeliveryReplaced
from appliance.store.issues import clear_issue
from appliance.store.jsonable import load

#: Kinds that can say themselves what they replace, and can tell any outcome.
SAYS_ALL = (DeliveryKind.SR, DeliveryKind.STATEMENT)
#: Kinds that cannot.
_SAYS_NOTHING = tuple(str(kind) for kind in (DeliveryKind.SEG, DeliveryKind.GSPS, DeliveryKind.KO, DeliveryKind.SC))
#: ``delivery.rejected_by`` of an object that no note names yet, at a destination that takes notes.
UNNAMED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One object that a note names."""

    kind: DeliveryKind
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteToBuild:
    """One rejection note that is owed and not built yet, in the study that its objects stand in."""

    analysis_id: int
    sop_instance_uid: str
    package: str
    package_version: str
    #: Of the analysis that its objects tell of.
    result: AnalysisResult
    owed_at: datetime
    #: That the objects were built under, which may have been corrected since.
    identity: Identity
    identity_revision: int
    study_description: str
    study_date: str
    study_time: str
    named: tuple[Named, ...]


def object_of(analysis_id: int, kind: str) -> str:
    """One object of an analysis, as subject of an issue."""
    return f"{kind} of analysis {analysis_id}"


def reject_superseded(tx: Transaction, study_id: int, package: str) -> None:
    """A newer analysis of a package has ended: the objects of the older ones hold no longer."""
    rows = tx.all(
        "SELECT d.* FROM delivery d JOIN analysis a ON a.id = d.analysis_id WHERE a.study_id = ? AND a.package = ?"
        " AND a.superseded_by IS NOT NULL AND d.kind IN (?, ?, ?, ?)"
        " AND (d.state IN ('held', 'owed', 'parked') OR d.rejected_by = 0) ORDER BY d.id",
        (study_id, package, *_SAYS_NOTHING),
    )
    for row in rows:
        if row["state"] in ("held", "owed", "parked"):
            replace(tx, row)
    _owe_notes(tx, rows)


def reject_refuted(tx: Transaction, rows: Iterable[Any]) -> None:
    """A person signed that what these objects show does not stand."""
    named = list(rows)
    for row in named:
        if row["state"] in ("held", "owed", "parked"):
            replace(tx, row)
    _owe_notes(tx, named)


def reject_misnamed(tx: Transaction, study_id: int, identity: Identity, identity_revision: int) -> None:
    """The identity was corrected: what was sent under another holds no longer.

    A report too, where its successor stands in another study or under another patient: nobody sees them side by side.
    """
    rows = tx.all(
        "SELECT * FROM delivery WHERE study_id = ? AND rejected_by = 0 AND identity_revision < ? ORDER BY id",
        (study_id, identity_revision),
    )
    _owe_notes(tx, [row for row in rows if row["kind"] in _SAYS_NOTHING or _is_elsewhere(row, identity)])


def _is_elsewhere(row: Any, identity: Identity) -> bool:
    if not row["identity"]:
        return False
    then = load(Identity, row["identity"])
    there, here = ((one.study_instance_uid, one.patient_key) for one in (then, identity))
    return there != here


def may_have(row: Any) -> bool:
    """Whether an object was ever built: it may be on its way now, or a try that no longer counts was not answered."""
    return row["path"] is not None or bool(row["identity"])


def replace(tx: Transaction, row: Any) -> None:
    """Send an object that is held, owed or parked no more; nothing waits for it, and its issues end."""
    tx.execute(
        "UPDATE delivery SET state = 'replaced', error = '', commit_reason = NULL, removed_at = ? WHERE id = ?",
        (tx.at, row["id"]),
    )
    tx.journal(
        DeliveryReplaced(delivery=row["id"], destination=row["destination"], object=row["kind"]),
        study_id=row["study_id"],
    )
    if row["state"] == "parked":
        clear_issue(tx, "RESULT_NOT_BUILT", object_of(row["analysis_id"], row["kind"]))
        left = "SELECT 1 FROM delivery WHERE destination = ? AND state = 'parked' AND state <> 'sent' LIMIT 1"
        if tx.one(left, (row["destination"],)) is None:
            clear_issue(tx, "DELIVERY_PARKED", row["destination"])


def _owe_notes(tx: Transaction, rows: Iterable[Any]) -> None:
    """A note for each destination, analysis and identity; what was never built is nowhere and needs none."""
    groups: dict[tuple[str, int, int], list[Any]] = {}
    for row in rows:
        if row["rejected_by"] == UNNAMED and may_have(row):
            groups.setdefault((row["destination"], row["analysis_id"], row["identity_revision"]), []).append(row)
    for (destination, analysis_id, identity_revision), named in groups.items():
        first = named[0]
        note_id = tx.insert(
            "delivery",
            destination=destination,
            kind=str(DeliveryKind.REJECTION_NOTE),
            study_id=first["study_id"],
            analysis_id=analysis_id,
            # No object is named twice at a destination.
            sop_instance_uid=_minted(f"{first['sop_instance_uid']}/rejected/{destination}"),
            state="held",
            next_at=tx.at,
            owed_at=tx.at,
            identity_revision=identity_revision,
        )
        for row in named:
            # Nor is its file needed any more: a PACS that honours the note may say that it has no such object.
            tx.execute(
                "UPDATE delivery SET rejected_by = ?, removed_at = ?, commit_reason = NULL WHERE id = ?",
                (note_id, tx.at, row["id"]),
            )
        tx.journal(
            DeliveryOwed(
                delivery=note_id,
                destination=destination,
                object=str(DeliveryKind.REJECTION_NOTE),
                analysis=analysis_id,
            ),
            study_id=first["study_id"],
        )


def _minted(text: str) -> str:
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"


def read_notes(db: Database, analysis_id: int) -> list[NoteToBuild]:
    """The notes about objects of an analysis that are owed and not built, the oldest first.

    Raises:
        pydantic.ValidationError: A row is damaged.
    """
    rows = db.all(
        "SELECT d.*, a.package, a.package_version, a.result, s.description, s.study_date, s.study_time FROM delivery d"
        " JOIN analysis a ON a.id = d.analysis_id JOIN study s ON s.id = d.study_id"
        " WHERE d.analysis_id = ? AND d.kind = 'rejection_note' AND d.state = 'held' AND d.path IS NULL ORDER BY d.id",
        (analysis_id,),
    )
    return [_note(row, _named(db, row)) for row in rows]


def _named(db: Database, row: Any) -> list[Any]:
    return db.all(
        "SELECT * FROM delivery WHERE analysis_id = ? AND rejected_by = ? ORDER BY id", (row["analysis_id"], row["id"])
    )


def _note(row: Any, named: list[Any]) -> NoteToBuild:
    return NoteToBuild(
        analysis_id=row["analysis_id"],
        sop_instance_uid=row["sop_instance_uid"],
        package=row["package"],
        package_version=row["package_version"],
        result=load(AnalysisResult, row["result"]),
        owed_at=from_iso(row["owed_at"]),
        identity=load(Identity, named[-1]["identity"]),
        identity_revision=row["identity_revision"],
        study_description=row["description"],
        study_date=row["study_date"],
        study_time=row["study_time"],
        named=tuple(
            Named(
                kind=DeliveryKind(one["kind"]),
                sop_class_uid=one["sop_class_uid"],
                sop_instance_uid=one["sop_instance_uid"],
            )
            for one in named
        ),
    )
