"""A browser, a store on the machine's clock, and the real server of its screen."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

import pytest
import web_kit
from web_kit import browser_cookie

from appliance.clock import SystemClock
from appliance.config import Config, Site
from appliance.screen import screen_app
from appliance.store import Store
from appliance.web.server import WebServer


@pytest.fixture(scope="package", autouse=True)
def _what_all_applications_share_is_made_once():
    with web_kit.made_once():
        yield


@pytest.fixture(scope="session")
def chromium():
    """The path of Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    return path


@pytest.fixture(scope="module")
def playwright():
    """Ended with the module: while it runs, its event loop occupies the main thread, and asyncio.run fails there."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make venv)")
    with api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium_with(playwright, chromium, scenes):
    """``chromium_with(*arguments)``: a running browser with a profile of its own; one for each set of arguments."""
    running = {}

    def launch(*arguments):
        if arguments not in running:
            running[arguments] = playwright.chromium.launch(
                executable_path=chromium, headless=True, args=[*scenes.BROWSER_ARGUMENTS, *arguments]
            )
        return running[arguments]

    yield launch
    for browser in running.values():
        browser.close()


@pytest.fixture
def browser(chromium_with):
    """``browser(*arguments)``: a context: cookies, cache and windows of its own."""
    opened = []

    def context(*arguments, **options):
        made = chromium_with(*arguments).new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        opened.append(made)
        return made

    yield context
    for made in opened:
        made.close()


@pytest.fixture
def store(tmp_path):
    opened = Store.open(tmp_path / "state", SystemClock(), reserve_bytes=0)
    yield opened
    opened.close()


@pytest.fixture
def serve(store, scenes):
    """``serve(port)``: the screen of the store; returns the server and its address."""
    servers = []

    def start(port=0, config=None, **site):
        config = config or Config(site=Site(**site))
        server = WebServer(screen_app(store, config, scenes.packages(), SystemClock()), port=port)
        servers.append(server)
        return server, f"http://127.0.0.1:{server.start()}"

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def troubles():
    """``troubles(page)``: a list that fills with console errors, exceptions and requests to elsewhere.

    Elsewhere is every origin but that of the first page that it opens.
    """

    def watch(page):
        found, own = [], []

        def ask(request):
            url = urlsplit(request.url.removeprefix("blob:"))
            if not own and request.is_navigation_request():
                own.append((url.scheme, url.netloc))
            if (url.scheme, url.netloc) not in own:
                found.append(request.url)

        page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: found.append(str(error)))
        page.on("request", ask)
        return found

    return watch


@pytest.fixture
def signed_in(store, browser):
    """``signed_in(address, role)``: a browser in which somebody of a role is signed in; by default a paired screen."""

    def start(address, role="screen", *arguments, **options):
        context = browser(*arguments, **options)
        context.add_cookies([browser_cookie(store, address, role)])
        return context

    return start


@pytest.fixture
def open_page(serve, signed_in, troubles):
    """``open_page(query)``: a connected alert page; its list of troubles is ``page.troubles``."""

    def start(query="", *arguments, context=None, address=None, role="screen", path="/alert", **options):
        if address is None:
            _, address = serve()
        page = (context or signed_in(address, role, *arguments, **options)).new_page()
        page.troubles = troubles(page)
        page.goto(f"{address}{path}{query}")
        page.wait_for_selector("html[data-connection=live]")
        return page

    return start
