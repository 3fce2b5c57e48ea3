"""What follows from the analyses of a study, inside the transaction that changes one: its outcome and its alert."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from appliance.records import AnalysisResult, Outcome, Reason
from appliance.store.database import Transaction
from appliance.store.escalations import clear_notices
from appliance.store.facts.alerts import AlertRaised, AlertUpdated, AlertWithdrawn
from appliance.store.facts.analyses import StudyOutcome
from appliance.store.jsonable import load
from appliance.store.samples import note_ended_study


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One live, not superseded analysis as the rule of the study sees it; ``outcome`` is None while it is open."""

    outcome: Outcome | None
    reason: Reason | None = None


def study_outcome(analyses: Iterable[Ended]) -> tuple[Outcome | None, Reason | None]:
    """The outcome of a study (DESIGN §2): FINDING, else NOT_ANALYSED, else open, NOT_APPLICABLE, NOTHING_FLAGGED.

    Args:
        analyses: Those of live packages that are not superseded. None owed gives NOT_APPLICABLE.

    Returns:
        The outcome, None while it is open, and for NOT_ANALYSED the first reason in the order of ``Reason``.
    """
    rows = list(analyses)
    if any(row.outcome is Outcome.FINDING for row in rows):
        return Outcome.FINDING, None
    if any(row.outcome is None for row in rows):
        return None, None
    reasons = {row.reason for row in rows if row.outcome is Outcome.NOT_ANALYSED}
    if reasons:
        return Outcome.NOT_ANALYSED, next(reason for reason in Reason if reason in reasons)
    return (Outcome.NOTHING_FLAGGED if rows else Outcome.NOT_APPLICABLE), None


def settle_study(tx: Transaction, study_id: int, *, chime: bool) -> None:
    """Bring outcome and alert of a study in line with its analyses.

    Args:
        tx: The transaction of the act that changed an analysis.
        study_id: The study.
        chime: Whether a new active alert may sound; not for late and recovered results.
    """
    rows = tx.all(
        "SELECT * FROM analysis WHERE study_id = ? AND role = 'live' AND superseded_by IS NULL ORDER BY id", (study_id,)
    )
    ended = [
        Ended(
            outcome=Outcome(row["outcome"]) if row["outcome"] else None,
            reason=Reason(row["reason"]) if row["reason"] else None,
        )
        for row in rows
    ]
    outcome, reason = study_outcome(ended)
    study = tx.one("SELECT outcome, reason FROM study WHERE id = ?", (study_id,))
    if study is not None and (study["outcome"], study["reason"]) != (outcome, reason):
        tx.execute(
            "UPDATE study SET outcome = ?, reason = ?, outcome_at = ? WHERE id = ?",
            (outcome and str(outcome), reason and str(reason), tx.at, study_id),
        )
        if outcome is not None:
            tx.journal(StudyOutcome(outcome=str(outcome), reason=reason and str(reason)), study_id=study_id)
    findings = [entry for row in rows if row["outcome"] == Outcome.FINDING for entry in _flagged(row)]
    findings.sort(key=lambda entry: (entry["category"], entry["package"], entry["finding"]))
    still_open = any(row["outcome"] is None for row in rows)
    _settle_alert(tx, study_id, findings, rows, still_open=still_open, chime=chime)
    if not still_open:
        note_ended_study(tx, study_id, outcome)


def _flagged(row: Any) -> list[dict[str, Any]]:
    result = load(AnalysisResult, row["result"])
    return [
        {"package": row["package"], "finding": finding.id, "category": finding.category}
        for finding in result.findings
        if finding.flagged
    ]


def _settle_alert(
    tx: Transaction, study_id: int, findings: list[dict[str, Any]], rows: list[Any], *, still_open: bool, chime: bool
) -> None:
    standing = tx.one(
        "SELECT * FROM alert WHERE study_id = ? AND state <> 'withdrawn' ORDER BY id DESC LIMIT 1", (study_id,)
    )
    if not findings:
        # While a newer analysis is running, the alert of the superseded one goes on being shown.
        if standing is not None and not still_open:
            withdraw_alert(tx, study_id, standing["id"], "superseded")
        return
    lead = next(row for row in rows if row["package"] == findings[0]["package"] and row["outcome"] == Outcome.FINDING)
    notifying = {row["package"] for row in rows if row["notify"] == "active"}
    active = any(entry["package"] in notifying for entry in findings)
    if standing is not None:
        told = {(entry["package"], entry["finding"]) for entry in json.loads(standing["findings"])}
        is_known = {(entry["package"], entry["finding"]) for entry in findings} <= told
        if is_known and findings[0]["category"] >= standing["category"]:
            if standing["analysis_id"] != lead["id"]:
                tx.execute(
                    "UPDATE alert SET analysis_id = ?, findings = ? WHERE id = ?",
                    (lead["id"], json.dumps(findings), standing["id"]),
                )
                tx.journal(AlertUpdated(alert=standing["id"], analysis=lead["id"]), study_id=study_id)
            return
        withdraw_alert(tx, study_id, standing["id"], "superseded")
    _raise(tx, study_id, lead["id"], findings, active=active, chime=chime and active, predecessor=standing)


def withdraw_alert(tx: Transaction, study_id: int, alert_id: int, why: str) -> None:
    """Take an alert back. Its row goes on telling what was shown, and why that holds no longer."""
    tx.execute(
        "UPDATE alert SET state = 'withdrawn', withdrawn_at = ?, withdrawn_why = ? WHERE id = ?", (tx.at, why, alert_id)
    )
    tx.journal(AlertWithdrawn(alert=alert_id, why=why), study_id=study_id)
    clear_notices(tx, alert_id)


def _raise(
    tx: Transaction,
    study_id: int,
    analysis_id: int,
    findings: list[dict[str, Any]],
    *,
    active: bool,
    chime: bool,
    predecessor: Any,
) -> None:
    study = tx.one("SELECT identity_revision FROM study WHERE id = ?", (study_id,))
    earlier = predecessor["id"] if predecessor is not None else None
    alert_id = tx.insert(
        "alert",
        study_id=study_id,
        analysis_id=analysis_id,
        state="raised",
        category=findings[0]["category"],
        active=int(active),
        chime=int(chime),
        findings=json.dumps(findings),
        identity_revision=study["identity_revision"] if study else 1,
        raised_at=tx.at,
        predecessor=earlier,
    )
    tx.journal(
        AlertRaised(
            alert=alert_id,
            analysis=analysis_id,
            category=findings[0]["category"],
            active=active,
            chime=chime,
            predecessor=earlier,
        ),
        study_id=study_id,
    )


def reissue_alert(tx: Transaction, study_id: int) -> None:
    """The study is another patient's than was shown: withdraw its alert and raise it again, without inference.

    It must be acknowledged again, and sounds again if it is active: what was told concerned the wrong person.
    """
    standing = tx.one(
        "SELECT * FROM alert WHERE study_id = ? AND state <> 'withdrawn' ORDER BY id DESC LIMIT 1", (study_id,)
    )
    if standing is None:
        return
    withdraw_alert(tx, study_id, standing["id"], "identity_corrected")
    _raise(
        tx,
        study_id,
        standing["analysis_id"],
        json.loads(standing["findings"]),
        active=bool(standing["active"]),
        chime=bool(standing["active"]),
        predecessor=standing,
    )
