"""What may leave the box (DESIGN §5): image files some days after the last thing owed, results after a year.

Rows stay; they say what is gone. Never removed, however full the disk is: what is owed, held or parked, sent and not
yet committed to, part of a conflict, not analysed yet, or named in a scanner's request that waits for its report.
Images under an active alert stay until somebody has acknowledged it, or its result has left the box.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts.box import LeftoversRemoved
from appliance.store.facts.deliveries import ResultsRemoved
from appliance.store.facts.intake import ImagesRemoved
from appliance.store.short_series import no_longer_missing
from appliance.store.viewrows import marks

#: ``meta`` row of the large jumps of the wall clock: JSON list of [time after it, seconds], oldest first.
_CLOCK_JUMPS = "clock_jumps"
#: Smaller ones do not matter to spans of days.
_JUMP_S = 3600.0
#: More than a box that loses its clock every night has in the longest span.
_MOST_JUMPS = 1000
_FURTHEST = timedelta(days=100 * 365)
#: A delivery ``d`` that is not over.
_OPEN = "d.state NOT IN ('sent', 'replaced', 'forgotten')"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """A received file that is to go."""

    version_id: int
    path: str


class Retention:
    """Acts of retention; each is one transaction, but for the files, which the caller removes."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def before(self, age: timedelta) -> datetime:
        """What is dated before then is as old as ``age``, also where the wall clock was set ahead since.

        A row from before a jump looks older than it is by the jump, over restarts too. Once ``age`` has passed since,
        every such row is old enough.
        """
        now, ahead = self._db.clock.now(), timedelta()
        row = self._db.one("SELECT value FROM meta WHERE key = ?", (_CLOCK_JUMPS,))
        for at, by_s in reversed(json.loads(row["value"]) if row else []):
            if now - from_iso(at) - ahead >= age:
                break
            ahead = min(ahead + timedelta(seconds=max(by_s, 0.0)), _FURTHEST)
        return now - age - ahead

    def studies_due(self, before: datetime, committing: Collection[str], limit: int = 1) -> list[int]:
        """Studies whose image files may go, oldest first.

        Args:
            before: Nothing of the study happened since.
            committing: Destinations that must have committed to what they were sent.
            limit: At most so many.
        """
        condition, values = _images_due(before, committing)
        sql = f"SELECT s.id FROM study s WHERE s.kept = 1 AND {condition} ORDER BY s.last_at LIMIT ?"  # noqa: S608
        return [row["id"] for row in self._db.all(sql, (*values, limit))]

    def image_files(self, study_id: int) -> list[ImageFile]:
        """The received files of a study that are still here."""
        rows = self._db.all(
            "SELECT v.id, v.path FROM version v JOIN instance i ON i.id = v.instance_id"
            " JOIN series r ON r.id = i.series_id WHERE r.study_id = ? AND v.removed_at IS NULL ORDER BY v.id",
            (study_id,),
        )
        return [ImageFile(version_id=row["id"], path=row["path"]) for row in rows]

    def remove_images(
        self, study_id: int, before: datetime, committing: Collection[str], digests: Mapping[int, str]
    ) -> list[str]:
        """Note that image files of a study are gone; the caller removes them next, or the next start does.

        Args:
            study_id: The study.
            before: As for ``studies_due``: looked at once more, an image may have come meanwhile.
            committing: The same.
            digests: Version: SHA-256 of its pixel data, of every file that goes.

        Returns:
            Paths of the files to remove; none where the study is no longer due.
        """
        condition, values = _images_due(before, committing)
        with self._db.write() as tx:
            sql = f"SELECT 1 FROM study s WHERE s.id = ? AND {condition}"  # noqa: S608 - our own text
            if tx.one(sql, (study_id, *values)) is None:
                return []
            paths, size = [], 0
            for version_id, digest in digests.items():
                row = tx.one("SELECT path, size FROM version WHERE id = ? AND removed_at IS NULL", (version_id,))
                if row is None:
                    continue
                tx.execute(
                    "UPDATE version SET removed_at = ?, pixel_sha256 = ? WHERE id = ?", (tx.at, digest, version_id)
                )
                paths.append(row["path"])
                size += row["size"]
            # By the study, which has an index; no version of it is left.
            tx.execute(
                "UPDATE delivery SET removed_at = ? WHERE study_id = ? AND version_id IS NOT NULL", (tx.at, study_id)
            )
            tx.execute("UPDATE study SET kept = 0, images_removed_at = ? WHERE id = ?", (tx.at, study_id))
            for row in tx.all("SELECT id FROM series WHERE study_id = ?", (study_id,)):
                no_longer_missing(tx, row["id"])
            if paths:
                tx.journal(ImagesRemoved(images=len(paths), size=size), study_id=study_id)
            return paths

    def is_removed(self, path: str) -> bool:
        """Whether this file of the spool should be gone: a crash came between its row and its end."""
        row = self._db.one("SELECT removed_at FROM version WHERE path = ?", (path,))
        return row is not None and row["removed_at"] is not None

    def results_due(self, before: datetime, committing: Collection[str], limit: int = 100) -> list[int]:
        """Analyses whose pictures, masks and result objects may go, oldest first."""
        condition, values = _results_due(before, committing)
        sql = f"SELECT a.id FROM analysis a WHERE {condition} ORDER BY a.done_at LIMIT ?"  # noqa: S608 - our own text
        return [row["id"] for row in self._db.all(sql, (*values, limit))]

    def result_files(self, analysis_id: int) -> list[str]:
        """Every file that tells of an analysis."""
        row = self._db.one("SELECT result FROM analysis WHERE id = ?", (analysis_id,))
        result = json.loads(row["result"]) if row and row["result"] else {}
        files = [*result.get("pictures", ()), *filter(None, [result.get("masks")])]
        sql = "SELECT DISTINCT path FROM delivery WHERE analysis_id = ? AND path IS NOT NULL ORDER BY path"
        return files + [item["path"] for item in self._db.all(sql, (analysis_id,))]

    def results_removed(self, analysis_id: int, files: int) -> None:
        """The files of an analysis are gone. Called after they are: nobody misses one that a crash left unnoted."""
        with self._db.write() as tx:
            row = tx.one("SELECT study_id FROM analysis WHERE id = ? AND files_removed_at IS NULL", (analysis_id,))
            if row is None:
                return
            tx.execute("UPDATE analysis SET files_removed_at = ? WHERE id = ?", (tx.at, analysis_id))
            tx.execute("UPDATE delivery SET removed_at = ? WHERE analysis_id = ?", (tx.at, analysis_id))
            if files:
                tx.journal(ResultsRemoved(analysis=analysis_id, files=files), study_id=row["study_id"])

    def named_results(self, folder: str) -> set[str]:
        """Paths of the result objects in one folder of the spool that a delivery names."""
        rows = self._db.all(
            "SELECT path FROM delivery WHERE kind <> 'original' AND path >= ? AND path < ? AND removed_at IS NULL",
            (f"{folder}/", f"{folder}0"),  # "0" follows "/"
        )
        return {row["path"] for row in rows}

    def named_pictures(self, since: datetime) -> set[str]:
        """Pictures and masks of analyses that ended since then."""
        named: set[str] = set()
        for row in self._db.all(
            "SELECT result FROM analysis WHERE files_removed_at IS NULL AND done_at >= ? AND result IS NOT NULL",
            (iso(since),),
        ):
            result = json.loads(row["result"])
            named.update(result.get("pictures", ()))
            named.update(filter(None, [result.get("masks")]))
        return named

    def leftovers_removed(self, files: int, size: int) -> None:
        """Files that no row names were removed."""
        with self._db.write() as tx:
            tx.journal(LeftoversRemoved(files=files, size=size))


