"""Jobs that the fleet server gave: one row each for a year, a counter that only rises, and every step a fact.

A job is in the table, and its counter taken, before anything of it is done. What a step does is the caller's; here a
step is the row's new state and its fact in one transaction, and it is refused where somebody else was faster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.errors import ConflictError, NotFoundError
from appliance.records import SYSTEM, Actor, Severity, Word
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts import Kind
from appliance.store.facts.fleet import FleetJobStep
from appliance.store.facts.kinds import Body
from appliance.store.fleet import put_state, state_of
from appliance.store.issues import clear_issue, raise_issue

#: States that nothing follows, spelled as ``fleet.wire_jobs.JobState``; the index of open jobs names the same.
ENDED = (*("SUCCEEDED", "FAILED", "ROLLED_BACK", "REJECTED", "CANCELED", "TIMED_OUT", "REMOVED", "ALREADY_INSTALLED"),)
_OPEN = f"state NOT IN ({', '.join(repr(state) for state in ENDED)})"
_WAITS, _REJECTED = "WAIT_APPROVAL", "REJECTED"
_CTR = "job_ctr"
#: A change of models waits for a person of the site.
APPROVAL = "FLEET_APPROVAL"
_APPROVED = "APPROVED"


class JobMoved(ConflictError):  # noqa: N818 - an answer: look again
    """The job is not where the caller saw it: somebody else moved it on."""


class Taken(Word):
    """What became of a job that came."""

    #: It has a row now; its state says whether it is to be done.
    NEW = "new"
    #: It has had one for long.
    KNOWN = "known"
    #: Its counter is not above the last one.
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job whose signature held. ``envelope``: DSSE, as it came."""

    id: str
    ctr: int
    op: str
    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as it stands.

    Attributes:
        version: Counts its steps; another one means that it has moved.
        work: What the present step has noted for itself.
        approved_by: Who of the site said yes; empty: nobody.
    """

    id: str
    ctr: int
    op: str
    envelope: bytes
    state: str
    version: int
    code: str
    figures: Mapping[str, float]
    work: Mapping[str, Any]
    received_at: datetime
    state_at: datetime
    approved_by: str

    @property
    def is_open(self) -> bool:
        """Whether something follows."""
        return self.state not in ENDED


class FleetJobs:
    """Every method is one read or one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    @property
    def ctr(self) -> int:
        """The highest counter that was taken; it never falls, not even where rows are gone."""
        row = self._db.one("SELECT value FROM fleet_state WHERE name = ?", (_CTR,))
        return int(row["value"]) if row else _told_ctr(self._db)

    def open(self) -> list[JobRow]:
        """Jobs of which something follows, in the order in which they were made."""
        return [_row(row) for row in self._db.all(f"SELECT * FROM fleet_job WHERE {_OPEN} ORDER BY ctr")]  # noqa: S608

    def all(self, limit: int = 100) -> list[JobRow]:
        """The newest jobs first."""
        return [_row(row) for row in self._db.all("SELECT * FROM fleet_job ORDER BY ctr DESC LIMIT ?", (limit,))]

    def get(self, ref: str) -> JobRow:
        """A job by its id, or by its counter as people read it.

        Raises:
            NotFoundError: There is none.
        """
        return _get(self._db, ref)

    def take(self, new: NewJob, state: str, code: str = "") -> Taken:
        """Keep a job that came, once.

        A counter that is not above the last one is a replay, or a job that another overtook: where it has no row yet
        it gets one that is REJECTED, so that the server learns; it is never done.

        Args:
            new: The job.
            state: Where it begins: ACCEPTED, or REJECTED.
            code: Why it is rejected.
        """
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM fleet_job WHERE id = ?", (new.id,)):
                return Taken.KNOWN
            last = int(state_of(tx, _CTR, "")) if state_of(tx, _CTR) else _told_ctr(tx)
            is_new = new.ctr > last
            if is_new:
                put_state(tx, _CTR, str(new.ctr))
            else:
                state, code = _REJECTED, "REPLAYED"
                if tx.one("SELECT 1 FROM fleet_job WHERE ctr = ?", (new.ctr,)):
                    return Taken.REPLAYED
            tx.insert(
                "fleet_job",
                id=new.id,
                ctr=new.ctr,
                op=new.op,
                envelope=new.envelope,
                state=state,
                version=1,
                code=code,
                received_at=tx.at,
                state_at=tx.at,
            )
            tx.journal(FleetJobStep(job=new.id, ctr=new.ctr, op=new.op, state=state, version=1, code=code))
            return Taken.NEW if is_new else Taken.REPLAYED

    def step(
        self,
        row: JobRow,
        state: str,
        *,
        code: str = "",
        percent: float | None = None,
        figures: Mapping[str, float] | None = None,
        work: Mapping[str, Any] | None = None,
        actor: Actor = SYSTEM,
    ) -> JobRow:
        """Move a job on: row and fact together. The caller has checked that it may go there.

        Args:
            row: As the caller saw it.
            state: Where it goes.
            code: Why.
            percent: Of a download.
            figures: What was measured, for the server.
            work: What the next step starts with; nothing of this one's notes stays.
            actor: Who did it.

        Raises:
            JobMoved: Somebody else has moved it.
        """
        with self._db.write() as tx:
            return _step(tx, row, state, code=code, percent=percent, figures=figures, work=work, actor=actor)

    def note(
        self, row: JobRow, work: Mapping[str, Any], fact: Body | None = None, *, actor: Actor = SYSTEM, seq_as: str = ""
    ) -> JobRow:
        """Let the present step note something for itself; the server hears nothing of it.

        Args:
            row: As the caller saw it.
            work: All its notes.
            fact: What the journal is to tell besides, in the same transaction.
            actor: Whose fact that is.
            seq_as: The note that gets the sequence number of that fact.

        Raises:
            JobMoved: Somebody else has moved the job.
        """
        with self._db.write() as tx:
            notes = dict(work)
            if fact is not None:
                notes[seq_as] = tx.journal(fact, actor=actor)
            changed = tx.execute(
                "UPDATE fleet_job SET work = ? WHERE id = ? AND version = ?",
                (json.dumps(notes, sort_keys=True), row.id, row.version),
            )
            if not changed.rowcount:
                raise JobMoved(f"job {row.ctr} has gone on meanwhile")
            return _get(tx, row.id)

    def approve(self, ref: str, actor: Actor, why: str) -> JobRow:
        """Somebody of the site says yes to a job that waits for that.

        Raises:
            NotFoundError: No such job.
            ConflictError: It waits for nobody, or no reason is given.
        """
        with self._db.write() as tx:
            row = _waiting(tx, ref, why)
            if row.approved_by:
                raise ConflictError(f"{row.approved_by} has approved job {row.ctr} already")
            name = actor.name or str(actor.kind)
            tx.execute("UPDATE fleet_job SET approved_by = ? WHERE id = ?", (name, row.id))
            return _step(tx, row, _WAITS, code=_APPROVED, work=row.work, actor=actor, why=why)

    def refuse(self, ref: str, actor: Actor, why: str) -> JobRow:
        """Somebody of the site says no.

        Raises:
            NotFoundError: No such job.
            ConflictError: It waits for nobody, or no reason is given.
        """
        with self._db.write() as tx:
            return _step(tx, _waiting(tx, ref, why), _REJECTED, code="REFUSED_BY_SITE", actor=actor, why=why)

    def forget(self, before: datetime) -> int:
        """Let ended jobs go that came before a moment. Their counters stay taken. Returns how many went."""
        sql = f"FROM fleet_job WHERE received_at < ? AND NOT ({_OPEN})"
        if self._db.one(f"SELECT 1 {sql} LIMIT 1", (iso(before),)) is None:
            return 0
        with self._db.write() as tx:
            return tx.execute(f"DELETE {sql}", (iso(before),)).rowcount

    def is_idle(self) -> bool:
        """Whether no study is on its way through the box."""
        row = self._db.one(
            "SELECT EXISTS (SELECT 1 FROM series WHERE open = 1) OR EXISTS (SELECT 1 FROM revision WHERE routed <> 1)"
            " OR EXISTS (SELECT 1 FROM analysis WHERE state <> 'done') AS busy"
        )
        return row is not None and not row["busy"]


