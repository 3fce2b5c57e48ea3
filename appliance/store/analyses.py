"""The queue of analyses: routed, started, ended, superseded. A row is the only state of the work."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.errors import ConflictError, NotFoundError
from appliance.records import SYSTEM, Actor, AnalysisResult, Reason, Role
from appliance.store.database import Database, Transaction
from appliance.store.ending import OwedResult, Owing, end_analysis
from appliance.store.facts.analyses import (
    AnalysisQueued,
    AnalysisReturned,
    AnalysisStarted,
    AnalysisSuperseded,
    BacklogDone,
    StudyReprocessed,
)
from appliance.store.facts.box import WorkerEnded, WorkerStarted
from appliance.store.facts.intake import SeriesLeftOut
from appliance.store.jsonable import load
from appliance.store.orphans import end_orphans
from appliance.store.package_rows import heir, running_versions
from appliance.store.settle import settle_study

#: An image of the analysis ``a`` that retention has removed.
_REMOVED_INPUT = (
    "SELECT 1 FROM analysis_input ai JOIN revision_version rv ON rv.revision_id = ai.revision_id"
    " JOIN version v ON v.id = rv.version_id WHERE ai.analysis_id = a.id AND v.removed_at IS NOT NULL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One package that is owed an analysis, as routing decided."""

    package: str
    package_version: str
    role: Role
    category: int
    notify: str
    intended_use: str
    deadline_s: float
    #: Input role of the package: id of the series revision.
    inputs: dict[str, int]
    #: Shown as late, never sounds: backlog, and what follows from a rebuilt database.
    late: bool = False
    #: Set where routing itself ends it: outside the declared envelope.
    ended: AnalysisResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A series revision that no package takes, and why."""

    series_id: int
    n: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """An analysis that waits for the worker or is in it."""

    id: int
    study_id: int
    package: str
    package_version: str = ""
    role: Role
    category: int
    stat: bool
    late: bool
    attempt: int
    ready_mono: float
    deadline_s: float
    inputs: dict[str, int]
    worker_deaths: int


class Analyses:
    """Acts on analyses; each is one transaction."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def route(
        self,
        study_id: int,
        revision_ids: tuple[int, ...],
        plans: tuple[Plan, ...],
        left_out: tuple[LeftOut, ...],
        owed: Owing,
        running: frozenset[tuple[str, str, str]] | None = None,
    ) -> list[int]:
        """Record what routing decided for new series revisions of one study.

        Older analyses of the same packages on this study are superseded: visibly, and their alert stays until the new
        one has ended.

        Args:
            study_id: The study.
            revision_ids: The revisions that are routed now.
            plans: Analyses that are owed.
            left_out: Series that nothing takes.
            owed: For plans that routing itself ends.
            running: (name, version, state) of the packages that the decision rests on, where it rests on the table.

        Returns:
            Ids of the new analyses, in the order of ``plans``. None at all where other packages run meanwhile: then
            nothing is recorded, and routing decides again.
        """
        ids: list[int] = []
        with self._db.write() as tx:
            if running is not None and running != running_versions(tx):
                return ids
            for revision_id in revision_ids:
                tx.execute("UPDATE revision SET routed = 1 WHERE id = ?", (revision_id,))
            for out in left_out:
                tx.execute("UPDATE series SET left_out = ? WHERE id = ?", (out.why, out.series_id))
                tx.journal(SeriesLeftOut(series=out.series_id, n=out.n, why=out.why), study_id=study_id)
            for plan in plans:
                analysis_id = queue_analysis(tx, study_id, plan)
                ids.append(analysis_id)
                if plan.ended is not None:
                    end_analysis(tx, self._db.stream, analysis_id, plan.ended, owed(plan.package, plan.ended))
            end_orphans(tx, self._db.stream, owed, study_id)
            settle_study(tx, study_id, chime=not any(plan.late for plan in plans))
        return ids

    def open(self) -> list[Queued]:
        """Analyses that wait for the worker, oldest first."""
        rows = self._db.all(
            "SELECT a.*, s.worker_deaths FROM analysis a JOIN study s ON s.id = a.study_id"
            " WHERE a.state <> 'done' AND a.state = 'queued' ORDER BY a.id"
        )
        return [
            Queued(
                id=row["id"],
                study_id=row["study_id"],
                package=row["package"],
                package_version=row["package_version"],
                role=Role(row["role"]),
                category=row["category"],
                stat=bool(row["stat"]),
                late=bool(row["late"]),
                attempt=row["attempt"],
                ready_mono=row["ready_mono"] if row["boot"] == self._db.boot else 0.0,
                deadline_s=row["deadline_s"],
                inputs=_inputs(self._db, row["id"]),
                worker_deaths=row["worker_deaths"],
            )
            for row in rows
        ]

    def of_study(self, study_id: int, role: Role = Role.LIVE) -> dict[str, AnalysisResult | None]:
        """Package: result of its not superseded analysis, None while that is open.

        Args:
            study_id: The study.
            role: For whom. Something live rests on live results only; others take what there is, live ones first.
        """
        rows = self._db.all(
            "SELECT package, state, result FROM analysis WHERE study_id = ? AND superseded_by IS NULL"
            " AND (role = 'live' OR ? <> 'live') ORDER BY role = 'live', role = 'silent', id",
            (study_id, str(role)),
        )
        return {row["package"]: load(AnalysisResult, row["result"]) if row["result"] else None for row in rows}

    def study_of(self, analysis_id: int) -> int | None:
        """The study of an analysis."""
        row = self._db.one("SELECT study_id FROM analysis WHERE id = ?", (analysis_id,))
        return int(row["study_id"]) if row else None

    def note_worker_death(self, study_id: int) -> None:
        """The worker ended while it prepared images of this study ahead of its analysis."""
        with self._db.write() as tx:
            tx.execute("UPDATE study SET worker_deaths = worker_deaths + 1 WHERE id = ?", (study_id,))

    def has_late_open(self) -> bool:
        """Whether backlog is still waiting or running."""
        return self._db.one("SELECT 1 FROM analysis WHERE late = 1 AND state <> 'done' LIMIT 1") is not None

    def worker_started(self, pid: int, packages: dict[str, str]) -> None:
        """Note that a worker is ready."""
        with self._db.write() as tx:
            tx.journal(WorkerStarted(pid=pid, packages=packages))

    def worker_ended(self, pid: int, why: str, analysis_id: int | None) -> None:
        """Note that a worker is gone."""
        with self._db.write() as tx:
            tx.journal(WorkerEnded(pid=pid, why=why, analysis=analysis_id))

    def start(self, analysis_id: int) -> bool:
        """Hand an analysis to the worker. False when it is no longer queued (superseded meanwhile)."""
        with self._db.write() as tx:
            row = tx.one("SELECT study_id, attempt FROM analysis WHERE id = ? AND state = 'queued'", (analysis_id,))
            if row is None:
                return False
            attempt = row["attempt"] + 1
            tx.execute(
                "UPDATE analysis SET state = 'running', attempt = ?, started_at = ? WHERE id = ?",
                (attempt, tx.at, analysis_id),
            )
            tx.journal(AnalysisStarted(analysis=analysis_id, attempt=attempt), study_id=row["study_id"])
            return True

    def return_to_queue(self, analysis_id: int, why: str, *, worker_died: bool) -> int:
        """The work was cut short through no fault of the study's data as far as is known.

        Returns:
            How often the study has ended a worker so far.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM analysis WHERE id = ?", (analysis_id,))
            if row is None or row["state"] != "running":
                return 0
            if worker_died:
                tx.execute("UPDATE study SET worker_deaths = worker_deaths + 1 WHERE id = ?", (row["study_id"],))
            state = "queued" if row["superseded_by"] is None else "done"
            tx.execute("UPDATE analysis SET state = ? WHERE id = ?", (state, analysis_id))
            tx.journal(
                AnalysisReturned(analysis=analysis_id, attempt=row["attempt"], why=why), study_id=row["study_id"]
            )
            study = tx.one("SELECT worker_deaths FROM study WHERE id = ?", (row["study_id"],))
            return int(study["worker_deaths"]) if study else 0

    def finish(
        self, analysis_id: int, result: AnalysisResult, owed: tuple[OwedResult, ...], *, late: bool = False
    ) -> None:
        """End an analysis: its row, the study's outcome, the alert and the deliveries, in one transaction.

        Args:
            analysis_id: The analysis; a second finish changes nothing.
            result: How it ended.
            owed: Result objects that destinations are to get; each gets its SOP Instance UID now, once.
            late: It ended after its deadline or as backlog: shown as late, never sounds.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT study_id, late FROM analysis WHERE id = ? AND state <> 'done'", (analysis_id,))
            if row is None:
                return
            was_late = late or bool(row["late"])
            if was_late:
                tx.execute("UPDATE analysis SET late = 1 WHERE id = ?", (analysis_id,))
            end_analysis(tx, self._db.stream, analysis_id, result, owed)
            settle_study(tx, row["study_id"], chime=not was_late)

    def requeue_unanalysed(self) -> int:
        """The AI is back: queue again, as late, what ended NOT_ANALYSED(ai_unavailable). Returns how many."""
        count = 0
        with self._db.write() as tx:
            rows = tx.all(
                f"SELECT * FROM analysis a WHERE state = 'done' AND reason = ? AND superseded_by IS NULL"  # noqa: S608
                f" AND NOT EXISTS ({_REMOVED_INPUT}) ORDER BY id",
                (str(Reason.AI_UNAVAILABLE),),
            )
            for row in rows:
                version = heir(tx, row["package"], row["package_version"], row["role"])
                if version is None:
                    continue
                plan = Plan(
                    package=row["package"],
                    package_version=version,
                    role=Role(row["role"]),
                    category=row["category"],
                    notify=row["notify"],
                    intended_use=row["intended_use"],
                    deadline_s=row["deadline_s"],
                    inputs=_inputs(tx, row["id"]),
                    late=True,
                )
                queue_analysis(tx, row["study_id"], plan)
                settle_study(tx, row["study_id"], chime=False)
                count += 1
        return count

    def backlog_done(self, since: str) -> None:
        """Write the one summary line of a backlog that has been worked off since ``since`` (ISO time)."""
        with self._db.write() as tx:
            row = tx.one(
                "SELECT count(DISTINCT study_id) AS studies, coalesce(sum(outcome = 'FINDING'), 0) AS findings"
                " FROM analysis WHERE late = 1 AND state = 'done' AND role = 'live' AND superseded_by IS NULL"
                " AND done_at >= ?",
                (since,),
            )
            if row is not None and row["studies"]:
                tx.journal(BacklogDone(studies=row["studies"], findings=row["findings"], since=since))

    def reprocess(self, study_id: int, actor: Actor = SYSTEM) -> None:
        """Route the newest revisions of a study again.

        Raises:
            NotFoundError: No such study.
            ConflictError: Its images were removed from this box.
        """
        with self._db.write() as tx:
            if tx.one("SELECT 1 FROM study WHERE id = ?", (study_id,)) is None:
                msg = f"study {study_id} does not exist; 'scanside study list' shows those that do"
                raise NotFoundError(msg)
            gone = tx.one(
                "SELECT count(*) AS n, max(v.removed_at) AS at FROM series s JOIN instance i ON i.series_id = s.id"
                " JOIN version v ON v.id = i.version_id WHERE s.study_id = ? AND v.removed_at IS NOT NULL",
                (study_id,),
            )
            if gone is not None and gone["n"]:
                msg = (
                    f"images removed: {gone['n']} images of study {study_id} left this box on {gone['at'][:10]};"
                    " send the study again from scanner or PACS, then reprocess it"
                )
                raise ConflictError(msg)
            tx.execute("UPDATE study SET worker_deaths = 0 WHERE id = ?", (study_id,))
            tx.execute(
                "UPDATE revision SET routed = 0 WHERE (series_id, n) IN"
                " (SELECT id, revision FROM series WHERE study_id = ?)",
                (study_id,),
            )
            tx.journal(StudyReprocessed(why="asked for"), study_id=study_id, actor=actor)

    def recover(self) -> int:
        """After a start: what was in a worker goes back to the queue. Idempotent. Returns how many."""
        rows = self._db.all("SELECT id FROM analysis WHERE state <> 'done' AND state = 'running'")
        for row in rows:
            self.return_to_queue(row["id"], "the daemon was restarted", worker_died=False)
        return len(rows)


