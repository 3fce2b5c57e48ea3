"""The receiver alone in a process of its own, to be limited, traced and killed: ``python scp_process.py FOLDER JSON``.

Every acknowledged object has a row in FOLDER/rows.db, committed durably. Prints the port, then ends at SIGTERM.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class RowSink:
    def __init__(self, path):
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS received (uid TEXT, path TEXT, sha256 TEXT)")
        self._associations = 0

    def association_opened(self, **_):
        with self._lock:
            self._associations += 1
            return self._associations

    def association_closed(self, association_id, **_):
        pass

    def refused(self, **_):
        pass

    def store(self, received):
        with self._lock:
            row = (received.header.sop_instance_uid, received.path, received.data_sha256)
            self._db.execute("INSERT INTO received VALUES (?, ?, ?)", row)


def rows(folder):
    """{SOP Instance UID: (path, sha256)} of all that was recorded in a folder."""
    with contextlib.closing(sqlite3.connect(folder / "rows.db")) as db:
        return {uid: (path, digest) for uid, path, digest in db.execute("SELECT uid, path, sha256 FROM received")}


@contextlib.contextmanager
def scp_process(folder, *, limits=None, **settings):
    """Start one; yields (process, port). Kills what is left of it at the end, by its own id."""
    folder.mkdir(exist_ok=True)
    given = json.dumps({"settings": settings, "limits": limits or {}})
    with subprocess.Popen(
        [sys.executable, __file__, str(folder), given],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def main():
    from appliance.clock import SystemClock
    from appliance.intake.peers import Peers
    from appliance.intake.scp import ScpSettings, StorageScp
    from appliance.store.spool import Spool

    folder, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    spool = Spool(folder / "spool", reserve_bytes=0)
    spool.recover()
    sink = RowSink(folder / "rows.db")
    for name, value in given["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    # No stall of the machine ends an association: a test of a deadline gives its own.
    patient = {"acse_timeout_s": 120, "network_timeout_s": 120, "pdu_deadline_s": 120}
    settings = ScpSettings(**{"port": 0, **patient, **given["settings"]})
    scp = StorageScp(settings, sink, Peers(unknown_sources="accept"), spool, SystemClock())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print(scp.start(), flush=True)  # noqa: T201 - the parent reads it
    signal.sigwait({signal.SIGTERM})
    scp.stop(1)


if __name__ == "__main__":
    main()
