"""Phantoms as DICOM objects with full, valid headers: CT series, Enhanced CT, localizer, DX and CR.

Every object is built native, explicit VR little endian, and then written in the transfer syntax asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Study, describe, describe_acquisition, encode_text
from appliance.simulate.syntaxes import encode

#: Anatomic region codes (SNOMED CT, PS3.16 CID 4031) and the values of Body Part Examined that go with them.
REGIONS = {
    "HEAD": ("69536005", "Head"),
    "CHEST": ("816094009", "Chest"),
    "KNEE": ("72696002", "Knee"),
}
#: View codes (CID 4010) of View Position.
_VIEWS = {
    "PA": ("272479007", "SCT", "postero-anterior"),
    "AP": ("399348003", "SCT", "antero-posterior"),
}
_BODY_PARTS = {"head_ct": "HEAD", "chest_ct": "CHEST", "localizer": "HEAD", "chest_xray": "CHEST", "knee_xray": "KNEE"}


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 §8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def base(study: Study, sop_class_uid: UID, modality: str, series_number: int, instance_number: int) -> Dataset:
    """What every object of a study has: identity, series, equipment, SOP common, file meta information."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = study.uid("instance", series_number, instance_number)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    describe(ds, study)
    ds.Modality = modality
    ds.SeriesInstanceUID = study.uid("series", series_number)
    ds.SeriesNumber = series_number
    ds.InstanceNumber = instance_number
    return ds


def finish(ds: Dataset, study: Study, syntax: UID) -> Dataset:
    """Texts into their character set and pixels into their syntax: the last step of every builder."""
    encode_text(ds, study.charset)
    return encode(ds, syntax)


def ct_series(
    phantom: Phantom,
    study: Study,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    series_number: int = 2,
    series_description: str = "",
    protocol_name: str = "",
    kernel: str = "H31s",
    bits_stored: int = 12,
) -> list[Dataset]:
    """A CT phantom as a series of CT Image Storage, one object per slice, in order of position.

    ``bits_stored`` 12 writes unsigned values with Rescale Intercept -1024, 16 writes signed HU.
    """
    tilt_deg = float(np.degrees(-np.arcsin(phantom.orientation[5])))
    slices = []
    for k, (number, position) in enumerate(zip(phantom.instance_numbers, phantom.positions_mm, strict=True)):
        ds = base(study, CTImageStorage, "CT", series_number, number)
        _ct_series_tags(
            ds, phantom, study, description=series_description, protocol_name=protocol_name, tilt_deg=tilt_deg
        )
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.AcquisitionNumber = 1
        ds.ConvolutionKernel = kernel
        _plane(ds, phantom, position)
        ds.SliceLocation = _ds(position[2])
        ds.PixelSpacing = [_ds(value) for value in phantom.spacing_mm]
        _ct_pixels(ds, phantom.pixels[k], bits_stored)
        slices.append(finish(ds, study, syntax))
    return slices


def localizer_image(
    phantom: Phantom, study: Study, *, syntax: UID = ExplicitVRLittleEndian, series_number: int = 1
) -> Dataset:
    """A localizer phantom as CT Image Storage with Image Type LOCALIZER."""
    ds = base(study, CTImageStorage, "CT", series_number, 1)
    _ct_series_tags(ds, phantom, study, description="Topogram", protocol_name="")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.AcquisitionNumber = 1
    _plane(ds, phantom, phantom.positions_mm[0])
    ds.PixelSpacing = [_ds(value) for value in phantom.spacing_mm]
    _ct_pixels(ds, phantom.pixels, 12)
    return finish(ds, study, syntax)


def xray(
    phantom: Phantom,
    study: Study,
    *,
    syntax: UID = ExplicitVRLittleEndian,
    sop_class_uid: UID = DigitalXRayImageStorageForPresentation,
    photometric: str = "MONOCHROME2",
    bits_stored: int = 12,
    series_number: int = 1,
    view_position: str = "",
) -> Dataset:
    """An X-ray phantom as DX (for presentation) or CR; MONOCHROME1 stores the inverse, so that it looks the same."""
    is_dx = sop_class_uid != ComputedRadiographyImageStorage
    ds = base(study, sop_class_uid, "DX" if is_dx else "CR", series_number, 1)
    part = _BODY_PARTS[phantom.kind]
    chest = part == "CHEST"
    ds.BodyPartExamined = part
    ds.ViewPosition = view_position or ("PA" if chest else "AP")
    ds.SeriesDescription = f"{part.capitalize()} {ds.ViewPosition}"
    ds.ProtocolName = ds.SeriesDescription
    ds.ImageType = ["ORIGINAL", "PRIMARY"] + ([""] if is_dx else [])
    # The reader sees the patient face to face: columns run to his left, rows to his feet.
    ds.PatientOrientation = ["L", "F"]
    if not chest and not is_dx:
        ds.Laterality = "R"
    describe_acquisition(ds, study)
    ds.KVP = _ds(120 if chest else 60)
    ds.BurnedInAnnotation = "NO"
    ds.ImagerPixelSpacing = [_ds(value) for value in phantom.spacing_mm]
    if is_dx:
        _dx(ds, part, photometric)
    else:
        ds.PlateType = ""
    _xray_pixels(ds, phantom.pixels, photometric, bits_stored)
    return finish(ds, study, syntax)


