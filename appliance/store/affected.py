"""The look-back: which studies a package analysed in a span of time, and what of it went out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from appliance.records import Outcome, Reason, Role
from appliance.store.database import Database, from_iso, iso
from appliance.store.facts import Kind
from appliance.store.viewrows import marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """One analysis by the package, for the person who looks the study up again."""

    study_id: int
    accession_number: str
    source: str
    analysis_id: int
    version: str
    role: Role
    outcome: Outcome
    reason: Reason | None
    done_at: datetime
    #: A newer analysis has taken its place.
    superseded: bool
    #: An alert rested on it: it was raised for it, or went over to it.
    alerted: bool
    #: Objects of it that a destination has taken.
    delivered: int


def affected(db: Database, package: str, since: datetime, until: datetime, version: str = "") -> list[Affected]:
    """Analyses by a package that ended in ``[since, until)``, oldest first; ``version`` empty: by any of them."""
    rows = db.all(
        "SELECT a.*, s.source, s.identity, (SELECT count(*) FROM delivery d WHERE d.analysis_id = a.id"
        " AND d.state = 'sent') AS delivered FROM analysis a JOIN study s ON s.id = a.study_id"
        " WHERE a.package = ? AND ? IN ('', a.package_version) AND a.outcome IS NOT NULL"
        " AND a.done_at >= ? AND a.done_at < ? ORDER BY a.done_at, a.id",
        (package, version, iso(since), iso(until)),
    )
    alerted = _alerted(db, sorted({row["study_id"] for row in rows}))
    return [
        Affected(
            study_id=row["study_id"],
            accession_number=json.loads(row["identity"]).get("accession_number", ""),
            source=row["source"],
            analysis_id=row["id"],
            version=row["package_version"],
            role=Role(row["role"]),
            outcome=Outcome(row["outcome"]),
            reason=Reason(row["reason"]) if row["reason"] else None,
            done_at=from_iso(row["done_at"]),
            superseded=row["superseded_by"] is not None,
            alerted=row["id"] in alerted,
            delivered=row["delivered"],
        )
        for row in rows
    ]


def _alerted(db: Database, study_ids: list[int]) -> set[int]:
    """Analyses that an alert rested on at some time: the alert's row names only the last."""
    kinds = (str(Kind.ALERT_RAISED), str(Kind.ALERT_UPDATED))
    found: set[int] = set()
    for start in range(0, len(study_ids), 500):
        part = tuple(study_ids[start : start + 500])
        sql = f"SELECT body FROM journal WHERE study_id IN ({marks(part)}) AND kind IN (?, ?)"  # noqa: S608 - marks
        found |= {json.loads(row["body"])["analysis"] for row in db.all(sql, (*part, *kinds))}
    return found
