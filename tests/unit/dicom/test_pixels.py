from __future__ import annotations

import copy
import random
import subprocess

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import dcmread
from pydicom.sequence import Sequence
from pydicom.uid import (
    HTJ2K,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from appliance.dicom import pixels
from appliance.dicom.headers import read_header
from appliance.dicom.pixels import decode, frames_of_enhanced, hu_slices, picture, same_pixels, xray_image
from appliance.errors import NotAnalysable
from appliance.records import Reason

ENCODERS = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}
#: dcmcjpeg's option for a lossless syntax.
DCMCJPEG = {"1.2.840.10008.1.2.4.57": "+el", "1.2.840.10008.1.2.4.70": "+e1"}


def scene(dtype=np.int16):
    """64 x 48 values of a 12-bit CT, from -1000 to 3000, with noise."""
    rng = np.random.default_rng(7)
    rows, columns = np.mgrid[0:64, 0:48]
    values = -1000 + 60 * rows + rng.integers(0, 40, (64, 48)) + columns
    return values.astype(dtype)


def ct_of(ct, values, **changes):
    return ct(values, Rows=values.shape[-2], Columns=values.shape[-1], **changes)


def xray_of(ct, values, **changes):
    """A projection image, 16 bit without sign, no rescale."""
    changes = {"PixelRepresentation": 0, "RescaleIntercept": None, "RescaleSlope": None, "Modality": "DX", **changes}
    return ct_of(ct, np.asarray(values, np.uint16), **changes)


def refused(path, read=decode):
    with pytest.raises(NotAnalysable) as error:
        read(path)
    return error.value.reason


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_pixels_are_read_in_every_encoding(ct, write, syntax):
    values = scene()
    ds = ct_of(ct, values)
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = values.byteswap().tobytes()
    decoded = decode(write(ds, syntax))
    assert np.array_equal(decoded.frames[0], values)
    assert decoded.frames.dtype == np.int16
    assert decoded.padding is None


@pytest.mark.parametrize("syntax", list(ENCODERS))
@pytest.mark.parametrize("signed", [True, False])
def test_a_lossless_syntax_gives_back_the_values(ct, write, syntax, signed):
    values = scene() if signed else (scene() + 1000).astype(np.uint16)
    ds = ct_of(ct, values, PixelRepresentation=int(signed))
    native = write(ds)
    packed = dcmread(native)
    packed.compress(syntax, encoding_plugin=ENCODERS[syntax], generate_instance_uid=False)
    path = write(packed, syntax)
    assert np.array_equal(decode(path).frames[0], values)
    assert same_pixels(native, path)


@pytest.mark.parametrize("syntax", list(DCMCJPEG))
def test_lossless_jpeg_gives_back_the_values(ct, write, dcmtk, tmp_path, syntax):
    values = (scene() + 1000).astype(np.uint16)
    ds = ct_of(ct, values, PixelRepresentation=0, BitsStored=12, HighBit=11)
    native = write(ds)
    path = tmp_path / "packed.dcm"
    subprocess.run([dcmtk("dcmcjpeg"), DCMCJPEG[syntax], native, path], check=True, timeout=30)
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(decode(path).frames[0], values)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_high_throughput_jpeg_2000_gives_back_the_values(ct, write, syntax):
    imagecodecs = pytest.importorskip("imagecodecs", reason="imagecodecs (a test extra) writes HTJ2K")
    if not hasattr(imagecodecs, "htj2k_encode"):
        pytest.skip("this imagecodecs writes no HTJ2K; the one for Python 3.11 and later does")
    values = (scene() + 1000).astype(np.uint16)
    ds = ct_of(ct, values, PixelRepresentation=0)
    code = imagecodecs.htj2k_encode(values, reversible=True)
    ds.PixelData = encapsulate([code])
    assert np.array_equal(decode(write(ds, syntax)).frames[0], values)


