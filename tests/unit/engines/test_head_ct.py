"""``head-ct-hyperdensity`` on heads of known truth: what it finds, how large, where, and what it must not score."""

from __future__ import annotations

import dataclasses
import json
import re

import ball_head
import head_ct
import measure_head_ct
import numpy as np
import pytest

from engines.errors import ContentError, SessionError
from engines.golden import check_golden, golden_cases
from engines.tiles import run_in_window
from engines.types import Image, Stack, Volume

FINDING = "hyperdensity"


def _score(pipeline, volume):
    return pipeline.run_volume(volume).output.scores[FINDING]


def _refusal(pipeline, volume):
    with pytest.raises(ContentError) as caught:
        pipeline.run_volume(volume)
    assert caught.value.reason == "out_of_envelope", caught.value
    return str(caught.value)


# -- the package ---------------------------------------------------------------------------------------------------


@pytest.mark.req("R-MODEL-01")
def test_shipped_graph_is_what_its_script_writes(head_package):
    assert head_package.read_onnx() == head_ct.build().SerializeToString(deterministic=True)
    assert len(head_package.read_onnx()) < 1_000_000


@pytest.mark.req("R-MODEL-01")
def test_package_says_that_it_is_a_demonstrator(head_package):
    manifest = head_package.manifest
    assert (manifest.status, manifest.intended_use, manifest.notify) == ("demonstrator", "detection", "active")
    assert manifest.category == 1
    assert manifest.regulatory == {}
    title = manifest.findings[0].title
    assert (title.en.split()[0], title.zh_Hans[:2]) == ("Suspected", "疑似")
    assert "NOT FOR CLINICAL USE" in (head_package.path / "CARD.md").read_text()


@pytest.mark.req("R-MODEL-02")
@pytest.mark.req("R-TRIAGE-13")
def test_metrics_card_and_manifest_say_the_same(head_package):
    metrics = json.loads((head_package.path / "metrics.json").read_text())
    card = (head_package.path / "CARD.md").read_text()
    for point in head_package.manifest.finding(FINDING).operating_points:
        measured = metrics["operating_points"][point.name]
        assert (point.threshold, point.sensitivity, point.specificity) == (
            measured["threshold_ml"],
            measured["sensitivity"],
            measured["specificity"],
        )
        assert f"| {point.name} | {point.threshold:g} | {point.sensitivity:.3f} | {point.specificity:.3f} |" in card
        assert point.basis is not None
        assert "not patients" in point.basis.en
    by_kind = metrics["operating_points"]["standard"]["by_kind"]
    for kind, sensitivity in by_kind.items():
        ratio = metrics["largest_region_over_truth"][kind]
        assert f"| {kind} | {sensitivity:.3f} | {ratio:.2f} |" in card
    for thickness, row in metrics["volume"]["measured_over_true"].items():
        cells = " | ".join(f"{v['min']:.2f}-{v['max']:.2f}" for _, v in sorted(row.items(), key=_millilitres))
        assert f"| {thickness} | {cells} |" in card
    count, volume = metrics["phantoms"], metrics["volume"]
    fine, coarse = (100 * volume["largest_error_by_tolerance"][name] for name in ("10%", "35%"))
    for text in (
        f"Without a bleed: {count['without_bleed']} heads",
        f"Highest score: {metrics['largest_score_without_bleed_ml']:g} ml",
        f"Volume: {count['volumes']} bleeds",
        f"**{volume['within_tolerance']} of {count['volumes']} lie within**",
        f"{fine:.1f} % where 10 % were asked for and {coarse:.1f} % where",
        f"{volume['flagged_at_1.5_ml']} of {count['volumes']} were flagged",
    ):
        assert text in card, text


@pytest.mark.req("R-MODEL-04")
@pytest.mark.req("R-MODEL-05")
def test_metrics_reach_the_bar_on_every_phantom(head_package):
    metrics = json.loads((head_package.path / "metrics.json").read_text())
    assert metrics["volume"]["within_tolerance"] == metrics["phantoms"]["volumes"] == 120
    assert metrics["volume"]["largest_error_by_tolerance"]["10%"] <= 0.10
    assert metrics["volume"]["largest_error_by_tolerance"]["35%"] <= 0.35
    least = min(point.threshold for point in head_package.manifest.finding(FINDING).operating_points)
    assert metrics["phantoms"]["without_bleed"] == 50
    assert metrics["largest_score_without_bleed_ml"] < least


def _millilitres(item):
    return float(re.match(r"[\d.]+", item[0])[0])


@pytest.mark.req("R-MODEL-03")
def test_golden_cases_pass(head_pipeline):
    assert check_golden(head_pipeline) == 2


