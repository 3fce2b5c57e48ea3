"""How the box fared, minute by minute: kept for two days, then by the hour for a month. Numbers only."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from appliance.store.database import Database, Transaction, from_iso, iso

MINUTES_KEPT = timedelta(hours=48)
HOURS_KEPT = timedelta(days=31)
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was seen of one minute or hour; None where there was nothing to see.

    Attributes:
        studies: That got their outcome in it.
        end_to_end_p50_ms: From the last image to the result, of the analyses that ended in it. Of an hour: the mean
            of its minutes.
        end_to_end_p95_ms: Of an hour: the highest of its minutes.
        queue_age_s: Age of what has waited longest for a destination. Of an hour: the highest.
        analyses_waiting: Of an hour: the highest.
        cpu_percent: Of all cores.
        memory_percent: Of the machine's.
        disk_percent: Used, of the disk of the spool.
        disk_wear_percent: Of its life, behind it.
        temperature_c: The hottest sensor.
        throttled: 1 where heat or power held processor or GPU back. Of an hour: in any of its minutes.
        gpu_percent: Busy.
        gpu_memory_percent: Of the GPU's.
        gpu_temperature_c: Of the GPU.
        network_in_bytes_s: Received from other machines, a second.
        network_out_bytes_s: Sent to them.
    """

    studies: int | None = None
    end_to_end_p50_ms: float | None = None
    end_to_end_p95_ms: float | None = None
    queue_age_s: float | None = None
    analyses_waiting: int | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None
    disk_percent: float | None = None
    disk_wear_percent: float | None = None
    temperature_c: float | None = None
    throttled: float | None = None
    gpu_percent: float | None = None
    gpu_memory_percent: float | None = None
    gpu_temperature_c: float | None = None
    network_in_bytes_s: float | None = None
    network_out_bytes_s: float | None = None


