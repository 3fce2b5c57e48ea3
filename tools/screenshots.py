#!/usr/bin/env python3
"""Every page x state x language as build/screenshots/<page>-<state>-<locale>-<width>.png, with an index.html.

    .venv/bin/python tools/screenshots.py                  all
    .venv/bin/python tools/screenshots.py urgent quality   these scenes of the alert screen
    .venv/bin/python tools/screenshots.py /studies /setup  the pages whose address begins so
    .venv/bin/python tools/screenshots.py --readme         those of the README, into docs/images; needs mosquitto

The alert screen is taken in every scene of ``screen_scenes.SCENES``, at two sizes. The other pages are the routes of
the application, so that a new page is taken without being named here, each with every dialog that a button of it
opens: of a new box, of one in use, and of one in trouble (``screen_worlds``).
"""

from __future__ import annotations

import argparse
import contextlib
import html
import itertools
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright
from screen_scenes import BROWSER_ARGUMENTS, NO_PAGES, SCENES, fill, packages
from screen_worlds import Ran, World, box_in_trouble, box_in_use, new_box, run_demo
from screenshots_fleet import take_fleet

from appliance.clock import SystemClock
from appliance.config import Config, Site
from appliance.records import SYSTEM, UserRole
from appliance.screen import screen_app
from appliance.screen.setup_first import ORDER
from appliance.settings import SECTIONS
from appliance.store import Store
from appliance.web.access import Guarded
from appliance.web.i18n import LOCALES
from appliance.web.server import WebServer

ROOT = Path(__file__).resolve().parents[1]
OUT, README = ROOT / "build" / "screenshots", ROOT / "docs" / "images"
SIZES = ((1280, 800), (800, 480))
#: Dialogs of the alert screen: the scene, what opens it there, and its name.
DIALOGS = (
    ("urgent", "[data-acknowledge]", "acknowledge"),
    ("seen", "[data-tell]", "tell"),
    ("quality", "[data-decide]", "answer"),
    ("idle", "[data-do=keys]", "keys"),
)
#: Who is asked for a page first; what nobody has seen yet is taken as the next one sees it.
ROLES = (None, UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR, UserRole.TECHNOLOGIST, UserRole.SERVICE)
#: What nobody is meant to meet, and must be able to read when it happens.
AMISS = (
    ("unknown-study", UserRole.RADIOLOGIST, "/studies/99999"),
    ("not-allowed", UserRole.VIEWER, "/users"),
    ("signed-out", None, "/studies"),
)
#: File, role, page, size.
OF_README = (
    ("alert", None, "/alert", (1280, 800)),
    ("study", UserRole.RADIOLOGIST, "/studies/{finding}", (1280, 800)),
    ("review", UserRole.RADIOLOGIST, "/studies/{finding}/review", (1280, 800)),
    ("worklist", UserRole.RADIOLOGIST, "/studies", (1280, 800)),
    ("health", UserRole.ADMINISTRATOR, "/health", (1280, 800)),
    ("setup", UserRole.ADMINISTRATOR, "/setup/receive", (1280, 800)),
)
SHORT = {"zh_Hans_CN": "zh"}
_SETTLE_MS, _DRAWN_MS = 20_000, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One page of a world.

    Attributes:
        name: Of its file.
        path: Where it is.
        route: Of the application, with what differs between its pages in braces.
    """

    name: str
    path: str
    route: str


def cookie(store: Store, url: str, role: UserRole) -> dict[str, str]:
    """A session of a role, as a browser keeps it."""
    if role is UserRole.SCREEN:
        store.screens.offer("CT 1", (), "code", SYSTEM)
        value = store.sessions.open(store.screens.pair("code"), "pairing")
    else:
        found = store.accounts.by_name(str(role))
        account = found[0] if found else store.accounts.get(_add(store, role))
        value = store.sessions.open(account, "password")
    return {"name": "scanside_session", "value": value, "url": url}


def _add(store: Store, role: UserRole) -> int:
    return store.accounts.add(str(role), f"Demo {role}", role, None, SYSTEM)


def speak(context: BrowserContext, url: str, locale: str) -> None:
    """From the next page on."""
    context.add_cookies([{"name": "scanside_lang", "value": locale, "url": url}])


@contextlib.contextmanager
def served(world: World) -> Iterator[tuple[WebServer, str]]:
    """The world's server, and its address."""
    app = screen_app(world.store, world.config, world.packages, SystemClock(), world.tools)
    server = WebServer(app, port=0)
    try:
        yield server, f"http://127.0.0.1:{server.start()}"
    finally:
        server.stop()


def settled(page: Page) -> None:
    """Fonts are there, the page is connected where it connects, an image is on the screen where there is one."""
    page.wait_for_load_state("load")
    if page.locator("html[data-live], html[data-state]").count():
        page.wait_for_selector("html[data-connection=live]", timeout=_SETTLE_MS)
    if page.locator("image-view").count():
        page.wait_for_selector("image-view:is([data-state=shown], [data-state=none])", timeout=_SETTLE_MS)
    if page.locator("#plots .plot").count():
        # A box that has measured nothing yet draws nothing.
        with contextlib.suppress(Error):
            page.wait_for_selector("#plots[data-drawn=true]", timeout=_DRAWN_MS)
    page.evaluate("document.fonts.ready.then(() => true)")
    # Two frames: what a script has just written is painted.
    page.wait_for_timeout(120)


