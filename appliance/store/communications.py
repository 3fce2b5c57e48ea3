"""The register of critical values: who was told what, by whom, when and how, and whether they read it back."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.errors import ConflictError
from appliance.records import SELF_TEST_SOURCE, Actor, AlertState, CommunicationMethod, Identity
from appliance.store.alerts import acknowledge_row, standing_row
from appliance.store.database import Database, from_iso, iso
from appliance.store.facts.alerts import AlertCommunicated
from appliance.store.jsonable import load
from appliance.store.readmodels import AlertView, Flagged
from appliance.store.viewrows import alert_view, marks

#: Clocks of rooms differ by so much.
_SLACK = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    """One line of the register, as it was recorded; ``alert_state`` is where its alert stands now, if it is known."""

    id: int
    alert_id: int
    study_id: int
    source: str
    identity: Identity
    age: str
    exam: str
    category: int
    findings: tuple[Flagged, ...]
    #: As they were told; empty where no words were at hand.
    titles: tuple[Mapping[str, str], ...]
    found_at: datetime
    told_by: str
    received_by: str
    received_at: datetime
    method: CommunicationMethod
    read_back: bool
    evaluation: bool
    recorded_at: datetime
    alert_state: AlertState | None


class Communications:
    """Acts on the register, and questions to it."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def record(
        self,
        alert_id: int,
        actor: Actor,
        *,
        received_by: str,
        method: CommunicationMethod,
        read_back: bool,
        titles: Sequence[Mapping[str, str]],
        evaluation: bool,
        received_at: datetime | None = None,
    ) -> int:
        """Record that somebody was told of an alert. Who tells has seen it; several may be told, one after another.

        Args:
            alert_id: The alert.
            actor: Who told.
            received_by: Who was told.
            method: How.
            read_back: Whether they repeated it.
            titles: The findings in words, as the one who told was shown them; empty where they were not.
            evaluation: Whether the box runs in evaluation mode: no real patient's register.
            received_at: When; None: now.

        Returns:
            The line's id.

        Raises:
            NotFoundError: No such alert.
            ConflictError: It was withdrawn; nobody is named; or the time cannot be.
        """
        who, whom = actor.name.strip(), received_by.strip()
        if not who or not whom:
            raise ConflictError(f"alert {alert_id}: say who told and who was told")
        with self._db.write() as tx:
            alert = standing_row(tx, alert_id)
            study = tx.one("SELECT * FROM study WHERE id = ?", (alert["study_id"],))
            assert study is not None  # noqa: S101 - a foreign key
            series = tx.all("SELECT modality, json_extract(header, '$.patient_age') AS age, description FROM series"
                            " WHERE study_id = ? ORDER BY id", (study["id"],))  # fmt: skip
            at = received_at or tx.now
            if not from_iso(alert["raised_at"]) - _SLACK <= at <= tx.now + _SLACK:
                raise ConflictError(
                    f"alert {alert_id}: nobody can have been told at {at:%Y-%m-%d %H:%M} UTC; it was raised at"
                    f" {alert['raised_at'][:16].replace('T', ' ')}, and that time is not over"
                )
            modality = "/".join(dict.fromkeys(row["modality"] for row in series if row["modality"]))
            description = study["description"] or next((row["description"] for row in series), "")
            findings = json.loads(alert["findings"])
            line_id = tx.insert(
                "communication",
                alert_id=alert_id,
                study_id=study["id"],
                source=study["source"],
                identity=study["identity"],
                age=next((row["age"] for row in series if row["age"]), ""),
                exam=f"{modality} {description}".strip(),
                category=alert["category"],
                findings=alert["findings"],
                titles=json.dumps([dict(title) for title in titles], ensure_ascii=False),
                found_at=alert["raised_at"],
                told_by=who,
                received_by=whom,
                received_at=iso(at),
                method=str(method),
                read_back=int(read_back),
                evaluation=int(evaluation),
                recorded_at=tx.at,
            )
            acknowledge_row(tx, alert, actor)
            if alert["state"] != AlertState.DECIDED:
                tx.execute(
                    "UPDATE alert SET state = ?, communicated_at = coalesce(communicated_at, ?) WHERE id = ?",
                    (str(AlertState.COMMUNICATED), tx.at, alert_id),
                )
            tx.journal(
                AlertCommunicated(
                    alert=alert_id,
                    communication=line_id,
                    findings=tuple(f"{entry['package']}/{entry['finding']}" for entry in findings),
                    found_at=alert["raised_at"],
                    received_by=whom,
                    received_at=iso(at),
                    method=method,
                    read_back=read_back,
                ),
                study_id=study["id"],
                actor=actor,
            )
            return line_id

    def of_alerts(self, alert_ids: Iterable[int]) -> dict[int, list[Communication]]:
        """Lines by alert, oldest first."""
        ids = tuple(alert_ids)
        found: dict[int, list[Communication]] = defaultdict(list)
        for line in self._lines(f"c.alert_id IN ({marks(ids)}) ORDER BY c.id", ids):
            found[line.alert_id].append(line)
        return found

    def between(self, start: datetime, end: datetime, limit: int) -> list[Communication]:
        """Lines of what was told from ``start`` on and before ``end``, newest first."""
        sql = "c.received_at >= ? AND c.received_at < ? ORDER BY c.received_at DESC, c.id DESC LIMIT ?"
        return self._lines(sql, (iso(start), iso(end), limit))

    def missing(self, start: datetime, end: datetime, limit: int) -> list[AlertView]:
        """Urgent alerts, raised in that time, of which nobody was told and that no review decided; oldest first.

        The box's own tests need be told to nobody.
        """
        rows = self._db.all(
            "SELECT * FROM alert WHERE raised_at >= ? AND raised_at < ? AND category = 1 AND active = 1"
            " AND state IN ('raised', 'presented', 'acknowledged')"
            " AND communicated_at IS NULL AND (SELECT s.source FROM study s WHERE s.id = alert.study_id) <> ?"
            " ORDER BY raised_at LIMIT ?",
            (iso(start), iso(end), SELF_TEST_SOURCE, limit),
        )
        return [alert_view(row) for row in rows]

    def recipients(self, limit: int = 6) -> list[str]:
        """Names of those who were told last, most recent first."""
        return self._names("received_by", limit)

    def tellers(self, limit: int = 6) -> list[str]:
        """Names of those who told last, most recent first."""
        return self._names("told_by", limit)

    def _names(self, column: str, limit: int) -> list[str]:
        rows = self._db.all(
            f"SELECT {column} AS name FROM (SELECT * FROM communication ORDER BY id DESC LIMIT 200)"  # noqa: S608 - ours
            " GROUP BY 1 ORDER BY max(id) DESC LIMIT ?",
            (limit,),
        )
        return [row["name"] for row in rows]

    def _lines(self, condition: str, values: tuple[object, ...]) -> list[Communication]:
        rows = self._db.all(
            "SELECT c.*, a.state AS alert_state FROM communication c"  # noqa: S608 - conditions above
            f" LEFT JOIN alert a ON a.id = c.alert_id AND a.study_id = c.study_id WHERE {condition}",
            values,
        )
        return [
            Communication(
                id=row["id"],
                alert_id=row["alert_id"],
                study_id=row["study_id"],
                source=row["source"],
                identity=load(Identity, row["identity"]),
                age=row["age"],
                exam=row["exam"],
                category=row["category"],
                findings=tuple(
                    Flagged(package=entry["package"], finding=entry["finding"]) for entry in json.loads(row["findings"])
                ),
                titles=tuple(json.loads(row["titles"])),
                found_at=from_iso(row["found_at"]),
                told_by=row["told_by"],
                received_by=row["received_by"],
                received_at=from_iso(row["received_at"]),
                method=CommunicationMethod(row["method"]),
                read_back=bool(row["read_back"]),
                evaluation=bool(row["evaluation"]),
                recorded_at=from_iso(row["recorded_at"]),
                alert_state=AlertState(row["alert_state"]) if row["alert_state"] else None,
            )
            for row in rows
        ]
