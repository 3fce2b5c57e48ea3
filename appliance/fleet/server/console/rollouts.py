"""Roll-outs: the list, one with its waves, boxes and verdicts, and what people do with it.

Nothing here signs with a release key: those are never on this server, and never in a browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.errors import ConflictError
from appliance.fleet.server import tables as t
from appliance.fleet.server.console import rollout_acts, rollout_words, words
from appliance.fleet.server.console.callers import caller_of
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.roles import EVERYBODY, HANDS
from appliance.fleet.server.console.rollout_board import Board, board_of, coming, listed
from appliance.fleet.server.registry import Scope
from appliance.fleet.server.rollout import query
from appliance.fleet.server.rollout.plan import BoxWord, RollOutState, Verdict
from appliance.web.access import Guarded
from appliance.web.app import read_form

_LONGEST = 80
_LONGEST_WHY = 200


class RollOutPages:
    """Roll-outs of tenants that somebody may see."""

    def __init__(self, context: Context) -> None:
        """Ask ``context``."""
        self._context = context

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/rollouts", self.list, roles=EVERYBODY),
            Guarded("/rollouts/{ident}", self.page, roles=EVERYBODY),
            Guarded("/rollouts/{ident}/progress", self.progress, roles=EVERYBODY),
            Guarded("/rollouts/{ident}/{act}", self.act, roles=HANDS, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """The newest, and what is on its way to boxes."""
        caller, now, asked = caller_of(request), self._context.clock.now(), request.query_params
        state = next((one for one in RollOutState if str(one) == asked.get("state")), None)
        package = asked.get("package", "")[:_LONGEST]
        read = await self._context.read(_list, caller.scope, state, package, now)
        return self._context.pages.page(
            request,
            "rollouts.html",
            state=str(state or ""),
            package=package,
            may_act=caller.role in HANDS,
            bar_of=rollout_words.bar_of,
            r=rollout_words,
            w=words,
            **read,
        )

    async def page(self, request: Request) -> Response:
        """All of one."""
        return await self._page(request)

    async def progress(self, request: Request) -> Response:
        """Its waves; where the state has changed meanwhile the whole page comes anew."""
        caller, now = caller_of(request), self._context.clock.now()
        ident = str(request.path_params["ident"])
        page = await self._context.read(query.get_roll_out, caller.scope, ident, now)
        response = self._context.pages.page(request, "rollout-progress.html", **self._shown(request, page))
        if request.query_params.get("state") != str(page.row.state):
            response.headers["HX-Refresh"] = "true"
        return response

    async def act(self, request: Request) -> Response:
        """What somebody decided, with the reason."""
        act = str(request.path_params["act"])
        if act not in rollout_acts.NAMES:
            raise HTTPException(404, "there is no such act")
        caller, ident, form = caller_of(request), str(request.path_params["ident"]), await read_form(request)
        now, account = self._context.clock.now(), caller.account
        page = await self._context.read(query.get_roll_out, caller.scope, ident, now)
        is_sure = act not in rollout_acts.TYPED or form.get("version", "").strip() == page.row.version
        why = form.get("why", "").strip()[:_LONGEST_WHY]
        if not why or not is_sure:
            return await self._page(request, refused="form", status=400)
        if act == "approve" and page.row.made_by == account.number:
            # The act refuses it too; here it is said in the reader's language.
            return await self._page(request, refused="own", status=409)
        deed = rollout_acts.Deed(
            scope=caller.scope,
            ident=ident,
            why=why,
            account=account.number,
            actor=account.name,
            now=now,
            keys=self._context.keys,
            threshold=self._context.threshold,
        )
        try:
            await self._context.write(rollout_acts.do, act, deed)
        except ConflictError as error:
            return await self._page(request, refused=str(error), status=409)
        return RedirectResponse("/rollouts" if act == "discard" else f"/rollouts/{ident}", 303)

    async def _page(self, request: Request, *, refused: str = "", status: int = 200) -> Response:
        caller, now, asked = caller_of(request), self._context.clock.now(), request.query_params
        wave = _number(asked.get("wave", ""))
        word = next((one for one in BoxWord if str(one) == asked.get("word")), None)
        ident, after = str(request.path_params["ident"]), _number(asked.get("after", "")) or 0
        board: Board = await self._context.read(
            board_of, caller.scope, ident, wave=wave, word=word, after=after, now=now
        )
        return self._context.pages.page(
            request,
            "rollout.html",
            status=status,
            board=board,
            refused=refused,
            asked={"wave": wave, "word": str(word or "")},
            gates=board.page.plan.gates,
            threshold=self._context.threshold,
            may_act=caller.role in HANDS,
            acts=rollout_acts.offered(board.page.row.state),
            a=rollout_acts,
            w=words,
            **self._shown(request, board.page),
        )

    def _shown(self, request: Request, page: query.RollOutPage) -> Mapping[str, Any]:
        gettext = self._context.gettext(request)

        def said(one: Verdict) -> str:
            return rollout_words.sentence(one, gettext)

        def told(one: Verdict) -> list[tuple[str, str]]:
            return rollout_words.figures(one, gettext)

        def wave_name(name: str) -> str:
            return rollout_words.wave_name(name, gettext)

        shown = {"page": page, "row": page.row, "r": rollout_words, "bar_of": rollout_words.bar_of}
        return shown | {"said": said, "told": told, "wave_name": wave_name}


def _list(
    connection: Connection, scope: Scope, state: RollOutState | None, package: str, now: datetime
) -> dict[str, Any]:
    rows = listed(connection, scope, state=state, package=package, now=now)
    c = t.tenant.c
    named = connection.execute(select(c.id, c.name).where(c.id.in_({one.tenant for one in rows})))
    return {
        "rows": rows,
        "coming": coming(connection, scope),
        "tenants": {row.id: row.name for row in named},
    }


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
