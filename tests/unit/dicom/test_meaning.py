"""Which changes make other pixels of equal bytes, and which do not (issue "From the scanner to the alert" §3)."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from appliance.dicom.headers import read_header

pytestmark = pytest.mark.req("R-INTAKE-13")


def lut(entries, first=0, bits=12):
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, bits])
    item.add_new(0x00283006, "US", list(entries))
    return Sequence([item])


def digest(write, ds, syntax=ExplicitVRLittleEndian):
    return read_header(write(ds, syntax)).meaning_digest


@pytest.mark.parametrize(
    "change",
    [
        {"RescaleIntercept": "-1000"},
        {"RescaleSlope": "2"},
        {"RescaleType": "US"},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"ImagePositionPatient": [-100, -100, 36]},
        {"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]},
        {"PixelSpacing": [0.5, 0.5]},
        {"SliceThickness": "2.5"},
        {"BitsStored": 12},
        {"PixelRepresentation": 0},
        {"PixelPaddingValue": 0},
        {"Rows": 12, "Columns": 16},
        {"PatientOrientation": ["L", "F"]},
        {"PresentationLUTShape": "INVERSE"},
        {"ModalityLUTSequence": lut([1, 2, 3])},
        {"VOILUTSequence": lut([1, 2, 3])},
    ],
)
def test_what_gives_the_pixels_another_meaning_gives_another_digest(ct, write, change):
    ds = ct(**change)
    for keyword in ("PixelPaddingValue",):
        if keyword in change:
            ds[keyword].VR = "SS"
    assert digest(write, ds) != digest(write, ct())


@pytest.mark.parametrize(
    "change",
    [
        {"PatientID": "P2", "PatientName": "Li^Si"},
        {"AccessionNumber": "A2", "StudyInstanceUID": "1.2.9"},
        {"StudyDescription": "other", "InstanceNumber": "8"},
        {"WindowCenter": "40", "WindowWidth": "80"},
        {"RescaleIntercept": "-1024.0", "RescaleSlope": "1.000"},
        {"SliceThickness": "5"},
        {"NumberOfFrames": "1"},
    ],
)
def test_identity_order_and_the_same_number_in_other_digits_do_not(ct, write, change):
    assert digest(write, ct(**change)) == digest(write, ct())


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_entry_of_a_lut_is_enough(ct, write, position):
    entries = [10, 20, 30]
    before = digest(write, ct(ModalityLUTSequence=lut(entries)))
    entries[position] += 1
    assert digest(write, ct(ModalityLUTSequence=lut(entries))) != before


def test_position_and_rescale_of_each_frame_count(enhanced_ct, write):
    frames = np.zeros((2, 16, 12), np.int16)
    base = digest(write, enhanced_ct(frames, [(0, 0, 0), (0, 0, 5)], [-1024, -1024]))
    assert digest(write, enhanced_ct(frames, [(0, 0, 0), (0, 0, 6)], [-1024, -1024])) != base
    assert digest(write, enhanced_ct(frames, [(0, 0, 0), (0, 0, 5)], [-1024, -1000])) != base
    assert digest(write, enhanced_ct(frames, [(0, 0, 5), (0, 0, 0)], [-1024, -1024])) != base


@pytest.mark.req("R-INTAKE-12")
def test_another_transfer_syntax_is_the_same_meaning(ct, enhanced_ct, write):
    frames = np.zeros((2, 16, 12), np.int16)
    for make in (
        lambda: ct(VOILUTSequence=lut([1, 2, 3]), PixelPaddingValue=0),
        lambda: enhanced_ct(frames, [(0, 0, 0), (0, 0, 5)], [-1024, -1000]),
    ):
        made = []
        for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
            ds = make()
            if "PixelPaddingValue" in ds:
                ds["PixelPaddingValue"].VR = "SS"
            made.append(digest(write, ds, syntax))
        assert len(set(made)) == 1


@pytest.mark.req("R-INTAKE-12")
def test_the_colour_transform_of_jpeg_2000_is_no_other_photometric_interpretation(ct, write):
    rgb = np.arange(16 * 12 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 12, 3)
    colour = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    native = digest(write, ct(rgb, PhotometricInterpretation="RGB", PlanarConfiguration=0, **colour))
    packed = ct(rgb, PhotometricInterpretation="YBR_RCT", PlanarConfiguration=0, **colour)
    packed.PixelData = encapsulate([b"code"])
    assert digest(write, packed, JPEG2000Lossless) == native
    by_plane = ct(rgb, PhotometricInterpretation="RGB", PlanarConfiguration=1, **colour)
    assert digest(write, by_plane) != native
    other = ct(rgb, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0, **colour)
    assert digest(write, other) != native
