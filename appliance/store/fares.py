"""How the box fares now and fared in the last day: what the page of health, the command line and Prometheus show.

The same figures as the fleet hears; there by numbers of sources, here by their names. Test studies are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from appliance.clock import ClockQuality, clock_quality
from appliance.records import SELF_TEST_SOURCE, Outcome, Role
from appliance.store.database import Database, iso
from appliance.store.drift import Drift, Drifted
from appliance.store.equipment import Equipment, Known
from appliance.store.fleet import SKEW
from appliance.store.fleet_counts import FleetCounts
from appliance.store.health_samples import quantile
from appliance.store.package_rows import package_rows
from appliance.store.usual_hours import UsualHours

DAY = timedelta(days=1)
SHARES = (0.5, 0.95, 0.99)
SOURCE_SILENT = "SOURCE_SILENT"
#: Analyses of a day; a busy site has some thousands.
_MOST = 50_000


@dataclass(slots=True, kw_only=True)
class ModelDay:
    """What a version did in a day, in one role.

    Attributes:
        ends: How many ended so, by outcome and reason; the reason is empty but for NOT_ANALYSED.
        ms: From the last image to the result, of live analyses in time.
        drift: Against the first results here, by finding and, as ``image-...``, by what was measured of the images.
    """

    package: str
    version: str
    role: str
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)
    drift: Mapping[str, Drifted] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Analyses."""
        return sum(self.ends.values())

    @property
    def flagged(self) -> int:
        """Of them with a finding."""
        return sum(n for (outcome, _), n in self.ends.items() if outcome == Outcome.FINDING)

    @property
    def not_analysed(self) -> int:
        """Of them not analysed."""
        return sum(n for (outcome, _), n in self.ends.items() if outcome == Outcome.NOT_ANALYSED)

    def took_ms(self, share: float) -> float | None:
        """The time within which so many were done."""
        return quantile(sorted(self.ms), share)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNow:
    """A source: when its last image came, whether that is too long ago for this hour, what it is."""

    source: str
    last_at: datetime
    is_silent: bool
    machine: Known | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fares:
    """The whole box.

    Attributes:
        clock: By whom the wall clock is kept.
        skew_s: How far it is before the fleet server's; None: nobody told.
        restarts: Starts of the software in a day but the first.
        studies: That got their result in a day.
        p50_ms: From the last image to the result, of that day.
        p95_ms: The same.
        p99_ms: The same.
        receiving: Studies of which images arrive.
        waiting: Analyses that wait or run.
        oldest_s: Age of what has waited longest for a destination.
    """

    clock: ClockQuality
    skew_s: float | None
    restarts: int
    studies: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    receiving: int
    waiting: int
    oldest_s: float
    models: tuple[ModelDay, ...]
    sources: tuple[SourceNow, ...]


def fares(db: Database, now: datetime) -> Fares:
    """Read all of it; some tens of milliseconds on a busy box."""
    counts = FleetCounts(db).now(now)
    p50, p95, p99 = (quantile(counts.ms, share) for share in SHARES)
    return Fares(
        clock=clock_quality(now),
        skew_s=skew_s(db),
        restarts=counts.restarts,
        studies=counts.studies,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        receiving=counts.receiving,
        waiting=counts.waiting,
        oldest_s=counts.oldest_owed_s,
        models=tuple(models_of(db, now)),
        sources=tuple(_sources(db, now)),
    )


def skew_s(db: Database) -> float | None:
    """How far the wall clock is before the fleet server's, as last told."""
    row = db.one("SELECT value FROM fleet_state WHERE name = ?", (SKEW,))
    return int(row["value"]) / 1000 if row is not None and row["value"] else None


def models_of(db: Database, now: datetime) -> list[ModelDay]:
    """Every version that runs, and those that ran in the last day; the busiest first."""
    found: dict[tuple[str, str, str], ModelDay] = {}

    def of(package: str, version: str, role: str) -> ModelDay:
        return found.setdefault((package, version, role), ModelDay(package=package, version=version, role=role))

    drift = Drift(db)
    for row in package_rows(db):
        if row.runs:
            of(row.name, row.version, str(row.role)).drift = drift.of(row.name, row.version)
    for ended in db.all(
        "SELECT a.package, a.package_version, a.role, a.outcome, a.reason, a.late,"
        " json_extract(a.result, '$.hops_ms.total') AS ms FROM analysis a"
        " WHERE a.state = 'done' AND a.files_removed_at IS NULL AND a.superseded_by IS NULL AND a.done_at >= ?"
        " AND (SELECT s.source FROM study s WHERE s.id = a.study_id) <> ? LIMIT ?",
        (iso(now - DAY), SELF_TEST_SOURCE, _MOST),
    ):
        day = of(ended["package"], ended["package_version"], ended["role"])
        day.ends[str(ended["outcome"] or ""), str(ended["reason"] or "")] += 1
        if ended["ms"] is not None and not ended["late"] and ended["role"] == Role.LIVE:
            day.ms.append(float(ended["ms"]))
    return sorted(found.values(), key=lambda one: (-one.n, one.package, one.version))


def _sources(db: Database, now: datetime) -> list[SourceNow]:
    """Silence as the issue says it: what is usual is learned once an hour, by its check."""
    rows = db.all("SELECT subject FROM issue WHERE code = ? AND cleared_at IS NULL", (SOURCE_SILENT,))
    silent, machines = {row["subject"] for row in rows}, {one.source: one for one in Equipment(db).known()}
    return [
        SourceNow(source=name, last_at=at, is_silent=name in silent, machine=machines.get(name))
        for name, at in sorted(UsualHours(db).last_images(now).items())
    ]
