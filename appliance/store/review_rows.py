"""Signed reviews as rows: read by pages, by the builder of reports and by exports."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection

from appliance.records import (
    Presence,
    Region,
    ReviewDecision,
    ReviewedFinding,
    ReviewReason,
    Side,
    SignedReview,
)
from appliance.store.database import Database, Transaction, from_iso
from appliance.store.jsonable import load
from appliance.store.viewrows import marks

#: No newer version counts; that ``r`` itself does is another condition.
IS_LAST = "NOT EXISTS (SELECT 1 FROM review n WHERE n.study_id = r.study_id AND n.version > r.version AND n.counts = 1)"


def read_reviews(db: Database | Transaction, study_id: int) -> tuple[SignedReview, ...]:
    """Every version of a study's review, the first one first."""
    rows = db.all("SELECT * FROM review WHERE study_id = ? ORDER BY version", (study_id,))
    return tuple(reviews_of(db, rows).values())


def reviews_of(db: Database | Transaction, rows: Collection[sqlite3.Row]) -> dict[int, SignedReview]:
    """Rows of ``review`` by id, whole."""
    ids = tuple(row["id"] for row in rows)
    said: dict[int, list[ReviewedFinding]] = defaultdict(list)
    for row in db.all(
        f"SELECT * FROM review_finding WHERE review_id IN ({marks(ids)}) ORDER BY review_id, n",  # noqa: S608
        ids,
    ):
        said[row["review_id"]].append(_finding(row))
    return {row["id"]: _review(row, tuple(said[row["id"]])) for row in rows}


def review_of_analysis(db: Database | Transaction, study_id: int, analysis_id: int) -> SignedReview | None:
    """What the last review that counts says of an analysis; None where it judged others or says nothing of this one."""
    row = db.one("SELECT * FROM review WHERE study_id = ? AND counts = 1 ORDER BY version DESC LIMIT 1", (study_id,))
    if row is None or analysis_id not in json.loads(row["basis"]):
        return None
    review = reviews_of(db, [row])[row["id"]]
    said = review.of(analysis_id)
    return dataclasses.replace(review, findings=said) if said else None


def spoken_of(db: Database | Transaction, study_id: int) -> frozenset[int]:
    """Analyses of which the study's last review that counts says something."""
    rows = db.all(
        "SELECT DISTINCT f.analysis_id FROM review r JOIN review_finding f ON f.review_id = r.id"  # noqa: S608 - ours
        f" WHERE r.study_id = ? AND r.counts = 1 AND {IS_LAST}",
        (study_id,),
    )
    return frozenset(row["analysis_id"] for row in rows)


def _review(row: sqlite3.Row, findings: tuple[ReviewedFinding, ...]) -> SignedReview:
    return SignedReview(
        version=row["version"],
        decision=ReviewDecision(row["decision"]),
        reason=ReviewReason(row["reason"]) if row["reason"] else None,
        note=row["note"],
        reviewer=row["signed_by"],
        role=row["role"],
        organization=row["organization"],
        signed_at=from_iso(row["signed_at"]),
        findings=findings,
    )


def _finding(row: sqlite3.Row) -> ReviewedFinding:
    return ReviewedFinding(
        analysis_id=row["analysis_id"],
        finding=row["finding"],
        presence=Presence(row["presence"]),
        flagged=bool(row["flagged"]),
        is_right=None if row["is_right"] is None else bool(row["is_right"]),
        added=bool(row["added"]),
        code=row["code"],
        side=Side(row["side"]) if row["side"] else None,
        category=row["category"],
        region=load(Region, row["region"]) if row["region"] else None,
    )