@pytest.mark.req("R-MODEL-03")
def test_golden_cases_fail_when_the_engine_gives_other_numbers(head_pipeline, monkeypatch):
    real = head_pipeline.sessions[0].run

    def weaker(tensors):
        outputs = real(tensors)
        return {**outputs, "candidate": np.zeros_like(outputs["candidate"])}

    monkeypatch.setattr(head_pipeline.sessions[0], "run", weaker)
    with pytest.raises(SessionError, match=r"golden case bleed.npz of head-ct-hyperdensity: hyperdensity scores"):
        check_golden(head_pipeline)


def test_golden_cases_are_small_and_hold_no_patient(head_package):
    files = list((head_package.path / "golden").iterdir())
    assert sum(f.stat().st_size for f in files) < 500_000
    assert [c.name for c in golden_cases(head_package)] == ["bleed.npz", "no-bleed.npz"]


def test_window_gives_what_one_run_gives(head_pipeline):
    volume = ball_head.head(1, balls=[ball_head.ball(9)], calcified=True)
    slices = tuple(
        head_pipeline.prepare("head-ct", Image(id=n, array=a, spacing_mm=volume.spacing_mm))
        for n, a in zip(volume.slice_ids, volume.array, strict=True)
    )
    preprocessor = head_pipeline.inputs["head-ct"].preprocessor
    tensors = preprocessor.assemble(Stack(slices=slices, positions_mm=volume.positions_mm)).tensors
    assert len(tensors["hu"]) > head_pipeline.package.manifest.stages[0].window.length
    whole = head_pipeline.sessions[0].run(tensors)
    pieces = run_in_window(head_pipeline.sessions[0], tensors, head_pipeline.package.manifest.stages[0].window)
    for name, array in whole.items():
        np.testing.assert_array_equal(pieces[name], array)


# -- what it finds -------------------------------------------------------------------------------------------------


@pytest.mark.req("R-MODEL-04")
@pytest.mark.parametrize(
    ("thickness", "brain", "blood", "noise"),
    [(1.25, 38, 58, 8), (2.5, 34, 65, 5), (2.5, 38, 58, 8), (5.0, 38, 58, 8), (7.0, 30, 75, 3), (7.0, 38, 58, 8)],
)
@pytest.mark.parametrize("volume_ml", [2.0, 5.0, 20.0])
def test_bleed_in_the_brain_is_found_and_measured(head_pipeline, thickness, brain, blood, noise, volume_ml):
    head = ball_head.head(
        int(10 * thickness + volume_ml),
        balls=[ball_head.ball(volume_ml, blood)],
        brain_hu=brain,
        noise_hu=noise,
        thickness_mm=thickness,
    )
    output = head_pipeline.run_volume(head).output
    fine = (volume_ml >= 5 and thickness <= 2.5) or volume_ml >= 20
    assert output.scores[FINDING] == pytest.approx(volume_ml, rel=0.1 if fine else 0.35)
    assert output.measurements[FINDING][0].value == pytest.approx(output.scores[FINDING])
    assert output.measurements[FINDING][0].unit == "ml"


@pytest.mark.req("R-MODEL-05")
@pytest.mark.parametrize("seed", range(6))
def test_head_without_bleed_is_not_flagged(head_pipeline, head_package, seed):
    rng = np.random.default_rng(seed)
    head = ball_head.head(
        100 + seed,
        brain_hu=float(rng.uniform(30, 38)),
        noise_hu=float(rng.uniform(3, 8)),
        thickness_mm=float(rng.choice([1.25, 2.5, 5, 7])),
        calcified=True,
    )
    standard = head_package.manifest.finding(FINDING).default_point
    assert _score(head_pipeline, head) < standard.threshold / 2


def test_two_bleeds_are_two_regions_and_the_larger_one_is_the_score(head_pipeline):
    two = [ball_head.ball(12), ball_head.ball(6, centre=(-32.0, -30.0, -10.0))]
    output = head_pipeline.run_volume(ball_head.head(5, balls=two)).output
    assert output.numbers["regions"] == 2
    assert output.scores[FINDING] == pytest.approx(12, rel=0.1)
    assert output.measurements[FINDING][0].value == pytest.approx(18, rel=0.1)


