"""What a review changes at the destinations: shown before it is signed, and done by the same rows when it is.

Reports and statements can say what holds now and are owed anew. What only shows a place cannot: where the place does
not hold any more it is taken back by a rejection note, or stays, where a destination takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.records import DeliveryKind, Word
from appliance.store.database import Database, Transaction
from appliance.store.notes import SAYS_ALL, UNNAMED, reject_refuted
from appliance.store.reissue import reissue_for_review
from appliance.store.viewrows import marks


class Act(Word):
    """What happens to one object at one destination."""

    #: A new version goes, which names the one before.
    REVISE = "revise"
    #: It is taken back, or not sent any more.
    WITHDRAW = "withdraw"
    #: It was taken back and holds again.
    RESTORE = "restore"
    #: It holds no longer, and the destination takes no rejection notes.
    STAYS = "stays"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One line of what will be sent where."""

    destination: str
    kind: DeliveryKind
    act: Act


def planned(db: Database | Transaction, holds: Mapping[int, bool]) -> list[Sending]:
    """What a review would change.

    Args:
        db: Read only.
        holds: Judged analysis: whether the places that its package marked stand.
    """
    lines = [
        Sending(destination=row["destination"], kind=DeliveryKind(row["kind"]), act=act)
        for row, act in _acts(db, holds)
    ]
    return sorted(set(lines), key=lambda one: (one.destination, list(Act).index(one.act), str(one.kind)))


def carry_out(tx: Transaction, holds: Mapping[int, bool], identity_revision: int, version: int) -> int:
    """Owe what ``planned`` tells, inside the transaction that signs; returns how many objects change."""
    acts = _acts(tx, holds)
    by_act: dict[Act, list[Any]] = {act: [row for row, one in acts if one is act] for act in Act}
    reissue_for_review(tx, [*by_act[Act.REVISE], *by_act[Act.RESTORE]], identity_revision, version)
    reject_refuted(tx, by_act[Act.WITHDRAW])
    return len(acts) - len(by_act[Act.STAYS])


def _acts(db: Database | Transaction, holds: Mapping[int, bool]) -> list[tuple[Any, Act]]:
    """The last object of each kind at each destination, and what becomes of it; without those that stay as they are."""
    ids = tuple(holds)
    rows = db.all(
        "SELECT d.* FROM delivery d WHERE d.kind NOT IN ('original', 'rejection_note') AND d.forgotten_at IS NULL"  # noqa: S608
        f" AND d.analysis_id IN ({marks(ids)}) AND NOT EXISTS (SELECT 1 FROM delivery n WHERE"
        " n.analysis_id = d.analysis_id AND n.destination = d.destination AND n.kind = d.kind AND n.id > d.id)"
        " ORDER BY d.analysis_id, d.kind, d.id",
        ids,
    )
    found = [(row, _act(row, holds=holds[row["analysis_id"]])) for row in rows]
    return [(row, act) for row, act in found if act is not None]


def _act(row: Any, *, holds: bool) -> Act | None:
    if row["kind"] in SAYS_ALL:
        return Act.REVISE
    is_out = row["state"] == "replaced" or (row["rejected_by"] is not None and row["rejected_by"] != UNNAMED)
    if holds:
        return Act.RESTORE if is_out else None
    if is_out:
        return None
    takes_notes = row["rejected_by"] is not None
    return Act.STAYS if row["state"] == "sent" and not takes_notes else Act.WITHDRAW
