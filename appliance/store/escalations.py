"""What happens about alerts that nobody acknowledges, and what sinks outside the screens are told of it.

One row an alert and step, one row a sink and step; written with the journal, so that a kill neither loses nor doubles
a step. When each is due is a rule of ``screen.escalation``; who speaks to a sink is ``deliver.alert_sinks``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from appliance.records import SELF_TEST_SOURCE, AlertStep, Identity, Severity
from appliance.store.database import Database, Transaction, from_iso, iso
from appliance.store.facts.alerts import AlertEscalated, AlertSinkFailed, AlertSinkTold
from appliance.store.issues import clear_issue, raise_issue
from appliance.store.jsonable import load
from appliance.store.viewrows import marks

#: The issue of a sink that does not take what it is told.
SINK_FAILING = "ALERT_SINK_FAILING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An active alert of category 1 or 2 that nobody has acknowledged."""

    alert_id: int
    study_id: int
    source: str
    category: int
    chime: bool
    raised_at: datetime
    steps: frozenset[AlertStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing that a sink is to be told. Of the patient it has no more than the accession number."""

    id: int
    sink: str
    step: AlertStep
    alert_id: int | None
    test_id: int | None
    category: int
    source: str
    accession_number: str
    raised_at: datetime
    owed_at: datetime
    attempt: int
    #: Alerts and tests that call and that this sink has been told of, this one included: a light is on while any is.
    calling: int

    @property
    def is_test(self) -> bool:
        """Whether it is a trial."""
        return self.test_id is not None


class Escalations:
    """Acts on the steps of alerts and on what sinks are owed."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def waiting(self) -> list[Waiting]:
        """Active alerts of categories 1 and 2 that nobody has acknowledged, oldest first.

        None of the box's own test studies, for which nobody is called.
        """
        rows = self._db.all(
            "SELECT a.*, s.source AS source FROM alert a JOIN study s ON s.id = a.study_id"
            " WHERE a.state IN ('raised', 'presented') AND a.active = 1 AND a.category <= 2 AND s.source <> ?"
            " ORDER BY a.id",
            (SELF_TEST_SOURCE,),
        )
        steps = self.steps(row["id"] for row in rows)
        return [
            Waiting(
                alert_id=row["id"],
                study_id=row["study_id"],
                source=row["source"],
                category=row["category"],
                chime=bool(row["chime"]),
                raised_at=from_iso(row["raised_at"]),
                steps=frozenset(steps.get(row["id"], {})),
            )
            for row in rows
        ]

    def steps(self, alert_ids: Iterable[int]) -> dict[int, dict[AlertStep, datetime]]:
        """When which step of which alert was taken."""
        ids = tuple(alert_ids)
        found: dict[int, dict[AlertStep, datetime]] = defaultdict(dict)
        if not ids:
            return found
        for row in self._db.all(f"SELECT * FROM escalation WHERE alert_id IN ({marks(ids)})", ids):  # noqa: S608 - marks
            found[row["alert_id"]][AlertStep(row["step"])] = from_iso(row["at"])
        return found

    def told_since(self, since: datetime) -> set[int]:
        """Studies whose alerts, raised since then, went to further targets."""
        rows = self._db.all(
            "SELECT a.study_id FROM alert a JOIN escalation e ON e.alert_id = a.id AND e.step = ?"
            " WHERE a.raised_at >= ?",
            (str(AlertStep.TELL), iso(since)),
        )
        return {row["study_id"] for row in rows}

    def take(self, alert_id: int, step: AlertStep, sinks: Collection[str] = (), screens: Collection[str] = ()) -> bool:
        """Take a step of an alert, once, and owe it to sinks. ``screens`` are further ones that show it from now on.

        Returns:
            Whether it was taken now: the alert is still open, and the step was not taken before.
        """
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM alert WHERE id = ? AND state IN ('raised', 'presented')", (alert_id,))
            taken = "INSERT INTO escalation VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            if row is None or not tx.execute(taken, (alert_id, str(step), tx.at)).rowcount:
                return False
            owe(tx, sinks, step, alert_id=alert_id)
            body = AlertEscalated(alert=alert_id, step=step, sinks=tuple(sinks), screens=tuple(screens))
            tx.journal(body, study_id=row["study_id"])
            return True

    # Sinks -----------------------------------------------------------------------------------------------------

    def owed(self, sink: str, now: datetime, limit: int = 20) -> list[Notice]:
        """What a sink is to be told now, in its order: nothing overtakes what is tried again."""
        rows = self._db.all(
            "SELECT n.*, a.category, coalesce(s.source, t.source) AS source, s.identity,"
            " coalesce(a.raised_at, t.raised_at) AS raised_at FROM alert_notice n"
            " LEFT JOIN alert a ON a.id = n.alert_id LEFT JOIN study s ON s.id = a.study_id"
            " LEFT JOIN test_alert t ON t.id = n.test_id"
            " WHERE n.sink = ? AND n.state = 'owed' ORDER BY n.id LIMIT ?",
            (sink, limit),
        )
        due: list[Notice] = []
        for row in rows:
            if row["next_at"] > iso(now):
                break
            identity = load(Identity, row["identity"]) if row["identity"] else None
            due.append(
                Notice(
                    id=row["id"],
                    sink=sink,
                    step=AlertStep(row["step"]),
                    alert_id=row["alert_id"],
                    test_id=row["test_id"],
                    category=row["category"] or 1,
                    source=row["source"],
                    accession_number=identity.accession_number if identity else "",
                    raised_at=from_iso(row["raised_at"]),
                    owed_at=from_iso(row["owed_at"]),
                    attempt=row["attempt"],
                    calling=self._calling(sink),
                )
            )
        return due

    def told(self, notice: Notice) -> None:
        """The sink took it. If the alert was answered meanwhile, it is owed that, too."""
        with self._db.write() as tx:
            row = tx.one("SELECT * FROM alert_notice WHERE id = ?", (notice.id,))
            if row is None or row["state"] not in {"owed", "void"}:
                return
            tx.execute(
                "UPDATE alert_notice SET state = 'told', told_at = ?, error = '' WHERE id = ?", (tx.at, row["id"])
            )
            if row["state"] == "void":
                owe(tx, (notice.sink,), AlertStep.CLEARED, alert_id=notice.alert_id, test_id=notice.test_id)
            fact = AlertSinkTold(sink=notice.sink, step=notice.step, alert=notice.alert_id, test=notice.test_id)
            tx.journal(fact, subject=notice.sink)
            clear_issue(tx, SINK_FAILING, notice.sink)

    def failed(self, notice: Notice, error: str, next_at: datetime, *, is_issue: bool) -> None:
        """The sink did not take it; it is tried again."""
        with self._db.write() as tx:
            tx.execute(
                "UPDATE alert_notice SET attempt = attempt + 1, next_at = ?, error = ? WHERE id = ? AND state = 'owed'",
                (iso(next_at), error, notice.id),
            )
            if is_issue:
                raise_issue(tx, SINK_FAILING, notice.sink, Severity.FAULT, {"error": error})

    def give_up(self, notice: Notice) -> None:
        """Too late to be of use; the next one is not held back by it. The issue stands until the sink takes one."""
        with self._db.write() as tx:
            changed = tx.execute(
                "UPDATE alert_notice SET state = 'given_up' WHERE id = ? AND state IN ('owed', 'void')", (notice.id,)
            )
            if changed.rowcount:
                fact = AlertSinkFailed(
                    sink=notice.sink,
                    step=notice.step,
                    attempts=notice.attempt,
                    alert=notice.alert_id,
                    test=notice.test_id,
                )
                tx.journal(fact, subject=notice.sink)

    def forget_other_sinks(self, sinks: Iterable[str]) -> None:
        """What is owed to sinks that are no longer configured is owed to nobody."""
        names = tuple(sinks)
        with self._db.write() as tx:
            tx.execute(
                f"UPDATE alert_notice SET state = 'void' WHERE state = 'owed' AND sink NOT IN ({marks(names)})",  # noqa: S608
                names,
            )
            for row in tx.all("SELECT subject FROM issue WHERE code = ? AND cleared_at IS NULL", (SINK_FAILING,)):
                if row["subject"] not in names:
                    clear_issue(tx, SINK_FAILING, row["subject"])

    def _calling(self, sink: str) -> int:
        row = self._db.one(
            "SELECT (SELECT count(*) FROM alert a WHERE a.state IN ('raised', 'presented') AND EXISTS"
            "  (SELECT 1 FROM alert_notice n WHERE n.alert_id = a.id AND n.sink = :sink))"
            " + (SELECT count(*) FROM test_alert t WHERE t.ended_at IS NULL AND EXISTS"
            "  (SELECT 1 FROM alert_notice n WHERE n.test_id = t.id AND n.sink = :sink)) AS n",
            {"sink": sink},
        )
        return int(row["n"]) if row else 0


def owe(
    tx: Transaction, sinks: Collection[str], step: AlertStep, *, alert_id: int | None = None, test_id: int | None = None
) -> None:
    """Owe a step to sinks, once each, inside a transaction."""
    for sink in sinks:
        tx.execute(
            "INSERT INTO alert_notice (sink, alert_id, test_id, step, state, owed_at, next_at)"
            " VALUES (?, ?, ?, ?, 'owed', ?, ?) ON CONFLICT DO NOTHING",
            (sink, alert_id, test_id, str(step), tx.at, tx.at),
        )


def clear_notices(tx: Transaction, alert_id: int | None, *, test_id: int | None = None) -> None:
    """The alert calls no longer: nobody is told of it any more, and whoever was, or may have been, is told that."""
    which = "alert_id = ?" if test_id is None else "test_id = ?"
    key = alert_id if test_id is None else test_id
    rows = tx.all(
        f"SELECT sink, max(state = 'told' OR attempt > 0) AS heard FROM alert_notice WHERE {which} GROUP BY sink",  # noqa: S608
        (key,),
    )
    tx.execute(f"UPDATE alert_notice SET state = 'void' WHERE {which} AND state = 'owed'", (key,))  # noqa: S608 - literals
    owe(tx, [row["sink"] for row in rows if row["heard"]], AlertStep.CLEARED, alert_id=alert_id, test_id=test_id)


def flagged_before(db: Database, alert_ids: Iterable[int]) -> dict[int, datetime]:
    """When the same finding of the same patient was last alerted before, by alert; those without are left out.

    A patient without a number is nobody's earlier self. What was taken back because it was another patient's, or
    because its images were rejected, was no finding of this one.
    """
    ids = tuple(alert_ids)
    rows = db.all(
        "SELECT a.id, a.findings, e.findings AS earlier, e.raised_at FROM alert a JOIN study s ON s.id = a.study_id"  # noqa: S608
        " JOIN study t ON t.patient_key = s.patient_key JOIN alert e ON e.study_id = t.id AND e.id < a.id"
        " AND coalesce(e.withdrawn_why, '') NOT IN ('identity_corrected', 'rejected')"
        f" WHERE a.id IN ({marks(ids)}) AND coalesce(json_extract(s.identity, '$.patient_id'), '') <> '' ORDER BY e.id",
        ids,
    )
    found: dict[int, str] = {}
    codes: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        for text in (row["findings"], row["earlier"]):
            if text not in codes:
                codes[text] = _codes(text)
        if codes[row["findings"]] & codes[row["earlier"]]:
            found[row["id"]] = row["raised_at"]
    return {alert_id: from_iso(at) for alert_id, at in found.items()}


def _codes(findings: str) -> set[tuple[str, str]]:
    return {(entry["package"], entry["finding"]) for entry in json.loads(findings)}
