"""The streams of events: what a beat says, and that none outlives what it was opened with."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import ExitStack

import httpx
import pytest
from web_kit import COOKIE, account, served, session

from appliance.config import Config
from appliance.records import SYSTEM, UserRole
from appliance.screen import live, screen_app
from appliance.web import access


@pytest.fixture
def address(store, clock, scenes, write):
    """Of a server over a store with ten open alerts, nine of which are overdue."""
    for n in range(9):
        alert = write(scenes.urgent, study_values={"source": "CT-1" if n < 7 else "DX-1"})
        write(scenes.steps_taken, alert, scenes.AlertStep.REPEAT, scenes.AlertStep.OVERDUE)
    write(scenes.urgent)
    with served(screen_app(store, Config(), scenes.packages(), clock)) as opened:
        yield opened


@pytest.mark.req("R-ALERT-03")
def test_the_beat_of_a_page_counts_every_overdue_alert_of_the_callers_sources_and_names_none(address, store):
    def beat(**who):
        cookies = {COOKIE: session(store, **who)}
        with (
            httpx.Client(base_url=address, cookies=cookies, timeout=60) as page,
            page.stream("GET", "/events/page") as stream,
        ):
            lines = stream.iter_lines()
            assert any(line == "event: beat" for line in lines)
            return json.loads(next(lines).removeprefix("data: "))

    whole = beat(role="viewer")
    assert whole["overdue"] == 9
    assert set(whole) == {"now", "offset_min", "ai", "stream", "build", "seq", "overdue", "fault"}
    assert beat(role="service")["overdue"] is None, "service never sees what is about a patient"
    assert beat(sources=("CT-1",))["overdue"] == 7
    assert beat(sources=("DX-1", "DX-9"), name="both")["overdue"] == 2
    assert beat(sources=("DX-9",), name="elsewhere")["overdue"] == 0


@pytest.mark.req("R-ACCESS-02")
def test_every_stream_ends_within_three_seconds_of_what_it_was_opened_with(address, store, monkeypatch):
    """Signed out, a screen taken away, a token revoked: the next beat ends it, and nothing is sent in its place."""
    assert access.LEASE_S + live.BEAT_S <= 3
    monkeypatch.setattr(access, "LEASE_S", 0.0)
    monkeypatch.setattr(live, "BEAT_S", 0.05)
    screen = {COOKIE: session(store, name="DX-2 room")}
    technologist = {COOKIE: session(store, "technologist")}
    token = {"Authorization": f"Bearer {store.tokens.add('console', UserRole.SCREEN, (), SYSTEM)}"}
    with ExitStack() as stack:
        opened = []
        for path, more in (
            ("/events", {"cookies": screen}),
            ("/events", {"cookies": technologist}),
            ("/events/page", {"cookies": technologist}),
            ("/api/v1/events", {"headers": token}),
        ):
            client = stack.enter_context(httpx.Client(base_url=address, timeout=60, **more))
            lines = stack.enter_context(client.stream("GET", path)).iter_lines()
            assert any(line == "event: beat" for line in lines)
            opened.append(lines)
        (paired,) = store.screens.all()
        store.screens.revoke(paired.id, SYSTEM)
        store.accounts.set_active(account(store, "technologist").id, SYSTEM, active=False)
        store.tokens.revoke("console", SYSTEM)
        for lines in opened:
            assert [line for line in lines if line][-2:] == ["event: over", "data: {}"]


def test_nothing_is_sent_once_the_session_was_found_to_be_over(monkeypatch):
    monkeypatch.setattr(access, "LEASE_S", 0.0)

    class Asked:
        def __init__(self):
            self.answers = [True, False]

        async def holds(self, *_):
            return self.answers.pop(0)

    async def boards():
        for name in ("first", "second", "third"):
            yield name

    async def sent():
        return [item async for item in access._while_it_holds(boards(), Asked(), None, None)]

    assert asyncio.run(sent()) == ["first", b"event: over\ndata: {}\n\n"]


@pytest.mark.req("R-ALERT-03")
def test_the_band_of_the_alert_screen_counts_every_overdue_alert_though_few_are_drawn(address, store):
    with httpx.Client(base_url=address, cookies={COOKIE: session(store, "technologist")}, timeout=60) as screen:
        band = re.search(r'data-testid="overdue">(.*?)</p>', screen.get("/alert?lang=en").text, re.DOTALL)
    assert "and 8 more" in band[1]
