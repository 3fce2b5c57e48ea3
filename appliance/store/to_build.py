"""What the builder of result objects must know of one analysis, read in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from appliance.errors import NotFoundError
from appliance.records import AnalysisResult, DeliveryKind, Header, Identity, SignedReview
from appliance.store.database import Database, from_iso
from appliance.store.jsonable import load
from appliance.store.orders import carried
from appliance.store.review_rows import review_of_analysis


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One received image that an analysis rests on."""

    sop_instance_uid: str
    series_instance_uid: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """An object that says what holds no longer, and the study that it stands in."""

    sop_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToBuild:
    """One analysis whose result objects are owed and not built yet."""

    analysis_id: int
    study_id: int
    package: str
    package_version: str
    done_at: datetime
    late: bool
    result: AnalysisResult
    #: Of the images; what they leave open comes from the order, where that is theirs beyond doubt.
    identity: Identity
    #: What the RIS says is to be done; empty where it was not asked or knows no order.
    procedure: str
    identity_revision: int
    study_description: str
    study_date: str
    study_time: str
    #: Header of the first instance of the first series that was analysed.
    header: Header
    files: tuple[SourceFile, ...]
    #: Kind of object: its SOP Instance UID, minted when it was owed.
    objects: dict[DeliveryKind, str]
    #: Kind of object: what was said before, by this analysis under another identity or by earlier ones, newest first.
    predecessors: dict[DeliveryKind, tuple[Predecessor, ...]]
    #: What a radiologist signed of it.
    review: SignedReview | None


def read_to_build(db: Database, analysis_id: int) -> ToBuild:
    """What an analysis said, of which files, and which objects are to tell it.

    Raises:
        NotFoundError: The analysis has no result or no images.
    """
    owed = db.all(
        "SELECT DISTINCT kind, sop_instance_uid FROM delivery WHERE analysis_id = ? AND state = 'held'"
        " AND path IS NULL AND kind <> 'rejection_note'",
        (analysis_id,),
    )
    row = db.one(
        "SELECT a.*, s.identity_revision AS identity_now, s.description, s.study_date, s.study_time"
        " FROM analysis a JOIN study s ON s.id = a.study_id WHERE a.id = ?",
        (analysis_id,),
    )
    files = db.all(
        # Of an image whose analysed version has left the box another one does: the same pixels, corrected attributes.
        "SELECT i.sop_instance_uid, s.series_instance_uid, s.header,"
        " CASE WHEN v.removed_at IS NULL THEN v.path WHEN c.removed_at IS NULL THEN c.path END AS path"
        " FROM analysis_input ai"
        " JOIN revision_version rv ON rv.revision_id = ai.revision_id JOIN version v ON v.id = rv.version_id"
        " JOIN instance i ON i.id = v.instance_id JOIN series s ON s.id = i.series_id"
        " LEFT JOIN version c ON c.id = i.version_id"
        " WHERE ai.analysis_id = ? ORDER BY s.id, v.id",
        (analysis_id,),
    )
    if row is None or row["result"] is None or not files:
        raise NotFoundError(f"analysis {analysis_id} owes an object but has no result or no images")
    gone = sum(item["path"] is None for item in files)
    if gone:
        raise NotFoundError(
            f"images removed: {gone} images of analysis {analysis_id} have left this box; send the study again from"
            " scanner or PACS, then 'scanside dest retry'"
        )
    identity, procedure = carried(db, row["study_id"])
    objects = {DeliveryKind(item["kind"]): str(item["sop_instance_uid"]) for item in owed}
    return ToBuild(
        analysis_id=analysis_id,
        study_id=row["study_id"],
        package=row["package"],
        package_version=row["package_version"],
        done_at=from_iso(row["done_at"]),
        late=bool(row["late"]),
        result=_with_files(load(AnalysisResult, row["result"]), are_there=row["files_removed_at"] is None),
        identity=identity,
        procedure=procedure,
        identity_revision=row["identity_now"],
        study_description=row["description"],
        study_date=row["study_date"],
        study_time=row["study_time"],
        header=load(Header, files[0]["header"]),
        files=tuple(
            SourceFile(
                sop_instance_uid=item["sop_instance_uid"],
                series_instance_uid=item["series_instance_uid"],
                path=item["path"],
            )
            for item in files
        ),
        objects=objects,
        predecessors={kind: _predecessors(db, analysis_id, kind, uid) for kind, uid in objects.items()},
        review=review_of_analysis(db, row["study_id"], analysis_id),
    )


def _with_files(result: AnalysisResult, *, are_there: bool) -> AnalysisResult:
    """The result without the pictures and masks that retention has removed."""
    return result if are_there else dataclasses.replace(result, pictures=(), masks=None)


def _predecessors(db: Database, analysis_id: int | None, kind: DeliveryKind, uid: str) -> tuple[Predecessor, ...]:
    """Objects that were built once, other than ``uid``; what was never built cannot be named."""
    found = []
    while analysis_id is not None:
        rows = db.all(
            "SELECT sop_instance_uid, study_instance_uid FROM delivery WHERE analysis_id = ? AND kind = ?"
            " AND sop_instance_uid <> ? AND (path IS NOT NULL OR identity <> '')"
            " GROUP BY sop_instance_uid ORDER BY max(id) DESC",
            (analysis_id, str(kind), uid),
        )
        found += [
            Predecessor(sop_instance_uid=row["sop_instance_uid"], study_instance_uid=row["study_instance_uid"])
            for row in rows
        ]
        older = db.one("SELECT predecessor FROM analysis WHERE id = ?", (analysis_id,))
        analysis_id = older["predecessor"] if older else None
    return tuple(found)
