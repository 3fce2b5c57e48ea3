"""The application of the box: every page, act and asset, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.clock import Clock
from appliance.config import Config
from appliance.records import UserRole
from appliance.screen.alert import AlertPages
from appliance.screen.alert_acts import AlertActs
from appliance.screen.api import ApiPages
from appliance.screen.audit import AuditPages
from appliance.screen.context import Context
from appliance.screen.critical import CRITICAL, CriticalPages
from appliance.screen.destinations import DestinationPages
from appliance.screen.display import Display
from appliance.screen.feed import Feed
from appliance.screen.fleet import FLEET, FleetPages
from appliance.screen.health import HealthPages
from appliance.screen.image_wishes import prepare_ahead
from appliance.screen.images import ImagePages
from appliance.screen.in_context import InContextPages
from appliance.screen.live import LivePages
from appliance.screen.metrics import MetricsPages
from appliance.screen.model_upload import ModelUpload
from appliance.screen.models import ModelPages
from appliance.screen.packages import PackageText
from appliance.screen.review import ReviewPages
from appliance.screen.screens import ScreensPages
from appliance.screen.settings import SettingsPages
from appliance.screen.setup import SetupPages
from appliance.screen.sign_in import SignInPages
from appliance.screen.standing import standing_of
from appliance.screen.statistics import READERS, StatisticsPages
from appliance.screen.study import StudyPages
from appliance.screen.tools import NoTools, Tools
from appliance.screen.users import UsersPages
from appliance.screen.worklist import WorklistPages
from appliance.store import Store
from appliance.web.access import (
    ADMINISTRATORS,
    ANYBODY,
    CLINICAL,
    EVERYONE,
    KEEPERS,
    RADIOLOGISTS,
    WATCHING,
    Guarded,
    caller_of,
    local_target,
)
from appliance.web.app import make_app
from appliance.web.assets import Assets
from appliance.web.callers import Callers
from appliance.web.guard import LOOPBACK_NAMES, Rules
from appliance.web.i18n import LOCALES, N_, Catalogues
from appliance.web.locale import remember_locale
from appliance.web.logo import logo_route
from appliance.web.pages import NavItem, Pages
from appliance.web.pool import Pool
from appliance.web.templates import Templates

_HERE = Path(__file__).parent
_WEB = _HERE.parent / "web"

#: The pages, in their order.
NAV = (
    NavItem(label=N_("Alerts"), path="/alert", roles=WATCHING),
    NavItem(label=N_("Studies"), path="/studies", roles=CLINICAL),
    NavItem(label=N_("Reviews"), path="/reviews", roles=RADIOLOGISTS),
    NavItem(label=N_("Local figures"), path="/statistics", roles=READERS),
    NavItem(label=N_("Critical values"), path="/critical-values", roles=CRITICAL),
    NavItem(label=N_("Destinations"), path="/destinations", roles=KEEPERS, of_box=True),
    NavItem(label=N_("Models"), path="/models", roles=KEEPERS, of_box=True),
    NavItem(label=N_("Fleet"), path=FLEET, roles=KEEPERS, of_box=True),
    NavItem(label=N_("Health"), path="/health", roles=KEEPERS, of_box=True),
    NavItem(label=N_("Audit"), path="/audit", roles=ADMINISTRATORS, of_box=True),
    NavItem(label=N_("Settings"), path="/settings", roles=ADMINISTRATORS, of_box=True),
    NavItem(label=N_("Users"), path="/users", roles=ADMINISTRATORS, of_box=True),
    NavItem(label=N_("Screens"), path="/screens", roles=ADMINISTRATORS, of_box=True),
)

#: Where a role begins.
HOME = {
    UserRole.SCREEN: "/alert",
    UserRole.VIEWER: "/alert",
    UserRole.TECHNOLOGIST: "/alert",
    UserRole.RADIOLOGIST: "/alert",
    UserRole.ADMINISTRATOR: "/alert",
    UserRole.SERVICE: "/account",
}


def screen_app(
    store: Store, config: Config, packages: Mapping[str, PackageText], clock: Clock, tools: Tools | None = None
) -> Starlette:
    """The application of the box's pages, to be served by ``WebServer``.

    Args:
        store: Read for every page; the acts of pages write to it.
        config: As the box runs it.
        packages: Texts by package name. The daemon may change the mapping while the pages are served.
        clock: The daemon's clock.
        tools: What pages do with the rest of the box; None: they stand over a store alone.

    Raises:
        ConfigError: A message catalogue is missing or damaged.
    """
    assets = Assets((_WEB / "static", _HERE / "static"))
    templates = Templates((_HERE / "templates", _WEB / "templates"), assets, Catalogues())
    pool = Pool()
    secure = config.screen.tls is not None
    feed = Feed(store, packages, clock, config)
    nav = tuple(item for item in NAV if item.path != FLEET or config.fleet is not None)
    context = Context(
        store=store,
        config=config,
        packages=packages,
        clock=clock,
        pool=pool,
        probing=pool.beside(2, "web-probe"),
        feed=feed,
        pages=Pages(templates, config.site, nav, standing_of(feed)),
        templates=templates,
        assets=assets,
        callers=Callers(store, pool, secure=secure),
        tools=tools or NoTools(),
        display=Display(store, clock, prepare_ahead(store, packages)),
    )
    routes = [
        Guarded("/", _home, roles=EVERYONE),
        Guarded("/language", _language, roles=ANYBODY),
        *AlertPages(context).routes(),
        *AlertActs(context).routes(),
        *CriticalPages(context).routes(),
        *LivePages(context).routes(),
        *WorklistPages(context).routes(),
        *StudyPages(context).routes(),
        *ImagePages(context).routes(),
        *ReviewPages(context).routes(),
        *StatisticsPages(context).routes(),
        *SignInPages(context).routes(),
        *_oidc_routes(context),
        *UsersPages(context).routes(),
        *ScreensPages(context).routes(),
        *DestinationPages(context).routes(),
        *ModelPages(context).routes(),
        *ModelUpload(context).routes(),
        *FleetPages(context).routes(),
        *HealthPages(context).routes(),
        *AuditPages(context).routes(),
        *SettingsPages(context).routes(),
        *SetupPages(context).routes(),
        *ApiPages(context).routes(),
        *MetricsPages(context).routes(),
        *InContextPages(context).routes(),
        assets.route(),
        *([logo_route(config.site.logo_path)] if config.site.logo_path else []),
    ]
    app = make_app(
        routes,
        pool,
        access=context.callers,
        pages=context.pages,
        rules=Rules(
            hosts=LOOPBACK_NAMES | {name.lower() for name in config.screen.names},
            secure=secure,
            frames=config.screen.frames,
        ),
        on_start=_each(context.feed.start, context.display.start),
        on_stop=_each(context.feed.stop, context.display.stop),
        on_end=_each(context.feed.join, context.display.join),
    )
    app.state.feed = context.feed
    app.state.context = context
    return app


def _each(*calls: Callable[[], None]) -> Callable[[], None]:
    def all_of_them() -> None:
        for call in calls:
            call()

    return all_of_them


def _oidc_routes(context: Context) -> list[Guarded]:
    """Sign-in at the hospital's provider, where there is one: Authlib is loaded for nobody else."""
    settings = context.config.screen.oidc
    if settings is None:
        return []
    from appliance.screen.sign_in_oidc import OidcPages

    return OidcPages(context, settings).routes()


async def _home(request: Request) -> Response:
    """To where the role begins."""
    return RedirectResponse(HOME[caller_of(request).role], 303)


async def _language(request: Request) -> Response:
    """Another language, then back."""
    target = urlsplit(local_target(request.query_params.get("next", "/")))
    response = RedirectResponse(target.path + (f"?{target.query}" if target.query else ""), 303)
    locale = request.query_params.get("to", "")
    if locale in LOCALES:
        remember_locale(response, locale, secure=request.app.state.rules.secure)
    return response
