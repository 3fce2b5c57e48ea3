"""What the worklist asks of the store: which studies, in which order, a page at a time. Nothing here writes.

First the studies whose alert nobody has acknowledged, category 1 before category 2; then all others by the time of
their last image, newest first. How many a filter leaves out is counted with every page.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from appliance.records import Outcome
from appliance.store.database import Database, from_iso, iso
from appliance.store.readmodels import StudyView
from appliance.store.viewrows import marks
from appliance.store.views import Views

#: Studies that one question looks at, newest first: what keeps a page quick on a box of many years.
LOOKED_AT = 20_000
#: ``state`` of studies that have not ended.
OPEN = "open"
#: A radiologist's word is wanted on the study.
WAITS = "waits"
_WORDS = 5
_CURSOR = re.compile(r"([129])\.(\d{4}-[0-9T:.+Z-]{10,40})\.(\d{1,18})", re.ASCII)
_OPEN_ALERT = "state IN ('raised', 'presented') AND active = 1 AND category <= 2"
#: Name as it is written and without its carets (so that 王晓明 is found), ids and numbers.
_HAYSTACK = (
    "replace(replace(json_extract(s.identity, '$.patient_name'), '^', ' '), '=', ' ')"
    " || ' ' || replace(json_extract(s.identity, '$.patient_name'), '^', '')"
    " || ' ' || json_extract(s.identity, '$.patient_id') || ' ' || json_extract(s.identity, '$.accession_number')"
    " || ' ' || coalesce((SELECT o.accession_number FROM study_order o WHERE o.study_id = s.id), '')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reader wants to see.

    Attributes:
        since: Only studies whose last image came then or later.
        until: Only those whose last image came before.
        source: Only of this one.
        state: An ``Outcome``, or ``OPEN``; empty for all.
        urgent: Only those that an alert of category 1 or 2 was raised for and not taken back.
        text: Words that all stand in name, id or accession number.
        bound_to: The only sources that the reader may see; empty: all. What lies outside is not counted either.
    """

    since: datetime | None = None
    until: datetime | None = None
    source: str = ""
    state: str = ""
    urgent: bool = False
    text: str = ""
    bound_to: tuple[str, ...] = ()

    @property
    def filters(self) -> bool:
        """Whether studies of the time that is looked at may be left out."""
        return bool(self.source or self.state or self.urgent or self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistPage:
    """Some rows of the list, and what is not among them."""

    study_ids: tuple[int, ...]
    #: Studies of the time looked at; of those, the ones that the filter lets pass.
    rows: int
    matching: int
    #: Studies with an unacknowledged alert of category 1 or 2 that time or filter leave out.
    urgent_elsewhere: int
    #: Of the time looked at.
    sources: tuple[str, ...]
    #: Goes on after the last row; empty at the end.
    after: str
    #: Whether older studies of the time were not looked at.
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistRow:
    """One study, with what only the list shows."""

    study: StudyView
    #: As the headers say it; without those of series that were left out, where others are there.
    body_parts: tuple[str, ...]
    view_positions: tuple[str, ...]
    #: Whether images arrived that are not part of a whole series yet.
    is_receiving: bool
    #: As ``review_states`` says; empty where nobody reviewed it and nobody is asked to.
    review: str


class Worklist:
    """Safe to use from any thread."""

    def __init__(self, db: Database) -> None:
        """Read from ``db``."""
        self._db = db
        self._views = Views(db)

    def page(self, wanted: Wanted, *, limit: int = 50, after: str = "") -> WorklistPage:
        """Ids of one page, and the counts.

        Args:
            wanted: Time and filter.
            limit: Rows at most.
            after: ``after`` of the page before; anything else begins at the top.
        """
        oldest, is_cut = self._oldest(wanted)
        time, time_values = _time(wanted, oldest)
        filters, filter_values = _filters(wanted)
        where, values = f"{time} AND {filters}", (*time_values, *filter_values)
        by_source = self._db.all(
            f"SELECT s.source, count(*) AS n FROM study s WHERE {time} GROUP BY 1 ORDER BY 1",  # noqa: S608 - our own text
            time_values,
        )
        rows = sum(row["n"] for row in by_source)
        matching = rows
        if wanted.filters:
            matching = self._count(f"SELECT count(*) AS n FROM study s WHERE {where}", values)  # noqa: S608
        found = self._ids(where, values, limit + 1, _CURSOR.fullmatch(after))
        more = len(found) > limit
        return WorklistPage(
            study_ids=tuple(study_id for _, _, study_id in found[:limit]),
            rows=rows,
            matching=matching,
            urgent_elsewhere=self._urgent_elsewhere(wanted, where, values),
            sources=tuple(row["source"] for row in by_source),
            after="{}.{}.{}".format(*found[limit - 1]) if more else "",
            is_cut=is_cut,
        )

    def matching(self, wanted: Wanted, study_ids: Collection[int]) -> set[int]:
        """Which of some studies the list would show."""
        oldest, _ = self._oldest(wanted)
        time, time_values = _time(wanted, oldest)
        filters, filter_values = _filters(wanted)
        sql = f"SELECT s.id FROM study s WHERE s.id IN ({marks(study_ids)}) AND {time} AND {filters}"  # noqa: S608
        return {row["id"] for row in self._db.all(sql, (*study_ids, *time_values, *filter_values))}

    def rows(self, study_ids: Collection[int], *, bound_to: Collection[str] = ()) -> list[WorklistRow]:
        """Studies in the order given; unknown ones, and those of other sources than ``bound_to``, are left out."""
        studies = self._views.some(study_ids, deliveries=True)
        series = self._series(tuple(studies))
        reviews = review_states(self._db, tuple(studies))
        return [
            _row(studies[study_id], series[study_id], reviews.get(study_id, ""))
            for study_id in study_ids
            if study_id in studies and (not bound_to or studies[study_id].source in bound_to)
        ]

    def last_image(self, bound_to: Collection[str] = ()) -> tuple[datetime, str] | None:
        """When the newest image of all came, and from which source."""
        where = f"WHERE source IN ({marks(bound_to)})" if bound_to else ""
        sql = f"SELECT last_at, source FROM study {where} ORDER BY last_at DESC LIMIT 1"  # noqa: S608 - marks only
        row = self._db.one(sql, tuple(bound_to))
        return (from_iso(row["last_at"]), row["source"]) if row else None

    def _oldest(self, wanted: Wanted) -> tuple[str, bool]:
        """From which last image on studies are looked at, and whether ``LOOKED_AT`` decided that."""
        time, values = _time(wanted, iso(wanted.since) if wanted.since else "")
        row = self._db.one(
            f"SELECT s.last_at FROM study s WHERE {time} ORDER BY s.last_at DESC LIMIT 1 OFFSET ?",  # noqa: S608
            (*values, LOOKED_AT),
        )
        return (row["last_at"], True) if row else (iso(wanted.since) if wanted.since else "", False)

    def _ids(
        self, where: str, values: tuple[Any, ...], limit: int, cursor: re.Match[str] | None
    ) -> list[tuple[int, str, int]]:
        """(rank, time of the last image, id): rank 1 and 2 are the categories of unacknowledged alerts, 9 the rest."""
        rank, at, study_id = (int(cursor[1]), cursor[2], int(cursor[3])) if cursor else (0, "", 0)
        found: list[tuple[int, str, int]] = []
        beyond: str = ""
        place: tuple[Any, ...] = ()
        if rank < 9:
            if cursor:
                beyond = " HAVING category > ? OR (category = ? AND (s.last_at, s.id) < (?, ?))"
                place = (rank, rank, at, study_id)
            sql = (
                "SELECT s.id, s.last_at, min(a.category) AS category FROM alert a JOIN study s ON s.id = a.study_id"  # noqa: S608
                f" WHERE a.id IN (SELECT id FROM alert WHERE {_OPEN_ALERT}) AND {where} GROUP BY s.id{beyond}"
                " ORDER BY category, s.last_at DESC, s.id DESC LIMIT ?"
            )
            rows = self._db.all(sql, (*values, *place, limit))
            found = [(row["category"], row["last_at"], row["id"]) for row in rows]
        beyond, place = (" AND (s.last_at, s.id) < (?, ?)", (at, study_id)) if rank == 9 else ("", ())
        sql = (
            f"SELECT s.id, s.last_at FROM study s WHERE {where}{beyond} AND s.id NOT IN"  # noqa: S608 - our own text
            f" (SELECT study_id FROM alert WHERE {_OPEN_ALERT}) ORDER BY s.last_at DESC, s.id DESC LIMIT ?"
        )
        rows = self._db.all(sql, (*values, *place, limit - len(found)))
        return found + [(9, row["last_at"], row["id"]) for row in rows]

    def _urgent_elsewhere(self, wanted: Wanted, where: str, values: tuple[Any, ...]) -> int:
        bound, names = _bound(wanted)
        joined = (
            "SELECT count(DISTINCT s.id) AS n FROM alert a JOIN study s ON s.id = a.study_id"  # noqa: S608 - our own text
            f" WHERE a.id IN (SELECT id FROM alert WHERE {_OPEN_ALERT})"
        )
        return self._count(f"{joined} AND {bound}", names) - self._count(f"{joined} AND {where}", values)

    def _count(self, sql: str, values: tuple[Any, ...]) -> int:
        row = self._db.one(sql, values)
        return int(row["n"]) if row else 0

    def _series(self, study_ids: tuple[int, ...]) -> Mapping[int, list[sqlite3.Row]]:
        series: dict[int, list[sqlite3.Row]] = defaultdict(list)
        for row in self._db.all(
            "SELECT study_id, body_part, json_extract(header, '$.view_position') AS view_position, open, left_out"  # noqa: S608
            f" FROM series WHERE study_id IN ({marks(study_ids)}) ORDER BY id",
            study_ids,
        ):
            series[row["study_id"]].append(row)
        return series


def review_states(db: Database, study_ids: tuple[int, ...]) -> Mapping[int, str]:
    """Where the review of studies stands: the decision signed last, else ``WAITS``; else it is absent."""
    found = marks(study_ids)
    waiting = (
        f"SELECT study_id FROM review_request WHERE done_at IS NULL AND study_id IN ({found})"  # noqa: S608 - marks only
        f" UNION SELECT study_id FROM review_sample WHERE done_at IS NULL AND study_id IN ({found})"
    )
    states = {row["study_id"]: WAITS for row in db.all(waiting, study_ids * 2)}
    signed = f"SELECT study_id, decision FROM review WHERE counts = 1 AND study_id IN ({found}) ORDER BY version"  # noqa: S608
    for row in db.all(signed, study_ids):
        states[row["study_id"]] = row["decision"]
    return states


def _row(study: StudyView, series: list[sqlite3.Row], review: str) -> WorklistRow:
    told = [one for one in series if not one["left_out"]] or series
    return WorklistRow(
        study=study,
        body_parts=tuple(dict.fromkeys(one["body_part"] for one in told if one["body_part"])),
        view_positions=tuple(dict.fromkeys(one["view_position"] for one in told if one["view_position"])),
        is_receiving=any(one["open"] for one in series),
        review=review,
    )


def _bound(wanted: Wanted) -> tuple[str, tuple[Any, ...]]:
    return (f"s.source IN ({marks(wanted.bound_to)})", wanted.bound_to) if wanted.bound_to else ("1", ())


def _time(wanted: Wanted, oldest: str) -> tuple[str, tuple[Any, ...]]:
    bound, names = _bound(wanted)
    until = iso(wanted.until) if wanted.until else "9999"
    return f"s.last_at >= ? AND s.last_at < ? AND {bound}", (oldest, until, *names)


def _filters(wanted: Wanted) -> tuple[str, tuple[Any, ...]]:
    parts: list[str] = ["1"]
    values: list[Any] = []
    if wanted.source:
        parts.append("s.source = ?")
        values.append(wanted.source)
    if wanted.state == OPEN:
        parts.append("s.outcome IS NULL")
    elif wanted.state in map(str, Outcome):
        parts.append("s.outcome = ?")
        values.append(str(wanted.state))
    if wanted.urgent:
        parts.append(
            "EXISTS (SELECT 1 FROM alert u WHERE u.study_id = s.id AND u.state <> 'withdrawn' AND u.active = 1"
            " AND u.category <= 2)"
        )
    for word in re.split(r"[\s,^=]+", wanted.text.strip(), maxsplit=_WORDS)[:_WORDS]:
        if word:
            parts.append(f"({_HAYSTACK}) LIKE ? ESCAPE '!'")
            values.append("%" + re.sub("([%_!])", r"!\1", word) + "%")
    return " AND ".join(parts), tuple(values)
