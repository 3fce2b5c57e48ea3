"""What holds for every answer and every act: who may ask, what a page may load, and that the page itself is ours.

- The Host header must be a name of this machine, so that no foreign name can be bound to our address (DNS rebinding).
- An act (POST) must come from a page of this very origin and carry the token of its cookie (double submit).
- Every answer carries a strict content security policy: nothing from elsewhere, nothing inline.
"""

from __future__ import annotations

import hmac
import json
import secrets
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "scanside_csrf"
#: The header that carries the token; a foreign page cannot set it without our consent (CORS).
HEADER = "X-CSRF-Token"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
_SAFE = frozenset({"GET", "HEAD"})
_TOKEN_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


class Guard:
    """ASGI middleware. Puts the page's token into ``request.state.csrf``; never buffers, so streams pass."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = LOOPBACK_NAMES) -> None:
        """Guard ``app``; ``hosts`` are the names, without port, that it answers to."""
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        token = _cookie_token(headers)
        new_token = "" if token else secrets.token_urlsafe(24)
        refusal = self._refusal(scope["method"], headers, token)
        scope.setdefault("state", {})["csrf"] = token or new_token

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out[name] = value
                out.setdefault("Cache-Control", "no-store")
                if new_token and refusal is None:
                    out.append("Set-Cookie", f"{COOKIE}={new_token}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        if refusal is not None:
            status, why = refusal
            await _answer(send_with_headers, status, why)
            return
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers, token: str) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if _without_port(host) not in self._hosts:
            return 421, "this server answers only to the name of this machine; open http://127.0.0.1 with its port"
        if method in _SAFE:
            return None
        if method != "POST":
            return 405, "only GET, HEAD and POST are understood"
        if headers.get("origin") != f"http://{host}":
            return 403, "the request does not come from a page of this server; reload the page and try again"
        if not token or not hmac.compare_digest(headers.get(HEADER, ""), token):
            return 403, "the page's token is missing or old; reload the page and try again"
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[: host.find("]") + 1].lower()
    return host.partition(":")[0].lower()


def _cookie_token(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    token = morsel.value if morsel else ""
    # It comes back into a page: nothing but what we make ourselves.
    return token if len(token) == 32 and _TOKEN_CHARACTERS.issuperset(token) else ""


async def _answer(send: Send, status: int, why: str) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
