"""The fleet server's database: SQLite by default, PostgreSQL at scale. SQLAlchemy Core, no ORM.

``tables`` says what is in it. Writers use ``write``, which locks SQLite from the first statement, so that two of them
wait for each other instead of failing half-way; readers use ``read``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import ColumnElement, Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from appliance.errors import ConfigError

_MIGRATIONS = Path(__file__).parent / "migrations"
#: How long a writer waits for the one before it.
_BUSY_MS = 30_000
#: Of PostgreSQL's advisory locks: that of a migration.
_LOCK = 7_036_874_417_766
#: Values of one ``IN``. A full group may name 50,000.
_MOST_VALUES = 10_000

V = TypeVar("V")


def open_engine(url: str) -> Engine:
    """The engine for ``sqlite:////path/fleet.db`` or ``postgresql+psycopg://...``.

    Raises:
        ConfigError: Another kind of database.
    """
    address = make_url(url)
    kind = address.get_backend_name()
    if kind not in {"sqlite", "postgresql"}:
        raise ConfigError(f"the fleet server keeps its rows in sqlite or postgresql+psycopg, not in {kind}")
    if kind == "postgresql":
        return create_engine(
            address.set(drivername="postgresql+psycopg"),
            json_serializer=_dump,
            pool_pre_ping=True,
            connect_args={"options": "-c timezone=UTC -c lock_timeout=30s"},
        )
    engine = create_engine(address, json_serializer=_dump, connect_args={"timeout": _BUSY_MS / 1000})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """One transaction that changes something: all of it is committed, or nothing."""
    with engine.connect().execution_options(scanside_write=True) as connection, connection.begin():
        yield connection


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """One transaction that sees one state and changes nothing."""
    with engine.connect() as connection, connection.begin():
        yield connection


def parted(values: Collection[V]) -> Iterator[list[V]]:
    """In parts that an ``IN`` takes on every database; SQLite's own limit is 32,766 of all parameters together."""
    whole = list(values)
    for first in range(0, len(whole), _MOST_VALUES):
        yield whole[first : first + _MOST_VALUES]


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Add rows, leaving out those that any of the table's keys says are there; returns how many were added."""
    if not rows:
        return 0
    make = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return _write(connection, table, make(table).on_conflict_do_nothing(), rows)


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    keep: Sequence[str] = (),
    change: Callable[[Any], dict[str, Any]] | None = None,
    where: Callable[[Any], ColumnElement[bool]] | None = None,
) -> int:
    """Add rows, or change those of the same primary key; returns how many were added or changed.

    Rows go in by their key, so that two writers never wait for each other crosswise.

    Args:
        connection: Of ``write``.
        table: Whose primary key says which row is the same.
        rows: All with the same columns.
        keep: Columns that an existing row keeps.
        change: From the new values, columns that get something else than those.
        where: From the new values, whether an existing row is changed.
    """
    if not rows:
        return 0
    keys = [column.name for column in table.primary_key]
    ordered = sorted(rows, key=lambda row: [row[key] for key in keys])
    make = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement: Any = make(table)
    new = statement.excluded
    values = {name: new[name] for name in rows[0] if name not in keys and name not in keep}
    values |= change(new) if change else {}
    statement = statement.on_conflict_do_update(index_elements=keys, set_=values, where=where(new) if where else None)
    return _write(connection, table, statement, ordered)


def migrate(engine: Engine, to: str = "head") -> None:
    """Make the tables, or bring those of an older version up to this one.

    Raises:
        ConfigError: The database is of a newer version.
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    with write(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and found not in known:
            raise ConfigError(
                f"the database is of version {found}, which this scanside-fleet does not know; install the version"
                " that made it, or restore the backup from before the change"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def _write(connection: Connection, table: Table, statement: Any, rows: Sequence[dict[str, Any]]) -> int:
    keys = [column.name for column in table.primary_key]
    if connection.dialect.name == "postgresql" and len({tuple(row.get(key) for key in keys) for row in rows}) == len(
        rows
    ):
        # Many rows in one statement, which must not touch a row twice. A statement for each is three times as slow.
        return len(connection.execute(statement.returning(table.c[keys[0]]), list(rows)).all())
    options = {"preserve_rowcount": True}
    return int(connection.execute(statement, list(rows), execution_options=options).rowcount)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transactions begin late and not before DDL; ours begin in _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: what a box deletes after our acknowledgement must survive a power cut here.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("scanside_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
