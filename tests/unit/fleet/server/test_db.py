"""The database: made step by step, what the code says it is, all or nothing."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from fleet_kit import NOW, add_tree
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from appliance.errors import ConfigError
from appliance.fleet.server import db
from appliance.fleet.server import tables as t


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, tmp_path):
    if request.param == "sqlite":
        made = db.open_engine(f"sqlite:///{tmp_path}/fleet.db")
    else:
        made = db.open_engine(request.getfixturevalue("fleet_postgres").fresh())
    yield made
    made.dispose()


def differences(engine):
    with db.read(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, t.METADATA)


@pytest.mark.req("R-FLEET-10")
def test_the_steps_of_migration_make_what_the_tables_say(empty):
    db.migrate(empty)
    assert differences(empty) == []


@pytest.mark.req("R-FLEET-10")
def test_an_older_database_keeps_its_rows_when_it_is_brought_up(empty):
    db.migrate(empty, "0001")
    assert differences(empty)
    with db.write(empty) as connection:
        add_tree(connection)
    job = "INSERT INTO job (id, device, ctr, op, args, made_at, state, state_at, figures) VALUES"
    with db.write(empty) as connection:
        device = "INSERT INTO device (id, number, tenant, site, serial, state, made_at) VALUES"
        at = "'2026-03-02 09:30:00'"
        connection.execute(text(f"{device} ('box-0000001', 1, 'hospital-01', 'site-0001', 'S', 'enrolled', {at})"))
        connection.execute(text(f"{job} ('J1', 'box-0000001', 7, 'ping', '{{}}', {at}, 'QUEUED', {at}, '{{}}')"))
    db.migrate(empty)
    db.migrate(empty)  # harmless twice
    assert differences(empty) == []
    with db.read(empty) as connection:
        row = connection.execute(select(t.job)).one()
    assert (row.id, row.ctr, row.roll_out, row.made_at) == ("J1", 7, None, NOW)


@pytest.mark.req("R-FLEET-10")
def test_a_database_of_a_newer_version_is_refused_with_what_to_do(empty):
    db.migrate(empty)
    with db.write(empty) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match=r"of version 9999.*install the version that made it"):
        db.migrate(empty)


@pytest.mark.req("R-FLEET-10")
def test_two_processes_that_start_at_once_make_the_tables_once(empty):
    failures = []

    def start():
        other = db.open_engine(empty.url.render_as_string(hide_password=False))
        try:
            db.migrate(other)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            failures.append(error)
        finally:
            other.dispose()

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert differences(empty) == []


def test_another_kind_of_database_is_refused():
    with pytest.raises(ConfigError, match="not in mysql"):
        db.open_engine("mysql://host/name")


def test_a_transaction_that_fails_leaves_nothing(engine):
    def both():
        with db.write(engine) as connection:
            add_tree(connection)
            add_tree(connection)  # its ids are taken

    with pytest.raises(Exception, match="already"):
        both()
    with db.read(engine) as connection:
        assert connection.execute(select(t.tenant)).all() == []


def test_a_row_of_an_unknown_device_is_refused_by_the_database_itself(engine):
    with pytest.raises(IntegrityError), db.write(engine) as connection:
        connection.execute(insert(t.device_counter).values(device="nobody-here", ctr=1, dv=0))


def test_moments_come_back_as_they_were_whatever_their_zone(engine):
    there = NOW.astimezone(dt.timezone(dt.timedelta(hours=8)))
    with db.write(engine) as connection:
        connection.execute(insert(t.refusal).values(device="", reason="topic", n=1, first_at=there, last_at=NOW))
    with db.read(engine) as connection:
        row = connection.execute(select(t.refusal)).one()
    assert (row.first_at, row.first_at.tzinfo) == (NOW, dt.timezone.utc)
    naive = insert(t.refusal).values(device="", reason="schema", n=1, first_at=NOW.replace(tzinfo=None), last_at=NOW)
    with pytest.raises(Exception, match="without a zone"), db.write(engine) as connection:
        connection.execute(naive)


def test_two_writers_wait_for_each_other_and_none_fails(engine):
    with db.write(engine) as connection:
        connection.execute(insert(t.refusal).values(device="", reason="topic", n=0, first_at=NOW, last_at=NOW))

    def add():
        for _ in range(20):
            with db.write(engine) as connection:
                # Reads first: a transaction of SQLite that begins as a reader fails here under another writer.
                connection.execute(select(t.refusal.c.n)).scalar_one()
                connection.execute(t.refusal.update().values(n=t.refusal.c.n + 1))

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with db.read(engine) as connection:
        assert connection.execute(select(t.refusal.c.n)).scalar_one() == 60


def test_upsert_changes_only_what_it_is_told_to(engine):
    first = {"device": "", "reason": "topic", "n": 1, "first_at": NOW, "last_at": NOW}
    later = {**first, "n": 5, "first_at": NOW + dt.timedelta(1), "last_at": NOW + dt.timedelta(1)}
    n = t.refusal.c.n
    with db.write(engine) as connection:
        db.upsert(connection, t.refusal, [first])
        db.upsert(connection, t.refusal, [later], keep=("first_at",), change=lambda new: {"n": n + new.n})
        db.upsert(connection, t.refusal, [{**first, "n": 100}], where=lambda new: new.n < n)
        row = connection.execute(select(t.refusal)).one()
        assert db.insert_new(connection, t.refusal, [first, {**first, "reason": "schema"}]) == 1
    assert (row.n, row.first_at, row.last_at) == (6, NOW, NOW + dt.timedelta(1))
