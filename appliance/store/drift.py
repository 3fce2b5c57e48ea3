"""Whether scores, and what else was measured of images, are spread as they were when a version was taken into use here.

The measure is the population stability index: sum over bins of (now - then) x ln(now / then). Below 0.1 nothing has
moved, above 0.25 somebody should look. The baseline is the first results of a version on this very box, which its
silent time and the site's acceptance rest on; no shipped figure knows the scanners of a site.
"""

from __future__ import annotations

import bisect
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from appliance.records import SELF_TEST_SOURCE, Severity
from appliance.store.database import Database
from appliance.store.issues import Issues

BINS = 10
#: Results of a version that its baseline is made of, and those that are held against it: the newest ones.
BASELINE, WINDOW = 500, 500
#: With fewer, the index says more about chance than about drift: under no drift at all it is about 9/n + 9/500.
FEWEST, FEWEST_FOR_ISSUE = 100, 200
LIMIT = 0.25
SCORE_DRIFT = "SCORE_DRIFT"
#: Of what was measured of the images and is no finding.
IMAGE = "image-"
#: Shares are never none: an empty bin would make the index infinite.
_LEAST_SHARE = 1e-4
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
#: A head that measures a hundred numbers does not make a hundred plots.
_MOST_NAMES = 16


@dataclass(frozen=True, slots=True)
class Baseline:
    """How values were spread: ``edges`` between the bins, ascending, and how many lay in each.

    A value that equals an edge lies below it.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def baseline_of(values: Sequence[float]) -> Baseline:
    """Bins of equally many values, fixed from then on; fewer than ten where many values are equal.

    Args:
        values: At least one, finite.
    """
    ordered = sorted(values)
    edges = sorted({ordered[min(len(ordered) * n // BINS, len(ordered) - 1)] for n in range(1, BINS)})
    return Baseline(tuple(edges), counts_of(edges, values))


def counts_of(edges: Sequence[float], values: Sequence[float]) -> tuple[int, ...]:
    """How many values lie in each bin."""
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect.bisect_left(edges, value)] += 1
    return tuple(counts)


def psi(then: Sequence[int], now: Sequence[int]) -> float | None:
    """The population stability index of two histograms with the same bins; None below ``FEWEST`` values in either."""
    before, after = sum(then), sum(now)
    if min(before, after) < FEWEST:
        return None
    shares = [(max(a / before, _LEAST_SHARE), max(b / after, _LEAST_SHARE)) for a, b in zip(then, now, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in shares)


@dataclass(frozen=True, slots=True)
class Drifted:
    """One measure of one version: its index over so many newest results."""

    psi: float
    n: int


class Drift:
    """Holds the newest results of versions against their first ones."""

    def __init__(self, db: Database) -> None:
        """Read and write ``db``."""
        self._db = db
        self._issues = Issues(db)

    def of(self, package: str, version: str) -> dict[str, Drifted]:
        """What has moved, by finding and, as ``image-...``, by number of the head. Makes the baseline once it can."""
        known = self._baseline(package, version)
        if known is None:
            return {}
        last, baselines = known
        # What was made since, the newest first; the baseline is never held against itself.
        values = _columns(self._results(package, version, after=last, newest=True, limit=WINDOW))
        found = {}
        for name, baseline in baselines.items():
            index = psi(baseline.counts, counts_of(baseline.edges, values.get(name, ())))
            if index is not None:
                found[name] = Drifted(round(index, 4), len(values[name]))
        return found

    def look(self, versions: Sequence[tuple[str, str]]) -> None:
        """Raise and clear SCORE_DRIFT of the versions that run; of others it is over."""
        standing = {}
        for package, version in versions:
            moved = {
                name: one.psi
                for name, one in self.of(package, version).items()
                if one.n >= FEWEST_FOR_ISSUE and one.psi > LIMIT
            }
            if moved:
                standing[f"{package} {version}"] = moved
        for issue in self._issues.open():
            if issue.code == SCORE_DRIFT and issue.subject not in standing:
                self._issues.clear(SCORE_DRIFT, issue.subject)
        for subject, moved in standing.items():
            why = ", ".join(f"{name} {index:.2f}" for name, index in moved.items())
            self._issues.raise_(SCORE_DRIFT, subject, Severity.WARNING, {"why": why, "psi": moved})

    def _baseline(self, package: str, version: str) -> tuple[int, dict[str, Baseline]] | None:
        name = f"drift:{package}@{version}"
        row = self._db.one("SELECT value FROM fleet_state WHERE name = ?", (name,))
        if row is not None:
            kept = json.loads(row["value"])
            return kept["last"], {key: Baseline(tuple(e), tuple(c)) for key, (e, c) in kept["bins"].items()}
        results = self._results(package, version, after=0, newest=False, limit=BASELINE)
        if len(results) < BASELINE:
            return None
        made = {key: baseline_of(column) for key, column in _columns(results).items() if len(column) >= FEWEST}
        last = max(row_id for row_id, _ in results)
        value = {"last": last, "bins": {key: (one.edges, one.counts) for key, one in made.items()}}
        with self._db.write() as tx:
            tx.execute("INSERT INTO fleet_state VALUES (?, ?) ON CONFLICT DO NOTHING", (name, json.dumps(value)))
        return last, made

    def _results(
        self, package: str, version: str, *, after: int, newest: bool, limit: int
    ) -> list[tuple[int, Mapping[str, float]]]:
        rows = self._db.all(
            "SELECT a.id, json_extract(a.result, '$.findings') AS findings,"  # noqa: S608 - our own text
            " json_extract(a.result, '$.numbers') AS numbers FROM analysis a"
            " WHERE a.package = ? AND a.package_version = ? AND a.id > ? AND a.state = 'done'"
            " AND a.role <> 'shadow' AND a.superseded_by IS NULL AND a.outcome IN ('FINDING', 'NOTHING_FLAGGED')"
            f" AND (SELECT s.source FROM study s WHERE s.id = a.study_id) <> ? ORDER BY a.id {'DESC' if newest else ''}"
            " LIMIT ?",
            (package, version, after, SELF_TEST_SOURCE, limit),
        )
        return [(row["id"], _values(row["findings"], row["numbers"])) for row in rows]


def _values(findings: str | None, numbers: str | None) -> dict[str, float]:
    found = {one["id"]: one["score"] for one in json.loads(findings or "[]")}
    for name, value in sorted(json.loads(numbers or "{}").items())[:_MOST_NAMES]:
        found[f"{IMAGE}{re.sub(r'[^a-z0-9_-]', '-', name.lower())}"] = value
    return {name: value for name, value in found.items() if _NAME.fullmatch(name) and math.isfinite(value)}


def _columns(results: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = defaultdict(list)
    for _, values in results:
        for name, value in values.items():
            columns[name].append(value)
    return columns
