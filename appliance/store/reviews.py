"""What radiologists sign of studies: every signature is a version, none is ever changed, and nobody overwrites another.

A review is four things in one transaction: rows, a journal fact, objects owed to those who were told, and the end of
the study's alert. It is also a label: ``labels`` reads the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from appliance.errors import ConflictError, NotFoundError
from appliance.records import (
    SELF_TEST_SOURCE,
    Actor,
    ActorKind,
    AnalysisResult,
    ReviewDecision,
    ReviewedFinding,
    SignedReview,
    UserRole,
)
from appliance.store.alerts import decide_alert
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts.reviews import ReviewAsked, ReviewSigned
from appliance.store.jsonable import dump, load
from appliance.store.review_rows import read_reviews, spoken_of
from appliance.store.review_rules import Draft, Judged, ReviewRefusedError, judge, places_hold
from appliance.store.samples import basis_ids, request_review
from appliance.store.sending import Sending, carry_out, planned
from appliance.store.viewrows import marks

#: An alert that nobody decided for so long is history; what is asked for or sampled waits as long as it takes.
QUEUE_DAYS = 30
#: Stands in ``Reading.seen`` where the images were read elsewhere, since they have left this box.
ELSEWHERE = "elsewhere"


class ReviewConflictError(ConflictError):
    """Somebody signed, or the images changed, since the page was opened."""

    def __init__(self, message: str, standing: SignedReview | None, etag: str) -> None:
        """Say what stands now."""
        super().__init__(message)
        self.standing = standing
        self.etag = etag


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the images were read, as the page tells it; no server can know whether a person looked."""

    #: Series id, or ``ELSEWHERE``: images that were shown.
    seen: Mapping[str, int] = field(default_factory=dict)
    #: What was entered before the AI's result was shown; empty where it was not hidden.
    opinion: str = ""


