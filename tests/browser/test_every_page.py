"""What holds for every page of the box, whoever asks: readable, reachable, ours alone, small, in two languages.

The pages are the routes of the application: a new page is looked at without being named here.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest
from admin_kit import FakeTools, settings_in
from web_kit import AXE, COOKIE, Longer, barriers, served

from appliance.clock import SystemClock
from appliance.config import Config
from appliance.records import Outcome, UserRole
from appliance.screen import app as screen_app_module
from appliance.screen import screen_app
from appliance.web.i18n import LOCALES
from appliance.web.server import WebServer
from engines.package import bundled_packages

#: A whole word that an AI result must never be called (DESIGN §2); "normal" in a sentence about it is caught too.
BANNED = re.compile(r"\b(normal|negative|healthy)\b|正常|阴性", re.IGNORECASE)
#: What Chromium says of an answer that is a refusal.
REFUSED = re.compile(r"^Failed to load resource: the server responded with a status of 4\d\d")
#: What lies wider than the window although it need not, by 2 px at most: rounding.
TOO_WIDE = """() => {
  const out = [];
  const whole = document.documentElement.scrollWidth;
  if (whole > innerWidth + 1) out.push(`page is ${whole} wide`);
  for (const box of document.querySelectorAll("button, .button, .tag, .chip, label, th, .level-word, .tabs a, nav a")) {
    if (!box.clientWidth || getComputedStyle(box).display === "inline") continue;
    const { scrollWidth, clientWidth } = box;
    if (scrollWidth > clientWidth + 2)
      out.push(`${box.className || box.tagName}: "${box.textContent.trim()}" needs ${scrollWidth} of ${clientWidth}`);
  }
  return out;
}"""
#: Functions that say what is wrong with a page as it is drawn.
LOOKS = Path(__file__).with_name("looks.js").read_text("utf-8")
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


#: Pages whose labels are looked at in Chinese too; their colours are the same.
IN_BOTH = {"/alert", "/studies", "/sign-in", "/users", "/settings/site"}


@pytest.fixture
def site(store, scenes, write):
    """A store with several studies in it, its application and a running server."""
    scenes.fill(store, "several")
    write(_packages)
    write(_owed_to_who_is_gone, scenes)
    pacs = {"kind": "dicom", "name": "PACS", "purpose": "test", "host": "127.0.0.1", "port": 1, "ae_title": "PACS"}
    config = Config.model_validate({"destinations": [pacs]})
    app = screen_app(store, config, scenes.packages(), SystemClock())
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    yield app, address
    server.stop()


def _owed_to_who_is_gone(tx, scenes):
    """Something waits for a destination that is no longer configured, so that giving it up has its dialog."""
    tx.insert(
        "delivery",
        destination="OLD-PACS",
        kind="sr",
        study_id=scenes.add_study(tx),
        sop_instance_uid="1.2.3.99",
        state="held",
        next_at=tx.at,
        owed_at=tx.at,
    )


def _packages(tx):
    """Two versions of one package, so that every act of the models' page has its button."""
    manifest = (bundled_packages()["head-ct-hyperdensity"] / "model.yaml").read_text("utf-8")
    for version, state in (("0.0.9", "silent"), ("0.1.0", "live")):
        tx.insert(
            "package",
            name="head-ct-hyperdensity",
            version=version,
            digest=version.ljust(64, "0"),
            origin="config",
            manifest=manifest,
            state=state,
            state_at=tx.at,
            installed_at=tx.at,
        )


@pytest.fixture(scope="module")
def known():
    """Which addresses are pages, as it was found out; what is none is not asked for again."""
    return {}


def visit(page, address, path, known):
    """Open a page; False where the address answers with something else, or refuses."""
    if path not in known:
        answer = page.request.get(address + path, max_redirects=0, timeout=20000)
        known[path] = answer.status == 200 and answer.body().lstrip().lower().startswith(b"<!doctype html")
    if known[path]:
        page.goto(address + path, wait_until="load")
    return known[path]


