"""An alert storm before twenty screens: none lost, none doubled, and memory stays flat."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
import time
from collections import Counter

import httpx
import psutil
import pytest
from web_kit import COOKIE, session

from appliance.records import Actor, ActorKind
from appliance.store.facts import Kind

LI = Actor(kind=ActorKind.PERSON, name="Li Wei")
#: What a process may grow by from one storm to the next: caches of SQLite and Python, not boards or streams.
GROWTH_BYTES = 24 * 2**20


class Listener(threading.Thread):
    """A screen without a browser: counts the alerts that it is told of, and keeps the newest board."""

    def __init__(self, address, cookie, after):
        super().__init__(daemon=True)
        self._address, self._cookie, self._after = address, cookie, after
        self.told = Counter()
        self.html = ""
        self.bytes = 0
        self.client = httpx.Client(cookies={COOKIE: cookie}, timeout=30)

    def run(self):
        with (
            contextlib.suppress(httpx.HTTPError),
            self.client.stream("GET", f"{self._address}/events", params={"after": self._after}) as answer,
        ):
            name = ""
            for line in answer.iter_lines():
                self.bytes += len(line)
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: ") and name == "board":
                    data = json.loads(line[6:])
                    self.told.update(fact["alert"] for fact in data["facts"] if fact["kind"] == Kind.ALERT_RAISED)
                    self.html = data["html"]


def _storm(store, scenes, count):
    """Alerts as fast as the box can commit them, at two scanners; returns their ids."""
    made = []
    for n in range(count):
        with store.db.write() as tx:
            made.append(scenes.urgent(tx, (scenes.WANG, scenes.LI)[n % 2], study_values={"source": f"CT-{1 + n % 2}"}))
    return made


@pytest.mark.req("R-ALERT-10")
@pytest.mark.parametrize(("screens", "alerts"), [(5, 10), pytest.param(20, 200, marks=pytest.mark.long)])
def test_a_storm_of_alerts_reaches_every_screen_once(
    serve, open_page, store, scenes, wait_until, record_property, screens, alerts
):
    _, address = serve()
    page = open_page("", "--autoplay-policy=no-user-gesture-required", address=address)
    page.wait_for_selector("html[data-sound=on]")  # what is acknowledged before sounds no more
    begun = store.journal.last_seq()
    # The last fifth stand at CT-2 and must hear of nothing else.
    own = screens - screens // 5
    cookies = [session(store, name="all")] * own + [session(store, name="ct2", sources=("CT-2",))] * (screens - own)
    listeners = [Listener(address, cookie, begun) for cookie in cookies]
    for listener in listeners:
        listener.start()
    heap = page.context.new_cdp_session(page)
    sizes, process = [], psutil.Process()

    def used():
        gc.collect()
        heap.send("HeapProfiler.collectGarbage")
        return process.memory_info().rss, heap.send("Runtime.getHeapUsage")["usedSize"]

    expected = {True: set(), False: set()}
    for round_ in range(3):  # the first one fills caches
        made = _storm(store, scenes, alerts)
        expected[True] |= set(made)
        expected[False] |= {alert for alert in made if store.views.sources_of([store.views.alert(alert).study_id])[
            store.views.alert(alert).study_id] == "CT-2"}  # fmt: skip
        wait_until(lambda: page.locator("[data-testid=count]").count() == 1, timeout_s=60)
        wait_until(lambda: f"{alerts} open alerts" in page.get_by_test_id("count").inner_text(), timeout_s=60)
        for n, listener in enumerate(listeners):
            wanted = expected[n < own]
            wait_until(lambda: set(listener.told) >= wanted, timeout_s=60)  # noqa: B023 - called at once
            assert listener.told == dict.fromkeys(wanted, 1), (round_, n)
        for alert in made:
            store.alerts.acknowledge(alert, LI)
        wait_until(lambda: page.locator("html[data-state=seen]").count() == 1, timeout_s=60)
        sizes.append(used())
    assert page.locator("html").get_attribute("data-chimes") == str(3 * alerts), "each is heard once"
    assert page.troubles == []
    (server_before, page_before), (server_after, page_after) = sizes[1:]
    assert server_after - server_before < GROWTH_BYTES, sizes
    assert page_after - page_before < 2 * 2**20, sizes
    record_property("memory", sizes)
    for listener in listeners:
        listener.client.close()


@pytest.mark.long  # half a minute of watching; the soak of half an hour is tools/bench's
@pytest.mark.req("R-ALERT-10")
def test_a_stream_whose_reader_is_slow_costs_nobody_else_anything(serve, store, scenes, wait_until):
    """A screen that takes nothing off its connection must not hold back the others' boards."""
    _, address = serve()
    begun = store.journal.last_seq()
    cookie = session(store)
    stuck = httpx.Client(cookies={COOKIE: cookie}, timeout=60)
    with stuck.stream("GET", f"{address}/events", params={"after": begun}):
        quick = Listener(address, cookie, begun)
        quick.start()
        made = _storm(store, scenes, 50)
        started = time.monotonic()
        wait_until(lambda: set(quick.told) == set(made), timeout_s=30)
        assert time.monotonic() - started < 10
    stuck.close()
    quick.client.close()
