"""The settings' pages."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize("text", ["", "x" * 10_000_000, "汉" * 70_000], ids=["empty", "10 MB", "too many"])
def test_a_file_that_is_none_of_settings_is_refused_in_words_whatever_its_size(tools, ada, text):
    page = ada.post("/settings/file", text=text)
    assert page.status_code == {0: 200, 10_000_000: 413}.get(len(text), 422)
    assert ("Nothing changes" if not text else "at most 65536") in page.text
    assert tools.settings.text() == ""


def test_faults_of_an_imported_text_have_its_lines_and_a_large_one_goes_the_whole_way(tools, ada):
    sources = [f"- name: CT-{n}\n  ae_title: 检查设备{n}\n" for n in range(150)]
    page = ada.post("/settings/file", text="# 放射科\nsite:\n  name: 2026-13-45\n")
    assert (page.status_code, "line 3: &#39;2026-13-45&#39; is read as a date" in page.text) == (422, True)
    page = ada.post("/settings/file", text=f"site: {{name: Ward}}\nsources:\n{''.join(sources)}")
    assert (page.status_code, "line 4: sources.0.ae_title: " in page.text) == (422, True)
    page = ada.post("/settings/sources", text="".join(sources[:2]))
    assert (page.status_code, "line 2: sources.0.ae_title: " in page.text) == (422, True)
    # Many times what the form of another page may be.
    names = "".join(f"- {{name: CT-{n}, ae_title: CT{n}, addresses: [10.1.{n % 200}.7]}}\n" for n in range(500))
    page = ada.post("/settings/file", text=f"site: {{name: {'放射科' * 9}}}\nsources:\n{names}")
    fields = {name: hidden(page.text, name) for name in ("section", "before", "text")}
    assert ada.post("/settings/save", **fields, reason="many rooms").status_code == 200
    assert len(tools.settings.next_config().sources) == 500


def test_a_change_that_was_overtaken_is_not_written(tools, ada):
    page = ada.post("/settings/site", **FORM)
    fields = {name: hidden(page.text, name) for name in ("section", "before", "text")}
    tools.settings.write(tools.settings.propose({"site": {"name": "Else"}}))
    page = ada.post("/settings/save", **fields, reason="x")
    assert page.status_code == 409
    assert "Somebody else" in page.text
    assert tools.settings.next_config().site.name == "Else"


def test_a_form_that_was_opened_before_another_change_sets_nothing_back(tools, ada):
    begun = {path: hidden(ada.get(f"/settings/{path}").text, "before") for path in ("site", "sources", "file")}
    tools.settings.write(tools.settings.propose({"site": {"name": "Base", "radiologist_phone": "4711"}}))
    # The telephone is in the old form as it was: empty.
    page = ada.post("/settings/site", before=begun["site"], radiologist_phone="", **FORM)
    assert (page.status_code, "Somebody else has changed the settings" in page.text) == (409, True)
    assert 'value="4711"' in page.text
    for path in ("sources", "file"):
        page = ada.post(f"/settings/{path}", before=begun[path], text="# mine\n")
        assert (page.status_code, "# mine" in page.text) == (409, True)
    again = hidden(ada.get("/settings/site").text, "before")
    page = ada.post("/settings/site", before=again, radiologist_phone="4711", **FORM)
    assert "+name: Ward" in page.text
    assert "-radiologist_phone" not in page.text


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


def test_a_page_that_waits_for_a_restart_tells_the_next_run_from_the_one_that_ends(store, clock, scenes, tools, ada):
    run = ada.get("/settings/run").text
    assert f'data-run="{run}"' in ada.post("/settings/restart").text
    with served(store, clock, scenes.packages(), tools=tools) as somebody:
        assert somebody("administrator").get("/settings/run").text != run


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


def test_choices_are_told_in_words_with_their_code(ada):
    for language, words in (("en", "Evaluation, not for patient care"), ("zh_Hans_CN", "评估模式，不得用于诊疗")):
        page = ada.get(f"/settings/site?lang={language}").text
        assert f'<option value="evaluation" selected>{words} (evaluation)</option>' in page
        assert '<option value="zh_Hans_CN" >中文 (zh_Hans_CN)</option>' in page
        assert not re.search(r"<option[^>]*>[a-z_]+</option>", page + ada.get(f"/settings/dicom?lang={language}").text)


def test_who_acts_on_a_page_in_another_language_reads_on_in_it(ada):
    page = ada.get("/settings/site?lang=zh_Hans_CN")
    ada.client.headers["Referer"] = str(page.url)
    changes = ada.post("/settings/site", **FORM)
    assert '<html lang="zh-Hans-CN"' in changes.text
    fields = {name: hidden(changes.text, name) for name in ("section", "before", "text")}
    after = ada.post("/settings/save", **fields, reason="moved")
    assert (after.url.path, after.url.query) == ("/settings/site", b"lang=zh_Hans_CN")
    assert '<html lang="zh-Hans-CN"' in after.text
    ada.client.headers["Referer"] = "http://elsewhere.example/?lang=zh_Hans_CN"
    assert '<html lang="en"' in ada.post("/settings/site", **FORM).text
