"""Results under a corrected identity or order: nobody reads a finding under the name of somebody else."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from appliance.records import Identity
from appliance.store.database import Transaction
from appliance.store.facts.deliveries import ResultReissued
from appliance.store.notes import SAYS_ALL, UNNAMED, may_have, reject_misnamed, replace

#: Of several objects of a kind that a destination was owed one after the other the last, and no note of ours. None that
#: a note took back: a person may have refuted it. None of a destination that was given up.
_LAST = (
    "d.kind NOT IN ('original', 'rejection_note') AND d.state <> 'replaced' AND coalesce(d.rejected_by, 0) = 0"
    " AND d.forgotten_at IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM delivery n"
    " WHERE n.analysis_id = d.analysis_id AND n.destination = d.destination AND n.kind = d.kind AND n.id > d.id)"
)


def reissue_results(tx: Transaction, study_id: int, identity: Identity, identity_revision: int) -> None:
    """Owe anew what was said of a study, under the identity that holds from now on.

    What no destination can have is built and keeps its SOP Instance UID. What one may have is owed to all of them under
    another UID: two objects under one would be taken for the same. What may have arrived is named: by the report that
    takes its place, or by a rejection note.
    """
    rows = tx.all(
        "SELECT d.* FROM delivery d JOIN analysis a ON a.id = d.analysis_id"  # noqa: S608 - our own text
        # Of what is superseded nothing more is told, but what still waits must not go under the wrong name either.
        " WHERE d.study_id = ? AND (a.superseded_by IS NULL OR d.state <> 'sent') AND d.identity_revision = ?"
        f" AND {_LAST} ORDER BY d.analysis_id, d.kind, d.id",
        (study_id, identity_revision - 1),
    )
    for owed in _by_object(rows):
        _owe_anew(tx, owed, identity_revision, str(identity_revision))
    reject_misnamed(tx, study_id, identity, identity_revision)


def reissue_for_order(tx: Transaction, study_id: int, identity_revision: int) -> None:
    """The RIS has named the order only now: reports that were built without it are owed anew, and name the first.

    Pictures and places stay as they are: they lie in the study that they belong to.
    """
    says_all = tuple(str(kind) for kind in SAYS_ALL)
    rows = tx.all(
        "SELECT d.* FROM delivery d JOIN analysis a ON a.id = d.analysis_id"  # noqa: S608 - our own text
        " WHERE d.study_id = ? AND a.superseded_by IS NULL AND d.identity_revision = ? AND d.kind IN (?, ?)"
        f" AND {_LAST} ORDER BY d.analysis_id, d.kind, d.id",
        (study_id, identity_revision, *says_all),
    )
    for owed in _by_object(rows):
        if any(may_have(row) for row in owed):
            _owe_anew(tx, owed, identity_revision, "order")


def reissue_for_review(tx: Transaction, rows: Iterable[Any], identity_revision: int, version: int) -> None:
    """A person signed a version of a review: these objects are owed anew, always under a UID of their own.

    One that is being built at this moment would say what held before: under its UID it is owed no more.
    """
    for owed in _by_object(rows):
        _owe_anew(tx, owed, identity_revision, f"review {version}", is_new=True)


def _by_object(rows: Iterable[Any]) -> Iterable[list[Any]]:
    for _, group in groupby(rows, lambda row: (row["analysis_id"], row["kind"])):
        yield list(group)


def _owe_anew(tx: Transaction, owed: list[Any], identity_revision: int, cause: str, *, is_new: bool = False) -> None:
    """Owe one object of an analysis to all its destinations under one UID."""
    first = owed[0]
    uid = first["sop_instance_uid"]
    if is_new or any(may_have(row) for row in owed):
        uid = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{uid}/{cause}').int}"
    for row in owed:
        _owe(tx, row, uid, identity_revision)
    tx.journal(
        ResultReissued(
            analysis=first["analysis_id"],
            object=first["kind"],
            deliveries=len(owed),
            identity_revision=identity_revision,
        ),
        study_id=first["study_id"],
    )


def _owe(tx: Transaction, row: Any, uid: str, identity_revision: int) -> None:
    if not may_have(row) and row["state"] != "replaced":
        tx.execute(
            "UPDATE delivery SET sop_instance_uid = ?, state = 'held', attempt = 0, next_at = ?, error = '',"
            " identity_revision = ? WHERE id = ?",
            (uid, tx.at, identity_revision, row["id"]),
        )
        return
    # This row goes on telling what was sent, or may have been.
    if row["state"] not in ("sent", "replaced"):
        replace(tx, row)
    tx.insert(
        "delivery",
        destination=row["destination"],
        kind=row["kind"],
        study_id=row["study_id"],
        analysis_id=row["analysis_id"],
        sop_instance_uid=uid,
        state="held",
        next_at=tx.at,
        owed_at=tx.at,
        identity_revision=identity_revision,
        rejected_by=None if row["rejected_by"] is None else UNNAMED,
    )
