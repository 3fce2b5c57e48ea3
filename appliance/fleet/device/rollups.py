"""What the box draws together for the server, from hours, from five minutes and from days.

Results and access by the hour, health by five minutes, and once a day the chain's hash and what the sources are.
Each is a row of the journal (``FleetTold``), written in one transaction with the mark that it was told, so that it is
told once over kill -9 at any point. The link sends rows; nothing here waits for it.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from pydantic import BaseModel, ValidationError

from appliance.clock import Clock
from appliance.fleet.device.contents import machine_of, quantiles, source_numbers
from appliance.fleet.device.ledger import Ledger
from appliance.fleet.device.ledger import Told as ToldHour
from appliance.fleet.wire_records import Access, Anchor, Equipment, HealthRollup, ResultsHour
from appliance.records import Role, Severity
from appliance.store import Store
from appliance.store.database import Transaction
from appliance.store.drift import Drift
from appliance.store.equipment import Equipment as EquipmentRows
from appliance.store.equipment import Known
from appliance.store.facts.fleet import FleetTold
from appliance.store.fleet import put_state
from appliance.store.fleet_counts import FleetCounts
from appliance.store.health_samples import Sample

log = logging.getLogger(__name__)

UNFIT = "FLEET_ROW_UNFIT"
_HOURS, _HEALTH, _DAYS = "rollup.hours", "rollup.health", "rollup.days"
_LOOK_S = 10.0
_FIVE_MINUTES_S = 300
#: So long after its begin the sample of a minute is written at the latest.
_SAMPLED_S = 120
_DAYS_KEPT = 40


class RollupStage:
    """Looks every ten seconds whether an hour, five minutes or a day has ended."""

    name = "fleet-rollups"
    max_step_s = 30.0

    def __init__(self, store: Store, clock: Clock, *, wake_link: Callable[[], None] = lambda: None) -> None:
        """Count from the first step on.

        Args:
            store: The box's.
            clock: Monotonic for looking, wall for what is told.
            wake_link: Rings the link's bell after something was written.
        """
        self._store = store
        self._clock = clock
        self._wake = wake_link
        self._counts = FleetCounts(store.db)
        self._drift = Drift(store.db)
        self._equipment = EquipmentRows(store.db)
        self._next = float("-inf")

    def step(self) -> bool:
        """Tell what has ended."""
        if self._clock.monotonic() < self._next:
            return False
        self._next = self._clock.monotonic() + _LOOK_S
        now = self._clock.now()
        self._tell_hours(now)
        self._tell_health(now)
        self._tell_day(now)
        return False

    # Hours -----------------------------------------------------------------------------------------------------

    def _tell_hours(self, now: datetime) -> None:
        hour = int(now.timestamp() // 3600)
        kept = self._store.fleet.state(_HOURS)
        if not kept:
            ledger = Ledger(hour, self._counts.last_seq())
            self._store.fleet.set_state(_HOURS, json.dumps(ledger.to_json()))
            return
        ledger = Ledger.from_json(json.loads(kept))
        if hour == ledger.hour:
            return
        access = ledger.take(self._counts.drawn(ledger.seq, hour), hour)
        rows = [self._access(at, counted) for at, counted in sorted(access.items())]
        rows += [self._results(told) for told in ledger.close()]
        self._write(_HOURS, json.dumps(ledger.to_json()), rows)

    def _results(self, told: ToldHour) -> BaseModel | None:
        which, counts = told.which, told.counts
        drifted = {} if which.role == Role.SHADOW else self._drift.of(which.package, which.version)
        return self._fitting(
            which.package,
            lambda: ResultsHour.model_validate(
                {
                    "package": which.package,
                    "version": which.version,
                    "role": which.role,
                    "hour": _name(told.hour),
                    "hours": told.hours,
                    "n": counts.n,
                    "flagged": dict(counts.flagged),
                    "nothing_flagged": counts.nothing_flagged,
                    "not_analysed": dict(counts.not_analysed),
                    "suppressed": counts.suppressed,
                    "reviewed": counts.reviewed,
                    "agreed": counts.agreed,
                    "ms": quantiles(sorted(counts.ms)),
                    "psi": {name: one.psi for name, one in drifted.items()},
                }
            ),
        )

    def _access(self, hour: int, counted: Counter[str]) -> BaseModel | None:
        return self._fitting("access", lambda: Access.model_validate({"hour": _name(hour), **counted}))

    # Five minutes ----------------------------------------------------------------------------------------------

    def _tell_health(self, now: datetime) -> None:
        end = int(now.timestamp() - _SAMPLED_S) // _FIVE_MINUTES_S * _FIVE_MINUTES_S
        begin = int(self._store.fleet.state(_HEALTH) or end)
        if end < begin - _FIVE_MINUTES_S:
            # The clock was set back: minutes that have not come yet are no longer anybody's.
            self._store.health.forget_after(_at(end))
        elif end < begin:
            return
        elif end > begin:
            spans: dict[int, list[Sample]] = {}
            for point in self._store.health.minutes(_at(begin), _at(end)):
                spans.setdefault(int(point.at.timestamp()) // _FIVE_MINUTES_S, []).append(point.sample)
            rows = [self._health(span * _FIVE_MINUTES_S, samples) for span, samples in sorted(spans.items())]
            self._write(_HEALTH, str(end), rows)
            return
        if str(end) != self._store.fleet.state(_HEALTH):
            self._store.fleet.set_state(_HEALTH, str(end))

    def _health(self, begin: int, samples: list[Sample]) -> BaseModel | None:
        studies, ms = self._counts.ended_ms(_at(begin), _at(begin + _FIVE_MINUTES_S))
        skew = self._store.fleet.state("skew_ms")
        return self._fitting(
            "health",
            lambda: HealthRollup(
                minutes=len(samples),
                machine=machine_of(_together(samples)),
                studies=studies,
                ms=quantiles(ms),
                oldest_owed_s=round(max((one.queue_age_s or 0.0 for one in samples), default=0.0), 1),
                waiting=max((one.analyses_waiting or 0 for one in samples), default=0),
                skew_ms=int(skew) if skew else None,
            ),
        )

    # Days ------------------------------------------------------------------------------------------------------

    def _tell_day(self, now: datetime) -> None:
        day = f"{now:%Y-%m-%d}"
        told: list[str] = json.loads(self._store.fleet.state(_DAYS, "[]"))
        if day in told:
            return
        rows: list[BaseModel | None] = []
        seq = self._counts.last_seq()
        digest = self._counts.hash_of(seq)
        if digest is not None:
            rows.append(Anchor(seq=seq, hash=digest))
        known = self._equipment.known()
        numbers = source_numbers(self._store, [one.source for one in known])
        rows += [self._source(numbers[one.source], one) for one in known]
        self._write(_DAYS, json.dumps([*told, day][-_DAYS_KEPT:]), rows)

    def _source(self, number: int, known: Known) -> BaseModel | None:
        body = {"modality": known.modality, "make": known.make, "model": known.model, "kernels": known.kernels}
        return self._fitting("equipment", lambda: Equipment.model_validate({"source": number, **body}))

    # Parts -----------------------------------------------------------------------------------------------------

    def _fitting(self, subject: str, make: Callable[[], BaseModel]) -> BaseModel | None:
        """A row, or an issue where what was counted does not fit: it stays here, and everything else goes on."""
        try:
            return make()
        except ValidationError as error:
            log.error("fleet: what was counted of %s does not fit what may leave: %s", subject, type(error).__name__)  # noqa: TRY400 - the text would hold it
            self._store.issues.raise_(UNFIT, subject, Severity.WARNING)
            return None

    def _write(self, mark: str, value: str, rows: Iterable[BaseModel | None]) -> None:
        """Rows and the mark that they were told: all of it or nothing."""
        bodies = [FleetTold(record=row.model_dump(mode="json", exclude_none=True)) for row in rows if row is not None]
        with self._store.db.write() as tx:
            _journal(tx, bodies)
            put_state(tx, mark, value)
        if bodies:
            self._wake()


def _journal(tx: Transaction, bodies: Iterable[FleetTold]) -> None:
    for body in bodies:
        tx.journal(body)


def _together(samples: list[Sample]) -> Sample:
    """Means; the highest of heat, and held back where it ever was."""
    highest = {"temperature_c", "gpu_temperature_c", "throttled", "disk_wear_percent"}
    values: dict[str, Any] = {}
    for name in ("cpu_percent", "memory_percent", "disk_percent", "gpu_percent", "gpu_memory_percent", *highest):
        seen = [value for one in samples if (value := getattr(one, name)) is not None]
        if seen:
            values[name] = max(seen) if name in highest else sum(seen) / len(seen)
    return Sample(**values)


def _name(hour: int) -> str:
    return f"{_at(hour * 3600):%Y-%m-%dT%HZ}"


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)
