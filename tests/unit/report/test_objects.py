"""SEG, GSPS, KO and SC of one analysis: what they say, of whom, and what they never say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import report_kit
from pydicom import dcmread
from pydicom.uid import ComputedRadiographyImageStorage

from appliance.records import DeliveryKind, Outcome, Region
from appliance.report.request import ReportPredecessor
from appliance.report.sc import banded
from appliance.simulate.dicomize import ct_series, save, xray
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Patient, Study
from engines.overlay import Laying, Overlay, pack

KO, SC, SEG, GSPS, SR = (
    DeliveryKind.KO,
    DeliveryKind.SC,
    DeliveryKind.SEG,
    DeliveryKind.GSPS,
    DeliveryKind.SR,
)
#: Words that no object of ours may use of a patient, and the codes of them.
FORBIDDEN = ("normal", "negative", "absent", "272519000", "17621005")
SHAPE = (96, 96)


@pytest.fixture(scope="module")
def ct_files(tmp_path_factory):
    phantom, _ = report_kit.ball_phantom(slices=4)
    study = Study(seed="objects", patient=Patient(patient_id="P1", name="Wang^XiaoDong=王^小东"))
    return save(ct_series(phantom, study), tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def make_xray(tmp_path_factory):
    def make(name, shape=(60, 80), **changes):
        grey = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape) % 4000
        phantom = Phantom(kind="chest_xray", pixels=grey, spacing_mm=(2.0, 2.0))
        values = changes.pop("values", {})
        ds = xray(phantom, Study(seed=f"objects/{name}"), **changes)
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        return save([ds], tmp_path_factory.mktemp(name))

    return make


def uids_of(files):
    return [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files]


@pytest.fixture
def analysed(make_result, make_finding, package, tmp_path):
    """``analysed(files)``: requests for an analysis of them with a box, a mask and a picture."""

    def make(files, *, findings=None, use="detection", outcome=Outcome.FINDING, shape=SHAPE, masks=None, **changes):
        uids = uids_of(files)
        box = Region(sop_instance_uid=uids[0], kind="box", points=((10.0, 20.0), (30.0, 45.0)))
        findings = findings or (make_finding(key_instances=(uids[0],), regions=(box,)),)
        (tmp_path / "p.png").write_bytes(cv2.imencode(".png", np.full((*shape, 3), (30, 60, 90), np.uint8))[1])
        if masks is None:
            mask = np.zeros((1, *shape), bool)
            mask[0, 20:46, 10:31] = True
            laying = Laying(slice_id=uids[0], shape=shape, index=0, row=(0.0, 1.0), column=(0.0, 1.0))
            masks = pack({finding.id: Overlay(mask=mask, slices=(laying,)) for finding in findings})
        (tmp_path / "m.npz").write_bytes(masks)
        result = make_result(outcome, *findings, pictures=("p.png",), masks="m.npz")
        declared = dataclasses.replace(package, intended_use=use)
        return report_kit.requests_for(declared, result, files, tmp_path / "out", spool_root=tmp_path, **changes)

    return make


# -- what all of them say --------------------------------------------------------------------------------------------


def everything_said(ds):
    return json.dumps(ds.to_json_dict(bulk_data_threshold=1 << 30), ensure_ascii=False)


@pytest.mark.req("R-REPORT-08", "R-SCREEN-07")
def test_no_object_calls_a_patient_normal_or_a_finding_absent(analysed, ct_files, make_result, make_finding):
    for outcome in (Outcome.FINDING, Outcome.NOTHING_FLAGGED, Outcome.NOT_ANALYSED):
        findings = (make_finding(flagged=outcome is Outcome.FINDING),)
        if outcome is Outcome.NOT_ANALYSED:
            requests = {
                SR: dataclasses.replace(analysed(ct_files)[SR], result=make_result(outcome), siblings={}),
            }
        else:
            requests = analysed(ct_files, outcome=outcome, findings=None if findings[0].flagged else findings)
        for kind, ds in report_kit.built(requests).items():
            ds.pop("PixelData", None)
            said = everything_said(ds).lower()
            assert not [word for word in FORBIDDEN if word in said], kind


@pytest.mark.req("R-REPORT-08")
def test_every_object_says_in_the_list_of_series_that_it_is_not_for_care_and_who_made_it(analysed, ct_files):
    requests = analysed(ct_files)
    objects = report_kit.built(requests)
    assert set(objects) == set(report_kit.OBJECTS)
    assert len({ds.SeriesInstanceUID for ds in objects.values()}) == 5
    assert sorted(ds.SeriesNumber for ds in objects.values()) == [9901, 9902, 9903, 9904, 9905]
    devices = set()
    for kind, ds in objects.items():
        assert ds.SeriesDescription == "Evaluation, not for patient care: head-ct-hyperdensity", kind
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert str(ds.PatientName) == "Wang^XiaoDong=王^小东"
        assert ds.StudyInstanceUID == requests[SR].identity.study_instance_uid
        assert ds.SOPInstanceUID == requests[kind].sop_instance_uid
        algorithm, _ = ds.ContributingEquipmentSequence
        assert algorithm.ManufacturerModelName == "head-ct-hyperdensity"
        devices.add(algorithm.DeviceUID)
    assert len(devices) == 1
    for kind in (SEG, GSPS):
        assert objects[kind].ContentDescription == "Evaluation, not for patient care."
    research = {
        kind: dataclasses.replace(request, evaluation=False)
        for kind, request in analysed(ct_files, kinds=[SEG, GSPS, KO, SC]).items()
    }
    objects = report_kit.built(research)
    assert {objects[kind].ContentDescription for kind in (SEG, GSPS)} == {"Not for clinical use."}
    assert "Not for clinical use." in objects[SC].DerivationDescription
    assert any("Not for clinical use." in item.get("TextValue", "") for item in objects[KO].ContentSequence)


@pytest.mark.req("R-REPORT-08", "R-RESULT-03")
def test_built_twice_they_are_the_same_objects_and_a_revision_joins_their_series(analysed, ct_files):
    requests = analysed(ct_files)
    first = report_kit.built(requests)
    before = {kind: Path(request.output_path).read_bytes() for kind, request in requests.items()}
    report_kit.built(requests)
    for kind, request in requests.items():
        assert Path(request.output_path).read_bytes() == before[kind], kind
    earlier = ReportPredecessor(sop_instance_uid="2.25.9", study_instance_uid=requests[SR].identity.study_instance_uid)
    again = report_kit.built(
        {kind: dataclasses.replace(request, predecessors=(earlier,)) for kind, request in requests.items()}
    )
    for kind, ds in again.items():
        assert (ds.SeriesInstanceUID, ds.InstanceNumber) == (first[kind].SeriesInstanceUID, 2), kind
    assert any("replaces" in item.get("TextValue", "") for item in again[KO].ContentSequence)


@pytest.mark.req("R-REPORT-08", "R-INTAKE-09")
@pytest.mark.parametrize("charset", ["GB18030", ["", "ISO 2022 IR 58"], "ISO_IR 100"])
def test_the_character_set_of_a_scanner_comes_near_no_object_of_ours(analysed, ct_files, tmp_path, charset):
    changed = []
    for n, path in enumerate(ct_files):
        ds = dcmread(path)
        ds.PatientName, ds.StationName, ds.InstitutionName = "Doe^Jane", "CT", "Hospital"
        ds.SpecificCharacterSet = charset
        changed.append(tmp_path / f"{n}.dcm")
        ds.save_as(changed[-1], enforce_file_format=True)
    requests = analysed(changed)
    for kind, ds in report_kit.built(requests).items():
        assert ds.SpecificCharacterSet == "ISO_IR 192", kind
        assert "Hospital" not in everything_said(ds), "no more is taken of a scanner's header than an object needs"
        assert report_kit.dciodvfy_errors(requests[kind].output_path) == [], kind


# -- segmentation ----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-REPORT-02")
def test_each_flagged_finding_with_a_mask_is_a_segment_and_what_is_not_flagged_is_none(
    analysed, ct_files, make_finding
):
    uids = uids_of(ct_files)
    box = Region(sop_instance_uid=uids[0], kind="box", points=((10.0, 20.0), (30.0, 45.0)))
    ours = make_finding(key_instances=(uids[0],), regions=(box,))
    others = {flag: make_finding(id="other", flagged=flag, category=3, regions=(box,)) for flag in (True, False)}
    requests = analysed(ct_files, findings=(others[True], ours))
    two = report_kit.built(requests)
    assert [item.SegmentLabel for item in two[SEG].SegmentSequence] == [
        "Suspected opacity",
        "Suspected hyperdense area inside the skull",
    ]
    assert {item.SegmentAlgorithmType for item in two[SEG].SegmentSequence} == {"AUTOMATIC"}
    one = report_kit.built(analysed(ct_files, findings=(others[False], ours)))[SEG]
    assert [item.SegmentLabel for item in one.SegmentSequence] == ["Suspected hyperdense area inside the skull"]
    assert report_kit.dciodvfy_errors(analysed(ct_files, findings=(others[True], ours))[SEG].output_path) == []


@pytest.mark.req("R-REPORT-02")
def test_a_mask_over_an_x_ray_lies_on_its_very_pixels(analysed, make_xray):
    for name, changes in (("dx", {}), ("cr", {"sop_class_uid": ComputedRadiographyImageStorage})):
        files = make_xray(f"mask-{name}", **changes)
        requests = analysed(files, shape=(60, 80))
        objects = report_kit.built(requests)
        for kind, request in requests.items():
            assert report_kit.dciodvfy_errors(request.output_path) == [], (name, kind)
        ((_, mask),) = report_kit.segmented_pixels(requests[SEG].output_path).items()
        truth = np.zeros((60, 80), bool)
        truth[20:46, 10:31] = True
        assert np.array_equal(mask, truth)
        assert "FrameOfReferenceUID" not in objects[SEG]


def refusals(requests):
    return {str(kind): answer["error"] for kind, answer in report_kit.build(requests).items() if "error" in answer}


@pytest.mark.req("R-REPORT-09", "R-RESULT-05")
def test_damaged_masks_stop_what_is_made_of_them_and_nothing_else(analysed, ct_files):
    whole = analysed(ct_files)
    for damaged in (b"", b"PK\x03\x04 not a mask", Path(whole[SEG].masks_path).read_bytes()[:-40]):
        requests = analysed(ct_files, masks=damaged)
        refused = refusals(requests)
        assert set(refused) == {"seg", "gsps"}
        assert all("masks of the result are damaged" in reason for reason in refused.values())
        report = dcmread(requests[SR].output_path)
        assert requests[SEG].sop_instance_uid not in everything_said(report), "it must not name what does not exist"
    Path(whole[SEG].masks_path).unlink()
    assert "cannot be read from the spool: No such file" in refusals(whole)["seg"]


@pytest.mark.req("R-REPORT-09")
def test_masks_and_places_on_images_of_two_sizes_are_refused_with_the_reason(analysed, make_xray, make_finding):
    files = [*make_xray("large", (60, 80)), *make_xray("small", (50, 70))]
    uids = uids_of(files)
    mask = np.ones((1, 40, 40), bool)

    def overlay(n, shape):
        laying = Laying(slice_id=uids[n], shape=shape, index=0, row=(0.0, 1.0), column=(0.0, 1.0))
        return Overlay(mask=mask, slices=(laying,))

    boxes = [Region(sop_instance_uid=uid, kind="box", points=((1.0, 2.0), (3.0, 4.0))) for uid in uids]
    findings = (
        make_finding(key_instances=uids[:1], regions=boxes[:1]),
        make_finding(id="other", key_instances=uids[1:], regions=boxes[1:]),
    )
    masks = pack({"hyperdensity": overlay(0, (60, 80)), "other": overlay(1, (50, 70))})
    refused = refusals(analysed(files, findings=findings, masks=masks))
    assert set(refused) == {"seg", "gsps"}
    assert "sizes of image" in refused["seg"]
    assert "several sizes" in refused["gsps"]


@pytest.mark.req("R-REPORT-09")
def test_a_ct_that_leaves_out_what_a_segmentation_needs_is_helped_or_refused_with_the_reason(
    analysed, ct_files, tmp_path
):
    def changed(name, **values):
        ds = dcmread(ct_files[0])
        for keyword, value in values.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)
        ds.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
        return [tmp_path / f"{name}.dcm"]

    assert "Frame of Reference" in refusals(analysed(changed("nowhere", FrameOfReferenceUID=None)))["seg"]
    assert "Slice Thickness" in refusals(analysed(changed("thin", SliceThickness="")))["seg"]
    requests = analysed(changed("spaced", SliceThickness="", SpacingBetweenSlices="2.5"))
    report_kit.built(requests)
    assert report_kit.dciodvfy_errors(requests[SEG].output_path) == []


# -- presentation state ----------------------------------------------------------------------------------------------


@pytest.mark.req("R-REPORT-03")
def test_the_presentation_state_shows_a_ct_in_the_packages_window_with_the_suspicion_beside_its_place(
    analysed, ct_files
):
    state = report_kit.built(analysed(ct_files, window=(40.0, 80.0)))[GSPS]
    (voi,) = state.SoftcopyVOILUTSequence
    assert (voi.WindowCenter, voi.WindowWidth) == (40, 80)
    assert state.PresentationLUTShape == "IDENTITY"
    (annotation,) = state.GraphicAnnotationSequence
    (text,) = annotation.TextObjectSequence
    assert text.UnformattedTextValue == "Suspected hyperdense area inside the skull - not for diagnosis"
    (area,) = state.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaBottomRightHandCorner) == [96, 96]


@pytest.mark.req("R-REPORT-03")
def test_an_x_ray_of_either_polarity_keeps_its_look(analysed, make_xray):
    shapes = {}
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        files = make_xray(photometric, photometric=photometric)
        requests = analysed(files, shape=(60, 80))
        state = report_kit.built(requests)[GSPS]
        shapes[photometric] = state.PresentationLUTShape
        source = dcmread(files[0])
        if "WindowCenter" in source:
            assert state.SoftcopyVOILUTSequence[0].WindowCenter == source.WindowCenter
        assert report_kit.dciodvfy_errors(requests[GSPS].output_path) == []
    assert shapes == {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}


@pytest.mark.req("R-REPORT-03")
def test_boxes_and_points_are_drawn_where_there_is_no_mask_and_stay_inside_the_image(analysed, ct_files, make_finding):
    uids = uids_of(ct_files)
    places = (
        Region(sop_instance_uid=uids[1], kind="point", points=((4.0, 5.0),)),
        Region(sop_instance_uid=uids[2], kind="box", points=((-3.0, 0.0), (95.0, 95.4))),
    )
    requests = analysed(ct_files, findings=(make_finding(key_instances=uids[1:2], regions=places),), masks=pack({}))
    answers = report_kit.build({GSPS: requests[GSPS]})
    assert "error" not in answers[GSPS]
    drawn = {
        annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID: annotation.GraphicObjectSequence[0]
        for annotation in dcmread(requests[GSPS].output_path).GraphicAnnotationSequence
    }
    assert (drawn[uids[1]].GraphicType, list(drawn[uids[1]].GraphicData)) == ("POINT", [4.5, 5.5])
    assert list(drawn[uids[2]].GraphicData) == [0, 0, 96, 0, 96, 96, 0, 96, 0, 0]


# -- key objects -----------------------------------------------------------------------------------------------------


def images_named(ds):
    return [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in ds.ContentSequence
        if item.ValueType == "IMAGE"
    ]


@pytest.mark.req("R-REPORT-04")
def test_the_key_objects_of_a_triage_package_are_the_whole_series(analysed, ct_files):
    requests = analysed(ct_files, use="triage")
    assert set(requests) == {SR, KO}
    objects = report_kit.built(requests)
    assert images_named(objects[KO]) == uids_of(ct_files)
    assert objects[KO].ConceptNameCodeSequence[0].CodeValue == "113000"
    assert "SCOORD" not in everything_said(objects[SR])
    assert not images_named(objects[SR])


@pytest.mark.req("R-REPORT-07")
def test_what_shows_a_place_is_not_built_for_a_triage_package_whoever_asks(analysed, ct_files):
    requests = analysed(ct_files, kinds=[SEG, GSPS, SC])
    triage = dataclasses.replace(requests[SEG].package, intended_use="triage")
    refused = refusals({kind: dataclasses.replace(one, package=triage) for kind, one in requests.items()})
    assert set(refused) == {"seg", "gsps", "sc"}
    assert all("a triage package tells no place" in reason for reason in refused.values())


@pytest.mark.req("R-REPORT-04")
def test_the_key_objects_of_a_detection_are_its_key_slices_the_most_telling_first(analysed, ct_files, make_finding):
    uids = uids_of(ct_files)
    box = Region(sop_instance_uid=uids[3], kind="box", points=((1.0, 2.0), (3.0, 4.0)))
    quiet = make_finding(id="other", flagged=False, key_instances=uids[:1], regions=())
    findings = (quiet, make_finding(key_instances=(uids[2], uids[1]), regions=(box,)))
    chosen = report_kit.built({KO: analysed(ct_files, findings=findings)[KO]})[KO]
    assert images_named(chosen) == [uids[2], uids[1], uids[3]]
    (text,) = [
        item.TextValue for item in chosen.ContentSequence if item.ValueType == "TEXT" and "Eval" in item.TextValue
    ]
    assert text.endswith("Suspected hyperdense area inside the skull.")
    assert not [
        item for item in chosen.ContentSequence if item.ValueType == "IMAGE" and "ConceptNameCodeSequence" in item
    ]


# -- secondary capture -----------------------------------------------------------------------------------------------


@pytest.mark.req("R-REPORT-05")
def test_the_capture_is_the_picture_below_a_band_and_names_its_source(analysed, ct_files):
    requests = analysed(ct_files)
    capture = report_kit.built(requests)[SC]
    assert list(capture.ImageType) == ["DERIVED", "SECONDARY"]
    assert "BurnedInAnnotation" not in capture, "the scanner did not say"
    assert "Not for diagnosis" in capture.DerivationDescription
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == uids_of(ct_files)[0]
    assert list(capture.PatientOrientation) == ["L", "P"]
    pixels = capture.pixel_array
    band = pixels[:-96]
    assert 20 <= len(band) <= 60
    assert band.max() > 200, "the band has letters"
    picture = pixels[-96:]
    left = (picture.shape[1] - 96) // 2
    assert np.all(picture[:, left : left + 96] == (90, 60, 30)), "blue, green, red of the file became red, green, blue"
    assert not picture[:, :left].any()


@pytest.mark.req("R-REPORT-05")
@pytest.mark.parametrize("shape", [(64, 64), (512, 512), (1024, 800), (700, 1024)])
def test_the_band_hides_no_pixel_of_any_picture(shape):
    picture = np.full(shape, 77, np.uint8)
    shown = banded(picture)
    assert shown.shape[0] - shape[0] in {28, 56}
    assert (shown[-shape[0] :] == 77).sum() == picture.size


@pytest.mark.req("R-REPORT-05", "R-REPORT-09")
def test_an_image_with_text_in_its_pixels_gives_no_capture_and_the_other_objects_go_on(analysed, make_xray):
    files = make_xray("burned", values={"BurnedInAnnotation": "YES"})
    refused = refusals(analysed(files, shape=(60, 80)))
    assert set(refused) == {"sc"}
    assert "text burned into its pixels" in refused["sc"]


@pytest.mark.req("R-REPORT-05")
@pytest.mark.parametrize(("second", "written"), [("YES", "refused"), ("", None), ("NO", "NO")])
def test_where_no_finding_says_which_image_its_picture_shows_every_image_counts(
    analysed, make_xray, make_finding, second, written
):
    told = {"frontal": "NO", "lateral": second}
    files = [path for name in told for path in make_xray(name, values={"BurnedInAnnotation": told[name]})]
    assert len(set(uids_of(files))) == 2
    requests = analysed(files, findings=(make_finding(key_instances=()),), kinds=[SC])
    if written == "refused":
        assert set(refusals(requests)) == {"sc"}
    else:
        assert report_kit.built(requests)[SC].get("BurnedInAnnotation") == written


@pytest.mark.req("R-REPORT-05")
@pytest.mark.parametrize(("told", "written"), [("NO", "NO"), ("", None)])
def test_no_capture_promises_more_of_text_in_its_pixels_than_the_scanner(analysed, make_xray, told, written):
    files = make_xray("unsaid", values={"BurnedInAnnotation": told})
    assert report_kit.built(analysed(files, kinds=[SC]))[SC].get("BurnedInAnnotation") == written


@pytest.mark.req("R-REPORT-09")
def test_a_lost_or_damaged_picture_is_said(analysed, ct_files):
    requests = analysed(ct_files, kinds=[SC])
    path = Path(requests[SC].picture_path)
    path.write_bytes(path.read_bytes()[:60])
    assert refusals(requests) == {"sc": "the key picture is damaged"}
    path.unlink()
    assert refusals(requests) == {"sc": "the key picture cannot be read from the spool: No such file or directory"}
