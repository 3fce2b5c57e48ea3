"""Results under a corrected identity: nobody reads a finding under the name of somebody else."""

from __future__ import annotations

import uuid
from itertools import groupby
from typing import Any

from appliance.store.database import Transaction
from appliance.store.facts import ResultReissued


def reissue_results(tx: Transaction, study_id: int, identity_revision: int) -> None:
    """Owe anew what was said of a study, under the identity that holds from now on.

    What no destination can have is built and keeps its SOP Instance UID. What one may have is owed to all of them under
    another UID: two objects under one would be taken for the same. What was sent is named as predecessor.
    """
    rows = tx.all(
        "SELECT d.* FROM delivery d JOIN analysis a ON a.id = d.analysis_id"
        # Of what is superseded nothing more is told, but what still waits must not go under the wrong name either.
        " WHERE d.study_id = ? AND (a.superseded_by IS NULL OR d.state <> 'sent') AND d.identity_revision = ?"
        " ORDER BY d.analysis_id, d.kind, d.id",
        (study_id, identity_revision - 1),
    )
    for (analysis_id, kind), group in groupby(rows, lambda row: (row["analysis_id"], row["kind"])):
        owed = list(group)
        uid = owed[0]["sop_instance_uid"]
        if any(_may_have(row) for row in owed):
            uid = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{uid}/{identity_revision}').int}"
        for row in owed:
            _owe(tx, row, uid, identity_revision)
        tx.journal(
            ResultReissued(
                analysis=analysis_id, object=kind, deliveries=len(owed), identity_revision=identity_revision
            ),
            study_id=study_id,
        )


def _may_have(row: Any) -> bool:
    """Whether it was built: then it may be on its way now, or a try that is not counted any more was not answered."""
    return row["path"] is not None


def _owe(tx: Transaction, row: Any, uid: str, identity_revision: int) -> None:
    if row["state"] == "sent":
        # This row goes on telling what was sent.
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
        )
        return
    tx.execute(
        "UPDATE delivery SET sop_instance_uid = ?, path = NULL, sha256 = NULL, state = 'held', attempt = 0,"
        " next_at = ?, error = '', identity_revision = ? WHERE id = ?",
        (uid, tx.at, identity_revision, row["id"]),
    )
