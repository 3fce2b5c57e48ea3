"""What the worker does with files: geometry, content, envelope, several X-rays in a series, key pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from worker_kit import box_head, ct_files, make_ct_package, make_xray_package, xray_file

from appliance.errors import NotAnalysable
from appliance.records import Reason, split_id
from appliance.simulate.dicomize import ct_series, localizer_image, save
from appliance.simulate.enhanced import enhanced_ct
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Study
from appliance.store.spool import Spool
from appliance.triage import pictures
from appliance.triage.pictures import draw_key_pictures
from appliance.triage.workbench import decode_and_prepare, finish
from engines.errors import ContentError
from engines.package import load_package
from engines.pipeline import Pipeline
from engines.types import ModelOutput, Region

EVEN = range(0, 60, 5)


@pytest.fixture(scope="module")
def open_pipeline(tmp_path_factory):
    opened = []

    def make(kind, envelope=None, **changes):
        folder = tmp_path_factory.mktemp("package") / "toy"
        make_package = make_ct_package if kind == "ct" else make_xray_package
        opened.append(Pipeline(load_package(make_package(folder, envelope=envelope, **changes), trusted=True)))
        return opened[-1]

    yield make
    for pipeline in opened:
        pipeline.close()


@pytest.fixture(scope="module")
def ct(open_pipeline):
    return open_pipeline("ct")


def finish_only(pieces, pipeline):
    (role,) = pipeline.inputs
    return finish({role: pieces}, pipeline)


def finished(files, pipeline):
    return finish_only([decode_and_prepare(path, "ct", [pipeline]) for path in files], pipeline)


def told(details):
    return [str(detail) for detail in details]


def refused(files, pipeline):
    with pytest.raises(NotAnalysable) as caught:
        finished(files, pipeline)
    return caught.value


def test_slices_are_put_in_order_whatever_order_they_came_in(ct, tmp_path):
    files = ct_files(tmp_path, box_head(EVEN))
    pieces = [decode_and_prepare(path, "ct", [ct]) for path in [*files[6:], *files[:6]]]
    answer = finish_only(pieces, ct)
    assert answer.output.numbers["slices"] == 12
    assert answer.output.numbers["spacing_mm"] == pytest.approx(5)
    # The classify head names the stack's first slice.
    assert answer.output.key_slices["bright"] == (pieces[6].header.sop_instance_uid,)
    assert answer.caveats == ()


@pytest.mark.fault("T32")
@pytest.mark.req("R-TRIAGE-07")
def test_missing_slices_are_named_and_never_interpolated(ct, tmp_path):
    files = ct_files(tmp_path, box_head(EVEN))
    error = refused([*files[:4], *files[6:9], *files[10:]], ct)
    assert error.reason is Reason.INCOMPLETE
    assert str(error) == "3 slices are missing: 5-6, 10 of 12, counted along the series"


@pytest.mark.fault("T32")
@pytest.mark.req("R-TRIAGE-07")
def test_two_slices_at_one_position_are_named_by_their_numbers(ct, tmp_path):
    files = ct_files(tmp_path / "a", box_head(EVEN))
    again = ct_files(tmp_path / "b", box_head([15]), seed="2")
    error = refused([*files, *again], ct)
    assert error.reason is Reason.OUT_OF_ENVELOPE
    assert str(error) == "several slices lie at the same position (images 4/1)"


def test_slices_that_grow_thicker_are_analysed_with_a_caveat(ct, tmp_path):
    thin = box_head([0, 2.5, 5, 7.5, 10, 12.5], thickness_mm=2.5)
    thick = box_head([17.0, 25.6, 34.1], thickness_mm=8.5)
    files = ct_files(tmp_path / "a", thin) + ct_files(tmp_path / "b", thick, seed="2")
    assert told(finished(files, ct).caveats) == ["the distance between slices changes within the series"]


def test_a_tilted_gantry_reaches_the_preprocessor_as_its_angle(ct, tmp_path):
    answer = finished(ct_files(tmp_path, box_head(EVEN, tilt_deg=15)), ct)
    assert answer.output.numbers["tilt_deg"] == pytest.approx(15, abs=0.1)


def test_a_localizer_inside_of_the_series_is_left_out_and_said_so(ct, tmp_path):
    study = Study(seed="1")
    side = Phantom(
        kind="localizer",
        pixels=np.zeros((128, 128), np.int16),
        spacing_mm=(2.0, 2.0),
        positions_mm=((0.0, -128.0, 128.0),),
        orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
        thickness_mm=1.0,
        instance_numbers=(1,),
    )
    files = [*ct_files(tmp_path / "a", box_head(EVEN)), *save([localizer_image(side, study)], tmp_path / "b")]
    assert told(finished(files, ct).caveats) == ["1 of 13 images left out: localizer"]


@pytest.mark.parametrize(
    ("envelope", "phantom", "detail"),
    [
        ({"slice_thickness_mm": {"max": 2}}, {}, "slices of 5 mm are not covered"),
        ({"pixel_spacing_mm": {"max": 1}}, {}, "pixels of 2 x 2 mm are not covered"),
        ({"max_gap_mm": 4}, {}, "slices 5 mm apart are not covered, at most 4 mm"),
        ({"slices": {"min": 20}}, {}, "12 slices are not covered"),
        ({"max_tilt_deg": 10}, {"tilt_deg": 20}, "a gantry tilt of 20 degrees is not covered"),
        ({"orientation": "coronal"}, {}, "axial slices are not covered"),
        ({"orientation": "axial", "max_oblique_deg": 12}, {"tilt_deg": 20}, "slices 20 degrees off their plane"),
    ],
)
@pytest.mark.fault("T32")
def test_a_series_outside_of_the_declared_envelope_gets_a_reason_and_no_score(
    open_pipeline, tmp_path, envelope, phantom, detail
):
    error = refused(ct_files(tmp_path, box_head(EVEN, **phantom)), open_pipeline("ct", envelope))
    assert error.reason is Reason.OUT_OF_ENVELOPE
    assert detail in str(error)


@pytest.mark.req("R-TRIAGE-07")
def test_one_multi_frame_object_scores_like_its_slices(ct, tmp_path):
    phantom = box_head(EVEN)
    study = Study(seed="1")
    single = finished(save(ct_series(phantom, study), tmp_path / "a"), ct)
    whole = finished(save([enhanced_ct(phantom, study)], tmp_path / "b"), ct)
    assert whole.output.scores == single.output.scores
    assert split_id(whole.output.key_slices["bright"][0])[1] == 1


def test_a_slice_that_must_not_be_scored_is_refused_when_the_series_is_finished_not_before(ct, tmp_path):
    tiny = ct_files(tmp_path, box_head(EVEN, matrix=64, spacing_mm=0.5))
    pieces = [decode_and_prepare(path, "ct", [ct]) for path in tiny]
    with pytest.raises(ContentError, match="field of view"):
        finish_only(pieces, ct)


@pytest.fixture(scope="module")
def xray(open_pipeline):
    return open_pipeline("xray", {"view_positions": ["PA", "AP"]})


def scored(files, pipeline):
    return finish_only([decode_and_prepare(path, "xray", [pipeline]) for path in files], pipeline)


def test_the_brightest_of_several_images_counts_and_is_the_key_image(xray, tmp_path):
    files = [xray_file(tmp_path, b, seed=str(n), stem=str(n)) for n, b in enumerate((0.3, 0.7, 0.5))]
    alone = [scored([path], xray).output.scores["bright"] for path in files]
    together = scored(files, xray)
    assert together.output.scores["bright"] == max(alone) == alone[1]
    assert together.output.key_slices["bright"] == scored([files[1]], xray).output.key_slices["bright"]
    assert together.output.numbers["images"] == 3


def test_a_view_that_is_not_covered_is_left_out_with_a_caveat_and_alone_is_out_of_envelope(xray, tmp_path):
    frontal = xray_file(tmp_path, 0.3, seed="1", stem="pa")
    lateral = xray_file(tmp_path, 0.9, seed="2", stem="ll", view="LL")
    answer = scored([frontal, lateral], xray)
    assert answer.output.scores == scored([frontal], xray).output.scores
    assert told(answer.caveats) == ["1 of 2 images were not analysed", "this view is not covered"]
    with pytest.raises(NotAnalysable, match="this view is not covered") as caught:
        scored([lateral], xray)
    assert caught.value.reason is Reason.OUT_OF_ENVELOPE


@pytest.mark.fault("T32")
@pytest.mark.req("R-TRIAGE-08")
def test_both_polarities_of_one_image_score_alike(xray, tmp_path):
    files = [
        xray_file(tmp_path, 0.3, stem=p, photometric=p, sop_class_uid="1.2.840.10008.5.1.4.1.1.1")
        for p in ("MONOCHROME1", "MONOCHROME2")
    ]
    one, two = (scored([path], xray).output.scores["bright"] for path in files)
    assert one == pytest.approx(two, abs=1e-3)


def test_a_file_that_is_no_image_cannot_be_decoded(xray, tmp_path):
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 500)
    with pytest.raises(NotAnalysable) as caught:
        scored([broken], xray)
    assert caught.value.reason is Reason.CANNOT_DECODE


def drawn(pipeline, path, spool_root, kind="xray", score=1.0, **picked):
    Spool(spool_root, reserve_bytes=0)
    piece = decode_and_prepare(path, kind, [pipeline])
    uid = piece.header.sop_instance_uid
    output = ModelOutput(
        scores={"bright": score},
        key_slices={"bright": (uid,)},
        regions=(Region(slice_id=uid, kind="box", points=((40.0, 40.0), (80.0, 80.0)), finding="bright"),),
    )
    (relative,) = draw_key_pictures(output, [piece], pipeline, spool_root, **picked)
    assert Spool(spool_root, reserve_bytes=0).path(relative).is_file()
    return cv2.imread(str(spool_root / relative), cv2.IMREAD_UNCHANGED)


def test_a_region_is_outlined_for_detection_and_never_for_triage(open_pipeline, xray, tmp_path):
    path = xray_file(tmp_path, 0.5)
    assert drawn(xray, path, tmp_path / "s1").ndim == 2, "a triage picture has no colour at all"
    outlined = drawn(open_pipeline("xray", intended_use="detection"), path, tmp_path / "s2")
    coloured = np.argwhere(np.ptp(outlined, axis=2) > 50)
    assert coloured.min() >= 34
    assert coloured.max() <= 86
    assert np.ptp(outlined[45:75, 45:75], axis=2).max() == 0, "the region itself is not painted over"


@pytest.mark.req("R-REPORT-05")
def test_what_the_sites_operating_point_does_not_flag_is_not_outlined(open_pipeline, tmp_path):
    detection, path = open_pipeline("xray", intended_use="detection"), xray_file(tmp_path, 0.5)
    assert drawn(detection, path, tmp_path / "s1", score=0.4).ndim == 2
    picked = {"operating_points": {"bright": "sensitive"}}
    assert drawn(detection, path, tmp_path / "s2", score=0.4, **picked).ndim == 3
    assert drawn(detection, path, tmp_path / "s3", score=0.2, **picked).ndim == 2


def test_a_head_slice_is_shown_in_the_brain_window(ct, tmp_path):
    (path, *_) = ct_files(tmp_path, box_head(EVEN, hu=40))
    shown = drawn(ct, path, tmp_path / "s", "ct")
    assert int(shown[64, 64]) == pytest.approx(128, abs=2)
    assert shown[0, 0] == 0


def test_a_large_picture_is_shrunk_and_its_outlines_with_it():
    image = np.zeros((2048, 1024), np.float32)
    small, scale = pictures.shrink(image)
    region = Region(slice_id="1", kind="box", points=((400.0, 1000.0), (600.0, 1200.0)), finding="f")
    png = pictures.draw(small.astype(np.uint8), [region], scale)
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.shape == (1024, 512, 3)
    rows, columns = np.nonzero(decoded.max(axis=2))
    assert (rows.min(), rows.max()) == pytest.approx((496, 604), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((196, 304), abs=2)


def test_a_full_disk_costs_the_picture_and_not_the_result(tmp_path):
    assert pictures.keep(tmp_path / "not there", b"png", "png") is None
