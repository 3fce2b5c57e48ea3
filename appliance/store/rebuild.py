"""A new database from the spool, when the old one is damaged: the files are the truth (DESIGN §4).

The damaged file is set aside and kept. Images are recorded again from the spool; what can still be read of journal,
packages and deliveries is carried over; originals without proof of delivery are owed again; nothing that follows
sounds.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.clock import Clock
from appliance.errors import RejectedInstance
from appliance.records import Header, Received, Severity
from appliance.store import Store
from appliance.store.database import Transaction, set_aside
from appliance.store.facts.box import DatabaseRebuilt
from appliance.store.fleet import MADE, OUTLIVES_REBUILD, put_state
from appliance.store.hashing import GENESIS, row_hash
from appliance.store.issues import raise_issue
from appliance.store.receiving import Original
from appliance.store.revisions import REBUILT
from appliance.store.studies import Change, current_of
from appliance.store.viewrows import marks

#: Columns of a delivery that mean nothing, or another row, in a new database.
_OF_THE_OLD = frozenset({"id", "study_id", "analysis_id", "version_id", "path", "commit_next_at", "removed_at"})
_JOURNAL = ("at", "mono_ms", "boot", "kind", "study_id", "subject", "actor", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What the rebuild needs of the parts that know DICOM files; handed in by the daemon."""

    #: Header of a file of the spool; raises RejectedInstance.
    header: Callable[[Path], Header]
    #: (calling AE title, SHA-256 of the data set, size in bytes) of a file of the spool.
    receipt: Callable[[Path], tuple[str, str, int]]
    #: How a data set differs from the current version under its UID.
    change: Callable[[Any, Header, Path, Path], Change]
    #: Name of the source that calls itself so.
    source: Callable[[str], str]
    #: What images of a source are owed to.
    originals: Callable[[str], tuple[Original, ...]]


def rebuild(state_path: Path, clock: Clock, reader: Reader, why: str, *, reserve_bytes: int | None = None) -> Store:
    """Set the damaged database aside and make a new one from the spool.

    Args:
        state_path: The state folder.
        clock: For the new rows.
        reader: The parts that know DICOM files.
        why: What was wrong with the old one.
        reserve_bytes: As for ``Store.open``.

    Returns:
        The open store; it holds one loud issue DATABASE_REBUILT.
    """
    aside = set_aside(state_path / "scanside.db")
    store = Store.open(state_path, clock, reserve_bytes=reserve_bytes)
    carried = _carry_journal(store, aside / "scanside.db")
    _carry_packages(store, aside / "scanside.db")
    _carry_rejections(store, aside / "scanside.db")
    _carry_access(store, aside / "scanside.db")
    _carry_register(store, aside / "scanside.db")
    _carry_fleet(store, aside / "scanside.db")
    sent = _delivered(aside / "scanside.db")
    adopter = Adopter(store, reader, sent.keys())
    for relative in sorted(store.spool.iter_files(), key=lambda name: store.spool.path(name).stat().st_mtime_ns):
        adopter.adopt(relative)
    adopter.close()
    _carry_sent(store, sent)
    _carry_requests(store, aside / "scanside.db")
    for series in store.revisions.open_series():
        store.revisions.make_ready(store.revisions.evidence(series), REBUILT, {})
    with store.db.write() as tx:
        tx.journal(
            DatabaseRebuilt(
                why=why,
                set_aside=aside.name,
                instances=adopter.adopted,
                journal_rows_carried=carried,
                stream=store.db.stream,
            )
        )
        raise_issue(tx, "DATABASE_REBUILT", "database", Severity.FAULT, {"set_aside": aside.name, "why": why})
    return store


