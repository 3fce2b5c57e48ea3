"""How a version of a package fares while it soaks, and how the package fared before it: counts from this box alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance.store.database import Database, from_iso, iso
from appliance.store.facts import Kind
from appliance.store.health_samples import quantile

_MOST = 20_000
_BASELINE = timedelta(days=14)
#: NOT_ANALYSED for these reasons says that the package failed; for others, that an image was not for it.
_ERRORS = frozenset({"failed", "timed_out", "unreliable_output"})
_SOON = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fared:
    """Analyses that ended in a span of time.

    Attributes:
        n: How many.
        studies: Of how many studies.
        errors: That the package failed.
        missed: NOT_ANALYSED, for whatever reason but withdrawal and an AI that was down.
        p95_ms: Of those that gave a result; None where none did.
        crashes: The most ends of the worker within ten minutes, in this package's hands.
    """

    n: int = 0
    studies: int = 0
    errors: int = 0
    missed: int = 0
    p95_ms: float | None = None
    crashes: int = 0


def fared(db: Database, package: str, version: str, since: datetime, seq: int) -> Fared:
    """How one version fares since a moment, in whatever role. ``seq``: of the journal at that moment."""
    rows = db.all(
        "SELECT study_id, outcome, reason, json_extract(result, '$.hops_ms.worker') AS ms FROM analysis"
        " WHERE files_removed_at IS NULL AND done_at >= ? AND package = ? AND package_version = ? AND state = 'done'"
        " AND coalesce(reason, '') NOT IN ('withdrawn', 'ai_unavailable') ORDER BY done_at DESC LIMIT ?",
        (iso(since), package, version, _MOST),
    )
    ends = db.all(
        "SELECT at FROM journal WHERE seq > ? AND kind = ? AND EXISTS (SELECT 1 FROM analysis a"
        " WHERE a.id = json_extract(body, '$.analysis') AND a.package = ? AND a.package_version = ?) ORDER BY seq",
        (seq, str(Kind.WORKER_ENDED), package, version),
    )
    return _counted(rows, [from_iso(row["at"]) for row in ends])


def baseline(db: Database, package: str, version: str, before: datetime) -> Fared:
    """How other versions of the package fared live in the two weeks before a moment."""
    rows = db.all(
        "SELECT study_id, outcome, reason, json_extract(result, '$.hops_ms.worker') AS ms FROM analysis"
        " WHERE package = ? AND done_at >= ? AND done_at < ? AND role = 'live' AND package_version <> ?"
        " AND state = 'done' AND coalesce(reason, '') NOT IN ('withdrawn', 'ai_unavailable')"
        " ORDER BY done_at DESC LIMIT ?",
        (package, iso(before - _BASELINE), iso(before), version, _MOST),
    )
    return _counted(rows, [])


def _counted(rows: Sequence[sqlite3.Row], ends: Sequence[datetime]) -> Fared:
    spent = sorted(row["ms"] for row in rows if row["ms"] is not None and row["outcome"] != "NOT_ANALYSED")
    return Fared(
        n=len(rows),
        studies=len({row["study_id"] for row in rows}),
        errors=sum(row["reason"] in _ERRORS for row in rows),
        missed=sum(row["outcome"] == "NOT_ANALYSED" for row in rows),
        p95_ms=quantile(spent, 0.95),
        crashes=max((sum(at <= end < at + _SOON for end in ends) for at in ends), default=0),
    )
