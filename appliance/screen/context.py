"""What every page of the box works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from appliance.clock import Clock
from appliance.config import Config
from appliance.screen.display import Display
from appliance.screen.feed import Feed
from appliance.screen.packages import PackageText
from appliance.screen.tools import Tools
from appliance.store import Store
from appliance.web.assets import Assets
from appliance.web.callers import Callers
from appliance.web.locale import locale_of
from appliance.web.pages import Pages
from appliance.web.pool import Pool
from appliance.web.templates import Templates


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Made once by ``screen_app``, given to every group of pages.

    Attributes:
        store: What the pages show, and the acts that they call; always in the pool.
        config: As the box runs it.
        packages: Texts by package name and ``name@version``. The daemon changes the mapping while pages are shown.
        clock: The daemon's.
        pool: For everything that blocks.
        probing: For what asks the network or looks at the whole box: it may take minutes, and alerts must not wait.
        feed: The present board, and a bell for every journal row that people are told of.
        pages: Draws pages in the shell.
        templates: For fragments and the alert screen, which have no shell.
        assets: Addresses of style and scripts.
        callers: Opens and ends sessions.
        tools: What pages do with the rest of the box.
        display: Pixels of images, prepared by children.
    """

    store: Store
    config: Config
    packages: Mapping[str, PackageText]
    clock: Clock
    pool: Pool
    probing: Pool
    feed: Feed
    pages: Pages
    templates: Templates
    assets: Assets
    callers: Callers
    tools: Tools
    display: Display

    def locale(self, request: Request) -> str:
        """The reader's locale."""
        return locale_of(request, self.config.site.language)
