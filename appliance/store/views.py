"""Questions that screens and commands ask of the store. Nothing here writes."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from statistics import median

from appliance.errors import NotFoundError
from appliance.records import (
    SELF_TEST_SOURCE,
    AnalysisResult,
    DeliveryKind,
    DeliveryState,
    Identity,
    Outcome,
    Reason,
)
from appliance.store.database import Database, from_iso, iso
from appliance.store.issues import Issues
from appliance.store.jsonable import load
from appliance.store.orders import Orders
from appliance.store.quality import choices, deciders, exposures_of_analyses, exposures_of_series, open_warnings
from appliance.store.readmodels import (
    AlertView,
    Analysing,
    AnalysisView,
    BoxState,
    DeliveryView,
    Receiving,
    RevisionView,
    SeriesView,
    StudyDetail,
    StudyView,
    VersionView,
)
from appliance.store.viewrows import alert_view, analysis_view, fact_view, marks, optional_at

#: Done analyses that "usual" is the median of.
USUAL_OF = 20


class Views:
    """Read models. Safe to use from any thread; every answer is made anew."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db
        self._issues = Issues(db)

    # Studies ---------------------------------------------------------------------------------------------------

    def studies(
        self,
        *,
        limit: int = 50,
        since: datetime | None = None,
        outcomes: Iterable[Outcome] = (),
        sources: Iterable[str] = (),
        deliveries: bool = True,
    ) -> list[StudyView]:
        """Studies with an image since ``since``, newest first.

        Args:
            limit: How many at most.
            since: Only those whose last image came then or later.
            outcomes: Only those that ended so; empty for all, open ones too.
            sources: Only those that came from these; empty for all.
            deliveries: Whether to count deliveries; boards that are drawn often leave them out.
        """
        where, values = ["1"], []
        if since is not None:
            where.append("last_at >= ?")
            values.append(iso(since))
        wanted = [str(outcome) for outcome in outcomes]
        if wanted:
            where.append(f"outcome IN ({marks(wanted)})")
            values += wanted
        named = list(sources)
        if named:
            where.append(f"source IN ({marks(named)})")
            values += named
        sql = f"SELECT * FROM study WHERE {' AND '.join(where)} ORDER BY last_at DESC, id DESC LIMIT ?"  # noqa: S608
        return self._studies(self._db.all(sql, (*values, limit)), deliveries=deliveries)

    def some(self, study_ids: Iterable[int], *, deliveries: bool = False) -> dict[int, StudyView]:
        """Studies by id; unknown ids are left out."""
        ids = sorted(set(study_ids))
        rows = self._db.all(f"SELECT * FROM study WHERE id IN ({marks(ids)})", tuple(ids))  # noqa: S608
        return {study.id: study for study in self._studies(rows, deliveries=deliveries)}

    def study(self, study_id: int) -> StudyDetail:
        """Everything about one study.

        Raises:
            NotFoundError: No such study.
        """
        study = self.some([study_id], deliveries=True).get(study_id)
        if study is None:
            raise NotFoundError(f"study {study_id} does not exist; 'scanside study list' shows those that do")
        alerts = self._db.all("SELECT * FROM alert WHERE study_id = ? ORDER BY id", (study_id,))
        facts = self._db.all("SELECT * FROM journal WHERE study_id = ? ORDER BY seq", (study_id,))
        return StudyDetail(
            study=study,
            series=self._series(study_id),
            alerts=tuple(alert_view(row) for row in alerts),
            facts=tuple(fact_view(row) for row in facts),
        )

    def sources_of(self, study_ids: Iterable[int]) -> dict[int, str]:
        """The source of each study; unknown ids are left out."""
        ids = tuple(set(study_ids))
        rows = self._db.all(f"SELECT id, source FROM study WHERE id IN ({marks(ids)})", ids)  # noqa: S608 - marks only
        return {row["id"]: row["source"] for row in rows}

    def originals_owed(self, study_ids: Iterable[int]) -> set[int]:
        """Of these studies, those with images that a destination has not got yet; of parallel sources none are owed."""
        ids = tuple(set(study_ids))
        rows = self._db.all(
            f"SELECT DISTINCT study_id FROM delivery WHERE study_id IN ({marks(ids)}) AND kind = 'original'"  # noqa: S608
            " AND state IN ('held', 'owed', 'parked')",
            ids,
        )
        return {row["study_id"] for row in rows}

    def find(self, text: str) -> list[int]:
        """Ids of the studies that a person may mean: a local id, a Study Instance UID or an accession number."""
        sql = (
            "SELECT id FROM study WHERE CAST(id AS TEXT) = :text OR study_instance_uid = :text"
            " OR json_extract(identity, '$.accession_number') = :text ORDER BY id"
        )
        return [row["id"] for row in self._db.all(sql, {"text": text})]

    def counts(self, since: datetime, sources: Iterable[str] = ()) -> dict[str, int]:
        """Studies with an image since then, of some sources or of all, by outcome; open ones stand under ``""``.

        The box's own test studies are nobody's and are not counted.
        """
        named = tuple(sources)
        only = f" AND source IN ({marks(named)})" if named else ""
        rows = self._db.all(
            f"SELECT coalesce(outcome, '') AS outcome, count(*) AS n FROM study"  # noqa: S608
            f" WHERE last_at >= ? AND source <> ?{only} GROUP BY 1",
            (iso(since), SELF_TEST_SOURCE, *named),
        )
        return {row["outcome"]: row["n"] for row in rows}

    # Alerts ----------------------------------------------------------------------------------------------------

    def open_alerts(self) -> list[AlertView]:
        """Alerts that nobody has acknowledged: those that sound first, then by category, newest first."""
        rows = self._db.all(
            "SELECT * FROM alert WHERE state IN ('raised', 'presented')"
            " ORDER BY active DESC, category, chime DESC, id DESC"
        )
        return [alert_view(row) for row in rows]

    def closed_alerts(self, since: datetime) -> list[AlertView]:
        """Alerts acknowledged, decided or withdrawn since then, newest first."""
        rows = self._db.all(
            "SELECT * FROM (SELECT * FROM alert ORDER BY id DESC LIMIT 500)"
            " WHERE state NOT IN ('raised', 'presented') AND coalesce(withdrawn_at, acknowledged_at, decided_at) >= ?"
            " ORDER BY coalesce(withdrawn_at, acknowledged_at, decided_at) DESC",
            (iso(since),),
        )
        return [alert_view(row) for row in rows]

    def alerts(self, *, limit: int = 50) -> list[AlertView]:
        """The newest alerts in any state, newest first."""
        return [alert_view(row) for row in self._db.all("SELECT * FROM alert ORDER BY id DESC LIMIT ?", (limit,))]

    def alert(self, alert_id: int) -> AlertView:
        """One alert.

        Raises:
            NotFoundError: No such alert.
        """
        row = self._db.one("SELECT * FROM alert WHERE id = ?", (alert_id,))
        if row is None:
            raise NotFoundError(f"alert {alert_id} does not exist; 'scanside alert list' shows those that do")
        return alert_view(row)

    def open_warnings(self, since: datetime) -> list[int]:
        """Ids of the studies with quality warnings that nobody has decided and an image since then; newest first."""
        return open_warnings(self._db, since)

    def deciders(self, *, limit: int = 6) -> list[str]:
        """Names of those who decided on quality warnings last, most recent first."""
        return deciders(self._db, limit)

    def acknowledgers(self, *, limit: int = 6) -> list[str]:
        """Names of those who acknowledged last, most recent first."""
        rows = self._db.all(
            "SELECT acknowledged_by AS name FROM (SELECT * FROM alert ORDER BY id DESC LIMIT 500)"
            " WHERE acknowledged_by IS NOT NULL GROUP BY 1 ORDER BY max(acknowledged_at) DESC LIMIT ?",
            (limit,),
        )
        return [row["name"] for row in rows]

    # The box ---------------------------------------------------------------------------------------------------

    def box(self, sources: Iterable[str] = ()) -> BoxState:
        """What the box does now, and what is wrong with it; of studies, those of some sources or all."""
        named = tuple(sources)
        only = f" AND st.source IN ({marks(named)})" if named else ""
        of_study = f" AND EXISTS (SELECT 1 FROM study st WHERE st.id = study_id{only})" if named else ""  # noqa: S608
        receiving = self._db.all(
            "SELECT st.id, st.source, st.images, st.first_at FROM study st"  # noqa: S608 - marks only
            f" WHERE st.id IN (SELECT study_id FROM series WHERE open = 1){only} ORDER BY st.last_at DESC",
            named,
        )
        analysing = self._db.all(
            "SELECT * FROM analysis WHERE state <> 'done' AND state = 'running' AND role = 'live'"  # noqa: S608
            f" AND superseded_by IS NULL{of_study} ORDER BY id",
            named,
        )
        queued = self._db.one(
            "SELECT count(*) AS n FROM analysis WHERE state <> 'done' AND state = 'queued' AND role = 'live'"  # noqa: S608
            f"{of_study}",
            named,
        )
        usual = {package: self.usual_s(package) for package in {row["package"] for row in analysing}}
        return BoxState(
            receiving=tuple(
                Receiving(
                    study_id=row["id"], source=row["source"], images=row["images"], since_at=from_iso(row["first_at"])
                )
                for row in receiving
            ),
            analysing=tuple(
                Analysing(
                    study_id=row["study_id"],
                    analysis_id=row["id"],
                    package=row["package"],
                    started_at=from_iso(row["started_at"]),
                    usual_s=usual[row["package"]],
                )
                for row in analysing
            ),
            queued=int(queued["n"]) if queued else 0,
            issues=tuple(self._issues.open()),
        )

    def usual_s(self, package: str) -> float | None:
        """How long the package usually works on a study: the median of its last analyses that gave a result."""
        rows = self._db.all(
            "SELECT started_at, done_at FROM analysis WHERE package = ? AND state = 'done' AND started_at IS NOT NULL"
            " AND done_at IS NOT NULL AND outcome IN ('FINDING', 'NOTHING_FLAGGED') ORDER BY id DESC LIMIT ?",
            (package, USUAL_OF),
        )
        times = [(from_iso(row["done_at"]) - from_iso(row["started_at"])).total_seconds() for row in rows]
        return median(times) if times else None

    # Parts -----------------------------------------------------------------------------------------------------

    def _studies(self, rows: list[sqlite3.Row], *, deliveries: bool) -> list[StudyView]:
        ids = tuple(row["id"] for row in rows)
        series: dict[int, list[sqlite3.Row]] = defaultdict(list)
        for row in self._db.all(
            "SELECT study_id, modality, description, json_extract(header, '$.patient_age') AS age FROM series"  # noqa: S608
            f" WHERE study_id IN ({marks(ids)}) ORDER BY id",
            ids,
        ):
            series[row["study_id"]].append(row)
        alerts = {
            row["study_id"]: alert_view(row)  # the last one of a study stands: withdrawn ones are older
            for row in self._db.all(f"SELECT * FROM alert WHERE study_id IN ({marks(ids)}) ORDER BY id", ids)  # noqa: S608
        }
        analyses = self._analyses(ids)
        owed = self._deliveries(ids) if deliveries else {}
        orders = Orders(self._db).of_studies(ids)
        return [
            StudyView(
                id=row["id"],
                study_instance_uid=row["study_instance_uid"],
                source=row["source"],
                identity=load(Identity, row["identity"]),
                identity_revision=row["identity_revision"],
                patient_age=next((s["age"] for s in series[row["id"]] if s["age"]), ""),
                modalities=tuple(dict.fromkeys(s["modality"] for s in series[row["id"]] if s["modality"])),
                description=row["description"] or next((s["description"] for s in series[row["id"]]), ""),
                study_date=row["study_date"],
                study_time=row["study_time"],
                stat=bool(row["stat"]),
                images=row["images"],
                first_at=from_iso(row["first_at"]),
                last_at=from_iso(row["last_at"]),
                outcome=Outcome(row["outcome"]) if row["outcome"] else None,
                reason=Reason(row["reason"]) if row["reason"] else None,
                outcome_at=optional_at(row["outcome_at"]),
                analyses=tuple(analyses.get(row["id"], ())),
                alert=alerts.get(row["id"]),
                deliveries=tuple(owed.get(row["id"], ())),
                order=orders.get(row["id"]),
                images_removed_at=optional_at(row["images_removed_at"]),
            )
            for row in rows
        ]

    def _analyses(self, study_ids: tuple[int, ...]) -> dict[int, list[AnalysisView]]:
        rows = self._db.all(
            "SELECT a.*, (SELECT max(v.ready_mono - v.last_image_mono) FROM analysis_input i"  # noqa: S608 - marks only
            " JOIN revision v ON v.id = i.revision_id WHERE i.analysis_id = a.id) AS completeness_s FROM analysis a"
            f" WHERE a.study_id IN ({marks(study_ids)}) ORDER BY a.id",
            study_ids,
        )
        results = {row["id"]: load(AnalysisResult, row["result"]) for row in rows if row["result"]}
        numbers = self._instance_numbers(
            uid for result in results.values() for finding in result.findings for uid in finding.key_instances
        )
        quality = tuple(row["id"] for row in rows if row["intended_use"] == "quality")
        exposures, chosen = exposures_of_analyses(self._db, quality), choices(self._db, quality)
        views: dict[int, list[AnalysisView]] = defaultdict(list)
        for row in rows:
            analysis_id = row["id"]
            view = analysis_view(
                row, results.get(analysis_id), numbers, exposures.get(analysis_id, ()), chosen.get(analysis_id)
            )
            views[row["study_id"]].append(view)
        return views

    def _instance_numbers(self, uids: Iterable[str]) -> dict[str, int | None]:
        wanted = tuple(set(uids))
        rows = self._db.all(
            "SELECT i.sop_instance_uid AS uid, v.instance_number AS n FROM instance i"  # noqa: S608 - marks only
            f" JOIN version v ON v.id = i.version_id WHERE i.sop_instance_uid IN ({marks(wanted)})",
            wanted,
        )
        return {row["uid"]: row["n"] for row in rows}

    def _deliveries(self, study_ids: tuple[int, ...]) -> dict[int, list[DeliveryView]]:
        rows = self._db.all(
            "SELECT study_id, destination, kind, state, analysis_id, count(*) AS n, max(attempt) AS attempt,"  # noqa: S608
            " max(error) AS error, max(sent_at) AS sent_at, max(sop_instance_uid) AS uid,"
            " count(committed_at) AS committed FROM delivery"
            f" WHERE study_id IN ({marks(study_ids)}) GROUP BY study_id, destination, kind, state, analysis_id"
            " ORDER BY min(id)",
            study_ids,
        )
        views: dict[int, list[DeliveryView]] = defaultdict(list)
        for row in rows:
            views[row["study_id"]].append(
                DeliveryView(
                    destination=row["destination"],
                    kind=DeliveryKind(row["kind"]),
                    state=DeliveryState(row["state"]),
                    count=row["n"],
                    attempt=row["attempt"],
                    error=row["error"],
                    sent_at=optional_at(row["sent_at"]),
                    sop_instance_uid=row["uid"] if row["n"] == 1 else "",
                    analysis_id=row["analysis_id"],
                    committed=row["committed"],
                )
            )
        return views

    def _series(self, study_id: int) -> tuple[SeriesView, ...]:
        rows = self._db.all("SELECT * FROM series WHERE study_id = ? ORDER BY id", (study_id,))
        return tuple(self._one_series(row) for row in rows)

    def _one_series(self, row: sqlite3.Row) -> SeriesView:
        revisions = self._db.all("SELECT * FROM revision WHERE series_id = ? ORDER BY n", (row["id"],))
        images = self._db.one(
            "SELECT count(*) AS n, total(v.state = 'rejected') AS rejected FROM instance i"
            " LEFT JOIN version v ON v.id = i.version_id WHERE i.series_id = ?",
            (row["id"],),
        )
        versions = self._db.all(
            "SELECT v.*, i.sop_instance_uid FROM version v JOIN instance i ON i.id = v.instance_id"
            " WHERE i.series_id = ? AND (SELECT count(*) FROM version w WHERE w.instance_id = i.id) > 1"
            " ORDER BY v.instance_id, v.n",
            (row["id"],),
        )
        return SeriesView(
            id=row["id"],
            series_instance_uid=row["series_instance_uid"],
            sop_class_uid=row["sop_class_uid"],
            modality=row["modality"],
            number=row["number"],
            description=row["description"],
            body_part=row["body_part"],
            images=int(images["n"]) if images else 0,
            rejected=int(images["rejected"]) if images else 0,
            left_out=row["left_out"] or "",
            exposures=exposures_of_series(self._db, row["id"]),
            revisions=tuple(
                RevisionView(
                    n=r["n"], images=r["images"], evidence=json.loads(r["evidence"]), ready_at=from_iso(r["ready_at"])
                )
                for r in revisions
            ),
            versions=tuple(
                VersionView(
                    id=v["id"],
                    sop_instance_uid=v["sop_instance_uid"],
                    n=v["n"],
                    state=v["state"],
                    transfer_syntax_uid=v["transfer_syntax_uid"],
                    size=v["size"],
                    received_at=from_iso(v["received_at"]),
                )
                for v in versions
            ),
        )
