#!/usr/bin/env python3
"""Every state of the alert screen and every page of every role, in every language, as PNG files in build/screenshots.

.venv/bin/python tools/screenshots.py [STATE or PATH ...]      /studies takes the pages whose address begins so
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, sync_playwright
from screen_scenes import BROWSER_ARGUMENTS, SCENES, addresses, fill, packages

from appliance.clock import SystemClock
from appliance.config import Config, Site
from appliance.records import SYSTEM, UserRole
from appliance.screen import screen_app
from appliance.store import Store
from appliance.web.i18n import LOCALES
from appliance.web.server import WebServer

OUT = Path(__file__).resolve().parents[1] / "build" / "screenshots"
SIZES = {"1280x800": (1280, 800), "800x480": (800, 480)}


def browser_cookie(store: Store, address: str, role: UserRole = UserRole.SCREEN) -> dict[str, str]:
    """A session of a role, as a browser keeps it."""
    if role is UserRole.SCREEN:
        store.screens.offer("CT 1", (), "code", SYSTEM)
        cookie = store.sessions.open(store.screens.pair("code"), "pairing")
    else:
        number = store.accounts.add(str(role), str(role).title(), role, None, SYSTEM)
        cookie = store.sessions.open(store.accounts.get(number), "password")
    return {"name": "scanside_session", "value": cookie, "url": address}


def shoot(context: BrowserContext, scene: str, folder: Path) -> None:
    """One state, all languages and sizes."""
    store = Store.open(folder / scene, SystemClock())
    fill(store, "idle" if scene == "lost" else scene)
    server = WebServer(screen_app(store, Config(site=Site(name="Scanside · CT 1")), packages(), SystemClock()), port=0)
    port = server.start()
    context.add_cookies([browser_cookie(store, f"http://127.0.0.1:{port}")])
    page = context.new_page()
    try:
        for locale in LOCALES:
            context.add_cookies([{"name": "scanside_lang", "value": locale, "url": f"http://127.0.0.1:{port}"}])
            page.goto(f"http://127.0.0.1:{port}/alert")
            page.wait_for_selector("html[data-connection=live]")
            for size, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                if scene == "lost":
                    page.evaluate("document.documentElement.dataset.connection = 'lost'")
                page.wait_for_timeout(150)
                page.screenshot(path=OUT / f"{scene}.{locale}.{size}.png")
            if scene == "urgent":
                page.set_viewport_size({"width": 1280, "height": 800})
                page.click("[data-acknowledge]")
                page.screenshot(path=OUT / f"acknowledge.{locale}.1280x800.png")
            if scene == "quality":
                page.click("[data-decide]")
                for size, (width, height) in SIZES.items():
                    page.set_viewport_size({"width": width, "height": height})
                    page.screenshot(path=OUT / f"answer.{locale}.{size}.png")
    finally:
        page.close()
        server.stop()
        store.close()


def shoot_pages(browser: Browser, folder: Path, begins: tuple[str, ...]) -> None:
    """Every page of the application but the alert screen, as the first role that has it sees it."""
    store = Store.open(folder / "pages", SystemClock())
    fill(store, "several")
    app = screen_app(store, Config(site=Site(name="Scanside · CT 1")), packages(), SystemClock())
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    seen: set[str] = set()
    try:
        for role in (UserRole.ADMINISTRATOR, UserRole.RADIOLOGIST, UserRole.TECHNOLOGIST):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            context.add_cookies([browser_cookie(store, address, role)])
            page = context.new_page()
            for path in addresses(app, store, role):
                if path in seen or path == "/alert" or not path.startswith(begins):
                    continue
                seen.add(path)
                answer = page.request.get(address + path, max_redirects=0)
                if answer.status != 200 or not answer.body().lstrip().lower().startswith(b"<!doctype html"):
                    continue
                name = path.strip("/").replace("/", "-") or "home"
                for locale in LOCALES:
                    context.add_cookies([{"name": "scanside_lang", "value": locale, "url": address}])
                    page.goto(address + path)
                    page.wait_for_timeout(700)
                    page.screenshot(path=OUT / f"page.{name}.{role}.{locale}.png", full_page=True)
            context.close()
    finally:
        server.stop()
        store.close()


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[*SCENES, "lost", "/"])
    what = parser.parse_args().what
    states, begins = [one for one in what if one[0] != "/"], tuple(one for one in what if one[0] == "/")
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("chromium is not installed (apt-get install chromium)")
    OUT.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        context = playwright.chromium.launch_persistent_context(
            f"{folder}/profile", executable_path=browser, headless=True, args=list(BROWSER_ARGUMENTS)
        )
        for scene in states:
            shoot(context, scene, Path(folder))
        context.close()
        if begins:
            chromium = playwright.chromium.launch(executable_path=browser, args=list(BROWSER_ARGUMENTS))
            shoot_pages(chromium, Path(folder), begins)
            chromium.close()
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT}")


if __name__ == "__main__":
    main()
