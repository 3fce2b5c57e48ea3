"""Signed reviews as labels for training: the last version that counts of each study, with the images that it judged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from appliance.records import SELF_TEST_SOURCE, Actor, AnalysisResult, FindingResult, Identity, SignedReview
from appliance.store.database import Database, iso
from appliance.store.facts.reviews import LabelsExported
from appliance.store.jsonable import load
from appliance.store.review_rows import IS_LAST, reviews_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelImage:
    """One image of a judged analysis; ``path`` is relative to the spool, empty where it has left the box."""

    sop_instance_uid: str
    series_instance_uid: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAnalysis:
    """What a package said."""

    id: int
    package: str
    package_version: str
    outcome: str
    findings: tuple[FindingResult, ...]
    images: tuple[LabelImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One reviewed study."""

    study_id: int
    identity: Identity
    #: Chance chose it: such cases alone tell how often something is missed.
    is_sampled: bool
    review: SignedReview
    analyses: tuple[LabelAnalysis, ...]


class Labels:
    """Reads labels and records that they left."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def read(self, since: datetime | None = None, package: str = "") -> list[Label]:
        """Labels of what was signed since ``since``, oldest first; none of test accounts or of the box's own tests.

        Args:
            since: None for all.
            package: Only analyses of this one; studies without any are left out.
        """
        rows = self._db.all(
            "SELECT r.*, s.identity, EXISTS (SELECT 1 FROM review_sample p WHERE p.study_id = r.study_id) AS sampled"  # noqa: S608
            f" FROM review r JOIN study s ON s.id = r.study_id WHERE r.signed_at >= ? AND r.counts = 1 AND {IS_LAST}"
            " AND s.source <> ? ORDER BY r.id",
            (iso(since) if since else "", SELF_TEST_SOURCE),
        )
        reviews = reviews_of(self._db, rows)
        found = []
        for row in rows:
            analyses = [self._analysis(one) for one in json.loads(row["basis"])]
            kept = tuple(one for one in analyses if package in {"", one.package})
            if kept:
                found.append(
                    Label(
                        study_id=row["study_id"],
                        identity=load(Identity, row["identity"]),
                        is_sampled=bool(row["sampled"]),
                        review=reviews[row["id"]],
                        analyses=kept,
                    )
                )
        return found

    def exported(
        self,
        actor: Actor,
        *,
        identified: bool,
        reviews: int,
        images: int,
        held_back: int,
        package: str = "",
        reason: str = "",
        second: str = "",
    ) -> None:
        """Labels were written outside the box."""
        with self._db.write() as tx:
            fact = LabelsExported(
                identified=identified,
                reviews=reviews,
                images=images,
                held_back=held_back,
                package=package,
                reason=reason,
                second=second,
            )
            tx.journal(fact, actor=actor)

    def _analysis(self, analysis_id: int) -> LabelAnalysis:
        (row,) = self._db.all("SELECT * FROM analysis WHERE id = ?", (analysis_id,))
        result = load(AnalysisResult, row["result"])
        images = self._db.all(
            "SELECT i.sop_instance_uid, s.series_instance_uid, CASE WHEN v.removed_at IS NULL THEN v.path ELSE '' END"
            " AS path FROM analysis_input ai JOIN revision_version rv ON rv.revision_id = ai.revision_id"
            " JOIN version v ON v.id = rv.version_id JOIN instance i ON i.id = v.instance_id"
            " JOIN series s ON s.id = i.series_id WHERE ai.analysis_id = ? ORDER BY s.id, v.instance_number, v.id",
            (analysis_id,),
        )
        return LabelAnalysis(
            id=analysis_id,
            package=row["package"],
            package_version=row["package_version"],
            outcome=row["outcome"],
            findings=result.findings,
            images=tuple(
                LabelImage(
                    sop_instance_uid=image["sop_instance_uid"],
                    series_instance_uid=image["series_instance_uid"],
                    path=image["path"],
                )
                for image in images
            ),
        )
