"""What there is to review: a study as it stands, and the queue of those that wait. Reads only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from appliance.errors import NotFoundError
from appliance.records import SELF_TEST_SOURCE, AnalysisResult, SignedReview
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.jsonable import load
from appliance.store.review_rows import read_reviews, spoken_of
from appliance.store.review_rules import Judged
from appliance.store.samples import basis_ids
from appliance.store.viewrows import marks

#: An alert that nobody decided for so long is history; what is asked for or sampled waits as long as it takes.
QUEUE_DAYS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A study to review, as it stands."""

    study_id: int
    #: Changes with every signature, with other analyses and with another identity.
    etag: str
    basis: tuple[Judged, ...]
    #: Series of which at least one image must be looked at before a decision: row id and description.
    series: Mapping[int, str]
    reviews: tuple[SignedReview, ...]
    #: Of what the last version that counts says something: analyses.
    spoken: frozenset[int]
    asked_by: str | None
    is_sampled: bool

    @property
    def flagged(self) -> bool:
        """Whether the AI flagged anything."""
        return any(finding.flagged for one in self.basis for finding in one.result.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One row of the queue; ``why``: flagged, changed, asked or sampled."""

    study_id: int
    why: str
    since_at: datetime
    category: int | None
    asked_by: str


def read_queue(db: Database, limit: int) -> list[Waiting]:
    """Studies that wait: urgent alerts first, then what was asked for, then the sample."""
    since = iso(db.clock.now() - timedelta(days=QUEUE_DAYS))
    rows = db.all(
        "SELECT * FROM ("
        "SELECT study_id, 'flagged' AS why, raised_at AS at, category, '' AS by, category AS rank FROM alert"
        "  WHERE decided_at IS NULL AND state <> 'withdrawn' AND raised_at >= ? AND NOT EXISTS"
        "   (SELECT 1 FROM review r WHERE r.study_id = alert.study_id AND r.signed_at > alert.raised_at"
        "     AND r.counts = 1)"
        " UNION ALL SELECT study_id, CASE WHEN asked_by = '' THEN 'changed' ELSE 'asked' END, asked_at, NULL,"
        "  asked_by, CASE WHEN asked_by = '' THEN 1 ELSE 4 END FROM review_request WHERE done_at IS NULL"
        " UNION ALL SELECT p.study_id, 'sampled', p.chosen_at, NULL, '', 5 FROM review_sample p"
        "  JOIN study s ON s.id = p.study_id WHERE p.done_at IS NULL AND s.outcome = 'NOTHING_FLAGGED') w"
        " WHERE (SELECT s.source FROM study s WHERE s.id = w.study_id) <> ? ORDER BY rank, at LIMIT ?",
        (since, SELF_TEST_SOURCE, limit),
    )
    found: dict[int, Waiting] = {}
    for row in rows:
        waiting = Waiting(
            study_id=row["study_id"],
            why=row["why"],
            since_at=from_iso(row["at"]),
            category=row["category"],
            asked_by=row["by"],
        )
        found.setdefault(waiting.study_id, waiting)
    return list(found.values())


def read_case(db: Database | Transaction, study_id: int) -> Case:
    """A study as a reviewer meets it.

    Raises:
        NotFoundError: No such study.
    """
    study = db.one("SELECT identity_revision FROM study WHERE id = ?", (study_id,))
    if study is None:
        raise NotFoundError(f"study {study_id} does not exist")
    ids = tuple(basis_ids(db, study_id))
    rows = db.all(f"SELECT * FROM analysis WHERE id IN ({marks(ids)}) ORDER BY id", ids)  # noqa: S608 - marks only
    basis = tuple(_judged(row) for row in rows)
    reviews = read_reviews(db, study_id)
    ground = json.dumps([study_id, len(reviews), ids, study["identity_revision"]])
    asked = db.one("SELECT asked_by FROM review_request WHERE study_id = ? AND done_at IS NULL", (study_id,))
    sampled = db.one("SELECT 1 FROM review_sample WHERE study_id = ?", (study_id,))
    return Case(
        study_id=study_id,
        etag=f"{len(reviews)}-{hashlib.sha256(ground.encode()).hexdigest()[:16]}",
        basis=basis,
        series=_series(db, basis),
        reviews=reviews,
        spoken=spoken_of(db, study_id),
        asked_by=asked["asked_by"] if asked else None,
        is_sampled=sampled is not None,
    )


def _judged(row: Any) -> Judged:
    return Judged(
        analysis_id=row["id"],
        package=row["package"],
        package_version=row["package_version"],
        intended_use=row["intended_use"],
        result=load(AnalysisResult, row["result"]),
    )


def _series(db: Database | Transaction, basis: tuple[Judged, ...]) -> dict[int, str]:
    """The series of the analyses that flagged something; of all where none did."""
    flagged = [one for one in basis if any(finding.flagged for finding in one.result.findings)]
    ids = tuple(one.analysis_id for one in flagged or basis)
    rows = db.all(
        "SELECT DISTINCT s.id, s.number, s.description FROM analysis_input i JOIN revision r ON r.id = i.revision_id"  # noqa: S608
        f" JOIN series s ON s.id = r.series_id WHERE i.analysis_id IN ({marks(ids)}) ORDER BY s.number, s.id",
        ids,
    )
    return {row["id"]: row["description"] for row in rows}
