"""From a scanner's slices through the worker's masks to SEG, GSPS and SR: what they draw lies where the ball is."""

from __future__ import annotations

import highdicom as hd
import pytest
import report_kit

from appliance.records import DeliveryKind
from appliance.report.request import ReportPackage
from appliance.simulate.dicomize import ct_series, save
from appliance.simulate.enhanced import enhanced_ct
from appliance.simulate.study import Study

SHAPE = (report_kit.MATRIX, report_kit.MATRIX)


@pytest.fixture(scope="module")
def ball_package(tmp_path_factory):
    return report_kit.make_ball_package(tmp_path_factory.mktemp("package") / "ball")


@pytest.fixture(scope="module", params=["upright", "tilted", "enhanced"])
def case(request, ball_package, tmp_path_factory):
    """Files, truth [slice, row, column], which slice is which, requests and objects of one analysis."""
    folder = tmp_path_factory.mktemp(request.param)
    phantom, truth = report_kit.ball_phantom(tilt_deg=18.0 if request.param == "tilted" else 0.0)
    study = Study(seed=f"ball/{request.param}")
    series = [enhanced_ct(phantom, study)] if request.param == "enhanced" else ct_series(phantom, study)
    files = save(series, folder / "in")
    manifest, result = report_kit.analyse(files, ball_package, folder / "spool")
    requests = report_kit.requests_for(
        ReportPackage.from_manifest(manifest), result, files, folder / "out", spool_root=folder / "spool"
    )
    numbers = {str(ds.SOPInstanceUID): n for n, ds in enumerate(series)}
    return requests, report_kit.built(requests), truth, numbers


def large(truth):
    """Slices on which the ball is not just grazed: there a hair's breadth along the axis is many pixels across."""
    areas = truth.sum(axis=(1, 2))
    return [k for k, area in enumerate(areas) if area > 0.35 * areas.max()]


@pytest.mark.req("R-REPORT-02", "R-REPORT-03")
@pytest.mark.parametrize("kind", [DeliveryKind.SEG, DeliveryKind.GSPS])
def test_what_is_drawn_lies_within_a_pixel_of_the_ball_on_the_slices_of_the_scanner(case, kind):
    requests, objects, truth, numbers = case
    if kind is DeliveryKind.SEG:
        drawn = report_kit.segmented_pixels(requests[kind].output_path)
    else:
        drawn = report_kit.drawn_pixels(objects[kind], SHAPE)
    place = report_kit.by_position(numbers, drawn)
    by_slice = {place[slice_id]: mask for slice_id, mask in drawn.items()}
    assert len(large(truth)) > 8
    for k in large(truth):
        assert report_kit.within_a_pixel(by_slice[k], truth[k]), k
    for k, mask in by_slice.items():
        assert mask.any()
        assert truth[max(0, k - 1) : k + 2].any(), f"slice {k} shows no ball"


@pytest.mark.req("R-REPORT-01", "R-REPORT-02", "R-REPORT-03", "R-REPORT-04", "R-REPORT-05")
def test_dciodvfy_and_dsrdump_find_nothing_wrong_with_any_of_the_five(case, dcmtk):
    requests, objects, *_ = case
    assert set(objects) == set(report_kit.OBJECTS)
    for kind, request in requests.items():
        assert report_kit.dciodvfy_errors(request.output_path) == [], kind
    for kind in (DeliveryKind.SR, DeliveryKind.KO):
        assert report_kit.dsrdump_complaints(dcmtk("dsrdump"), requests[kind].output_path) == [], kind


@pytest.mark.req("R-REPORT-06")
def test_one_tracking_pair_names_the_ball_in_report_segmentation_and_presentation_state(case):
    requests, objects, truth, _ = case
    seg = hd.seg.segread(requests[DeliveryKind.SEG].output_path)
    ((identifier, uid),) = seg.get_tracking_ids()
    graphics = [
        graphic
        for annotation in objects[DeliveryKind.GSPS].GraphicAnnotationSequence
        for graphic in annotation.GraphicObjectSequence
    ]
    assert {(one.TrackingID, one.TrackingUID) for one in graphics} == {(identifier, uid)}
    report = hd.sr.srread(requests[DeliveryKind.SR].output_path)
    groups = report.content.get_planar_roi_measurement_groups()
    assert {(one.tracking_identifier, one.tracking_uid) for one in groups} == {(identifier, uid)}
    ((volume,), *others) = [group.get_measurements() for group in groups]
    assert volume.value == pytest.approx(truth.sum() * 2 / 1000, rel=0.12)
    assert not any(others), "a volume that stands twice is added up by somebody"


@pytest.mark.req("R-REPORT-06")
def test_the_segmentation_is_evidence_of_the_report(case):
    _, objects, *_ = case
    evidence = {
        instance.ReferencedSOPInstanceUID: series.SeriesInstanceUID
        for study in objects[DeliveryKind.SR].CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    seg = objects[DeliveryKind.SEG]
    assert evidence[seg.SOPInstanceUID] == seg.SeriesInstanceUID


@pytest.mark.req("R-REPORT-04")
def test_the_key_objects_are_the_key_slices_with_their_frames(case):
    _, objects, truth, numbers = case
    chosen = objects[DeliveryKind.KO]
    items = [item.ReferencedSOPSequence[0] for item in chosen.ContentSequence if item.ValueType == "IMAGE"]
    frames = [item.get("ReferencedFrameNumber") for item in items]
    if len(numbers) == 1:
        ((*listed,),) = frames
        shown = [int(frame) - 1 for frame in listed]
    else:
        shown = [numbers[str(item.ReferencedSOPInstanceUID)] for item in items]
    assert 0 < len(shown) <= 3
    areas = truth.sum(axis=(1, 2))
    assert all(areas[k] > 0.9 * areas.max() for k in shown)
