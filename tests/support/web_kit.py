"""Somebody who is signed in at the pages of a store."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from jinja2 import BytecodeCache

from appliance.records import SYSTEM, UserRole
from appliance.web import templates
from appliance.web.i18n import Catalogues
from appliance.web.passwords import Passwords
from appliance.web.server import WebServer

COOKIE = "scanside_session"
AXE = Path(__file__).parents[1] / "browser" / "vendor" / "axe.min.js"
#: What stands on pages for the person of each role.
NAMES = {
    UserRole.VIEWER: "Vera Viewer",
    UserRole.TECHNOLOGIST: "Theo Technologist",
    UserRole.RADIOLOGIST: "Rada Radiologist",
    UserRole.ADMINISTRATOR: "Ada Administrator",
    UserRole.SERVICE: "Sam Service",
}


def account(store, role):
    """The account of a role, made when first asked for. It has no password: nothing needs one in most tests."""
    role = UserRole(role)
    found = store.accounts.by_name(str(role))
    if found is None:
        store.accounts.add(str(role), NAMES[role], role, None, SYSTEM)
        found = store.accounts.by_name(str(role))
    return found[0]


def screen(store, name="CT1-screen", sources=()):
    """A paired screen."""
    found = next((one for one in store.screens.all() if one.name == name and one.sources == tuple(sources)), None)
    if found is not None:
        return found
    store.screens.offer(name, sources, f"code of {name}", SYSTEM)
    return store.screens.pair(f"code of {name}")


def session(store, role="screen", **screen_options):
    """The cookie of a new session."""
    if role == "screen":
        return store.sessions.open(screen(store, **screen_options), "pairing")
    return store.sessions.open(account(store, role), "password")


def browser_cookie(store, address, role="screen", **screen_options):
    """The same as Playwright's ``add_cookies`` wants it."""
    return {"name": COOKIE, "value": session(store, role, **screen_options), "url": address}


@contextmanager
def served(app, tls=None):
    """The address of a running server."""
    server = WebServer(app, port=0, tls=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.start()}"
    finally:
        server.stop()


class Longer(Catalogues):
    """English, each text longer by 40 % as a language may make it."""

    def __init__(self):
        super().__init__()
        english = self._by_locale["en"]
        for key, text in list(english._catalog.items()):
            if isinstance(text, str) and key:
                longer = max(1, round(len(text) * 0.4))
                english._catalog[key] = text + " ~~~~~" * (longer // 6) + "~" * (longer % 6)


def barriers(page, within="html", *, colours=True):
    """What axe finds to be a serious barrier in an open page, or in one part of it; ``colours`` take the longest."""
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE.read_text("utf-8"))
    rules = "{}" if colours else "{'color-contrast': {enabled: false}}"
    options = f"{{runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'], resultTypes: ['violations'], rules: {rules}}}"
    report = page.evaluate(f"part => axe.run(document.querySelector(part), {options})", within)
    serious = [one for one in report["violations"] if one["impact"] in {"serious", "critical"}]
    return [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in serious]


def painted(page):
    """Wait until what the page was told is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


class _Compiled(BytecodeCache):
    """Compiled templates in memory."""

    def __init__(self):
        self._kept = {}

    def load_bytecode(self, bucket):
        checksum, code = self._kept.get(bucket.key, (None, None))
        if checksum == bucket.checksum:
            bucket.code = code

    def dump_bytecode(self, bucket):
        self._kept[bucket.key] = (bucket.checksum, bucket.code)


@contextmanager
def made_once():
    """Many applications are made, and all say the same: catalogues, compiled templates, the hash that nothing fits."""
    catalogues, passwords, compiled = Catalogues(), Passwords(), defaultdict(_Compiled)
    made = templates._environment

    def environment(folders, assets, catalogues, locale):
        new = made(folders, assets, catalogues, locale)
        new.bytecode_cache = compiled[locale]
        return new

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("appliance.screen.app.Catalogues", lambda: catalogues)
        patch.setattr("appliance.web.sign_in.Passwords", lambda: passwords)
        patch.setattr(templates, "_environment", environment)
        yield


class InProcess(httpx.BaseTransport):
    """Calls an application as a server would, without one: quick, and nothing waits for a thread to end."""

    def __init__(self, app):
        self._app = app

    def handle_request(self, request):
        async def ask():
            answer = await httpx.ASGITransport(self._app).handle_async_request(request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(ask())


class Browser(httpx.Client):
    """Asks as a browser does: with cookies, and forms with origin and token."""

    def __init__(self, place, cookie=None, **more):
        """``place`` is the address of a server, or an application."""
        address = place if isinstance(place, str) else "http://127.0.0.1:8080"
        if address is not place:
            more = {"transport": InProcess(place)} | more
        super().__init__(base_url=address, headers={"Accept": "text/html"}, timeout=60, **more)
        self.address = address
        prefix = "__Host-" if address.startswith("https:") else ""
        self.session_name = prefix + COOKIE
        self.csrf_name = prefix + "scanside_csrf"
        if cookie:
            self.cookies.set(self.session_name, cookie)

    def form(self, path, headers=None, **fields):
        """Send a form of a page of ours; a list gives a field several times."""
        if self.csrf_name not in self.cookies:
            self.get("/sign-in")
        data = {"csrf": self.cookies[self.csrf_name]} | fields
        return self.post(path, data=data, headers={"Origin": self.address} | (headers or {}))

    def sign_in(self, name, password, **fields):
        """Give name and password."""
        return self.form("/sign-in", name=name, password=password, **fields)

    @property
    def session(self):
        """The cookie of the session; None without one."""
        return self.cookies.get(self.session_name)
