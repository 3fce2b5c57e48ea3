"""The images of a study over HTTP: order, key slices, pixels, what may be drawn, and who may look."""

from __future__ import annotations

import functools
import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import cv2
import httpx
import images_kit
import numpy as np
import pytest
from web_kit import COOKIE, session

from appliance.config import Config, Site
from appliance.screen.display import Display
from appliance.simulate.enhanced import enhanced_ct
from appliance.simulate.study import Study
from appliance.store.facts import Kind
from appliance.web.server import WebServer
from engines.overlay import Laying, Overlay, pack


@pytest.fixture
def serve(store, clock, scenes, monkeypatch):
    """``with serve(role=...) as client``: the pages of the store, with the viewer at /try/{study}.

    Images are prepared in this process: children are asked in test_display.py and in front of browsers.
    """
    within = functools.partial(Display, run_child=images_kit.child_in_process)
    monkeypatch.setattr("appliance.screen.app.Display", within)

    @contextmanager
    def start(role="radiologist", packages=None, config=None, **options):
        app = images_kit.app_with_viewer(store, config or Config(), packages or scenes.packages(), clock)
        server = WebServer(app, port=0)
        address = f"http://127.0.0.1:{server.start()}"
        try:
            with httpx.Client(
                base_url=address, headers={"Origin": address}, cookies={COOKIE: session(store, role)}, timeout=60
            ) as client:
                client.display = app.state.context.display
                yield client
        finally:
            server.stop()

    return start


def listed(client, study):
    answer = client.get(f"/studies/{study}/images")
    assert answer.status_code == 200, answer.text
    return answer.json()


def pixels_of(client, study, series, picture, query=""):
    """(meta, values) of one picture."""
    answer = client.get(f"/studies/{study}/images/{series['id']}/{picture['id']}{query}")
    assert answer.status_code == 200, answer.text
    meta = json.loads(answer.headers["Image-Meta"])
    kind = {"i2": "<i2", "u2": "<u2", "rgb": "u1"}[meta["type"]]
    shape = (meta["got"][1], meta["got"][0], *((3,) if meta["type"] == "rgb" else ()))
    return meta, np.frombuffer(answer.content, kind).reshape(shape)


def test_a_series_is_listed_by_position_and_its_pixels_are_those_of_the_scanner(store, serve):
    study, datasets = images_kit.ct(store)
    with serve() as client:
        (series,) = listed(client, study)["series"]
        assert [picture["number"] for picture in series["pictures"]] == list(range(1, 9))
        assert series["first"] == 4
        for n in (0, 7):
            meta, values = pixels_of(client, study, series, series["pictures"][n])
            assert np.array_equal(values, datasets[n].pixel_array)
            assert (meta["slope"], meta["intercept"], meta["inverted"]) == (1.0, -1024.0, False)
            assert meta["windows"] == [[40.0, 80.0, "LINEAR"]]
            assert meta["position"] == [0.0, 0.0, 5.0 * n]
            assert (meta["spacing"], meta["spacing_at"]) == ([1.0, 1.0], "patient")
        again = listed(client, study)["series"][0]["pictures"]
        assert all(picture["ready"] for picture in again)


@pytest.mark.req("R-REVIEW-05")
def test_who_reads_first_is_told_no_place_of_any_package(store, serve, scenes):
    study, datasets = images_kit.ct(store)
    uid = str(datasets[1].SOPInstanceUID)
    images_kit.flag(store, scenes, study, keys=(uid,), boxes=((uid, ((2, 2), (9, 9))),))
    with serve() as client:
        told = listed(client, study)
        blind = client.get(f"/studies/{study}/images?first=1").json()
        (series,) = blind["series"]
        assert (told["overlay"], told["series"][0]["first"]) == (True, 1)
        assert (blind["overlay"], series["first"]) == (False, 4)
        assert not any(picture["key"] for picture in series["pictures"])
        address = f"/studies/{study}/images/{series['id']}/{series['pictures'][1]['id']}/overlay"
        assert client.get(f"{address}?first=1").status_code == 404
        assert client.get(address).status_code in {200, 202}
        # The page itself begins there too, and tells the viewer which list to ask for.
        page = client.get(f"/studies/{study}/review?first=1").text
        assert " data-first>" in page
        assert f"/{series['pictures'][4]['id']}/preview.png" in page
        assert " data-first>" not in client.get(f"/studies/{study}/review").text


