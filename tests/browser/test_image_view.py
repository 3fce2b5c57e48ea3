"""The image viewer as a reader uses it: right way round, right grey, marks where they may be, never silent."""

from __future__ import annotations

import base64
import json
import time

import cv2
import httpx
import images_kit
import numpy as np
import pytest
from web_kit import COOKIE, browser_cookie, session

from appliance.clock import SystemClock
from appliance.config import Config
from appliance.dicom import luts
from appliance.web.server import WebServer

#: What is painted, as PNG.
SCREEN = "document.querySelector('image-view canvas').toDataURL()"
MARK = """() => {
  const at = document.querySelector("[data-layer=overlay] polyline").getBoundingClientRect();
  const stage = document.querySelector("[data-testid=stage]").getBoundingClientRect();
  const border = 1;
  const [x, y] = [stage.left + border, stage.top + border];
  return [at.left - x, at.top - y, at.right - x, at.bottom - y];
}"""


@pytest.fixture
def serve_viewer(store, scenes):
    """``serve_viewer(packages=...)``: address of a server whose /try/{study} is a page around the viewer."""
    servers = []

    def start(packages=None, **options):
        app = images_kit.app_with_viewer(store, Config(), packages or scenes.packages(), SystemClock(), **options)
        server = WebServer(app, port=0)
        servers.append(server)
        return f"http://127.0.0.1:{server.start()}"

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def look(serve_viewer, store, browser, troubles):
    """``look(study)``: the page, with a slice on it. ``events`` holds what the viewer told."""

    def open_viewer(
        study, role="radiologist", *, address=None, state="shown", packages=None, editable=False, **options
    ):
        address = address or serve_viewer(packages=packages, editable=editable)
        context = browser(**options)
        context.add_cookies([browser_cookie(store, address, role)])
        page = context.new_page()
        page.troubles = troubles(page)
        page.add_init_script(
            "window.events = []; for (const name of ['seen', 'region'])"
            " document.addEventListener(`image-view:${name}`, (e) => events.push([name, e.detail]));"
        )
        page.goto(f"{address}/try/{study}")
        page.wait_for_selector(f"image-view[data-state={state}]")
        return page

    return open_viewer


def screen(page):
    png = base64.b64decode(page.evaluate(SCREEN).partition(",")[2])
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)


def becomes(page, script):
    """Wait until a script says yes. Playwright's own waiting evaluates text in the page, which its policy forbids."""
    deadline = time.monotonic() + 30
    while not page.evaluate(script):
        assert time.monotonic() < deadline, script
        page.wait_for_timeout(20)


