"""Images that a rejection note takes back (IHE IOCM): what rests on them is withdrawn, visibly and at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from appliance.records import AnalysisResult, Detail, Outcome, Reason, Rejection, RejectionTitle, Role
from appliance.store.analyses import Plan, queue_analysis
from appliance.store.database import Transaction
from appliance.store.ending import end_analysis
from appliance.store.facts.intake import ImagesRejected
from appliance.store.readmodels import REJECTED
from appliance.store.settle import settle_study, withdraw_alert
from appliance.store.viewrows import marks

_DETAILS = {
    RejectionTitle.QUALITY: Detail("the images were rejected for quality reasons"),
    RejectionTitle.PATIENT_SAFETY: Detail("the images were rejected for reasons of patient safety"),
    RejectionTitle.WORKLIST_ENTRY: Detail("the images were rejected: they were taken under a wrong worklist entry"),
    RejectionTitle.RETENTION_EXPIRED: Detail("the images were rejected: the time they are kept for has passed"),
}


def rejected_result(title: RejectionTitle) -> AnalysisResult:
    """How the analysis of rejected images ends."""
    return AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.WITHDRAWN, details=(_DETAILS[title],))


def is_rejection(details: Iterable[Detail]) -> bool:
    """Whether an analysis ended because its images were rejected."""
    texts = {detail.text for detail in _DETAILS.values()}
    return any(detail.text in texts for detail in details)


def rejected_as(tx: Transaction, sop_instance_uid: str) -> str:
    """The title under which a note that came before has rejected an instance; empty for all others."""
    row = tx.one("SELECT title FROM rejected_instance WHERE sop_instance_uid = ?", (sop_instance_uid,))
    return row["title"] if row else ""


def reject_images(
    tx: Transaction, stream: str, note_study_id: int, note_version_id: int, rejection: Rejection, source: str
) -> None:
    """Take back what a note names, here or to come. What an earlier note named already is not taken back twice.

    Whoever may send images may reject them, also those of others: the archive does, after a person has decided there.

    Args:
        tx: The transaction that records the note.
        stream: The database's, for the UIDs of objects.
        note_study_id: The study that the note stands in.
        note_version_id: The note.
        rejection: What it says.
        source: Who sent it.
    """
    for uid in rejection.sop_instance_uids:
        tx.execute(
            "INSERT INTO rejected_instance VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (uid, str(rejection.title), note_version_id, tx.at),
        )
    held = tx.all(
        "SELECT v.id, i.series_id, s.study_id FROM rejected_instance x"
        " JOIN instance i ON i.sop_instance_uid = x.sop_instance_uid JOIN version v ON v.id = i.version_id"
        " JOIN series s ON s.id = i.series_id WHERE x.version_id = ? AND v.state = 'current'",
        (note_version_id,),
    )
    for row in held:
        tx.execute("UPDATE version SET state = 'rejected' WHERE id = ?", (row["id"],))
    for study_id in sorted({row["study_id"] for row in held}) or [note_study_id]:
        mine = [row for row in held if row["study_id"] == study_id]
        series = sorted({row["series_id"] for row in mine})
        tx.journal(
            ImagesRejected(
                note=note_version_id,
                title=str(rejection.title),
                source=source,
                images=len(mine),
                series=tuple(series),
            ),
            study_id=study_id,
        )
        revisions = tx.all(
            "SELECT DISTINCT r.id, r.series_id, r.n FROM rejected_instance x"
            " JOIN instance i ON i.sop_instance_uid = x.sop_instance_uid JOIN series s ON s.id = i.series_id"
            # Any version of it: after a correction another one stands for the image than the one that was analysed.
            " JOIN version v ON v.instance_id = i.id JOIN revision_version rv ON rv.version_id = v.id"
            " JOIN revision r ON r.id = rv.revision_id"
            " WHERE x.version_id = ? AND s.study_id = ?",
            (note_version_id, study_id),
        )
        hit = tuple(row["id"] for row in revisions)
        tx.execute(
            f"UPDATE revision SET rejected = ? WHERE rejected IS NULL AND id IN ({marks(hit)})",  # noqa: S608 - marks
            (str(rejection.title), *hit),
        )
        # What is left of a series becomes a revision of its own; with nothing left the series is closed again.
        tx.execute(f"UPDATE series SET open = 1 WHERE id IN ({marks(series)})", tuple(series))  # noqa: S608 - marks
        _withdraw(tx, stream, study_id, hit, rejection.title)


def _withdraw(tx: Transaction, stream: str, study_id: int, revisions: tuple[int, ...], title: RejectionTitle) -> None:
    """Supersede what rests on these revisions of a study, and take its alert back where that told of them."""
    rows = tx.all(
        "SELECT DISTINCT a.* FROM analysis a JOIN analysis_input i ON i.analysis_id = a.id"  # noqa: S608 - marks
        f" WHERE a.study_id = ? AND i.revision_id IN ({marks(revisions)}) ORDER BY a.id",
        (study_id, *revisions),
    )
    standing = tx.one(
        "SELECT * FROM alert WHERE study_id = ? AND state <> 'withdrawn' ORDER BY id DESC LIMIT 1", (study_id,)
    )
    if standing is not None and any(_told(row, standing["analysis_id"]) for row in rows):
        withdraw_alert(tx, study_id, standing["id"], REJECTED)
    result = rejected_result(title)
    for row in rows:
        if row["superseded_by"] is None and row["reason"] != Reason.WITHDRAWN:
            # Nobody who was not told of these images needs to hear of them now, so nothing else is owed.
            end_analysis(tx, stream, queue_analysis(tx, study_id, _again(tx, row)), result, ())
    settle_study(tx, study_id, chime=False)


def _told(row: Any, lead_id: int) -> bool:
    is_finding = row["role"] == Role.LIVE and row["superseded_by"] is None and row["outcome"] == Outcome.FINDING
    return bool(is_finding or row["id"] == lead_id)


def _again(tx: Transaction, row: Any) -> Plan:
    inputs = tx.all("SELECT role, revision_id FROM analysis_input WHERE analysis_id = ?", (row["id"],))
    return Plan(
        package=row["package"],
        package_version=row["package_version"],
        role=Role(row["role"]),
        category=row["category"],
        notify=row["notify"],
        intended_use=row["intended_use"],
        deadline_s=row["deadline_s"],
        inputs={item["role"]: item["revision_id"] for item in inputs},
        late=bool(row["late"]),
    )
