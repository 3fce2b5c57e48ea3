"""Pages when something goes wrong: each says what is going on and what to do, and nothing that is nobody's business."""

from __future__ import annotations

import contextlib
import re
import sqlite3

import pytest
from toy_packages import make_toy_xray_package
from web_kit import Browser, account, served, session

from appliance.config import Config
from appliance.errors import StoreError
from appliance.health.checks import DiskCheck
from appliance.records import SYSTEM, UserRole
from appliance.screen import screen_app
from appliance.triage.packages import RunningPackages
from appliance.triage.stage import Bench, RoutingStage
from appliance.triage.worker_events import WorkerEnded
from appliance.web.passwords import Passwords
from appliance.web.templates import without_commands

GOOD = "staple battery horse"
#: What a bug might have in its words: a name, a path, a UID.
PRIVATE = "WANG^XIAOMING /var/lib/scanside/spool/ab/1.dcm 1.2.826.0.1.3680043.10.1"
LANGUAGES = ("en", "zh_Hans_CN")


@pytest.fixture
def app(store, clock, scenes):
    return screen_app(store, Config(), scenes.packages(), clock)


@pytest.fixture
def ask(app, store):
    """``ask(role)``: a browser of somebody."""
    opened = []

    def start(role="radiologist"):
        opened.append(Browser(app, session(store, role)))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def route(app, path, method="GET"):
    (found,) = [one for one in app.routes if one.path == path and method in one.methods]
    return found


def heading(page):
    return re.search(r"<h1>(.*?)</h1>", page)[1].strip()


# What nobody expected -----------------------------------------------------------------------------------------------


async def break_down(_):
    raise KeyError(PRIVATE)


def test_what_nobody_expected_is_a_page_with_a_mark_and_one_line_of_the_log_without_a_word_of_it(
    app, store, scenes, caplog
):
    for path in ("/studies", "/api/v1/health"):
        route(app, path).inner = break_down
    with served(app) as address, Browser(address, session(store, "radiologist")) as browser:
        pages = [browser.get(f"/studies?q=WANG&lang={language}") for language in LANGUAGES]
        script = browser.get("/studies", headers={"HX-Request": "true"})
        program = browser.get("/api/v1/health")
        assert browser.get("/reviews").status_code == 200, "the next page is served"
    assert [heading(page.text) for page in pages] == ["!!! The box has made a mistake", "!!! 本机软件出错"]
    marks = []
    for page, language in zip(pages, ("en", "zh-Hans-CN"), strict=True):
        assert (page.status_code, page.headers["content-language"]) == (500, language)
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "Rada Radiologist" in page.text, "still signed in"
        marks += re.findall(r"\b[0-9a-f]{8}\b", page.text.partition("<main")[2])
    for answer in (script, program):
        assert (answer.status_code, set(answer.json())) == (500, {"error", "mark"})
        marks.append(answer.json()["mark"])
    assert len(set(marks)) == 4
    said = "\n".join(page.text for page in (*pages, script, program))
    lines = [record for record in caplog.records if record.levelname == "ERROR"]
    for record, mark in zip(lines, marks, strict=True):
        assert re.fullmatch(
            rf"a page failed with KeyError at test_trouble\.py:\d+( < [a-z]+\.py:\d+)+; mark {mark}", record.message
        )
        assert record.exc_info is None
    for part in (*PRIVATE.split(), "KeyError"):
        assert part not in said
    assert "WANG" not in caplog.text
    assert "Traceback" not in said + caplog.text


def test_where_even_the_page_of_it_fails_a_sentence_is_left(app, ask, monkeypatch):
    route(app, "/studies").inner = break_down
    monkeypatch.setattr(app.state.pages, "_standing", lambda _: 1 / 0)
    answer = ask().get("/studies")
    assert answer.status_code == 500
    assert re.fullmatch(r"The box has made a mistake; mark [0-9a-f]{8}\. Read every study as usual\.", answer.text)


@pytest.mark.req("R-SCREEN-05")
@pytest.mark.parametrize("path", ["/studies/99999", "/nowhere", "/studies/" + "9" * 3000])
def test_what_is_not_there_is_a_page_in_the_readers_language(ask, path):
    someone = ask()
    for language in LANGUAGES:
        page = someone.get(path, headers={"Cookie": f"scanside_lang={language}; scanside_session={someone.session}"})
        assert page.status_code in {404, 414}
        assert 'data-testid="trouble"' in page.text
        assert bool(re.search("[一-龥]", heading(page.text))) is (language != "en")