def bounds(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def marked_head():
    """A head CT in whose third slice a block at columns 28-35, rows 25-30 is bright; the patient's left is brighter."""
    phantom = images_kit.head(12, matrix=64)
    phantom.pixels[:] = 0
    phantom.pixels[:, 40:44, 56:60] = 500
    phantom.pixels[2, 25:31, 28:36] = 3000
    return phantom


@pytest.mark.req("R-IMAGES-04")
@pytest.mark.req("R-IMAGES-02")
def test_marks_lie_where_the_finding_is_at_every_size_and_are_off_until_asked_for(look, store, scenes):
    study, datasets = images_kit.ct(store, marked_head())
    uid = str(datasets[2].SOPInstanceUID)
    images_kit.flag(store, scenes, study, keys=(uid,), boxes=((uid, ((28, 25), (35, 30))),))
    page = look(study, "technologist")
    # It begins at the key slice, says which it is, and where the patient's left is.
    assert "3 / 12" in page.get_by_test_id("at").inner_text()
    assert "key slice" in page.get_by_test_id("at").inner_text()
    assert page.get_by_test_id("ticks").locator("i").count() == 1
    letters = [page.get_by_test_id(edge).inner_text() for edge in ("left", "right", "top", "bottom")]
    assert letters == ["R", "L", "A", "P"]
    assert page.get_by_test_id("not-for-diagnosis").inner_text() == "Preview, not for diagnosis"
    assert page.get_by_test_id("scale").inner_text().endswith("mm")
    below = screen(page)[screen(page).shape[0] // 2 :]
    # The marker at the patient's left stands at the side of the letter L.
    assert bounds(below > 200)[0] > below.shape[1] / 2
    # Off at first; where it is on, it is on the bright block, to a pixel.
    layer = page.locator("[data-layer=overlay]")
    assert layer.is_hidden()
    page.keyboard.press("o")
    page.wait_for_selector("[data-layer=overlay] polyline", state="attached")
    for zoom in (0.5, 1, 3):
        page.evaluate("(zoom) => { document.querySelector('image-view').zoom = zoom; }", zoom)
        shown = screen(page)
        block = bounds(shown[: round(shown.shape[0] * 0.5)] > 128)
        mark = page.evaluate(MARK)
        assert np.abs(np.array(mark) - block).max() <= 1, (zoom, mark, block)
    # Remembered for this session, and gone where there is nothing to draw.
    page.reload()
    page.wait_for_selector("[data-layer=overlay] polyline", state="attached")
    assert layer.is_visible()
    page.keyboard.press("o")
    page.wait_for_selector("[data-layer=overlay]", state="hidden")
    assert page.get_by_test_id("marks").get_attribute("aria-pressed") == "false"
    page.keyboard.press("o")
    page.wait_for_selector("[data-layer=overlay] polyline", state="visible")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("[data-testid=at]:has-text('4 / 12')")
    becomes(page, "document.querySelectorAll('[data-layer=overlay] polyline').length === 0")
    assert page.troubles == []


@pytest.mark.req("R-IMAGES-01")
def test_of_a_triage_package_the_images_are_shown_as_if_it_had_never_looked(look, serve_viewer, store, scenes):
    plain, _ = images_kit.ct(store, marked_head(), seed="plain")
    study, datasets = images_kit.ct(store, marked_head(), seed="triaged")
    uid = str(datasets[2].SOPInstanceUID)
    images_kit.flag(store, scenes, study, keys=(uid,), boxes=((uid, ((28, 25), (35, 30))),), intended_use="triage")
    address = serve_viewer(packages=images_kit.triaging(scenes.packages()))
    drawn = set()
    for which, role in ((plain, "radiologist"), (study, "radiologist"), (study, "technologist")):
        page = look(which, role, address=address)
        assert page.locator("[data-layer=overlay]").count() == 0
        assert page.get_by_test_id("marks").is_hidden()
        assert page.get_by_test_id("ticks").locator("i").count() == 0
        page.keyboard.press("o")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.wait_for_selector("[data-testid=at]:has-text('3 / 12')")
        drawn.add(page.evaluate("document.querySelector('image-view canvas').toDataURL()"))
        assert page.locator("[data-layer=overlay]").count() == 0
        assert page.troubles == []
    assert len(drawn) == 1


@pytest.mark.req("R-IMAGES-04")
def test_a_reader_goes_through_slices_and_windows_by_keys_and_hand(look, store, scenes):
    study, datasets = images_kit.ct(store, images_kit.head(12))
    uids = [str(ds.SOPInstanceUID) for ds in datasets]
    images_kit.flag(store, scenes, study, keys=(uids[1], uids[9]))
    page = look(study, editable=True)
    at, window = page.get_by_test_id("at"), page.get_by_test_id("window")

    def arrives(text):
        page.wait_for_selector(f"[data-testid=at]:has-text('{text} / 12')")

    for key, text in (("ArrowDown", 3), ("PageDown", 12), ("Home", 1), ("k", 2), ("k", 10), ("k", 2), ("End", 12)):
        page.keyboard.press(key)
        arrives(text)
    assert "No. 12" in at.inner_text()
    page.get_by_test_id("slider").fill("4")
    arrives(5)
    page.locator("h1").click()
    stage = page.get_by_test_id("stage").bounding_box()
    middle = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(*middle)
    page.mouse.wheel(0, 80)
    arrives(7)
    # Windows: those of radiologists by number, the image's own, by hand.
    assert window.inner_text() == "C 40 W 80"
    for key, text in (("2", "C 75 W 215"), ("4", "C -600 W 1500"), ("1", "C 40 W 80")):
        page.keyboard.press(key)
        assert window.inner_text() == text
    before = screen(page)
    page.keyboard.press("i")
    assert "inverted" in window.inner_text()
    inside = tuple(slice(int(size // 2 - 60), int(size // 2 + 60)) for size in before.shape)
    assert np.abs((255 - before[inside].astype(int)) - screen(page)[inside]).max() <= 1
    page.keyboard.press("i")
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] - 30, steps=3)
    page.mouse.up()
    becomes(page, "document.querySelector('[data-testid=presets]').value === 'hand'")
    assert window.inner_text() != "C 40 W 80"
    page.keyboard.press("0")
    assert window.inner_text() == "C 40 W 80"
    # Slices that were at hand were painted from there, and what was looked at is told once.
    becomes(page, "performance.getEntriesByName('image-view:cached').length > 3")
    becomes(page, "events.some(([name, told]) => name === 'seen' && told.index === 6)")
    page.keyboard.press(" ")
    page.wait_for_selector("[data-testid=cine][aria-pressed=true]")
    becomes(page, "!document.querySelector('[data-testid=at]').textContent.startsWith('7 ')")
    page.keyboard.press("Home")
    arrives(1)
    assert page.get_by_test_id("cine").get_attribute("aria-pressed") == "false"
    # A box of whole pixels, drawn, moved, taken back.
    page.get_by_test_id("tool-draw").click()
    page.mouse.move(middle[0] - 50, middle[1] - 40)
    page.mouse.down()
    page.mouse.move(middle[0] + 50, middle[1] + 40, steps=4)
    page.mouse.up()

    def told():
        return page.evaluate("events.filter(([name]) => name === 'region').at(-1)[1]")

    drawn = told()
    assert drawn["index"] == 0
    assert all(isinstance(drawn[name], int) for name in "xywh")
    page.keyboard.press("b")
    placed = told()
    assert [placed[name] for name in "xywh"] == [24, 24, 16, 16]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    moved = told()
    assert [moved[name] for name in "xywh"] == [25, 24, 16, 17]
    for _ in range(3):
        page.keyboard.press("Control+z")
    assert told() == drawn
    page.keyboard.press("Control+z")
    assert told()["x"] is None
    assert page.troubles == []


@pytest.mark.req("R-IMAGES-05")
def test_black_and_white_are_right_in_both_polarities_and_windows_are_those_of_python(look, serve_viewer, store):
    address = serve_viewer()
    pixels = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint16) * 29
    shown = []
    for photometric, side, word in (("MONOCHROME2", "L", "left side"), ("MONOCHROME1", "R", "right side")):

        def on_a_side(ds, side=side):
            ds.ImageLaterality = side

        study, _ = images_kit.film(store, pixels, seed=photometric, photometric=photometric, change=on_a_side)
        page = look(study, address=address)
        shown.append(screen(page))
        assert page.locator(".iv-about").inner_text().endswith(f" · {word}")
        assert [page.get_by_test_id(edge).inner_text() for edge in ("left", "right", "top", "bottom")] == [*"RLHF"]
        assert "at the detector" in page.get_by_test_id("scale").inner_text()
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= 1
    middle = shown[0][shown[0].shape[0] // 2]
    assert int(middle[middle > 0][-1]) > int(middle[middle > 0][0]) + 50  # bright where the values are high
    scripts = page.locator("script[type=module]").evaluate_all("all => all.map((one) => one.src)")
    module = next(one for one in scripts if one.endswith("image-view.js")).replace("image-view", "voi")
    values = np.arange(-32768, 32768, 7, dtype=np.int64)
    cases = [
        (40, 80, "LINEAR", "i2", 1.0, -1024.0),
        (40.5, 1, "LINEAR", "i2", 1.0, -1024.0),
        (2048, 4096, "LINEAR_EXACT", "u2", 0.5, 3.0),
        (300, 700, "SIGMOID", "i2", 2.0, -100.0),
        (32768, 65536, "LINEAR", "u2", 1.0, 0.0),
    ]
    for centre, width, kind, stored_as, slope, intercept in cases:
        stored = values if stored_as == "i2" else values + 32768
        for inverted in (False, True):
            meta = {"type": stored_as, "slope": slope, "intercept": intercept, "inverted": inverted}
            ours = page.evaluate(
                "async ([module, meta, window, from]) => { const { table } = await import(module);"
                " const colours = table(meta, window);"
                " const greys = []; for (let n = from; n < from + 65536; n += 7) greys.push(colours[n & 65535] & 255);"
                " return greys.join(); }",  # as text: numbers travel one by one
                [module, meta, {"centre": centre, "width": width, "kind": kind}, int(stored[0])],
            ).split(",")
            unit = luts.window_values((stored * slope + intercept).astype(np.float32), centre, width, kind)
            theirs = np.rint((1 - unit if inverted else unit) * 255)
            assert np.abs(np.array(ours, float) - theirs).max() <= 1, (centre, width, kind, inverted)
    # Directions at the edges, the tilt of a gantry included (PS3.3 C.7.6.1.1.1).
    cos, sin = np.cos(np.radians(20)), np.sin(np.radians(20))
    for orientation, expected in (
        ([1, 0, 0, 0, 1, 0], ["R", "L", "A", "P"]),
        ([-1, 0, 0, 0, -1, 0], ["L", "R", "P", "A"]),
        ([0, 1, 0, 0, 0, -1], ["A", "P", "H", "F"]),
        ([1, 0, 0, 0, 0, -1], ["R", "L", "H", "F"]),
        ([1, 0, 0, 0, cos, -sin], ["R", "L", "AH", "PF"]),
    ):
        told = page.evaluate(
            "async ([module, meta]) => { const { edges } = await import(module); return edges(meta); }",
            [module, {"orientation": [float(value) for value in orientation]}],
        )
        assert [told[edge] for edge in ("left", "right", "top", "bottom")] == expected
    assert page.troubles == []


@pytest.mark.req("R-IMAGES-04")
def test_a_film_that_is_shown_at_less_than_half_its_size_lies_where_it_lies_and_keeps_its_greys(look, store):
    pixels = np.full((1021, 761), 1000, np.uint16)
    pixels[201:601, 201:601] = 3000
    # Lines finer than the screen are grey on it: across at the left, along at the right.
    pixels[601:801:2, 201:401] = pixels[601:801, 401:601:2] = 3000
    study, _ = images_kit.film(store, pixels)
    page = look(study)
    page.keyboard.press("6")
    becomes(page, "document.querySelector('[data-testid=presets]').value === 'auto'")
    shown = screen(page)
    scale = shown.shape[0] / 1021
    assert scale < 0.5
    left = (shown.shape[1] - 761 * scale) / 2
    block = np.array(bounds(shown[: round(590 * scale)] > 128))
    assert np.abs(block[:3] - (left + 201 * scale, 201 * scale, left + 601 * scale)).max() <= 1
    for from_column in (201, 401):
        rows, columns = (620, 780), (from_column + 20, from_column + 180)
        at = [slice(*(round(offset + one * scale) for one in side)) for offset, side in ((0, rows), (left, columns))]
        fine = shown[tuple(at)]
        assert (abs(fine.mean() - 128) < 12, fine.std() < 12) == (True, True), (fine.mean(), fine.std())
    # Larger, every pixel of the frame is there again.
    page.evaluate("document.querySelector('image-view').zoom = 3")
    assert bounds(screen(page) > 250)[0] >= 0
    assert page.troubles == []


@pytest.mark.req("R-IMAGES-06")
def test_what_cannot_be_shown_is_said_and_the_rest_goes_on(look, serve_viewer, store, scenes, browser):
    study, datasets = images_kit.ct(store, images_kit.head(4))
    damaged = store.db.one("SELECT path FROM version WHERE instance_number = 2")["path"]
    store.spool.path(damaged).write_bytes(b"no image at all")
    with store.db.write() as tx:
        empty = scenes.add_study(tx)
    address = serve_viewer()
    page = look(study, address=address)
    page.keyboard.press("Home")
    page.wait_for_selector("[data-testid=at]:has-text('1 / 4')")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("image-view[data-state=failed]")
    assert "cannot be read" in page.get_by_test_id("image-state").inner_text()
    assert page.get_by_test_id("at").inner_text() == ""
    assert not screen(page).any()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("[data-testid=at]:has-text('3 / 4')")
    # While a slice is on its way, news of the study leave the reader where they are going.
    page.add_init_script(images_kit.HOLD)
    page.reload()
    page.wait_for_selector("[data-testid=place]:has-text('3 / 4')")
    page.keyboard.press("End")
    with page.expect_response(lambda answer: answer.url.endswith("/images")):
        page.evaluate(
            "(study) => document.body.dispatchEvent("
            "new CustomEvent('scanside:facts', {detail: {seq: 1, studies: [study]}}))",
            study,
        )
    page.evaluate("release()")
    page.wait_for_selector("[data-testid=at]:has-text('4 / 4')")
    assert [one for one in page.troubles if "422" not in one] == []
    page = look(empty, address=address, state="empty")
    assert page.get_by_test_id("image-state").inner_text() == "This study has no images to show"
    assert page.get_by_test_id("not-for-diagnosis").is_visible()
    # Without scripts the server's own picture stands there.
    context = browser(java_script_enabled=False)
    context.add_cookies([browser_cookie(store, address, "viewer")])
    page = context.new_page()
    page.goto(f"{address}/try/{study}")
    preview = page.get_by_test_id("preview")
    assert preview.is_visible()
    with httpx.Client(base_url=address, cookies={COOKIE: session(store, "viewer")}) as client:
        answer = client.get(preview.get_attribute("src"))
    assert answer.content.startswith(b"\x89PNG")
    assert json.dumps(datasets[0].PatientName.original_string.decode())[1:-1] not in page.content()