def faults(page, locale, *, labels, within="html"):
    """What an open page does that no page may; ``labels``: with what axe finds, which takes half a second."""
    if page.locator("html").get_attribute("lang") != LOCALES[locale][0]:
        yield "another language"
    if page.locator("h1").count() < 1 or page.locator("main").count() != 1:
        yield "no heading, or not one main part"
    yield from _of_words(page)
    if labels:
        yield from barriers(page, within, colours=locale == "en")


def _of_words(page):
    if banned := BANNED.search(page.inner_text("body")):
        yield f"says {banned.group()}"
    if signs := page.evaluate(TOFU):
        yield f"no glyph for {signs}"


def faults_of_dialogs(page, locale, path, seen, *, labels=True):
    """The same of every dialog, opened; of those that a page has many of, one."""
    for name in page.eval_on_selector_all("dialog[id]", "all => all.map(one => one.id)"):
        kind = (locale, re.sub(r"\d+", "N", path), re.sub(r"-.*\d.*", "", name))
        if kind in seen or not page.evaluate("name => !document.getElementById(name).open", name):
            continue
        seen.add(kind)
        page.evaluate("name => document.getElementById(name).showModal()", name)
        found = [*_of_words(page), *(barriers(page, "dialog[open]", colours=locale == "en") if labels else ())]
        if not page.evaluate("document.activeElement.closest('dialog')?.open"):
            found.append("the keyboard stays outside")
        page.evaluate("name => document.getElementById(name).close()", name)
        yield from (f"{name}: {what}" for what in found)


def speak(context, address, locale):
    context.add_cookies([{"name": "scanside_lang", "value": locale, "url": address}])


@pytest.mark.req("R-SCREEN-05")
def test_every_page_is_accessible_ours_alone_small_and_says_nothing_that_it_must_not(
    site, store, scenes, signed_in, troubles, known
):
    app, address = site
    seen, wrong, found, loaded, dialogs = set(), [], [], [], set()

    def keep(answer):  # Playwright takes no built-in method
        loaded.append(answer)

    for role in UserRole:
        context = signed_in(address, str(role))
        page = context.new_page()
        page.on("response", keep)
        found.append(troubles(page))
        for path in scenes.addresses(app, store, role):
            # What two roles have in common is looked at once, but the alert screen, which differs.
            if path in seen and path != "/alert":
                continue
            for locale in LOCALES:
                speak(context, address, locale)
                loaded.clear()
                if not visit(page, address, path, known):
                    break
                seen.add(path)
                labels = locale == "en" or path in IN_BOTH
                wrong += [f"{role} {path} in {locale}: {what}" for what in faults(page, locale, labels=labels)]
                if path != "/alert":  # its dialogs are opened by test_alert_states.py, as people open them
                    looked = faults_of_dialogs(page, locale, path, dialogs, labels=labels)
                    wrong += [f"{role} {path} in {locale}: {what}" for what in looked]
                parts = {one.url: one.body() for one in loaded if one.url.endswith((".js", ".css"))}
                size = sum(len(gzip.compress(body)) for body in parts.values())
                if not 10_000 < size <= 150_000:
                    wrong.append(f"{path}: {size} bytes of scripts and styles, compressed")
        context.close()
    assert wrong == []
    assert {"/alert", "/studies", "/models", "/sign-in"} <= seen
    kinds = {(path, name) for locale, path, name in dialogs if locale == "zh_Hans_CN"}
    assert {
        ("/studies", "keys"),
        ("/studies/N", "viewer-keys"),
        ("/studies/N/review", "proof"),
        ("/destinations", "pause-PACS"),
        ("/destinations", "forget"),
        ("/models", "live"),
        ("/models", "stop"),
        ("/screens", "revoke"),
    } <= kinds
    assert [one for each in found for one in each] == []


def _removed(scenes, tx):
    study = scenes.warned(tx)
    tx.execute("UPDATE study SET images_removed_at = ? WHERE id = ?", (tx.at, study))
    return study


def _twice(scenes, tx):
    """An image came in two versions of which somebody must choose one."""
    study = scenes.nothing_flagged(tx)
    version = tx.one(
        "SELECT v.* FROM version v JOIN instance i ON i.id = v.instance_id JOIN series s ON s.id = i.series_id"
        " WHERE s.study_id = ?",
        (study,),
    )
    tx.insert("version", **(dict(version) | {"id": None, "n": 2, "state": "conflict", "path": "store/00/b.dcm"}))
    return study