def test_what_is_missing_or_still_to_come_is_said_in_the_readers_language(store, serve):
    study, _ = images_kit.ct(store, leave_out=(2, 3))
    with store.db.write() as tx:
        tx.execute("UPDATE series SET open = 1 WHERE study_id = ?", (study,))
    with serve() as client:
        told = listed(client, study)
        assert told["open"]
        assert told["series"][0]["notes"] == [
            "Images of this series are still arriving",
            "2 slices are missing: 3-4 of 8, counted along the series",
        ]
        chinese = client.get(f"/studies/{study}/images?lang=zh_Hans_CN").json()["series"][0]["notes"]
        assert not any(word in "".join(chinese) for word in ("slices", "Images"))


def test_a_series_counted_from_the_other_end_stays_in_the_scanners_order(store, serve):
    phantom = images_kit.head()
    study, _ = images_kit.ct(store, replace(phantom, instance_numbers=tuple(reversed(phantom.instance_numbers))))
    with serve() as client:
        (series,) = listed(client, study)["series"]
    assert [picture["number"] for picture in series["pictures"]] == list(range(1, 9))


def test_an_image_that_a_rejection_note_took_back_is_not_shown(store, serve):
    study, _ = images_kit.ct(store)
    with store.db.write() as tx:
        tx.execute("UPDATE version SET state = 'rejected' WHERE instance_number = 3")
        taken = tx.one("SELECT id FROM version WHERE instance_number = 3")["id"]
    with serve() as client:
        (series,) = listed(client, study)["series"]
        assert 3 not in [picture["number"] for picture in series["pictures"]]
        assert "1 image was taken back and is not shown" in series["notes"]
        assert client.get(f"/studies/{study}/images/{series['id']}/{taken}.1").status_code == 404


def test_a_large_film_comes_small_first_and_whole_when_asked_for(store, serve):
    pixels = (np.add.outer(np.arange(1500), np.arange(1200)) % 4000).astype(np.uint16)
    study, dataset = images_kit.film(store, pixels)
    with serve() as client:
        (series,) = listed(client, study)["series"]
        (picture,) = series["pictures"]
        small, values = pixels_of(client, study, series, picture)
        assert small["got"] == [819, 1024]
        assert (small["cols"], small["rows"]) == (1200, 1500)
        assert (small["spacing_at"], small["towards"], small["view"]) == ("detector", ["L", "F"], "PA")
        whole, full = pixels_of(client, study, series, picture, "?px=0")
        assert whole["got"] == [1200, 1500]
        assert np.array_equal(full, dataset.pixel_array)
        assert abs(float(values.mean()) - float(full.mean())) < 2


def test_an_enhanced_object_is_as_many_pictures_as_it_has_frames(store, serve, scenes):
    dataset = enhanced_ct(images_kit.head(5), Study(seed="enhanced"))
    study = images_kit.add_datasets(store, [dataset])
    images_kit.flag(store, scenes, study, keys=(f"{dataset.SOPInstanceUID}#4",))
    with serve() as client:
        (series,) = listed(client, study)["series"]
        assert [picture["frame"] for picture in series["pictures"]] == [1, 2, 3, 4, 5]
        assert [picture["key"] for picture in series["pictures"]] == [False, False, False, True, False]
        meta, values = pixels_of(client, study, series, series["pictures"][3])
        assert np.array_equal(values, dataset.pixel_array[3])
        assert meta["position"] == [0.0, 0.0, 15.0]
        assert meta["windows"] == [[40.0, 80.0, "LINEAR"]]
        assert meta["orientation"] == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


