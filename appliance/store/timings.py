"""Where the time of a study went, hop by hop, and what is usual. Nothing here writes.

One way from the last image to the result, then two that do not wait for one another: the result to the PACS, and the
alert to people.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.records import Word
from appliance.store.database import Database, from_iso, iso

#: What "usual" looks back on, and at how many analyses at most, the newest.
LOOK_BACK = timedelta(days=30)
LOOKED_AT = 2000
#: So long an answer holds: it moves slowly, and every study page asks.
_HOLDS_S = 60.0


class Hop(Word):
    """A stretch of the way. The order is the way's."""

    #: Last image to the end of the scanner's association, where completeness waited for it.
    CLOSED = "closed"
    #: From there until the images were taken as whole.
    DECIDED = "decided"
    QUEUED = "queued"
    DECODE = "decode"
    PREPARE = "prepare"
    INFERENCE = "inference"
    #: What makes findings and pictures of the model's output, and whatever else the worker did.
    FINISH = "finish"
    #: Objects for the PACS are written; then the result until the last of them was accepted.
    ENCODE = "encode"
    ACCEPTED = "accepted"
    #: The result until a screen had painted the alert, until somebody acknowledged it, until the radiologist was told.
    PRESENTED = "presented"
    SEEN = "seen"
    TOLD = "told"


#: Together the time from the last image to the result.
TO_RESULT = (Hop.CLOSED, Hop.DECIDED, Hop.QUEUED, Hop.DECODE, Hop.PREPARE, Hop.INFERENCE, Hop.FINISH)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisTiming:
    """How long one analysis took. A hop that nobody measured is absent."""

    analysis_id: int
    package: str
    hops_ms: Mapping[Hop, float]
    #: Decoding and preparing that was done before the last image had come: no part of the way.
    ahead_ms: float | None
    #: Last image to result.
    total_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What is usual: half of the values, and 95 of 100, do not exceed these."""

    p50_ms: float
    p95_ms: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What a package's analyses usually take here."""

    analyses: int
    hops: Mapping[Hop, Spread]
    total: Spread | None


class Timings:
    """Safe to use from any thread."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db
        #: By package: when it was found, on the monotonic clock, and what.
        self._known: dict[str, tuple[float, Usual]] = {}

    def of_study(self, study_id: int) -> dict[int, AnalysisTiming]:
        """The ended live analyses of a study, by id."""
        rows = self._db.all(f"{_SELECT} WHERE a.study_id = ? AND a.role = 'live' AND a.state = 'done'", (study_id,))
        return {row["id"]: _timing(row) for row in rows}

    def usual(self, package: str) -> Usual:
        """Over the last 30 days, of at most the newest 2,000 analyses; what ended late is left out."""
        now = self._db.clock.monotonic()
        at, known = self._known.get(package, (0.0, None))
        if known is None or now - at > _HOLDS_S:
            known = self._usual(package)
            self._known[package] = (now, known)
        return known

    def _usual(self, package: str) -> Usual:
        since = iso(self._db.clock.now() - LOOK_BACK)
        rows = self._db.all(
            f"{_SELECT} WHERE a.id IN (SELECT id FROM analysis WHERE package = ? AND role = 'live' AND done_at >= ?"  # noqa: S608
            " AND late = 0 AND outcome IN ('FINDING', 'NOTHING_FLAGGED') ORDER BY done_at DESC LIMIT ?)",
            (package, since, LOOKED_AT),
        )
        timings = [_timing(row) for row in rows]
        values: dict[Hop, list[float]] = defaultdict(list)
        for timing in timings:
            for hop, ms in timing.hops_ms.items():
                values[hop].append(ms)
        return Usual(
            analyses=len(timings),
            hops={hop: _spread(values[hop]) for hop in Hop if values[hop]},
            total=_spread(totals) if (totals := [t.total_ms for t in timings if t.total_ms is not None]) else None,
        )


#: Of several inputs the one that was whole last; of its images the one that was recorded last.
_SELECT = """
SELECT a.id, a.package, a.ready_at, a.started_at, a.done_at, json_extract(a.result, '$.hops_ms') AS hops_ms,
 r.ready_mono - nullif(r.last_image_mono, 0) AS completeness_s, v.received_at, c.closed_at,
 (SELECT sum(json_extract(j.body, '$.ms')) FROM journal j WHERE j.study_id = a.study_id
   AND j.kind = 'delivery_built' AND json_extract(j.body, '$.analysis') = a.id) AS encode_ms,
 (SELECT max(d.sent_at) FROM delivery d WHERE d.analysis_id = a.id AND d.state = 'sent'
   AND d.kind NOT IN ('statement', 'rejection_note')) AS accepted_at,
 l.raised_at, l.presented_at, l.acknowledged_at, l.communicated_at