def _images_due(before: datetime, committing: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """The condition on a study ``s``, and its values."""
    at, names = iso(before), tuple(committing)
    condition = (
        "s.last_at < ? AND NOT EXISTS (SELECT 1 FROM series r WHERE r.study_id = s.id AND r.open = 1)"  # noqa: S608 - marks
        " AND NOT EXISTS (SELECT 1 FROM series r JOIN revision n ON n.series_id = r.id"
        "  WHERE r.study_id = s.id AND n.routed <> 1)"
        " AND NOT EXISTS (SELECT 1 FROM analysis a WHERE a.study_id = s.id AND (a.state <> 'done' OR a.done_at >= ?))"
        " AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.study_id = s.id"
        f"  AND ({_OPEN} OR d.sent_at >= ? OR d.committed_at >= ? OR d.forgotten_at >= ? OR {_uncommitted(names)}))"
        # Nobody has looked: who comes late finds the images; what never asked for a person holds nothing back.
        " AND NOT EXISTS (SELECT 1 FROM alert l JOIN analysis a ON a.id = l.analysis_id WHERE l.study_id = s.id"
        "  AND l.active = 1 AND (l.acknowledged_at >= ?"
        "   OR (l.state IN ('raised', 'presented') AND a.files_removed_at IS NULL)))"
        " AND NOT EXISTS (SELECT 1 FROM series r JOIN instance i ON i.series_id = r.id"
        "  JOIN version v ON v.instance_id = i.id WHERE r.study_id = s.id AND (v.state = 'comparing'"
        "  OR v.received_at >= ? OR (v.state = 'conflict' AND EXISTS (SELECT 1 FROM issue WHERE cleared_at IS NULL"
        "   AND code = 'VERSION_CONFLICT' AND subject = 'version ' || v.id))))"
        # In this order, and once for all studies: few requests wait.
        " AND s.id NOT IN (SELECT r.study_id FROM commitment_request q CROSS JOIN commitment_item c"
        "  ON c.request_id = q.id CROSS JOIN instance i ON i.sop_instance_uid = c.sop_instance_uid"
        "  CROSS JOIN series r ON r.id = i.series_id WHERE q.state = 'waiting')"
    )
    return condition, (at, at, at, at, at, *names, at, at)


def _results_due(before: datetime, committing: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """The condition on an analysis ``a``, and its values."""
    at, names = iso(before), tuple(committing)
    condition = (
        "a.files_removed_at IS NULL AND a.done_at < ? AND a.state = 'done'"  # noqa: S608 - marks only
        " AND NOT EXISTS (SELECT 1 FROM delivery d"
        f" WHERE d.analysis_id = a.id AND ({_OPEN} OR d.sent_at >= ? OR d.forgotten_at >= ? OR {_uncommitted(names)}))"
    )
    return condition, (at, at, at, *names)


def _uncommitted(names: tuple[str, ...]) -> str:
    awaited = "d.committed_at IS NULL AND d.removed_at IS NULL AND d.forgotten_at IS NULL"
    return f"({awaited} AND d.destination IN ({marks(names)}))"


def restore_image(tx: Transaction, study_id: int, version_id: int, path: str, size: int) -> None:
    """A removed image lies in the spool again, under another name."""
    tx.execute("UPDATE version SET path = ?, size = ?, removed_at = NULL WHERE id = ?", (path, size, version_id))
    tx.execute(
        "UPDATE delivery SET path = ?, removed_at = NULL WHERE study_id = ? AND version_id = ?",
        (path, study_id, version_id),
    )
    tx.execute("UPDATE study SET kept = 1, last_at = ? WHERE id = ?", (tx.at, study_id))


def note_clock_jump(tx: Transaction, by_s: float) -> None:
    """The wall clock was set: rows from before look older, or younger, than they are."""
    if abs(by_s) >= _JUMP_S:
        row = tx.one("SELECT value FROM meta WHERE key = ?", (_CLOCK_JUMPS,))
        jumps = [*(json.loads(row["value"]) if row else []), (tx.at, by_s)][-_MOST_JUMPS:]
        tx.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (_CLOCK_JUMPS, json.dumps(jumps)),
        )
