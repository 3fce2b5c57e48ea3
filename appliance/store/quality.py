"""Quality warnings: what a technologist did about them, and how the images were exposed.

A warning is a flagged finding of an analysis by a ``quality`` package that counts; no row of its own. What a person
chose stands in ``quality_choice``, by analysis: a newer analysis of the study that warns again is open again.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, QualityChoice, QualityReason
from appliance.store.database import Database, from_iso, iso
from appliance.store.facts.analyses import QualityDecided
from appliance.store.readmodels import ChoiceView, ExposureView
from appliance.store.viewrows import marks

#: Analyses that warn, as ``AnalysisView.quality_warnings`` has it.
_WARNS = (
    "a.intended_use = 'quality' AND a.role = 'live' AND a.superseded_by IS NULL AND a.outcome = 'NOTHING_FLAGGED'"
    " AND EXISTS (SELECT 1 FROM json_each(a.result, '$.findings') f WHERE json_extract(f.value, '$.flagged'))"
)
_EXPOSURE = "v.instance_number, v.exposure_index, v.target_exposure_index, v.deviation_index"
_HAS_EXPOSURE = "coalesce(v.exposure_index, v.target_exposure_index, v.deviation_index) IS NOT NULL"


class Quality:
    """Acts on quality warnings; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def decide(
        self,
        study_id: int,
        choice: QualityChoice,
        reason: QualityReason,
        actor: Actor,
        *,
        seen: Collection[int] | None = None,
    ) -> tuple[int, ...]:
        """A named person says what they did about the quality warnings of a study, and why.

        The same again changes nothing; something else corrects the earlier choice, and both stand in the journal.

        Args:
            study_id: The study.
            choice: What was done.
            reason: Why, as a category of a reject analysis.
            actor: The person; the name stands in the journal.
            seen: The analyses whose warnings the person was looking at; None: the present ones.

        Returns:
            The analyses whose warnings are decided by this.

        Raises:
            NotFoundError: No such study.
            ConflictError: Nothing warns of this study, or no longer what the person saw, or nobody is named.
        """
        if not actor.name.strip():
            raise ConflictError(f"study {study_id}: a choice needs the name of the person who made it")
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM study WHERE id = ?", (study_id,)) is None:
                raise NotFoundError(f"study {study_id} does not exist; 'scanside study list' shows those that do")
            rows = tx.all(f"SELECT a.id FROM analysis a WHERE a.study_id = ? AND {_WARNS} ORDER BY a.id", (study_id,))  # noqa: S608 - our own text
            analyses = tuple(int(row["id"]) for row in rows)
            if not analyses:
                raise ConflictError(
                    f"study {study_id} has no quality warning now; 'scanside study show {study_id}' tells what it has"
                )
            if seen is not None and set(seen) != set(analyses):
                raise ConflictError(f"study {study_id} was analysed again meanwhile; look at its present warnings")
            known = tx.all(
                f"SELECT analysis_id FROM quality_choice WHERE analysis_id IN ({marks(analyses)})"  # noqa: S608 - marks
                " AND choice = ? AND reason = ?",
                (*analyses, str(choice), str(reason)),
            )
            if len(known) == len(analyses):
                return analyses
            for analysis_id in analyses:
                tx.execute(
                    "INSERT INTO quality_choice VALUES (?, ?, ?, ?, ?) ON CONFLICT (analysis_id) DO UPDATE SET"
                    " choice = excluded.choice, reason = excluded.reason, decided_at = excluded.decided_at,"
                    " decided_by = excluded.decided_by",
                    (analysis_id, str(choice), str(reason), tx.at, actor.name),
                )
            tx.journal(QualityDecided(analyses=analyses, choice=choice, reason=reason), study_id=study_id, actor=actor)
            return analyses


def open_warnings(db: Database, since: datetime) -> list[int]:
    """Ids of the studies with warnings that nobody has decided and an image since then; newest warning first."""
    rows = db.all(
        "SELECT st.id FROM study st CROSS JOIN analysis a ON a.study_id = st.id"  # noqa: S608 - our own text
        f" WHERE st.last_at >= ? AND {_WARNS}"
        " AND NOT EXISTS (SELECT 1 FROM quality_choice c WHERE c.analysis_id = a.id)"
        " GROUP BY +st.id ORDER BY max(a.done_at) DESC, st.id DESC",  # the +: by the index of the last image
        (iso(since),),
    )
    return [int(row["id"]) for row in rows]


def deciders(db: Database, limit: int) -> list[str]:
    """Names of those who decided last, most recent first."""
    rows = db.all(
        "SELECT decided_by AS name FROM (SELECT * FROM quality_choice ORDER BY analysis_id DESC LIMIT 500)"
        " GROUP BY 1 ORDER BY max(decided_at) DESC LIMIT ?",
        (limit,),
    )
    return [row["name"] for row in rows]


def choices(db: Database, analysis_ids: tuple[int, ...]) -> dict[int, ChoiceView]:
    """What was chosen, by analysis."""
    rows = db.all(f"SELECT * FROM quality_choice WHERE analysis_id IN ({marks(analysis_ids)})", analysis_ids)  # noqa: S608
    return {
        row["analysis_id"]: ChoiceView(
            choice=QualityChoice(row["choice"]),
            reason=QualityReason(row["reason"]),
            decided_at=from_iso(row["decided_at"]),
            decided_by=row["decided_by"],
        )
        for row in rows
    }


def exposures_of_analyses(db: Database, analysis_ids: tuple[int, ...]) -> Mapping[int, tuple[ExposureView, ...]]:
    """How the images that analyses took were exposed, by analysis; images whose header does not say are left out."""
    rows = db.all(
        f"SELECT i.analysis_id, {_EXPOSURE} FROM analysis_input i"  # noqa: S608 - marks and our own text
        " JOIN revision_version r ON r.revision_id = i.revision_id JOIN version v ON v.id = r.version_id"
        f" WHERE i.analysis_id IN ({marks(analysis_ids)}) AND {_HAS_EXPOSURE} ORDER BY v.instance_number, v.id",
        analysis_ids,
    )
    found: dict[int, list[ExposureView]] = defaultdict(list)
    for row in rows:
        found[row["analysis_id"]].append(_exposure(row))
    return {analysis_id: tuple(views) for analysis_id, views in found.items()}


def exposures_of_series(db: Database, series_id: int) -> tuple[ExposureView, ...]:
    """How the images of a series were exposed, as they stand now."""
    rows = db.all(
        f"SELECT {_EXPOSURE} FROM instance i JOIN version v ON v.id = i.version_id"  # noqa: S608 - our own text
        f" WHERE i.series_id = ? AND {_HAS_EXPOSURE} ORDER BY v.instance_number, v.id",
        (series_id,),
    )
    return tuple(map(_exposure, rows))


def _exposure(row: sqlite3.Row) -> ExposureView:
    return ExposureView(
        instance_number=row["instance_number"],
        exposure_index=row["exposure_index"],
        target_exposure_index=row["target_exposure_index"],
        deviation_index=row["deviation_index"],
    )