@pytest.mark.req("R-IMAGES-02")
def test_places_of_a_detection_package_are_told_in_the_images_own_coordinates(store, serve, scenes):
    study, datasets = images_kit.ct(store)
    uid = datasets[2].SOPInstanceUID
    images_kit.flag(store, scenes, study, keys=(uid,), boxes=((uid, ((10, 20), (15, 30))),))
    with serve("technologist") as client:
        told = listed(client, study)
        (series,) = told["series"]
        assert told["overlay"]
        assert [n for n, picture in enumerate(series["pictures"]) if picture["key"]] == [2]
        assert series["first"] == 2
        address = f"/studies/{study}/images/{series['id']}"
        lines = client.get(f"{address}/{series['pictures'][2]['id']}/overlay").json()["lines"]
        # From the outer corner of the first pixel to that of the last, as in SR and presentation state.
        assert lines[0]["points"] == [[10, 20], [16, 20], [16, 31], [10, 31], [10, 20]]
        assert lines[0]["title"] == "Suspected bleed in the head"
        assert client.get(f"{address}/{series['pictures'][3]['id']}/overlay").json()["lines"] == []


@pytest.mark.req("R-IMAGES-02")
def test_a_mask_is_drawn_as_lines_that_a_child_made_of_it(store, serve, scenes):
    study, datasets = images_kit.ct(store)
    mask = np.zeros((8, 64, 64), np.bool_)
    mask[3, 20:30, 10:16] = True
    uids = [str(ds.SOPInstanceUID) for ds in datasets]
    laid = tuple(
        Laying(slice_id=uid, shape=(64, 64), index=n, row=(0.0, 1.0), column=(0.0, 1.0)) for n, uid in enumerate(uids)
    )
    path = store.spool.write_blob("pictures", pack({"hyperdensity": Overlay(mask=mask, slices=laid)}), suffix=".npz")
    box = ((uids[3], ((0, 0), (5, 5))), (uids[5], ((1, 1), (2, 2))))
    images_kit.flag(store, scenes, study, keys=(uids[3],), boxes=box, masks=path)
    with serve() as client:
        (series,) = listed(client, study)["series"]
        address = f"/studies/{study}/images/{series['id']}"
        pixels_of(client, study, series, series["pictures"][3])
        (line,) = client.get(f"{address}/{series['pictures'][3]['id']}/overlay").json()["lines"]
        columns, rows = zip(*line["points"], strict=True)
        assert (min(columns), max(columns), min(rows), max(rows)) == (10.5, 15.5, 20.5, 29.5)
        (line,) = client.get(f"{address}/{series['pictures'][5]['id']}/overlay").json()["lines"]
        assert line["points"][0] == [1, 1]


@pytest.mark.req("R-IMAGES-01")
@pytest.mark.parametrize("role", ["technologist", "radiologist"])
def test_nothing_of_a_triage_packages_place_leaves_the_server(store, serve, scenes, role):
    study, datasets = images_kit.ct(store)
    uid = str(datasets[2].SOPInstanceUID)
    options = {"keys": (uid,), "boxes": ((uid, ((10, 20), (15, 30))),)}
    images_kit.flag(store, scenes, study, intended_use="triage", **options)
    # The row says detection, the package of today says triage: the stricter word holds. And one that is gone.
    images_kit.flag(store, scenes, study, **options)
    images_kit.flag(store, scenes, study, package="gone", **options)
    with serve(role, packages=images_kit.triaging(scenes.packages())) as client:
        told = listed(client, study)
        (series,) = told["series"]
        assert not told["overlay"]
        assert not any(picture["key"] for picture in series["pictures"])
        assert series["first"] == 4
        for picture in series["pictures"]:
            answer = client.get(f"/studies/{study}/images/{series['id']}/{picture['id']}/overlay")
            assert answer.status_code == 404
            assert "10" not in answer.text
        page = client.get(f"/try/{study}").text
        assert 'data-layer="overlay"' not in page


def test_whoever_is_told_the_priority_alone_is_shown_no_place(store, serve, scenes):
    study, datasets = images_kit.ct(store)
    uid = str(datasets[2].SOPInstanceUID)
    images_kit.flag(store, scenes, study, keys=(uid,), boxes=((uid, ((10, 20), (15, 30))),))
    config = Config(site=Site(technologist_detail="priority_only"))
    with serve(config=config) as client:
        for role, is_told in (
            ("technologist", False),
            ("viewer", False),
            ("administrator", False),
            ("radiologist", True),
        ):
            client.cookies.clear()
            client.cookies.set(COOKIE, session(store, role))
            told = listed(client, study)
            assert told["overlay"] is is_told
            assert any(picture["key"] for picture in told["series"][0]["pictures"]) is is_told


