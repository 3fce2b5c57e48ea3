"""Pages of administration without a browser: a served store, somebody signed in, forms as a page sends them."""

from __future__ import annotations

import re
from contextlib import contextmanager

import httpx
from web_kit import COOKIE, session

from appliance.config import Config
from appliance.screen import screen_app
from appliance.screen.tools import EngineState, NoTools, Probe
from appliance.settings import Settings, load_box
from appliance.web.server import WebServer


class FakeTools(NoTools):
    """A box that answers as a test says."""

    restarts = "systemd"

    def __init__(self, settings=None, engines=()):
        self.settings = settings
        self._engines = list(engines)
        self.asked, self.restarted = [], 0
        self.answer = Probe(ok=True, ms=4.0, words="it answers")

    def probe(self, destination):
        self.asked.append(destination.name)
        return self.answer

    def engines(self):
        return self._engines

    def doctor(self):
        return {"ok": True, "checks": [{"what": "destination PACS", "found": "PACS at 10.9.8.7:104 answers"}]}

    def restart(self):
        self.restarted += 1


def engine(package, version, state):
    return EngineState(package=package, version=version, wanted="tensorrt fp16", state=state)


def settings_in(folder, text, name="appliance.yaml"):
    """The settings of a box whose file says ``text``."""
    base = folder / name
    base.write_text(text, encoding="utf-8")
    loaded = load_box(base)
    loaded.config.state_path.mkdir(parents=True, exist_ok=True)
    return Settings(loaded)


class Person:
    """A browser of somebody, without a browser."""

    def __init__(self, client):
        self.client = client

    def get(self, path):
        return self.client.get(path, headers={"Accept": "text/html"})

    def post(self, path, **fields):
        if "scanside_csrf" not in self.client.cookies:
            self.get("/sign-in")
        return self.client.post(path, data={"csrf": self.client.cookies["scanside_csrf"], **fields})


@contextmanager
def served(store, clock, packages, *, config=None, tools=None):
    """``with served(...) as somebody``: ``somebody(role)`` is a ``Person``."""
    server = WebServer(screen_app(store, config or Config(), packages, clock, tools), port=0)
    address = f"http://127.0.0.1:{server.start()}"
    clients = []

    def somebody(role=None):
        cookies = {COOKIE: session(store, role)} if role else {}
        client = httpx.Client(
            base_url=address,
            verify=False,  # noqa: S501 - loopback without TLS; a context takes longer than a page
            headers={"Origin": address},
            cookies=cookies,
            follow_redirects=True,
            timeout=60,
        )
        clients.append(client)
        return Person(client)

    try:
        yield somebody
    finally:
        for client in clients:
            client.close()
        server.stop()


def hidden(html, name):
    """The value of a hidden field."""
    import html as entities

    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, name
    return entities.unescape(found[1])
