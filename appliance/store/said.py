"""What an analysis said and the texts of the package that said it: for telling it in another language than English."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from appliance.records import AnalysisResult
from appliance.store.database import Database
from appliance.store.jsonable import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One analysis."""

    result: AnalysisResult
    #: ``model.yaml`` of its package; empty where this box does not know that version.
    manifest: str


def read_said(db: Database, delivery_id: int) -> Said | None:
    """What the analysis said that a delivery tells of; None where its row does not tell."""
    row = db.one(
        "SELECT a.package, a.package_version, a.result FROM delivery d JOIN analysis a ON a.id = d.analysis_id"
        " WHERE d.id = ?",
        (delivery_id,),
    )
    if row is None or row["result"] is None:
        return None
    try:
        result = load(AnalysisResult, row["result"])
    except ValidationError:
        return None
    package = db.one(
        "SELECT manifest FROM package WHERE name = ? AND version = ? ORDER BY digest = ? DESC, id DESC LIMIT 1",
        (row["package"], row["package_version"], result.package_digest),
    )
    return Said(result=result, manifest=package["manifest"] if package else "")
