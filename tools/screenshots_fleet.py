#!/usr/bin/env python3
"""The README's pictures of the fleet's console, into docs/images: ``scanside-fleet demo`` at its end, looked at.

    .venv/bin/python tools/screenshots_fleet.py     alone, in two minutes; ``screenshots.py --readme`` takes them too

Needs chromium and mosquitto.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from appliance.fleet.server.demo.demo import Demo
from appliance.web.i18n import LOCALES

README = Path(__file__).resolve().parents[1] / "docs" / "images"
SHORT = {"zh_Hans_CN": "zh"}


def take_fleet(browser: Browser) -> None:
    """The overview, and the roll-out that a bad canary stopped, in both languages."""
    # A folder of its own at the top: started by root, the broker is another user, who must get there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, Demo(Path(place), print) as demo:
        if not demo.run():
            raise RuntimeError("the fleet's demo did not go as it should: no pictures")
        with browser.new_context(viewport={"width": 1280, "height": 800}, ignore_https_errors=True) as context:
            page = context.new_page()
            base = str(demo.sign_in["url"]).rstrip("/")
            page.goto(f"{base}/sign-in")
            page.fill("input[name=name]", demo.sign_in["names"][-1])
            page.fill("input[name=password]", demo.sign_in["password"])
            page.get_by_test_id("submit").click()
            page.get_by_test_id("boxes").wait_for()
            page.goto(f"{base}/rollouts")
            stopped = page.locator("tbody a[href^='/rollouts/']").last.get_attribute("href")
            for name, path in (("fleet", "/"), ("rollout", str(stopped))):
                for locale in LOCALES:
                    context.add_cookies([{"name": "scanside_lang", "value": locale, "url": base}])
                    _take(page, base + path, README / f"{name}.{SHORT.get(locale, locale)}.png")


def _take(page: Page, address: str, file: Path) -> None:
    page.goto(address)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=file)


def main() -> None:
    """Take the pictures."""
    executable = shutil.which("chromium")
    if executable is None:
        sys.exit("chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        take_fleet(browser)
        browser.close()


if __name__ == "__main__":
    main()