def take(page: Page, name: str, locale: str, *, whole: bool = False) -> None:
    """One picture. A whole page is as long as it is; without, what a window shows."""
    width = page.viewport_size["width"] if page.viewport_size else 0
    page.screenshot(path=OUT / f"{name}-{SHORT.get(locale, locale)}-{width}.png", full_page=whole)


# The alert screen ------------------------------------------------------------------------------------------------


def take_scene(context: BrowserContext, scene: str, folder: Path) -> None:
    """One state of the alert screen, in all languages and sizes, with the dialogs that are opened in it."""
    store = Store.open(folder / scene, SystemClock())
    fill(store, "idle" if scene == "lost" else scene)
    server = WebServer(screen_app(store, Config(site=Site(name="Scanside · CT 1")), packages(), SystemClock()), port=0)
    url = f"http://127.0.0.1:{server.start()}"
    context.add_cookies([cookie(store, url, UserRole.SCREEN)])
    page = context.new_page()
    try:
        for locale, (width, height) in itertools.product(LOCALES, SIZES):
            speak(context, url, locale)
            page.set_viewport_size({"width": width, "height": height})
            page.goto(f"{url}/alert")
            settled(page)
            if scene == "lost":
                page.evaluate("document.documentElement.dataset.connection = 'lost'")
            take(page, f"alert-{scene}", locale)
            for where, opener, dialog in DIALOGS:
                if where == scene:
                    page.locator(opener).first.click()
                    page.wait_for_selector("dialog[open]")
                    take(page, f"alert-{scene}-{dialog}", locale)
                    page.keyboard.press("Escape")
    finally:
        page.close()
        server.stop()
        store.close()


# The other pages -------------------------------------------------------------------------------------------------


def places(world: World) -> dict[str, Mapping[str, object]]:
    """What may stand in an address for each name in braces: by a word for the file's name."""
    account = world.store.db.one("SELECT min(id) AS id FROM account")
    points = {
        one.name: f"{one.name}/{one.version}/points/{next(iter(world.packages[one.name].findings))}"
        for one in world.store.packages.all()
        if one.name in world.packages and world.packages[one.name].findings
    }
    return {
        "study_id": world.studies,
        "account_id": {"one": account["id"]} if account and account["id"] else {},
        "section": {one: one for one in SECTIONS},
        "step": {one: one for one in ORDER[1:]},
        "points": points,
    }


def addresses(world: World, role: UserRole | None) -> Iterator[Address]:
    """What may answer a role with a page, by the routes themselves; what is named in them is taken from the world."""
    app = screen_app(world.store, world.config, world.packages, SystemClock(), world.tools)
    known = places(world)
    for route in app.routes:
        if not isinstance(route, Guarded) or "GET" not in (route.methods or ()):
            continue
        if route.path in NO_PAGES | {"/alert"} or route.path.startswith(("/assets", "/api")):
            continue
        if (role is None and route.roles is not None) or (route.roles is not None and role not in route.roles):
            continue
        pattern = route.path.replace("{name}/{version}/points/{finding}", "{points}")
        wanted = re.findall(r"\{(\w+)(?::\w+)?\}", pattern)
        if not set(wanted) <= set(known):
            continue
        for chosen in itertools.product(*(known[one].items() for one in wanted)):
            path = name = re.sub(r":\w+\}", "}", pattern)
            for one, (label, value) in zip(wanted, chosen, strict=True):
                path, name = path.replace(f"{{{one}}}", str(value)), name.replace(f"{{{one}}}", label)
            yield Address(name=name.strip("/").replace("/", "-") or "home", path=path, route=pattern)


def take_world(
    browser: Browser, world: World, state: str, begins: tuple[str, ...], opened: set[tuple[str, str, str]]
) -> None:
    """Every page of a world but the alert screen, as the first role that has it sees it.

    ``opened`` holds the dialogs that were taken, as route, kind and language: each is taken once.
    """
    with served(world) as (_, url):
        seen: set[str] = set()
        for role in ROLES:
            with signed_in(browser, world, url, role) as (context, page):
                for one in addresses(world, role):
                    if one.path not in seen and one.path.startswith(begins) and is_page(page, url + one.path):
                        seen.add(one.path)
                        take_page(context, page, url, one, state, opened)
        for name, role, path in AMISS if begins == ("/",) and state == "used" else ():
            with signed_in(browser, world, url, role) as (context, page):
                take_page(context, page, url, Address(name=f"amiss-{name}", path=path, route=path), state, opened)


