"""The heads segment, detect and measure, on outputs made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from engines.errors import ContentError
from engines.grid import Grid
from engines.heads.classify import Classify
from engines.heads.detect import Detect
from engines.heads.measure import Measure
from engines.heads.segment import Segment
from engines.preprocess.base import Assembled, Candidate, volume_of
from engines.types import Measured, Prepared, Stack

SPACING = (2.0, 1.0, 1.0)


def place(depth=12, rows=30, columns=30, slice_mm=2.0, spacing=SPACING):
    """A grid of 2 x 1 x 1 mm through slices of 1 mm pixels."""
    slices = tuple(
        Prepared(id=f"slice {k}", array=np.zeros((rows, columns), np.int16), shape=(rows, columns), spacing_mm=(1, 1))
        for k in range(round(depth * spacing[0] / slice_mm))
    )
    stack = Stack(slices=slices, positions_mm=tuple(k * slice_mm for k in range(len(slices))))
    grid = Grid(shape=(depth, rows, columns), spacing_mm=spacing, origin_mm=(0, 0, 0))
    return volume_of(stack, grid, {}, {"voxels": 1.0})


def picture(spacing_mm=(0.5, 0.5)):
    made = Prepared(id="the picture", array=np.zeros((40, 40), np.float32), shape=(80, 80), spacing_mm=spacing_mm)
    pixel = tuple(2 * mm for mm in spacing_mm or (1, 1))
    return Assembled(tensors={}, stack=Stack(slices=(made,)), pixel_mm=pixel)


def box(*, label=1, at=(2, 5, 6), size=(4, 10, 8), shape=(12, 30, 30)):
    labels = np.zeros(shape, np.int64)
    labels[tuple(slice(a, a + n) for a, n in zip(at, size, strict=True))] = label
    return labels


# -- segment ---------------------------------------------------------------------------------------------------------

SEGMENT = Segment(output="y", labels={"liver": 1, "lesion": 2}, min_mm3=20, unit="ml")


@pytest.mark.req("R-PIPE-05")
def test_label_map_becomes_volume_key_slices_and_boxes():
    out = SEGMENT.decide({"y": box()[None, None]}, place())
    assert out.scores == {"liver": pytest.approx(4 * 10 * 8 * 2 / 1000), "lesion": 0}
    assert out.measurements == {"liver": (Measured(name="volume", value=out.scores["liver"], unit="ml"),)}
    assert out.key_slices == {"liver": ("slice 2", "slice 3", "slice 4")}
    assert [r.points for r in out.regions] == [((5.5, 4.5), (13.5, 14.5))] * 3
    assert out.numbers == {"voxels": 1.0, "components.liver": 1.0, "components.lesion": 0.0}
    assert out.masks["liver"].sum() == 320


def test_the_key_slices_are_those_with_the_largest_area():
    labels = box()
    labels[7:9, 2:25, 2:25] = 1
    out = SEGMENT.decide({"y": labels[None, None]}, place())
    assert out.key_slices["liver"][:2] == ("slice 7", "slice 8")


def test_voxels_that_touch_at_a_corner_are_one_component_and_specks_do_not_count():
    labels = np.zeros((12, 30, 30), np.int64)
    labels[2:4, 2:4, 2:4] = 1
    labels[4:6, 4:6, 4:6] = 1
    labels[10, 20, 20] = 1  # 2 mm3
    out = SEGMENT.decide({"y": labels[None, None]}, place())
    assert out.numbers["components.liver"] == 1
    assert out.scores["liver"] == pytest.approx(16 * 2 / 1000)
    assert not out.masks["liver"][10].any()


def test_softmax_takes_the_largest_channel_and_sigmoid_each_for_itself():
    logits = np.full((1, 3, 12, 30, 30), -4.0, np.float32)
    logits[0, 0] = 0
    logits[0, 1][box() == 1] = 2
    logits[0, 2][box(at=(3, 6, 7), size=(2, 4, 4)) == 1] = 5
    soft = SEGMENT.decide({"y": logits}, place()).scores
    assert soft == {"liver": pytest.approx((320 - 32) * 2e-3), "lesion": pytest.approx(32 * 2e-3)}
    own = Segment(output="y", labels=SEGMENT.labels, activation="sigmoid").decide({"y": logits}, place()).scores
    assert own == {"liver": pytest.approx(320 * 2e-3), "lesion": pytest.approx(32 * 2e-3)}
    with pytest.raises(ContentError, match=r"possible is 0\.\.1"):
        Segment(output="y", labels=SEGMENT.labels, activation="none").decide({"y": logits}, place())


def test_a_map_of_half_the_size_measures_the_same_volume():
    whole = SEGMENT.decide({"y": box(at=(2, 4, 6))[None, None]}, place())
    half = SEGMENT.decide({"y": box(at=(1, 2, 3), size=(2, 5, 4), shape=(6, 15, 15))[None, None]}, place())
    assert half.scores == whole.scores
    assert half.regions[0].points == whole.regions[0].points


def test_many_thin_planes_of_one_slice_name_it_once():
    out = SEGMENT.decide({"y": box(size=(8, 10, 8))[None, None]}, place(slice_mm=8.0))
    assert len(out.key_slices["liver"]) == len(set(out.key_slices["liver"])) <= 3


def test_a_single_picture_has_an_area():
    labels = np.zeros((1, 1, 40, 40), np.int32)
    labels[0, 0, 10:20, 5:9] = 1
    out = SEGMENT.decide({"y": labels}, picture())
    assert out.measurements["liver"] == (Measured(name="area", value=40.0, unit="mm2"),)
    assert out.scores["liver"] == 40
    # The picture has 80 x 80 pixels of 0.5 mm: two for each of the grid.
    assert out.regions[0].points == ((9.5, 19.5), (17.5, 39.5))
    with pytest.raises(ContentError, match="without pixel spacing") as caught:
        SEGMENT.decide({"y": labels}, picture(None))
    assert caught.value.reason == "out_of_envelope"


@pytest.mark.req("R-ENGINE-03")
@pytest.mark.parametrize(
    "output",
    [
        None,
        np.zeros((1, 2), np.float32),
        np.zeros((2, 3, 12, 30, 30), np.float32),
        np.zeros((1, 2, 12, 30, 30), np.float32),
        np.zeros((1, 2, 12, 30, 30), np.int64),
    ],
)
def test_what_is_no_map_of_the_labels_is_unreliable(output):
    with pytest.raises(ContentError) as caught:
        SEGMENT.decide({} if output is None else {"y": output}, place())
    assert caught.value.reason == "unreliable_output"


# -- detect ----------------------------------------------------------------------------------------------------------


def heat(*found, shape=(12, 30, 30)):
    """Smooth hills: (z, row, column, height, radius in mm)."""
    grid = np.indices(shape).astype(float) * np.array(SPACING)[:, None, None, None]
    out = np.zeros(shape, np.float32)
    for *at, height, radius in found:
        away = np.linalg.norm(grid - (np.array(at) * SPACING)[:, None, None, None], axis=0)
        out = np.maximum(out, height * np.exp(-np.log(2) * (away / radius) ** 2))
    return out[None, None]


DETECT = Detect(finding="nodule", heat_map="y", apart_mm=8, least_score=0.2)


@pytest.mark.req("R-PIPE-04")
def test_peaks_of_a_heat_map_become_marks_with_place_diameter_and_score():
    out = DETECT.decide({"y": heat((3, 10, 8, 0.9, 4), (8, 20, 22, 0.6, 3), (8, 20, 25, 0.5, 3))}, place())
    assert out.scores["nodule"] == pytest.approx(0.9)
    assert [(m.slice_id, m.point) for m in out.marks] == [("slice 3", (8, 10)), ("slice 8", (22, 20))]
    assert [m.position_mm for m in out.marks] == [(6, 10, 8), (16, 20, 22)]
    assert out.marks[0].diameter_mm == pytest.approx(8, abs=1)
    assert out.measurements["nodule"] == (Measured(name="diameter", value=out.marks[0].diameter_mm, unit="mm"),)
    assert out.key_slices["nodule"] == ("slice 3", "slice 8")
    (left, top), (right, bottom) = out.regions[0].points
    assert ((left + right) / 2, (top + bottom) / 2) == (8, 10)
    assert right - left == pytest.approx(out.marks[0].diameter_mm)


def test_nothing_above_the_least_score_is_a_score_of_zero_and_no_mark():
    out = DETECT.decide({"y": heat((3, 10, 8, 0.15, 4))}, place())
    assert (out.scores, out.marks, out.regions, out.key_slices, out.measurements) == ({"nodule": 0.0}, (), (), {}, {})


CANDIDATES = tuple(Candidate(position_mm=at) for at in ((6.0, 10.0, 8.0), (6.0, 13.0, 8.0), (16.0, 20.0, 22.0)))


def looked_at(candidates=CANDIDATES):
    made = place()
    fields = {"tensors": {}, "stack": made.stack, "grid": made.grid, "members": made.members}
    return Assembled(**fields, thickness_mm=made.thickness_mm, pixel_mm=made.pixel_mm, candidates=candidates)


@pytest.mark.req("R-PIPE-04")
def test_scores_of_candidates_decide_and_boxes_that_overlap_are_one_mark():
    head = Detect(finding="nodule", scores="s", diameters="d", iou=0.1, activation="sigmoid", least_score=0.3)
    outputs = {"s": np.array([[1.0], [3.0], [-2.0]], np.float32), "d": np.array([8.0, 9.0, 7.0], np.float32)}
    out = head.decide(outputs, looked_at())
    assert [(m.point, m.diameter_mm) for m in out.marks] == [((8, 13), 9)]
    assert out.scores["nodule"] == pytest.approx(1 / (1 + np.exp(-3)))
    assert head.decide({}, looked_at(())).scores == {"nodule": 0.0}


def test_candidates_apart_are_both_marks_best_first():
    head = Detect(finding="nodule", scores="s", apart_mm=2, column=1, diameter_mm=6)
    scores = np.array([[0, 0.4], [0, 0.9], [0, 0.2]], np.float32)
    out = head.decide({"s": scores}, looked_at())
    assert [m.score for m in out.marks] == pytest.approx([0.9, 0.4, 0.2])
    assert {m.diameter_mm for m in out.marks} == {6}


def test_a_candidate_beside_the_picture_is_no_mark():
    head = Detect(finding="nodule", scores="s", apart_mm=2)
    outside = (Candidate(position_mm=(6.0, -5.0, 8.0)),)
    assert head.decide({"s": np.ones((1, 1), np.float32)}, looked_at(outside)).marks == ()


@pytest.mark.req("R-ENGINE-03")
@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"s": np.ones((2, 1), np.float32)},
        {"s": np.full((3, 1), 1.2, np.float32)},
        {"s": np.ones((3, 1), np.float32), "d": np.array([5, 0, 5], np.float32)},
    ],
)
def test_scores_that_fit_no_candidates_are_unreliable(outputs):
    head = Detect(finding="nodule", scores="s", diameters="d" if "d" in outputs else None, apart_mm=5)
    with pytest.raises(ContentError) as caught:
        head.decide(outputs, looked_at())
    assert caught.value.reason == "unreliable_output"


@pytest.mark.parametrize(
    "params",
    [
        {"apart_mm": 5},
        {"heat_map": "y", "scores": "s", "apart_mm": 5},
        {"heat_map": "y"},
        {"heat_map": "y", "apart_mm": 5, "iou": 0.1},
        {"heat_map": "y", "apart_mm": 5, "diameters": "d"},
    ],
)
def test_a_detector_that_says_two_things_or_nothing_is_refused(params):
    with pytest.raises(ValidationError):
        Detect(finding="nodule", **params)


# -- measure and classify --------------------------------------------------------------------------------------------


@pytest.mark.req("R-PIPE-06")
def test_a_measurement_has_a_value_a_unit_and_an_sd():
    head = Measure(finding="age", name="bone-age", unit="a", output="m", sd_output="s", scale=1 / 12, index=1)
    out = head.decide({"m": np.array([[1, 120.0]]), "s": np.array([[1, 6.0]])}, picture())
    assert out.scores == {"age": 10.0}
    assert out.measurements["age"] == (Measured(name="bone-age", value=10.0, unit="a", sd=0.5),)
    assert out.key_slices["age"] == ("the picture",)
    fixed = Measure(finding="age", name="bone-age", unit="a", output="m", sd=0.7)
    assert fixed.decide({"m": np.array([3.0])}, picture()).measurements["age"][0].sd == 0.7


@pytest.mark.req("R-ENGINE-03")
@pytest.mark.parametrize("outputs", [{}, {"m": np.array([40.0])}, {"m": np.zeros((2, 2))}, {"m": np.zeros(0)}])
def test_a_value_that_is_not_possible_is_unreliable(outputs):
    head = Measure(finding="age", name="bone-age", unit="a", output="m", possible={"min": 1, "max": 20})
    with pytest.raises(ContentError) as caught:
        head.decide(outputs, picture())
    assert caught.value.reason == "unreliable_output"


@pytest.mark.req("R-ENGINE-03")
def test_a_negative_sd_is_unreliable():
    head = Measure(finding="age", name="bone-age", unit="a", output="m", sd_output="s")
    with pytest.raises(ContentError, match="SD below 0"):
        head.decide({"m": np.array([3.0]), "s": np.array([-0.1])}, picture())


def test_softmax_of_an_export_and_its_column_without_a_finding():
    head = Classify(output="y", findings=(None, "opacity"), activation="softmax")
    out = head.decide({"y": np.array([[0.0, 2.0]], np.float32)}, picture())
    assert out.scores == {"opacity": pytest.approx(1 / (1 + np.exp(-2)))}
    assert out.key_slices == {"opacity": ("the picture",)}


@pytest.mark.req("R-BRING-03")
def test_a_map_of_fewer_pixels_than_its_picture_is_no_result():
    """Without a grid of voxels its positions and areas would be those of another picture."""
    there = picture()
    given = Assembled(tensors={"image": np.zeros((1, 1, 40, 40))}, stack=there.stack, pixel_mm=there.pixel_mm)
    head = Segment(output="mask", labels={"it": 1})
    assert head.decide({"mask": np.zeros((1, 2, 40, 40), np.float32)}, given).scores == {"it": 0}
    with pytest.raises(ContentError, match="does not lie over the input"):
        head.decide({"mask": np.zeros((1, 2, 20, 20), np.float32)}, given)
