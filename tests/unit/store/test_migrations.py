"""A database that an earlier version of this software wrote, opened by this one."""

from __future__ import annotations

import re
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from plan_kit import plan_for

from appliance.clock import SystemClock
from appliance.errors import ConfigError
from appliance.records import (
    Actor,
    ActorKind,
    AnalysisResult,
    DeliveryKind,
    FindingResult,
    Outcome,
    Reason,
    Rejection,
    RejectionTitle,
)
from appliance.store import Store
from appliance.store.database import SCHEMA_VERSION, Database
from appliance.store.ending import OwedResult
from appliance.store.receiving import Original
from appliance.store.studies import Change

#: Every schema that a box may still hold, as this software wrote it then.
OLD = {n: Path(__file__).with_name(f"schema_{n}.sql").read_text(encoding="utf-8") for n in range(1, SCHEMA_VERSION)}


def structure(path):
    """Every table and index as its SQL, comments and spaces left out."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    # A column that was added stands before the bracket without the line break that we would write.
    return {name: " ".join(re.sub(r"--[^\n]*|(?=[,()])|(?<=[,()])", " ", sql).split()) for name, sql in rows}


def write_old(path, store, schema):
    """What a box of an older schema left: the rows of a store of today, in the tables and columns that both have."""
    connection = sqlite3.connect(path)
    connection.executescript(f"BEGIN;{OLD[schema]}PRAGMA user_version={schema};COMMIT;")
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        if table == "sqlite_sequence":
            continue
        columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
        for row in store.db.all(f"SELECT {columns} FROM {table}"):  # noqa: S608 - names of our schema
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row))  # noqa: S608 - the same
    connection.commit()
    connection.close()


@pytest.mark.req("R-OPERATE-01")
@pytest.mark.parametrize("schema", OLD)
def test_box_of_an_older_schema_comes_forward_with_its_studies_and_its_journal(
    tmp_path, store, make_header, receive, schema
):
    stored = store.studies.add_new(receive(make_header(1)), ())
    (series,) = store.revisions.open_series()
    store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
    folder = tmp_path / "old"
    folder.mkdir()
    write_old(folder / "scanside.db", store, schema)

    now = Store.open(folder, SystemClock(), reserve_bytes=0)

    assert now.db.one("PRAGMA user_version")[0] == SCHEMA_VERSION
    assert now.views.study(stored.study_id).study.images == 1
    assert now.revisions.studies_to_route() == [stored.study_id]
    assert now.packages.all() == []
    assert now.views.study(stored.study_id).series[0].exposures == ()
    assert now.views.deciders() == []
    assert now.journal.verify() == 0
    assert now.db.stream == store.db.stream
    now.close()
    assert (folder / f"scanside.db.schema{schema}.bak").exists()


@pytest.mark.req("R-OPERATE-01")
@pytest.mark.parametrize("schema", OLD)
def test_what_an_older_box_sent_is_asked_for_kept_withdrawn_and_issued_anew_like_any_other(
    tmp_path, store, clock, make_header, receive, schema
):
    stored = store.studies.add_new(receive(make_header(1)), (Original(destination="pacs", calling_ae="CT1"),))
    (series,) = store.revisions.open_series()
    revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
    plan = plan_for(revision_id, intended_use="triage")
    (analysis_id,) = store.analyses.route(stored.study_id, (revision_id,), (plan,), (), lambda *_: ())
    bleed = FindingResult(id="bleed", score=0.9, operating_point="default", threshold=0.5, flagged=True, category=1)
    result = AnalysisResult(outcome=Outcome.FINDING, findings=(bleed,))
    store.analyses.finish(analysis_id, result, (OwedResult(destination="pacs", kind=DeliveryKind.SR),))
    with store.db.write() as tx:
        tx.execute(
            "UPDATE delivery SET state = 'sent', sent_at = ?, path = coalesce(path, 'results/00/x'),"
            " study_instance_uid = iif(kind = 'sr', '1.2.3', '')",
            (tx.at,),
        )
    folder = tmp_path / "old"
    folder.mkdir()
    write_old(folder / "scanside.db", store, schema)
    (sr,) = store.db.all("SELECT sop_instance_uid FROM delivery WHERE kind = 'sr'")

    now = Store.open(folder, clock, reserve_bytes=0)

    (alert,) = now.views.open_alerts()
    now.alerts.acknowledge(alert.id, Actor(kind=ActorKind.PERSON, name="Kim", role="technologist"))
    clock.advance(400 * 86400)
    before = now.retention.before(timedelta(hours=72))
    assert len(now.commitments.due("pacs", clock.now(), 10)) == 2
    assert now.retention.studies_due(before, ("pacs",)) == now.retention.results_due(before, ("pacs",)) == []
    assert now.retention.studies_due(before, ()) == [stored.study_id]
    known = now.studies.versions("1.2.3.4.1")
    corrected = receive(make_header(1, patient_id="P2"))
    now.studies.add_version(corrected, known, Change.IDENTITY, ())
    rows = now.db.all("SELECT * FROM delivery WHERE kind = 'sr' ORDER BY id")
    assert [(row["state"], row["identity_revision"]) for row in rows] == [("sent", 1), ("held", 2)]
    assert rows[0]["study_instance_uid"] == "1.2.3"
    assert rows[0]["sop_instance_uid"] == sr["sop_instance_uid"] != rows[1]["sop_instance_uid"]
    rejection = Rejection(title=RejectionTitle.QUALITY, sop_instance_uids=("1.2.3.4.1",))
    now.studies.add_new(receive(make_header(9, rejection=rejection, patient_id="P2")), ())
    study = now.views.study(stored.study_id).study
    assert (study.outcome, study.reason, study.alert.state) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN, "withdrawn")
    now.close()


@pytest.mark.req("R-OPERATE-01")
def test_a_disk_without_room_for_the_migration_changes_nothing_and_is_no_damage(tmp_path, store, monkeypatch):
    folder = tmp_path / "old"
    folder.mkdir()
    write_old(folder / "scanside.db", store, 2)

    def full(self, path):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "backup_to", full)
        with pytest.raises(ConfigError, match="disk is full; make room"):
            Store.open(folder, SystemClock(), reserve_bytes=0)
    now = Store.open(folder, SystemClock(), reserve_bytes=0)
    assert now.db.stream == store.db.stream
    now.close()


@pytest.mark.req("R-OPERATE-01")
@pytest.mark.parametrize("schema", OLD)
def test_migrated_database_has_the_structure_of_a_new_one(tmp_path, schema):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    connection = sqlite3.connect(old)
    connection.executescript(OLD[schema])
    connection.execute("INSERT INTO meta VALUES ('stream', 'x')")
    connection.execute(f"PRAGMA user_version={schema}")
    connection.commit()
    connection.close()
    Database(old, SystemClock()).close()
    Database(new, SystemClock()).close()
    assert structure(old) == structure(new)
