"""The screens in Chromium: an alert from commit to paint, the worklist of 5,000 studies, a screen that never rests."""

from __future__ import annotations

import importlib
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.rows import ROOT, Bench, Row, spread

_ALERTS, _PAINT_BOUND_MS = 40, 250.0
_STUDIES, _FIRST_PAINT_BOUND_MS, _THROTTLE, _LOADS = 5000, 1000.0, 4, 5
#: Keeps every stream that a page opens.
_STREAMS = """
  window.streams = [];
  window.EventSource = class extends EventSource {
    constructor(...given) {
      super(...given);
      streams.push(this);
    }
  };
"""
_OPEN = "streams.filter((one) => one.readyState !== EventSource.CLOSED).length"
#: The soak: an alert every so often; what is kept grows by less than this share of the heap in an hour.
_EVERY_S, _SOAK_S, _SLOPE_BOUND = 5.0, 180.0, 0.2


def measure(bench: Bench) -> list[Row]:
    """All three, each on a store of its own."""
    if not (chromium := shutil.which("chromium")):
        return [Row(name="screens", figure="the screens in Chromium", measured="no chromium here", bound="", ok=None)]
    from playwright.sync_api import sync_playwright

    scenes = _scenes()
    # As the kiosk starts it: with sound.
    arguments = [*scenes.BROWSER_ARGUMENTS, "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            return [
                _painted(bench, scenes, browser),
                _worklist(bench, scenes, browser),
                _soak(bench, scenes, browser),
            ]
        finally:
            browser.close()


def _scenes() -> Any:
    sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "support")]
    return importlib.import_module("screen_scenes")


@contextmanager
def _page(folder: Path, scenes: Any, browser: Any, role: str, path: str, fill: Any = None) -> Iterator[tuple[Any, Any]]:
    """A store, and a page of it that is open and connected."""
    from web_kit import browser_cookie

    from appliance.clock import SystemClock
    from appliance.config import Config
    from appliance.screen import screen_app
    from appliance.store import Store
    from appliance.web.server import WebServer

    store = Store.open(folder / "state", SystemClock(), reserve_bytes=0)
    if fill:
        with store.db.write() as tx:
            fill(tx)
    server = WebServer(screen_app(store, Config(), scenes.packages(), SystemClock()), port=0)
    address = f"http://127.0.0.1:{server.start()}"
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        context.add_cookies([browser_cookie(store, address, role)])
        context.add_init_script(_STREAMS)
        page = context.new_page()
        page.goto(address + path)
        page.wait_for_selector("html[data-connection=live]")
        yield page, store
    finally:
        context.close()
        server.stop()
        store.close()


def _painted(bench: Bench, scenes: Any, browser: Any) -> Row:
    delays = []
    with _page(bench.new_folder("painted"), scenes, browser, "screen", "/alert") as (page, store):
        for _ in range(bench.size(_ALERTS, least=4)):
            page.evaluate("document.documentElement.dataset.painted = ''")
            with store.db.write() as tx:
                alert = scenes.urgent(tx)
            committed = time.time() * 1000
            page.wait_for_selector("html[data-painted]:not([data-painted=''])")
            delays.append(float(page.locator("html").get_attribute("data-painted")) - committed)
            page.wait_for_selector(f'[data-alert="{alert}"][data-alert-state=presented]', state="attached")
    told = spread(delays)
    return Row(
        name="screens_painted",
        figure="an alert from its commit to its paint, ms",
        measured=f"p50 {told['p50']}, p95 {told['p95']}, n {told['n']}",
        bound=f"p95 <= {_PAINT_BOUND_MS:.0f}",
        ok=told["p95"] <= _PAINT_BOUND_MS,
        details=told,
    )


def _worklist(bench: Bench, scenes: Any, browser: Any) -> Row:
    count = bench.size(_STUDIES)
    folder = bench.new_folder("worklist")
    with _page(folder, scenes, browser, "viewer", "/studies", lambda tx: scenes.many(tx, count)) as (page, _):
        devtools = page.context.new_cdp_session(page)
        devtools.send("Emulation.setCPUThrottlingRate", {"rate": _THROTTLE})
        paints = []
        for _ in range(_LOADS):
            page.reload()
            page.wait_for_selector("html[data-connection=live]")
            paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    median = statistics.median(paints)
    return Row(
        name="screens_worklist",
        figure=f"first paint of the worklist of {count} studies at {_THROTTLE}x CPU throttle, ms",
        measured=f"median {median:.0f} of {len(paints)}",
        bound=f"<= {_FIRST_PAINT_BOUND_MS:.0f}",
        ok=median <= _FIRST_PAINT_BOUND_MS,
        details={"paints_ms": [round(one) for one in paints]},
    )


def _soak(bench: Bench, scenes: Any, browser: Any) -> Row:
    """An alert every five seconds on one page for three minutes, with --full half an hour; garbage collected first."""
    duration = 1800.0 if bench.full else bench.size(int(_SOAK_S), least=20)
    samples: list[tuple[float, float, float]] = []
    with _page(bench.new_folder("soak"), scenes, browser, "screen", "/alert") as (page, store):
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable")
        begun = time.monotonic()
        while time.monotonic() - begun < duration:
            with store.db.write() as tx:
                # What a busy evening does: alerts come and are seen, so that the board stays of one size.
                tx.execute(
                    "UPDATE alert SET state = 'acknowledged', acknowledged_at = ?, acknowledged_by = 'Li'", (tx.at,)
                )
                scenes.urgent(tx)
            devtools.send("HeapProfiler.collectGarbage")
            told = {one["name"]: one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]}
            samples.append((time.monotonic() - begun, told["JSHeapUsedSize"] / 1e6, told["Nodes"]))
            page.wait_for_timeout(_EVERY_S * 1000)
        streams = page.evaluate(_OPEN)
        chimes = int(page.locator("html").get_attribute("data-chimes") or 0)
    later = samples[len(samples) // 4 :]  # after warm-up
    slope, level = _slope([(at, heap) for at, heap, _ in later]), statistics.mean(heap for _, heap, _ in later)
    nodes = _slope([(at, count) for at, _, count in later])
    is_sound = (streams, chimes) == (1, len(samples))
    return Row(
        name="screens_soak",
        figure=f"an alert screen for {duration / 60:.0f} min, an alert every {_EVERY_S:.0f} s: growth of its heap",
        measured=f"{slope * 3600:+.2f} MB/h at {level:.1f} MB; nodes {nodes * 3600:+.0f}/h;"
        f" {chimes} chimes; streams {streams}",
        bound=f"<= {_SLOPE_BOUND:.0%} an hour, each alert heard, one stream; a figure to quote takes --full",
        ok=is_sound and (slope * 3600 <= _SLOPE_BOUND * level if bench.full else None),
        details={"samples": [[round(at), round(heap, 3), nodes] for at, heap, nodes in samples]},
    )


def _slope(points: list[tuple[float, float]]) -> float:
    """Least squares, a second."""
    if len(points) < 2:
        return 0.0
    return float(statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope)
