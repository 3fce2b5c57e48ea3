"""The worker's functions on packages with several inputs or several stages, from DICOM files."""

from __future__ import annotations

import nodule_detector
import numpy as np
import pytest
import segmenter
from pair_kit import make_pair_package
from worker_kit import box_head, ct_files, xray_file

from appliance.dicom.geometry import SlicePlace, in_plane_shifts
from appliance.errors import NotAnalysable
from appliance.records import Reason, split_id
from appliance.simulate.chest_ct import ChestScan, Nodule, chest_ct
from appliance.store.spool import Spool
from appliance.triage.pictures import draw_key_pictures
from appliance.triage.workbench import decode_and_prepare, finish
from engines.package import load_package
from engines.pipeline import Pipeline


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    made = {
        "pair": make_pair_package(folder / "pair"),
        "maybe": make_pair_package(folder / "maybe", optional=True),
        "segmenter": segmenter.write(folder / "segmenter"),
        "detector": nodule_detector.write(folder / "detector"),
    }
    pipelines = {name: Pipeline(load_package(path, trusted=True), threads=2) for name, path in made.items()}
    yield pipelines
    for pipeline in pipelines.values():
        pipeline.close()


def pieces(paths, pipeline, kind="xray"):
    return [decode_and_prepare(path, kind, [pipeline]) for path in paths]


@pytest.fixture
def views(tmp_path):
    """frontal and lateral, of other brightness so that they cannot be taken for one another unnoticed."""
    return {
        "PA": xray_file(tmp_path, 0.3, seed="1", stem="pa"),
        "LL": xray_file(tmp_path, 0.8, seed="2", stem="ll", view="LL"),
    }


def score(answer):
    return answer.output.scores["bright"]


@pytest.mark.req("R-PIPE-08")
def test_frontal_and_lateral_are_told_apart_in_two_series_and_in_one(opened, views):
    pipeline = opened["pair"]
    frontal, lateral = pieces([views["PA"]], pipeline), pieces([views["LL"]], pipeline)
    apart = finish({"frontal": frontal, "lateral": lateral}, pipeline)
    both = lateral + frontal
    together = finish({"frontal": both, "lateral": both}, pipeline)
    means = [piece.prepared[next(iter(piece.prepared))][0].array.mean() for piece in (frontal[0], lateral[0])]
    assert score(apart) == pytest.approx(0.75 * means[0] + 0.25 * means[1], abs=1e-3)
    assert score(together) == score(apart)
    assert together.caveats == (), "the other view of a pair is no image that was left out"
    assert apart.output.key_slices["bright"] == (frontal[0].header.sop_instance_uid,)


@pytest.mark.req("R-PIPE-08")
def test_of_two_frontal_images_the_pair_with_the_higher_score_counts(opened, views, tmp_path):
    pipeline = opened["pair"]
    repeat = xray_file(tmp_path, 0.6, seed="3", stem="again")
    frontal, lateral = pieces([views["PA"], repeat], pipeline), pieces([views["LL"]], pipeline)
    best = finish({"frontal": frontal, "lateral": lateral}, pipeline)
    alone = [score(finish({"frontal": [one], "lateral": lateral}, pipeline)) for one in frontal]
    assert score(best) == max(alone) == alone[1]


@pytest.mark.parametrize("view", ["LL", ""])
def test_without_a_frontal_view_a_pair_is_out_of_envelope(opened, tmp_path, view):
    pipeline = opened["pair"]
    lateral = pieces([xray_file(tmp_path, 0.8, seed="2", stem="ll", view="LL")], pipeline)
    other = pieces([xray_file(tmp_path, 0.5, seed="3", stem="other", view=view)], pipeline)
    with pytest.raises(NotAnalysable, match="this view is not covered") as caught:
        finish({"frontal": other, "lateral": lateral}, pipeline)
    assert caught.value.reason is Reason.OUT_OF_ENVELOPE


def test_a_view_that_may_be_missing_may_be_missing_from_the_series_or_the_study(opened, views):
    pipeline = opened["maybe"]
    frontal = pieces([views["PA"]], pipeline)
    alone = finish({"frontal": frontal}, pipeline)
    assert score(alone) == score(finish({"frontal": frontal, "lateral": frontal}, pipeline))
    lateral = pieces([views["LL"]], pipeline)
    assert score(finish({"frontal": frontal, "lateral": lateral}, pipeline)) > score(alone)


