"""When facts were committed, seen by another process: the box's journal, asked every millisecond."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

from appliance.clock import SystemClock
from appliance.store.database import Database
from appliance.store.facts import Kind
from appliance.store.journal import Journal

_PERIOD_S = 0.001
#: The hops of a study, in order.
STEPS = (Kind.SERIES_READY, Kind.ANALYSIS_QUEUED, Kind.ANALYSIS_STARTED, Kind.ANALYSIS_DONE)
_KINDS = (Kind.WORKER_STARTED, *STEPS, Kind.STUDY_OUTCOME, Kind.ALERT_RAISED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One fact."""

    kind: str
    study_id: int
    body: dict[str, Any]
    #: ``time.monotonic()`` when its row was there to be read, at most a millisecond or two after its commit.
    at_mono: float


@final
class Watch:
    """A reader of the journal; a context manager."""

    def __init__(self, state: Path) -> None:
        """Read the box of this state folder, from its first fact."""
        self._database = Database(state / "scanside.db", SystemClock())
        self._journal = Journal(self._database)
        self._seen: list[Seen] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._database.close()

    def _run(self) -> None:
        seq = 0
        while not self._stop.is_set():
            last = self._journal.last_seq()
            if last > seq:
                facts = self._journal.after(seq, limit=10_000, kinds=_KINDS)
                at = time.monotonic()
                seq = max([last, *(fact.seq for fact in facts)])
                with self._changed:
                    self._seen += [
                        Seen(kind=str(fact.kind), study_id=fact.study_id or 0, body=fact.body, at_mono=at)
                        for fact in facts
                    ]
                    self._changed.notify_all()
            time.sleep(_PERIOD_S)

    def kinds(self) -> set[str]:
        """What has happened at all."""
        with self._changed:
            return {fact.kind for fact in self._seen}

    def of(self, study_instance_uid: str, kind: str) -> list[Seen]:
        """Facts of one kind about one study."""
        study_id = self.study_id(study_instance_uid)
        with self._changed:
            return [fact for fact in self._seen if fact.kind == kind and fact.study_id == study_id]

    def wait(self, study_instance_uid: str, kind: str, timeout_s: float = 120.0) -> Seen:
        """The first such fact, awaited.

        Raises:
            SystemExit: It does not come.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.of(study_instance_uid, kind)
            if found:
                return found[0]
            if time.monotonic() > deadline:
                raise SystemExit(f"no {kind} within {timeout_s:g} s; the box's facts: {sorted(self.kinds())}")
            with self._changed:
                self._changed.wait(0.05)

    def path_ms(self, study_instance_uid: str, since_mono: float) -> dict[str, float]:
        """Milliseconds from ``since_mono`` to the last fact of each step, and the worker's own hops."""
        steps = {str(kind): self.of(study_instance_uid, str(kind)) for kind in STEPS}
        path = {kind: (facts[-1].at_mono - since_mono) * 1000 for kind, facts in steps.items() if facts}
        done = steps[str(Kind.ANALYSIS_DONE)]
        hops = done[-1].body["hops_ms"] if done else {}
        return {**path, **{f"worker: {name}": float(ms) for name, ms in hops.items()}}

    def study_id(self, study_instance_uid: str) -> int:
        """The study's row; 0 while there is none."""
        row = self._database.one("SELECT id FROM study WHERE study_instance_uid = ?", (study_instance_uid,))
        return int(row["id"]) if row else 0

    def count(self, table: str) -> int:
        """Rows of a table."""
        row = self._database.one(f"SELECT count(*) AS n FROM {table}")  # noqa: S608 - our own literals
        return int(row["n"]) if row else 0

    def paths(self, study_instance_uid: str, state: Path) -> list[Path]:
        """The received files of a study, in the order of receipt."""
        rows = self._database.all(
            "SELECT v.path FROM version v JOIN instance i ON i.id = v.instance_id JOIN series s ON s.id = i.series_id"
            " WHERE s.study_id = ? ORDER BY v.id",
            (self.study_id(study_instance_uid),),
        )
        return [state / "spool" / row["path"] for row in rows]

    def ends(self) -> list[dict[str, Any]]:
        """Per analysis: package, outcome, reason, its deadline and how long after READY it ended."""
        rows = self._database.all(
            "SELECT package, outcome, reason, deadline_s, late,"
            " (julianday(done_at) - julianday(ready_at)) * 86400 AS took_s FROM analysis WHERE superseded_by IS NULL"
        )
        return [dict(row) for row in rows]
