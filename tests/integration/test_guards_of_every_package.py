"""All bundled packages live on one box: what is for none of them ends quietly or NOT_ANALYSED, never with a score.

One score is meant: where a header says chest and the picture is none, ``cxr-quality`` warns of just that.
"""

from __future__ import annotations

import fixtures_real
import pytest
from box_kit import box_with_pacs
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from appliance.records import Outcome, Reason
from appliance.simulate.dicomize import localizer_image, xray
from appliance.simulate.dose import dose_report
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.knee_xray import knee_xray
from appliance.simulate.localizer import localizer
from appliance.simulate.study import Study
from engines.package import bundled_packages, load_package

QUIET, ENVELOPE = (Outcome.NOT_APPLICABLE, None), (Outcome.NOT_ANALYSED, Reason.OUT_OF_ENVELOPE)
#: Files (or a folder of slices) of ``SCANSIDE_TEST_DATA``: how the study ends.
REAL = {
    "dicom_cxr/dx_thorax_small.dcm": ENVELOPE,  # a dog, whose header says CHEST
    "dicom_cxr/RG3_tibia_J2KI.dcm": QUIET,
    "dicom_cxr/siim_jpegbaseline.dcm": QUIET,  # a chest as Secondary Capture
    "dicom_ct/philips_head_phantom": ENVELOPE,
    "dicom_ct/ge_3slice": ENVELOPE,
    "dicom_ct/lungmask_chest": ENVELOPE,
    "siemens body": QUIET,
    "dicom_odd/pydicom/rtdose.dcm": QUIET,
    "dicom_odd/pydicom/rtplan_truncated.dcm": QUIET,
    "dicom_odd/pydicom/rtstruct.dcm": QUIET,
    "dicom_odd/pydicom/test-SR.dcm": QUIET,
    "dicom_odd/pydicom/examples_palette.dcm": QUIET,  # US
    "dicom_odd/pydicom/MR_small_RLE.dcm": QUIET,
    "dicom_odd/pydicom_data/emri_small.dcm": QUIET,  # MR
    "dicom_odd/highdicom/seg_image_cr_binary.dcm": QUIET,
    "dicom_odd/highdicom/sr_document.dcm": QUIET,
    "dicom_odd/pydicom_data/eCT_Supplemental.dcm": ENVELOPE,
}
#: Their headers say that they are the chest of an adult, PA.
SAID_TO_BE_CHESTS = ("dicom_cxr/dx_thorax_small.dcm", "dicom_cxr/RG3_tibia_J2KI.dcm", "knee")


@pytest.fixture(scope="module")
def box(tmp_path_factory, scale):
    manifests = [load_package(folder, trusted=True).manifest for folder in bundled_packages().values()]
    able = [one for one in manifests if one.template is None]  # a template cannot be activated
    # Those whose golden cases alone take long run with --full; the unit tests of this name have them always.
    live = tuple(one.name for one in able if scale == 1 or one.limits.time_s <= 10)
    assert len(live) >= (3 if scale == 1 else 2)
    quick = {"quiet_min_s": 0.5, "quiet_max_s": 2.0}  # three of many slices are complete by no evidence
    with box_with_pacs(tmp_path_factory.mktemp("guards"), packages=live, completeness=quick) as (running, _):
        yield running


def ending(box, uid):
    """Outcome and reason, once there are no scores and every analysis says why."""
    view = box.ended(uid)
    assert [finding.score for one in view.live for finding in one.findings] == [], "a score slipped through"
    assert all(one.detail for one in view.live)
    return view.outcome, view.reason


def readable(path):
    """A real object with what a sender needs: file meta information that agrees with it."""
    ds = dcmread(path, force=True)
    ds.file_meta.TransferSyntaxUID = ds.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


@pytest.mark.fault("T32")
@pytest.mark.req("R-MODEL-09")
@pytest.mark.parametrize("name", REAL)
def test_real_study_that_is_for_no_package_gets_no_score(box, test_data, tmp_path, name):
    path = test_data / name
    if name == "siemens body":
        paths = fixtures_real.siemens_series(test_data, tmp_path)
    else:
        paths = sorted(path.iterdir()) if path.is_dir() else [path]
    series = [readable(one) for one in paths]
    box.send(series)
    assert ending(box, series[0].StudyInstanceUID) == REAL[name]


@pytest.mark.fault("T32")
@pytest.mark.req("R-MODEL-09")
@pytest.mark.parametrize("what", ["localizer", "dose report", "knee"])
def test_phantom_that_is_for_no_package_is_quietly_not_applicable(box, what):
    study = Study(seed=f"guards/all/{what}")
    made = {
        "localizer": lambda: localizer_image(localizer(head_ct(3, scan=HeadScan(matrix=128, slices=32))), study),
        "dose report": lambda: dose_report(study),
        "knee": lambda: xray(knee_xray(5, matrix=256), study),
    }
    ds = made[what]()
    box.send([ds])
    assert ending(box, ds.StudyInstanceUID) == QUIET


@pytest.mark.fault("T32")
@pytest.mark.req("R-MODEL-09")
@pytest.mark.parametrize("what", SAID_TO_BE_CHESTS)
def test_picture_of_something_else_is_warned_of_and_not_analysed_though_its_header_says_chest(box, test_data, what):
    study = Study(seed=f"guards/all/chest/{what}")
    ds = xray(knee_xray(6, matrix=256), study) if what == "knee" else dcmread(test_data / what)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study.study_instance_uid, study.uid("series")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = study.uid("instance")
    ds.BodyPartExamined, ds.ViewPosition, ds.PatientAge = "CHEST", "PA", "050Y"
    ds.ProtocolName = ds.SeriesDescription = ds.StudyDescription = "Chest PA"
    box.send([ds])
    view = box.ended(ds.StudyInstanceUID)
    assert (view.outcome, view.reason) == (Outcome.NOT_ANALYSED, Reason.QUALITY)
    ended = {one.package: one for one in view.live}
    assert "not-a-chest" in {finding.id for finding in ended.pop("cxr-quality").quality_warnings}
    assert ended, "nothing that looks for a disease took it up"
    for one in ended.values():
        assert one.findings == (), "a score slipped through"
        assert "warns of not-a-chest" in one.detail