class Adopter:
    """Records files of the spool that no row knows: all of them in a rebuild, orphans of a crash at any start."""

    def __init__(self, store: Store, reader: Reader, proofs: Collection[tuple[str, str, str]]) -> None:
        """Adopt into ``store``; ``proofs`` are (destination, SOP Instance UID, SHA-256) known to be delivered."""
        self._store = store
        self._reader = reader
        self._proofs = proofs
        self._associations: dict[str, int] = {}
        self.adopted = 0

    def adopt(self, relative: str) -> None:
        """Record one file as if it had just been received; a repeat of known bytes is removed."""
        store, reader = self._store, self._reader
        path = store.spool.path(relative)
        calling_ae, sha256, size = reader.receipt(path)
        source = reader.source(calling_ae)
        try:
            header = reader.header(path)
        except RejectedInstance as error:
            with store.db.write() as tx:
                raise_issue(tx, "SPOOL_CORRUPT", relative, Severity.FAULT, {"why": str(error)})
            return
        if source not in self._associations:
            self._associations[source] = store.studies.open_association(
                source=source, calling_ae=calling_ae, called_ae="", address="spool"
            )
        received = Received(
            header=header,
            path=relative,
            size=size,
            data_sha256=sha256,
            association_id=self._associations[source],
            source=source,
            stat=False,
            received_mono=store.db.clock.monotonic(),
        )
        owed = tuple(
            original
            for original in reader.originals(source)
            if (original.destination, header.sop_instance_uid, sha256) not in self._proofs
        )
        known = store.studies.versions(header.sop_instance_uid)
        if not known:
            store.studies.add_new(received, owed)
        elif any(one.data_sha256 == sha256 for one in known):
            store.spool.remove(relative)
            return
        else:
            current = current_of(known)
            change = reader.change(current, header, store.spool.path(current.path), path)
            store.studies.add_version(received, known, change, owed)
        self.adopted += 1

    def close(self) -> None:
        """End the associations that stand for the spool."""
        for association_id in self._associations.values():
            self._store.studies.close_association(association_id, how="lost", images=self.adopted)


def recover(store: Store, reader: Reader) -> dict[str, int]:
    """Bring files and rows together after a start. Idempotent.

    Returns:
        What was done, by name: for the journal.
    """
    parts = store.spool.recover()
    lost = store.studies.close_open_associations()
    returned = store.analyses.recover()
    rows = store.studies.files()
    files = set(store.spool.iter_files())
    adopter = Adopter(store, reader, set())
    removed = 0
    for relative in sorted(files - rows.keys()):
        if store.retention.is_removed(relative):
            store.spool.remove(relative)
            removed += 1
        else:
            adopter.adopt(relative)
    adopter.close()
    missing = sorted(rows.keys() - files)
    for relative in missing:
        store.issues.raise_("SPOOL_MISSING", f"version {rows[relative]}", Severity.FAULT)
    found = {
        "parts_removed": parts,
        "associations_lost": lost,
        "analyses_returned": returned,
        "orphans_adopted": adopter.adopted,
        "removals_completed": removed,
        "files_missing": len(missing),
    }
    return {name: count for name, count in found.items() if count}


def _carry_journal(store: Store, old: Path) -> int:
    """Copy what can be read of the old journal, chained anew; returns the number of rows."""
    rows = _rows(old, "SELECT * FROM journal ORDER BY seq")
    with store.db.write() as tx:
        previous = _last_hash(tx)
        for row in rows:
            fields = {name: row[name] for name in _JOURNAL}
            previous = row_hash(previous, fields)
            tx.insert("journal", **fields, hash=previous)
        newest = max((row["study_id"] or 0 for row in rows), default=0)
        tx.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('study', ?)", (newest,))
    return len(rows)


def _carry_packages(store: Store, old: Path) -> None:
    """Which packages serve, and at which points: without these rows installed ones would have to be installed again."""
    with store.db.write() as tx:
        for table in ("package", "operating_point"):
            for row in _rows(old, f"SELECT * FROM {table}"):  # noqa: S608 - literals above
                tx.insert(table, **{name: row[name] for name in row.keys()})  # noqa: SIM118 - a row is no mapping


def _carry_access(store: Store, old: Path) -> None:
    """Who may sign in, and which screens are paired: a box without accounts would be set up by whoever comes first."""
    with store.db.write() as tx:
        kept: dict[str, set[int]] = {"account": set(), "screen": set()}
        for table in ("account", "screen", "api_token", "session"):
            for row in _rows(old, f"SELECT * FROM {table}"):  # noqa: S608 - literals above
                values = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a row is no mapping
                owners = {name: values[f"{name}_id"] for name in ("account", "screen") if table == "session"}
                if all(owner is None or owner in kept[name] for name, owner in owners.items()):
                    tx.insert(table, **values)
                    kept.setdefault(table, set()).add(values.get("id", 0))


