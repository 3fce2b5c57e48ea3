"""The journal: chained, complete, readable by cursor, awake after commits of this and other processes."""

from __future__ import annotations

import importlib
import pkgutil
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.errors import ConfigError, StoreError
from appliance.store import Store, facts
from appliance.store.database import SCHEMA_VERSION, Database, from_iso
from appliance.store.facts import Body, Kind
from appliance.store.journal import Journal


@pytest.fixture
def filled(store):
    for n in range(5):
        store.studies.refused(association_id=None, source="CT-1", status=n, message="no")
    return store


def test_every_kind_of_fact_has_one_body():
    for module in pkgutil.iter_modules(facts.__path__):
        importlib.import_module(f"{facts.__name__}.{module.name}")
    assert sorted(body.kind for body in Body.__subclasses__()) == sorted(Kind)


@pytest.mark.req("R-STORE-01")
def test_untouched_chain_verifies(filled):
    assert filled.journal.verify() == 0


@pytest.mark.req("R-STORE-01")
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE journal SET body = replace(body, 'no', 'on') WHERE seq = 3",
        "UPDATE journal SET at = '2026-01-01T00:00:00.000001Z' WHERE seq = 3",
        "UPDATE journal SET study_id = 7 WHERE seq = 3",
        "DELETE FROM journal WHERE seq = 3",
        "UPDATE journal SET seq = 100 WHERE seq = 3",
    ],
)
@pytest.mark.req("R-HOUSE-05")
def test_edit_removal_and_reordering_are_found(filled, damage):
    with filled.db.write() as tx:
        tx.execute(damage)
    assert filled.journal.verify() in {3, 4}


def test_reader_gets_rows_after_its_cursor_in_order_once(filled):
    filled.journal.move_cursor("fleet", filled.journal.after(0, limit=3)[-1].seq)
    rest = filled.journal.after(filled.journal.cursor("fleet"))
    assert [fact.body["status"] for fact in rest] == [2, 3, 4]


@pytest.mark.req("R-STORE-01")
def test_failed_transaction_leaves_neither_state_nor_fact(filled):
    last = filled.journal.last_seq()

    def act():
        with filled.db.write() as tx:
            tx.execute("INSERT INTO meta VALUES ('x', 'y')")
            tx.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StoreError):
        act()
    assert filled.journal.last_seq() == last
    assert filled.db.one("SELECT 1 FROM meta WHERE key = 'x'") is None


@pytest.mark.req("R-STORE-03")
def test_reader_is_woken_by_a_commit_of_this_process(tmp_path):
    store = Store.open(tmp_path, SystemClock(), reserve_bytes=0)
    last = store.journal.last_seq()
    writer = threading.Thread(
        target=lambda: store.studies.refused(association_id=None, source="a", status=1, message="m")
    )
    writer.start()
    assert store.journal.wait(last, 30)
    writer.join()
    store.close()


WRITE_ELSEWHERE = """
import pathlib, sys
from appliance.clock import SystemClock
from appliance.store.database import Database
from appliance.store.studies import Studies
db = Database(pathlib.Path(sys.argv[1]), SystemClock())
Studies(db).refused(association_id=None, source="a", status=1, message="m")
db.close()
"""


def test_reader_sees_a_commit_of_another_process(tmp_path):
    db = Database(tmp_path / "scanside.db", SystemClock())
    journal = Journal(db)
    last = journal.last_seq()
    with subprocess.Popen([sys.executable, "-c", WRITE_ELSEWHERE, str(tmp_path / "scanside.db")]) as child:
        assert journal.wait(last, 60)
    assert child.returncode == 0
    assert journal.verify() == 0
    db.close()


@pytest.mark.req("R-HOUSE-02")
def test_database_of_a_newer_version_is_refused_with_the_mending_line(tmp_path):
    db = Database(tmp_path / "scanside.db", SystemClock())
    with db.write() as tx:
        tx.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="update Scanside"):
        Database(tmp_path / "scanside.db", SystemClock())


