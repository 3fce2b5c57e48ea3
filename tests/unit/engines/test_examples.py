"""Packages of several graphs, whole: written by a script, run on simulated CTs, without a line of Python in them."""

from __future__ import annotations

import dataclasses

import nodule_detector
import numpy as np
import pytest
import segmenter

from appliance.simulate.chest_ct import ChestScan, Nodule, chest_ct
from appliance.simulate.head import HeadScan, head_ct
from engines.backends.trt_api import load_flavour
from engines.backends.trt_builder import build_plan
from engines.gate import gate_package
from engines.golden import check_golden
from engines.package import load_package
from engines.pipeline import Pipeline
from engines.types import Volume

SCRIPTS = {"segmenter": segmenter, "nodule_detector": nodule_detector}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    return {name: load_package(script.write(folder / name), trusted=True) for name, script in SCRIPTS.items()}


@pytest.fixture(scope="module")
def opened(packages):
    pipelines = {name: Pipeline(package, threads=2) for name, package in packages.items()}
    yield pipelines
    for pipeline in pipelines.values():
        pipeline.close()


@pytest.mark.req("R-PIPE-07")
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_is_data_alone_and_the_same_every_time(packages, tmp_path, name):
    files = sorted(path.relative_to(packages[name].path) for path in packages[name].path.rglob("*") if path.is_file())
    assert {path.suffix for path in files} <= {".yaml", ".onnx", ".npz", ".json", ".md"}
    again = SCRIPTS[name].write(tmp_path / name)
    assert [(again / path).read_bytes() for path in files] == [
        (packages[name].path / path).read_bytes() for path in files
    ]
    assert sum((again / path).stat().st_size for path in files) < 3_000_000


@pytest.mark.req("R-PIPE-07")
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_examples_graphs_pass_the_gate_and_the_real_builder(packages, name):
    package = packages[name]
    gate_package(package.path, [], trusted=True)
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)", exc_type=ImportError)
    rtx = load_flavour("tensorrt_rtx")
    for index, stage in enumerate(package.manifest.stages):
        built = build_plan(
            rtx,
            package.read_onnx(index),
            name=stage.onnx,
            profiles=package.manifest.profiles,
            compute_capabilities=["8.6"],
        )
        assert built.plan


@pytest.mark.req("R-PIPE-07")
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_examples_golden_cases_pass(opened, name):
    assert check_golden(opened[name]) == 2


def volume(phantom):
    """A phantom as the engine takes it; slices of a tilted gantry with their shifts."""
    positions = np.asarray(phantom.positions_mm)
    across, down = np.asarray(phantom.orientation).reshape(2, 3)
    normal = np.cross(across, down)
    ways = positions - positions[0]
    return Volume(
        array=phantom.pixels,
        slice_ids=tuple(f"slice {k}" for k in range(len(positions))),
        positions_mm=tuple((ways @ normal).tolist()),
        spacing_mm=phantom.spacing_mm,
        normal=tuple(normal.tolist()),
        shifts_mm=tuple(zip((ways @ down).tolist(), (ways @ across).tolist(), strict=True)),
    )


@pytest.mark.req("R-PIPE-07")
def test_the_segmenter_measures_the_skull_of_a_simulated_head_though_the_gantry_leans(opened):
    tilt_deg = 18.0
    phantom = head_ct(3, scan=HeadScan(slices=12, thickness_mm=6.0, matrix=128, noise_hu=4.0, tilt_deg=tilt_deg))
    out = opened["segmenter"].run_volume(volume(phantom)).output
    bone_ml = (phantom.pixels > 480).sum() * np.prod([6.0, *phantom.spacing_mm]) / 1000
    (measured,) = out.measurements["dense-bone"]
    assert measured.unit == "ml"
    assert measured.value == pytest.approx(bone_ml, rel=0.25)
    assert out.scores["dense-bone"] == measured.value
    assert len(out.key_slices["dense-bone"]) == 3
    assert out.numbers["components.dense-bone"] >= 1
    # The boxes lie around the skull's pixels, in the slices' own rows and columns.
    (region, *_) = out.regions
    rows, columns = np.nonzero(phantom.pixels[int(region.slice_id.split()[1])] > 480)
    (left, top), (right, bottom) = region.points
    assert (left, top) == (pytest.approx(columns.min(), abs=3), pytest.approx(rows.min(), abs=3))
    assert (right, bottom) == (pytest.approx(columns.max(), abs=3), pytest.approx(rows.max(), abs=3))


@pytest.fixture(scope="module")
def chest():
    scan = ChestScan(slices=36, thickness_mm=2.5, matrix=256)
    return chest_ct(3, nodules=[Nodule(diameter_mm=8), Nodule(diameter_mm=15)], scan=scan)


def truth(phantom):
    """(slice, column, row, diameter) of each nodule."""
    x0, y0, _ = phantom.positions_mm[0]
    found = []
    for nodule in phantom.truth["nodules"]:
        x, y, _ = nodule["centre_mm"]
        place = ((x - x0) / phantom.spacing_mm[1], (y - y0) / phantom.spacing_mm[0])
        found.append((nodule["slice"], *place, nodule["diameter_mm"]))
    return found


@pytest.mark.req("R-PIPE-07")
def test_the_detector_finds_the_nodules_of_a_simulated_chest_where_they_are(opened, chest):
    out = opened["nodule_detector"].run_volume(volume(chest)).output
    assert out.scores["nodule"] >= 0.5
    assert out.scores["nodule"] == out.marks[0].score
    for index, column, row, diameter_mm in truth(chest):
        (mark,) = [m for m in out.marks if np.hypot(m.point[0] - column, m.point[1] - row) < 3]
        assert abs(int(mark.slice_id.split()[1]) - index) <= 1
        assert mark.diameter_mm == pytest.approx(diameter_mm, abs=2.5)
        assert mark.score >= 0.5
    assert len(out.marks) <= 4
    assert len(out.regions) == len(out.marks)


@pytest.mark.req("R-PIPE-07")
def test_the_detector_marks_nothing_in_a_chest_without_nodules(opened):
    clean = chest_ct(3, scan=ChestScan(slices=36, thickness_mm=2.5, matrix=256))
    out = opened["nodule_detector"].run_volume(volume(clean)).output
    assert out.scores["nodule"] < 0.5
    air = dataclasses.replace(volume(clean), array=np.full_like(clean.pixels, -1000))
    assert opened["nodule_detector"].run_volume(air).output.scores == {"nodule": 0.0}
