"""The checker of acknowledged images: each present, intact, exactly once, and every study in one outcome."""

from __future__ import annotations

import hashlib
from collections import Counter

from appliance.clock import SystemClock
from appliance.dicom.headers import data_set_offset
from appliance.store import Store


def check(state_path, acknowledged, *, expect_outcomes=True):
    """Hold a stopped box against what its senders were told.

    Args:
        state_path: The state folder.
        acknowledged: SOP Instance UID: SHA-256 of the data set, of every image that was answered 0x0000.
        expect_outcomes: Whether every study must have ended.

    Returns:
        Names of what is wrong; empty when all holds.
    """
    store = Store.open(state_path, SystemClock(), reserve_bytes=0)
    wrong = []
    try:
        if store.db.quick_check() != "ok":
            wrong.append("the database is damaged")
        if store.journal.verify():
            wrong.append(f"the journal's chain breaks at {store.journal.verify()}")
        rows = store.db.all(
            "SELECT i.sop_instance_uid AS uid, v.path FROM version v JOIN instance i ON i.id = v.instance_id"
        )
        paths = {}
        for row in rows:
            paths.setdefault(row["uid"], []).append(row["path"])
        for uid, sha256 in acknowledged.items():
            found = [path for path in paths.get(uid, []) if _data_sha256(store.spool.path(path)) == sha256]
            if len(found) != 1:
                wrong.append(f"{uid}: {len(found)} intact copies")
        recorded = {row["path"] for row in rows}
        orphans = set(store.spool.iter_files()) - recorded
        if orphans:
            wrong.append(f"{len(orphans)} files that no row knows")
        doubled = [
            row["study_id"]
            for row in store.db.all(
                "SELECT study_id, count(*) AS n FROM alert WHERE state <> 'withdrawn' GROUP BY study_id HAVING n > 1"
            )
        ]
        if doubled:
            wrong.append(f"two alerts stand for studies {doubled}")
        stored = Counter(
            fact.body["version"] for fact in store.journal.after(0, limit=10**7) if fact.kind == "instance_stored"
        )
        if any(count > 1 for count in stored.values()):
            wrong.append("an image has two facts of its receipt")
        if expect_outcomes:
            open_studies = store.db.all("SELECT id FROM study WHERE outcome IS NULL")
            if open_studies:
                wrong.append(f"{len(open_studies)} studies have no outcome")
    finally:
        store.close()
    return wrong


def _data_sha256(path):
    with path.open("rb") as stream:
        stream.seek(data_set_offset(path))
        return hashlib.sha256(stream.read()).hexdigest()
