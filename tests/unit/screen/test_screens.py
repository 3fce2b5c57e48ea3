"""Pairing: a code read out, a link that needs no hands, guesses that get nowhere."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from click.testing import CliRunner
from web_kit import Browser, session

from appliance.cli import main
from appliance.config import Config
from appliance.records import SYSTEM
from appliance.screen import screen_app
from appliance.store.facts import Kind

pytestmark = pytest.mark.req("R-ACCESS-04")

CONFIG = {"sources": [{"name": name, "ae_title": name} for name in ("CT-1", "CT-2")]}


@pytest.fixture
def app(store, clock, scenes):
    return screen_app(store, Config.model_validate(CONFIG), scenes.packages(), clock)


@pytest.fixture
def admin(store, app):
    with Browser(app, session(store, "administrator")) as opened:
        yield opened


def test_a_code_that_is_read_out_makes_a_browser_the_screen_of_its_sources(store, app, admin):
    page = admin.form("/screens", name="CT-1 console", source=["CT-1"])
    code = re.search(r'data-testid="secret">([^<]+)<', page.text)[1]
    assert re.fullmatch(r"\d{3} \d{3}", code)
    assert "http://127.0.0.1:8080/pair" in page.text
    with Browser(app) as kiosk:
        answer = kiosk.form("/pair", code=code)
        assert 'content="0;url=/alert"' in answer.text
        flags = next(value for value in answer.headers.get_list("set-cookie") if "scanside_session=" in value)
        assert "Max-Age=315360000" in flags
        assert kiosk.get("/alert").status_code == 200
        assert kiosk.get("/users").status_code == 403
        found = store.sessions.find(kiosk.session)
        assert (found.screen.name, found.screen.sources) == ("CT-1 console", ("CT-1",))
    assert [fact.body["how"] for fact in store.journal.after(0, 100, (Kind.SIGNED_IN,))][-1] == "pairing"
    assert "CT-1 console" in admin.get("/screens").text


def test_a_link_pairs_without_hands_and_a_kiosk_may_open_it_at_every_start(store, app):
    store.screens.offer("kiosk", (), "t" * 43, SYSTEM)
    with Browser(app) as looking:
        assert looking.head("/pair", params={"ticket": "t" * 43}).status_code == 204
        ahead = {"Sec-Purpose": "prefetch;prerender"}
        assert looking.get("/pair", params={"ticket": "t" * 43}, headers=ahead).status_code == 204
    with Browser(app) as kiosk:
        assert 'content="0;url=/alert"' in kiosk.get("/pair", params={"ticket": "t" * 43}).text
        assert kiosk.get("/alert").status_code == 200
        assert kiosk.get("/pair", params={"ticket": "t" * 43}).headers["location"] == "/alert"
    with Browser(app) as another:
        answer = another.get("/pair", params={"ticket": "t" * 43})
        assert (answer.status_code, another.session) == (422, None)


def test_what_is_no_name_or_source_gets_no_code(store, admin):
    assert admin.form("/screens", name="", source=["CT-1"]).status_code == 422
    assert admin.form("/screens", name="x", source=["CT-9"]).status_code == 422
    assert store.screens.all() == []


@pytest.mark.req("R-ACCESS-06")
def test_codes_cannot_be_guessed(store, app, clock):
    store.screens.offer("ct-1", (), "123456", SYSTEM)
    with Browser(app) as guesser:
        assert [guesser.form("/pair", code=str(n)).status_code for n in range(5)] == [422] * 5
        answer = guesser.form("/pair", code="123456")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "61")
        for _ in range(3):
            clock.advance(61)
            assert [guesser.form("/pair", code="9").status_code for n in range(5)] == [422] * 5
        clock.advance(61)
        # Twenty in an hour: now nobody, wherever they are.
        assert guesser.form("/pair", code="123456").status_code == 429
        store.screens.offer("ct-2", (), "t" * 43, SYSTEM)
        assert guesser.get("/pair", params={"ticket": "t" * 43}).status_code == 200


def test_a_revoked_screen_shows_nothing_more_at_once(store, app, admin):
    with Browser(app, session(store, sources=("CT-1",))) as kiosk:
        assert kiosk.get("/alert").status_code == 200
        (screen,) = store.screens.all()
        unsaid = admin.form(f"/screens/{screen.id}/revoke", reason=" ")
        assert (unsaid.status_code, "Say why" in unsaid.text) == (422, True)
        assert kiosk.get("/alert").status_code == 200
        assert admin.form(f"/screens/{screen.id}/revoke", reason="moved to CT-2").status_code == 303
        assert kiosk.get("/alert").headers["location"].startswith("/sign-in")
    assert admin.form(f"/screens/{screen.id}/revoke", reason="again").status_code == 404
    fact = next(
        fact for fact in store.journal.after(0, 100, (Kind.SCREEN_CHANGED,)) if fact.body["change"] == "revoked"
    )
    assert (fact.body["reason"], fact.actor["name"]) == ("moved to CT-2", "Ada Administrator")


def test_the_command_line_lists_pairs_and_revokes(store, app, tmp_path):
    path = tmp_path / "box.yaml"
    names = {"names": ["ct.example"], "port": 8088}
    path.write_text(yaml.safe_dump({"state_path": str(tmp_path), "screen": names} | CONFIG), "utf-8")

    def scanside(*words):
        done = CliRunner().invoke(main, ["screen", *words, "--json", "--config", str(path)])
        return done.exit_code, done.exit_code == 0 and json.loads(done.stdout)

    _, made = scanside("pair", "ct-1", "--source", "CT-1")
    assert re.fullmatch(r"\d{6}", made["code"])
    with Browser(app) as kiosk:
        assert kiosk.form("/pair", code=made["code"]).status_code == 200
    _, made = scanside("pair", "ct-2", "--url")
    assert made["url"].startswith("http://ct.example:8088/pair?ticket=")
    assert len(made["url"].partition("=")[2]) == 43
    with Browser(app) as kiosk:
        assert kiosk.get(made["url"].partition("8088")[2]).status_code == 200
    assert [(one["name"], one["sources"]) for one in scanside("list")[1]["screens"]] == [
        ("ct-1", ["CT-1"]),
        ("ct-2", []),
    ]
    assert scanside("pair", "ct-3", "--source", "CT-9")[0] == 4
    assert scanside("revoke", "ct-1", "--why", "broken") == (0, {"revoked": "ct-1"})
    assert scanside("revoke", "ct-1")[0] == 4
