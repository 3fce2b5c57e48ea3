"""What a version of a package did lately: how many studies, how fast, what other operating points would have said.

The box's own test studies are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from appliance.records import SELF_TEST_SOURCE
from appliance.store.database import Database, from_iso, iso
from appliance.store.health_samples import quantile

_WEEK = timedelta(days=7)
_MONTH = timedelta(days=30)
_MOST = 20_000
#: Of an analysis ``a``; by its key, so that the index of the time is the one that is read.
_IS_REAL = "(SELECT s.source FROM study s WHERE s.id = a.study_id) <> ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day of a version; None where nothing ended in it."""

    analyses: int
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """The last seven days of a version, the oldest first, and its newest analysis.

    Attributes:
        days: Seven of them.
        p50_ms: Of them all.
        p95_ms: Of them all.
        backend: That the newest analysis ran on; empty: none yet.
        precision: Of its engine.
        engine_digest: Of its engine; empty where it ran the package's own graph.
    """

    days: tuple[Day, ...]
    p50_ms: float | None
    p95_ms: float | None
    backend: str = ""
    precision: str = ""
    engine_digest: str = ""

    @property
    def analyses(self) -> int:
        """In the seven days."""
        return sum(day.analyses for day in self.days)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsPerDay:
    """How many studies a day each operating point would have flagged, from the scores that are stored.

    Attributes:
        studies: With a score.
        days: Over which they came, at least one.
        flagged: Operating point: studies it would have flagged.
    """

    studies: int
    days: float
    flagged: Mapping[str, int]

    def a_day(self, point: str) -> float:
        """Of one point."""
        return self.flagged[point] / self.days


class Models:
    """Reads analyses by package and version."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db

    def figures(self, package: str, version: str) -> ModelFigures:
        """Of the last seven days."""
        now = self._db.clock.now()
        rows = self._db.all(
            "SELECT done_at, json_extract(result, '$.hops_ms.total') AS ms FROM analysis a"  # noqa: S608 - our own text
            " WHERE files_removed_at IS NULL AND done_at >= ? AND package = ? AND package_version = ?"
            f" AND state = 'done' AND {_IS_REAL} ORDER BY done_at DESC LIMIT ?",
            (iso(now - _WEEK), package, version, SELF_TEST_SOURCE, _MOST),
        )
        by_day: list[list[float]] = [[] for _ in range(7)]
        counts = [0] * 7
        for row in rows:
            day = 6 - min(int((now - from_iso(row["done_at"])) / timedelta(days=1)), 6)
            counts[day] += 1
            if row["ms"] is not None:
                by_day[day].append(row["ms"])
        every = sorted(ms for day in by_day for ms in day)
        newest = self._db.one(
            "SELECT result FROM analysis WHERE package = ? AND package_version = ? AND state = 'done'"
            " AND outcome <> 'NOT_ANALYSED' ORDER BY id DESC LIMIT 1",
            (package, version),
        )
        ran = json.loads(newest["result"]) if newest else {}
        return ModelFigures(
            days=tuple(
                Day(analyses=n, p50_ms=quantile(sorted(ms), 0.5), p95_ms=quantile(sorted(ms), 0.95))
                for n, ms in zip(counts, by_day, strict=True)
            ),
            p50_ms=quantile(every, 0.5),
            p95_ms=quantile(every, 0.95),
            backend=ran.get("backend", ""),
            precision=ran.get("precision", ""),
            engine_digest=ran.get("engine_digest", ""),
        )

    def alerts_per_day(self, package: str, version: str, finding: str, points: Mapping[str, float]) -> AlertsPerDay:
        """What operating points would have flagged in the last 30 days.

        Args:
            package: Its name.
            version: Its version: scores of another are another scale.
            finding: Which.
            points: Name: threshold that a score must reach.
        """
        now = self._db.clock.now()
        rows = self._db.all(
            "SELECT a.study_id, max(json_extract(f.value, '$.score')) AS score, min(a.done_at) AS at"  # noqa: S608
            " FROM analysis a, json_each(a.result, '$.findings') f WHERE a.files_removed_at IS NULL AND a.done_at >= ?"
            " AND a.package = ? AND a.package_version = ? AND a.state = 'done' AND a.superseded_by IS NULL"
            f" AND a.role <> 'shadow' AND json_extract(f.value, '$.id') = ? AND {_IS_REAL} GROUP BY a.study_id LIMIT ?",
            (iso(now - _MONTH), package, version, finding, SELF_TEST_SOURCE, _MOST),
        )
        since = min((from_iso(row["at"]) for row in rows), default=now)
        return AlertsPerDay(
            studies=len(rows),
            days=max((now - since) / timedelta(days=1), 1.0),
            flagged={name: sum(row["score"] >= threshold for row in rows) for name, threshold in points.items()},
        )
