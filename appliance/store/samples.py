"""Which studies wait for a review: those that were asked for, those whose images changed, and a sample by chance.

The sample is drawn from the studies of which nothing was flagged, in evaluation and in clinical use alike: without it
nobody would ever learn of a miss. A study's draw is a function of its number and of a seed that never leaves the
database, so it is the same every time it is made, another analysis of it is no second draw, and nobody who reads or
sends studies can tell or choose which are drawn.
"""

from __future__ import annotations

import hashlib
import json
import secrets

from appliance.records import SELF_TEST_SOURCE, Outcome
from appliance.store.database import Database, Transaction
from appliance.store.facts.reviews import ReviewAsked, ReviewSampled
from appliance.store.review_rules import LOOKING
from appliance.store.viewrows import marks

#: Of the studies of which nothing was flagged.
SHARE = 0.02
#: The row of ``meta`` with the seed; the database's ``stream`` would not do, since screens and fleet are told it.
_SEED = "sample_seed"


def is_chosen(seed: str, study_id: int, share: float = SHARE) -> bool:
    """Whether a study is one of the sample."""
    digest = hashlib.sha256(f"review sample/{seed}/{study_id}".encode()).digest()
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
    looked = tx.one(
        "SELECT 1 FROM analysis WHERE study_id = ? AND role = 'live' AND superseded_by IS NULL"  # noqa: S608 - marks
        f" AND outcome = 'NOTHING_FLAGGED' AND intended_use IN ({marks(LOOKING)})"
        " AND EXISTS (SELECT 1 FROM study s WHERE s.id = analysis.study_id AND s.source <> ?)",
        (study_id, *LOOKING, SELF_TEST_SOURCE),
    )
    if looked is None or not is_chosen(_seed(tx), study_id):
        return
    sql = "INSERT INTO review_sample VALUES (?, ?, ?, NULL) ON CONFLICT (study_id) DO NOTHING"
    if tx.execute(sql, (study_id, tx.at, SHARE)).rowcount:
        tx.journal(ReviewSampled(share=SHARE), study_id=study_id)


def _seed(tx: Transaction) -> str:
    """Made with the first draw of a database."""
    tx.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO NOTHING", (_SEED, secrets.token_hex(16)))
    return str(tx.all("SELECT value FROM meta WHERE key = ?", (_SEED,))[0]["value"])
