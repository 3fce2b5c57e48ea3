"""Which language a reader gets."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit, urlunsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from appliance.web.i18n import LOCALES

LANGUAGE_COOKIE = "scanside_lang"


def locale_of(request: Request, default: str) -> str:
    """The locale of this reader: ``?lang=`` of the page, else the cookie of an earlier choice, else the site's."""
    for name in (request.query_params.get("lang"), _of_form(request), request.cookies.get(LANGUAGE_COOKIE)):
        if name in LOCALES:
            return str(name)
    return default


def remember_locale(response: Response, locale: str, *, secure: bool) -> None:
    """Keep the reader's choice for a year."""
    response.set_cookie(LANGUAGE_COOKIE, locale, max_age=31_536_000, httponly=True, samesite="strict", secure=secure)


class KeepsLocale:
    """ASGI middleware: who acts on a page that was opened by ``?lang=`` comes back to it in that language."""

    def __init__(self, app: ASGIApp) -> None:
        """Around ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; where an act leads to a page of ours, the language goes along."""
        locale = _of_form(Request(scope)) if scope["type"] == "http" else ""

        async def keeping(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 303:
                headers = MutableHeaders(scope=message)
                target = urlsplit(headers.get("location", ""))
                if not target.netloc and "lang" not in parse_qs(target.query):
                    query = f"{target.query}&lang={locale}".lstrip("&")
                    headers["location"] = urlunsplit(target._replace(query=query))
            await send(message)

        await self._app(scope, receive, keeping if locale else send)


def _of_form(request: Request) -> str:
    """The ``?lang=`` of our page whose form this is; empty where there is none."""
    if request.method != "POST":
        return ""
    try:
        page = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return ""
    asked = parse_qs(page.query).get("lang", [""])[-1] if page.netloc == request.headers.get("host") else ""
    return asked if asked in LOCALES else ""
