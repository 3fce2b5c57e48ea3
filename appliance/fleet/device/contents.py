"""What of this box may leave it: rows by the gate, and how it fares now. ``outbox.Contents`` of a real box."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from appliance import __version__
from appliance.clock import Clock, ClockQuality, clock_quality
from appliance.config import Config
from appliance.fleet.device import gate
from appliance.fleet.wire_records import (
    Health,
    Machine,
    OpenIssue,
    PackageState,
    Quantiles,
    Record,
    SourceState,
)
from appliance.records import Issue
from appliance.store import Store
from appliance.store.facts import Kind
from appliance.store.fleet import put_state, state_of
from appliance.store.fleet_counts import FleetCounts
from appliance.store.health_samples import Sample, quantile
from appliance.store.journal import Fact
from appliance.store.readmodels import AI_UNAVAILABLE
from appliance.store.usual_hours import Usual, UsualHours

#: The clock's quality is asked again after so long, what is usual of the sources learned again.
_CLOCK_S, _LEARN_S = 60.0, 3600.0
_MOST_ISSUES, _MOST_SOURCES, _MOST_PACKAGES = 200, 64, 64
_SAMPLE_AGE = timedelta(minutes=5)
#: Marks: the secret under which subjects are hidden, and the number of each source.
_KEY, _SOURCES = "ref_key", "sources"


@dataclass(slots=True)
class _Learned:
    """What was learned of the sources, and when."""

    at: float
    usual: dict[str, Usual] = field(default_factory=dict)


class Contents:
    """One box's."""

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Clock,
        *,
        quality: Callable[[datetime], ClockQuality] = clock_quality,
        cert_days: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Read ``store``.

        Args:
            store: The box's.
            config: Its configuration: the mode, and what may leave.
            clock: Monotonic for what is asked anew, wall for what is told.
            quality: How far the wall clock is to be trusted.
            cert_days: How long the certificate of the link still holds.
        """
        self._store = store
        self._mode = config.site.mode
        self._detail = config.fleet.detail if config.fleet is not None else "hourly"
        self._clock = clock
        self._quality = quality
        self._cert_days = cert_days
        self._counts = FleetCounts(store.db)
        self._hours = UsualHours(store.db)
        self._key = hidden_key(store)
        self._clk: ClockQuality = "none"
        self._clk_at = float("-inf")
        self._learned = _Learned(float("-inf"))
        self.kinds: Collection[Kind] = gate.kinds_that_leave(self._detail)

    def record(self, fact: Fact) -> Record | None:
        """A row as the server sees it; None: it stays here.

        Raises:
            ValueError: It should leave and does not fit.
        """
        terms = gate.Terms(
            key=self._key,
            clk=self.clk(),
            boot=self._store.db.boot,
            detail=self._detail,
            flagged=self._counts.flagged_of,
        )
        return gate.record(fact, terms)

    def clk(self) -> ClockQuality:
        """How far the wall clock is to be trusted."""
        now = self._clock.monotonic()
        if now - self._clk_at >= _CLOCK_S:
            self._clk_at, self._clk = now, self._quality(self._clock.now())
        return self._clk

    def health(self, sess: int) -> Health:
        """How the box fares now."""
        now = self._clock.now()
        counts = self._counts.now(now)
        issues = self._store.issues.open()
        place = self._store.fleet.place()
        oldest = self._counts.oldest_waiting(place.cursor, self.kinds)
        skew = self._store.fleet.state("skew_ms")
        return Health(
            ts=int(now.timestamp() * 1000),
            boot=self._store.db.boot if self._store.db.boot != "unknown" else "",
            mono=int(self._clock.monotonic() * 1000),
            clk=self.clk(),
            skew_ms=int(skew) if skew else None,
            sess=sess,
            agent=__version__,
            mode=self._mode,
            ai=self._ai(issues),
            machine=machine_of(last_sample(self._store, now)),
            studies_24h=counts.studies,
            ms=quantiles(counts.ms),
            receiving=counts.receiving,
            waiting=counts.waiting,
            oldest_owed_s=round(counts.oldest_owed_s, 1),
            backlog=self._store.fleet.waiting(place.cursor, self.kinds).n,
            backlog_s=max((now - oldest).total_seconds(), 0.0) if oldest is not None else 0.0,
            restarts_24h=counts.restarts,
            cert_days=self._cert_days(),
            packages=self._packages(),
            issues=tuple(self._issue(one) for one in issues[-_MOST_ISSUES:]),
            sources=self._sources(now),
        )

    def _ai(self, issues: Collection[Issue]) -> str:
        if any(issue.code == AI_UNAVAILABLE for issue in issues):
            return "unavailable"
        return "ready" if any(row.runs for row in self._store.packages.all()) else "no_package"

    def _issue(self, issue: Issue) -> OpenIssue:
        return OpenIssue(
            code=issue.code,
            severity=str(issue.severity),
            ref=gate.ref_of(self._key, issue.code, issue.subject),
            since=int(issue.since_at.timestamp() * 1000),
            acknowledged=issue.acknowledged_at is not None,
        )

    def _packages(self) -> tuple[PackageState, ...]:
        running = (row for row in self._store.packages.all() if row.runs)
        found = []
        for row in islice(running, _MOST_PACKAGES):
            backend, precision = self._counts.engine_of(row.name, row.version)
            found.append(
                PackageState.model_validate(
                    {
                        "package": row.name,
                        "version": row.version,
                        "digest": row.digest,
                        "role": str(row.role),
                        "backend": backend or None,
                        "precision": precision or None,
                        "points": dict(row.operating_points),
                    }
                )
            )
        return tuple(found)

    def _sources(self, now: datetime) -> tuple[SourceState, ...]:
        monotonic = self._clock.monotonic()
        if monotonic - self._learned.at >= _LEARN_S:
            self._learned = _Learned(monotonic, self._hours.learn(now))
        last = self._hours.last_images(now)
        numbers = source_numbers(self._store, last)
        return tuple(
            SourceState(
                source=numbers[name],
                last_image_s=round(max((now - at).total_seconds(), 0.0), 1),
                silent_too_long=self._learned.usual.get(name, Usual()).is_silent(at, now),
            )
            for name, at in sorted(last.items(), key=lambda one: numbers[one[0]])[:_MOST_SOURCES]
        )


def hidden_key(store: Store) -> bytes:
    """The secret of this box under which subjects of issues are hidden; made with the first use."""
    with store.db.write() as tx:
        kept = state_of(tx, _KEY)
        if not kept:
            kept = secrets.token_hex(32)
            put_state(tx, _KEY, kept)
    return bytes.fromhex(kept)


def source_numbers(store: Store, names: Collection[str]) -> dict[str, int]:
    """The number of each source: given once, whatever the configuration's order; names stay on the box."""
    known: dict[str, int] = json.loads(store.fleet.state(_SOURCES, "{}"))
    if all(name in known for name in names):
        return known
    with store.db.write() as tx:
        known = json.loads(state_of(tx, _SOURCES, "{}"))
        for name in sorted(set(names) - known.keys()):
            known[name] = len(known) + 1
        put_state(tx, _SOURCES, json.dumps(known))
    return known


def last_sample(store: Store, now: datetime) -> Sample:
    """How the machine fared in its last minute; an empty one where that is too long ago."""
    points = store.health.between(now - _SAMPLE_AGE, now)
    return points[-1].sample if points else Sample()


def machine_of(sample: Sample) -> Machine:
    """The machine's part of a sample, each value within what its field allows."""
    return Machine(
        cpu=_percent(sample.cpu_percent),
        memory=_percent(sample.memory_percent),
        disk=_percent(sample.disk_percent),
        disk_wear=_percent(sample.disk_wear_percent),
        temperature_c=sample.temperature_c,
        throttled=None if sample.throttled is None else sample.throttled > 0,
        gpu=_percent(sample.gpu_percent),
        gpu_memory=_percent(sample.gpu_memory_percent),
        gpu_temperature_c=sample.gpu_temperature_c,
    )


def quantiles(ordered: Collection[float]) -> Quantiles:
    """Of milliseconds in order; tenths are enough."""
    values = list(ordered)
    found = {name: quantile(values, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return Quantiles(**{name: None if value is None else round(value, 1) for name, value in found.items()})


def _percent(value: float | None) -> float | None:
    return None if value is None else min(max(round(value, 1), 0.0), 100.0)
