"""Which hour is told when: each result once, each hour once, whatever the wall clock does. No I/O.

The server keeps one row for a package, version, role and hour, so an hour that was told is never told again: what
falls into it later (the clock was set back) goes to the nearest hour before it that is free. Hours with fewer than five
analyses wait for the next one; what is still small when its UTC day is over is told as that day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from appliance.store.fleet_counts import Counts, Drawn, Which

#: A cell with fewer analyses could be somebody.
SMALL = 5
_DAY = 24
#: What was told longer ago is forgotten; what claims to be older is of a clock that was wrong.
_KEPT = 62 * _DAY


@dataclass
class Hours:
    """Hours since 1970 that were told, as ranges [begin, end) that do not touch."""

    ranges: list[tuple[int, int]] = field(default_factory=list)

    def covers(self, hour: int) -> bool:
        """Whether it was told."""
        return any(begin <= hour < end for begin, end in self.ranges)

    def add(self, begin: int, end: int) -> None:
        """Note these as told."""
        merged: list[tuple[int, int]] = []
        for one in sorted([*self.ranges, (begin, end)]):
            if merged and one[0] <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], one[1]))
            else:
                merged.append(one)
        self.ranges = merged

    def free(self, hour: int) -> int:
        """The hour itself, or the nearest one before it that was not told."""
        while self.covers(hour):
            hour = next(begin for begin, end in self.ranges if begin <= hour < end) - 1
        return hour

    def forget(self, before: int) -> None:
        """Drop what lies before an hour."""
        self.ranges = [(max(begin, before), end) for begin, end in self.ranges if end > before]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A row that is to be written."""

    which: Which
    hour: int
    hours: int
    counts: Counts


class Ledger:
    """What was drawn from the journal and not told yet, and what was told."""

    def __init__(self, hour: int, seq: int) -> None:
        """Begin in an hour, after a row of the journal."""
        #: The hour that has not ended; rows up to ``seq`` are counted.
        self.hour, self.seq = hour, seq
        self._cells: dict[Which, dict[int, Counts]] = {}
        self._told: dict[Which, Hours] = {}
        self._access = Hours()

    def take(self, drawn: Drawn, now: int) -> dict[int, Counter[str]]:
        """Take in what ended up to the hour ``now``, which has not.

        Returns:
            Access by hour, which is told at once.
        """
        self.hour, self.seq = now, drawn.through
        for hours in (*self._told.values(), self._access):
            hours.forget(now - _KEPT)
        for which, cells in self._cells.items():
            # What waits under an hour that has not come yet: the clock was set back. It does not wait for that hour.
            for hour in [one for one in cells if one >= now]:
                self._put(which, hour, cells.pop(hour))
        for (hour, which), counts in drawn.results.items():
            self._put(which, hour, counts)
        access: dict[int, Counter[str]] = {}
        for hour, counted in drawn.access.items():
            place = self._access.free(_within(hour, now))
            access.setdefault(place, Counter()).update(counted)
        for place in access:
            self._access.add(place, place + 1)
        return access

    def close(self) -> list[Told]:
        """What can be told now; it is noted as told."""
        out: list[Told] = []
        for which in sorted(self._cells, key=lambda one: (one.package, one.version, one.role)):
            out += self._close(which)
        return out

    def _put(self, which: Which, hour: int, counts: Counts) -> None:
        place = self._told.setdefault(which, Hours()).free(_within(hour, self.hour))
        self._cells.setdefault(which, {}).setdefault(place, Counts()).add(counts)

    def _close(self, which: Which) -> list[Told]:
        out: list[Told] = []
        rest: dict[int, Counts] = {}
        begin, sum_ = 0, Counts()
        has_some = False
        for hour, counts in sorted(self._cells.pop(which).items()):
            if has_some and hour // _DAY != begin // _DAY:
                out.append(self._as_day(which, begin, sum_))
                has_some = False
            if not has_some:
                begin, sum_, has_some = hour, Counts(), True
            sum_.add(counts)
            if sum_.n >= SMALL:
                out.append(self._tell(which, begin, hour + 1, sum_))
                has_some = False
        if has_some and begin // _DAY < self.hour // _DAY:
            out.append(self._as_day(which, begin, sum_))
        elif has_some:
            rest[begin] = sum_
        if rest:
            self._cells[which] = rest
        return out

    def _as_day(self, which: Which, hour: int, counts: Counts) -> Told:
        """The whole UTC day of an hour, but for what of it was told before or after."""
        begin = hour // _DAY * _DAY
        end = begin + _DAY
        for first, last in self._told.setdefault(which, Hours()).ranges:
            if last <= hour:
                begin = max(begin, last)
            elif first > hour:
                end = min(end, first)
        return self._tell(which, begin, end, counts)

    def _tell(self, which: Which, begin: int, end: int, counts: Counts) -> Told:
        self._told.setdefault(which, Hours()).add(begin, end)
        return Told(which=which, hour=begin, hours=end - begin, counts=counts)

    # As it is kept ---------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """For one mark of the database."""
        return {
            "hour": self.hour,
            "seq": self.seq,
            "access": self._access.ranges,
            "told": [[asdict(which), hours.ranges] for which, hours in self._told.items() if hours.ranges],
            "cells": [
                # Not asdict, which makes a Counter of a Counter's items.
                [asdict(which), hour, {one.name: getattr(counts, one.name) for one in fields(counts)}]
                for which, cells in self._cells.items()
                for hour, counts in cells.items()
            ],
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Ledger:
        """As ``to_json`` wrote it."""
        ledger = cls(kept["hour"], kept["seq"])
        ledger._access = Hours(_ranges(kept["access"]))
        ledger._told = {Which(**which): Hours(_ranges(ranges)) for which, ranges in kept["told"]}
        for which, hour, counts in kept["cells"]:
            counted: dict[str, Any] = {
                name: Counter(value) if isinstance(value, dict) else value for name, value in counts.items()
            }
            ledger._cells.setdefault(Which(**which), {})[hour] = Counts(**counted)
        return ledger


def _within(hour: int, now: int) -> int:
    """The hour of a row, or the last that has ended where its clock cannot have been right."""
    return hour if now - _KEPT // 2 <= hour < now else now - 1


def _ranges(kept: Iterable[Iterable[int]]) -> list[tuple[int, int]]:
    return [(begin, end) for begin, end in kept]
