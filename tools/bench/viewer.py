"""The image viewer: how soon a child has the first pixels, how soon prefetched images are on the screen, and a step."""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import sys
import time
from typing import Any

from bench.rows import ROOT, Bench, Row

_SLICES, _FILM, _SMALL_FILM = 300, (3000, 2500), (1700, 1400)
_ROUNDS = 5
_STEPS = 9
_THROTTLE = 4
_OPEN_BOUND_MS, _STEP_BOUND_MS = 50.0, 16.0
_SETTLED = "image-view[data-state=shown]"
_TIMES = "performance.getEntriesByName('image-view:cached').map((one) => one.duration)"


def measure(bench: Bench) -> list[Row]:
    """Prepare a CT of 300 slices and a large film in fresh children; step through prefetched images in Chromium."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    from appliance.clock import SystemClock
    from appliance.store import Store

    store = Store.open(bench.new_folder("images") / "state", SystemClock(), reserve_bytes=0)
    try:
        ct, film, films = _fill(store, bench.size(_SLICES, least=_STEPS + 2))
        return [*_children(store, {"ct": ct, "film": film}), *_browser(store, {"CT": ct, "film": films})]
    finally:
        store.close()


def _fill(store: Any, slices: int) -> tuple[int, int, int]:
    """A CT, one film of a large detector, and a series of films to step through; their studies."""
    import dataclasses

    import images_kit
    import numpy as np

    from appliance.simulate.dicomize import xray
    from appliance.simulate.phantom import Phantom
    from appliance.simulate.study import Study
    from bench.images import ct_template

    ct = images_kit.store_files(store, [image.file for image in ct_template(slices).study(1).images])
    images_kit.close_series(store, ct)
    rng = np.random.default_rng(1)

    def pixels(shape: tuple[int, int]) -> Any:
        return (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) / 2 + rng.normal(800, 40, shape)).astype(
            np.uint16
        )

    film, _ = images_kit.film(store, pixels(_FILM), seed="large")
    phantom = Phantom(kind="chest_xray", pixels=pixels(_SMALL_FILM), spacing_mm=(0.2, 0.2))
    datasets = []
    for number in range(1, _STEPS + 3):
        made = xray(dataclasses.replace(phantom, pixels=np.roll(phantom.pixels, number)), Study(seed="films"))
        made.InstanceNumber = number
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"{made.SOPInstanceUID[:-3]}{number}"
        datasets.append(made)
    return ct, film, images_kit.add_datasets(store, datasets, source="DX-2")


def _children(store: Any, studies: dict[str, int]) -> list[Row]:
    from appliance.screen.display_work import LIMITS
    from engines.child import run_limited

    told: dict[str, dict[str, list[float]]] = {}
    for name, study in studies.items():
        (series,) = store.images.of_study(study).series
        taken = told[name] = {"first": [], "all": []}
        for _ in range(_ROUNDS):
            folder = store.spool.root / "display" / str(study)
            shutil.rmtree(folder, ignore_errors=True)
            images = [{"stem": f.stem, "path": str(store.spool.path(f.path))} for f in series.files]
            request = {"folder": str(folder), "images": images, "masks": [], "preview": "", "nice": 0}
            begun, first = time.perf_counter(), []
            run_limited(
                "appliance.screen.display_child",
                request | {"limit_bytes": 10**10},
                LIMITS,
                lambda progress, first=first: first.append(time.perf_counter()) if "done" in progress else None,  # type: ignore[misc]
            )
            taken["first"].append((first[0] - begun) * 1000)
            taken["all"].append((time.perf_counter() - begun) * 1000)
        shutil.rmtree(folder, ignore_errors=True)
    middle = {name: {key: statistics.median(v) for key, v in taken.items()} for name, taken in told.items()}
    return [
        Row(
            name="images-child",
            figure=f"pixels for a screen: child started -> first image, of a CT of {_SLICES} slices and a film of"
            f" {_FILM[0]} x {_FILM[1]}, p50",
            measured=f"{middle['ct']['first']:.0f} ms (all slices {middle['ct']['all'] / 1000:.2f} s);"
            f" film {middle['film']['first']:.0f} ms",
            bound="stated",
            ok=None,
            details={
                name: {key: [round(one) for one in v] for key, v in taken.items()} for name, taken in told.items()
            },
        )
    ]


def _browser(store: Any, studies: dict[str, int]) -> list[Row]:
    opened = f"a step to an image fetched ahead, wished -> on screen, CPU throttled {_THROTTLE}x, median of {_STEPS}"
    stepped = f"a step to a slice that the page holds, wished -> on the screen, CPU as it is, median of {_STEPS}"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        why = "not measured: Chromium or playwright is not installed"
        return [
            Row(name="images", figure=opened, measured=why, bound=f"{_OPEN_BOUND_MS:g} ms", ok=None),
            Row(name="images-step", figure=stepped, measured=why, bound=f"{_STEP_BOUND_MS:g} ms", ok=None),
        ]
    import images_kit
    import web_kit
    from playwright.sync_api import sync_playwright

    from appliance.clock import SystemClock
    from appliance.config import Config
    from appliance.web.server import WebServer

    server = WebServer(images_kit.app_with_viewer(store, Config(), {}, SystemClock()), port=0)
    address = f"http://127.0.0.1:{server.start()}"
    taken: dict[str, list[float]] = {}
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            for name, study in studies.items():
                for throttle in (1, _THROTTLE):
                    context = browser.new_context(viewport={"width": 1280, "height": 800})
                    context.add_cookies([web_kit.browser_cookie(store, address, "radiologist")])
                    taken[f"{name} {throttle}x"] = _steps(context, f"{address}/try/{study}", throttle)
                    context.close()
            browser.close()
    finally:
        server.stop()
    return [
        _row("images", opened, {name: taken[f"{name} {_THROTTLE}x"] for name in studies}, _OPEN_BOUND_MS),
        _row("images-step", stepped, {name: taken[f"{name} 1x"] for name in studies}, _STEP_BOUND_MS),
    ]


def _row(name: str, figure: str, taken: dict[str, list[float]], bound_ms: float) -> Row:
    middle = {what: statistics.median(times) for what, times in taken.items()}
    return Row(
        name=name,
        figure=figure,
        measured=", ".join(f"{what} {ms:.0f} ms" for what, ms in middle.items()),
        bound=f"{bound_ms:g} ms",
        ok=max(middle.values()) <= bound_ms,
        details={what: [round(one, 1) for one in times] for what, times in taken.items()},
    )


def _steps(context: Any, address: str, throttle: int) -> list[float]:
    """Milliseconds of each step to an image that the page holds already."""
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(_SETTLED)
    page.keyboard.press("Home")
    # What lies around it is fetched meanwhile; the page's event stream never lets the network be idle.
    page.wait_for_timeout(4000)
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": throttle})
    page.evaluate("performance.clearMeasures()")
    for number in range(1, _STEPS + 1):
        page.keyboard.press("ArrowDown")
        deadline = time.monotonic() + 10
        while page.evaluate(f"{_TIMES}.length") < number and time.monotonic() < deadline:
            page.wait_for_timeout(50)
    times: list[float] = page.evaluate(_TIMES)
    page.close()
    if len(times) < _STEPS:
        raise SystemExit(f"only {len(times)} of {_STEPS} steps went to images that the page held")
    return times