@pytest.mark.req("R-PIPE-07")
def test_the_segmenter_measures_alike_with_an_upright_and_a_tilted_gantry(opened, tmp_path, monkeypatch):
    stacks, real = [], opened["segmenter"].finish
    monkeypatch.setattr(opened["segmenter"], "finish", lambda given: stacks.append(given["ct"]) or real(given))
    volumes = []
    pipeline = opened["segmenter"]
    for tilt_deg in (0.0, 18.0):
        phantom = box_head(range(0, 60, 5), matrix=64, spacing_mm=2.0, tilt_deg=tilt_deg)
        series = pieces(ct_files(tmp_path / str(tilt_deg), phantom), pipeline, "ct")
        answer = finish({"ct": series}, pipeline)
        (measured,) = answer.output.measurements["dense-bone"]
        volumes.append(measured.value)
        assert answer.output.numbers["tilt_deg"] == pytest.approx(tilt_deg, abs=0.1)
        # The frame of bone is at the same pixels of every slice, however the gantry leans.
        (region, *_) = answer.output.regions
        assert np.allclose(region.points, ((12, 12), (51, 51)), atol=2)
        spacing_mm = 5 * np.cos(np.radians(tilt_deg))
        assert measured.value == pytest.approx((phantom.pixels == 1000).sum() * 4 * spacing_mm / 1000, rel=0.2)
    assert stacks[0].shifts_mm == ()
    assert stacks[1].shifts_mm[-1] == (pytest.approx(-55 * np.sin(np.radians(18)), abs=0.1), pytest.approx(0, abs=1e-6))
    assert volumes[1] == pytest.approx(volumes[0] * np.cos(np.radians(18)), rel=0.12)


@pytest.mark.req("R-PIPE-07")
def test_the_two_stage_detector_marks_a_nodule_in_the_slice_that_shows_it(opened, tmp_path):
    pipeline = opened["detector"]
    nodules = [Nodule(diameter_mm=8), Nodule(diameter_mm=15)]
    phantom = chest_ct(3, nodules=nodules, scan=ChestScan(slices=36, thickness_mm=2.5, matrix=256))
    files = ct_files(tmp_path / "ct", phantom)
    series = pieces(files, pipeline, "ct")
    answer = finish({"chest-ct": series}, pipeline)
    assert answer.output.scores["nodule"] >= 0.5
    best, _ = split_id(answer.output.key_slices["nodule"][0])
    shown = [piece.header.sop_instance_uid for piece in series].index(best)
    (left, top), (right, bottom) = answer.output.regions[0].points
    (x0, y0, _), (rows_mm, columns_mm) = phantom.positions_mm[0], phantom.spacing_mm
    places = [
        (nodule["slice"], (nodule["centre_mm"][0] - x0) / columns_mm, (nodule["centre_mm"][1] - y0) / rows_mm)
        for nodule in phantom.truth["nodules"]
    ]
    assert any(abs(shown - k) <= 1 and left < column < right and top < row < bottom for k, column, row in places)
    assert {"assemble", "inference", "head"} == set(answer.hops_ms)
    Spool(tmp_path / "spool", reserve_bytes=0)
    drawn = draw_key_pictures(answer.output, series, pipeline, tmp_path / "spool")
    assert len(drawn) == len(answer.output.key_slices["nodule"])


def test_shifts_are_what_a_tilted_gantry_moves_the_slices_within_their_plane():
    lean = np.radians(20)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(lean)), float(-np.sin(lean)))
    tilted = [SlicePlace((-100.0, -100.0, 5.0 * k), orientation) for k in range(4)]
    shifts = np.asarray(in_plane_shifts(tilted))
    assert np.allclose(shifts[:, 1], 0)
    assert np.allclose(shifts[:, 0], [-5 * k * np.sin(lean) for k in range(4)])
    upright = [SlicePlace((-100.0, -100.0, 5.0 * k), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)) for k in range(4)]
    assert in_plane_shifts(upright) == ()
