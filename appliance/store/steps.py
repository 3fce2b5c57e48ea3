"""Performed procedure steps that modalities report (PS3.4 Annex F), and what they list of a series."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from appliance.errors import ConflictError, NotFoundError
from appliance.records import StepState
from appliance.store.database import Database, Transaction, iso
from appliance.store.facts.intake import PerformedStep
from appliance.store.short_series import reopen_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What ended steps list of one series, against what has come."""

    images: int
    #: Listed, and not here.
    missing: int
    #: Here, and not listed.
    extra: int
    discontinued: bool


#: A list is evidence for images that arrive with it; a late N-SET comes within days.
_KEPT = timedelta(days=30)
#: Series Instance UID and SOP Instance UID of one image that a step lists.
ListedImage = tuple[str, str]


class Steps:
    """Acts on performed procedure steps; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def begin(self, sop_instance_uid: str, source: str, images: Iterable[ListedImage] = ()) -> None:
        """A modality began a step.

        Raises:
            ConflictError: There is such a step already.
        """
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM performed_step WHERE sop_instance_uid = ?", (sop_instance_uid,)):
                raise ConflictError("a performed procedure step with this SOP Instance UID exists already")
            _forget(tx, iso(self._db.clock.now() - _KEPT))
            step_id = tx.insert(
                "performed_step",
                sop_instance_uid=sop_instance_uid,
                source=source,
                state=str(StepState.IN_PROGRESS),
                begun_at=tx.at,
            )
            listed = set(images)
            for series_uid, uid in listed:
                tx.execute("INSERT INTO performed_image VALUES (?, ?, ?)", (series_uid, uid, step_id))
            tx.journal(_fact(step_id, source, StepState.IN_PROGRESS, listed))

    def set(
        self, sop_instance_uid: str, source: str, state: StepState | None, images: Iterable[ListedImage] | None
    ) -> None:
        """A modality says more of a step.

        Args:
            sop_instance_uid: The step.
            source: Who says so.
            state: Its new state; None where that was not said.
            images: The images of the step, in place of those listed before; None where nothing was said of them.

        Raises:
            NotFoundError: No such step.
            ConflictError: The step has ended and can no longer be changed.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT id, state FROM performed_step WHERE sop_instance_uid = ?", (sop_instance_uid,))
            if row is None:
                raise NotFoundError("no performed procedure step has this SOP Instance UID")
            if row["state"] != StepState.IN_PROGRESS:
                raise ConflictError("the performed procedure step has ended and may no longer be updated")
            now = state or StepState.IN_PROGRESS
            if now is not StepState.IN_PROGRESS:
                tx.execute(
                    "UPDATE performed_step SET state = ?, ended_at = ? WHERE id = ?", (str(now), tx.at, row["id"])
                )
            if images is not None:
                tx.execute("DELETE FROM performed_image WHERE step_id = ?", (row["id"],))
                for series_uid, uid in set(images):
                    tx.execute("INSERT INTO performed_image VALUES (?, ?, ?)", (series_uid, uid, row["id"]))
            rows = tx.all(
                "SELECT series_instance_uid, sop_instance_uid FROM performed_image WHERE step_id = ?", (row["id"],)
            )
            listed = {(one["series_instance_uid"], one["sop_instance_uid"]) for one in rows}
            if now is StepState.COMPLETED:
                reopen_short(tx, row["id"])
            tx.journal(_fact(row["id"], source, now, listed))

    def state(self, sop_instance_uid: str) -> StepState | None:
        """Where a step stands; None where there is no such step."""
        row = self._db.one("SELECT state FROM performed_step WHERE sop_instance_uid = ?", (sop_instance_uid,))
        return StepState(row["state"]) if row else None


def _forget(tx: Transaction, before: str) -> None:
    """Drop steps that began before then; the journal goes on telling that they were."""
    old = "SELECT id FROM performed_step WHERE begun_at < ?"
    tx.execute(f"DELETE FROM performed_image WHERE step_id IN ({old})", (before,))  # noqa: S608 - the literal above
    tx.execute("DELETE FROM performed_step WHERE begun_at < ?", (before,))


def _fact(step_id: int, source: str, state: StepState, listed: set[ListedImage]) -> PerformedStep:
    return PerformedStep(
        step=step_id, source=source, state=str(state), series=len({series for series, _ in listed}), images=len(listed)
    )


def listed_images(db: Database, series_id: int, series_instance_uid: str) -> Listed | None:
    """What steps list of a series; None where none does, or while one that does goes on."""
    row = db.one(
        "SELECT count(DISTINCT p.sop_instance_uid) AS listed, count(DISTINCT i.sop_instance_uid) AS here,"
        " total(s.state = 'IN PROGRESS') AS going_on, total(s.state = 'DISCONTINUED') AS discontinued,"
        " (SELECT count(*) FROM instance o WHERE o.series_id = ?) AS images"
        " FROM performed_image p JOIN performed_step s ON s.id = p.step_id"
        " LEFT JOIN instance i ON i.sop_instance_uid = p.sop_instance_uid AND i.series_id = ?"
        " WHERE p.series_instance_uid = ?",
        (series_id, series_id, series_instance_uid),
    )
    if row is None or not row["listed"] or row["going_on"]:
        return None
    return Listed(
        images=row["listed"],
        missing=row["listed"] - row["here"],
        extra=row["images"] - row["here"],
        discontinued=bool(row["discontinued"]),
    )
