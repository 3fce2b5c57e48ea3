"""What radiologists sign of studies: every signature is a version, none is ever changed, and nobody overwrites another.

A review is four things in one transaction: rows, a journal fact, objects owed to those who were told, and the end of
the study's alert. It is also a label: ``labels`` reads the rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from appliance.errors import ConflictError, NotFoundError
from appliance.records import (
    Actor,
    ActorKind,
    ReviewDecision,
    ReviewedFinding,
    SignedReview,
    UserRole,
)
from appliance.store.alerts import decide_alert
from appliance.store.database import Database, Transaction
from appliance.store.facts.reviews import ReviewAsked, ReviewSigned
from appliance.store.jsonable import dump
from appliance.store.review_cases import Case, Waiting, read_case, read_queue
from appliance.store.review_rows import read_reviews
from appliance.store.review_rules import Draft, ReviewRefusedError, judge, places_hold
from appliance.store.samples import request_review
from appliance.store.sending import Sending, carry_out, planned

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
        return read_queue(self._db, limit)

    def case(self, study_id: int) -> Case:
        """A study as a reviewer meets it.

        Raises:
            NotFoundError: No such study.
        """
        return read_case(self._db, study_id)

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
        case = read_case(self._db, study_id)
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
            case = read_case(tx, study_id)
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
