"""What the RIS says of the orders of studies (modality worklist, PS3.4 Annex K)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from appliance.errors import NotFoundError
from appliance.records import Identity, OrderState, Severity
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts.intake import OrderAsked
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.jsonable import load
from appliance.store.reissue import reissue_for_order

MISMATCH = "WORKLIST_MISMATCH"
#: Requested Procedure Priorities (PS3.3 C.4.11) that go before the others.
STAT = frozenset({"STAT", "HIGH"})
#: A study is asked about while its images are news; what came earlier has been read.
_WINDOW = timedelta(hours=24)
_AT_ONCE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ToAsk:
    """A study whose order is not known yet."""

    study_id: int
    identity: Identity
    identity_revision: int
    study_date: str
    modalities: tuple[str, ...]
    #: How often the RIS was asked under this identity.
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the RIS said of one study, judged."""

    state: OrderState
    #: How many entries it sent.
    entries: int
    #: What they were asked for by: accession or patient.
    by: str
    priority: str = ""
    procedure_id: str = ""
    procedure_description: str = ""
    #: The order's, where the images have none and it is theirs beyond doubt; else empty.
    accession_number: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderView:
    """What a person is told of the order of a study."""

    state: OrderState
    asked_at: datetime
    priority: str
    procedure_id: str
    procedure_description: str
    accession_number: str

    @property
    def is_stat(self) -> bool:
        """Whether the order asks to be read first."""
        return self.priority in STAT


class Orders:
    """Acts on orders; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def to_ask(self, without: Collection[int] = ()) -> list[ToAsk]:
        """Studies of the last day to ask about now, newest first: new ones, corrected ones, and those due again.

        Args:
            without: Studies to pass over.
        """
        now = self._db.clock.now()
        rows = self._db.all(
            "SELECT s.*, o.asked, o.identity_revision AS asked_revision FROM study s"  # noqa: S608 - marks only
            " LEFT JOIN study_order o ON o.study_id = s.id WHERE s.last_at >= ?"
            " AND (o.study_id IS NULL OR o.identity_revision < s.identity_revision OR o.next_at <= ?)"
            f" AND s.id NOT IN ({_marks(without)}) ORDER BY s.last_at DESC LIMIT ?",
            (iso(now - _WINDOW), iso(now), *without, _AT_ONCE),
        )
        return [
            ToAsk(
                study_id=row["id"],
                identity=load(Identity, row["identity"]),
                identity_revision=row["identity_revision"],
                study_date=row["study_date"],
                modalities=self._modalities(row["id"]),
                asked=row["asked"] if row["asked_revision"] == row["identity_revision"] else 0,
            )
            for row in rows
        ]

    def _modalities(self, study_id: int) -> tuple[str, ...]:
        rows = self._db.all("SELECT DISTINCT modality FROM series WHERE study_id = ? ORDER BY 1", (study_id,))
        return tuple(row["modality"] for row in rows if row["modality"])

    def answered(self, asked: ToAsk, answer: Answer, *, again_in_s: float | None) -> None:
        """Record what the RIS said; a priority raises what of the study still waits.

        Args:
            asked: What was asked about.
            answer: What came of it.
            again_in_s: When to ask again; None for not at all.
        """
        with self._db.write() as tx:
            study = tx.one("SELECT stat FROM study WHERE id = ?", (asked.study_id,))
            if study is None:
                return
            next_at = None if again_in_s is None else iso(self._db.clock.now() + timedelta(seconds=again_in_s))
            before = carried(tx, asked.study_id)
            tx.execute(
                "INSERT OR REPLACE INTO study_order VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    asked.study_id,
                    str(answer.state),
                    asked.asked + 1,
                    tx.at,
                    next_at,
                    asked.identity_revision,
                    answer.priority,
                    answer.procedure_id,
                    answer.procedure_description,
                    answer.accession_number,
                ),
            )
            if carried(tx, asked.study_id) != before:
                reissue_for_order(tx, asked.study_id, asked.identity_revision)
            raised = answer.priority in STAT and not study["stat"]
            if raised:
                _raise_priority(tx, asked.study_id)
            tx.journal(
                OrderAsked(
                    state=str(answer.state),
                    entries=answer.entries,
                    by=answer.by,
                    priority=answer.priority,
                    raised=raised,
                    fills=bool(answer.accession_number),
                ),
                study_id=asked.study_id,
            )
            subject = f"study {asked.study_id}"
            if answer.state is OrderState.OTHER_PATIENT:
                raise_issue(tx, MISMATCH, subject, Severity.FAULT, study_id=asked.study_id)
            else:
                clear_issue(tx, MISMATCH, subject)

    def of_studies(self, study_ids: tuple[int, ...]) -> dict[int, OrderView]:
        """What is known of the orders of studies, by their ids."""
        sql = f"SELECT * FROM study_order WHERE study_id IN ({_marks(study_ids)})"  # noqa: S608 - marks only
        rows = self._db.all(sql, study_ids)
        return {row["study_id"]: _view(row) for row in rows}


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _view(row: Any) -> OrderView:
    return OrderView(
        state=OrderState(row["state"]),
        asked_at=from_iso(row["asked_at"]),
        priority=row["priority"],
        procedure_id=row["procedure_id"],
        procedure_description=row["procedure_description"],
        accession_number=row["accession_number"],
    )


def _raise_priority(tx: Transaction, study_id: int) -> None:
    tx.execute("UPDATE study SET stat = 1 WHERE id = ?", (study_id,))
    tx.execute("UPDATE analysis SET stat = 1 WHERE study_id = ? AND state <> 'done'", (study_id,))


def carried(db: Database | Transaction, study_id: int) -> tuple[Identity, str]:
    """The identity and the procedure that results of a study carry now.

    What the RIS said of an identity that was corrected since may be somebody else's order, and is not used.
    """
    row = db.one("SELECT identity, identity_revision FROM study WHERE id = ?", (study_id,))
    if row is None:  # pragma: no cover - callers hold the study
        raise NotFoundError(f"study {study_id} does not exist")
    sql = "SELECT * FROM study_order WHERE study_id = ? AND identity_revision = ?"
    found = db.one(sql, (study_id, row["identity_revision"]))
    order = _view(found) if found else None
    return with_order(load(Identity, row["identity"]), order), order.procedure_description if order else ""


def with_order(identity: Identity, order: OrderView | None) -> Identity:
    """The identity that results carry: the images', and of the order what they leave open."""
    if order is None or not order.accession_number or identity.accession_number:
        return identity
    return replace(
        identity,
        accession_number=order.accession_number,
        requested_procedure_id=identity.requested_procedure_id or order.procedure_id,
    )
