"""A database that an earlier version of this software wrote, opened by this one."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.store import Store
from appliance.store.database import SCHEMA_VERSION, Database

OLD = Path(__file__).with_name("schema_1.sql").read_text(encoding="utf-8")


def structure(path):
    """Every table and index as its SQL, comments and spaces left out."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: " ".join(re.sub(r"--[^\n]*", "", sql).split()) for name, sql in rows}


def write_old(path, store):
    """What a box of schema 1 left: the rows of a store of today, in the tables that both have."""
    connection = sqlite3.connect(path)
    connection.executescript(f"BEGIN;{OLD}PRAGMA user_version=1;COMMIT;")
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        if table == "sqlite_sequence":
            continue
        for row in store.db.all(f"SELECT * FROM {table}"):  # noqa: S608 - names of our schema
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(row))  # noqa: S608 - the same
    connection.commit()
    connection.close()


@pytest.mark.req("R-OPERATE-01")
def test_box_of_schema_1_comes_forward_with_its_studies_and_its_journal(tmp_path, store, make_header, receive):
    stored = store.studies.add_new(receive(make_header(1)), ())
    (series,) = store.revisions.open_series()
    store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
    folder = tmp_path / "old"
    folder.mkdir()
    write_old(folder / "scanside.db", store)

    now = Store.open(folder, SystemClock(), reserve_bytes=0)

    assert now.db.one("PRAGMA user_version")[0] == SCHEMA_VERSION
    assert now.views.study(stored.study_id).study.images == 1
    assert now.revisions.studies_to_route() == [stored.study_id]
    assert now.packages.all() == []
    assert now.journal.verify() == 0
    assert now.db.stream == store.db.stream
    now.close()
    assert (folder / "scanside.db.schema1.bak").exists()


@pytest.mark.req("R-OPERATE-01")
def test_migrated_database_has_the_structure_of_a_new_one(tmp_path):
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    connection = sqlite3.connect(old)
    connection.executescript(OLD)
    connection.executescript("INSERT INTO meta VALUES ('stream', 'x');PRAGMA user_version=1;")
    connection.close()
    Database(old, SystemClock()).close()
    Database(new, SystemClock()).close()
    assert structure(old) == structure(new)