def _step(
    tx: Transaction,
    row: JobRow,
    state: str,
    *,
    code: str = "",
    percent: float | None = None,
    figures: Mapping[str, float] | None = None,
    work: Mapping[str, Any] | None = None,
    actor: Actor = SYSTEM,
    why: str = "",
) -> JobRow:
    told = dict(figures or {})
    changed = tx.execute(
        f"UPDATE fleet_job SET state = ?, version = version + 1, code = ?, figures = ?, work = ?, state_at = ?"  # noqa: S608
        f" WHERE id = ? AND version = ? AND {_OPEN}",
        (state, code, json.dumps(told), json.dumps(dict(work or {}), sort_keys=True), tx.at, row.id, row.version),
    )
    if not changed.rowcount:
        raise JobMoved(f"job {row.ctr} has gone on meanwhile")
    tx.journal(
        FleetJobStep(
            job=row.id,
            ctr=row.ctr,
            op=row.op,
            state=state,
            version=row.version + 1,
            code=code,
            percent=percent,
            figures=told,
            why=why,
        ),
        actor=actor,
    )
    if state == _WAITS and code != _APPROVED:
        raise_issue(tx, APPROVAL, f"job {row.ctr}", Severity.WARNING)
    else:
        clear_issue(tx, APPROVAL, f"job {row.ctr}")
    return _get(tx, row.id)


def _waiting(tx: Transaction, ref: str, why: str) -> JobRow:
    row = _get(tx, ref)
    if not why.strip():
        raise ConflictError(f"an answer to job {row.ctr} needs a reason; give one with --why")
    if row.state != _WAITS:
        raise ConflictError(f"job {row.ctr} waits for nobody here: it is {row.state}")
    return row


def _get(db: Database | Transaction, ref: str) -> JobRow:
    is_number = ref.isascii() and ref.isdigit() and len(ref) < 18
    column, value = ("ctr", int(ref)) if is_number else ("id", ref)
    row = db.one(f"SELECT * FROM fleet_job WHERE {column} = ?", (value,))  # noqa: S608 - one of two names
    if row is None:
        raise NotFoundError(f"there is no job {ref}; 'scanside fleet jobs' shows them")
    return _row(row)


def _row(row: Any) -> JobRow:
    return JobRow(
        id=row["id"],
        ctr=row["ctr"],
        op=row["op"],
        envelope=bytes(row["envelope"]),
        state=row["state"],
        version=row["version"],
        code=row["code"],
        figures=json.loads(row["figures"]),
        work=json.loads(row["work"]),
        received_at=from_iso(row["received_at"]),
        state_at=from_iso(row["state_at"]),
        approved_by=row["approved_by"],
    )


def _told_ctr(db: Database | Transaction) -> int:
    """From the journal, which outlives a database that was damaged and built anew."""
    row = db.one(
        "SELECT max(json_extract(body, '$.ctr')) AS ctr FROM journal WHERE kind = ?", (str(Kind.FLEET_JOB_STEP),)
    )
    return int(row["ctr"] or 0) if row else 0