# Forms that are too old ---------------------------------------------------------------------------------------------


@pytest.mark.req("R-ACCESS-07")
@pytest.mark.parametrize("token", ["", "x" * 32])
def test_a_form_with_an_old_token_is_told_in_words_with_the_way_back_to_its_page(ask, store, token):
    ada = ask("administrator")
    address = ada.address
    for language, words in zip(LANGUAGES, ("Nothing was done. Load the page anew", "未执行任何操作"), strict=True):
        ada.cookies.set("scanside_lang", language)
        page = ada.form("/users", {"Referer": f"{address}/users?from=1"}, csrf=token, name="x")
        assert page.status_code == 403
        assert words in page.text
        assert re.search(r'href="(.*?)" data-testid="back"', page.text)[1] == "/users?from=1"
        assert "next=/users%3Ffrom%3D1" in page.text, "another language leads to the page, not to the act"
        assert "Set-Cookie" not in page.headers
    for elsewhere in ("https://evil.example/users", "//evil.example", "http://[", f"{address}.evil.example/x"):
        page = ada.form("/users", {"Referer": elsewhere}, csrf=token)
        assert 'data-testid="back"' not in page.text
        assert "evil" not in page.text
    script = ada.form("/users", {"HX-Request": "true"}, csrf=token)
    assert (script.status_code, script.headers["x-trouble"]) == (403, "stale")
    assert "reload the page" in script.json()["error"]
    assert store.accounts.by_name("x") is None


@pytest.mark.req("R-ACCESS-07", "R-FAULT-T42")
@pytest.mark.fault("T42")
def test_no_act_of_any_page_is_done_without_the_token_or_from_elsewhere(app, store):
    """X9, over the routes themselves: a new act is asked too."""

    async def reached(_):
        raise AssertionError("reached")

    acts = [one for one in app.routes if "POST" in one.methods]
    for one in acts:
        one.inner = reached
    assert len(acts) > 40
    for role in (None, "administrator"):
        with Browser(app, session(store, role) if role else None) as browser:
            for one in acts:
                path = re.sub(r"{\w+(:int)?}", "1", one.path)
                for headers, csrf in (
                    ({}, ""),
                    ({}, "x" * 32),
                    ({"Origin": "https://evil.example"}, None),
                    ({"Origin": ""}, None),
                ):
                    fields = {} if csrf is None else {"csrf": csrf}
                    answer = browser.form(path, headers, **fields)
                    assert answer.status_code == 403, path
                    assert ('data-testid="trouble"' in answer.text) is not path.startswith("/api/")


@pytest.mark.req("R-ACCESS-07")
def test_every_cookie_is_for_this_server_alone_and_for_no_script(app, store):
    account(store, "technologist")
    store.accounts.set_password(
        store.accounts.by_name("technologist")[0].id, Passwords().hashed(GOOD), SYSTEM, must_change=False
    )
    store.screens.offer("DX-1", (), "123456", SYSTEM)
    with Browser(app) as browser, Browser(app) as kiosk:
        answers = [
            browser.get("/sign-in"),
            browser.get("/language?to=zh_Hans_CN&next=/sign-in"),
            browser.sign_in("technologist", GOOD),
            browser.form("/sign-out"),
            kiosk.get("/pair"),
            kiosk.form("/pair", code="123456"),
        ]
    cookies = [cookie.lower() for answer in answers for cookie in answer.headers.get_list("set-cookie")]
    names = [cookie.partition("=")[0] for cookie in cookies]
    assert set(names) == {"scanside_csrf", "scanside_lang", "scanside_session"}
    assert names.count("scanside_session") == 3
    for cookie in cookies:
        assert {"httponly", "samesite=strict", "path=/"} <= {part.strip() for part in cookie.split(";")}
        assert "domain" not in cookie


