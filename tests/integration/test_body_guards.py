"""What must never get a score: other body parts, phantoms, altered pixels and broken series, on the whole box.

A guard that fails shows as FINDING or NOTHING_FLAGGED, so every case names the one outcome and reason that is right.
"""

from __future__ import annotations

import copy
import dataclasses

import fixtures_real
import numpy as np
import pytest
from box_kit import box_with_pacs
from pydicom import dcmread
from pydicom.uid import JPEGExtended12Bit, SecondaryCaptureImageStorage

from appliance.records import Outcome, Reason
from appliance.simulate.bleed import Bleed
from appliance.simulate.chest_ct import ChestScan, chest_ct
from appliance.simulate.dicomize import ct_series, localizer_image
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.localizer import localizer
from appliance.simulate.study import Study
from appliance.simulate.syntaxes import EncoderMissing, encode

#: What a header must say so that nothing but the content is left to refuse a series.
LIKE_A_HEAD = {
    "Modality": "CT",
    "BodyPartExamined": "HEAD",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "PatientAge": "050Y",
    "ContrastBolusAgent": "",
    "ConvolutionKernel": "H31s",
    "LossyImageCompression": "00",
}


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    quick = {"quiet_min_s": 2.0}  # a series that is taken as whole too early is looked at again
    with box_with_pacs(tmp_path_factory.mktemp("guards"), completeness=quick) as (running, _):
        yield running


@pytest.fixture(scope="module")
def bleed():
    """A head with a bleed of 22 ml: anything that lets it through is seen as a FINDING."""
    bleeds = [Bleed(kind="IPH", volume_ml=22, place="left basal ganglia")]
    return head_ct(11, bleeds=bleeds, scan=HeadScan(matrix=256, slices=22, thickness_mm=7, noise_hu=4))


def outcome_of(box, series):
    """Send a series as a study of its own; (outcome, reason, detail, score) once it has ended."""
    box.send(series)
    view = box.ended(series[0].StudyInstanceUID)
    analysis = view.live[0] if view.live else None
    scores = [finding.score for finding in analysis.findings] if analysis else []
    assert not (scores and view.outcome in {Outcome.NOT_ANALYSED, Outcome.NOT_APPLICABLE}), "a score slipped through"
    return view.outcome, view.reason, analysis.detail if analysis else "", scores


# -- simulated heads with something wrong ----------------------------------------------------------------------------


def pixels(change):
    """A mutation of the volume in HU, [D, H, W], that the header does not tell."""

    def build(phantom, study):
        changed = np.ascontiguousarray(change(phantom.pixels)).clip(-1024, 3071).astype(np.int16)
        return ct_series(dataclasses.replace(phantom, pixels=changed), study)

    return build


def header(**values):
    """A mutation of every image's header."""

    def build(phantom, study):
        series = ct_series(phantom, study)
        for ds in series:
            for keyword, value in values.items():
                setattr(ds, keyword, value)
        return series

    return build


def without(*keywords):
    def build(phantom, study):
        series = ct_series(phantom, study)
        for ds in series:
            for keyword in keywords:
                delattr(ds, keyword)
        return series

    return build


def geometry(**changes):
    return lambda phantom, study: ct_series(dataclasses.replace(phantom, **changes), study)


def spread_out(step_mm):
    def build(phantom, study):
        places = tuple((x, y, k * step_mm) for k, (x, y, _) in enumerate(phantom.positions_mm))
        return ct_series(dataclasses.replace(phantom, positions_mm=places), study)

    return build


def coronal(phantom, study):
    """The same head, resliced from front to back, as a coronal series says it."""
    row_mm = phantom.spacing_mm[0]
    stack = phantom.pixels.transpose(1, 0, 2)[::4, ::-1]
    left, front, top = phantom.positions_mm[-1]
    places = tuple((left, front + 4 * row_mm * k, top) for k in range(len(stack)))
    resliced = dataclasses.replace(
        phantom,
        pixels=np.ascontiguousarray(stack),
        spacing_mm=(phantom.thickness_mm, phantom.spacing_mm[1]),
        positions_mm=places,
        orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
        thickness_mm=4 * row_mm,
        instance_numbers=tuple(range(1, len(stack) + 1)),
    )
    return ct_series(resliced, study)


def doubled(phantom, study):
    """Two slices sent once more as new images at the same place, as after a repeated reconstruction."""
    series = ct_series(phantom, study)
    again = copy.deepcopy(series[10:12])
    for number, ds in enumerate(again, 101):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = study.uid("again", number)
        ds.InstanceNumber = number
    return series + again


