"""What the fleet link counts: what ended, what people reviewed and did, how long it took, how the box fares now.

Numbers, codes and names of packages only. Rows of the journal say what is to be counted, so that each is counted once
whatever the wall clock does; the box's own test studies are left out.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from appliance.records import SELF_TEST_SOURCE
from appliance.store.database import Database, from_iso, iso
from appliance.store.facts import Kind
from appliance.store.review_rows import IS_LAST

#: What a person did, by the field of the record that counts it.
ACCESS: dict[Kind, str] = {
    Kind.SIGNED_IN: "signed_in",
    Kind.SIGN_IN_FAILED: "sign_in_failed",
    Kind.ACCESS_DENIED: "denied",
    Kind.ACCOUNT_CHANGED: "accounts_changed",
    Kind.TOKEN_CHANGED: "accounts_changed",
    Kind.SCREEN_CHANGED: "accounts_changed",
    Kind.SETTINGS_CHANGED: "settings_changed",
    Kind.LABELS_EXPORTED: "exports",
}
#: Of ``Accessed``, what leaves the box by it.
_EXPORTS = frozenset({"support bundle", "audit export", "register export"})
_COUNTED = (Kind.ANALYSIS_DONE, Kind.ALERT_UPDATED, Kind.REVIEW_SIGNED, Kind.ACCESSED, *ACCESS)
_MOST = 20_000
_UTC = timezone.utc


@dataclass(frozen=True, slots=True)
class Which:
    """Whose results are counted together."""

    package: str
    version: str
    role: str


@dataclass(slots=True, kw_only=True)
class Counts:
    """What is added up of one ``Which``."""

    n: int = 0
    flagged: Counter[str] = field(default_factory=Counter)
    nothing_flagged: int = 0
    not_analysed: Counter[str] = field(default_factory=Counter)
    suppressed: int = 0
    reviewed: int = 0
    agreed: int = 0
    #: From the last image to the result, of those in time.
    ms: list[float] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Take in what was counted elsewhere."""
        self.n += other.n
        self.flagged.update(other.flagged)
        self.nothing_flagged += other.nothing_flagged
        self.not_analysed.update(other.not_analysed)
        self.suppressed += other.suppressed
        self.reviewed += other.reviewed
        self.agreed += other.agreed
        self.ms.extend(other.ms)