# A full disk --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["is full", "readonly"])
def fail_disk(request, store, monkeypatch):
    """``fail_disk()``: from now on SQLite has no room for another page, or may not write at all, as on a disk that is
    full, or that the kernel took away after an error. What is raised is its own.
    """

    def fail():
        connect = store.db._connect

        def narrow():
            connection = connect()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            limit = "query_only=ON" if request.param == "readonly" else f"max_page_count={pages}"
            connection.execute(f"PRAGMA {limit}")
            return connection

        store.db.close()
        monkeypatch.setattr(store.db, "_connect", narrow)
        with contextlib.suppress(StoreError):
            while True:  # what room there is left
                store.audit.accessed("filling", SYSTEM)
        with pytest.raises(StoreError, match=request.param) as caught:
            store.audit.accessed("nothing fits", SYSTEM)
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)

    return fail


@pytest.mark.req("R-SCREEN-10")
@pytest.mark.fault("T06")
def test_with_a_disk_that_takes_nothing_pages_say_so_and_alerts_are_still_shown(
    app, ask, store, clock, write, scenes, fail_disk, caplog
):
    alert = write(scenes.urgent)
    sam, theo, rada = ask("service"), ask("technologist"), ask("radiologist")
    clock.advance(120)  # long enough that a session would be written to
    fail_disk()
    for path in ("/studies", "/studies/1", "/critical-values"):
        for language, words in zip(LANGUAGES, ("The box cannot use its disk", "本机无法使用磁盘"), strict=True):
            page = rada.get(f"{path}?lang={language}")
            assert page.status_code == 503, path
            assert heading(page.text) == f"!!! {words}"
            assert "scanside.db" not in page.text
            assert "XIAOMING" not in page.text, "what cannot be recorded is not shown"
    assert "a page needs the store, which does not answer" in caplog.text
    # What needs no record goes on: above all the alert.
    shown = theo.get("/alert")
    assert shown.status_code == 200
    assert "Suspected bleed" in shown.text
    assert sam.get("/health").status_code == 200
    # Nobody is told that something was recorded which was not.
    csrf = theo.cookies["scanside_csrf"]
    told = theo.post(
        f"/alerts/{alert}/acknowledge",
        json={"name": "Theo"},
        headers={"Origin": theo.address, "X-CSRF-Token": csrf, "Accept": "application/json"},
    )
    assert (told.status_code, told.headers["x-trouble"]) == (503, "store")
    assert store.views.alert(alert).acknowledged_by == ""
    # Nobody can come in, and is told why.
    with Browser(app) as stranger:
        door = stranger.sign_in("nobody", "wrong wrong wrong")
    assert (door.status_code, heading(door.text)) == (503, "!!! The box cannot use its disk")
    # Whose time is over is out, though that cannot be written either.
    clock.advance(13 * 3600)
    assert theo.get("/alert").headers["location"].startswith("/sign-in")


@pytest.mark.req("R-SCREEN-10")
@pytest.mark.fault("T06")
def test_a_disk_at_its_reserve_is_said_on_every_page_until_there_is_room_again(app, ask, store, write, scenes, clock):
    write(scenes.nothing_flagged)
    someone, sam = ask("viewer"), ask("service")
    store.spool.reserve_bytes = 1 << 60
    DiskCheck(store).run()
    app.state.feed._renew()
    for language, words in zip(
        LANGUAGES, ("Disk full. New images are refused.", "磁盘已满，拒收新图像。"), strict=True
    ):
        for person, path in ((someone, "/studies"), (someone, "/studies/1"), (sam, "/health"), (sam, "/account")):
            page = person.get(f"{path}?lang={language}").text
            band = re.search(r'<p class="shout fault"([^>]*)>(.*?)</p>', page)
            assert "hidden" not in band[1]
            assert words in band[2]
    health = sam.get("/health").text
    assert 'data-problems="1"' in health
    assert "Free space on the box" in health
    assert 'id="fault"' not in Browser(app).get("/sign-in").text, "strangers are told nothing of the box"
    store.spool.reserve_bytes = 0
    DiskCheck(store).run()
    clock.advance(3)
    app.state.feed._renew()
    assert re.search(r'<p class="shout fault"[^>]* hidden>', someone.get("/studies").text)


# A lost worker ------------------------------------------------------------------------------------------------------


