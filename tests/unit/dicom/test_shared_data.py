"""Every file of the shared test data, read where it lies: understood, or refused with a status and a reason."""

from __future__ import annotations

import csv
import itertools
import warnings

import numpy as np
import pytest
from pydicom.filereader import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from appliance.dicom.geometry import sort_slices
from appliance.dicom.headers import pixel_sha256, read_header
from appliance.dicom.pixels import decode, frames_of_enhanced, hu_slices, same_pixels, xray_image
from appliance.errors import NotAnalysable, RejectedInstance
from appliance.records import Reason

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

NO_PART_10 = "not a DICOM Part 10 file"
#: What is refused, and why; everything else is read.
REFUSED = {
    "charset/chrSQEncoding.dcm": "SOP Class UID",
    "charset/chrSQEncoding1.dcm": "SOP Class UID",
    "dicom_odd/deflated.dcm": "Deflated",
    "pydicom/MR_truncated.dcm": "truncated",
    "pydicom/UN_sequence.dcm": "SOP Class UID",
    "pydicom/empty_charset_LEI.dcm": "SOP Class UID",
    "pydicom/image_dfl.dcm": "Deflated",
    "pydicom/meta_missing_tsyntax.dcm": "names no Transfer Syntax UID",
    "pydicom/nested_priv_SQ.dcm": "SOP Class UID",
    "pydicom/no_meta.dcm": NO_PART_10,
    "pydicom/no_meta_group_length.dcm": "SOP Class UID",
    "pydicom/priv_SQ.dcm": "SOP Class UID",
    "pydicom/rtplan_truncated.dcm": "truncated",
    "pydicom/rtstruct.dcm": NO_PART_10,
    "pydicom/zipMR.gz": NO_PART_10,
    "pydicom_data/JLSL_08_07_0_1F.dcm": "Study Instance UID",
    "pydicom_data/bad_sequence.dcm": "SOP Instance UID",
}
#: What pydicom decodes with decoders that the box does not ship, or the box refuses for a reason of its own.
NOT_DECODED = ["deflated.dcm", "JPGExtended.dcm", "image_dfl.dcm"]