@pytest.mark.parametrize("pixel_mm", [0.45, 0.7, 1.0])
def test_key_slices_and_boxes_lead_to_the_bleed_in_the_original_pixels(head_pipeline, pixel_mm):
    bleed = ball_head.ball(8, centre=(30.0, -40.0, 20.0))
    shape = (round(230 / pixel_mm), round(210 / pixel_mm))
    head = ball_head.head(6, balls=[bleed], pixel_mm=pixel_mm, shape=shape)
    output = head_pipeline.run_volume(head).output
    heights = [head.positions_mm[head.slice_ids.index(name)] for name in output.key_slices[FINDING]]
    assert abs(heights[0] - 20.0) <= 5
    assert all(abs(h - 20.0) < bleed.radius_mm for h in heights)
    column = (shape[1] - 1) / 2 + 30.0 / pixel_mm
    row = (shape[0] - 1) / 2 - 40.0 / pixel_mm
    for region in output.regions:
        (left, top), (right, bottom) = region.points
        assert region.kind == "box"
        assert region.slice_id in output.key_slices[FINDING]
        assert left < column < right
        assert top < row < bottom
        assert (left + right) / 2 == pytest.approx(column, abs=2 / pixel_mm)
        assert (top + bottom) / 2 == pytest.approx(row, abs=2 / pixel_mm)
    assert (right - left) * pixel_mm == pytest.approx(2 * bleed.radius_mm, abs=6)


def test_series_stored_feet_last_gives_the_same(head_pipeline):
    head = ball_head.head(9, balls=[ball_head.ball(10)])
    turned = dataclasses.replace(
        head,
        array=head.array[::-1],
        slice_ids=head.slice_ids[::-1],
        positions_mm=tuple(-p for p in reversed(head.positions_mm)),
        normal=(0.0, 0.0, -1.0),
    )
    one, other = (head_pipeline.run_volume(v).output for v in (head, turned))
    assert other.scores[FINDING] == pytest.approx(one.scores[FINDING], rel=0.01)
    assert set(other.key_slices[FINDING]) == set(one.key_slices[FINDING])


def test_uneven_spacing_does_not_bend_the_volume(head_pipeline):
    head = ball_head.head(10, balls=[ball_head.ball(20)], thickness_mm=2.5)
    keep = [k for k in range(len(head.array)) if k < 28 or k % 2 == 0]
    thinned = dataclasses.replace(
        head,
        array=head.array[keep],
        slice_ids=tuple(head.slice_ids[k] for k in keep),
        positions_mm=tuple(head.positions_mm[k] for k in keep),
    )
    assert _score(head_pipeline, thinned) == pytest.approx(20, rel=0.1)


def test_head_off_centre_in_a_wide_field_is_found(head_pipeline):
    head = ball_head.head(11, balls=[ball_head.ball(10)])
    wide = np.full((len(head.array), 400, 420), -1000, np.int16)
    wide[:, 170:390, 20:210] = head.array
    moved = dataclasses.replace(head, array=wide)
    assert _score(head_pipeline, moved) == pytest.approx(_score(head_pipeline, head), rel=0.02)


def test_one_input_gives_one_output(head_pipeline):
    head = ball_head.head(12, balls=[ball_head.ball(7)])
    one, other = (head_pipeline.run_volume(head).output for _ in range(2))
    assert one == other


def test_float_and_integer_pixels_give_the_same(head_pipeline):
    head = ball_head.head(13, balls=[ball_head.ball(7)])
    assert _score(head_pipeline, dataclasses.replace(head, array=head.array.astype(np.float32))) == _score(
        head_pipeline, head
    )


@pytest.mark.req("R-MODEL-04")
@pytest.mark.parametrize("seed", [50_901, 50_902])
def test_phantoms_of_the_simulator_are_told_apart(head_pipeline, head_package, seed):
    from appliance.simulate.bleed import Bleed
    from appliance.simulate.head import HeadScan
    from appliance.simulate.head import head_ct as simulated

    scan = HeadScan(matrix=256, calcified_plexus=True, tilt_deg=12)
    threshold = head_package.manifest.finding(FINDING).default_point.threshold
    with_bleed = simulated(seed, bleeds=[Bleed(kind="IPH", volume_ml=10)], scan=scan)
    assert _score(head_pipeline, measure_head_ct.volume_from_phantom(with_bleed)) == pytest.approx(10, rel=0.15)
    assert _score(head_pipeline, measure_head_ct.volume_from_phantom(simulated(seed, scan=scan))) < threshold


# -- what it must not score ----------------------------------------------------------------------------------------


@pytest.mark.req("R-MODEL-06")
@pytest.mark.parametrize(
    "change",
    [
        {"skull": False},
        {"ventricles": False},  # a phantom of even filling: no fluid anywhere
        {"brain_hu": 0.0},  # water
        {"brain_hu": 60.0},
        {"noise_hu": 0.0},  # computed, or pixels altered
        {"noise_hu": 60.0},
        {"slices": 8},
        {"slices": 14, "thickness_mm": 2.5},  # 35 mm of a head
    ],
    ids=str,
)
def test_what_is_no_head_with_a_brain_gets_no_score(head_pipeline, change):
    _refusal(head_pipeline, ball_head.head(20, balls=[ball_head.ball(10)], **change))


