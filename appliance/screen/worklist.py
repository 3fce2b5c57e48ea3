"""The worklist: every study that came, most urgent first; what a filter leaves out is counted on every page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from appliance.records import Outcome, ReviewDecision
from appliance.screen import told as telling
from appliance.screen import words
from appliance.screen.context import Context
from appliance.screen.days import midnight
from appliance.screen.told import Told, told
from appliance.store.worklist import OPEN, WAITS, Wanted, WorklistPage
from appliance.web.access import CLINICAL, Caller, Guarded, caller_of
from appliance.web.i18n import N_, language_of, language_tag

_ROWS = 50
#: Ids that a page asks for at once.
_MOST_IDS = 100
#: One look, however often the list is made anew meanwhile.
_ONE_LOOK_S = 600.0
_LOOKERS = 1000

#: How far back the list goes.
SPANS: dict[str, str] = {
    "24h": N_("Last 24 hours"),
    "today": N_("Today"),
    "7d": N_("Last 7 days"),
    "30d": N_("Last 30 days"),
    "all": N_("All days"),
}
STATES: dict[str, str] = {
    "": N_("All results"),
    Outcome.FINDING: N_("Flagged"),
    Outcome.NOT_ANALYSED: N_("Not analysed"),
    Outcome.NOTHING_FLAGGED: N_("Nothing flagged"),
    Outcome.NOT_APPLICABLE: N_("Not for the AI"),
    OPEN: N_("No result yet"),
}
#: What ``review_states`` says, in words.
REVIEWS: dict[str, str] = {
    ReviewDecision.AGREE: N_("Agreed"),
    ReviewDecision.DISAGREE: N_("Disagreed"),
    ReviewDecision.AMEND: N_("Amended"),
    ReviewDecision.CANNOT_JUDGE: N_("Could not judge"),
    WAITS: N_("Waits for review"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the address of the page asks for."""

    wanted: Wanted
    span: str
    first_day: str
    last_day: str
    after: str
    #: What was given as a day and is none, by the name of its field.
    misread: Mapping[str, str] = field(default_factory=dict)

    def query(self, **changes: str) -> str:
        """The address's query with changes; what is left at its default is left out."""
        values = {
            "q": self.wanted.text,
            "span": "" if self.span == "24h" else self.span,
            "from": self.first_day,
            "to": self.last_day,
            "source": self.wanted.source,
            "state": self.wanted.state,
            "urgent": "1" if self.wanted.urgent else "",
        } | changes
        return urlencode({name: value for name, value in values.items() if value})


def look_of(query: Mapping[str, str], caller: Caller, now: datetime) -> Look:
    """What is asked for; what cannot be understood is left out, for the list must come."""
    first_day, last_day = midnight(query.get("from", "")), midnight(query.get("to", ""))
    span = query.get("span", "24h")
    span = "" if first_day or last_day else span if span in SPANS else "24h"
    today = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    since = {
        "24h": now - timedelta(hours=24),
        "today": today,
        "7d": today - timedelta(days=6),
        "30d": today - timedelta(days=29),
    }.get(span, first_day)
    state = query.get("state", "")
    return Look(
        wanted=Wanted(
            since=since,
            until=last_day + timedelta(days=1) if last_day else None,
            source=query.get("source", "")[:64],
            state=state if state in STATES else "",
            urgent=query.get("urgent") == "1",
            text=query.get("q", "").strip()[:64],
            bound_to=caller.sources,
        ),
        span=span,
        first_day=first_day.strftime("%Y-%m-%d") if first_day else "",
        last_day=last_day.strftime("%Y-%m-%d") if last_day else "",
        after=query.get("after", ""),
        misread={
            name: query[name][:10]
            for name, day in (("from", first_day), ("to", last_day))
            if query.get(name) and day is None
        },
    )


class WorklistPages:
    """The list, and rows of it for a page that is open."""

    def __init__(self, context: Context) -> None:
        """Show ``context.store``."""
        self._context = context
        #: Who has looked when, on the monotonic clock.
        self._looked: dict[str, float] = {}

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/studies", self.page, roles=CLINICAL),
            Guarded("/api/worklist", self.rows, roles=CLINICAL),
        ]

    async def page(self, request: Request) -> Response:
        """The list as it stands."""
        caller = caller_of(request)
        look = look_of(request.query_params, caller, self._context.clock.now())
        values = await self._context.pool.run(self._page, look, caller, self._language(request))
        html = await self._context.pool.run(
            self._context.pages.html,
            request,
            "worklist.html",
            look=look,
            spans=SPANS,
            states=STATES,
            reviews=REVIEWS,
            telling=telling,
            words=words,
            **values,
        )
        tag = language_tag(self._context.locale(request))
        return HTMLResponse(html, headers={"Content-Language": tag})

    async def rows(self, request: Request) -> Response:
        """Rows of the studies ``ids``, each with whether the filter lets it pass."""
        caller = caller_of(request)
        look = look_of(request.query_params, caller, self._context.clock.now())
        asked = request.query_params.get("ids", "").split(",")
        ids = list(dict.fromkeys(int(one) for one in asked if one.isdecimal() and one.isascii() and len(one) < 19))
        values = await self._context.pool.run(self._some, look, caller, ids[:_MOST_IDS], self._language(request))
        html = self._context.templates.render(
            self._context.locale(request),
            "worklist-rows.html",
            reviews=REVIEWS,
            telling=telling,
            words=words,
            site=self._context.config.site,
            **values,
        )
        return HTMLResponse(html)

    def _page(self, look: Look, caller: Caller, language: str) -> dict[str, Any]:
        worklist = self._context.store.worklist
        self._note_look(caller)
        seq = self._context.store.journal.last_seq()  # before the reading: the page may know more, never less
        page = worklist.page(look.wanted, limit=_ROWS, after=look.after)
        return {
            "seq": seq,
            "page": page,
            "rows": self._told(page.study_ids, caller, language),
            "matches": None,
            "sources": self._sources(page, look),
            "last": worklist.last_image(caller.sources) if not page.rows else None,
        }

    def _some(self, look: Look, caller: Caller, ids: list[int], language: str) -> dict[str, Any]:
        self._note_look(caller)
        matches = self._context.store.worklist.matching(look.wanted, ids)
        return {"rows": self._told(tuple(ids), caller, language), "matches": matches}

    def _told(self, ids: tuple[int, ...], caller: Caller, language: str) -> list[Told]:
        rows = self._context.store.worklist.rows(ids, bound_to=caller.sources)
        return [told(row, self._context, caller.role, language) for row in rows]

    def _sources(self, page: WorklistPage, look: Look) -> list[str]:
        known = {*(source.name for source in self._context.config.sources), *page.sources, look.wanted.source} - {""}
        return sorted(known.intersection(look.wanted.bound_to) if look.wanted.bound_to else known)

    def _note_look(self, caller: Caller) -> None:
        """Who sees the list is a fact; one in ten minutes, not one a change."""
        who, now = f"{caller.role} {caller.actor.name}", self._context.clock.monotonic()
        if now - self._looked.get(who, -_ONE_LOOK_S) >= _ONE_LOOK_S:
            if len(self._looked) >= _LOOKERS:
                self._looked.clear()
            self._context.store.audit.accessed("worklist", caller.actor)  # a look that could not be written is none
            self._looked[who] = now

    def _language(self, request: Request) -> str:
        return language_of(self._context.locale(request))
