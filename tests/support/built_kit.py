"""What the builder of result objects tells the store, without building anything."""

from __future__ import annotations

from appliance.records import DeliveryKind
from appliance.store.orders import carried

CLASSES = {
    DeliveryKind.SR: "1.2.840.10008.5.1.4.1.1.88.34",
    DeliveryKind.SEG: "1.2.840.10008.5.1.4.1.1.66.4",
    DeliveryKind.GSPS: "1.2.840.10008.5.1.4.1.1.11.1",
    DeliveryKind.KO: "1.2.840.10008.5.1.4.1.1.88.59",
    DeliveryKind.SC: "1.2.840.10008.5.1.4.1.1.7",
    DeliveryKind.REJECTION_NOTE: "1.2.840.10008.5.1.4.1.1.88.59",
}


def say_built(store, analysis_id, kind=DeliveryKind.SR, *, identity_revision=None, as_of=None, **changes):
    """The object of this kind that an analysis owes lies in the spool, as far as the store is told.

    Args:
        store: The store.
        analysis_id: Which analysis.
        kind: Which object.
        identity_revision: That it was built under; None = the one that it is owed under.
        as_of: (identity, procedure) that it was built with; None = those of now.
        changes: Other values for ``Deliveries.built``.
    """
    row = store.db.one(
        "SELECT * FROM delivery WHERE analysis_id = ? AND kind = ? ORDER BY state = 'held' DESC, id DESC",
        (analysis_id, str(kind)),
    )
    revision = row["identity_revision"] if identity_revision is None else identity_revision
    identity, procedure = as_of or carried(store.db, row["study_id"])
    told = {
        "sop_instance_uid": row["sop_instance_uid"],
        "identity": identity,
        "identity_revision": revision,
        "procedure": procedure,
        "path": f"results/00/{row['id']:031x}{revision}.dcm",
        "sha256": "aa",
        "size": 5000,
        "sop_class_uid": CLASSES.get(kind, ""),
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "ms": 12.0,
        **changes,
    }
    store.deliveries.built(analysis_id, kind, **told)
