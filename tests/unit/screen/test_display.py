"""The cache of pixels and the children that fill it: order, crashes, stuck images, room, and images that go."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace

import images_kit
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from appliance.records import Detail
from appliance.screen import display_work as module
from appliance.screen import image_wishes
from appliance.screen.display import Display
from appliance.screen.display_cache import Cache, Pixels
from appliance.screen.display_work import Wish
from appliance.screen.image_list import Policy
from appliance.store.facts.intake import ImagesRemoved
from engines.child import Limits, run_limited
from engines.errors import ChildError


@pytest.fixture
def made(store, clock):
    """``made(run_child, ...)``: a display without threads; ``work`` is called by the test."""

    def make(run_child=run_limited, plan=lambda _: (), **options):
        return Display(store, clock, plan, run_child=run_child, **options)

    return make


@pytest.fixture
def wish(store):
    """``wish(study, ...)``: everything of the first series of a study, in order."""

    def make(study_id, **more):
        series = store.images.of_study(study_id).series[0]
        return Wish(
            study_id=study_id,
            series_id=series.id,
            images=tuple((file.stem, file.path) for file in series.files),
            **more,
        )

    return make


def stems(wish):
    return [stem for stem, _ in wish.images]


def prepared(tmp_path, datasets, **more):
    """What the child makes of data sets: (folder, documents by stem)."""
    paths = []
    for n, data in enumerate(datasets):
        path = tmp_path / f"in{n}.dcm"
        path.write_bytes(data if isinstance(data, bytes) else images_kit.part10(data))
        paths.append(path)
    request = {
        "folder": str(tmp_path / "out"),
        "images": [{"stem": f"s{n}", "path": str(path)} for n, path in enumerate(paths)],
        "masks": [],
        "preview": "",
        "limit_bytes": 10**9,
    }
    images_kit.here(request | more, lambda _: None)
    documents = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("s*.json"))]
    return tmp_path / "out", documents


def frame_of(folder, document, stem="s0", frame=1):
    meta = document["frames"][frame - 1]
    kind = {"i2": "<i2", "u2": "<u2", "rgb": "u1"}[meta["type"]]
    shape = (meta["size"][1], meta["size"][0], *((3,) if meta["type"] == "rgb" else ()))
    return meta, np.fromfile(folder / f"{stem}.{frame}.px", kind).reshape(shape)


# The child ---------------------------------------------------------------------------------------------------------


def test_padding_is_as_black_as_anything_whatever_its_own_value(tmp_path, store):
    _, bright = images_kit.film(store, np.full((40, 40), 1000, np.uint16))
    bright.PixelPaddingValue = 4095
    values = np.frombuffer(bright.PixelData, "<u2").reshape(40, 40).copy()
    values[:5], values[10] = 4095, 200
    bright.PixelData = values.tobytes()
    folder, (document,) = prepared(tmp_path, [bright])
    meta, shown = frame_of(folder, document)
    assert shown[:5].max() == 200
    assert meta["range"] == [200.0, 1000.0]
    inverse = replace_pixels(bright, 4095 - values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    folder, (document,) = prepared(tmp_path / "m1", [inverse]) if (tmp_path / "m1").mkdir() is None else None
    _, shown = frame_of(folder, document)
    assert shown[:5].min() == 4095 - 200
    assert document["frames"][0]["inverted"]


def replace_pixels(ds, values, **attributes):
    ds.PixelData = values.astype("<u2").tobytes()
    for name, value in attributes.items():
        setattr(ds, name, value)
    return ds


def test_an_images_own_curve_is_taken_into_its_values(tmp_path, store):
    _, ds = images_kit.film(store, np.tile(np.arange(256, dtype=np.uint16) * 16, (4, 1)))
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item["LUTDescriptor"].VR = "US"
    table = (np.sqrt(np.arange(4096) / 4095) * 4095).astype("<u2")
    item.add_new(0x00283006, "OW", table.tobytes())
    ds.VOILUTSequence = [item]
    folder, (document,) = prepared(tmp_path, [ds])
    meta, shown = frame_of(folder, document)
    assert meta["windows"] == [[32768.0, 65536, "LINEAR"]]
    stored = np.frombuffer(ds.PixelData, "<u2").reshape(4, 256)
    assert np.abs(shown / 65535 - table[stored] / 4095).max() < 1e-4


def test_floats_and_colours_and_palettes_are_shown(tmp_path, store):
    _, ds = images_kit.film(store, np.zeros((8, 8), np.uint16), seed="rgb")
    colour = np.random.default_rng(1).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = colour.tobytes()
    ds["PixelData"].VR = "OB"
    _, indexed = images_kit.film(store, np.zeros((8, 8), np.uint16), seed="palette")
    indexed.PhotometricInterpretation, indexed.BitsAllocated, indexed.BitsStored, indexed.HighBit = (
        "PALETTE COLOR",
        8,
        8,
        7,
    )
    indexed.PixelData = np.tile(np.arange(8, dtype=np.uint8), (8, 1)).tobytes()
    indexed["PixelData"].VR = "OB"
    for n, name in enumerate(("Red", "Green", "Blue")):
        setattr(indexed, f"{name}PaletteColorLookupTableDescriptor", [8, 0, 16])
        values = ((np.arange(8) * 20 + n) << 8).astype("<u2")
        setattr(indexed, f"{name}PaletteColorLookupTableData", values.tobytes())
    folder, documents = prepared(tmp_path, [ds, indexed])
    assert np.array_equal(frame_of(folder, documents[0])[1], colour)
    assert frame_of(folder, documents[1], "s1")[1][0, 3].tolist() == [60, 61, 62]


def test_what_is_no_image_gets_a_sentence_and_the_next_is_prepared(tmp_path, store):
    _, ds = images_kit.film(store)
    text, whole = images_kit.part10(ds), images_kit.part10(ds)
    _, documents = prepared(tmp_path, [b"nothing", text[:2000], whole])
    assert [sorted(document) for document in documents] == [["fault"], ["fault"], ["frames"]]
    assert documents[0]["fault"][0]["text"] == "the object cannot be read: {fault}"


def test_spacing_is_told_only_where_it_says_what_it_means(tmp_path, store):
    made = []
    for seed, change in {
        "detector": {},
        "unknown": {"ImagerPixelSpacing": None, "PixelSpacing": [0.3, 0.3]},
        "calibrated": {"PixelSpacing": [0.25, 0.25]},
        "same": {"PixelSpacing": [0.2, 0.2]},
        "said": {"ImagerPixelSpacing": None, "PixelSpacing": [0.3, 0.3], "PixelSpacingCalibrationType": "FIDUCIAL"},
    }.items():
        _, ds = images_kit.film(store, seed=seed)
        for name, value in change.items():
            setattr(ds, name, value)
        made.append(ds)
    _, documents = prepared(tmp_path, made)
    told = [document["frames"][0]["spacing_at"] for document in documents]
    assert told == ["detector", "", "patient", "detector", "patient"]


REAL = (
    ("dicom_ct/siemens_body_j2k/016573.dcm", "i2 u2"),
    ("dicom_ct/single/CT1_JLSL.dcm", "i2 u2"),
    ("dicom_ct/philips_head_phantom/I10", "i2 u2"),
    ("dicom_cxr/RG1_J2KI_chest.dcm", "u2"),
    ("dicom_cxr/siim_jpegbaseline.dcm", "u2"),
    ("dicom_odd/pydicom/CT_small.dcm", "i2"),
)


def test_real_images_come_out_as_decoded(tmp_path, test_data):
    paths = [test_data / name for name, _ in REAL]
    _, documents = prepared(tmp_path, [path.read_bytes() for path in paths])
    for path, (name, types), document in zip(paths, REAL, documents, strict=True):
        assert "frames" in document, (name, document)
        (meta,) = document["frames"]
        header = dcmread(path, stop_before_pixels=True)
        assert meta["type"] in types
        assert (meta["cols"], meta["rows"]) == (header.Columns, header.Rows)
        assert meta["inverted"] == (header.PhotometricInterpretation == "MONOCHROME1")
        assert max(meta["size"]) <= 1024


def test_every_odd_file_is_either_prepared_or_refused_in_words(tmp_path, test_data):
    files = [path for path in sorted((test_data / "dicom_odd").rglob("*.dcm")) if path.stat().st_size < 3_000_000]
    _, documents = prepared(tmp_path, [path.read_bytes() for path in files])
    assert len(documents) == len(files)
    assert sum("frames" in document for document in documents) > len(files) / 3
    for document in documents:
        assert "frames" in document or document["fault"][0]["text"]


# The queue ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-IMAGES-06")
def test_a_child_that_dies_costs_the_image_it_had_begun_and_no_other(store, made, wish):
    study, _ = images_kit.ct(store)
    wanted = wish(study)
    cursed = stems(wanted)[2]
    given = []

    def dies(_, request, limits, told, cancelled):
        given.append([image["stem"] for image in request["images"]])
        for image in request["images"]:
            told({"begin": image["stem"]})
            if image["stem"] == cursed:
                raise ChildError("crash", "ended by signal 11")
            images_kit.here(request | {"images": [image]}, told)

    display = made(dies)
    display.want(wanted)
    display.work(takes_ahead=False)
    assert given == [stems(wanted), stems(wanted)[3:]]
    assert [display.cache.has(study, f"{stem}.json") for stem in stems(wanted)] == [
        stem != cursed for stem in stems(wanted)
    ]
    assert "ended the program" in str(display.fault(study, cursed))


def test_a_real_child_killed_by_an_image_leaves_the_box_and_the_others(store, made, wish, monkeypatch):
    """No fake: a process that is ended by the kernel for the memory it takes."""
    study, _ = images_kit.ct(store)
    monkeypatch.setattr(module, "LIMITS", Limits(wall_s=120, cpu_s=30, memory_mb=64))
    display = made()
    display.want(wish(study))
    display.work(takes_ahead=False)
    assert all(display.fault(study, stem) is not None for stem in stems(wish(study)))
    monkeypatch.setattr(module, "LIMITS", Limits(wall_s=120, cpu_s=30, memory_mb=2048))
    display._work._faults.clear()
    display.want(wish(study))
    display.work(takes_ahead=False)
    assert isinstance(display.cache.pixels(study, stems(wish(study))[0], 1, whole=False), Pixels)


def test_an_image_that_takes_for_ever_is_given_up_alone(store, made, wish, monkeypatch):
    study, _ = images_kit.ct(store)
    monkeypatch.setattr(module, "STUCK_S", 0.05)
    slow = stems(wish(study))[0]

    def hangs(_, request, limits, told, cancelled):
        if request["images"][0]["stem"] == slow:
            told({"begin": slow})
            while not cancelled():
                time.sleep(0.01)
            raise ChildError("cancelled", "was cancelled")
        return images_kit.here(request, told)

    display = made(hangs)
    display.want(wish(study))
    display.work(takes_ahead=False)
    assert "could not be read within" in str(display.fault(study, slow))
    assert display.cache.has(study, f"{stems(wish(study))[1]}.json")


def test_the_newest_viewer_goes_first_and_what_is_ahead_of_viewers_last(store, made, wish):
    studies = [images_kit.ct(store, images_kit.head(2), seed=seed)[0] for seed in ("a", "b", "c")]
    order = []

    def notes(module_name, request, *rest):
        order.append((int(request["folder"].rpartition("/")[2]), request["nice"]))
        return images_kit.here(request, rest[1])

    display = made(notes)
    display.want(wish(studies[0], ahead=True))
    display.want(wish(studies[1]))
    display.want(wish(studies[2]))
    for _ in range(2):
        display.work(takes_ahead=False)
    display.work(takes_ahead=False)  # a slot for viewers leaves it
    assert [study for study, _ in order] == [studies[2], studies[1]]
    display.work(takes_ahead=True)
    assert order[-1][0] == studies[0]
    assert order[-1][1] > order[0][1]


def test_two_children_at_most_and_never_two_at_one_series(store, made, wish):
    studies = [images_kit.ct(store, images_kit.head(2), seed=seed)[0] for seed in ("a", "b", "c")]
    running, most, lock = [], [], threading.Lock()

    def counts(module_name, request, *rest):
        with lock:
            running.append(request["folder"])
            most.append(sorted(running))
        time.sleep(0.05)
        answer = images_kit.here(request, rest[1])
        with lock:
            running.remove(request["folder"])
        return answer

    display = made(counts)
    for study in studies:
        for image in wish(study).images:
            display.want(replace(wish(study), images=(image,)))
    threads = [threading.Thread(target=lambda: [display.work(takes_ahead=True) for _ in range(4)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(len(one) for one in most) <= 2
    assert all(len(set(one)) == len(one) for one in most)
    assert all(display.cache.has(study, f"{stem}.json") for study in studies for stem in stems(wish(study)))


def test_a_long_series_goes_on_by_itself_only_while_somebody_looks(store, made, wish, monkeypatch):
    study, _ = images_kit.ct(store, images_kit.head(6))
    monkeypatch.setattr(module, "BATCH", 2)
    display = made(images_kit.child_in_process)
    display.want(wish(study))
    for _ in range(3):
        display.work(takes_ahead=False)
    assert all(display.cache.has(study, f"{stem}.json") for stem in stems(wish(study)))
    other, _ = images_kit.ct(store, images_kit.head(6), seed="other")
    display.want(wish(other))
    display._asked.clear()
    for _ in range(3):
        display.work(takes_ahead=False)
    assert sum(display.cache.has(other, f"{stem}.json") for stem in stems(wish(other))) == 2


def test_what_is_prepared_is_not_prepared_again_and_survives_a_restart(store, made, wish):
    study, _ = images_kit.ct(store)
    display = made(images_kit.child_in_process)
    display.want(wish(study))
    display.work(takes_ahead=False)

    def none(*_):
        pytest.fail("everything is there")

    again = made(none)
    again.want(wish(study))
    again.work(takes_ahead=False)
    assert isinstance(again.cache.pixels(study, stems(wish(study))[0], 1, whole=False), Pixels)


def test_half_a_file_is_never_given_out_and_is_made_again(store, made, wish):
    study, _ = images_kit.ct(store)
    display = made(images_kit.child_in_process)
    display.want(wish(study))
    display.work(takes_ahead=False)
    stem = stems(wish(study))[0]
    folder = display.cache.folder(study)
    (folder / f"{stem}.1.px").write_bytes(b"short")
    assert display.cache.pixels(study, stem, 1, whole=False) is None
    (folder / f"{stems(wish(study))[1]}.json").write_text("{")
    assert display.cache.pixels(study, stems(wish(study))[1], 1, whole=False) is None
    (folder / f"{stem}.9.part").write_bytes(b"left over")
    display._watch.step()
    assert list(folder.glob("*.part")) == []
    display.want(wish(study))
    display.work(takes_ahead=False)
    assert isinstance(display.cache.pixels(study, stem, 1, whole=False), Pixels)


@pytest.mark.req("R-IMAGES-07")
def test_the_cache_keeps_what_was_used_last_within_its_room(store, made, wish):
    study, _ = images_kit.ct(store)
    display = made(images_kit.child_in_process)
    display.want(wish(study))
    display.work(takes_ahead=False)
    for used_at, stem in enumerate(stems(wish(study))):  # a file system's clock may be coarser than the work
        for path in display.cache.folder(study).glob(f"{stem}.*"):
            os.utime(path, (used_at, used_at))
    first, second, *_, last = stems(wish(study))
    display.cache.pixels(study, first, 1, whole=False)
    display.cache.shrink(20_000)
    assert display.cache.size() <= 20_000
    assert [display.cache.has(study, f"{stem}.json") for stem in (first, second, last)] == [True, False, True]


@pytest.mark.req("R-IMAGES-07")
def test_a_disk_without_room_to_spare_is_the_scanners(store, made, wish, monkeypatch):
    study, _ = images_kit.ct(store)
    display = made(images_kit.child_in_process)
    display.want(wish(study))
    display.work(takes_ahead=False)
    monkeypatch.setattr(type(store.spool), "free_bytes", lambda _: 10**6)
    other, _ = images_kit.ct(store, seed="other")
    display.want(wish(other))
    display.work(takes_ahead=False)
    assert "no room on its disk" in str(display.fault(other, stems(wish(other))[0]))
    assert display.cache.size() == 0


@pytest.mark.req("R-IMAGES-07")
def test_nothing_made_of_images_outlives_them(store, made, wish):
    study, _ = images_kit.ct(store)
    gone_before, _ = images_kit.ct(store, seed="gone")
    display = made(images_kit.child_in_process)
    for one in (study, gone_before):
        display.want(wish(one))
        display.work(takes_ahead=False)
    with store.db.write() as tx:
        tx.execute("UPDATE study SET kept = 0 WHERE id = ?", (gone_before,))
    # A start looks for what a stopped box could not follow.
    started = made(images_kit.child_in_process)
    started._watch.step()
    assert started.cache.studies() == [study]
    # While it runs the journal says so.
    with store.db.write() as tx:
        tx.execute("UPDATE study SET kept = 0 WHERE id = ?", (study,))
        tx.journal(ImagesRemoved(images=8, size=1), study_id=study)
    started._watch.step()
    assert started.cache.studies() == []
    # And a child that was at it meanwhile leaves nothing either.
    started.want(wish(study))
    started.work(takes_ahead=False)
    assert started.cache.studies() == []


@pytest.mark.req("R-IMAGES-08")
def test_key_slices_are_prepared_when_the_alert_is_raised_before_anybody_looks(store, made, scenes):
    study, datasets = images_kit.ct(store, images_kit.head(12))
    display = made(images_kit.child_in_process, image_wishes.prepare_ahead(store, scenes.packages()))
    display._watch.step()
    uid = str(datasets[9].SOPInstanceUID)
    analysis = images_kit.flag(store, scenes, study, keys=(uid,))
    with store.db.write() as tx:
        scenes.add_alert(tx, study, analysis)
    display._watch.step()
    display.work(takes_ahead=True)
    files = store.images.of_study(study).series[0].files
    ready = [n for n, file in enumerate(files) if display.cache.has(study, f"{file.stem}.json")]
    assert ready == [7, 8, 9, 10, 11]


def test_faults_are_sentences_with_their_values(store):
    cache = Cache(store.spool.root / "display")
    cache.folder(1).mkdir(parents=True)
    fault = {"fault": [{"text": "colours of the kind {photometric}", "values": {"photometric": "CMYK"}}]}
    (cache.folder(1) / "a.json").write_text(json.dumps(fault))
    told = cache.pixels(1, "a", 1, whole=False)
    assert isinstance(told, Detail)
    assert str(told) == "colours of the kind CMYK"


def test_a_reader_that_is_told_less_is_not_shown_key_slices(scenes):
    policy = Policy(packages=scenes.packages(), is_silent=lambda _: True)
    assert policy.pointing(()) == ()
