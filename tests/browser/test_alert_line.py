"""The line between the alert screen and its box: gone, hanging, frozen or cut, it is said, and nothing is missed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import httpx
import pytest
from relay import Relay
from web_kit import COOKIE, barriers, session

from appliance.clock import SystemClock
from appliance.config import Config
from appliance.screen import screen_app
from appliance.store.facts import Kind
from appliance.web.server import WebServer

LOUD = "--autoplay-policy=no-user-gesture-required"
#: Keeps every stream that the page opens, and the facts that it is told.
LISTEN = """
  window.streams = [];
  window.told = [];
  window.EventSource = class extends EventSource {
    constructor(...given) {
      super(...given);
      streams.push(this);
      this.addEventListener("board", (message) => told.push(...JSON.parse(message.data).facts));
    }
  };
"""
#: How many of them are not closed.
OPEN = "streams.filter((one) => one.readyState !== EventSource.CLOSED).length"
#: Notes after how many milliseconds the page says that the line is gone.
NOTE = """() => {
  const begun = performance.now();
  new MutationObserver(() => {
    if (document.documentElement.dataset.connection === "lost") window.saidAfter ??= performance.now() - begun;
  }).observe(document.documentElement, { attributeFilter: ["data-connection"] });
}"""


def is_said_within_8_s(page, fail):
    """Let the line fail. The page's clock tells: a busy machine may be slow to look at it."""
    page.evaluate(NOTE)
    fail()
    page.wait_for_selector("html[data-connection=lost]")
    assert page.evaluate("saidAfter") <= 8000


@pytest.mark.req("R-SCREEN-02")
def test_connection_lost_is_said_within_8_s_and_no_result_stays_visible(serve, open_page, write, scenes):
    write(scenes.urgent)
    server, address = serve()
    page = open_page(address=address)
    is_said_within_8_s(page, server.stop)
    assert page.get_by_test_id("lost").is_visible()
    assert not page.get_by_test_id("hero").is_visible()
    assert ":" in page.locator("#contact").inner_text()
    assert "-" not in page.locator("#contact").inner_text()
    assert barriers(page) == []


@pytest.mark.fault("T44")
@pytest.mark.req("R-SCREEN-02")
def test_a_server_that_hangs_is_noticed_as_one_that_is_gone(repo, open_page, browser, tmp_path):
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from appliance.clock import SystemClock
        from appliance.config import Config
        from appliance.records import SYSTEM
        from appliance.screen import screen_app
        from appliance.store import Store
        from appliance.web.server import WebServer
        store = Store.open(Path(sys.argv[1]), SystemClock(), reserve_bytes=0)
        store.screens.offer("CT1", (), "code", SYSTEM)
        cookie = store.sessions.open(store.screens.pair("code"), "pairing")
        print(WebServer(screen_app(store, Config(), {}, SystemClock()), port=0).start(), cookie, flush=True)
        time.sleep(600)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "other")], cwd=repo, stdout=subprocess.PIPE, text=True
    )
    try:
        port, cookie = process.stdout.readline().split()
        address, context = f"http://127.0.0.1:{port}", browser()
        context.add_cookies([{"name": COOKIE, "value": cookie, "url": address}])
        page = open_page(address=address, context=context)
        is_said_within_8_s(page, lambda: os.kill(process.pid, signal.SIGSTOP))
        os.kill(process.pid, signal.SIGCONT)
        page.wait_for_selector("html[data-connection=live]")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def far(store, scenes):
    """A screen behind a line of its own: the line, the address at its near end, and the screen's feed."""
    app = screen_app(store, Config(), scenes.packages(), SystemClock())
    server = WebServer(app, port=0)
    with Relay(server.start()) as line:
        yield line, f"http://127.0.0.1:{line.port}", app.state.feed
    server.stop()


@pytest.mark.fault("T44")
@pytest.mark.req("R-SCREEN-02")
@pytest.mark.req("R-SCREEN-04")
@pytest.mark.parametrize(("fail", "heal"), [("freeze", "thaw"), pytest.param("cut", "mend", marks=pytest.mark.long)])
def test_a_network_that_fails_is_said_within_8_s_and_what_was_missed_comes_once(
    far, open_page, signed_in, write, scenes, wait_until, fail, heal
):
    line, address, feed = far
    context = signed_in(address, "screen", LOUD)
    context.add_init_script(LISTEN)
    page = open_page("", context=context, address=address)
    before = write(scenes.urgent, scenes.LI)
    page.wait_for_selector("html[data-chimes='1']")
    assert page.evaluate(OPEN) == 1
    is_said_within_8_s(page, getattr(line, fail))
    assert not page.get_by_test_id("hero").is_visible()
    missed = write(scenes.urgent, scenes.WANG)
    page.wait_for_function("() => streams.length >= 2", timeout=30000)  # it tries again by itself while nothing answers
    assert page.evaluate(OPEN) == 1
    getattr(line, heal)()
    page.wait_for_selector("html[data-connection=live]", timeout=30000)
    page.wait_for_selector("html[data-chimes='2']")
    assert page.locator(f".result[data-alert='{missed}']").count() == 1
    assert page.locator(f".item[data-alert='{before}']").count() == 1
    # The last word of the box: whatever was said twice would have been heard before it.
    last = write(scenes.urgent, scenes.DOE)
    page.wait_for_selector("html[data-chimes='3']")
    raised = [fact["alert"] for fact in page.evaluate("told") if fact["kind"] == Kind.ALERT_RAISED]
    assert raised == [before, missed, last]
    assert page.evaluate(OPEN) == 1
    wait_until(lambda: feed.waiting == 1, what="one stream at the box")
    assert [one for one in page.troubles if "net::ERR" not in one] == []


