"""``bone-age``: what ships is what the tool writes, it is no measure of anything, and what is no hand gets no value."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.dicom.headers import read_header
from appliance.dicom.pixels import xray_image
from appliance.errors import NotAnalysable
from appliance.simulate.chest_xray import chest_xray
from appliance.simulate.knee_xray import knee_xray
from appliance.triage.claims import envelope_faults, unclaimed
from engines.accept import accept
from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.errors import ContentError
from engines.golden import check_golden
from engines.heads.measure import Measure
from engines.lowering import lower
from engines.package import bundled_packages, load_package
from engines.pipeline import Pipeline
from engines.preprocess.base import Assembled
from engines.types import Image, Prepared, Stack

ROOT = Path(__file__).resolve().parents[3]
FINDING = "bone-age"


@pytest.fixture(scope="module")
def package():
    return load_package(bundled_packages()["bone-age"])


@pytest.fixture(scope="module")
def pipeline(package):
    with Pipeline(package) as opened:
        yield opened


@pytest.fixture(scope="module")
def metrics(package):
    return json.loads((package.path / "metrics.json").read_text())


@pytest.fixture
def maker(monkeypatch):
    """The modules of the tool that makes the package."""
    monkeypatch.syspath_prepend(str(ROOT / "tools/train"))
    import bone_age.card
    import bone_age.data
    import bone_age.network
    import bone_age.phantom
    import bone_age.run

    return bone_age


def _said(pipeline, array):
    ((role, taken),) = pipeline.inputs.items()
    prepared = taken.preprocessor.prepare(Image(id="picture", array=np.ascontiguousarray(array)))
    return pipeline.finish({role: Stack(slices=(prepared,))}).output


def _refusal(pipeline, array):
    with pytest.raises(ContentError) as caught:
        _said(pipeline, array)
    return caught.value


# -- the package -------------------------------------------------------------------------------------------------------


@pytest.mark.req("R-BONE-01")
def test_package_says_that_it_measures_and_that_its_weights_are_not_trained(package):
    manifest = package.manifest
    assert (manifest.status, manifest.intended_use, manifest.notify) == ("demonstrator", "measurement", "passive")
    assert "weights are not trained" in manifest.template.en
    assert "tools/train/bone_age" in manifest.template.en
    assert "未经训练" in manifest.template.zh_Hans
    (finding,) = manifest.findings
    assert (finding.category, finding.score_unit, finding.measurements[0].unit) == (3, "mo", "mo")
    assert finding.measurements[0].code.scheme == "99SCANSIDE", "no standard scheme has the quantity"
    card = (package.path / "CARD.md").read_text()
    for words in (
        "NOT FOR CLINICAL USE",
        "Its weights are not trained",
        "refuses to activate it",
        "Figures on phantoms",
    ):
        assert words in card


@pytest.mark.req("R-BONE-02")
def test_graph_card_and_manifest_are_what_the_tool_writes_byte_for_byte_without_pytorch(package, metrics, maker):
    assert package.read_onnx() == maker.network.graph(maker.network.untrained(metrics["seed"]))
    assert len(package.read_onnx()) < 2_000_000
    assert (package.path / "CARD.md").read_text() == maker.card.card_text(metrics)
    assert (package.path / "model.yaml").read_text() == maker.card.manifest_text(metrics)
    assert metrics["onnx_sha256"] == hashlib.sha256(package.read_onnx()).hexdigest()
    assert metrics["code_sha256"] == maker.run.code_digest(), "run tools/train/bone_age --untrained again"


@pytest.mark.req("R-BONE-02")
def test_golden_cases_hold_and_the_graph_says_the_same_of_every_age(package, pipeline, metrics):
    assert check_golden(pipeline) == 2
    young, old = metrics["golden_months"].values()
    assert abs(young - old) < 1, "untrained: hands of 60 and of 150 months are one to it"
    with Pipeline(package) as another:
        picture = np.load(package.path / "golden/hand-60-months.npz")["array"][0]
        assert _said(pipeline, picture).scores == _said(another, picture).scores


@pytest.mark.req("R-BONE-02")
def test_half_precision_agrees_with_the_reference(package, pipeline):
    session = OnnxRuntimeSession(lower(package.read_onnx(), "fp16").graph, name="half", threads=1, precision="fp16")
    with Pipeline(package, sessions=[session]) as half:
        report = accept(package, half, pipeline)
    assert report.passed, report.reasons


# -- the head's guard --------------------------------------------------------------------------------------------------

HEAD = Measure(finding=FINDING, name=FINDING, unit="mo", output="value", sd=4.0, guard="hand", guard_least=0.4)
PICTURE = Prepared(id="the picture", array=np.zeros((4, 4), np.float32), shape=(4, 4), spacing_mm=None)
ASSEMBLED = Assembled(tensors={}, stack=Stack(slices=(PICTURE,)))
VALUE = np.array([[90.0]], np.float32)


@pytest.mark.req("R-BONE-03")
def test_a_guard_below_its_least_refuses_the_measurement_and_is_kept_as_a_number_otherwise():
    assert HEAD.reads == ("value", "hand")
    said = HEAD.decide({"value": VALUE, "hand": np.full((1, 1), 0.5, np.float32)}, ASSEMBLED)
    assert said.numbers == {"guard": 0.5}
    (measured,) = said.measurements[FINDING]
    assert (measured.value, measured.sd, measured.unit) == (90.0, 4.0, "mo")
    for hand, reason in ((np.full((1, 1), 0.3), "out_of_envelope"), (np.ones(1), "unreliable_output")):
        with pytest.raises(ContentError) as caught:
            HEAD.decide({"value": VALUE, "hand": hand.astype(np.float32)}, ASSEMBLED)
        assert caught.value.reason == reason


# -- what it must not measure ------------------------------------------------------------------------------------------


@pytest.mark.req("R-BONE-03")
def test_a_hand_is_measured_with_its_fingers_up_and_not_inverted(pipeline, maker):
    for seed, months in enumerate((14.0, 110.0, 215.0)):
        film = maker.phantom.hand(seed, months, matrix=384).pixels.astype(np.int32)
        assert set(_said(pipeline, film).scores) == {FINDING}
        assert set(_said(pipeline, film[:, ::-1]).scores) == {FINDING}, "a mirrored hand is a hand"
        wrong = (np.rot90(film), np.rot90(film, 2), 4095 - film, np.hstack([film, film]), film[:200], film[200:])
        for number, changed in enumerate(wrong):
            assert _refusal(pipeline, changed).reason == "out_of_envelope", number


@pytest.mark.req("R-BONE-03")
@pytest.mark.parametrize("make", [knee_xray, chest_xray])
def test_a_knee_and_a_chest_get_no_value_however_they_lie(pipeline, make):
    for seed in range(2):
        film = make(seed, matrix=384).pixels.astype(np.int32)
        for turned in (film, np.rot90(film), film[::-1], 4095 - film):
            assert _refusal(pipeline, turned).reason == "out_of_envelope"


@pytest.mark.req("R-BONE-03")
def test_pictures_of_nothing_get_no_value(pipeline):
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:300, :300]
    assert _refusal(pipeline, np.full((300, 300), 7.0)).reason == "quality"
    stripes = (columns // 30) % 2 * 1.0
    for nothing in (rng.normal(0, 1, (300, 300)), rows + 0.1 * columns, np.sin(rows / 9.0), stripes):
        assert _refusal(pipeline, nothing).reason == "out_of_envelope"


def _ends(pipeline, path):
    """How the box would end with this file: a reason, or the scores."""
    (taken,) = pipeline.inputs.values()
    header = read_header(path)
    if (why := unclaimed(taken.input, header)) is not None:
        return f"not claimed: {why}"
    if envelope_faults(taken.input.envelope, header, 1):
        return "envelope"
    try:
        return _said(pipeline, xray_image(path)).scores
    except (NotAnalysable, ContentError) as error:
        return f"{getattr(error.reason, 'value', error.reason)}"


@pytest.mark.req("R-BONE-03")
def test_no_shared_file_gets_a_value_through_header_or_pixels(pipeline, test_data):
    looked_at = 0
    for folder in ("dicom_cxr", "dicom_odd", "dicom_ct"):
        for path in sorted((test_data / folder).rglob("*")):
            if not path.is_file() or path.suffix in {".gz", ".csv", ".md", ".txt"}:
                continue
            try:
                end = _ends(pipeline, path)
            except Exception as error:  # noqa: BLE001 - hostile files; the intake refuses what cannot be read
                end = type(error).__name__
            assert not isinstance(end, dict), path.name
            looked_at += 1
    assert looked_at > 20


@pytest.mark.req("R-BONE-03")
@pytest.mark.parametrize("name", ["dx_thorax_small.dcm", "RG3_tibia_J2KI.dcm", "RG1_J2KI_chest.dcm"])
def test_pixels_alone_tell_a_dog_a_tibia_and_a_chest_from_a_hand(pipeline, test_data, name):
    picture = xray_image(test_data / "dicom_cxr" / name)
    for turns in range(4):
        assert _refusal(pipeline, np.rot90(picture, turns)).reason == "out_of_envelope"


@pytest.mark.req("R-BONE-03")
def test_slices_of_a_real_head_phantom_are_no_hand(pipeline, test_data):
    from pydicom import dcmread

    for path in sorted((test_data / "dicom_ct/philips_head_phantom").iterdir()):
        assert _refusal(pipeline, dcmread(path).pixel_array).reason == "out_of_envelope"


@pytest.mark.req("R-BONE-03")
def test_no_chest_of_the_nih_images_is_taken_for_a_hand(pipeline, test_data, scale):
    folder = test_data / "cxr_nih"
    if not (folder / "labels.csv").is_file():
        pytest.skip(f"{folder} holds no labels.csv")
    with (folder / "labels.csv").open(newline="") as held:
        files = [row["file"] for row in csv.DictReader(held)]
    for name in files[:: round(1 / scale)]:
        picture = cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE)
        assert _refusal(pipeline, picture).reason == "out_of_envelope", name


# -- images of one's own -----------------------------------------------------------------------------------------------


@pytest.mark.req("R-BONE-04")
def test_a_table_as_of_the_rsna_challenge_is_read_and_a_missing_image_is_named_with_its_line(maker, tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), (maker.phantom.hand(number, 60.0).pixels // 16).astype(np.uint8))
    table = tmp_path / "train.csv"
    table.write_text("id,boneage,male\n0,60,True\n1,61,False\n2,62.5,False\n")
    hands = maker.data.read_hands(tmp_path)
    assert (hands.months.tolist(), hands.sex) == ([60.0, 61.0, 62.5], ("M", "F", "F"))
    assert hands.pictures.shape == (3, 256, 256)
    table.write_text("Image ID,Months,Sex\n0.png,60,m\n7.png,61,f\n")
    with pytest.raises(SystemExit, match=r"train\.csv, line 3: no image '7\.png'"):
        maker.data.read_hands(tmp_path)
    table.write_text("id,boneage\n0,old\n")
    with pytest.raises(SystemExit, match=r"line 2: 'old' is no age in months"):
        maker.data.read_hands(tmp_path)
