"""Which image files of a study are here, in which series, and what its analyses point at in them: for viewers."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from appliance.records import AnalysisResult, FindingResult, Vector, VersionState
from appliance.store.database import Database
from appliance.store.jsonable import load
from appliance.store.viewrows import marks, optional_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """The version of one instance that is shown."""

    version_id: int
    sop_instance_uid: str
    #: Relative to the spool; the name is random and never used again.
    path: str
    number: int | None
    position: Vector | None
    orientation: tuple[float, float, float, float, float, float] | None
    #: Retention took the file away.
    is_gone: bool

    @property
    def stem(self) -> str:
        """The random part of its path: under it everything stands that is made of the file."""
        return PurePosixPath(self.path).stem


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSeries:
    """The images of one series, in the order of their instance numbers."""

    id: int
    number: int | None
    modality: str
    description: str
    body_part: str
    is_open: bool
    left_out: str
    #: Frames of its first object.
    frames: int
    #: Images that a rejection note took back; they are not among ``files``.
    rejected: int
    files: tuple[ImageFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStudy:
    """A study as far as its images go."""

    id: int
    source: str
    removed_at: datetime | None
    series: tuple[ImageSeries, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointedAt:
    """What a live analysis flagged, and the file of its masks where it is still here."""

    analysis_id: int
    package: str
    package_version: str
    intended_use: str
    findings: tuple[FindingResult, ...]
    masks: str | None


class Images:
    """Questions; safe to use from any thread."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db

    def of_study(self, study_id: int) -> ImageStudy | None:
        """The series of a study that hold pixels; None for an unknown study."""
        study = self._db.one("SELECT source, images_removed_at FROM study WHERE id = ?", (study_id,))
        if study is None:
            return None
        rows = self._db.all(
            "SELECT i.series_id, i.sop_instance_uid, v.* FROM instance i JOIN version v ON v.id = i.version_id"
            " JOIN series r ON r.id = i.series_id WHERE r.study_id = ?"
            " ORDER BY v.instance_number IS NULL, v.instance_number, v.id",
            (study_id,),
        )
        files: dict[int, list[sqlite3.Row]] = defaultdict(list)
        for row in rows:
            files[row["series_id"]].append(row)
        series = self._db.all(
            "SELECT *, json_extract(header, '$.number_of_frames') AS frames FROM series"
            " WHERE study_id = ? AND json_extract(header, '$.has_pixels') ORDER BY number IS NULL, number, id",
            (study_id,),
        )
        return ImageStudy(
            id=study_id,
            source=study["source"],
            removed_at=optional_at(study["images_removed_at"]),
            series=tuple(_series(row, files[row["id"]]) for row in series),
        )

    def file(self, study_id: int, series_id: int, version_id: int) -> ImageFile | None:
        """One version, if it is shown and of this series of this study."""
        row = self._db.one(
            "SELECT i.sop_instance_uid, v.* FROM version v JOIN instance i ON i.version_id = v.id"
            " JOIN series r ON r.id = i.series_id WHERE v.id = ? AND r.id = ? AND r.study_id = ? AND v.state <> ?",
            (version_id, series_id, study_id, str(VersionState.REJECTED)),
        )
        return _file(row) if row else None

    def source(self, study_id: int) -> str | None:
        """The source of a study; None for an unknown one."""
        row = self._db.one("SELECT source FROM study WHERE id = ?", (study_id,))
        return row["source"] if row else None

    def pointed_at(self, study_id: int) -> tuple[PointedAt, ...]:
        """What the analyses that the study's outcome rests on have flagged; oldest first."""
        rows = self._db.all(
            "SELECT * FROM analysis WHERE study_id = ? AND role = 'live' AND superseded_by IS NULL"
            " AND result IS NOT NULL ORDER BY id",
            (study_id,),
        )
        found = []
        for row in rows:
            result = load(AnalysisResult, row["result"])
            found.append(
                PointedAt(
                    analysis_id=row["id"],
                    package=row["package"],
                    package_version=row["package_version"],
                    intended_use=row["intended_use"],
                    findings=tuple(finding for finding in result.findings if finding.flagged),
                    masks=result.masks if row["files_removed_at"] is None else None,
                )
            )
        return tuple(found)

    def kept(self, study_ids: Iterable[int]) -> set[int]:
        """Of these studies those whose image files are here."""
        ids = tuple(set(study_ids))
        rows = self._db.all(f"SELECT id FROM study WHERE kept = 1 AND id IN ({marks(ids)})", ids)  # noqa: S608
        return {row["id"] for row in rows}


def _series(row: sqlite3.Row, files: list[sqlite3.Row]) -> ImageSeries:
    shown = [file for file in files if file["state"] != VersionState.REJECTED]
    return ImageSeries(
        id=row["id"],
        number=row["number"],
        modality=row["modality"],
        description=row["description"],
        body_part=row["body_part"],
        is_open=bool(row["open"]),
        left_out=row["left_out"] or "",
        frames=max(row["frames"] or 1, 1),
        rejected=len(files) - len(shown),
        files=tuple(_file(file) for file in shown),
    )


def _file(row: sqlite3.Row) -> ImageFile:
    return ImageFile(
        version_id=row["id"],
        sop_instance_uid=row["sop_instance_uid"],
        path=row["path"],
        number=row["instance_number"],
        position=_numbers(row["position"]),
        orientation=_numbers(row["orientation"]),
        is_gone=row["removed_at"] is not None,
    )


def _numbers(text: str | None) -> Any:
    return tuple(json.loads(text)) if text else None