def test_a_page_of_the_shell_opens_one_stream(serve, open_page, signed_in):
    _, address = serve()
    context = signed_in(address, "technologist")
    context.add_init_script(LISTEN)
    page = open_page(context=context, address=address, path="/studies")
    assert page.evaluate(OPEN) == 1  # where the first is not answered soon, another takes its place


@pytest.mark.req("R-SCREEN-02")
def test_a_page_whose_script_never_ran_says_connection_lost(serve, signed_in, write, scenes):
    write(scenes.urgent)
    _, address = serve()
    for broken in (None, "alert.js", "times.js"):
        page = signed_in(address, **({} if broken else {"java_script_enabled": False})).new_page()
        if broken:
            page.route(f"**/{broken}", lambda route: route.fulfill(body="throw new Error('broken')"))
        page.goto(f"{address}/alert")
        if broken:  # the banner comes by itself, two seconds after the page
            page.wait_for_function("() => getComputedStyle(document.getElementById('lost')).opacity === '1'")
        else:
            assert "scripts" in page.locator("#lost").inner_text()
        assert page.get_by_test_id("lost").is_visible()
        assert not page.get_by_test_id("hero").is_visible()


@pytest.mark.req("R-SCREEN-04")
def test_an_alert_missed_while_the_server_was_away_is_shown_and_sounds_once(serve, open_page, write, scenes, free_port):
    port = free_port()  # nobody else takes it while the server is away
    server, address = serve(port)
    page = open_page("", LOUD, address=address)
    write(scenes.urgent, scenes.LI)
    page.wait_for_selector("html[data-chimes='1']")
    server.stop()
    page.wait_for_selector("html[data-connection=lost]")
    write(scenes.urgent, scenes.WANG)
    serve(port)
    page.wait_for_selector("html[data-connection=live]")
    page.wait_for_selector("html[data-chimes='2']")
    assert page.locator(".result[data-alert]").count() == 1
    assert page.locator(".item[data-alert]").count() == 1
    # Whatever was said twice would have been heard before the next one.
    write(scenes.urgent, scenes.DOE)
    page.wait_for_selector("html[data-chimes='3']")


@pytest.mark.req("R-SCREEN-04")
def test_the_stream_replays_missed_rows_exactly_once(serve, store, write, scenes):
    _, address = serve()
    cookie = session(store)
    ids, told = [], []

    def read(last, enough):
        headers = {"Last-Event-ID": str(last)} if last is not None else {}
        headers["Cookie"] = f"{COOKIE}={cookie}"
        with httpx.stream("GET", f"{address}/events", headers=headers, timeout=20) as answer:
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("id: "):
                    ids.append(int(line[4:]))
                elif line.startswith("data: ") and name == "board":
                    told.extend(fact["seq"] for fact in json.loads(line[6:])["facts"])
                    if len(told) >= enough:
                        return ids[-1]
        raise AssertionError("the stream ended")

    begun = store.journal.last_seq()
    write(scenes.urgent)
    last = read(begun, 2)
    for _ in range(5):
        write(scenes.urgent)
    last = read(last, 12)
    write(scenes.not_analysed)
    read(last, 13)
    expected = [fact.seq for fact in store.journal.after(begun) if fact.kind in {Kind.ALERT_RAISED, Kind.STUDY_OUTCOME}]
    assert told == expected


def test_streams_that_were_left_are_forgotten(serve, open_page, wait_until, scenes, store):
    app = screen_app(store, Config(), scenes.packages(), SystemClock())
    feed = app.state.feed
    server = WebServer(app, port=0)
    address = f"http://127.0.0.1:{server.start()}"
    try:
        page = open_page(address=address)
        wait_until(lambda: feed.waiting == 1)
        page.reload()
        page.wait_for_selector("html[data-connection=live]")
        page.close()
        wait_until(lambda: feed.waiting == 0)
    finally:
        server.stop()