@contextlib.contextmanager
def signed_in(browser: Browser, world: World, url: str, role: UserRole | None) -> Iterator[tuple[BrowserContext, Page]]:
    """A browser of somebody; None has not signed in."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        if role is not None:
            context.add_cookies([cookie(world.store, url, role)])
        yield context, context.new_page()
    finally:
        context.close()


def is_page(page: Page, url: str) -> bool:
    """Whether something for a person to read answers there, and not a part of a page, a file or a way elsewhere."""
    answer = page.request.get(url, max_redirects=0, timeout=_SETTLE_MS)
    return answer.status == 200 and answer.body().lstrip().lower().startswith(b"<!doctype html")


def take_page(
    context: BrowserContext, page: Page, url: str, one: Address, state: str, opened: set[tuple[str, str, str]]
) -> None:
    """One page in every language: as it opens, and with each dialog that was not taken yet."""
    for locale in LOCALES:
        speak(context, url, locale)
        page.goto(url + one.path)
        try:
            settled(page)
        except Error as error:
            print(f"{one.path} in {locale}: {str(error).splitlines()[0]}", file=sys.stderr)
        take(page, f"{one.name}-{state}", locale, whole=True)
        openers = page.locator("[data-open]:visible:enabled")
        for number in range(openers.count()):
            opener = openers.nth(number)
            # One of each kind: revoke-3 is revoke-4 with another name in it.
            kind = (opener.get_attribute("data-open") or "").partition("-")[0]
            if (one.route, kind, locale) not in opened:
                opened.add((one.route, kind, locale))
                opener.click()
                take(page, f"{one.name}-{state}-{kind}", locale)
                page.keyboard.press("Escape")


# What shows them -------------------------------------------------------------------------------------------------

_STYLE = (
    "body{background:#111;color:#ddd;font:14px sans-serif}h2{margin:2em 0 .5em}"
    "figure{display:inline-block;margin:0 8px 8px 0;vertical-align:top}img{max-width:46vw;border:1px solid #444}"
)


def write_index(folder: Path) -> None:
    """A page on which each picture stands beside its other languages and sizes."""
    by_title: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.png")):
        by_title.setdefault(path.stem.rsplit("-", 2)[0], []).append(path)
    parts = ["<!doctype html><meta charset=utf-8><title>Screenshots</title>", f"<style>{_STYLE}</style>"]
    for title, paths in by_title.items():
        parts.append(f'<h2 id="{html.escape(title)}">{html.escape(title)}</h2>')
        for path in sorted(paths, key=lambda one: (-int(one.stem.rsplit("-", 1)[1]), one.name)):
            name = html.escape(path.name)
            parts.append(f'<figure><a href="{name}"><img loading=lazy src="{name}"></a><figcaption>{name}</figure>')
    (folder / "index.html").write_text("\n".join(parts), encoding="utf-8")


def take_readme(browser: Browser, world: World) -> None:
    """The pictures of the README, in both languages."""
    with served(world) as (_, url):
        for name, role, path, (width, height) in OF_README:
            with signed_in(browser, world, url, role or UserRole.SCREEN) as (context, page):
                page.set_viewport_size({"width": width, "height": height})
                for locale in LOCALES:
                    speak(context, url, locale)
                    page.goto(url + path.format(**world.studies))
                    settled(page)
                    page.screenshot(path=README / f"{name}.{SHORT.get(locale, locale)}.png")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="scenes of the alert screen, or beginnings of addresses; all")
    parser.add_argument("--readme", action="store_true", help="the pictures of the README, into docs/images")
    options = parser.parse_args()
    scenes = [one for one in options.what if one[0] != "/"]
    begins = tuple(one for one in options.what if one[0] == "/")
    if not options.what:
        scenes, begins = [*SCENES, "lost"], ("/",)
    if unknown := set(scenes) - {*SCENES, "lost"}:
        sys.exit(f"no scene is called {', '.join(sorted(unknown))}; there are {', '.join([*SCENES, 'lost'])}")
    executable = shutil.which("chromium")
    if executable is None:
        sys.exit("chromium is not installed (apt-get install chromium)")
    OUT.mkdir(parents=True, exist_ok=True)
    if not options.what and not options.readme:
        for old in OUT.glob("*.png"):
            old.unlink()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        browser = playwright.chromium.launch(executable_path=executable, args=list(BROWSER_ARGUMENTS))
        if options.readme:
            with box_in_use(folder, run_demo(folder)) as world:
                take_readme(browser, world)
            take_fleet(browser)
            browser.close()
            return
        for scene in scenes:
            context = browser.new_context()
            take_scene(context, scene, folder)
            context.close()
        if begins:
            ran = run_demo(folder)
            worlds: tuple[tuple[str, Callable[[Path, Ran], AbstractContextManager[World]]], ...] = (
                ("new", lambda where, _: new_box(where)),
                ("used", box_in_use),
                ("trouble", box_in_trouble),
            )
            opened: set[tuple[str, str, str]] = set()
            for state, world_of in worlds:
                with world_of(folder, ran) as world:
                    take_world(browser, world, state, begins, opened)
        browser.close()
    write_index(OUT)
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT / 'index.html'}")


if __name__ == "__main__":
    main()
