"""Figures for Prometheus. No label counts up with the fleet: a box is none, and of tenants and codes there are so many.

The history of one box stands in the database (``health_point``), which Grafana reads too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, case, func, select
from sqlalchemy.exc import SQLAlchemyError

from appliance.clock import Clock
from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.server.ingest import Outcome
from appliance.fleet.server.registry import CertificateState, DeviceState, Presence

#: Label values of each kind; what is beyond is "other".
_MOST = 100
_OTHER = "other"
#: A scrape within this time gets the figures of the one before.
_FRESH_S = 15.0
_CERTIFICATE_DAYS = (7, 14, 30)


class IngestMetrics:
    """What one ingest process does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count into ``registry``."""
        self.messages = Counter("scanside_fleet_messages", "Messages taken in", ["topic"], registry=registry)
        self.refused = Counter("scanside_fleet_refused", "Messages not taken in", ["reason"], registry=registry)
        self.records = Counter("scanside_fleet_records", "Records kept", registry=registry)
        self.again = Counter("scanside_fleet_records_again", "Records that were there already", registry=registry)
        self.acks = Counter("scanside_fleet_acks", "Acknowledgements sent", registry=registry)
        self.database_failures = Counter(
            "scanside_fleet_database_failures", "Times that the database did not answer", registry=registry
        )
        self.waiting = Gauge(
            "scanside_fleet_waiting_messages", "Messages that wait for the database", registry=registry
        )
        self.commit_seconds = Histogram(
            "scanside_fleet_commit_seconds",
            "Time to write one group",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=registry,
        )

    def count(self, outcome: Outcome) -> None:
        """Count a group that was committed."""
        for topic, n in outcome.taken.items():
            self.messages.labels(str(topic)).inc(n)
        for reason, n in outcome.refused.items():
            self.refused.labels(str(reason)).inc(n)
        self.records.inc(outcome.records)
        self.again.inc(outcome.again)


class FleetCollector(Collector):
    """What the database says of the whole fleet, asked for when Prometheus asks."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        """Read from ``engine``."""
        self._engine = engine
        self._clock = clock
        self._at: float | None = None
        self._metrics: list[Metric] = []

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering it must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures, not older than a few seconds; none where the database does not answer."""
        now = self._clock.monotonic()
        if self._at is None or now - self._at >= _FRESH_S:
            try:
                with db.read(self._engine) as connection:
                    self._metrics = list(_fleet(connection, self._clock.now()))
                self._at = now
            except SQLAlchemyError:
                self._metrics, self._at = [], None
        yield from self._metrics


def text(registry: CollectorRegistry) -> bytes:
    """The page that Prometheus reads (text/plain; version=0.0.4)."""
    return generate_latest(registry)


def _fleet(connection: Connection, now: datetime) -> Iterator[Metric]:
    d, s = t.device.c, t.status.c
    late = s.due_at < now
    presence = case(
        (s.device.is_(None), str(Presence.NEVER)),
        (s.online.is_(False), str(Presence.OFFLINE)),
        (late, str(Presence.STALE)),
        else_=str(Presence.ONLINE),
    )
    boxes = t.device.outerjoin(t.status, s.device == d.id)
    enrolled = d.state == str(DeviceState.ENROLLED)
    yield _family(
        connection,
        "scanside_fleet_devices",
        "Enrolled devices",
        ("tenant", "presence"),
        select(d.tenant, presence, func.count()).select_from(boxes).where(enrolled).group_by(d.tenant, presence),
    )
    package = t.package_state.c
    yield _family(
        connection,
        "scanside_fleet_packages",
        "Devices on which a version of a package serves",
        ("package", "version", "role"),
        select(package.package, package.version, package.role, func.count())
        .where(package.serves.is_(True))
        .group_by(package.package, package.version, package.role),
    )
    issue = t.issue_state.c
    yield _family(
        connection,
        "scanside_fleet_issues",
        "Issues that stand",
        ("code", "severity"),
        select(issue.code, issue.severity, func.count())
        .where(issue.cleared_at.is_(None))
        .group_by(issue.code, issue.severity),
    )
    ends = t.certificate.c
    soon = GaugeMetricFamily(
        "scanside_fleet_certificates_ending", "Certificates in use that end within so many days", labels=["days"]
    )
    for days in _CERTIFICATE_DAYS:
        asked = select(func.count()).where(
            ends.state == str(CertificateState.CURRENT), ends.not_after < now + timedelta(days=days)
        )
        soon.add_metric([str(days)], connection.execute(asked).scalar_one())
    yield soon
    oldest = select(func.coalesce(func.max(t.health_now.c.backlog_s), 0))
    yield _one(
        "scanside_fleet_oldest_backlog_seconds", "Age of the oldest row that a box has not sent", connection, oldest
    )


def _one(name: str, what: str, connection: Connection, asked: Any) -> Metric:
    return GaugeMetricFamily(name, what, value=float(connection.execute(asked).scalar_one()))


def _family(connection: Connection, name: str, what: str, labels: Sequence[str], asked: Any) -> Metric:
    """Of rows (labels ..., number). Beyond so many combinations the rarest are one: "other" throughout."""
    family = GaugeMetricFamily(name, what, labels=list(labels))
    rows = sorted(connection.execute(asked).all(), key=lambda row: (-row[-1], *map(str, row[:-1])))
    for row in rows[:_MOST]:
        family.add_metric([str(value) for value in row[:-1]], row[-1])
    if rows[_MOST:]:
        family.add_metric([_OTHER] * len(labels), sum(row[-1] for row in rows[_MOST:]))
    return family
