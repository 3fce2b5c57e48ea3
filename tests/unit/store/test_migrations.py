"""A database that an earlier version of this software wrote, opened by this one."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.store import Store
from appliance.store.database import SCHEMA_VERSION, Database

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
