"""Pages in the common shell: navigation by role, language, who is signed in, errors that say what is going on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from appliance.config import Site
from appliance.records import UserRole
from appliance.web.access import Caller
from appliance.web.i18n import N_, language_tag
from appliance.web.locale import locale_of
from appliance.web.templates import Templates

ROLES: dict[UserRole, str] = {
    UserRole.SCREEN: N_("Screen"),
    UserRole.VIEWER: N_("Viewer"),
    UserRole.TECHNOLOGIST: N_("Technologist"),
    UserRole.RADIOLOGIST: N_("Radiologist"),
    UserRole.ADMINISTRATOR: N_("Administrator"),
    UserRole.SERVICE: N_("Service"),
}

#: What a status says to a person: what is going on, and what they can do.
STATUSES: dict[int, tuple[str, str]] = {
    400: (N_("This request cannot be understood"), N_("Go back, reload the page and try again.")),
    403: (N_("Your role does not have this page"), N_("Ask an administrator of the box.")),
    404: (N_("There is nothing here"), N_("The study may have been removed, or the address has a mistake.")),
    405: (N_("This request cannot be understood"), N_("Go back, reload the page and try again.")),
    409: (N_("Somebody was faster, or things have changed"), N_("Reload the page and look again.")),
    413: (N_("This is too large"), N_("Send less.")),
    429: (N_("Too many attempts"), N_("Wait a minute, then try again.")),
    503: (
        N_("The box cannot do this now"),
        N_("Images go on being received. Read every study as usual, and tell service if this does not end."),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NavItem:
    """A page of the navigation; ``label`` is a message id. Pages about the box itself stand in a menu of their own."""

    label: str
    path: str
    roles: frozenset[UserRole]
    of_box: bool = False


class Pages:
    """Renders templates that extend ``shell.html``."""

    def __init__(self, templates: Templates, site: Site, nav: Sequence[NavItem]) -> None:
        """Use ``templates``; ``nav`` in its order, each item for its roles."""
        self._templates = templates
        self._site = site
        self._nav = tuple(nav)

    def nav_of(self, caller: Caller | None) -> list[NavItem]:
        """The pages that somebody has, in their order."""
        return [item for item in self._nav if caller is not None and caller.role in item.roles]

    def html(self, request: Request, name: str, /, **values: Any) -> str:
        """A template with what the shell needs; may take long, so call it in the pool where tables are large."""
        caller = getattr(request.state, "caller", None)
        locale = locale_of(request, self._site.language)
        return self._templates.render(
            locale,
            name,
            **{
                "site": self._site,
                "csrf": request.state.csrf,
                "caller": caller,
                "role_words": ROLES,
                "nav": self.nav_of(caller),
                "path": request.url.path,
                "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            }
            | values,
        )

    def page(self, request: Request, name: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
        """An answer with a template."""
        locale = locale_of(request, self._site.language)
        headers = {"Content-Language": language_tag(locale)}
        return HTMLResponse(self.html(request, name, **values), status_code=status, headers=headers)

    def trouble(self, request: Request, status: int, detail: str) -> Response:
        """A page that says what is going on."""
        what = STATUSES.get(status, STATUSES[503 if status >= 500 else 400])
        return self.page(request, "trouble.html", status=status, what=what[0], advice=what[1], detail=detail)