def test_quality_warnings_draw_nothing(store, serve, scenes):
    study, dataset = images_kit.film(store)
    box = ((str(dataset.SOPInstanceUID), ((10, 20), (15, 30))),)
    images_kit.flag(store, scenes, study, boxes=box, package=scenes.QUALITY, intended_use="quality")
    with serve() as client:
        assert not listed(client, study)["overlay"]


def test_a_preview_without_scripts_carries_the_warning_and_the_images_own_window(store, serve):
    study, datasets = images_kit.ct(store, images_kit.head(matrix=96))
    with serve() as client:
        page = client.get(f"/try/{study}").text
        address = page.split('class="iv-preview"')[1].split('src="')[1].split('"')[0]
        answer = client.get(address)
        assert answer.headers["content-type"] == "image/png"
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_GRAYSCALE)
        band = picture.shape[0] - 96
        assert band > 20
        assert picture[:band].max() > 200
        left = (picture.shape[1] - 96) // 2
        hu = datasets[4].pixel_array.astype(float) - 1024
        expected = np.clip((hu - 39.5) / 79 + 0.5, 0, 1) * 255
        assert np.abs(picture[band:, left : left + 96] - expected).max() <= 1


@pytest.mark.req("R-IMAGES-03")
def test_a_look_at_images_is_one_fact_and_a_screen_at_a_scanner_has_none(store, serve):
    study, _ = images_kit.ct(store)
    with serve("technologist") as client:
        for _ in range(2):
            (series,) = listed(client, study)["series"]
            pixels_of(client, study, series, series["pictures"][0])
        facts = store.journal.after(0, 100, (Kind.ACCESSED,))
        assert [(fact.body["what"], fact.study_id, fact.actor["role"]) for fact in facts] == [
            ("images", study, "technologist")
        ]
        client.cookies.clear()
        for role, status in (("screen", 403), ("service", 403), ("viewer", 200), ("administrator", 200)):
            client.cookies.set(COOKIE, session(store, role))
            assert client.get(f"/studies/{study}/images").status_code == status
            address = f"/studies/{study}/images/{series['id']}/{series['pictures'][0]['id']}"
            assert client.get(address).status_code == status
            assert client.get(f"{address}/preview.png").status_code == status


def test_addresses_that_fit_nothing_are_answered_in_words(store, serve, scenes):
    study, _ = images_kit.ct(store)
    other, _ = images_kit.ct(store, seed="other")
    with serve() as client:
        (series,) = listed(client, study)["series"]
        (foreign,) = listed(client, other)["series"]
        first = series["pictures"][0]["id"]
        for address in (
            f"/studies/999/images/{series['id']}/{first}",
            f"/studies/{other}/images/{series['id']}/{first}",
            f"/studies/{study}/images/{foreign['id']}/{first}",
            f"/studies/{study}/images/{series['id']}/x",
            f"/studies/{study}/images/{series['id']}/..%2f..",
            "/studies/999/images",
        ):
            assert client.get(address).status_code == 404, address
        answer = client.get(f"/studies/{study}/images/{series['id']}/{first.replace('.1', '.7')}")
        assert (answer.status_code, answer.json()) == (422, {"error": "The object has no frame 7"})
        with store.db.write() as tx:
            none = scenes.add_study(tx)
        assert listed(client, none)["note"] == "This study has no images to show"


def test_images_that_retention_took_away_are_said_to_be_gone(store, serve, clock):
    study, _ = images_kit.ct(store)
    with store.db.write() as tx:
        tx.execute("UPDATE version SET removed_at = ?", (tx.at,))
        tx.execute("UPDATE study SET kept = 0, images_removed_at = ?", (tx.at,))
    clock.advance(timedelta(hours=1).total_seconds())
    with serve() as client:
        told = listed(client, study)
        assert "removed from this box" in told["note"]
        (series,) = told["series"]
        assert client.get(f"/studies/{study}/images/{series['id']}/{series['pictures'][0]['id']}").status_code == 410
        assert "preview.png" not in client.get(f"/try/{study}").text
