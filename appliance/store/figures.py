"""How the packages do at this site, from what radiologists signed: counts first, and never a figure without its counts.

Nothing here names a reader. Reviews by test accounts are not counted, neither are the box's own test
studies, and trial alerts have no study at all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from appliance.records import SELF_TEST_SOURCE, Presence
from appliance.store.database import Database, iso
from appliance.store.review_rows import IS_LAST
from appliance.store.review_rules import LOOKING
from appliance.store.viewrows import marks

#: With fewer reviewed cases a share says nothing, and none is given.
FEWEST = 20
#: Standard normal quantiles: 95 % two-sided; and 97.5 %, so that two intervals together hold with 95 %.
_Z95, _Z975 = 1.959963984540054, 2.241402727604945


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share with what it rests on; ``low`` and ``high``: its 95 % interval."""

    numerator: int
    denominator: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure that is reckoned from shares, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(slots=True, kw_only=True)
class Figure:
    """One finding of one package over a span of days."""

    package: str
    finding: str
    #: Studies that it was looked for in.
    looked: int = 0
    flagged: int = 0
    #: Flagged studies of which a radiologist signed something about this finding.
    reviewed: int = 0
    right: int = 0
    wrong: int = 0
    #: Studies of which nothing was flagged that chance chose; and those that were reviewed.
    sampled: int = 0
    sample_reviewed: int = 0
    sample_missed: int = 0
    #: Missed findings that were added outside the sample: no share of anything.
    missed_elsewhere: int = 0

    @property
    def undetermined(self) -> int:
        """Reviewed, and the images did not allow to say."""
        return self.reviewed - self.right - self.wrong

    @property
    def unflagged(self) -> int:
        """Studies in which it was looked for and not flagged."""
        return self.looked - self.flagged

    @property
    def ppv(self) -> Share | None:
        """Of what was flagged and judged: how much was right. None under ``FEWEST``."""
        return share(self.right, self.right + self.wrong)

    @property
    def sensitivity(self) -> Estimate | None:
        """Flagged and there over all that is there, with the misses estimated from the sample. None under ``FEWEST``.

        The interval joins the ends of two intervals of 97.5 % each, so it is rather too wide than too narrow.
        """
        judged = self.right + self.wrong
        if judged < FEWEST or self.sample_reviewed < FEWEST or not self.flagged:
            return None
        found, found_low, found_high = _scaled(self.right, judged, self.flagged)
        missed, missed_low, missed_high = _scaled(self.sample_missed, self.sample_reviewed, self.unflagged)
        if found + missed == 0:
            return None
        return Estimate(
            value=found / (found + missed),
            low=found_low / (found_low + missed_high) if found_low + missed_high else 0.0,
            high=found_high / (found_high + missed_low),
        )


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What another threshold would have flagged of the stored scores; who was never looked at stays unknown."""

    name: str
    threshold: float
    flagged: int = 0
    there: int = 0
    not_there: int = 0

    @property
    def unknown(self) -> int:
        """Nobody looked, or could not say."""
        return self.flagged - self.there - self.not_there

    @property
    def ppv(self) -> Share | None:
        """Of the judged ones; None under ``FEWEST``."""
        return share(self.there, self.there + self.not_there)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One finding of one analysis, with what a person said of it."""

    study_id: int
    package: str
    finding: str
    score: float
    flagged: bool
    reviewed: bool
    presence: Presence | None
    is_right: bool | None
    is_sampled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All figures of a span."""

    figures: tuple[Figure, ...]
    scored: Mapping[tuple[str, str], Sequence[Scored]] = field(repr=False)

    def replay(self, package: str, finding: str, points: Mapping[str, float]) -> list[Replayed]:
        """What each operating point (name: threshold) would have flagged."""
        return [
            _replayed(name, threshold, self.scored.get((package, finding), ())) for name, threshold in points.items()
        ]


def wilson(successes: int, n: int, z: float = _Z95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927; Newcombe 1998, method 3).

    Args:
        successes: 0 to n.
        n: At least 1.
        z: Standard normal quantile; 95 % two-sided by default.
    """
    p, zz = successes / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    # At the ends the interval ends there: floating point must not say a hair less.
    return (0.0 if successes == 0 else max(0.0, centre - half)), (1.0 if successes == n else min(1.0, centre + half))