FROM analysis a
 LEFT JOIN revision r ON r.id = (SELECT max(i.revision_id) FROM analysis_input i WHERE i.analysis_id = a.id)
 LEFT JOIN version v ON v.id = (SELECT max(w.version_id) FROM revision_version w WHERE w.revision_id = r.id)
 LEFT JOIN association c ON c.id = v.association_id
 LEFT JOIN alert l ON l.id = (SELECT max(m.id) FROM alert m WHERE m.study_id = a.study_id AND m.analysis_id = a.id)
"""


def _timing(row: sqlite3.Row) -> AnalysisTiming:
    told: dict[str, float] = json.loads(row["hops_ms"] or "{}")
    return AnalysisTiming(
        analysis_id=row["id"],
        package=row["package"],
        hops_ms={hop: round(max(ms, 0.0), 1) for hop, ms in _hops(row, told)},
        ahead_ms=told.get("ahead"),
        total_ms=told.get("total"),
    )


def _hops(row: sqlite3.Row, told: Mapping[str, float]) -> Iterator[tuple[Hop, float]]:
    if row["completeness_s"] is not None:
        whole = row["completeness_s"] * 1000
        closed = _between(row["received_at"], row["closed_at"])
        # A single image is whole before its association ends: then nothing waited for that.
        if closed is not None and closed <= whole:
            yield Hop.CLOSED, closed
            whole -= max(closed, 0.0)
        yield Hop.DECIDED, whole
    queued = _between(row["ready_at"], row["started_at"])
    if queued is not None:
        yield Hop.QUEUED, queued
    yield from _in_worker(told)
    if row["encode_ms"] is not None:
        yield Hop.ENCODE, row["encode_ms"]
    for hop, start, end in (
        (Hop.ACCEPTED, "done_at", "accepted_at"),
        (Hop.PRESENTED, "raised_at", "presented_at"),
        (Hop.SEEN, "presented_at", "acknowledged_at"),
        (Hop.TOLD, "acknowledged_at", "communicated_at"),
    ):
        ms = _between(row[start], row[end])
        if ms is not None:
            yield hop, ms


def _in_worker(told: Mapping[str, float]) -> Iterator[tuple[Hop, float]]:
    """The worker's own hops (``protocol.Result``); what they leave of its whole time belongs to the end."""
    own = {
        Hop.DECODE: [told[name] for name in ("decode",) if name in told],
        Hop.PREPARE: [told[name] for name in ("prepare", "assemble") if name in told],
        Hop.INFERENCE: [told[name] for name in ("inference",) if name in told],
        Hop.FINISH: [told[name] for name in ("head", "picture") if name in told],
    }
    known = sum(map(sum, own.values()))
    if any(own.values()) and "worker" in told:
        own[Hop.FINISH].append(max(told["worker"] - known, 0.0))
    for hop, parts in own.items():
        if parts:
            yield hop, sum(parts)


def _between(start: str | None, end: str | None) -> float | None:
    return _ms(from_iso(start), from_iso(end)) if start and end else None


def _ms(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() * 1000


def _spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    return Spread(p50_ms=_rank(ordered, 50), p95_ms=_rank(ordered, 95), n=len(ordered))


def _rank(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that so many of a hundred do not exceed."""
    return ordered[-(-len(ordered) * percent // 100) - 1]