def _last_hash(tx: Transaction) -> str:
    row = tx.one("SELECT hash FROM journal ORDER BY seq DESC LIMIT 1")
    return str(row["hash"]) if row else GENESIS


def _delivered(old: Path) -> dict[tuple[str, str, str], sqlite3.Row]:
    """Deliveries of originals that the old database proves were sent, by destination, SOP Instance UID and SHA-256."""
    rows = _rows(old, "SELECT * FROM delivery WHERE kind = 'original' AND state = 'sent'")
    return {(row["destination"], row["sop_instance_uid"], row["sha256"]): row for row in rows}


def _carry_sent(store: Store, sent: Mapping[tuple[str, str, str], sqlite3.Row]) -> None:
    """Keep the proofs: what a destination has not committed to must not leave this box, and scanners may still ask."""
    with store.db.write() as tx:
        for (_, uid, sha256), row in sent.items():
            found = tx.one(
                "SELECT v.id, v.path, s.study_id FROM instance i JOIN version v ON v.instance_id = i.id"
                " JOIN series s ON s.id = i.series_id WHERE i.sop_instance_uid = ? AND v.data_sha256 = ?",
                (uid, sha256),
            )
            if found is None:
                continue  # retention had removed it
            named = dict(zip(row.keys(), tuple(row), strict=True))
            kept = {name: value for name, value in named.items() if name not in _OF_THE_OLD}
            tx.insert("delivery", **kept, version_id=found["id"], study_id=found["study_id"], path=found["path"])


def _carry_requests(store: Store, old: Path) -> None:
    """What scanners wait to be told. Images of a request that cannot be read any more are nobody's."""
    with store.db.write() as tx:
        requests = _rows(old, "SELECT * FROM commitment_request")
        for row in requests:
            tx.execute(f"INSERT INTO commitment_request VALUES ({marks(row)})", tuple(row))  # noqa: S608 - marks only
        known = {row["id"] for row in requests}
        for row in _rows(old, "SELECT * FROM commitment_item"):
            if row["request_id"] in known:
                tx.execute(f"INSERT INTO commitment_item VALUES ({marks(row)})", tuple(row))  # noqa: S608 - marks only


def _carry_rejections(store: Store, old: Path) -> None:
    """What notes named, before any image is recorded: a note may be gone from the spool, or younger than its images."""
    with store.db.write() as tx:
        for row in _rows(old, "SELECT sop_instance_uid, title, rejected_at FROM rejected_instance"):
            # Of no note: ids of versions are given anew.
            tx.execute("INSERT INTO rejected_instance VALUES (?, ?, 0, ?)", tuple(row))


def _carry_register(store: Store, old: Path) -> None:
    """Who was told of which finding: what people said is in no image. Alerts have other numbers now."""
    with store.db.write() as tx:
        for row in _rows(old, "SELECT * FROM communication"):
            tx.insert("communication", **(dict(zip(row.keys(), tuple(row), strict=True)) | {"alert_id": 0}))


def _carry_fleet(store: Store, old: Path) -> None:
    """What the server has acknowledged is not told again under the new stream, and no job is done twice."""
    passed = len(_rows(old, "SELECT seq FROM journal WHERE seq <= (SELECT seq FROM cursor WHERE reader = 'fleet')"))
    with store.db.write() as tx:
        for table in ("fleet_job", "equipment"):
            for row in _rows(old, f"SELECT * FROM {table}"):  # noqa: S608 - literals above
                tx.insert(table, **{name: row[name] for name in row.keys()})  # noqa: SIM118 - a row is no mapping
        for row in _rows(old, "SELECT name, value FROM fleet_state"):
            if row["name"] in OUTLIVES_REBUILD:
                put_state(tx, row["name"], row["value"])
        if passed:
            # The rows that were carried come right after the first one, which made the new database.
            put_state(tx, MADE, str(1 + passed))
            tx.execute("INSERT INTO cursor VALUES ('fleet', ?)", (1 + passed,))


def _rows(old: Path, sql: str) -> list[sqlite3.Row]:
    """As many rows as the damaged file gives before it fails."""
    found: list[sqlite3.Row] = []
    with contextlib.suppress(sqlite3.DatabaseError):
        connection = sqlite3.connect(f"file:{old}?mode=ro", uri=True)
        with contextlib.closing(connection):
            connection.row_factory = sqlite3.Row
            found.extend(connection.execute(sql))
    return found