#: What else a study may be than flagged, and what its page then shows. The page of a flagged one is looked at above.
STUDIES = {
    "not analysed": (lambda scenes, tx: scenes.not_analysed(tx), "card"),
    "quality": (lambda scenes, tx: scenes.warned(tx, findings=("bases", "rotated")), "card"),
    "for nobody": (lambda scenes, tx: scenes.add_study(tx, outcome=Outcome.NOT_APPLICABLE), "study"),
    "receiving": (lambda scenes, tx: scenes.add_study(tx, is_open=True), "study"),
    "removed": (_removed, "removed"),
    "two versions": (_twice, "conflict"),
}


@pytest.mark.long
@pytest.mark.req("R-SCREEN-05")
def test_a_study_that_is_not_flagged_and_its_review_are_as_good_as_one_that_is(
    store, scenes, write, serve, signed_in, troubles
):
    wrong, found = [], []
    _, address = serve()
    pages = {}
    for role in ("technologist", "radiologist"):
        pages[role] = signed_in(address, role).new_page()
        found.append(troubles(pages[role]))
    for name, (make, shows) in STUDIES.items():
        study = write(lambda tx, make=make: make(scenes, tx))
        page = pages["technologist"]
        page.goto(f"{address}/studies/{study}")
        assert page.get_by_test_id(shows).first.is_visible(), name
        wrong += [f"{name}: {what}" for what in _looked_at(page)]
        if name == "quality":
            pages["radiologist"].goto(f"{address}/studies/{study}/review")
            wrong += [f"review of {name}: {what}" for what in _looked_at(pages["radiologist"])]
    assert wrong == []
    assert [one for each in found for one in each if not REFUSED.search(one)] == []


def _looked_at(page):
    yield from faults(page, "en", labels=True, within="main")
    yield from page.evaluate(f"() => {{ {LOOKS}\nreturn faint(); }}")
    yield from page.evaluate(TOO_WIDE)


def submit(page, form, **fields):
    """Send a form as it stands, though the browser would ask for more."""
    for name, value in fields.items():
        page.fill(f"{form} [name={name}]", value)
    with page.expect_navigation():
        page.eval_on_selector(form, "form => { form.noValidate = true; form.requestSubmit(); }")


#: Of a box that nobody has set up: the steps, and what its pages say while there is nothing to show.
EMPTY = {
    "administrator": (
        *("/setup/site", "/setup/receive", "/setup/pacs", "/setup/models", "/setup/screen", "/setup/test"),
        *("/setup/sheet", "/studies", "/destinations", "/models", "/health", "/audit", "/users", "/screens"),
    ),
    "radiologist": ("/reviews", "/statistics", "/critical-values"),
}


