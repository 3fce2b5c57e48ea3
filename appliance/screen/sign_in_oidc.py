"""Signing in with the hospital's account, at its provider and back. The form for the box's own is always there."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appliance.config import Oidc
from appliance.errors import ConflictError
from appliance.screen.context import Context
from appliance.screen.sign_in import sign_in_form
from appliance.store.accounts import Account
from appliance.web.access import ANYBODY, Guarded, local_target
from appliance.web.i18n import N_
from appliance.web.oidc import Begun, Person, Provider, ProviderDown, Refused
from appliance.web.sign_in import address_of
from appliance.web.throttle import Rate

log = logging.getLogger(__name__)

DOWN = N_("The hospital's sign-in does not answer. Sign in with an account of this box.")
REFUSED = N_("The hospital's sign-in did not let you in here. Ask an administrator of the box which groups may.")
LOST = N_("This sign-in took too long, or was begun in another browser. Try again.")

NOT_AGAIN = N_("The hospital's sign-in did not ask you again who you are. Tell an administrator of the box.")
NOT_SAID = N_(
    "The hospital's sign-in does not say when you proved who you are (auth_time), so nothing can be signed with its"
    " accounts. Sign with an account of this box, and tell an administrator: the provider must send auth_time."
)

_COOKIE = "scanside_oidc"
_LIFE_S = 600.0
#: How far the provider's clock may be behind ours.
_BEHIND = timedelta(minutes=1)
#: A provider that does not say when somebody proved themselves has proven nothing that one could sign with.
_NEVER = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: Sign-ins under way; the oldest is forgotten first.
_MOST = 256


@dataclass(frozen=True, slots=True)
class _UnderWay:
    begun: Begun
    browser: str
    target: str
    ends: float
    #: The person must have proved themselves at the provider since then; None: when they did does not matter.
    since: datetime | None


class OidcPages:
    """Two addresses, for a box whose configuration names a provider."""

    def __init__(self, context: Context, settings: Oidc) -> None:
        """Prepare; the provider is asked when somebody signs in, so that a box starts without it.

        Args:
            context: Of all pages.
            settings: ``screen.oidc``.

        Raises:
            ConfigError: A file of ``screen.oidc`` cannot be read.
        """
        self._context = context
        self._clock = context.store.db.clock
        self._provider = Provider(settings, self._clock)
        self._pool = context.pool.beside(2, "web-oidc")
        self._under_way: OrderedDict[str, _UnderWay] = OrderedDict()
        self._rate = Rate(self._clock, 20, 60.0)
        self._secure = context.config.screen.tls is not None
        self._cookie = f"__Host-{_COOKIE}" if self._secure else _COOKIE

    def routes(self) -> list[Guarded]:
        """The addresses."""
        return [
            Guarded("/sign-in/oidc", self.begin, roles=ANYBODY),
            Guarded("/sign-in/oidc/callback", self.callback, roles=ANYBODY),
        ]

    async def begin(self, request: Request) -> Response:
        """Off to the provider."""
        target = local_target(request.query_params.get("next", "/"))
        again = request.query_params.get("again") == "1"
        if wait_s := self._rate.take(address_of(request)):
            return await self._again(request, target, 429, wait_s=int(wait_s) + 1, again=again)
        provider = self._provider
        try:
            redirect_uri = self._redirect_uri(request)
            url, begun = await self._pool.run(lambda: provider.begin(redirect_uri, again=again))
        except ProviderDown as error:
            log.warning("OIDC: %s", error)
            return await self._again(request, target, 503, error=DOWN, again=again)
        browser = secrets.token_urlsafe(24)
        since = self._clock.now() - _BEHIND if again else None
        self._under_way[begun.state] = _UnderWay(begun, browser, target, self._clock.monotonic() + _LIFE_S, since)
        while len(self._under_way) > _MOST:
            self._under_way.popitem(last=False)
        response = RedirectResponse(url, 303)
        # Lax: the way back begins on the provider's page.
        response.set_cookie(
            self._cookie, browser, max_age=int(_LIFE_S), path="/", httponly=True, samesite="lax", secure=self._secure
        )
        return response

    async def callback(self, request: Request) -> Response:
        """Back from the provider."""
        found = self._under_way.pop(request.query_params.get("state", ""), None)
        browser = request.cookies.get(self._cookie, "")
        if (
            found is None
            or found.ends < self._clock.monotonic()
            or not hmac.compare_digest(found.browser.encode(), browser.encode())
        ):
            return await self._again(request, "/", 400, error=LOST)
        try:
            person = await self._pool.run(self._provider.finish, found.begun, dict(request.query_params))
            account = await self._context.pool.run(self._know, person)
        except ProviderDown as error:
            log.warning("OIDC: %s", error)
            return await self._again(request, found.target, 503, error=DOWN, again=found.since is not None)
        except (Refused, ConflictError) as error:
            log.warning("OIDC: somebody was not let in: %s", error)
            await self._context.callers.door.tell_failed(request, "oidc")
            return await self._again(request, found.target, 403, error=REFUSED, again=found.since is not None)
        proved_at = person.proved_at or _NEVER
        if found.since is not None and proved_at < found.since:
            said = NOT_AGAIN if person.proved_at else NOT_SAID
            why = "did not ask somebody again (prompt=login)" if person.proved_at else "sends no auth_time"
            log.warning("OIDC: the provider %s: nothing can be signed with its accounts", why)
            return await self._again(request, found.target, 403, error=said, again=True)
        response = self._context.callers.onward(request, found.target)
        await self._context.callers.begin(request, response, account, "oidc", proved_at)
        response.delete_cookie(self._cookie, path="/", httponly=True, samesite="lax", secure=self._secure)
        return response

    def _know(self, person: Person) -> Account:
        name = re.sub(r"[^\w.@-]+", ".", person.name).strip(".@-_")[:48] or "oidc"
        full_name = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", person.full_name).strip()[:56] or name
        return self._context.store.accounts.know(person.subject, name, full_name, person.role)

    async def _again(self, request: Request, target: str, status: int, **values: object) -> Response:
        answer = await sign_in_form(self._context, request, target, status=status, **values)
        if "wait_s" in values:
            answer.headers["Retry-After"] = str(values["wait_s"])
        return answer

    def _redirect_uri(self, request: Request) -> str:
        return f"{request.url.scheme}://{request.url.netloc}/sign-in/oidc/callback"
