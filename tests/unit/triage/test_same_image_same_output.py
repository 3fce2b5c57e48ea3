"""One image, however it is stored, gives one output: both polarities, every lossless syntax, two sessions.

X-ray packages and, for syntaxes, one of the CTs (decoding is the same for all of them) are held to it by the first of
their golden cases, written as DICOM and read by the worker's own functions; to two sessions every bundled package is.
"""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from appliance.simulate.dicomize import ct_series, save, xray
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Study
from appliance.simulate.syntaxes import EncoderMissing, encode
from appliance.triage.workbench import decode_and_prepare, finish
from engines.golden import golden_cases
from engines.package import bundled_packages, load_package
from engines.pipeline import Pipeline

PACKAGES = {name: load_package(folder, trusted=True) for name, folder in bundled_packages().items()}
X_RAY = [name for name, one in PACKAGES.items() if set(one.manifest.inputs[0].input.modality) <= {"CR", "DX"}]
#: Of the CTs the one whose golden case has few slices.
CT = "head-ct-hyperdensity"
SYNTAXES = {
    "RLE": RLELossless,
    "JPEG lossless": JPEGLossless,
    "JPEG lossless SV1": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
    "HTJ2K": HTJ2KLossless,
    "implicit VR": ImplicitVRLittleEndian,
}
#: A head has many slices, and those encoders are slow.
CASES = [
    *((name, syntax) for name in X_RAY for syntax in SYNTAXES),
    *((CT, syntax) for syntax in ("JPEG-LS", "JPEG 2000", "HTJ2K")),
    *(pytest.param(CT, syntax, marks=pytest.mark.long) for syntax in ("RLE", "JPEG lossless", "JPEG lossless SV1")),
]


@pytest.fixture(scope="module")
def pipelines():
    opened = {}
    yield lambda name: opened.setdefault(name, Pipeline(PACKAGES[name]))
    for pipeline in opened.values():
        pipeline.close()


def volume_of(name):
    case = next(golden_cases(PACKAGES[name]))
    ((role, volume),) = case.inputs.items()
    return role, volume


def film(name, photometric="MONOCHROME2"):
    """The first golden case of an X-ray package as a DX image that its envelope takes."""
    _, volume = volume_of(name)
    (picture,) = volume.array
    phantom = Phantom(kind="chest_xray", pixels=picture.astype(np.uint16), spacing_mm=volume.spacing_mm)
    ds = xray(
        phantom,
        Study(seed=f"same/{name}"),
        sop_class_uid=DigitalXRayImageStorageForPresentation,
        photometric=photometric,
    )
    envelope = PACKAGES[name].manifest.inputs[0].input.envelope
    ds.BodyPartExamined = envelope.body_parts[0]
    ds.ProtocolName = ds.SeriesDescription = envelope.body_parts[0].lower()
    least = envelope.age_years.min if envelope.age_years else 0
    ds.PatientAge = f"{int(least or 0) + 1:03d}Y"
    return ds


def head():
    _, volume = volume_of(CT)
    phantom = Phantom(
        kind="head_ct",
        pixels=volume.array,
        spacing_mm=volume.spacing_mm,
        positions_mm=tuple((-80.0, -98.0, z) for z in volume.positions_mm),
        thickness_mm=7.5,
        instance_numbers=tuple(range(1, len(volume.array) + 1)),
    )
    return ct_series(phantom, Study(seed="same/head"))


def said(pipeline, datasets, folder):
    """The output, by the worker's functions, of what was written to files."""
    ((role, taken),) = pipeline.inputs.items()
    kind = "ct" if "CT" in taken.input.modality else "xray"
    pieces = [decode_and_prepare(path, kind, [pipeline]) for path in save(datasets, folder)]
    return finish({role: pieces}, pipeline).output


def stored(datasets, syntax):
    try:
        return [encode(ds, syntax) for ds in datasets]
    except EncoderMissing as error:
        return pytest.skip(str(error))


@pytest.mark.req("R-CXR-05")
@pytest.mark.req("R-MODEL-10")
@pytest.mark.parametrize("name", X_RAY)
def test_monochrome1_gives_what_its_monochrome2_equal_gives(pipelines, name, tmp_path):
    one, other = film(name), film(name, "MONOCHROME1")
    assert other.PhotometricInterpretation == "MONOCHROME1"
    assert np.array_equal(other.pixel_array, 4095 - one.pixel_array), "a header alone is no such pair"
    plain, inverse = said(pipelines(name), [one], tmp_path / "2"), said(pipelines(name), [other], tmp_path / "1")
    assert inverse.scores == pytest.approx(plain.scores, abs=1e-5)
    assert inverse.regions == plain.regions


@pytest.mark.req("R-MODEL-10")
@pytest.mark.parametrize(("name", "syntax"), CASES)
def test_one_image_gives_equal_output_in_every_lossless_syntax(pipelines, name, syntax, tmp_path):
    images = head() if name == CT else [film(name)]
    plain = said(pipelines(name), images, tmp_path / "plain")
    written = stored(images, SYNTAXES[syntax])
    assert {ds.file_meta.TransferSyntaxUID for ds in written} == {SYNTAXES[syntax]} != {ExplicitVRLittleEndian}
    assert repr(said(pipelines(name), written, tmp_path / "packed")) == repr(plain)
    if name == CT:
        assert min(plain.scores.values()) > 5, "there must be something to measure"


@pytest.mark.req("R-CXR-03")
@pytest.mark.req("R-MODEL-10")
@pytest.mark.parametrize("name", PACKAGES)
def test_two_sessions_of_one_package_say_the_same_to_the_last_bit(pipelines, name):
    role, volume = volume_of(name)
    with Pipeline(PACKAGES[name]) as another:
        one, other = (opened.run_volumes({role: volume}).output for opened in (pipelines(name), another))
    assert other.scores == one.scores
    assert repr(other) == repr(one)