def secondary_capture(phantom, study):
    series = ct_series(phantom, study)
    for ds in series:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    return series


def lossy(phantom, study):
    try:
        return [encode(ds, JPEGExtended12Bit) for ds in ct_series(phantom, study)]
    except EncoderMissing as error:
        return pytest.skip(str(error))


def chest_named_head(_, study):
    chest = chest_ct(3, scan=ChestScan(matrix=256))
    small = dataclasses.replace(chest, spacing_mm=(1.1, 1.1))  # else the size of its pixels alone would refuse it
    return relabelled(ct_series(small, study), study, **LIKE_A_HEAD, ProtocolName="Head routine")


def relabelled(series, study, **values):
    """The images as another study, with these values in each header."""
    for number, ds in enumerate(series):
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study.study_instance_uid, study.uid("series", 1)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = study.uid("instance", number)
        for keyword, value in values.items():
            setattr(ds, keyword, value)
    return series


ENVELOPE, INCOMPLETE, DECODE = Reason.OUT_OF_ENVELOPE, Reason.INCOMPLETE, Reason.CANNOT_DECODE
QUALITY = Reason.QUALITY
#: name: (how to build the series, why it is not analysed, what the technologist is told).
NOT_ANALYSED = {
    "values inverted": (pixels(lambda hu: 2047 - hu), ENVELOPE, "inside of a skull"),
    "values negated": (pixels(lambda hu: -hu), ENVELOPE, "no head with a brain"),
    "one value everywhere": (pixels(lambda hu: np.full_like(hu, 30)), ENVELOPE, "no bone"),
    "noise alone": (pixels(lambda hu: np.random.default_rng(1).normal(30, 5, hu.shape)), ENVELOPE, "no bone"),
    "brain painted over": (pixels(lambda hu: np.where((hu > 0) & (hu < 80), 32, hu)), ENVELOPE, "spread"),
    "slices in no order": (
        pixels(lambda hu: hu[np.random.default_rng(1).permutation(len(hu))]),
        QUALITY,
        "do not follow one another",
    ),
    "halves exchanged": (pixels(lambda hu: np.roll(hu, len(hu) // 2, axis=0)), QUALITY, "do not follow one another"),
    "12 HU too high": (pixels(lambda hu: hu + 12), QUALITY, "densities are shifted"),
    "12 HU too low": (pixels(lambda hu: hu - 12), ENVELOPE, "the median of the inside"),
    "half of each slice blank": (
        pixels(lambda hu: np.where(np.arange(hu.shape[1])[:, None] < 128, hu, -1024)),
        ENVELOPE,
        "inside of a skull",
    ),
    "slope doubled": (header(RescaleSlope="2"), ENVELOPE, "inside of a skull"),
    "intercept lost": (header(RescaleIntercept="0"), ENVELOPE, "inside of a skull"),
    "three slices missing": (lambda p, s: (a := ct_series(p, s))[:15] + a[18:], INCOMPLETE, "3 slices are missing"),
    "one slice missing": (lambda p, s: (a := ct_series(p, s))[:15] + a[16:], INCOMPLETE, "1 slice is missing: 16"),
    "slices doubled": (doubled, ENVELOPE, "101"),
    "a few slices": (lambda p, s: ct_series(p, s)[10:20], ENVELOPE, "10 slices are not covered"),
    "slices 9 mm apart": (spread_out(9.0), ENVELOPE, "apart"),
    "coronal": (coronal, ENVELOPE, "coronal slices"),
    "axial pixels, sagittal header": (geometry(orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0)), ENVELOPE, "sagittal"),
    "half the pixel size": (geometry(spacing_mm=(0.47, 0.47)), ENVELOPE, "field of view"),
    "a quarter more pixel size": (geometry(spacing_mm=(1.19, 1.19)), ENVELOPE, "ml inside the skull"),
    "without position": (without("ImagePositionPatient"), ENVELOPE, "Image Position (Patient) is missing"),
    "without pixel spacing": (without("PixelSpacing"), ENVELOPE, "Pixel Spacing is missing"),
    "derived": (header(ImageType=["DERIVED", "PRIMARY", "AXIAL"]), ENVELOPE, "derived"),
    "contrast agent": (header(ContrastBolusAgent="OMNIPAQUE 300"), ENVELOPE, "contrast agent"),
    "sharp kernel": (header(ConvolutionKernel="H70h"), ENVELOPE, "convolution kernel"),
    "a child": (header(PatientAge="009Y"), ENVELOPE, "age"),
    "compressed with loss": (lossy, ENVELOPE, "with loss"),
    "chest named head": (chest_named_head, ENVELOPE, ""),
}


@pytest.mark.fault("T32")
@pytest.mark.req("R-MODEL-06")
@pytest.mark.req("R-TRIAGE-09")
@pytest.mark.parametrize("case", NOT_ANALYSED)
def test_altered_head_is_not_analysed_and_says_why(box, bleed, case):
    build, reason, told = NOT_ANALYSED[case]
    series = build(bleed, Study(seed=f"guards/{case}"))
    outcome, why, detail, _ = outcome_of(box, series)
    assert (outcome, why) == (Outcome.NOT_ANALYSED, reason), detail
    assert told in detail
    assert detail, "a person is told why"


@pytest.mark.fault("T32")
@pytest.mark.req("R-MODEL-07")
@pytest.mark.parametrize(("end", "lost"), [("at the top", slice(0, 17)), ("at the base", slice(5, None))])
def test_head_that_is_cut_off_is_never_quietly_searched_in_part(box, bleed, end, lost):
    """Nothing found in a part of a head says nothing about it; a bleed in it is told, with a warning."""
    without = head_ct(12, scan=HeadScan(matrix=256, slices=22, thickness_mm=7, noise_hu=4))
    outcome, why, detail, _ = outcome_of(box, ct_series(without, Study(seed=f"guards/cut/{end}"))[lost])
    assert (outcome, why) == (Outcome.NOT_ANALYSED, INCOMPLETE)
    assert f"the head is cut off {end}" in detail
    series = ct_series(bleed, Study(seed=f"guards/cut/bleed/{end}"))[lost]
    assert outcome_of(box, series)[0] is Outcome.FINDING
    (warning,) = box.ended(series[0].StudyInstanceUID).live[0].warnings
    assert f"The head is cut off {end}" in str(warning)


#: name: how to build what no package claims; nothing of it is shown as an analysis.
NOT_APPLICABLE = {
    "localizer": lambda p, s: [localizer_image(localizer(p), s)],
    "secondary capture": secondary_capture,
    "reformat": header(ImageType=["DERIVED", "SECONDARY", "REFORMATTED"]),
    "other body part": header(BodyPartExamined="CHEST"),
    "no body part, other protocol": header(BodyPartExamined="", ProtocolName="Neck routine", SeriesDescription=""),
    "other modality": header(Modality="MR"),
}


@pytest.mark.fault("T32")
@pytest.mark.req("R-TRIAGE-09")
@pytest.mark.parametrize("case", NOT_APPLICABLE)
def test_what_no_package_claims_is_quietly_not_applicable(box, bleed, case):
    series = NOT_APPLICABLE[case](bleed, Study(seed=f"guards/{case}"))
    assert outcome_of(box, series) == (Outcome.NOT_APPLICABLE, None, "", [])


@pytest.mark.fault("T32")
@pytest.mark.parametrize(
    "turn",
    [lambda hu: hu, lambda hu: hu[:, :, ::-1], lambda hu: hu[:, ::-1], lambda hu: np.rot90(hu, 1, (1, 2))],
    ids=["as it is", "mirrored", "upside down", "on its side"],
)
def test_head_that_lies_otherwise_is_still_searched_whole(box, bleed, turn):
    """No pixel tells left from right in a head, and the result names no side: the bleed must be found all the same."""
    seed = f"guards/turned/{turn(np.arange(8).reshape(2, 2, 2)).tolist()}"
    outcome, _, _, scores = outcome_of(box, pixels(turn)(bleed, Study(seed=seed)))
    assert outcome is Outcome.FINDING
    assert scores == [pytest.approx(22, rel=0.15)]


@pytest.mark.fault("T32")
def test_head_without_a_body_part_in_its_header_is_known_by_its_content(box, bleed):
    series = header(BodyPartExamined="", ProtocolName="", SeriesDescription="")(bleed, Study(seed="guards/nameless"))
    assert outcome_of(box, series)[0] is Outcome.FINDING


# -- real images that are no head of a patient -----------------------------------------------------------------------


def stacked(paths, seed, *, slices=28, step_mm=4.0, **values):
    """Real slices repeated to a stack that is long enough, so that only what they show is left to refuse them."""
    study = Study(seed=seed)
    source = [dcmread(path) for path in paths]
    series = [copy.deepcopy(source[k % len(source)]) for k in range(slices)]
    for k, ds in enumerate(series):
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-120, -120, k * step_mm], [1, 0, 0, 0, 1, 0]
        ds.InstanceNumber, ds.SliceThickness = k + 1, step_mm
    return relabelled(series, study, **LIKE_A_HEAD, **values)


@pytest.fixture(scope="module")
def real(test_data, tmp_path_factory):
    """The real CT series by name; paths in order."""
    folder = test_data / "dicom_ct"
    made = tmp_path_factory.mktemp("real")
    return {
        "head phantom": sorted((folder / "philips_head_phantom").iterdir()),
        "GE body": sorted((folder / "ge_3slice").iterdir()),
        "chest": sorted((folder / "lungmask_chest").iterdir()),
        "Siemens body": fixtures_real.siemens_series(test_data, made / "siemens"),
        "thorax and abdomen": fixtures_real.nifti_series(test_data, made / "nifti"),
    }


REAL = ["head phantom", "GE body", "chest", "Siemens body", "thorax and abdomen"]


@pytest.mark.fault("T32")
@pytest.mark.req("R-MODEL-06")
@pytest.mark.parametrize("part", ["as it is", "HEAD", pytest.param("", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", REAL)
def test_real_series_that_is_no_patients_head_gets_no_score(box, real, name, part):
    study = Study(seed=f"guards/real/{name}/{part}")
    values = {} if part == "as it is" else {**LIKE_A_HEAD, "BodyPartExamined": part}
    outcome, reason, detail, _ = outcome_of(box, relabelled([dcmread(path) for path in real[name]], study, **values))
    if part == "as it is" and name in {"Siemens body", "thorax and abdomen"}:  # their headers name the body part
        assert outcome is Outcome.NOT_APPLICABLE
    else:
        assert (outcome, reason) == (Outcome.NOT_ANALYSED, Reason.OUT_OF_ENVELOPE)
        assert detail


@pytest.mark.fault("T32")
@pytest.mark.req("R-MODEL-06")
@pytest.mark.parametrize("name", REAL)
def test_real_slices_in_a_stack_long_enough_are_refused_by_what_they_show(box, real, name):
    series = stacked(real[name], f"guards/stacked/{name}")
    if name == "thorax and abdomen":
        for ds in series:  # 3 mm pixels would be refused by their size: a small body is shown in their place
            ds.PixelSpacing = [1.15, 1.15]
    outcome, reason, detail, _ = outcome_of(box, series)
    assert (outcome, reason) == (Outcome.NOT_ANALYSED, Reason.OUT_OF_ENVELOPE)
    assert "skull" in detail or "no head with a brain" in detail or "field of view" in detail, detail


@pytest.mark.fault("T32")
@pytest.mark.req("R-MODEL-06")
@pytest.mark.parametrize("pixel_mm", [0.35, 0.55])
def test_real_body_of_the_size_of_a_head_is_refused_by_what_it_shows(box, real, pixel_mm):
    series = stacked(real["Siemens body"], f"guards/small/{pixel_mm}", PixelSpacing=[pixel_mm, pixel_mm])
    assert outcome_of(box, series)[:2] == (Outcome.NOT_ANALYSED, Reason.OUT_OF_ENVELOPE)


@pytest.mark.req("R-PEER-02")
@pytest.mark.req("R-TRIAGE-09")
def test_real_chest_x_rays_are_not_applicable_and_raise_nothing(box, test_data, tmp_path, scale):
    rows = fixtures_real.nih_labels(test_data)
    chosen = rows[:: round(1 / scale)]
    alerts = len(box.store.views.alerts(limit=10_000))
    for n in range(0, len(chosen), 100):
        paths = [fixtures_real.nih_xray(test_data, row, tmp_path) for row in chosen[n : n + 100]]
        box.send(paths, "DX-1")

    def over():
        views = [view for view in box.store.views.studies(limit=10_000) if view.source == "DX-1"]
        return views if len(views) == len(chosen) and all(view.outcome for view in views) else None

    assert {view.outcome for view in box.wait(over, "outcomes of the X-rays")} == {Outcome.NOT_APPLICABLE}
    assert len(box.store.views.alerts(limit=10_000)) == alerts