def queue_analysis(tx: Transaction, study_id: int, plan: Plan) -> int:
    """Owe an analysis, in place of the older ones of the same package and role; returns its id."""
    revision = tx.one(
        "SELECT min(ready_at) AS at, min(ready_mono) AS mono FROM revision"  # noqa: S608 - marks only
        f" WHERE id IN ({', '.join('?' * len(plan.inputs))})",
        tuple(plan.inputs.values()),
    )
    study = tx.one("SELECT stat, identity_revision FROM study WHERE id = ?", (study_id,))
    older = tx.all(
        "SELECT id, state, late, predecessor FROM analysis WHERE study_id = ? AND package = ? AND role = ?"
        " AND superseded_by IS NULL",
        (study_id, plan.package, str(plan.role)),
    )
    predecessor = older[-1]["id"] if older else None
    late = plan.late
    if older and older[-1]["state"] == "queued" and _inputs(tx, older[-1]["id"]) == plan.inputs:
        # Another version takes over what only waited: it is no revision of anything, and backlog stays backlog.
        predecessor = older[-1]["predecessor"]
        late = late or bool(older[-1]["late"])
    analysis_id = tx.insert(
        "analysis",
        study_id=study_id,
        package=plan.package,
        package_version=plan.package_version,
        role=str(plan.role),
        state="queued",
        category=plan.category,
        notify=plan.notify,
        intended_use=plan.intended_use,
        stat=study["stat"] if study else 0,
        ready_at=revision["at"] if revision else tx.at,
        ready_mono=revision["mono"] if revision else tx.mono,
        boot=tx.boot,
        deadline_s=plan.deadline_s,
        late=int(late),
        predecessor=predecessor,
        identity_revision=study["identity_revision"] if study else 1,
    )
    for role, revision_id in plan.inputs.items():
        tx.execute("INSERT INTO analysis_input VALUES (?, ?, ?)", (analysis_id, role, revision_id))
    tx.journal(
        AnalysisQueued(
            analysis=analysis_id,
            package=plan.package,
            version=plan.package_version,
            role=str(plan.role),
            revisions=plan.inputs,
            predecessor=predecessor,
        ),
        study_id=study_id,
    )
    for row in older:
        state = "done" if row["state"] == "queued" else row["state"]
        tx.execute("UPDATE analysis SET superseded_by = ?, state = ? WHERE id = ?", (analysis_id, state, row["id"]))
        tx.journal(AnalysisSuperseded(analysis=row["id"], by=analysis_id), study_id=study_id)
    return analysis_id


def _inputs(db: Database | Transaction, analysis_id: int) -> dict[str, int]:
    """Input role: revision id of an analysis."""
    rows = db.all("SELECT role, revision_id FROM analysis_input WHERE analysis_id = ?", (analysis_id,))
    return {row["role"]: row["revision_id"] for row in rows}