def test_every_encapsulated_syntax_has_exactly_one_decoder_that_is_installed():
    from pydicom.pixels.decoders.base import get_decoder

    for syntax, plugin in pixels.DECODERS.items():
        assert plugin in get_decoder(syntax).available_plugins


def test_several_frames_in_several_fragments_are_put_together(ct, write):
    frames = np.stack([scene(), scene()[::-1], scene() + 5])
    ds = ct_of(ct, frames, NumberOfFrames="3")
    packed = dcmread(write(ds))
    packed.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    assert np.array_equal(decode(write(packed, JPEGLSLossless)).frames, frames)


@pytest.mark.req("R-INTAKE-12")
def test_one_changed_pixel_is_another_picture_in_any_syntax(ct, write):
    values = scene()
    native = write(ct_of(ct, values))
    values[10, 10] += 1
    packed = dcmread(write(ct_of(ct, values)))
    packed.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    assert not same_pixels(native, write(packed, JPEG2000Lossless))
    assert not same_pixels(native, write(ct_of(ct, values[:-1])))


@pytest.mark.req("R-INTAKE-15")
@pytest.mark.parametrize(
    "syntax",
    [
        b"1.2.840.10008.1.2.4.51",  # JPEG Extended, 12 bit
        b"1.2.840.113619.5.9\0\0\0\0",  # private
        b"1.2.840.10008.1.2.8.1\0",  # deflated frames
        b"1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2
    ],
)
def test_what_no_decoder_reads_cannot_be_decoded(ct, write, syntax):
    ds = ct_of(ct, scene(), BitsStored=12, HighBit=11)
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    path = write(ds, JPEGBaseline8Bit)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.50", syntax))
    assert read_header(path).has_pixels
    assert refused(path) is Reason.CANNOT_DECODE


@pytest.mark.req("R-INTAKE-15")
@pytest.mark.parametrize("syntax", list(ENCODERS))
def test_a_code_stream_that_is_cut_or_rubbish_cannot_be_decoded(ct, write, syntax):
    for code in (b"\0\0", b"rubbish rubbish!", bytes(64)):
        ds = ct_of(ct, scene())
        ds.PixelData = encapsulate([code])
        assert refused(write(ds, syntax)) is Reason.CANNOT_DECODE


@pytest.mark.parametrize(
    "change",
    [
        {"Rows": 0},
        {"Rows": 65535, "Columns": 65535},
        {"NumberOfFrames": "2"},
        {"NumberOfFrames": "2147483647"},
        {"BitsAllocated": 12},
        {"BitsStored": 17},
        {"SamplesPerPixel": 2},
        {"PixelRepresentation": 7},
        {"Columns": None},
        {"PixelData": None},
    ],
)
def test_attributes_that_do_not_fit_are_refused_before_anything_is_decoded(ct, write, change):
    ds = ct_of(ct, scene())
    for keyword, value in change.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    assert refused(write(ds)) is Reason.CANNOT_DECODE


def test_a_huge_picture_in_a_few_bytes_is_not_allocated(ct, write):
    ds = ct(Rows=60_000, Columns=60_000)
    ds.PixelData = encapsulate([b"\xff\x4f\xff\x51tiny"])
    with pytest.raises(NotAnalysable, match="larger than 1024 MiB"):
        decode(write(ds, JPEG2000Lossless))


def test_padding_after_the_last_frame_is_harmless_but_another_frame_is_not(ct, write):
    values = scene()
    ds = ct_of(ct, values)
    ds.PixelData = values.tobytes() + bytes(128)
    assert np.array_equal(decode(write(ds)).frames[0], values)
    ds.PixelData = values.tobytes() * 2
    assert refused(write(ds)) is Reason.CANNOT_DECODE


