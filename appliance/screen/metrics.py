"""``GET /api/v1/metrics``: this box's figures for Prometheus, for a token of the role ``service``.

Labels are of closed lists alone (packages that are here, versions, states, codes of issues, checks), and never more
than so many of each: no patient, no study, no source, no AE title, no UID, no serial number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from appliance import __version__
from appliance.clock import clock_quality
from appliance.records import Issue
from appliance.screen.context import Context
from appliance.screen.tools import FleetLink
from appliance.store.fares import SHARES, SOURCE_SILENT, models_of
from appliance.store.fleet_counts import FleetCounts
from appliance.store.health_samples import Sample
from appliance.web import issue_words
from appliance.web.access import KEEPERS, Guarded

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: A scrape within this time gets the figures of the one before: a day of results is read for them.
_FRESH_S = 15.0
_SAMPLE_AGE = timedelta(minutes=5)
#: Combinations of one metric's labels; what is beyond is "other".
MOST, OTHER = 64, "other"
#: What Prometheus calls a sample, and what its value is multiplied by: seconds, bytes and ratios are its units.
_MACHINE = {
    "cpu_percent": ("cpu_busy_ratio", "Processor, of all cores", 0.01),
    "memory_percent": ("memory_used_ratio", "Memory of the machine", 0.01),
    "disk_percent": ("disk_used_ratio", "Disk of the spool", 0.01),
    "disk_wear_percent": ("disk_wear_ratio", "Life that the most worn disk has behind it", 0.01),
    "temperature_c": ("temperature_celsius", "The hottest sensor", 1),
    "throttled": ("throttled", "1 where heat or power holds processor or GPU back", 1),
    "gpu_percent": ("gpu_busy_ratio", "The GPU", 0.01),
    "gpu_memory_percent": ("gpu_memory_used_ratio", "Memory of the GPU", 0.01),
    "gpu_temperature_c": ("gpu_temperature_celsius", "The GPU", 1),
    "network_in_bytes_s": ("network_receive_bytes_per_second", "From other machines", 1),
    "network_out_bytes_s": ("network_transmit_bytes_per_second", "To other machines", 1),
}
_STANDS = ("package", "version", "state")
_CLOCKS = ("ntp", "rtc", "none")


class _Row(NamedTuple):
    labels: tuple[str, ...]
    value: float


class MetricsPages:
    """One address."""

    def __init__(self, context: Context) -> None:
        """Read what the store knows, when Prometheus asks."""
        self._context = context
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(BoxCollector(context))

    def routes(self) -> list[Guarded]:
        """The address: without a token or a session nobody is answered."""
        return [Guarded("/api/v1/metrics", self.metrics, roles=KEEPERS)]

    async def metrics(self, _: Request) -> Response:
        """The page that Prometheus reads."""
        text = await self._context.pool.run(generate_latest, self._registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE})


class BoxCollector(Collector):
    """What one box knows of itself."""

    def __init__(self, context: Context) -> None:
        """Ask the store and the tools of ``context``."""
        self._context = context
        self._store = context.store
        self._counts = FleetCounts(context.store.db)
        self._at: float | None = None
        self._metrics: list[Metric] = []

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering it must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The figures, not older than a few seconds."""
        now = self._context.clock.monotonic()
        if self._at is None or now - self._at >= _FRESH_S:
            self._metrics, self._at = list(self._all(self._context.clock.now())), now
        yield from self._metrics

    def _all(self, now: datetime) -> Iterator[Metric]:
        issues = self._store.issues.open()
        yield _gauges("info", "Software", ("version", "mode"), [_Row((__version__, self._context.config.site.mode), 1)])
        points = self._store.health.between(now - _SAMPLE_AGE, now)
        yield from _machine(points[-1].sample if points else Sample())
        quality = clock_quality(now)
        yield _gauges("clock", "By whom the clock is kept", ("state",), [_Row((q,), q == quality) for q in _CLOCKS])
        yield from self._queues(now)
        yield from self._results(now)
        yield from _issues(issues)
        yield from self._models()
        silent = sum(issue.code == SOURCE_SILENT for issue in issues)
        yield _one("sources_silent", "Sources that send nothing at their usual hours", silent)
        if self._context.config.fleet is not None:
            yield from _link(self._context.tools.fleet_link(), now)

    def _queues(self, now: datetime) -> Iterator[Metric]:
        counts = self._counts.now(now)
        rows = [_Row(("receiving",), counts.receiving), _Row(("analyses",), counts.waiting)]
        owed = self._store.db.one("SELECT count(*) AS n FROM delivery WHERE state = 'owed'")
        rows.append(_Row(("deliveries",), owed["n"] if owed else 0))
        yield _gauges("queue", "What waits", ("queue",), rows)
        yield _one("queue_oldest_seconds", "Age of what has waited longest for a destination", counts.oldest_owed_s)
        yield _one("restarts_24h", "Starts of the software in a day, but the first", counts.restarts)

    def _results(self, now: datetime) -> Iterator[Metric]:
        """Of the last day, a day that moves: the rows of older ones may have gone."""
        days = models_of(self._store.db, now)
        by = ("package", "version", "role")
        ends = [
            _Row((one.package, one.version, one.role, outcome.lower(), reason), n)
            for one in days
            for (outcome, reason), n in one.ends.items()
        ]
        yield _gauges("analyses_24h", "Analyses that ended in a day", (*by, "outcome", "reason"), ends)
        flagged = [_Row((one.package, one.version, one.role), one.flagged) for one in days if one.n]
        yield _gauges("flagged_24h", "Of them with a finding", by, flagged)
        quantiles = [
            _Row((one.package, one.version, str(share)), (one.took_ms(share) or 0.0) / 1000)
            for one in days[: MOST // len(SHARES)]
            if one.ms
            for share in SHARES
        ]
        what = "From the last image to the result, of a day"
        yield _gauges("result_seconds_24h", what, ("package", "version", "quantile"), quantiles, rest=max)
        drifted = [
            _Row((one.package, one.version, check), drift.psi) for one in days for check, drift in one.drift.items()
        ]
        what = "Population stability index of scores and of images against the first results here"
        yield _gauges("drift_psi", what, ("package", "version", "check"), drifted, rest=max)

    def _models(self) -> Iterator[Metric]:
        rows = self._store.packages.all()
        here = [_Row((row.name, row.version, str(row.state)), 1) for row in rows if row.state != "removed"]
        yield _gauges("package", "Versions that have a slot", _STANDS, here)
        engines = [_Row((one.package, one.version, one.state), 1) for one in self._context.tools.engines()]
        yield _gauges("engine", "Engines, built and accepted or not", _STANDS, engines)


def _machine(sample: Sample) -> Iterator[Metric]:
    """What the machine does not have is no metric, rather than zero."""
    for field, (name, what, scale) in _MACHINE.items():
        value = getattr(sample, field)
        if value is not None:
            yield _one(name, what, float(value) * scale)


def _issues(issues: Sequence[Issue]) -> Iterator[Metric]:
    """By code. One that this software does not name is none of its words, so it is "other"."""
    standing: Counter[tuple[str, ...]] = Counter()
    for issue in issues:
        code = issue.code if issue.code in issue_words.ISSUES else OTHER
        standing[code, str(issue.severity)] += 1
    yield _gauges("issues", "Issues that stand", ("code", "severity"), [_Row(k, n) for k, n in standing.items()])


def _link(link: FleetLink, now: datetime) -> Iterator[Metric]:
    yield _one("fleet_connected", "1 while the fleet's broker has us", link.connected_at is not None)
    yield _one("fleet_backlog_rows", "Rows of the journal that the fleet's server has not got", link.waiting)
    if link.told_at is not None:
        yield _one("fleet_acknowledged_seconds", "Since the server's last word", (now - link.told_at).total_seconds())
    if link.ends_at is not None:
        yield _one("fleet_certificate_seconds", "Time that is left", (link.ends_at - now).total_seconds())


def _one(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"scanside_{name}", what, value=float(value))


def _gauges(
    name: str,
    what: str,
    labels: Sequence[str],
    rows: Sequence[_Row],
    *,
    rest: Callable[[Iterable[float]], float] = sum,
) -> Metric:
    """Of rows. Beyond so many combinations the smallest are drawn together as ``rest`` says: "other" throughout."""
    family = GaugeMetricFamily(f"scanside_{name}", what, labels=list(labels))
    ordered = sorted(rows, key=lambda row: (-row.value, row.labels))
    for row in ordered[:MOST]:
        family.add_metric(list(row.labels), float(row.value))
    if ordered[MOST:]:
        family.add_metric([OTHER] * len(labels), float(rest(row.value for row in ordered[MOST:])))
    return family