METRICS = tuple(field.name for field in fields(Sample))
_SUMMED = frozenset({"studies"})
_HIGHEST = frozenset(
    {
        *("end_to_end_p95_ms", "queue_age_s", "analyses_waiting", "cpu_percent", "temperature_c", "gpu_percent"),
        *("throttled", "gpu_temperature_c", "disk_wear_percent"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A sample and the begin of its time."""

    at: datetime
    sample: Sample


class HealthSamples:
    """Writes samples and draws them together."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db

    def measured(self, since: datetime, until: datetime) -> dict[str, float | None]:
        """What the store itself knows of a time: the first five metrics."""
        (ended,) = self._db.all(
            "SELECT count(DISTINCT study_id) AS n FROM analysis WHERE files_removed_at IS NULL AND state = 'done'"
            " AND role = 'live' AND done_at >= ? AND done_at < ?",
            (iso(since), iso(until)),
        )
        totals = sorted(
            row["ms"]
            for row in self._db.all(
                "SELECT json_extract(result, '$.hops_ms.total') AS ms FROM analysis WHERE files_removed_at IS NULL"
                " AND state = 'done' AND role = 'live' AND late = 0 AND done_at >= ? AND done_at < ?",
                (iso(since), iso(until)),
            )
            if row["ms"] is not None
        )
        (waiting,) = self._db.all("SELECT count(*) AS n FROM analysis WHERE state <> 'done'")
        (oldest,) = self._db.all("SELECT min(owed_at) AS at FROM delivery WHERE state = 'owed' AND state <> 'sent'")
        age = (until - from_iso(oldest["at"])).total_seconds() if oldest["at"] else 0.0
        return {
            "studies": ended["n"],
            "end_to_end_p50_ms": quantile(totals, 0.5),
            "end_to_end_p95_ms": quantile(totals, 0.95),
            "queue_age_s": max(age, 0.0),
            "analyses_waiting": waiting["n"],
        }

    def add(self, at: datetime, sample: Sample) -> None:
        """Keep the sample of the minute that holds ``at``; draw hours together whose minutes are old enough."""
        minute = at.replace(second=0, microsecond=0)
        with self._db.write() as tx:
            _put(tx, "minute", minute, sample)
            self._roll_up(tx, minute)

    def between(self, since: datetime, until: datetime, points: int = 720) -> list[Point]:
        """Samples of a time, oldest first: by minutes or hours, and at most ``points`` of them."""
        hours = self._read("hour", since, until)
        minutes = self._read("minute", since, until)
        if until - since > MINUTES_KEPT:
            # One width for the whole plot.
            minutes = _drawn(minutes, _HOUR)
            known = {point.at for point in hours}
            found = [*hours, *(point for point in minutes if point.at not in known)]
        else:
            found = minutes
        found.sort(key=lambda point: point.at)
        width = max(_MINUTE, _whole_minutes((until - since) / points))
        return (_drawn(found, width) if len(found) > points else found)[-points:]

    def minutes(self, since: datetime, until: datetime) -> list[Point]:
        """The minutes of a time as they were written, oldest first."""
        return self._read("minute", since, until)

    def forget_after(self, at: datetime) -> None:
        """Drop the minutes from one on: the clock was set back before them, and they are still to come."""
        with self._db.write() as tx:
            tx.execute("DELETE FROM health_sample WHERE span = 'minute' AND at >= ?", (iso(at),))

    def _read(self, span: str, since: datetime, until: datetime) -> list[Point]:
        rows = self._db.all(
            "SELECT at, body FROM health_sample WHERE span = ? AND at >= ? AND at < ? ORDER BY at",
            (span, iso(since), iso(until)),
        )
        return [Point(at=from_iso(row["at"]), sample=_sample(json.loads(row["body"]))) for row in rows]

    def _roll_up(self, tx: Transaction, now: datetime) -> None:
        """Whole hours older than the minutes are kept become one row each; what is older than a month goes."""
        before = (now - MINUTES_KEPT).replace(minute=0)
        old = [
            Point(at=from_iso(row["at"]), sample=_sample(json.loads(row["body"])))
            for row in tx.all(
                "SELECT at, body FROM health_sample WHERE span = 'minute' AND at < ? ORDER BY at", (iso(before),)
            )
        ]
        for hour in _drawn(old, _HOUR):
            _put(tx, "hour", hour.at, hour.sample)
        tx.execute("DELETE FROM health_sample WHERE span = 'minute' AND at < ?", (iso(before),))
        tx.execute("DELETE FROM health_sample WHERE span = 'hour' AND at < ?", (iso(now - HOURS_KEPT),))


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` of an ordered list lies (nearest rank); None of an empty one."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def _put(tx: Transaction, span: str, at: datetime, sample: Sample) -> None:
    body = json.dumps({name: value for name, value in asdict(sample).items() if value is not None})
    tx.execute(
        "INSERT INTO health_sample VALUES (?, ?, ?) ON CONFLICT (span, at) DO UPDATE SET body = excluded.body",
        (span, iso(at), body),
    )


def _sample(body: dict[str, Any]) -> Sample:
    # A row of another version of this software may know other metrics.
    return Sample(**{name: value for name, value in body.items() if name in METRICS})


def _whole_minutes(width: timedelta) -> timedelta:
    return -(-width // _MINUTE) * _MINUTE


def _drawn(points: Sequence[Point], width: timedelta) -> list[Point]:
    """Points drawn together in steps of ``width``, counted from midnight UTC."""
    groups: dict[datetime, list[Sample]] = {}
    for point in points:
        midnight = point.at.replace(hour=0, minute=0, second=0, microsecond=0)
        groups.setdefault(midnight + (point.at - midnight) // width * width, []).append(point.sample)
    return [Point(at=at, sample=_together(samples)) for at, samples in groups.items()]


def _together(samples: Sequence[Sample]) -> Sample:
    drawn: dict[str, Any] = {}
    for name in METRICS:
        values = [value for sample in samples if (value := getattr(sample, name)) is not None]
        if values:
            rule: Callable[[list[float]], float] = sum if name in _SUMMED else max if name in _HIGHEST else _mean
            drawn[name] = rule(values)
    return Sample(**drawn)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3)
