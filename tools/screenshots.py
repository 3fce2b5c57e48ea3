#!/usr/bin/env python3
"""Every state of the alert screen in every language and two sizes, as PNG files in build/screenshots.

.venv/bin/python tools/screenshots.py [STATE ...]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright
from screen_scenes import BROWSER_ARGUMENTS, SCENES, fill, packages

from appliance.clock import SystemClock
from appliance.config import Site
from appliance.screen import screen_app
from appliance.store import Store
from appliance.web.i18n import LOCALES
from appliance.web.server import WebServer

OUT = Path(__file__).resolve().parents[1] / "build" / "screenshots"
SIZES = {"1280x800": (1280, 800), "800x480": (800, 480)}


def shoot(context: BrowserContext, scene: str, folder: Path) -> None:
    """One state, all languages and sizes."""
    store = Store.open(folder / scene, SystemClock())
    fill(store, "idle" if scene == "lost" else scene)
    server = WebServer(screen_app(store, Site(name="Scanside · CT 1"), packages(), SystemClock()), port=0)
    port = server.start()
    page = context.new_page()
    try:
        for locale in LOCALES:
            page.goto(f"http://127.0.0.1:{port}/alert?lang={locale}")
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


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("states", nargs="*", default=[*SCENES, "lost"])
    states = parser.parse_args().states
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
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT}")


if __name__ == "__main__":
    main()
