"""The settings' pages."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from admin_kit import FakeTools, hidden, served, settings_in
from starlette.requests import Request

from appliance.errors import ConflictError
from appliance.records import SYSTEM, UserRole
from appliance.screen.settings import LOCKED_OUT, keep
from appliance.store.facts import Kind
from appliance.web.access import Caller

pytestmark = pytest.mark.req("R-ADMIN-05")


@pytest.fixture
def tools(tmp_path):
    base = f"state_path: {tmp_path}\nsite: {{name: Base}}\n"
    return FakeTools(settings_in(tmp_path, base))


@pytest.fixture
def ada(store, clock, scenes, tools):
    with served(store, clock, scenes.packages(), config=tools.settings.loaded.config, tools=tools) as somebody:
        yield somebody("administrator")


FORM = {"name": "Ward <3>", "mode": "evaluation", "language": "zh_Hans_CN"}


def test_a_form_shows_the_difference_asks_why_writes_and_tells_the_journal_no_value(store, tools, ada):
    page = ada.post("/settings/site", **FORM)
    assert "+name: Ward &lt;3&gt;" in page.text
    assert "-name: Base" in page.text
    fields = {name: hidden(page.text, name) for name in ("section", "before", "text")}
    assert "Say why" in ada.post("/settings/save", **fields, reason="").text
    assert tools.settings.text() == ""
    page = ada.post("/settings/save", **fields, reason="moved to another ward")
    assert "Changed settings count from the next start" in page.text
    assert tools.settings.next_config().site.name == "Ward <3>"
    (fact,) = store.journal.after(0, 20, (Kind.SETTINGS_CHANGED,))
    assert fact.body["sections"] == ["site"]
    assert fact.body["reason"] == "moved to another ward"
    assert fact.body["digest"] == tools.settings.digest
    assert "Ward" not in str(fact.body)


def test_text_that_does_not_fit_comes_back_with_the_reason_and_nothing_lost(tools, ada):
    text = "- name: CT 1\n  ae_title: X\n"
    page = ada.post("/settings/sources", text=text)
    assert page.status_code == 422
    assert "sources.0.name" in page.text
    assert "name: CT 1" in page.text
    assert "not YAML" in ada.post("/settings/sources", text="- {").text
    assert tools.settings.text() == ""


def test_text_that_would_grow_without_end_is_refused_before_it_is_read(tools, ada):
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\n"
    for path, text, told in (
        ("site", bomb, "names a part to repeat it (a)"),
        ("file", f"site: {{name: &n X, radiologist_phone: *n}}\n{bomb}", "names a part to repeat it (n)"),
        ("sources", "[" * 5000, "nests more than"),
        ("file", "site: " + "{a: " * 2000, "nests more than"),
    ):
        page = ada.post(f"/settings/{path}", text=text)
        assert (page.status_code, told in page.text) == (422, True), (path, told)
    assert tools.settings.text() == ""


def test_a_change_that_was_overtaken_is_not_written(tools, ada):
    page = ada.post("/settings/site", **FORM)
    fields = {name: hidden(page.text, name) for name in ("section", "before", "text")}
    tools.settings.write(tools.settings.propose({"site": {"name": "Else"}}))
    page = ada.post("/settings/save", **fields, reason="x")
    assert page.status_code == 409
    assert "somebody else" in page.text
    assert tools.settings.next_config().site.name == "Else"


def test_settings_under_which_the_box_would_not_answer_this_very_request_are_refused(tmp_path):
    """The guard has let the request in, so its name counts now; loopback names always do."""
    screen = "{host: 0.0.0.0, names: [box.ward], tls: {certificate_path: c, key_path: k}}"
    settings = settings_in(tmp_path, f"state_path: {tmp_path}\nscreen: {screen}\n")

    said, ada = [], Caller(role=UserRole.ADMINISTRATOR, actor=SYSTEM)

    def answers(screen, name, at="10.1.2.3"):
        scope = {"type": "http", "headers": [(b"host", name.encode())], "server": (at, 8080)}
        proposal = settings.propose({"screen": settings.section("screen") | screen})
        context = SimpleNamespace(tools=FakeTools(settings), config=settings.loaded.config, store=Kept())
        try:
            keep(context, proposal, "why", Request(scope | {"state": {"caller": ada}}))
        except ConflictError as error:
            said.append(str(error))
        return context.store.kept

    assert answers({"names": ["box.ward", "box"]}, "BOX.ward:8080")
    assert not answers({"names": ["box"]}, "box.ward:8080")
    assert answers({"names": ["box"]}, "box:8080"), "already by the new name"
    assert answers({"names": []}, "[::1]:8080")
    assert not answers({"host": "127.0.0.1"}, "box.ward")
    assert not answers({"host": "10.1.2.4"}, "box.ward")
    assert answers({"host": "10.1.2.3"}, "box.ward")
    assert answers({"host": "127.0.0.1"}, "box.ward", at="127.0.0.1"), "behind a proxy of this machine"
    assert answers({"port": 9090}, "box.ward")
    assert set(said) == {LOCKED_OUT}


class Kept:
    """A store that takes every change."""

    def __init__(self):
        self.settings, self.kept = self, False

    def change(self, *_):
        self.kept = True


def test_a_file_goes_out_and_comes_in_again(tools, ada):
    tools.settings.write(tools.settings.propose({"site": {"name": "Exported"}}))
    text = ada.get("/settings/export.yaml").text
    tools.settings.write(tools.settings.propose({"site": None}))
    page = ada.post("/settings/file", text=text)
    fields = {name: hidden(page.text, name) for name in ("section", "before", "text")}
    ada.post("/settings/save", **fields, reason="as on the other box")
    assert tools.settings.next_config().site.name == "Exported"


def test_a_restart_is_asked_for_by_name_and_done_once(store, tools, ada):
    assert "The box restarts" in ada.post("/settings/restart").text
    assert tools.restarted == 1
    (fact,) = store.journal.after(0, 20, (Kind.RESTART_ASKED,))
    assert fact.actor["name"] == "Ada Administrator"
    tools.restarts = "hand"
    assert "started by hand" in ada.post("/settings/restart").text


def test_settings_are_the_administrators_alone(store, clock, scenes, tools):
    with served(store, clock, scenes.packages(), tools=tools) as somebody:
        for role in ("service", "radiologist", "technologist", "viewer", "screen"):
            assert somebody(role).get("/settings/site").status_code == 403
            assert somebody(role).post("/settings/restart").status_code == 403
    assert tools.restarted == 0


def test_over_a_store_alone_the_page_says_that_nothing_can_be_changed(store, clock, scenes):
    with served(store, clock, scenes.packages()) as somebody:
        page = somebody("administrator").get("/settings/site")
    assert page.status_code == 503
    assert "not started from files" in page.text
