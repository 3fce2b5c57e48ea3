"""A scanner's list that comes after its series was taken as whole, and names more images than came.

Before that moment the rule of completeness waits for them. Afterwards a result stands already: nothing flagged on a
part of the images must not stay, and a finding must not go because of a list.
"""

from __future__ import annotations

from enum import Enum, auto

from appliance.records import Outcome, Role, Severity
from appliance.store.database import Transaction
from appliance.store.issues import clear_issue, raise_issue

IMAGES_MISSING = "IMAGES_MISSING"
#: The rule of a revision that says no more than what is missing.
SHORT = "short"


class Follows(Enum):
    """What a series comes to that holds nothing new."""

    #: Nothing: it is closed.
    NOTHING = auto()
    #: An analysis of it goes on: look again once that has ended.
    WAIT = auto()
    #: Another revision of the same images, of which routing knows that some are missing.
    REVISION = auto()


def reopen_short(tx: Transaction, step_id: int) -> None:
    """A step has ended: look again at the series of its images of which it, or another, lists more than came."""
    tx.execute(
        # Every series is read, once at the end of an examination; a list may name none of the images that came.
        "UPDATE series SET open = 1 WHERE open = 0 AND revision > 0"
        " AND series_instance_uid IN (SELECT series_instance_uid FROM performed_image WHERE step_id = ?)"
        " AND EXISTS (SELECT 1 FROM performed_image p WHERE p.series_instance_uid = series.series_instance_uid"
        " AND NOT EXISTS (SELECT 1 FROM instance i WHERE i.sop_instance_uid = p.sop_instance_uid"
        " AND i.series_id = series.id))",
        (step_id,),
    )


def after_ready(tx: Transaction, *, series_id: int, study_id: int, listed: int, missing: int) -> Follows:
    """What follows for a series without new images, and of which so many are missing. A finding stays, with an issue.

    Args:
        tx: The transaction that closes it.
        series_id: The series.
        study_id: Its study.
        listed: How many images of it the scanner lists.
        missing: How many of them did not come; 0 where it lists none, or says that it ended early.
    """
    if not missing:
        return Follows.NOTHING
    rows = tx.all(
        "SELECT DISTINCT a.id, a.state, a.outcome FROM analysis a JOIN analysis_input i ON i.analysis_id = a.id"
        " JOIN revision r ON r.id = i.revision_id WHERE r.series_id = ? AND a.role = ? AND a.superseded_by IS NULL",
        (series_id, str(Role.LIVE)),
    )
    is_routed = tx.one("SELECT 1 FROM revision WHERE series_id = ? AND routed = 0", (series_id,)) is None
    if not is_routed or any(row["state"] != "done" for row in rows):
        return Follows.WAIT
    outcomes = {row["outcome"] for row in rows}
    if Outcome.FINDING in outcomes:
        detail = {"listed": listed, "missing": missing}
        raise_issue(tx, IMAGES_MISSING, _subject(series_id), Severity.WARNING, detail, study_id)
        return Follows.NOTHING
    return Follows.REVISION if Outcome.NOTHING_FLAGGED in outcomes else Follows.NOTHING


def no_longer_missing(tx: Transaction, series_id: int) -> None:
    """A newer revision says what is missing, or the images have left the box."""
    clear_issue(tx, IMAGES_MISSING, _subject(series_id))


def _subject(series_id: int) -> str:
    return f"series {series_id}"