def share(numerator: int, denominator: int) -> Share | None:
    """A share with its interval; None where it rests on fewer than ``FEWEST``."""
    if denominator < FEWEST:
        return None
    low, high = wilson(numerator, denominator)
    return Share(numerator=numerator, denominator=denominator, value=numerator / denominator, low=low, high=high)


def read_table(db: Database, since: datetime) -> Table:
    """Figures of what live packages said since ``since``. Blocks: about 1 s for 12,000 studies."""
    scored: dict[tuple[str, str], list[Scored]] = defaultdict(list)
    for one in _scored(db, since):
        scored[one.package, one.finding].append(one)
    figures = [_figure(package, finding, ones) for (package, finding), ones in sorted(scored.items())]
    return Table(figures=tuple(figures), scored=scored)


def _scaled(successes: int, n: int, total: int) -> tuple[float, float, float]:
    low, high = wilson(successes, n, _Z975)
    return total * successes / n, total * low, total * high


def _figure(package: str, finding: str, ones: Iterable[Scored]) -> Figure:
    figure = Figure(package=package, finding=finding)
    for one in ones:
        figure.looked += 1
        if one.flagged:
            figure.flagged += 1
            figure.reviewed += one.reviewed
            figure.right += one.is_right is True
            figure.wrong += one.is_right is False
        elif one.is_sampled:
            figure.sampled += 1
            # Who could not judge says nothing of misses.
            figure.sample_reviewed += one.is_right is not None
            figure.sample_missed += one.is_right is False
        else:
            figure.missed_elsewhere += one.is_right is False
    return figure


def _replayed(name: str, threshold: float, ones: Iterable[Scored]) -> Replayed:
    found = Replayed(name=name, threshold=threshold)
    for one in ones:
        if one.score >= threshold:
            found.flagged += 1
            # Of a case that was flagged, a person said whether that was right; of another, whether it is there.
            is_there = one.is_right if one.flagged else (None if one.is_right is None else not one.is_right)
            found.there += is_there is True
            found.not_there += is_there is False
    return found


def _scored(db: Database, since: datetime) -> Iterable[Scored]:
    said = _said(db, since)
    rows = db.all(
        "SELECT a.id, a.study_id, a.package, json_extract(f.value, '$.id') AS finding,"  # noqa: S608 - marks only
        " json_extract(f.value, '$.score') AS score, json_extract(f.value, '$.flagged') AS flagged,"
        " s.outcome = 'NOTHING_FLAGGED' AND p.study_id IS NOT NULL AS sampled"
        " FROM analysis a JOIN study s ON s.id = a.study_id LEFT JOIN review_sample p ON p.study_id = a.study_id,"
        " json_each(a.result, '$.findings') f"
        " WHERE a.role = 'live' AND a.superseded_by IS NULL AND a.outcome IN ('FINDING', 'NOTHING_FLAGGED')"
        f" AND a.done_at >= ? AND s.source <> ? AND a.intended_use IN ({marks(LOOKING)}) ORDER BY a.id",
        (iso(since), SELF_TEST_SOURCE, *LOOKING),
    )
    for row in rows:
        # Another version of the package may have other findings: each stands for itself.
        of_analysis = said.get(row["id"])
        one = of_analysis.get(row["finding"]) if of_analysis is not None else None
        presence = Presence(one["presence"]) if one is not None else None
        # Of another patient's images nobody can say whether the package was right, though the finding was refused.
        is_right = one["is_right"] if one is not None and presence is not Presence.UNDETERMINED else None
        yield Scored(
            study_id=row["study_id"],
            package=row["package"],
            finding=row["finding"],
            score=row["score"],
            flagged=bool(row["flagged"]),
            reviewed=one is not None,
            presence=presence,
            is_right=None if is_right is None else bool(is_right),
            is_sampled=bool(row["sampled"]),
        )


def _said(db: Database, since: datetime) -> dict[int, dict[str, Any]]:
    """Analysis: finding: what the last review that counts says. A review is newer than what it judges."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for row in db.all(
        "SELECT f.* FROM review r JOIN review_finding f ON f.review_id = r.id"  # noqa: S608 - our own text
        f" WHERE r.signed_at >= ? AND r.counts = 1 AND f.finding <> '' AND {IS_LAST}",
        (iso(since),),
    ):
        found[row["analysis_id"]][row["finding"]] = row
    return found
