"""Rows of the database as read models."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from datetime import datetime

from appliance.records import AlertState, AnalysisResult, AnalysisState, Outcome, Reason, Role
from appliance.store.database import from_iso
from appliance.store.readmodels import (
    AlertView,
    AnalysisView,
    ChoiceView,
    ExposureView,
    FactView,
    FindingView,
    Flagged,
    KeySlice,
)


def marks(values: Collection[object]) -> str:
    """Placeholders for an SQL list."""
    return ", ".join("?" * len(values))


def optional_at(text: str | None) -> datetime | None:
    """A time column that may be NULL."""
    return from_iso(text) if text else None


def _ms(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds() * 1000, 1)


def analysis_view(
    row: sqlite3.Row,
    result: AnalysisResult | None,
    numbers: dict[str, int | None],
    exposures: tuple[ExposureView, ...],
    choice: ChoiceView | None,
) -> AnalysisView:
    """An analysis; ``numbers`` are the instance numbers of the key slices by SOP Instance UID."""
    findings = result.findings if result else ()
    return AnalysisView(
        id=row["id"],
        package=row["package"],
        package_version=row["package_version"],
        role=Role(row["role"]),
        state=AnalysisState(row["state"]),
        notify=row["notify"],
        intended_use=row["intended_use"],
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        reason=Reason(row["reason"]) if row["reason"] else None,
        detail=result.detail if result else "",
        details=result.details if result else (),
        findings=tuple(
            FindingView(
                package=row["package"],
                id=finding.id,
                category=finding.category,
                flagged=finding.flagged,
                score=finding.score,
                operating_point=finding.operating_point,
                threshold=finding.threshold,
                measurements=finding.measurements,
                key_slices=tuple(
                    KeySlice(sop_instance_uid=uid, instance_number=numbers.get(uid)) for uid in finding.key_instances
                ),
            )
            for finding in findings
        ),
        caveats=result.caveats if result else (),
        warnings=result.warnings if result else (),
        late=bool(row["late"]),
        superseded_by=row["superseded_by"],
        predecessor=row["predecessor"],
        ready_at=from_iso(row["ready_at"]),
        started_at=optional_at(row["started_at"]),
        done_at=optional_at(row["done_at"]),
        hops_ms=_hops_ms(row, result),
        pictures=result.pictures if result and row["files_removed_at"] is None else (),
        exposures=exposures,
        choice=choice,
        files_removed=row["files_removed_at"] is not None,
    )


def _hops_ms(row: sqlite3.Row, result: AnalysisResult | None) -> dict[str, float]:
    """What the rows tell, completed by what worker and daemon measured themselves."""
    hops: dict[str, float] = {}
    ready, started, done = from_iso(row["ready_at"]), optional_at(row["started_at"]), optional_at(row["done_at"])
    if row["completeness_s"] is not None:
        hops["completeness"] = round(row["completeness_s"] * 1000, 1)
    if started is not None:
        hops["queued"] = _ms(ready, started)
        if done is not None:
            hops["worker"] = _ms(started, done)
    if done is not None and "completeness" in hops:
        hops["total"] = round(hops["completeness"] + _ms(ready, done), 1)
    return hops | (dict(result.hops_ms) if result else {})


def alert_view(row: sqlite3.Row) -> AlertView:
    """An alert."""
    return AlertView(
        id=row["id"],
        study_id=row["study_id"],
        analysis_id=row["analysis_id"],
        state=AlertState(row["state"]),
        category=row["category"],
        active=bool(row["active"]),
        chime=bool(row["chime"]),
        findings=tuple(
            Flagged(package=item["package"], finding=item["finding"]) for item in json.loads(row["findings"])
        ),
        identity_revision=row["identity_revision"],
        raised_at=from_iso(row["raised_at"]),
        presented_at=optional_at(row["presented_at"]),
        acknowledged_at=optional_at(row["acknowledged_at"]),
        acknowledged_by=row["acknowledged_by"] or "",
        withdrawn_at=optional_at(row["withdrawn_at"]),
        withdrawn_why=row["withdrawn_why"] or "",
        predecessor=row["predecessor"],
        communicated_at=optional_at(row["communicated_at"]),
        decided_at=optional_at(row["decided_at"]),
        decided_by=row["decided_by"] or "",
        decision=row["decision"] or "",
    )


def fact_view(row: sqlite3.Row) -> FactView:
    """A journal row."""
    actor = json.loads(row["actor"])
    return FactView(
        seq=row["seq"],
        at=from_iso(row["at"]),
        kind=row["kind"],
        actor=actor["name"] or actor["kind"],
        body=json.loads(row["body"]),
    )