@pytest.mark.long
@pytest.mark.req("R-SCREEN-05", "R-SCREEN-10", "R-ADMIN-07")
def test_a_new_box_its_set_up_and_forms_that_are_refused_are_as_good_as_the_rest(
    store, browser, signed_in, troubles, tmp_path
):
    """X1, X3 and X5 in the states that every box is in once, and that every person causes now and then."""
    settings = settings_in(tmp_path, f"state_path: {tmp_path / 'state'}\n")
    app = screen_app(store, settings.loaded.config, {}, SystemClock(), FakeTools(settings))
    wrong, found, seen = [], [], set()

    def look(page, locale, where, *, labels=False):
        named = {"lang": locale, "where": where}
        # The frame is the same on all of them.
        within = "html" if where == "/setup" else "main"
        labels = labels or locale == "en"
        wrong.extend(f"{named}: {what}" for what in faults(page, locale, labels=labels, within=within))
        wrong.extend(f"{named}: {what}" for what in faults_of_dialogs(page, locale, where, seen))
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong.append(f"{named}: wider than the window")

    with served(app) as address:
        store.setup.new_code()
        stranger = browser()
        page = stranger.new_page()
        found.append(troubles(page))
        for locale in LOCALES:
            speak(stranger, address, locale)
            page.goto(f"{address}/setup")
            look(page, locale, "/setup", labels=True)
            submit(page, "main form", code="AAAAA-BBBBB", name="a b", password="short", again="other")  # noqa: S106
            assert page.locator("main .wrong").count() >= 3
            look(page, locale, "/setup refused", labels=True)
            page.goto(f"{address}/sign-in")
            submit(page, "main form", name="nobody", password="wrong wrong wrong")  # noqa: S106
            assert page.get_by_test_id("error").is_visible()
            look(page, locale, "/sign-in refused", labels=True)
            stranger.add_cookies([{"name": COOKIE, "value": "of-a-session-that-is-over", "url": address}])
            page.goto(f"{address}/studies")
            assert page.get_by_test_id("over").is_visible()
            look(page, locale, "/sign-in when a session is over")
            page.goto(f"{address}/pair")
            submit(page, "main form", code="000000")
            look(page, locale, "/pair refused")
            page.goto(f"{address}/nowhere")
            assert page.get_by_test_id("trouble").is_visible()
            look(page, locale, "nowhere")
        for role, paths in EMPTY.items():
            person = signed_in(address, role)
            page = person.new_page()
            found.append(troubles(page))
            for locale in LOCALES:
                speak(person, address, locale)
                for path in paths:
                    page.goto(address + path)
                    look(page, locale, path, labels=path == "/setup/receive")
                if role != "administrator":
                    continue
                page.goto(f"{address}/users")
                submit(page, "main form", name="a b", full_name="")
                assert page.locator("main .error").first.is_visible()
                look(page, locale, "/users refused")
                page.goto(f"{address}/settings/sources")
                submit(page, "main form", text="- name: CT 1\n  ae_title: X\n")
                look(page, locale, "/settings refused")
                page.goto(f"{address}/settings/site")
                submit(page, "main form", name=f"Ward {locale}")
                assert "+name: Ward" in page.inner_text("main")
                look(page, locale, "/settings difference", labels=True)
                submit(page, "main form:has([name=reason])", reason="")
                assert page.locator("main .error, main [role=alert]").first.is_visible()
                look(page, locale, "/settings without a reason")
                page.goto(f"{address}/users")
                page.eval_on_selector_all("[name=csrf]", "all => all.forEach(one => { one.value = 'old'; })")
                submit(page, "main form", name="x", full_name="X")
                assert page.get_by_test_id("back").is_visible()
                look(page, locale, "too old", labels=True)
                page.get_by_test_id("back").click()
                page.wait_for_url("**/users")
    assert wrong == []
    # The browser reports every answer of 4xx, which here are meant; all else is a trouble.
    assert [one for each in found for one in each if not REFUSED.search(one)] == []


@pytest.mark.long
def test_texts_that_are_longer_by_two_fifths_still_fit(site, store, scenes, signed_in, monkeypatch, known):
    monkeypatch.setattr(screen_app_module, "Catalogues", Longer)
    app = screen_app(store, Config(), scenes.packages(), SystemClock())
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    try:
        cut = []
        # The words of /alert are measured by test_alert_states.py, and /sign-in sends there who is signed in.
        seen = {"/alert", "/sign-in"}
        for role in (UserRole.TECHNOLOGIST, UserRole.RADIOLOGIST, UserRole.ADMINISTRATOR, UserRole.SERVICE):
            page = signed_in(address, str(role)).new_page()
            for path in scenes.addresses(app, store, role):
                # Of what several roles have, each has its own acts on the page of a study.
                if path not in seen and visit(page, address, path, known):
                    seen |= set() if re.fullmatch(r"/studies/\d+", path) else {path}
                    cut += [f"{path}: {one}" for one in page.evaluate(TOO_WIDE)]
        assert cut == []
    finally:
        server.stop()


def test_what_is_taken_from_others_for_tests_is_what_its_list_says():
    lines = (AXE.parent / "SHA256SUMS.txt").read_text("ascii").splitlines()
    for digest, name in (line.split() for line in lines):
        assert hashlib.sha256((AXE.parent / name).read_bytes()).hexdigest() == digest