def save(datasets: Iterable[Dataset], folder: Path, *, stem: str = "image") -> list[Path]:
    """Write each data set as a Part 10 file ``stem-0001.dcm`` and so on; the paths, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(datasets, 1):
        path = folder / f"{stem}-{number:04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _ds(value: float) -> str:
    """A number as DICOM's decimal string, at most 16 characters (PS3.5 §6.2)."""
    return f"{value:.8g}"[:16]


def _ct_series_tags(
    ds: Dataset, phantom: Phantom, study: Study, *, description: str, protocol_name: str, tilt_deg: float = 0.0
) -> None:
    """Series, frame of reference and exposure of a CT object."""
    part = _BODY_PARTS[phantom.kind]
    ds.BodyPartExamined = part
    ds.SeriesDescription = description or f"{part.capitalize()} {phantom.thickness_mm:g}mm"
    ds.ProtocolName = protocol_name or f"{part.capitalize()} routine"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = study.uid("frame of reference")
    ds.PositionReferenceIndicator = ""
    describe_acquisition(ds, study)
    ds.KVP = "120"
    ds.XRayTubeCurrent = "250"
    ds.ExposureTime = "1000"
    ds.GantryDetectorTilt = _ds(tilt_deg)


def _plane(ds: Dataset, phantom: Phantom, position: Sequence[float]) -> None:
    ds.ImagePositionPatient = [_ds(value) for value in position]
    ds.ImageOrientationPatient = [_ds(value) for value in phantom.orientation]
    ds.SliceThickness = _ds(phantom.thickness_mm)


def _ct_pixels(ds: Dataset, hu: npt.NDArray[Any], bits_stored: int) -> None:
    signed = bits_stored == 16
    stored = hu.astype("<i2") if signed else (np.clip(hu, -1024, 3071).astype(np.int32) + 1024).astype("<u2")
    _pixels(ds, stored, bits_stored, "MONOCHROME2", signed=signed)
    ds.RescaleIntercept = "0" if signed else "-1024"
    ds.RescaleSlope = "1"
    if ds.get("ImageType")[2] != "LOCALIZER":
        ds.RescaleType = "HU"
    ds.WindowCenter, ds.WindowWidth = ("40", "80") if ds.BodyPartExamined == "HEAD" else ("40", "400")


def _xray_pixels(ds: Dataset, grey: npt.NDArray[Any], photometric: str, bits_stored: int) -> None:
    """Stretch 12 bits to ``bits_stored`` and turn the scale round for MONOCHROME1."""
    top = 2**bits_stored - 1
    stored = grey.astype(np.uint32) * top // 4095
    stored = top - stored if photometric == "MONOCHROME1" else stored
    _pixels(ds, stored.astype("<u2" if bits_stored > 8 else "u1"), bits_stored, photometric)
    ds.WindowCenter, ds.WindowWidth = _ds((top + 1) / 2), _ds(top + 1)


def _pixels(ds: Dataset, stored: npt.NDArray[Any], bits_stored: int, photometric: str, *, signed: bool = False) -> None:
    """Image Pixel module (PS3.3 C.7.6.3)."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = photometric
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated = stored.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = bits_stored, bits_stored - 1
    ds.PixelRepresentation = int(signed)
    data = stored.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated == 16 else "OB"


def _dx(ds: Dataset, part: str, photometric: str) -> None:
    """The modules of Digital X-Ray (PS3.3 A.26) beyond a plain image."""
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageLaterality = "U" if part == "CHEST" else "R"
    ds.AnatomicRegionSequence = [code(REGIONS[part][0], "SCT", REGIONS[part][1])]
    ds.DetectorType = "DIRECT"
    ds.DetectorID = "SIMDET1"
    ds.PositionerType = ""
    ds.ViewCodeSequence = [code(*_VIEWS[ds.ViewPosition])]
    upright = photometric == "MONOCHROME2"
    ds.PresentationLUTShape = "IDENTITY" if upright else "INVERSE"
    ds.PixelIntensityRelationship = "LOG"
    # -1: a higher value means less radiation, as where bone is stored bright.
    ds.PixelIntensityRelationshipSign = -1 if upright else 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.LossyImageCompression = "00"
    ds.AcquisitionContextSequence = []
