"""What holds for every page of the box, whoever asks: readable, reachable, ours alone, small, in two languages.

The pages are the routes of the application: a new page is looked at without being named here.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from appliance.clock import SystemClock
from appliance.config import Config
from appliance.records import UserRole
from appliance.screen import app as screen_app_module
from appliance.screen import screen_app
from appliance.web.i18n import LOCALES, Catalogues
from appliance.web.server import WebServer

VENDOR = Path(__file__).parent / "vendor"
#: A whole word that an AI result must never be called (DESIGN §2); "normal" in a sentence about it is caught too.
BANNED = re.compile(r"\b(normal|negative|healthy)\b|正常|阴性", re.IGNORECASE)
#: What lies wider than the window although it need not, by 2 px at most: rounding.
TOO_WIDE = """() => {
  const out = [];
  const { scrollWidth } = document.documentElement;
  if (scrollWidth > innerWidth + 1) out.push(`page is ${scrollWidth} wide`);
  for (const box of document.querySelectorAll("button, .button, .tag, .chip, label, th, .level-word, .tabs a, nav a")) {
    if (box.scrollWidth > box.clientWidth + 2 && getComputedStyle(box).overflow === "hidden" && box.clientWidth)
      out.push(`${box.className || box.tagName}: "${box.textContent.trim().slice(0, 40)}" is cut off`);
  }
  return out;
}"""
#: Whether every character has a glyph: one that has none is drawn as the box that an unassigned character gets.
TOFU = """() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 40;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const font = getComputedStyle(document.body).fontFamily;
  const drawn = (sign) => {
    pen.clearRect(0, 0, 40, 40);
    pen.font = `24px ${font}`;
    pen.fillText(sign, 4, 30);
    return pen.getImageData(0, 0, 40, 40).data.join();
  };
  const box = drawn("\\u{10FFFE}");
  const signs = new Set(document.body.innerText.replace(/\\s/g, ""));
  return [...signs].filter((sign) => drawn(sign) === box);
}"""


@pytest.fixture
def site(store, scenes):
    """A store with several studies in it, its application and a running server."""
    scenes.fill(store, "several")
    app = screen_app(store, Config(), scenes.packages(), SystemClock())
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    yield app, address
    server.stop()


def visit(page, address, path):
    """Open a page; None where the address answers with something else, or refuses."""
    answer = page.request.get(address + path, max_redirects=0, timeout=20000)
    if answer.status != 200 or not answer.body().lstrip().lower().startswith(b"<!doctype html"):
        return None  # sent on, refused, or a part of a page
    page.goto(address + path, wait_until="load")
    return answer


def faults(page, locale):
    """What an open page does that no page may."""
    if page.locator("html").get_attribute("lang") != LOCALES[locale][0]:
        yield "another language"
    if page.locator("h1").count() < 1 or page.locator("main").count() != 1:
        yield "no heading, or not one main part"
    if banned := BANNED.search(page.inner_text("body")):
        yield f"says {banned.group()}"
    if signs := page.evaluate(TOFU):
        yield f"no glyph for {signs}"
    if locale != "en":
        return  # the same elements and colours
    page.evaluate((VENDOR / "axe.min.js").read_text("utf-8"))
    report = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
    for one in report["violations"]:
        if one["impact"] in {"serious", "critical"}:
            yield f"{one['id']}: {one['nodes'][0]['html'][:120]}"


@pytest.mark.req("R-SCREEN-05")
def test_every_page_is_accessible_ours_alone_and_says_nothing_that_it_must_not(
    site, store, scenes, signed_in, troubles
):
    app, address = site
    seen, wrong, found = set(), [], []
    for role in UserRole:
        context = signed_in(address, str(role))
        page = context.new_page()
        found.append(troubles(page))
        for path in scenes.addresses(app, store, role):
            # What two roles have in common is looked at once, but the alert screen, which differs.
            if path in seen and path != "/alert":
                continue
            for locale in LOCALES:
                context.add_cookies([{"name": "scanside_lang", "value": locale, "url": address}])
                if visit(page, address, path) is None:
                    continue
                seen.add(path)
                wrong += [f"{role} {path} in {locale}: {what}" for what in faults(page, locale)]
        context.close()
    assert wrong == []
    assert {"/alert", "/studies", "/models", "/sign-in"} <= seen
    assert [one for each in found for one in each] == []


def test_texts_that_are_longer_by_two_fifths_still_fit(site, store, scenes, signed_in, monkeypatch):
    class Longer(Catalogues):
        """English, each text longer by 40 % as a language may make it."""

        def __init__(self):
            super().__init__()
            english = self._by_locale["en"]
            for key, text in list(english._catalog.items()):
                if isinstance(text, str) and key:
                    longer = max(1, round(len(text) * 0.4))
                    english._catalog[key] = text + " ~~~~~" * (longer // 6) + "~" * (longer % 6)

    monkeypatch.setattr(screen_app_module, "Catalogues", Longer)
    app = screen_app(store, Config(), scenes.packages(), SystemClock())
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    try:
        cut = []
        for role in (UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR):
            page = signed_in(address, str(role)).new_page()
            for path in scenes.addresses(app, store, role):
                if path != "/alert" and visit(page, address, path) is not None:
                    cut += [f"{path}: {one}" for one in page.evaluate(TOO_WIDE)]
        assert cut == []
    finally:
        server.stop()


def test_scripts_and_styles_of_a_page_are_at_most_150_kb_compressed(site, store, scenes, signed_in):
    app, address = site
    loaded = []

    def keep(answer):  # Playwright takes no built-in method
        loaded.append(answer)

    for role in (UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR):
        page = signed_in(address, str(role)).new_page()
        page.on("response", keep)
        for path in scenes.addresses(app, store, role):
            loaded.clear()
            if visit(page, address, path) is None:
                continue
            parts = {one.url: one.body() for one in loaded if one.url.endswith((".js", ".css"))}
            size = sum(len(gzip.compress(body)) for body in parts.values())
            assert size <= 150_000, (path, size)


def test_what_is_taken_from_others_for_tests_is_what_its_list_says():
    lines = (VENDOR / "SHA256SUMS.txt").read_text("ascii").splitlines()
    for digest, name in (line.split() for line in lines):
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest
