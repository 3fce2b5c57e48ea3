"""What every page of the console works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from starlette.requests import Request

from appliance.clock import Clock
from appliance.fleet.server.console.callers import FleetCallers
from appliance.fleet.server.db import read, write
from appliance.fleet.server.server_keys import ServerKeys
from appliance.web.locale import locale_of
from appliance.web.pages import Pages
from appliance.web.pool import Pool
from appliance.web.templates import Templates

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Made once by ``console_app``, given to every group of pages.

    Attributes:
        engine: The server's database.
        keys: Sign what boxes are told.
        clock: The server's.
        pool: For everything that blocks.
        templates: For texts that are no page.
        pages: Draws pages in the shell.
        callers: Sessions.
        folder: The server's, where what boxes brought lies.
        threshold: How many release keys must sign a change of models.
    """

    engine: Engine
    keys: ServerKeys
    clock: Clock
    pool: Pool
    templates: Templates
    pages: Pages
    callers: FleetCallers
    folder: Path
    threshold: int

    def gettext(self, request: Request) -> Callable[[str], str]:
        """Texts in the reader's language."""
        return partial(self.templates.translated, locale_of(request, "en"))

    async def read(self, call: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a question of one transaction in the pool."""

        def ask() -> T:
            with read(self.engine) as connection:
                return call(connection, *args, **kwargs)

        return await self.pool.run(ask)

    async def write(self, call: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an act of one transaction in the pool."""

        def act() -> T:
            with write(self.engine) as connection:
                return call(connection, *args, **kwargs)

        return await self.pool.run(act)