@pytest.fixture(scope="module")
def manifest(test_data):
    """Rows of the manifest with the path of each file."""
    with (test_data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = [{**row, "path": test_data / row["folder"] / row["file"]} for row in csv.DictReader(file)]
    assert len(rows) == 120
    return rows


def why_refused(path):
    """The message of the refusal, empty when the header was read."""
    try:
        header = read_header(path)
    except RejectedInstance as refused:
        return f"{refused.status:04X} {refused}"
    assert header.sop_instance_uid
    assert header.identity.study_instance_uid
    return ""


@pytest.mark.fault("T22")
def test_every_file_is_understood_or_refused_with_a_reason(manifest):
    surprises = {}
    for row in manifest:
        path = row["path"]
        expected = REFUSED.get(f"{path.parent.name}/{path.name}", "")
        if path.parent.name == "siemens_body_j2k":
            expected = "SOP Class UID"  # its UIDs are empty
        said = why_refused(path)
        if bool(expected) != bool(said) or not (expected in said and said.startswith("C000" * bool(expected))):
            surprises[path.name] = said or "read"
    assert surprises == {}


@pytest.mark.req("R-INTAKE-09")
def test_every_name_is_what_the_manifest_says(manifest):
    for row in manifest:
        if row["folder"] == "dicom_odd" and row["file"].startswith("charset/chr") and not why_refused(row["path"]):
            assert read_header(row["path"]).identity.patient_name == row["patient_name"], row["file"]


def test_pixels_are_those_that_pydicom_decodes(manifest):
    compared, refused = 0, {}
    for row in manifest:
        path = row["path"]
        if not row["pixels"] or "FAIL" in row["pixels"]:
            continue
        if path.parent.name == "siemens_body_j2k" and path.name != "016573.dcm":
            continue  # twenty of a kind
        try:
            ours = decode(path).frames
        except NotAnalysable as error:
            refused[path.name] = error.reason
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the files are odd, and pydicom says so
            theirs = dcmread(path).pixel_array
        assert np.array_equal(ours.reshape(theirs.shape), theirs), path.name
        compared += 1
    assert refused == dict.fromkeys(NOT_DECODED, Reason.CANNOT_DECODE)
    assert compared > 65


@pytest.mark.req("R-INTAKE-12")
@pytest.mark.parametrize(
    "names",
    [
        ["dicom_ct/single/CT1_JLSL.dcm", "dicom_ct/single/CT1_JPLL.dcm", "dicom_ct/single/CT1_RLE.dcm"],
        [
            "dicom_odd/pydicom_data/emri_small.dcm",
            "dicom_odd/pydicom_data/emri_small_RLE.dcm",
            "dicom_odd/pydicom_data/emri_small_big_endian.dcm",
            "dicom_odd/pydicom_data/emri_small_jpeg_2k_lossless.dcm",
            "dicom_odd/pydicom_data/emri_small_jpeg_ls_lossless.dcm",
        ],
        ["dicom_odd/pydicom/MR_small.dcm", "dicom_odd/pydicom/MR_small_bigendian.dcm"],
    ],
)
def test_one_image_in_several_syntaxes_is_one_image(test_data, names):
    for a, b in itertools.pairwise(test_data / name for name in names):
        assert same_pixels(a, b), b.name
        assert read_header(a).meaning_digest == read_header(b).meaning_digest, b.name


@pytest.mark.req("R-INTAKE-13")
def test_a_lossy_copy_of_an_image_is_another_image(test_data):
    folder = test_data / "dicom_ct" / "single"
    assert not same_pixels(folder / "CT1_JLSL.dcm", folder / "CT1_JLSN.dcm")


@pytest.mark.req("R-INTAKE-13")
def test_the_same_pixels_declared_monochrome1_are_other_pixels(test_data):
    plain, inverted = test_data / "dicom_cxr" / "siim_jpegbaseline.dcm", test_data / "dicom_cxr" / "fake_mono1.dcm"
    assert pixel_sha256(plain) == pixel_sha256(inverted)
    assert read_header(plain).meaning_digest != read_header(inverted).meaning_digest
    assert np.allclose(xray_image(inverted), 1 - xray_image(plain), atol=1e-6)


@pytest.mark.req("R-TRIAGE-07")
@pytest.mark.parametrize(
    ("folder", "count", "spacing", "tilt"),
    [("ge_3slice", 3, 1.0, 0), ("philips_head_phantom", 4, 2.397, 16.5), ("siemens_body_j2k", 20, 2.0, 0)],
)
def test_a_real_series_is_put_in_order(test_data, folder, count, spacing, tilt):
    paths = sorted((test_data / "dicom_ct" / folder).iterdir())
    places = [hu_slices(path).places[0] for path in paths]
    geometry = sort_slices(places)
    assert len(geometry.order) == count
    assert geometry.plane == "axial"
    assert geometry.spacing_mm == pytest.approx(spacing, abs=0.001)
    assert geometry.tilt_deg == pytest.approx(tilt, abs=0.01)
    assert geometry.regular
    heights = [places[index].position[2] for index in geometry.order]
    assert heights == sorted(heights)


@pytest.mark.req("R-TRIAGE-08")
def test_air_and_soft_tissue_of_real_scanners_have_their_hounsfield_units(test_data):
    for name in ("ge_3slice/01.dcm", "siemens_body_j2k/016573.dcm", "lungmask_chest/0.dcm"):
        path = test_data / "dicom_ct" / name
        hu = hu_slices(path).hu
        assert hu.min() == -1024
        assert np.mean(np.abs(hu) < 150) > 0.05, name
        assert np.mean(hu < -900) > 0.1, name


@pytest.mark.req("R-TRIAGE-07")
def test_a_real_enhanced_ct_of_perfusion_has_places_but_no_hounsfield_units(test_data):
    path = test_data / "dicom_odd" / "pydicom_data" / "eCT_Supplemental.dcm"
    geometry = sort_slices(frames_of_enhanced(path))
    assert (geometry.spacing_mm, geometry.plane, geometry.order) == (10, "axial", (1, 0))
    with pytest.raises(NotAnalysable, match="Rescale Type is US") as refused:
        hu_slices(path)
    assert refused.value.reason is Reason.OUT_OF_ENVELOPE


@pytest.mark.req("R-TRIAGE-08")
def test_look_up_tables_give_what_pydicom_gives(test_data):
    folder = test_data / "dicom_odd" / "pydicom_data"
    ds = dcmread(folder / "vlut_04.dcm")
    shown = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)
    bits = ds.VOILUTSequence[0].LUTDescriptor[2]
    expected = shown / (2**bits - 1)
    ours = xray_image(folder / "vlut_04.dcm")
    assert np.allclose(ours, expected if ds.PhotometricInterpretation == "MONOCHROME2" else 1 - expected, atol=1e-5)
    ds = dcmread(folder / "mlut_18.dcm")
    values = apply_modality_lut(ds.pixel_array, ds).astype(np.float64)
    ours = xray_image(folder / "mlut_18.dcm")
    assert np.corrcoef(values.ravel(), ours.ravel())[0, 1] > 0.9


@pytest.mark.req("R-TRIAGE-08")
def test_a_real_chest_x_ray_in_monochrome1_is_bright_where_bone_is(test_data):
    image = xray_image(test_data / "dicom_cxr" / "RG1_J2KI_chest.dcm")
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1
    rows, columns = image.shape
    band = image[rows // 3 : rows // 2]
    spine = band[:, int(columns * 0.45) : int(columns * 0.55)].mean()
    lung = band[:, int(columns * 0.2) : int(columns * 0.35)].mean()
    assert spine > lung
