"""The end of one analysis inside a transaction: its row, its fact, the objects owed; and of a shadow its agreement."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appliance.records import AnalysisResult, DeliveryKind, Role
from appliance.store.database import Transaction
from appliance.store.facts.analyses import AnalysisDone
from appliance.store.facts.deliveries import DeliveryOwed
from appliance.store.facts.packages import ShadowAgreement
from appliance.store.jsonable import dump, load
from appliance.store.notes import SAYS_ALL, UNNAMED, reject_superseded


@dataclass(frozen=True, slots=True, kw_only=True)
class OwedResult:
    """A result object that one destination is to get."""

    destination: str
    kind: DeliveryKind


#: Which objects which destinations are owed for a result of a package; the caller knows the configuration. Where a
#: rejection note stands among them, the destination is owed one once the others hold no longer.
Owing = Callable[[str, AnalysisResult], tuple[OwedResult, ...]]


def minted_uid(stream: str, analysis_id: int, kind: DeliveryKind) -> str:
    """The SOP Instance UID of a result object: the same for every attempt and destination (PS3.5 B.2, 2.25.<UUID>)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'scanside/{stream}/{analysis_id}/{kind}').int}"


def end_analysis(
    tx: Transaction, stream: str, analysis_id: int, result: AnalysisResult, owed: tuple[OwedResult, ...]
) -> None:
    """End an analysis; the caller settles its study afterwards.

    Args:
        tx: The transaction of the act.
        stream: The database's, for the UIDs of objects.
        analysis_id: The analysis.
        result: How it ended.
        owed: Objects that destinations are to get; silent, shadow and superseded analyses give none.
    """
    row = tx.one(
        "SELECT a.*, s.identity_revision AS identity_now FROM analysis a JOIN study s ON s.id = a.study_id"
        " WHERE a.id = ?",
        (analysis_id,),
    )
    if row is None:  # pragma: no cover - callers hold the row
        return
    tx.execute(
        "UPDATE analysis SET state = 'done', done_at = ?, outcome = ?, reason = ?, result = ? WHERE id = ?",
        (tx.at, str(result.outcome), result.reason and str(result.reason), dump(result), analysis_id),
    )
    is_shadow = row["role"] == Role.SHADOW
    tx.journal(
        AnalysisDone(
            analysis=analysis_id,
            package=row["package"],
            version=row["package_version"],
            role=row["role"],
            outcome=str(result.outcome),
            reason=result.reason and str(result.reason),
            late=bool(row["late"]),
            # Of a shadow only its agreement is told.
            scores={} if is_shadow else {finding.id: finding.score for finding in result.findings},
            hops_ms=result.hops_ms,
            backend=result.backend,
            precision=result.precision,
            engine_digest=result.engine_digest,
        ),
        study_id=row["study_id"],
    )
    if row["superseded_by"] is not None:
        return
    _note_agreement(tx, row, result)
    if row["role"] != Role.LIVE:
        return
    told = _told(tx, row["predecessor"])
    takers = {one["destination"] for one in told if one["takes_notes"]}
    takers |= {one.destination for one in owed if one.kind is DeliveryKind.REJECTION_NOTE}
    objects = tuple(one for one in owed if one.kind is not DeliveryKind.REJECTION_NOTE)
    for item in (*objects, *_corrections(told, objects)):
        takes_notes = item.destination in takers and item.kind is not DeliveryKind.STATEMENT
        delivery_id = tx.insert(
            "delivery",
            destination=item.destination,
            kind=str(item.kind),
            study_id=row["study_id"],
            analysis_id=analysis_id,
            sop_instance_uid=minted_uid(stream, analysis_id, item.kind),
            state="held",
            next_at=tx.at,
            owed_at=tx.at,
            identity_revision=row["identity_now"],
            rejected_by=UNNAMED if takes_notes else None,
        )
        tx.journal(
            DeliveryOwed(
                delivery=delivery_id, destination=item.destination, object=str(item.kind), analysis=analysis_id
            ),
            study_id=row["study_id"],
        )
    # After what takes their place.
    reject_superseded(tx, row["study_id"], row["package"])


def _told(tx: Transaction, predecessor: int | None) -> list[Any]:
    """Destinations and kinds of objects that told of the earlier analysis, and which destinations take notes."""
    rows: list[Any] = []
    while predecessor is not None and not rows:
        rows = tx.all(
            "SELECT destination, kind, max(rejected_by IS NOT NULL) AS takes_notes FROM delivery"
            " WHERE analysis_id = ? AND kind <> 'rejection_note' AND forgotten_at IS NULL GROUP BY destination, kind"
            " ORDER BY destination, kind",
            (predecessor,),
        )
        # One that was superseded before it ended told nobody: the one before it did.
        older = tx.one("SELECT predecessor FROM analysis WHERE id = ?", (predecessor,))
        predecessor = older["predecessor"] if older else None
    return rows


def _corrections(rows: list[Any], owed: tuple[OwedResult, ...]) -> list[OwedResult]:
    """Who was told of the earlier analysis is told of this one, whatever it says: a withdrawn finding is news.

    Where only pictures, places or key objects of it went, a report goes, which says what holds instead.
    """
    told = [OwedResult(destination=row["destination"], kind=DeliveryKind(row["kind"])) for row in rows]
    told = [one for one in told if one.kind in SAYS_ALL]
    heard = {one.destination for one in (*told, *owed)}
    others = dict.fromkeys(row["destination"] for row in rows if row["destination"] not in heard)
    told += [OwedResult(destination=name, kind=DeliveryKind.SR) for name in others]
    return [one for one in told if one not in owed]


def _note_agreement(tx: Transaction, row: Any, result: AnalysisResult) -> None:
    """Once both have ended: what the shadow said of the same images beside the version that serves."""
    if row["role"] == Role.SILENT:
        return
    other_role = Role.LIVE if row["role"] == Role.SHADOW else Role.SHADOW
    other = tx.one(
        "SELECT * FROM analysis WHERE study_id = ? AND package = ? AND role = ? AND state = 'done'"
        " AND superseded_by IS NULL AND result IS NOT NULL ORDER BY id DESC LIMIT 1",
        (row["study_id"], row["package"], str(other_role)),
    )
    if other is None or _inputs(tx, other["id"]) != _inputs(tx, row["id"]):
        return
    mine = (row["package_version"], result)
    theirs = (other["package_version"], load(AnalysisResult, other["result"]))
    (live_version, live), (shadow_version, shadow) = (theirs, mine) if other_role is Role.LIVE else (mine, theirs)
    scores = {finding.id: finding.score for finding in live.findings}
    flagged = {finding.id for finding in live.findings if finding.flagged}
    tx.journal(
        ShadowAgreement(
            package=row["package"],
            live_version=live_version,
            shadow_version=shadow_version,
            same_outcome=(live.outcome, live.reason) == (shadow.outcome, shadow.reason),
            score_differences={f.id: f.score - scores[f.id] for f in shadow.findings if f.id in scores},
            flagged_by_one=tuple(sorted(flagged ^ {f.id for f in shadow.findings if f.flagged})),
        ),
        study_id=row["study_id"],
        subject=row["package"],
    )


def _inputs(tx: Transaction, analysis_id: int) -> set[int]:
    rows = tx.all("SELECT revision_id FROM analysis_input WHERE analysis_id = ?", (analysis_id,))
    return {row["revision_id"] for row in rows}
