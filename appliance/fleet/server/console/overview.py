"""The overview: how many boxes are what, and the list of them; and the issues of all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from appliance.fleet.server import query
from appliance.fleet.server.console import lists, words
from appliance.fleet.server.console.callers import caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.freezes import held_of
from appliance.fleet.server.console.keeping import kept
from appliance.fleet.server.console.lists import Asked, Order, State
from appliance.fleet.server.console.people import names_of
from appliance.fleet.server.console.roles import EVERYBODY
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.repository import TUF, Repository
from appliance.web.access import Guarded
from appliance.web.issue_words import ISSUES

_TEXTS = ("text", "tenant", "site", "version", "make", "package", "code")
_LONGEST = 80


class OverviewPages:
    """What is going on, over all boxes that somebody may see."""

    def __init__(self, context: Context) -> None:
        """Ask ``context``."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/", self.page, roles=EVERYBODY),
            Guarded("/counts", self.counts, roles=EVERYBODY),
            Guarded("/issues", self.issues, roles=EVERYBODY),
        ]

    async def page(self, request: Request) -> Response:
        """The page; to htmx its list alone."""
        scope, now = caller_of(request).scope, self._context.clock.now()
        asked, order = _asked(request), _order(request)
        after = request.query_params.get("after", "")
        shown = await self._context.read(lists.page_of_boxes, scope, asked, order, now=now, after=after)
        held = await self._context.read(held_of, [line.row.id for line in shown.lines], now=now)
        given = _shown(asked, order, shown, after) | {"now": now, "after": after, "held": held}
        if "hx-request" in request.headers:
            return self._context.pages.page(request, "boxes.html", **given)
        counts = await self._context.read(lists.counts, scope, now=now)
        choices = await self._context.read(lists.choices, scope)
        repository = Repository(self._context.folder / TUF)
        keeping = await self._context.read(kept, repository, scope, now=now)
        more: dict[str, Any] = {"kept": keeping, "counts": counts, "noted": _noted(counts), "choices": choices}
        return self._context.pages.page(request, "overview.html", **more, **given)

    async def counts(self, request: Request) -> Response:
        """How many boxes are what; the page asks again and again."""
        counts = await self._context.read(lists.counts, caller_of(request).scope, now=self._context.clock.now())
        return self._context.pages.page(
            request, "counts.html", counts=counts, counted=words.COUNTED, noted=_noted(counts), states=words.STATES
        )

    async def issues(self, request: Request) -> Response:
        """Issues that stand, of all boxes, and how many of each code."""
        code = request.query_params.get("code", "")[:_LONGEST]
        after = _issue_after(request.query_params.get("after", ""))
        scope, now = caller_of(request).scope, self._context.clock.now()
        found = await self._context.read(_issues, scope, code, after)
        return self._context.pages.page(
            request,
            "issues.html",
            **found,
            code=code,
            now=now,
            words=ISSUES,
            severities=words.SEVERITIES,
            box_states=words.BOX_STATES,
        )


def _noted(counts: Mapping[State, int]) -> dict[State, str]:
    return {state: meaning for state, meaning in words.NOTED.items() if counts[state]}


def _issues(connection: Connection, scope: Scope, code: str, after: tuple[datetime, str, str] | None) -> dict[str, Any]:
    rows = query.issues(connection, scope, code=code or None, after=after)
    last = rows[-1] if len(rows) == query.PAGE else None
    people = {number for row in rows for number in (row.acknowledged_by, row.shelved_by) if number is not None}
    return {
        "rows": rows,
        "counted": query.issue_counts(connection, scope),
        "people": names_of(connection, list(people)),
        "further": "" if last is None else f"{last.raised_at.isoformat()} {last.device} {last.ref}",
    }


def _issue_after(text: str) -> tuple[datetime, str, str] | None:
    try:
        at, device, ref = text.split(" ")
        moment = datetime.fromisoformat(at)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)), device, ref


def _asked(request: Request) -> Asked:
    given = {name: request.query_params.get(name, "")[:_LONGEST] for name in _TEXTS}
    state = request.query_params.get("state", "")
    return Asked(**given, state=State(state) if state in set(map(str, State)) else None)


def _order(request: Request) -> Order:
    order = request.query_params.get("order", "")
    return Order(order) if order in set(map(str, Order)) else Order.NUMBER


def _shown(asked: Asked, order: Order, shown: lists.Shown, after: str) -> dict[str, Any]:
    given = {name: getattr(asked, name) for name in _TEXTS} | {"state": str(asked.state or "")}
    kept = {name: value for name, value in given.items() if value}

    def address(**changes: str) -> str:
        pairs = {**kept, **({"order": str(order)} if order is not Order.NUMBER else {}), **changes}
        return "/?" + urlencode(pairs) if pairs else "/"

    return {
        "shown": shown,
        "asked": given,
        "order": order,
        "orders": words.ORDERS,
        "states": words.STATES,
        "counted": words.COUNTED,
        "ai_words": words.AI,
        "issue_words": ISSUES,
        "address": address,
        "is_filtered": bool(kept),
        "self_address": address(**({"after": after} if after else {})),
    }
