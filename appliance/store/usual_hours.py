"""When studies usually come from a source, learned by the hour of the week, and whether it has been silent too long.

"The scanner sends and no result comes" is seen by other means; this is the scanner that does not send. Hours in which
nothing ever came (nights, weekends, a closed site) add nothing to what is expected, so they never make an issue.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from appliance.records import SELF_TEST_SOURCE
from appliance.store.database import Database, from_iso, iso

LEARNED = timedelta(weeks=4)
#: A source that has been silent for longer is no longer missed.
_READ = 2 * LEARNED
#: With less than this there is no "usual".
_FEWEST_STUDIES, _FEWEST_WEEKS = 20, 3
#: So many studies would have come since the last image, were all as usual. By chance alone one gap in 3,000 is as long.
_MISSED = 8.0
_HOUR = timedelta(hours=1)
_WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Usual:
    """What a source usually sends.

    Attributes:
        a_week: Studies a week, by the hour of the week (0 = Monday 0:00 UTC).
        studies: From which it was learned.
        weeks: In so many of them, the last one begun.
    """

    a_week: Mapping[int, float] = field(default_factory=dict)
    studies: int = 0
    weeks: int = 0

    @property
    def is_known(self) -> bool:
        """Whether there is enough to call anything usual."""
        return self.studies >= _FEWEST_STUDIES and self.weeks >= _FEWEST_WEEKS

    def expected(self, since: datetime, until: datetime) -> float:
        """How many studies come between two moments, were all as usual."""
        if until - since > LEARNED:
            since = until - LEARNED
        total, at = 0.0, since
        while at < until:
            end = min(_whole_hour(at) + _HOUR, until)
            total += self.a_week.get(_hour_of_week(at), 0.0) * ((end - at) / _HOUR)
            at = end
        return total

    def is_silent(self, last_at: datetime, now: datetime) -> bool:
        """Whether the last image is so long ago that somebody should look."""
        return self.is_known and self.expected(last_at, now) >= _MISSED


def usual_of(first_images: Iterable[datetime], now: datetime) -> Usual:
    """Learn from when studies began to arrive.

    Args:
        first_images: Of each study of one source.
        now: The present; what is later is of a clock that was wrong.
    """
    past = [at for at in first_images if at <= now]
    if not past:
        return Usual()
    # The four weeks before the last of them, not before now: silence must not teach that silence is usual.
    begin = max(past) - LEARNED
    times = [at for at in past if at > begin]
    weeks = max(math.ceil((max(times) - min(times)).total_seconds() / _WEEK_S), 1)
    counted = Counter(map(_hour_of_week, times))
    return Usual({hour: n / weeks for hour, n in counted.items()}, len(times), weeks)


class UsualHours:
    """Reads studies by source."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db

    def learn(self, now: datetime) -> dict[str, Usual]:
        """What each source usually sends, by its name."""
        rows = self._db.all(
            "SELECT source, first_at FROM study WHERE last_at >= ? AND source <> ?",
            (iso(now - _READ), SELF_TEST_SOURCE),
        )
        times: dict[str, list[datetime]] = defaultdict(list)
        for row in rows:
            times[row["source"]].append(from_iso(row["first_at"]))
        return {source: usual_of(found, now) for source, found in times.items()}

    def last_images(self, now: datetime) -> dict[str, datetime]:
        """When the newest image of each source came, of those that sent any in eight weeks."""
        rows = self._db.all(
            "SELECT source, max(last_at) AS at FROM study WHERE last_at >= ? AND source <> ? GROUP BY source",
            (iso(now - _READ), SELF_TEST_SOURCE),
        )
        return {row["source"]: from_iso(row["at"]) for row in rows}


def _whole_hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _hour_of_week(at: datetime) -> int:
    return at.weekday() * 24 + at.hour