def test_file_that_is_no_database_is_a_store_error(tmp_path):
    (tmp_path / "scanside.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Database(tmp_path / "scanside.db", SystemClock())


def test_threads_that_come_and_go_leave_no_connection_open(store):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        thread = threading.Thread(target=store.journal.last_seq)
        thread.start()
        thread.join()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_older_schema_is_brought_forward_with_a_copy_of_the_old_file_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "scanside.db"
    Database(path, SystemClock()).close()
    now = SCHEMA_VERSION
    monkeypatch.setattr("appliance.store.database.SCHEMA_VERSION", now + 2)
    monkeypatch.setattr(
        "appliance.store.database.MIGRATIONS",
        {now: "ALTER TABLE study ADD COLUMN first TEXT", now + 1: "ALTER TABLE study ADD COLUMN second TEXT"},
    )
    db = Database(path, SystemClock())
    db.one("SELECT first, second FROM study")
    assert db.one("PRAGMA user_version")[0] == now + 2
    db.close()
    old = sqlite3.connect(tmp_path / f"scanside.db.schema{now}.bak")
    assert old.execute("PRAGMA user_version").fetchone()[0] == now
    old.close()


def test_migration_that_fails_leaves_the_old_schema(tmp_path, monkeypatch):
    path = tmp_path / "scanside.db"
    Database(path, SystemClock()).close()
    with monkeypatch.context() as patch:
        patch.setattr("appliance.store.database.SCHEMA_VERSION", SCHEMA_VERSION + 1)
        patch.setattr("appliance.store.database.MIGRATIONS", {SCHEMA_VERSION: "ALTER TABLE nowhere ADD COLUMN x TEXT"})
        with pytest.raises(StoreError):
            Database(path, SystemClock())
    Database(path, SystemClock()).close()


def _a_row_a_day(store, clock, days):
    for _ in range(days):
        store.studies.refused(association_id=None, source="CT-1", status=0, message="no")
        clock.jump(86400)


@pytest.mark.req("R-STORE-14")
def test_oldest_days_go_whole_and_the_chain_still_verifies(store, clock):
    _a_row_a_day(store, clock, 10)
    first = from_iso(store.journal.after(0)[0].at)

    gone = store.journal.prune(first + timedelta(days=5))

    assert gone > 0
    assert from_iso(store.journal.after(0)[0].at).date() == (first + timedelta(days=2)).date()
    checkpoints = [fact for fact in store.journal.after(0) if fact.kind is Kind.JOURNAL_PRUNED]
    assert [fact.body["day"] for fact in checkpoints] == [f"{first + timedelta(days=n):%Y-%m-%d}" for n in (0, 1)]
    assert store.journal.verify() == 0
    with store.db.write() as tx:
        tx.execute("DELETE FROM journal WHERE seq = (SELECT min(seq) FROM journal)")
    assert store.journal.verify() != 0, "one row more was taken away than the checkpoint says"


@pytest.mark.req("R-STORE-14")
def test_reader_that_is_behind_keeps_its_rows(store, clock):
    _a_row_a_day(store, clock, 10)
    store.journal.move_cursor("fleet", store.journal.after(0)[1].seq)
    before = store.journal.after(0)[0].seq

    store.journal.prune(clock.now())

    seen = store.journal.after(store.journal.cursor("fleet"))
    assert seen[0].seq == store.journal.cursor("fleet") + 1
    assert store.journal.after(0)[0].seq > before


@pytest.mark.req("R-STORE-14")
def test_clock_set_years_ahead_takes_two_days_and_not_the_journal(store, clock):
    _a_row_a_day(store, clock, 10)
    clock.jump(12 * 365 * 86400)

    for _ in range(50):
        store.journal.prune(clock.now() - timedelta(days=366))
        clock.advance(3600 / 5)

    assert len([fact for fact in store.journal.after(0) if fact.kind is Kind.REFUSED]) == 8
    assert store.journal.verify() == 0