class Reviews:
    """Reads cases and signs reviews; each signature is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    # Reading ---------------------------------------------------------------------------------------------------

    def queue(self, limit: int = 200) -> list[Waiting]:
        """Studies that wait for a radiologist: urgent alerts first, then what was asked for, then the sample.

        The box's own test studies wait for nobody.
        """
        since = iso(self._db.clock.now() - timedelta(days=QUEUE_DAYS))
        rows = self._db.all(
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

    def case(self, study_id: int) -> Case:
        """A study as a reviewer meets it.

        Raises:
            NotFoundError: No such study.
        """
        return _case(self._db, study_id)

    def of_study(self, study_id: int) -> tuple[SignedReview, ...]:
        """Every version, the first one first."""
        return read_reviews(self._db, study_id)

    def will_send(
        self, study_id: int, draft: Draft, *, counts: bool = True
    ) -> tuple[tuple[ReviewedFinding, ...], list[Sending]]:
        """What a draft says finding by finding, and what would go where, were it signed now.

        Raises:
            ReviewRefusedError: The draft is not whole.
        """
        case = _case(self._db, study_id)
        said = judge(case.basis, draft)
        return said, planned(self._db, _holds(case, said)) if counts else []

    # Acts ------------------------------------------------------------------------------------------------------

    def ask(self, study_id: int, actor: Actor) -> None:
        """Somebody wants a radiologist's word on a study.

        Raises:
            NotFoundError: No such study.
        """
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM study WHERE id = ?", (study_id,)) is None:
                raise NotFoundError(f"study {study_id} does not exist; 'scanside study list' shows those that do")
            waits = tx.one("SELECT 1 FROM review_request WHERE study_id = ? AND done_at IS NULL", (study_id,))
            if waits is None:
                request_review(tx, study_id, actor.name or str(actor.kind))
                tx.journal(ReviewAsked(), study_id=study_id, actor=actor)

    def sign(
        self,
        study_id: int,
        draft: Draft,
        etag: str,
        actor: Actor,
        reading: Reading,
        *,
        organization: str,
        counts: bool = True,
    ) -> SignedReview:
        """Sign a new version.

        Args:
            study_id: The study.
            draft: What the person says.
            etag: Of the case that they were shown.
            actor: The radiologist.
            reading: How they read it, for the journal.
            organization: Whose radiologist; stands in the report.
            counts: False for a test account: in no figure and no label; alert, queue and reports stay as they are.

        Raises:
            ReviewConflictError: The case is not as it was shown. Nothing is written.
            ReviewRefusedError: The draft is not whole, or images were not looked at.
            NotFoundError: No such study.
        """
        if actor.kind is not ActorKind.PERSON or actor.role != UserRole.RADIOLOGIST or not actor.name.strip():
            raise ReviewRefusedError("only a radiologist who is signed in by name can sign a review")
        with self._db.write() as tx:
            case = _case(tx, study_id)
            standing = case.reviews[-1] if case.reviews else None
            if case.etag != etag:
                raise ReviewConflictError(
                    "this study is not as it was when the page was opened; reload and look again", standing, case.etag
                )
            _looked(case, reading)
            said = judge(case.basis, draft)
            review_id, version = _insert(tx, case, draft, said, actor, reading, organization, counts=counts)
            objects = _take_effect(tx, case, said, version) if counts else 0
            before = tx.one("SELECT predecessor FROM review WHERE id = ?", (review_id,))
            tx.journal(
                ReviewSigned(
                    review=review_id,
                    version=version,
                    predecessor=before["predecessor"] if before else None,
                    decision=draft.decision,
                    reason=draft.reason,
                    findings=len(said),
                    seen=dict(reading.seen),
                    opinion=reading.opinion,
                    objects=objects,
                ),
                study_id=study_id,
                actor=actor,
            )
            if counts and draft.decision is not ReviewDecision.CANNOT_JUDGE:
                decide_alert(tx, study_id, str(draft.decision), actor, [one.analysis_id for one in case.basis])
            return read_reviews(tx, study_id)[-1]


def _case(db: Database | Transaction, study_id: int) -> Case:
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


def _looked(case: Case, reading: Reading) -> None:
    if reading.seen.get(ELSEWHERE):
        return
    missing = [series for series in case.series if reading.seen.get(str(series), 0) < 1]
    if missing:
        raise ReviewRefusedError(
            f"no image was shown of {len(missing)} of the series that are judged; look at them first"
        )


def _take_effect(tx: Transaction, case: Case, said: tuple[ReviewedFinding, ...], version: int) -> int:
    """Owe what destinations are told now, and end what called for this review; returns how many objects change."""
    identity_revision = tx.all("SELECT identity_revision FROM study WHERE id = ?", (case.study_id,))[0][0]
    objects = carry_out(tx, _holds(case, said), identity_revision, version)
    for table in ("review_request", "review_sample"):
        ended = f"UPDATE {table} SET done_at = ? WHERE study_id = ? AND done_at IS NULL"  # noqa: S608 - names above
        tx.execute(ended, (tx.at, case.study_id))
    return objects


def _holds(case: Case, said: tuple[ReviewedFinding, ...]) -> dict[int, bool]:
    """Every analysis of which something is said, now or until now: whether what its package marked stands."""
    spoken = case.spoken | {one.analysis_id for one in said}
    return {
        one.analysis_id: places_hold(one.result, [item for item in said if item.analysis_id == one.analysis_id])
        for one in case.basis
        if one.analysis_id in spoken
    }


def _insert(
    tx: Transaction,
    case: Case,
    draft: Draft,
    said: tuple[ReviewedFinding, ...],
    actor: Actor,
    reading: Reading,
    organization: str,
    *,
    counts: bool,
) -> tuple[int, int]:
    before = tx.one("SELECT id, version FROM review WHERE study_id = ? ORDER BY version DESC LIMIT 1", (case.study_id,))
    version = before["version"] + 1 if before else 1
    review_id = tx.insert(
        "review",
        study_id=case.study_id,
        version=version,
        predecessor=before["id"] if before else None,
        decision=str(draft.decision),
        reason=draft.reason and str(draft.reason),
        note=draft.note,
        basis=json.dumps([one.analysis_id for one in case.basis]),
        seen=json.dumps(dict(reading.seen)),
        opinion=reading.opinion,
        signed_at=tx.at,
        signed_by=actor.name,
        role=actor.role,
        organization=organization,
        counts=int(counts),
    )
    for n, one in enumerate(said):
        tx.insert(
            "review_finding",
            review_id=review_id,
            n=n,
            analysis_id=one.analysis_id,
            finding=one.finding,
            presence=str(one.presence),
            flagged=int(one.flagged),
            is_right=None if one.is_right is None else int(one.is_right),
            added=int(one.added),
            code=one.code,
            side=one.side and str(one.side),
            category=one.category,
            region=dump(one.region) if one.region else None,
        )
    return review_id, version