@pytest.mark.req("R-TRIAGE-08")
@pytest.mark.parametrize("signed", [True, False])
def test_overlay_bits_above_bits_stored_are_no_pixels(ct, write, signed):
    values = np.clip(scene(), -2000, 2000) if signed else np.clip(scene() + 1000, 0, 4095)
    words = (values.astype(np.int32) & 0x0FFF).astype(np.uint16)
    words[5:20, 5:20] |= 0xA000
    ds = ct_of(ct, words, BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    assert np.array_equal(decode(write(ds)).frames[0], values)
    shifted = ct_of(ct, words << 4, BitsStored=12, HighBit=15, PixelRepresentation=int(signed))
    assert np.array_equal(decode(write(shifted)).frames[0], values)


@pytest.mark.req("R-TRIAGE-08")
def test_hounsfield_units_use_the_slope_and_intercept_of_the_slice(ct, write):
    values = scene()
    assert np.array_equal(hu_slices(write(ct_of(ct, values))).hu[0], np.clip(values - 1024, -1024, None))
    halved = hu_slices(write(ct_of(ct, values, RescaleSlope="0.5", RescaleIntercept="10.2"))).hu[0]
    assert np.abs(halved - np.clip(0.5 * values + 10.2, -1024, None)).max() <= 0.5


@pytest.mark.req("R-TRIAGE-08")
def test_what_lies_outside_the_field_of_view_is_air(ct, write):
    values = scene()
    values[:8] = -2000
    ds = ct_of(ct, values, RescaleIntercept="0", PixelPaddingValue=-2000)
    ds["PixelPaddingValue"].VR = "SS"
    hu = hu_slices(write(ds)).hu[0]
    assert set(np.unique(hu[:8])) == {-1024}
    assert hu.min() == -1024


@pytest.mark.req("R-TRIAGE-08")
def test_padding_is_taken_out_before_the_rescale_and_beyond_bits_stored(ct, write):
    values = np.full((64, 48), 1064, np.uint16)
    values[:8] = 63536  # -2000 in 16 bits, beside 12 bits stored without sign
    changes = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11}
    plain = hu_slices(write(ct_of(ct, values, **changes))).hu[0]
    assert plain[0, 0] != -1024  # without the declaration it is a number like any other
    ds = ct_of(ct, values, PixelPaddingValue=63536, **changes)
    hu = hu_slices(write(ds)).hu[0]
    assert set(np.unique(hu[:8])) == {-1024}
    assert set(np.unique(hu[8:])) == {40}


@pytest.mark.req("R-TRIAGE-08")
def test_a_range_of_padding_values_is_padding(ct, write):
    values = scene()
    values[:4], values[4:8] = -2000, -1990
    ds = ct_of(ct, values, RescaleIntercept="1000", PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990)
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        ds[keyword].VR = "SS"
    assert set(np.unique(hu_slices(write(ds)).hu[0, :8])) == {-1024}


@pytest.mark.req("R-TRIAGE-07")
def test_each_frame_of_an_enhanced_ct_has_its_own_place_and_rescale(enhanced_ct, write):
    frames = np.stack([np.full((16, 12), 100, np.int16)] * 3)
    positions = [(0.0, 0.0, 10.0), (0.0, 0.0, 5.0), (0.0, 0.0, 0.0)]
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        path = write(enhanced_ct(frames, positions, [-1024, -60, 0]), syntax)
        slices = hu_slices(path)
        assert [int(hu[0, 0]) for hu in slices.hu] == [-924, 40, 100]
        assert [place.position for place in slices.places] == positions
        assert {place.thickness_mm for place in slices.places} == {2.5}
        assert slices.pixel_spacing_mm == (0.5, 0.6)
        assert frames_of_enhanced(path) == slices.places


@pytest.mark.parametrize(
    "change",
    [
        {"RescaleSlope": None},
        {"RescaleIntercept": None},
        {"RescaleSlope": "0"},
        {"RescaleType": "EDW"},
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": None},
        {"PixelSpacing": None},
    ],
)
def test_a_ct_without_hounsfield_units_or_place_is_out_of_the_envelope(ct, write, change):
    assert refused(write(ct(**change)), hu_slices) is Reason.OUT_OF_ENVELOPE


