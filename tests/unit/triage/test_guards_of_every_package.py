"""What no bundled package may score: every real file at hand and the phantoms of other parts, package by package.

The daemon's own routing decides by the header, the worker's own functions by what the pixels show. A new bundled
package is held to it by itself: a file that it may score has to be named here.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache

import fixtures_real
import numpy as np
import pytest

from appliance.dicom.headers import read_header
from appliance.dicom.pixels import xray_image
from appliance.errors import ApplianceError, NotAnalysable
from appliance.simulate.dicomize import localizer_image, save, xray
from appliance.simulate.dose import dose_report
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.knee_xray import knee_xray
from appliance.simulate.localizer import localizer
from appliance.simulate.study import Study
from appliance.triage.evaluation_run import FoundStudy, plan_inputs
from appliance.triage.workbench import decode_and_prepare, finish
from engines.errors import ContentError
from engines.package import bundled_packages, load_package
from engines.pipeline import Pipeline
from engines.types import Image, Stack

FOLDERS = bundled_packages()
#: The one frontal chest film of an adult that is stored without loss.
CHEST = "dicom_cxr/RG1_J2KI_chest.dcm"
#: Real files that a package is for: these it must score, and no other.
FOR = {"cxr-triage": {CHEST}, "cxr-quality": {CHEST}}
#: What each X-ray package must refuse though its header said everything right.
NO_PATIENT_OF_ITS = {
    "cxr-triage": ("dog", "tibia", "knee", "head"),
    "bone-age": ("dog", "tibia", "knee", "head", "chest"),
}
SERIES = ("philips_head_phantom", "ge_3slice", "lungmask_chest")


@pytest.fixture(scope="module")
def pipelines():
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Pipeline(load_package(path, trusted=True))) for name, path in FOLDERS.items()}


def found(paths):
    """These files as one study of one series; None where the intake could not read them."""
    try:
        headers = [read_header(path) for path in paths]
    except (ApplianceError, OSError):
        return None
    return FoundStudy(names=(), source="", date="", series=((headers[0], tuple(paths)),))


def ends(study, pipelines):
    """By package: the reason, ``not claimed``, or the scores. Every file is decoded once."""
    said, asked = {}, {}
    for name, pipeline in pipelines.items():
        planned = plan_inputs(pipeline.package.manifest, study)
        if isinstance(planned, dict):
            ((role, given),) = planned["inputs"].items()
            asked[name] = (role, given)
        else:
            said[name] = planned.reason
    if asked:
        (kind,) = {given["kind"] for _, given in asked.values()}
        try:
            pieces = [decode_and_prepare(path, kind, pipelines.values()) for path in study.series[0][1]]
        except NotAnalysable as error:
            return said | dict.fromkeys(asked, str(error.reason))
        for name, (role, _) in asked.items():
            try:
                said[name] = finish({role: pieces}, pipelines[name]).output.scores
            except (NotAnalysable, ContentError) as error:
                said[name] = str(error.reason)
    return said


@pytest.fixture(scope="module")
def real(test_data, pipelines, tmp_path_factory):
    """``(what, how it ends by package)`` of every real file, and of the CT series as such."""
    groups = {f"{path.parent.name}/{path.name}": [path] for path in fixtures_real.dicom_files(test_data)}
    for folder in SERIES:
        groups[folder] = sorted((test_data / "dicom_ct" / folder).iterdir())
    groups["siemens_body_j2k"] = fixtures_real.siemens_series(test_data, tmp_path_factory.mktemp("siemens"))
    studies = {name: study for name, paths in groups.items() if (study := found(paths)) is not None}
    assert len(studies) > 80
    return {name: ends(study, pipelines) for name, study in studies.items()}


@pytest.mark.req("R-CXR-04")
@pytest.mark.req("R-MODEL-09")
@pytest.mark.parametrize("name", FOLDERS)
def test_of_all_real_files_a_package_scores_those_that_it_is_for_and_no_other(real, name):
    scored = {what for what, ended in real.items() if isinstance(ended[name], dict)}
    assert scored == FOR.get(name, set())


@pytest.mark.req("R-MODEL-09")
def test_what_a_header_claims_wrongly_or_nothing_says_is_refused_with_a_reason(real):
    for name in FOLDERS:
        assert {ended[name] for ended in real.values() if not isinstance(ended[name], dict)} <= {
            "not_applicable",
            "out_of_envelope",
            "cannot_decode",
            "incomplete",
            "quality",
        }


@pytest.mark.req("R-MODEL-09")
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("what", ["localizer", "dose report", "knee"])
def test_a_localizer_a_dose_report_and_a_knee_are_claimed_by_no_package(pipelines, name, what, tmp_path):
    study = Study(seed=f"guards/{what}")
    made = {
        "localizer": lambda: localizer_image(localizer(small_head()), study),
        "dose report": lambda: dose_report(study),
        "knee": lambda: xray(knee_xray(5, matrix=128), study),
    }
    (path,) = save([made[what]()], tmp_path)
    assert ends(found([path]), {name: pipelines[name]}) == {name: "not_applicable"}


@lru_cache(maxsize=1)
def small_head():
    return head_ct(3, scan=HeadScan(matrix=128, thickness_mm=5, slices=32))


@pytest.fixture(scope="module")
def pictures(test_data):
    """Pictures of other things, whatever their headers say."""
    folder = test_data / "dicom_cxr"
    return {
        "dog": xray_image(folder / "dx_thorax_small.dcm"),
        "tibia": xray_image(folder / "RG3_tibia_J2KI.dcm"),
        "chest": xray_image(test_data / CHEST),
        "knee": knee_xray(9, matrix=512).pixels.astype(np.float32),
        "head": localizer(small_head(), matrix=256).pixels.astype(np.float32),
    }


def sees(name):
    """The role of a package's X-ray that it gives a score to; a package of quality judges whatever calls itself one."""
    manifest = load_package(FOLDERS[name], trusted=True).manifest
    roles = [feed.input.role for feed in manifest.inputs if set(feed.input.modality) <= {"CR", "DX"}]
    return roles[0] if roles and manifest.intended_use != "quality" else None


@pytest.mark.req("R-CXR-04")
@pytest.mark.req("R-MODEL-09")
@pytest.mark.parametrize("name", [name for name in FOLDERS if sees(name)])
def test_pixels_alone_tell_other_things_from_what_an_x_ray_package_is_for(pipelines, pictures, name):
    assert name in NO_PATIENT_OF_ITS, f"name here what {name} must refuse"
    for what in NO_PATIENT_OF_ITS[name]:
        prepared = pipelines[name].prepare(sees(name), Image(id=what, array=pictures[what]))
        with pytest.raises(ContentError) as caught:
            pipelines[name].finish({sees(name): Stack(slices=(prepared,))})
        assert caught.value.reason == "out_of_envelope", what
