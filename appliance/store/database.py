"""SQLite, made durable: WAL, ``synchronous=FULL``, short transactions, one writer at a time.

Threads borrow connections for one read or one transaction: association threads come and go by the thousand, and a
connection that a thread kept would stay open after it.

``write()`` is the only way to change anything: state and journal go into the same transaction, and readers of the
journal are woken after its commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from appliance.clock import Clock
from appliance.errors import ConfigError, StoreError
from appliance.records import SYSTEM, Actor
from appliance.store.facts import Body
from appliance.store.facts.box import DatabaseCreated
from appliance.store.hashing import GENESIS, row_hash
from appliance.store.migrations import MIGRATIONS

#: Schema that this code reads and writes; ``PRAGMA user_version`` of the file.
SCHEMA_VERSION = 5
#: What SQLite says where the file is whole and cannot be written now (error codes need Python 3.11).
_NO_DAMAGE = ("is full", "is locked", "unable to open", "readonly")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_ulid(at: datetime) -> str:
    """A ULID: 48 bit of milliseconds, 80 bit of chance, in Crockford's base 32; sorts by time."""
    number = int(at.timestamp() * 1000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def boot_id() -> str:
    """The kernel's id of this boot; monotonic readings compare within one boot only."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return "unknown"


def iso(at: datetime) -> str:
    """The text form of times in the database: UTC, microseconds, sorts as text."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_iso(text: str) -> datetime:
    """The aware datetime of ``iso``."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)


class Transaction:
    """One open write transaction."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, boot: str) -> None:
        """Use ``Database.write``."""
        self._connection = connection
        self._clock = clock
        self.boot = boot
        self.now = clock.now()
        self.at = iso(self.now)
        self.mono = clock.monotonic()
        self._last: tuple[int, str] | None = None

    def execute(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(sql, parameters)

    def insert(self, table: str, **values: Any) -> int:
        """Insert one row and return its id. ``table`` and keys are ours, never from outside."""
        columns = ", ".join(values)
        marks = ", ".join("?" * len(values))
        sql = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - names are literals of this package
        row_id = self._connection.execute(sql, tuple(values.values())).lastrowid
        if row_id is None:  # pragma: no cover - sqlite3 sets it after every INSERT
            msg = f"no row id after an insert into {table}"
            raise StoreError(msg)
        return row_id

    def one(self, sql: str, parameters: tuple[Any, ...] = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        row: sqlite3.Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        """All rows."""
        return self._connection.execute(sql, parameters).fetchall()

    def journal(self, body: Body, *, study_id: int | None = None, subject: str = "", actor: Actor = SYSTEM) -> int:
        """Append a fact in this transaction.

        Returns:
            Its sequence number.
        """
        if self._last is None:
            row = self.one("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1")
            self._last = (row["seq"], row["hash"]) if row else (0, GENESIS)
        fields = {
            "at": self.at,
            "mono_ms": int(self.mono * 1000),
            "boot": self.boot,
            "kind": str(body.kind),
            "study_id": study_id,
            "subject": subject,
            "actor": json.dumps({"kind": str(actor.kind), "name": actor.name, "role": actor.role}, sort_keys=True),
            "body": body.model_dump_json(),
        }
        digest = row_hash(self._last[1], fields)
        seq = self.insert("journal", **fields, hash=digest)
        self._last = (seq, digest)
        return seq


class Database:
    """The file ``scanside.db`` and the rules for touching it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open or create the database and bring its schema forward.

        Raises:
            ConfigError: The file was written by a newer version of this software, or there is no room to bring an
                older one forward.
            StoreError: The file is damaged (the daemon then rebuilds, see ``store.rebuild``).
        """
        self.path = path
        self.clock = clock
        self.boot = boot_id()
        #: Connections that nobody uses now; the last one used goes out first, its cache is warm.
        self._idle: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._writer = threading.RLock()
        self.committed = threading.Condition()
        self.commits = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._prepare()

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        finally:
            with self._guard:
                self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        # Off, because a connection serves one thread after another; never two at once.
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-4096")
        return connection

    def _prepare(self) -> None:
        try:
            version = self.all("PRAGMA user_version")[0][0]
            if version == 0:
                self._create()
            elif version > SCHEMA_VERSION:
                msg = f"{self.path}: schema {version} is newer than this software's {SCHEMA_VERSION}; update Scanside"
                raise ConfigError(msg)
            elif version < SCHEMA_VERSION:
                self._migrate(version)
            self.stream = str(self.all("SELECT value FROM meta WHERE key = 'stream'")[0][0])
        except (sqlite3.DatabaseError, IndexError) as error:
            msg = f"{self.path}: the database cannot be read: {error}"
            raise StoreError(msg) from error

    def _create(self) -> None:
        schema = resources.files("appliance.store").joinpath("schema.sql").read_text(encoding="utf-8")
        with self._borrowed() as connection:
            connection.executescript(f"BEGIN IMMEDIATE;{schema}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        stream = new_ulid(self.clock.now())
        with self.write() as tx:
            tx.execute("INSERT INTO meta VALUES ('stream', ?)", (stream,))
            tx.journal(DatabaseCreated(stream=stream))

    def _migrate(self, version: int) -> None:
        """Forward, one transaction a step, with a copy of the old file beside it.

        Raises:
            ConfigError: There is no room, or another process holds the file: nothing is damaged, nothing has changed.
        """
        try:
            self.backup_to(self.path.with_name(f"{self.path.name}.schema{version}.bak"))
            os.sync()
            with self._borrowed() as connection:
                for step in range(version, SCHEMA_VERSION):
                    connection.executescript(
                        f"BEGIN IMMEDIATE;{MIGRATIONS[step]};PRAGMA user_version={step + 1};COMMIT;"
                    )
        except sqlite3.OperationalError as error:
            if not any(words in str(error) for words in _NO_DAMAGE):
                raise
            msg = (
                f"{self.path}: cannot be brought forward from schema {version} to {SCHEMA_VERSION}: {error}; make room"
                " for two more copies of it and end other programs that use it, then start again"
            )
            raise ConfigError(msg) from error

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """A write transaction: committed at the end, rolled back on any exception.

        Raises:
            StoreError: SQLite could not do it (disk full, I/O error, damaged file).
        """
        with self._writer, self._borrowed() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield Transaction(connection, self.clock, self.boot)
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                msg = f"{self.path}: {error}"
                raise StoreError(msg) from error
        with self.committed:
            self.commits += 1
            self.committed.notify_all()

    def all(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """Read rows outside a write transaction."""
        try:
            with self._borrowed() as connection:
                return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            msg = f"{self.path}: {error}"
            raise StoreError(msg) from error

    def one(self, sql: str, parameters: tuple[Any, ...] | dict[str, Any] = ()) -> sqlite3.Row | None:
        """Read the first row outside a write transaction."""
        rows = self.all(sql, parameters)
        return rows[0] if rows else None

    def wait_commit(self, seen: int, timeout_s: float) -> int:
        """Wait until this process has committed more than ``seen`` times; returns the count."""
        with self.committed:
            self.committed.wait_for(lambda: self.commits > seen, timeout_s)
            return self.commits

    @property
    def made_at(self) -> datetime:
        """When this database was made: the time in its ULID."""
        milliseconds = sum(_CROCKFORD.index(sign) << 5 * (9 - at) for at, sign in enumerate(self.stream[:10]))
        return datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc)

    def quick_check(self) -> str:
        """``PRAGMA quick_check``: "ok" or what is wrong."""
        try:
            with self._borrowed() as connection:
                return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.DatabaseError as error:
            return str(error)

    def close(self) -> None:
        """Close every connection that nobody uses. The last one folds the WAL into the file."""
        with self._guard:
            for connection in self._idle:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
            self._idle.clear()

    def backup_to(self, path: Path) -> None:
        """A consistent copy, also while others write."""
        with contextlib.closing(sqlite3.connect(path)) as copy, self._borrowed() as connection:
            connection.backup(copy)


def set_aside(path: Path) -> Path:
    """Move a damaged database and its WAL away, kept for the service team.

    Returns:
        The folder that holds them now.
    """
    folder = path.parent / f"damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    folder.mkdir()
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(path.name + suffix)
        if old.exists():
            shutil.move(str(old), folder / old.name)
    return folder