@pytest.mark.req("R-MODEL-06")
def test_head_whose_brain_is_one_constant_gets_no_score(head_pipeline):
    head = ball_head.head(21, balls=[ball_head.ball(10)])
    flat = head.array.copy()
    flat[(flat > -20) & (flat < 100)] = 32
    assert "the spread of the inside is" in _refusal(head_pipeline, dataclasses.replace(head, array=flat))


@pytest.mark.req("R-MODEL-06")
def test_one_slice_repeated_is_no_head(head_pipeline):
    head = ball_head.head(22, balls=[ball_head.ball(10)])
    repeated = np.repeat(head.array[15:16], 18, axis=0)
    volume = dataclasses.replace(
        head, array=repeated, slice_ids=head.slice_ids[:18], positions_mm=head.positions_mm[:18]
    )
    assert "neighbouring pixels are equal" in _refusal(head_pipeline, volume)


@pytest.mark.req("R-ENGINE-03")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda o: {**o, "contrast": np.zeros_like(o["contrast"])},
        lambda o: {**o, "contrast": o["contrast"] + 9000},
        lambda o: {**o, "contrast": np.where(o["inside"], np.nan, o["contrast"])},
        lambda o: {**o, "contrast": o["contrast"][:, :, ::2]},
        lambda o: {n: a for n, a in o.items() if n != "candidate"},
    ],
    ids=["constant", "out of range", "NaN", "shape", "missing"],
)
def test_output_that_cannot_be_believed_gets_no_score(head_pipeline, monkeypatch, spoil):
    head = ball_head.head(23, balls=[ball_head.ball(10)], slices=24)
    real = head_pipeline.sessions[0].run
    monkeypatch.setattr(head_pipeline.sessions[0], "run", lambda tensors: spoil(real(tensors)))
    (stage,) = head_pipeline.package.manifest.stages
    whole = {"stages": (stage.model_copy(update={"window": None}),)}
    manifest = head_pipeline.package.manifest.model_copy(update=whole)
    monkeypatch.setattr(head_pipeline, "package", dataclasses.replace(head_pipeline.package, manifest=manifest))
    with pytest.raises(ContentError) as caught:
        head_pipeline.run_volume(head)
    assert caught.value.reason == "unreliable_output"


def _read(files):
    import pydicom

    pictures, spacing = [], (1.0, 1.0)
    for file in files:
        ds = pydicom.dcmread(file)
        pictures.append(ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0)))
        spacing = tuple(float(v) for v in ds.get("PixelSpacing", (1, 1)))
    return np.stack(pictures).astype(np.float32), spacing


def _volume(array, spacing, gap):
    count = len(array)
    return Volume(
        array=array,
        slice_ids=tuple(f"slice-{k}" for k in range(count)),
        positions_mm=tuple(gap * k for k in range(count)),
        spacing_mm=spacing,
    )


@pytest.mark.req("R-MODEL-06")
@pytest.mark.filterwarnings("ignore")  # odd files on purpose
@pytest.mark.parametrize(
    "pattern",
    [
        "philips_head_phantom/I*",
        "siemens_body_j2k/*.dcm",
        "ge_3slice/*.dcm",
        "lungmask_chest/*.dcm",
        "single/693_J2KR.dcm",
        "single/693_UNCI.dcm",
        "single/693_J2KI.dcm",
        "single/CT1_RLE.dcm",
    ],
)
def test_real_ct_that_is_no_whole_head_gets_no_score(head_pipeline, test_data, pattern):
    files = sorted((test_data / "dicom_ct").glob(pattern))
    assert files
    array, spacing = _read(files)
    _refusal(head_pipeline, _volume(array, spacing, 2.5))
    # However often its slices are repeated, until there are enough of them.
    times = -(-48 // len(array))
    _refusal(head_pipeline, _volume(np.repeat(array, times, axis=0), spacing, 3.0))
    _refusal(head_pipeline, _volume(np.concatenate([array, array[::-1]] * times), spacing, 3.0))


@pytest.mark.req("R-MODEL-06")
def test_real_trunk_gets_no_score_along_any_axis(head_pipeline, test_data):
    nibabel = pytest.importorskip("nibabel")
    array = np.asarray(nibabel.load(test_data / "dicom_ct/totalseg_example_ct.nii.gz").dataobj, np.float32)
    for axis in range(3):
        _refusal(head_pipeline, _volume(np.moveaxis(array, axis, 0), (3.0, 3.0), 3.0))