class DeadLink:
    """A worker that dies whenever it is started."""

    is_ready = is_loading = False

    def __init__(self, clock):
        self._clock = clock

    def events(self):
        return [WorkerEnded(at_mono=self._clock.monotonic(), pid=1, why="signal 9", analysis_id=None, series_key="")]

    def want(self, wanted):
        pass


@pytest.mark.req("R-SCREEN-10")
@pytest.mark.fault("T29")
def test_a_lost_worker_is_said_by_list_study_and_health(app, ask, store, clock, scenes, write, tmp_path):
    config = Config.model_validate(
        {"state_path": tmp_path, "packages": [{"name": "toy-bright-blob", "role": "live"}]},
    )
    packages = RunningPackages(store, config, [make_toy_xray_package(tmp_path / "toy")])
    bench = Bench(store=store, config=config, clock=clock, link=DeadLink(clock), packages=packages)
    routing = RoutingStage(bench, wake_runner=lambda: None)
    write(scenes.not_analysed, scenes.Reason.AI_UNAVAILABLE)
    rada, sam = ask("radiologist"), ask("service")
    for _ in range(5):
        routing.step()
    app.state.feed._renew()
    for path in ("/studies", "/studies/1"):
        page = rada.get(path).text
        assert 'data-ai="down"' in page
        assert "AI NOT WORKING" in page
        assert "Not analysed" in page
    health = sam.get("/health")
    assert "1 problem: AI NOT WORKING" in re.sub(r"<[^>]*>|\s+", " ", health.text).replace("  ", " ")
    assert "Read every study as usual" in health.text


# An alert that nobody answers ---------------------------------------------------------------------------------------


@pytest.mark.req("R-ALERT-03")
@pytest.mark.fault("T45")
def test_an_overdue_alert_stands_on_every_page_of_whoever_may_know(app, ask, store, scenes):
    people = {str(role): ask(str(role)) for role in UserRole}
    quiet = people["viewer"].get("/studies").text
    assert re.search(r'data-testid="overdue" hidden>', quiet)
    scenes.fill(store, "overdue")
    app.state.feed._renew()
    paths = {"administrator": "/users", "viewer": "/studies", "technologist": "/account", "radiologist": "/reviews"}
    for role, path in paths.items():
        for language, words in zip(LANGUAGES, ("OVERDUE", "超时未处理"), strict=True):
            page = people[role].get(f"{path}?lang={language}").text
            band = re.search(r'<p class="shout overdue"([^>]*)>(.*?)</p>', page)
            assert "hidden" not in band[1], role
            assert words in band[2]
            assert '<b id="overdue-count">1</b>' in band[2]
            assert 'href="/alert"' in band[2]
            assert "李" not in band[2]
            assert "LI" not in band[2]
    assert 'id="overdue"' not in people["service"].get("/health").text
    assert 'id="overdue"' not in Browser(app).get("/sign-in").text
    # A screen that is bound to other sources: its own pages are the alert screen, and those of errors.
    with Browser(app, session(store, sources=("DX-2",), name="other")) as other:
        assert 'data-testid="overdue" hidden' in other.get("/studies/1/identity?x=1").text


# Words -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-SCREEN-10")
def test_what_nobody_wrote_for_a_reader_is_introduced_as_such_and_names_no_command(ask, store):
    rada, ada = ask("radiologist"), ask("administrator")
    chinese = rada.get("/studies/99999?lang=zh_Hans_CN").text
    assert '技术详情： <span lang="en">study 99999 does not exist</span>' in chinese
    assert "Technical detail: <span >study 99999 does not exist</span>" in rada.get("/studies/99999?lang=en").text
    assert "scanside study list" not in chinese
    assert "Technical detail" not in rada.get("/nowhere?lang=en").text, "what a framework says is no detail"
    # An act of a page that cannot be done: the same on the page itself.
    page = ada.form("/models/no-such/1.0/withdraw?lang=zh_Hans_CN", reason="gone", seen="").text
    said = re.search(r'data-testid="trouble-said">(.*?)</div>', page, re.DOTALL)[1]
    assert "未执行。" in said
    assert "技术详情：" in said
    assert "no package is named &#39;no-such&#39; here</span>" in said
    hinting = "say 100% of it; 'scanside model list' shows those; give one with --why"
    assert without_commands(hinting) == "say 100% of it"
