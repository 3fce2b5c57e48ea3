"""Every real and odd file through the raw sender and the PACS, and the fixtures that wrap other data as DICOM."""

import fixtures_real
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from appliance.simulate.pacs import Pacs
from appliance.simulate.part10 import data_sha256, split
from appliance.simulate.rawscu import RawScu


def test_every_dicom_file_goes_over_the_wire_without_changing_a_byte(test_data, tmp_path):
    files = fixtures_real.dicom_files(test_data)
    assert len(files) > 100
    with Pacs(tmp_path) as pacs, RawScu("127.0.0.1", pacs.port) as raw:
        parts = [split(path) for path in files]
        kinds = sorted({(part.sop_class_uid or "1.2.3", part.transfer_syntax_uid) for part in parts})
        accepted = raw.associate([(sop_class, [syntax]) for sop_class, syntax in kinds])
        numbers = dict(zip(kinds, accepted, strict=True))
        for part in parts:
            sop_class = part.sop_class_uid or "1.2.3"
            number = numbers[sop_class, part.transfer_syntax_uid]
            assert raw.store(number, sop_class, part.sop_instance_uid or "1.2.3.4", part.data) == 0
        raw.release()
        assert [a.sha256 for a in pacs.arrivals] == [part.sha256 for part in parts]
        assert [data_sha256(a.path) for a in pacs.arrivals] == [part.sha256 for part in parts]


def test_the_siemens_series_gets_its_uids_and_keeps_its_pixels(test_data, tmp_path):
    paths = fixtures_real.siemens_series(test_data, tmp_path)
    series = [dcmread(path) for path in paths]
    assert len(series) == 20
    assert len({ds.SOPInstanceUID for ds in series}) == 20
    assert {(ds.SeriesInstanceUID, ds.StudyInstanceUID) for ds in series} == {
        (series[0].SeriesInstanceUID, series[0].StudyInstanceUID)
    }
    assert all(ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID for ds in series)
    assert {ds.file_meta.TransferSyntaxUID for ds in series} == {JPEG2000Lossless}
    original = dcmread(test_data / "dicom_ct" / "siemens_body_j2k" / paths[0].name)
    assert series[0].PixelData == original.PixelData


def test_the_nifti_ct_becomes_a_series_with_the_spine_behind_and_the_liver_on_the_right(test_data, tmp_path):
    series = [dcmread(path) for path in fixtures_real.nifti_series(test_data, tmp_path)]
    assert len(series) == 112
    heights = [float(ds.ImagePositionPatient[2]) for ds in series]
    assert np.allclose(np.diff(heights), 3)
    volume = np.stack([ds.pixel_array.astype(int) * int(ds.RescaleSlope) + int(ds.RescaleIntercept) for ds in series])
    assert (volume.min(), volume.max()) == (-1207, 3382)
    bone = (volume > 250).sum(axis=(0, 2))
    assert bone[len(bone) // 2 :].sum() > bone[: len(bone) // 2].sum()
    soft = ((volume[95:] > 40) & (volume[95:] < 160)).sum(axis=(0, 1))
    assert soft[: len(soft) // 2].sum() > soft[len(soft) // 2 :].sum()


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_an_nih_film_becomes_a_dx_with_the_age_and_view_of_its_row(test_data, tmp_path, photometric):
    row = fixtures_real.nih_labels(test_data)[0]
    ds = dcmread(fixtures_real.nih_xray(test_data, row, tmp_path, photometric=photometric))
    assert (ds.Modality, ds.ViewPosition, ds.PatientAge) == ("DX", row["view"], f"{int(float(row['age'])):03d}Y")
    assert ds.pixel_array.shape == (512, 512)
    assert ds.PhotometricInterpretation == photometric
