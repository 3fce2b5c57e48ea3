"""The application of the console: every page, act and asset, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.clock import Clock
from appliance.config import Site
from appliance.fleet.server.console.audit import AuditPages
from appliance.fleet.server.console.callers import FleetCallers
from appliance.fleet.server.console.context import Context
from appliance.fleet.server.console.device import DevicePages
from appliance.fleet.server.console.drafts import DraftPages
from appliance.fleet.server.console.models import ModelPages
from appliance.fleet.server.console.overview import OverviewPages
from appliance.fleet.server.console.results import ResultsPages
from appliance.fleet.server.console.roles import AUDITORS, EVERYBODY, OPERATORS, ROLES
from appliance.fleet.server.console.rollouts import RollOutPages
from appliance.fleet.server.console.sign_in import SignInPages
from appliance.fleet.server.console.sites import SitePages
from appliance.fleet.server.console.users import UsersPages
from appliance.fleet.server.console.words import TROUBLES
from appliance.fleet.server.server_keys import ServerKeys
from appliance.web.access import ANYBODY, Guarded, local_target
from appliance.web.app import make_app
from appliance.web.assets import Assets
from appliance.web.guard import LOOPBACK_NAMES, Rules
from appliance.web.i18n import LOCALES, N_, Catalogues
from appliance.web.locale import remember_locale
from appliance.web.pages import NavItem, Pages
from appliance.web.passwords import Passwords
from appliance.web.pool import Pool
from appliance.web.templates import Templates

_HERE = Path(__file__).parent
_WEB = _HERE.parents[2] / "web"

NAV = (
    NavItem(label=N_("Overview"), path="/", roles=EVERYBODY),
    NavItem(label=N_("Models"), path="/models", roles=EVERYBODY),
    NavItem(label=N_("Roll-outs"), path="/rollouts", roles=EVERYBODY),
    NavItem(label=N_("Results"), path="/results", roles=EVERYBODY),
    NavItem(label=N_("Issues"), path="/issues", roles=EVERYBODY),
    NavItem(label=N_("Audit"), path="/audit", roles=AUDITORS),
    NavItem(label=N_("Users"), path="/users", roles=OPERATORS),
)


def console_app(
    engine: Engine,
    keys: ServerKeys,
    clock: Clock,
    names: Sequence[str] = (),
    *,
    folder: Path,
    threshold: int = 1,
    secure: bool = False,
) -> Starlette:
    """The application of the console's pages, to be served by ``WebServer``.

    Args:
        engine: The server's database, migrated.
        keys: Sign the jobs that people give.
        clock: The server's.
        names: Names and addresses that the server answers to, besides loopback.
        folder: The server's, where what boxes brought lies.
        threshold: How many release keys must sign a change of models.
        secure: Whether it speaks TLS.

    Raises:
        ConfigError: A message catalogue is missing or damaged.
    """
    catalogues = Catalogues()
    assets = Assets((_WEB / "static", _HERE / "static"))
    templates = Templates((_HERE / "templates", _WEB / "templates"), assets, catalogues)
    pool = Pool(4, "console")
    site = Site(name="Scanside Fleet", mode="clinical")
    context = Context(
        engine=engine,
        keys=keys,
        clock=clock,
        pool=pool,
        templates=templates,
        pages=Pages(templates, site, NAV, roles=ROLES, troubles=TROUBLES),
        callers=FleetCallers(engine, pool, clock, secure=secure),
        folder=folder,
        threshold=threshold,
    )
    hasher = Passwords()
    routes = [
        Guarded("/language", _language, roles=ANYBODY),
        *OverviewPages(context).routes(),
        *DevicePages(context).routes(),
        *ModelPages(context).routes(),
        *ResultsPages(context).routes(),
        *SitePages(context).routes(),
        *DraftPages(context).routes(),
        *RollOutPages(context).routes(),
        *AuditPages(context).routes(),
        *UsersPages(context, hasher).routes(),
        *SignInPages(context, hasher).routes(),
        assets.route(),
    ]
    app = make_app(
        routes,
        pool,
        access=context.callers,
        pages=context.pages,
        rules=Rules(hosts=LOOPBACK_NAMES | {name.lower() for name in names}, secure=secure),
        on_start=_nothing,
        on_stop=_nothing,
        on_end=_nothing,
    )
    app.state.context = context
    return app


def _nothing() -> None:
    return


async def _language(request: Request) -> Response:
    """Another language, then back."""
    target = urlsplit(local_target(request.query_params.get("next", "/")))
    response = RedirectResponse(target.path + (f"?{target.query}" if target.query else ""), 303)
    locale = request.query_params.get("to", "")
    if locale in LOCALES:
        remember_locale(response, locale, secure=request.app.state.rules.secure)
    return response
