"""Analyses that wait for a version that no longer runs: given to the one that took over, else ended as withdrawn."""

from __future__ import annotations

from typing import Any

from appliance.records import AnalysisResult, Detail, Outcome, Reason, Role
from appliance.store.database import Database, Transaction
from appliance.store.ending import Owing, end_analysis
from appliance.store.revisions import LOOK_AGAIN
from appliance.store.settle import settle_study

_ORPHANS = (
    "SELECT a.id, a.study_id, a.package, a.role, EXISTS (SELECT 1 FROM package p WHERE p.name = a.package"
    " AND p.state = 'live') AS has_heir FROM analysis a WHERE a.state <> 'done' AND a.state = 'queued'"
    " AND a.superseded_by IS NULL"
    # A package that the table does not hold at all is a test's, or older than the table.
    " AND EXISTS (SELECT 1 FROM package p WHERE p.name = a.package)"
    " AND NOT EXISTS (SELECT 1 FROM package p WHERE p.name = a.package AND p.version = a.package_version"
    " AND p.state IN ('silent', 'shadow', 'live'))"
)


def has_orphans(db: Database) -> bool:
    """Whether anything waits for a version that no longer runs."""
    return db.one(f"{_ORPHANS} LIMIT 1") is not None


def hand_over(tx: Transaction, stream: str, owed: Owing) -> int:
    """Let routing decide again for what waits for a version that was replaced; what nobody takes over ends.

    Returns:
        How many analyses waited.
    """
    rows = tx.all(_ORPHANS)
    for row in rows:
        if row["has_heir"] and row["role"] == Role.LIVE:
            tx.execute(
                "UPDATE revision SET routed = ? WHERE routed = 1 AND id IN"
                " (SELECT revision_id FROM analysis_input WHERE analysis_id = ?)",
                (LOOK_AGAIN, row["id"]),
            )
        else:
            _end(tx, stream, owed, row, _replaced_result(row["package"]))
    return len(rows)


def end_orphans(tx: Transaction, stream: str, owed: Owing, study_id: int) -> None:
    """End what routing, asked again, has given to no other version; the caller settles the study."""
    for row in tx.all(f"{_ORPHANS} AND a.study_id = ?", (study_id,)):
        _end(tx, stream, owed, row, _replaced_result(row["package"]), settle=False)


def withdraw_analyses(tx: Transaction, stream: str, owed: Owing, package: str, version: str) -> int:
    """End everything that waits for, or is in, a version that was withdrawn. Returns how many."""
    rows = tx.all(
        "SELECT id, study_id, package, role FROM analysis WHERE package = ? AND package_version = ?"
        " AND state <> 'done' AND superseded_by IS NULL",
        (package, version),
    )
    for row in rows:
        _end(tx, stream, owed, row, withdrawn_result(package))
    return len(rows)


def withdrawn_result(package: str) -> AnalysisResult:
    """How a study ends that a withdrawn package has in hand, or would take."""
    detail = Detail("{package} was taken out of service on this box", {"package": package})
    return AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.WITHDRAWN, details=(detail,))


def _replaced_result(package: str) -> AnalysisResult:
    detail = Detail("{package} no longer runs on this box", {"package": package})
    return AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.WITHDRAWN, details=(detail,))


def _end(tx: Transaction, stream: str, owed: Owing, row: Any, result: AnalysisResult, *, settle: bool = True) -> None:
    end_analysis(tx, stream, row["id"], result, owed(row["package"], result))
    if settle:
        settle_study(tx, row["study_id"], chime=True)
