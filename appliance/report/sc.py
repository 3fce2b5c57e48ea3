"""Secondary Capture (PS3.3 A.8.1) of the key picture: for viewers that show nothing else, and never for diagnosis."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np
from highdicom import sc
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from appliance.report.maker import WithoutIdentity, coded, complete, origin, permitted_use
from appliance.report.request import NotBuildable, ReportCode, ReportRequest
from appliance.report.sources import Sources, orientation

#: "Not for diagnosis" in both languages, drawn once: OpenCV has no Chinese letters, and a box may have no font.
_BAND = "not-for-diagnosis.png"
#: A picture at least so wide has the band at its full size, a smaller one at half of it.
_WIDE = 1000
#: What was lost once stays lost (PS3.3 C.7.6.1.1.5).
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


class Capture(WithoutIdentity, sc.SCImage):
    """A secondary capture."""


def build_sc(request: ReportRequest, sources: Sources, codes: Mapping[str, ReportCode]) -> Capture:
    """Build the secondary capture of one analysis.

    Args:
        request: What the analysis said, of whom, of which images.
        sources: These images.
        codes: The table of coded concepts by name.

    Raises:
        NotBuildable: The source image has text burned in, which may be a name; or it or the picture cannot be read.
        ValueError: highdicom refuses a value; the message names it.
    """
    headers = [sources.header(uid) for uid in _shown(request)]
    source, burned_in = headers[0], {header.get("BurnedInAnnotation", "") for header in headers}
    if "YES" in burned_in:
        raise NotBuildable("the source image has text burned into its pixels, which may name the patient")
    pixels = banded(_picture(request.picture_path))
    made = Capture(
        pixel_array=pixels,
        photometric_interpretation="RGB" if pixels.ndim == 3 else "MONOCHROME2",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=request.identity.study_instance_uid,
        **origin(request, codes),
    )
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.PatientOrientation = orientation(source)
    # Type 2C where the body part may be one of a pair; the scanner knows better than we.
    made.Laterality = source.get("Laterality", "")
    # Type 3 (PS3.3 C.7.6.1): only the scanner knows; of what it does not say, as CR does not, nothing is promised.
    made.pop("BurnedInAnnotation", None)
    if burned_in == {"NO"}:
        made.BurnedInAnnotation = "NO"
    made.DerivationDescription = (
        f"Key picture of {request.package.name} {request.package_version}. Not for diagnosis."
        f" {' '.join(permitted_use(request))}"
    )
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [coded(codes["source_image"])]
    made.SourceImageSequence = [item]
    if source.get("LossyImageCompression") == "01":
        for keyword in _LOSSY:
            if keyword in source:
                made[keyword] = source[keyword]
    complete(made, request)
    return made


def banded(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture with the band above it, so that it hides no pixel; a picture narrower than the band gets sides.

    Args:
        picture: [H, W], or [H, W, 3] as RGB.
    """
    import cv2

    with resources.as_file(resources.files(__package__).joinpath("assets").joinpath(_BAND)) as path:
        band = _decoded(Path(path))
    if picture.shape[1] < _WIDE:
        band = np.asarray(cv2.resize(band, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    width = max(picture.shape[1], band.shape[1])
    rows = [_centred(band, width, int(band[0, 0])), _centred(picture, width, 0)]
    if picture.ndim == 3:
        rows[0] = np.repeat(rows[0][:, :, None], 3, axis=2)
    return np.concatenate(rows)


def _centred(image: NDArray[np.uint8], width: int, fill: int) -> NDArray[np.uint8]:
    missing = width - image.shape[1]
    sides = [(0, 0), (missing // 2, missing - missing // 2), (0, 0)]
    return np.pad(image, sides[: image.ndim], constant_values=fill)


def _picture(path: str) -> NDArray[np.uint8]:
    """[H, W], or [H, W, 3] as RGB."""
    picture = _decoded(Path(path)) if path else None
    if picture is None:
        raise NotBuildable("the result has no key picture")
    return np.ascontiguousarray(picture[:, :, ::-1]) if picture.ndim == 3 else picture


def _decoded(path: Path) -> NDArray[np.uint8]:
    import cv2

    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise NotBuildable(f"the key picture cannot be read from the spool: {error.strerror}") from error
    decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if decoded is None or decoded.dtype != np.uint8 or (decoded.ndim == 3 and decoded.shape[2] != 3):
        raise NotBuildable("the key picture is damaged")
    return np.asarray(decoded, np.uint8)


def _shown(request: ReportRequest) -> list[str]:
    """The image that the key picture shows: of the first flagged finding that names one, else it may be any of all."""
    known = [image.sop_instance_uid for image in request.images]
    named = [f.key_instances[0] for f in request.flagged if f.key_instances and f.key_instances[0] in known]
    return named[:1] or known