@dataclass(slots=True)
class Drawn:
    """What rows of the journal say, by the hour of their wall clock.

    Attributes:
        through: Up to this row.
        results: Hour since 1970, and whose: counts.
        access: Hour: field of the record: how often.
    """

    through: int
    results: dict[tuple[int, Which], Counts] = field(default_factory=dict)
    access: dict[int, Counter[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """How the box fares at a moment.

    Attributes:
        studies: That ended in the last 24 hours.
        ms: From the last image to the result, of their analyses, in order.
        receiving: Studies of which images are arriving.
        waiting: Analyses that wait or run.
        oldest_owed_s: Age of what has waited longest for a destination.
        restarts: Starts of the daemon in the last 24 hours but the first.
    """

    studies: int
    ms: tuple[float, ...]
    receiving: int
    waiting: int
    oldest_owed_s: float
    restarts: int


class FleetCounts:
    """Reads only."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db

    def last_seq(self) -> int:
        """The newest row of the journal."""
        row = self._db.one("SELECT max(seq) AS seq FROM journal")
        return int(row["seq"] or 0) if row else 0

    def hash_of(self, seq: int) -> str | None:
        """The chain's hash at a row; None where it is gone."""
        row = self._db.one("SELECT hash FROM journal WHERE seq = ?", (seq,))
        return str(row["hash"]) if row else None

    def drawn(self, after: int, before_hour: int) -> Drawn:
        """Count the rows after one, up to the first that is of the hour ``before_hour``, or of all there is.

        Args:
            after: The last row that was counted.
            before_hour: Hour since 1970 that has not ended; rows that begin it are left for the next time.
        """
        marks = ", ".join("?" * len(_COUNTED))
        kinds = tuple(map(str, _COUNTED))
        begin = iso(datetime.fromtimestamp(before_hour * 3600, tz=_UTC))
        end = iso(datetime.fromtimestamp((before_hour + 1) * 3600, tz=_UTC))
        first = self._db.one(
            "SELECT min(seq) AS seq FROM journal WHERE seq > ? AND at >= ? AND at < ?", (after, begin, end)
        )
        through = first["seq"] - 1 if first is not None and first["seq"] is not None else self.last_seq()
        out = Drawn(max(through, after))
        rows = self._db.all(
            f"SELECT at, kind, study_id, body FROM journal WHERE seq > ? AND seq <= ? AND kind IN ({marks})",  # noqa: S608 - marks only
            (after, out.through, *kinds),
        )
        for row in rows:
            hour, body = int(from_iso(row["at"]).timestamp() // 3600), json.loads(row["body"])
            kind = Kind(row["kind"])
            if kind is Kind.ANALYSIS_DONE:
                self._ended(out, hour, body)
            elif kind is Kind.ALERT_UPDATED:
                self._suppressed(out, hour, body["analysis"])
            elif kind is Kind.REVIEW_SIGNED:
                self._reviewed(out, hour, body["review"])
            elif kind is Kind.ACCESSED:
                if body["what"] in _EXPORTS:
                    out.access.setdefault(hour, Counter())["exports"] += 1
            else:
                out.access.setdefault(hour, Counter())[ACCESS[kind]] += 1
        return out

    def flagged_of(self, analysis: int) -> tuple[str, ...] | None:
        """Ids of the findings that an analysis flagged; None of a test study, or of one that is not here any more."""
        row = self._db.one(
            "SELECT a.result FROM analysis a JOIN study s ON s.id = a.study_id WHERE a.id = ? AND s.source <> ?",
            (analysis, SELF_TEST_SOURCE),
        )
        if row is None:
            return None
        result = json.loads(row["result"]) if row["result"] else {}
        return tuple(one["id"] for one in result.get("findings", ()) if one["flagged"])

    def ended_ms(self, since: datetime, until: datetime) -> tuple[int, list[float]]:
        """Studies whose live analyses ended in a time, and how long those took that were not late, in order."""
        rows = self._db.all(
            "SELECT a.study_id, a.late, json_extract(a.result, '$.hops_ms.total') AS ms FROM analysis a"
            " JOIN study s ON s.id = a.study_id WHERE a.files_removed_at IS NULL AND a.state = 'done'"
            " AND a.role = 'live' AND a.done_at >= ? AND a.done_at < ? AND s.source <> ? LIMIT ?",
            (iso(since), iso(until), SELF_TEST_SOURCE, _MOST),
        )
        took = sorted(row["ms"] for row in rows if row["ms"] is not None and not row["late"])
        return len({row["study_id"] for row in rows}), took

    def now(self, now: datetime) -> Now:
        """How the box fares."""
        since = datetime.fromtimestamp(now.timestamp() - 86_400, tz=_UTC)
        studies, ms = self.ended_ms(since, datetime.fromtimestamp(now.timestamp() + 1, tz=_UTC))
        (arriving,) = self._db.all("SELECT count(DISTINCT study_id) AS n FROM series WHERE open = 1")
        (waiting,) = self._db.all("SELECT count(*) AS n FROM analysis WHERE state <> 'done'")
        (oldest,) = self._db.all("SELECT min(owed_at) AS at FROM delivery WHERE state = 'owed' AND state <> 'sent'")
        (starts,) = self._db.all(
            "SELECT count(*) AS n FROM journal WHERE seq >= ? AND kind = ?",
            (self.first_seq_at(since), str(Kind.DAEMON_STARTED)),
        )
        age = (now - from_iso(oldest["at"])).total_seconds() if oldest["at"] else 0.0
        return Now(
            studies=studies,
            ms=tuple(ms),
            receiving=arriving["n"],
            waiting=waiting["n"],
            oldest_owed_s=max(age, 0.0),
            restarts=max(starts["n"] - 1, 0),
        )

    def first_seq_at(self, at: datetime) -> int:
        """The first row of a time or later: halved, since times go with the numbers but for jumps of the clock."""
        row = self._db.one("SELECT min(seq) AS low, max(seq) AS high FROM journal")
        low, high = (int(row["low"] or 1), int(row["high"] or 0) + 1) if row else (1, 1)
        wanted = iso(at)
        while low < high:
            middle = (low + high) // 2
            found = self._db.one("SELECT at FROM journal WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,))
            if found is not None and found["at"] < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def oldest_waiting(self, after: int, kinds: Collection[Kind]) -> datetime | None:
        """When the first row of these kinds after one was written."""
        marks = ", ".join("?" * len(kinds))
        row = self._db.one(
            f"SELECT at FROM journal WHERE seq > ? AND kind IN ({marks}) ORDER BY seq LIMIT 1",  # noqa: S608 - marks only
            (after, *map(str, kinds)),
        )
        return from_iso(row["at"]) if row else None

    def engine_of(self, package: str, version: str) -> tuple[str, str]:
        """Backend and precision of the newest analysis by a version that gave a result; empty where there is none."""
        row = self._db.one(
            "SELECT json_extract(result, '$.backend') AS backend, json_extract(result, '$.precision') AS precision"
            " FROM analysis WHERE package = ? AND package_version = ? AND state = 'done'"
            " AND outcome <> 'NOT_ANALYSED' ORDER BY id DESC LIMIT 1",
            (package, version),
        )
        return (str(row["backend"] or ""), str(row["precision"] or "")) if row else ("", "")

    # Parts -----------------------------------------------------------------------------------------------------

    def _ended(self, out: Drawn, hour: int, body: Mapping[str, object]) -> None:
        row = self._db.one(
            "SELECT a.*, s.source FROM analysis a JOIN study s ON s.id = a.study_id WHERE a.id = ?",
            (body["analysis"],),
        )
        # Whatever was superseded is counted when its successor has ended.
        if row is None or row["source"] == SELF_TEST_SOURCE or row["superseded_by"] is not None or not row["result"]:
            return
        counts = out.results.setdefault((hour, _which(row)), Counts())
        result = json.loads(row["result"])
        counts.n += 1
        counts.flagged.update(one["id"] for one in result.get("findings", ()) if one["flagged"])
        counts.nothing_flagged += row["outcome"] == "NOTHING_FLAGGED"
        if row["reason"]:
            counts.not_analysed[row["reason"]] += 1
        total = result.get("hops_ms", {}).get("total")
        if total is not None and not row["late"]:
            counts.ms.append(float(total))

    def _suppressed(self, out: Drawn, hour: int, analysis: int) -> None:
        row = self._db.one(
            "SELECT a.*, s.source FROM analysis a JOIN study s ON s.id = a.study_id WHERE a.id = ?", (analysis,)
        )
        if row is not None and row["source"] != SELF_TEST_SOURCE:
            out.results.setdefault((hour, _which(row)), Counts()).suppressed += 1

    def _reviewed(self, out: Drawn, hour: int, review: int) -> None:
        rows = self._db.all(
            "SELECT a.package, a.package_version, a.role, min(f.is_right) AS is_right FROM review r"  # noqa: S608 - our own text
            " JOIN review_finding f ON f.review_id = r.id JOIN analysis a ON a.id = f.analysis_id"
            " JOIN study s ON s.id = a.study_id WHERE r.id = ? AND r.counts = 1 AND f.is_right IS NOT NULL"
            f" AND f.finding <> '' AND s.source <> ? AND {IS_LAST} GROUP BY a.id",
            (review, SELF_TEST_SOURCE),
        )
        for row in rows:
            counts = out.results.setdefault((hour, _which(row)), Counts())
            counts.reviewed += 1
            counts.agreed += bool(row["is_right"])


def _which(row: sqlite3.Row) -> Which:
    return Which(row["package"], row["package_version"], row["role"])
