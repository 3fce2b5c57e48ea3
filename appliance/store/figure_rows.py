"""Local figures from the rows: what live packages said, what radiologists signed of it, and in which mode the box ran.

Reviews by test accounts are not counted, neither are the box's own test studies, and trial alerts have no study at all.
"""

from __future__ import annotations

import bisect
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from appliance.records import SELF_TEST_SOURCE, Presence
from appliance.store.database import Database, from_iso, iso
from appliance.store.facts import Kind
from appliance.store.figures import Figure, Replayed, Scale, Scored, Setting, figure_of, replayed
from appliance.store.review_rows import IS_LAST
from appliance.store.review_rules import LOOKING
from appliance.store.viewrows import marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All figures of a span: by package and finding, and of each the one in use last first."""

    figures: tuple[Figure, ...]
    scored: Mapping[Scale, Sequence[Scored]] = field(repr=False)

    def replay(self, scale: Scale, points: Mapping[str, float]) -> list[Replayed]:
        """What each operating point (name: threshold) of one version would have flagged in one mode."""
        return [replayed(name, threshold, self.scored.get(scale, ())) for name, threshold in points.items()]


class Modes:
    """In which mode the box ran when. The mode changes with a start only, and every start is a fact."""

    def __init__(self, db: Database, now: str) -> None:
        """Read the starts that the journal still has; ``now`` is the mode of this run."""
        # Through the index of facts that are of no study: those of studies are nearly all.
        starts = db.all(
            "SELECT at, body FROM journal WHERE study_id IS NULL AND kind = ? ORDER BY at", (str(Kind.DAEMON_STARTED),)
        )
        self._at = [row["at"] for row in starts]
        self._modes = [str(json.loads(row["body"])["mode"]) for row in starts]
        #: Before the first start that is known the box ran too, perhaps in the other mode; a journal without any has
        #: been pruned since this very run began.
        self._before = "" if starts else now

    def at(self, at: str) -> str:
        """The mode at a time as rows have it; empty where nobody knows."""
        n = bisect.bisect_right(self._at, at)
        return self._modes[n - 1] if n else self._before


def read_table(db: Database, since: datetime, mode: str) -> Table:
    """Figures of what live packages said since ``since``. Blocks: about 1 s for 12,000 studies.

    Args:
        db: To read.
        since: Analyses that ended from then on.
        mode: In which the box runs now.
    """
    cases = list(_cases(db, since, mode))
    cases.reverse()
    by_setting: dict[Setting, list[Scored]] = defaultdict(list)
    by_scale: dict[Scale, list[Scored]] = defaultdict(list)
    for one in cases:
        by_setting[one.setting].append(one)
        by_scale[one.setting.scale].append(one)
    figures = [figure_of(setting, ones) for setting, ones in by_setting.items()]
    figures.sort(key=lambda one: one.last_at or since, reverse=True)
    figures.sort(key=lambda one: (one.setting.package, one.setting.finding))
    return Table(figures=tuple(figures), scored=by_scale)


def _cases(db: Database, since: datetime, mode: str) -> Iterable[Scored]:
    said, modes, now = _said(db, since), Modes(db, mode), db.clock.now()
    until: dict[tuple[str, str], datetime] = {}
    # From the newest to the oldest: each holds until the one after it.
    for row in reversed(_rows(db, since)):
        finding, at = (row["package"], row["finding"]), from_iso(row["done_at"])
        held = max(until.get(finding, now) - at, timedelta(0)) / timedelta(days=1)
        until[finding] = at
        one = said.get(row["id"], {}).get(row["finding"])
        presence = Presence(one["presence"]) if one is not None else None
        # Of another patient's images nobody can say whether the package was right, though the finding was refused.
        is_right = one["is_right"] if one is not None and presence is not Presence.UNDETERMINED else None
        yield Scored(
            study_id=row["study_id"],
            setting=Setting(
                package=row["package"],
                version=row["package_version"],
                finding=row["finding"],
                mode=modes.at(row["done_at"]),
                point=row["point"],
                threshold=row["threshold"],
            ),
            at=at,
            held_days=held,
            score=row["score"],
            flagged=bool(row["flagged"]),
            reviewed=one is not None,
            presence=presence,
            is_right=None if is_right is None else bool(is_right),
            is_sampled=bool(row["sampled"]),
        )


def _rows(db: Database, since: datetime) -> list[sqlite3.Row]:
    """Findings of live analyses that looked, in the order of time."""
    return db.all(
        "SELECT a.id, a.study_id, a.package, a.package_version, a.done_at, json_extract(f.value, '$.id') AS finding,"  # noqa: S608 - marks only
        " json_extract(f.value, '$.operating_point') AS point, json_extract(f.value, '$.threshold') AS threshold,"
        " json_extract(f.value, '$.score') AS score, json_extract(f.value, '$.flagged') AS flagged,"
        " s.outcome = 'NOTHING_FLAGGED' AND p.study_id IS NOT NULL AS sampled"
        " FROM analysis a JOIN study s ON s.id = a.study_id LEFT JOIN review_sample p ON p.study_id = a.study_id,"
        " json_each(a.result, '$.findings') f"
        " WHERE a.role = 'live' AND a.superseded_by IS NULL AND a.outcome IN ('FINDING', 'NOTHING_FLAGGED')"
        f" AND a.done_at >= ? AND s.source <> ? AND a.intended_use IN ({marks(LOOKING)}) ORDER BY a.done_at, a.id",
        (iso(since), SELF_TEST_SOURCE, *LOOKING),
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
