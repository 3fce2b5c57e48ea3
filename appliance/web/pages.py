"""Pages in the common shell: navigation by role, language, who is signed in, errors that say what is going on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from appliance.config import Site
from appliance.records import UserRole, Word
from appliance.web.access import Caller, Known, local_target
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
    414: (N_("This request cannot be understood"), N_("Go back, reload the page and try again.")),
    500: (
        N_("The box has made a mistake"),
        N_(
            "This page cannot be shown now; the box goes on with its other work. Read every study as usual. Try again,"
            " and tell service if it comes back."
        ),
    ),
    503: (
        N_("The box cannot do this now"),
        N_("Images go on being received. Read every study as usual, and tell service if this does not end."),
    ),
}
#: The same for what a status does not tell apart.
TROUBLES: dict[str, tuple[str, str]] = {
    "stale": (
        N_("This form is too old, or not of this box"),
        N_("Nothing was done. Load the page anew, fill it in again and send it once more."),
    ),
    "store": (
        N_("The box cannot use its disk"),
        N_(
            "Nothing was recorded, and what must be recorded is not shown. New images may be refused: keep them at the"
            " scanner. Read every study as usual, and call service now."
        ),
    ),
}

#: What the framework says where nobody said more.
_PHRASES = {int(status): status.phrase for status in HTTPStatus}


def in_english(trouble: str) -> str:
    """One of ``TROUBLES`` for a program, or of a status that has no words of its own: what, and what to do."""
    what, advice = TROUBLES.get(trouble, STATUSES[500])
    return f"{what}. {advice}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a page says of the box from the moment it is loaded; its script keeps that up to date.

    Attributes:
        ai: ``down`` or ``none`` where the AI does not look at studies; that it does, a beat must say.
        overdue: Alerts that nobody has acknowledged in time; None for whom they are not to know.
        fault: Message ids of what keeps images from being taken.
        approvals: Changes of models that wait for a person; None for whom it is not to decide.
    """

    ai: str = ""
    overdue: int | None = None
    fault: tuple[str, ...] = ()
    approvals: int | None = None


def _nothing(_: Caller | None) -> Standing:
    return Standing()


@dataclass(frozen=True, slots=True, kw_only=True)
class NavItem:
    """A page of the navigation; ``label`` is a message id. Pages about the box itself stand in a menu of their own."""

    label: str
    path: str
    roles: frozenset[Word]
    of_box: bool = False


class Pages:
    """Renders templates that extend ``shell.html``."""

    def __init__(
        self,
        templates: Templates,
        site: Site,
        nav: Sequence[NavItem],
        standing: Callable[[Caller | None], Standing] = _nothing,
        *,
        roles: Mapping[Any, str] = ROLES,
        troubles: Mapping[int, tuple[str, str]] = STATUSES,
    ) -> None:
        """Draw pages.

        Args:
            templates: Where they are.
            site: Its name, language and mode.
            nav: In its order, each item for its roles.
            standing: Asked for every page.
            roles: Words of the roles, message ids.
            troubles: What a status says to a person, message ids.
        """
        self._roles = roles
        self._troubles = troubles
        self._templates = templates
        self._site = site
        self._nav = tuple(nav)
        self._standing = standing

    def nav_of(self, caller: Known | None) -> list[NavItem]:
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
                "role_words": self._roles,
                "nav": self.nav_of(caller),
                "path": request.url.path,
                "here": _here(request),
                "standing": self._standing(caller),
            }
            | values,
        )

    def page(self, request: Request, name: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
        """An answer with a template."""
        locale = locale_of(request, self._site.language)
        headers = {"Content-Language": language_tag(locale)}
        return HTMLResponse(self.html(request, name, **values), status_code=status, headers=headers)

    def trouble(self, request: Request, status: int, trouble: str = "", *, detail: str = "") -> Response:
        """A page that says what is going on.

        Args:
            request: What was asked.
            status: Of the answer.
            trouble: One of ``TROUBLES``, where the status says too little.
            detail: More of it, in English; for 500 the mark under which the log tells of it.
        """
        of_status = self._troubles.get(status) or self._troubles[503 if status > 500 else 400]
        what, advice = TROUBLES.get(trouble) or of_status
        return self.page(
            request,
            "trouble.html",
            status=status,
            what=what,
            advice=advice,
            detail="" if status == 500 or detail == _PHRASES.get(status) else detail,
            mark=detail if status == 500 else "",
            is_ours=status >= 500,
            back=_page_of_form(request) if request.method == "POST" else "",
        )


def _here(request: Request) -> str:
    """The address of this page; of an act, that of the page whose form it was."""
    if request.method == "POST":
        return _page_of_form(request) or "/"
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _page_of_form(request: Request) -> str:
    """The page of ours that a form was sent from; empty where that is not known."""
    try:
        said = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return ""
    if not said.path or said.netloc != request.headers.get("host"):
        return ""
    return local_target(said.path + (f"?{said.query}" if said.query else ""))