def test_frames_of_different_pixel_spacing_are_no_volume(enhanced_ct, write):
    ds = enhanced_ct(np.zeros((2, 16, 12), np.int16), [(0, 0, 0), (0, 0, 5)], [0, 0])
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    for group, spacing in zip(ds.PerFrameFunctionalGroupsSequence, ([0.5, 0.6], [0.5, 0.7]), strict=True):
        group.PixelMeasuresSequence = copy.deepcopy(measures)
        group.PixelMeasuresSequence[0].PixelSpacing = spacing
    with pytest.raises(NotAnalysable, match="differ in Pixel Spacing"):
        hu_slices(write(ds))


def test_a_frame_without_a_position_is_out_of_the_envelope(enhanced_ct, write):
    ds = enhanced_ct(np.zeros((2, 16, 12), np.int16), [(0, 0, 0), (0, 0, 5)], [0, 0])
    del ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    path = write(ds)
    assert refused(path, hu_slices) is Reason.OUT_OF_ENVELOPE
    assert refused(path, frames_of_enhanced) is Reason.OUT_OF_ENVELOPE


RAMP = np.arange(64 * 48).reshape(64, 48)


@pytest.mark.req("R-TRIAGE-08")
def test_an_x_ray_without_a_window_shows_its_whole_range(ct, write):
    image = xray_image(write(xray_of(ct, RAMP)))
    assert image.dtype == np.float32
    assert np.allclose(image, RAMP / RAMP.max())


@pytest.mark.req("R-TRIAGE-08")
@pytest.mark.parametrize("shape", [None, "INVERSE"])
def test_monochrome1_is_turned_over_once(ct, write, shape):
    changes = {} if shape is None else {"PresentationLUTShape": shape}
    image = xray_image(write(xray_of(ct, RAMP, PhotometricInterpretation="MONOCHROME1", **changes)))
    assert np.allclose(image, 1 - RAMP / RAMP.max(), atol=1e-5)


@pytest.mark.req("R-TRIAGE-08")
@pytest.mark.fault("T32")
@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")])
def test_a_polarity_that_contradicts_itself_is_not_guessed(ct, write, photometric, shape):
    path = write(xray_of(ct, RAMP, PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    assert refused(path, xray_image) is Reason.OUT_OF_ENVELOPE


@pytest.mark.req("R-TRIAGE-08")
def test_the_first_window_is_used_as_the_standard_writes_it(ct, write):
    ds = xray_of(ct, RAMP, WindowCenter=["1000", "9"], WindowWidth=["401", "9"])
    image = xray_image(write(ds))
    assert (image[RAMP <= 799].max(), image[RAMP >= 1200].min()) == (0, 1)
    assert image[RAMP == 1000][0] == pytest.approx((1000 - 999.5) / 400 + 0.5)
    ds.VOILUTFunction = "LINEAR_EXACT"
    assert xray_image(write(ds))[RAMP == 1000][0] == pytest.approx(0.5)
    ds.VOILUTFunction = "SIGMOID"
    assert xray_image(write(ds))[RAMP == 1100][0] == pytest.approx(1 / (1 + np.exp(-4 * 100 / 401)))


@pytest.mark.req("R-TRIAGE-08")
def test_rescale_comes_before_the_window(ct, write):
    ds = xray_of(ct, RAMP, RescaleSlope="2", RescaleIntercept="-100", WindowCenter="2000", WindowWidth="1001")
    image = xray_image(write(ds))
    assert image[RAMP == 1050][0] == pytest.approx((2000 - 1999.5) / 1000 + 0.5)


def lut(entries, first, bits, vr="US"):
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries) % 65536, first, bits])
    value = list(entries) if vr == "US" else np.asarray(entries, "<u2").tobytes()
    item.add_new(0x00283006, vr, value)
    return Sequence([item])


