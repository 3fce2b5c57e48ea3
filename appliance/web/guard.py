"""What holds for every answer and every act: who may ask, what a page may load, and that the page itself is ours.

- The Host header must be a name of this machine, so that no foreign name can be bound to our address (DNS rebinding).
- An act (POST) must come from a page of this very origin and carry the token of its cookie (double submit), in a
  header or in the form's field ``csrf``. A program that proves itself by ``Authorization`` has no cookie to abuse.
- Every answer carries a strict content security policy: nothing from elsewhere, nothing inline.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "scanside_csrf"
#: The header that carries the token; a foreign page cannot set it without our consent (CORS).
HEADER = "X-CSRF-Token"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
#: Python turns no number of more than 4,300 digits into an int, and none of our addresses is so long.
_MAX_PATH = 2000
#: A form is small; files come by another way.
_MAX_FORM_BYTES = 64 * 1024
_SAFE = frozenset({"GET", "HEAD"})
_TOKEN_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: under that, browsers send the forms of our own pages with "Origin: null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "font-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none'; frame-ancestors "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a site may set of it.

    Attributes:
        hosts: Names, without port, that the server answers to.
        secure: Whether it speaks TLS.
        frames: Origins whose pages may show ours in a frame; none by default.
    """

    hosts: frozenset[str] = LOOPBACK_NAMES
    secure: bool = False
    frames: tuple[str, ...] = ()

    def headers(self) -> dict[str, str]:
        """Headers of every answer."""
        out = {**HEADERS, "Content-Security-Policy": _POLICY + (" ".join(self.frames) or "'none'")}
        if not self.frames:
            out["X-Frame-Options"] = "DENY"
        if self.secure:
            out["Strict-Transport-Security"] = "max-age=31536000"
        return out


def _as_json(_: Request, status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status_code=status)


class Guard:
    """ASGI middleware. Puts the page's token into ``request.state.csrf``; never buffers, so streams pass."""

    def __init__(self, app: ASGIApp, rules: Rules, refused: Callable[[Request, int, str], Response] = _as_json) -> None:
        """Guard ``app``; ``refused`` makes the answer to what does not pass, from its status and the reason."""
        self._app = app
        self._refused = refused
        self._rules = rules
        self._headers = rules.headers()
        self._cookie = f"__Host-{COOKIE}" if rules.secure else COOKIE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        token = self._cookie_token(headers)
        new_token = "" if token else secrets.token_urlsafe(24)
        refusal = self._refusal(scope["method"], len(scope["path"]), headers)
        if refusal is None and scope["method"] not in _SAFE and not _is_program(headers):
            given = headers.get(HEADER, "")
            if not given and _is_form(headers):
                given, receive = await _form_token(receive)
            if not token or not hmac.compare_digest(given.encode(), token.encode()):
                refusal = 403, "the page's token is missing or old; reload the page and try again"
        scope.setdefault("state", {})["csrf"] = token or new_token

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    out[name] = value
                out.setdefault("Cache-Control", "no-store")
                if new_token and refusal is None:
                    secure = "; Secure" if self._rules.secure else ""
                    out.append("Set-Cookie", f"{self._cookie}={new_token}; Path=/; HttpOnly; SameSite=Strict{secure}")
            await send(message)

        if refusal is not None:
            status, why = refusal
            answer = self._refused(Request(scope, receive), status, why)
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, length: int, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if without_port(host) not in self._rules.hosts:
            return 421, "this server answers only to its own names; open it by one of screen.names"
        if length > _MAX_PATH:
            return 414, "this address is longer than any of ours"
        if method in _SAFE:
            return None
        if method != "POST":
            return 405, "only GET, HEAD and POST are understood"
        if _is_program(headers):
            return None
        if headers.get("origin") != f"{'https' if self._rules.secure else 'http'}://{host}":
            return 403, "the request does not come from a page of this server; reload the page and try again"
        return None

    def _cookie_token(self, headers: Headers) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        token = morsel.value if morsel else ""
        # It comes back into a page: nothing but what we make ourselves.
        return token if len(token) == 32 and _TOKEN_CHARACTERS.issuperset(token) else ""


def _is_program(headers: Headers) -> bool:
    """Whether a token proves the caller: no page of elsewhere can set that header, and no cookie is heeded then."""
    return headers.get("authorization", "").lower().startswith("bearer ")


def _is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip() == "application/x-www-form-urlencoded"


async def _form_token(receive: Receive) -> tuple[str, Receive]:
    """The field ``csrf`` of a small form, and the body again for who comes after."""
    parts: list[bytes] = []
    more = True
    while more and sum(map(len, parts)) <= _MAX_FORM_BYTES:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    body = b"".join(parts)
    fields = parse_qs(body[:_MAX_FORM_BYTES].decode("utf-8", "replace"))
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": more}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return fields.get("csrf", [""])[0], again


def without_port(host: str) -> str:
    """The name in a Host header, as it is compared."""
    if host.startswith("["):
        return host[: host.find("]") + 1].lower()
    return host.partition(":")[0].lower()
