"""Which language a reader gets."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from appliance.web.i18n import LOCALES

LANGUAGE_COOKIE = "scanside_lang"


def locale_of(request: Request, default: str) -> str:
    """The locale of this reader: ``?lang=``, else the cookie of an earlier choice, else the site's."""
    for name in (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE)):
        if name in LOCALES:
            return str(name)
    return default


def remember_locale(response: Response, locale: str) -> None:
    """Keep the reader's choice for a year."""
    response.set_cookie(LANGUAGE_COOKIE, locale, max_age=31_536_000, httponly=True, samesite="strict")