@pytest.mark.req("R-TRIAGE-08")
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_voi_lut_comes_before_a_window_and_holds_its_ends(ct, write, syntax):
    ds = xray_of(ct, RAMP, WindowCenter="5", WindowWidth="5", VOILUTSequence=lut([0, 1023, 4095], 100, 12))
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = RAMP.astype(">u2").tobytes()
    image = xray_image(write(ds, syntax))
    assert [image[value == RAMP][0] for value in (0, 100, 101, 102, 3000)] == pytest.approx(
        [0, 0, 1023 / 4095, 1, 1], abs=1e-6
    )


@pytest.mark.req("R-TRIAGE-08")
def test_a_modality_lut_comes_before_all_else(ct, write):
    table = np.arange(4096)[::-1]
    ds = xray_of(ct, RAMP, ModalityLUTSequence=lut(table, 0, 12, vr="OW"))
    assert np.allclose(xray_image(write(ds)), 1 - RAMP / RAMP.max(), atol=1e-5)
    assert refused(write(ds), hu_slices) is Reason.OUT_OF_ENVELOPE


@pytest.mark.req("R-TRIAGE-08")
def test_padding_of_an_x_ray_is_black_and_does_not_stretch_the_range(ct, write):
    values = RAMP + 1000
    values[:8] = 65535
    ds = xray_of(ct, values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=65535)
    image = xray_image(write(ds))
    assert set(np.unique(image[:8])) == {0}
    assert image[8, 0] == 1


def test_a_broken_lut_cannot_be_decoded(ct, write):
    for item in (lut([1, 2], 0, 40), Sequence([Dataset()])):
        path = write(xray_of(ct, RAMP, VOILUTSequence=item))
        if item[0]:
            assert refused(path, xray_image) is Reason.CANNOT_DECODE


def test_colour_and_several_frames_are_no_x_ray(ct, write):
    rgb = np.zeros((16, 12, 3), np.uint8)
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    path = write(ct(rgb, PhotometricInterpretation="RGB", PixelRepresentation=0, **colour))
    assert refused(path, xray_image) is Reason.OUT_OF_ENVELOPE
    frames = write(xray_of(ct, np.stack([RAMP, RAMP]), NumberOfFrames="2"))
    assert refused(frames, xray_image) is Reason.OUT_OF_ENVELOPE


@pytest.mark.req("R-RESULT-04")
def test_a_picture_shows_the_window_in_eight_bits():
    hu = np.array([[-1024, 0, 40, 80, 3000]], np.int16)
    assert picture(hu, (40, 80)).tolist() == [[0, 0, 129, 255, 255]]
    assert picture(np.array([0.0, 0.5, 1.0, 2.0, np.float32(-1)])).tolist() == [0, 128, 255, 255, 0]


@pytest.mark.fault("T22")
def test_broken_attributes_end_in_a_reason_and_never_in_another_exception(ct, enhanced_ct, write, tmp_path, overwrite):
    chance = random.Random(5)
    frames = np.zeros((3, 16, 12), np.int16)
    lists = [
        write(ct_of(ct, scene())),
        write(xray_of(ct, RAMP, VOILUTSequence=lut([0, 1, 2], 0, 12), WindowCenter="1", WindowWidth="2")),
        write(enhanced_ct(frames, [(0, 0, z) for z in range(3)], [-1024, -1000, 0])),
    ]
    path, outcomes = tmp_path / "broken.dcm", set()
    for number in range(900):
        whole = lists[number % 3].read_bytes()
        data = bytearray(whole)
        for _ in range(chance.choice([1, 2, 6])):
            # The second half of the header, where the image attributes stand; code streams are the decoders' matter.
            data[chance.randrange(600, min(len(data), 1600))] = chance.randrange(256)
        overwrite(path, data)
        for read in (hu_slices, xray_image):
            try:
                read(path)
                outcomes.add("read")
            except NotAnalysable as refused_:
                outcomes.add(refused_.reason)
    assert outcomes == {"read", Reason.CANNOT_DECODE, Reason.OUT_OF_ENVELOPE}
