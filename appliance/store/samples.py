"""Chance picks studies of which nothing was flagged for review, so that misses are counted and not only false alarms.

The choice follows from the database's stream and the study's number alone: the same every time it is made, and known to
nobody who reads the study.
"""

from __future__ import annotations

import hashlib
import json

from appliance.records import SELF_TEST_SOURCE, Outcome
from appliance.store.database import Database, Transaction
from appliance.store.facts.reviews import ReviewAsked, ReviewSampled
from appliance.store.review_rules import LOOKING
from appliance.store.viewrows import marks

#: Of the studies of which nothing was flagged.
SHARE = 0.02


def is_chosen(stream: str, study_id: int, share: float = SHARE) -> bool:
    """Whether a study is one of the sample."""
    digest = hashlib.sha256(f"review sample/{stream}/{study_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def note_ended_study(tx: Transaction, study_id: int, outcome: Outcome | None) -> None:
    """A study has got its outcome, perhaps anew: choose it for the sample, and call for review what a review missed.

    Args:
        tx: The transaction that settled the study.
        study_id: The study.
        outcome: Its outcome; None while it is open.
    """
    if outcome is None:
        return
    if outcome is Outcome.NOTHING_FLAGGED:
        _sample(tx, study_id)
    last = tx.one(
        "SELECT basis FROM review WHERE study_id = ? AND counts = 1 ORDER BY version DESC LIMIT 1", (study_id,)
    )
    if last is not None and set(json.loads(last["basis"])) != set(basis_ids(tx, study_id)):
        # What was signed rests on other images than those that count now.
        tx.execute("UPDATE review_sample SET done_at = NULL WHERE study_id = ?", (study_id,))
        request_review(tx, study_id, "")
        tx.journal(ReviewAsked(), study_id=study_id)


def request_review(tx: Transaction, study_id: int, by: str) -> None:
    """Put a study into the queue; ``by`` is empty where its images have changed since it was reviewed."""
    tx.execute(
        "INSERT INTO review_request VALUES (?, ?, ?, NULL) ON CONFLICT (study_id) DO UPDATE"
        " SET asked_at = excluded.asked_at, asked_by = excluded.asked_by, done_at = NULL",
        (study_id, tx.at, by),
    )


def basis_ids(db: Database | Transaction, study_id: int) -> list[int]:
    """The analyses that a review of the study judges now: those that its outcome rests on."""
    rows = db.all(
        "SELECT id FROM analysis WHERE study_id = ? AND role = 'live' AND superseded_by IS NULL AND state = 'done'"
        " AND result IS NOT NULL AND intended_use <> 'quality' ORDER BY id",
        (study_id,),
    )
    return [int(row["id"]) for row in rows]


def _sample(tx: Transaction, study_id: int) -> None:
    stream = tx.one("SELECT value FROM meta WHERE key = 'stream'")
    looked = tx.one(
        "SELECT 1 FROM analysis WHERE study_id = ? AND role = 'live' AND superseded_by IS NULL"  # noqa: S608 - marks
        f" AND outcome = 'NOTHING_FLAGGED' AND intended_use IN ({marks(LOOKING)})"
        " AND EXISTS (SELECT 1 FROM study s WHERE s.id = analysis.study_id AND s.source <> ?)",
        (study_id, *LOOKING, SELF_TEST_SOURCE),
    )
    if stream is None or looked is None or not is_chosen(stream["value"], study_id):
        return
    sql = "INSERT INTO review_sample VALUES (?, ?, ?, NULL) ON CONFLICT (study_id) DO NOTHING"
    if tx.execute(sql, (study_id, tx.at, SHARE)).rowcount:
        tx.journal(ReviewSampled(share=SHARE), study_id=study_id)
