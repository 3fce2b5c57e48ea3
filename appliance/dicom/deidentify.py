"""An image without its patient (PS3.15 Annex E, Basic Application Confidentiality Profile), made by building anew.

Nothing is deleted from the scanner's data set: a new one is built, into which only attributes of a short list come,
each as a number, a UID that is replaced, or a word of a closed list. So no private element, no overlay, no text of a
scanner and no attribute that somebody invents tomorrow can come along. What cannot be proven is held back with its
reason: an image that may show text, a colour image (screens and reports are), compressed pixels (their streams have
room for comments). Dates and times are left out. UIDs follow from a key that is made for one export and then forgotten.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import math
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from appliance.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from appliance.errors import ApplianceError

#: What these hold is pixels and where they lie. Everything else is held back.
IMAGES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography Image Storage
        "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray Image Storage - For Presentation
        "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray Image Storage - For Processing
        "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    }
)
_PLAIN = frozenset({str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)})
#: Numbers: written from what was read as a number, never as text.
_WHOLE = (
    *("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("InstanceNumber", "SeriesNumber", "AcquisitionNumber", "NumberOfFrames", "PixelPaddingValue"),
)
_NUMBERS = (
    *("PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices", "SliceLocation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "WindowCenter"),
    *("WindowWidth", "KVP", "GantryDetectorTilt", "ExposureIndex", "TargetExposureIndex", "DeviationIndex"),
    "EstimatedRadiographicMagnificationFactor",
)
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
#: Words, and nothing but these.
_WORDS: dict[str, frozenset[str]] = {
    "Modality": frozenset({"CT", "CR", "DX", "RG"}),
    "PhotometricInterpretation": frozenset({"MONOCHROME1", "MONOCHROME2"}),
    "ImageType": frozenset({"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "VOLUME", "NONE"}),
    "BodyPartExamined": frozenset({"HEAD", "BRAIN", "SKULL", "CHEST", "LUNG", "HAND", "KNEE", "ABDOMEN", "NECK"}),
    "ViewPosition": frozenset({"AP", "PA", "LL", "RL", "LATERAL"}),
    "PatientPosition": frozenset({"HFS", "HFP", "FFS", "FFP", "HFDR", "HFDL", "FFDR", "FFDL"}),
    "PatientOrientation": frozenset({"L", "R", "A", "P", "H", "F", "AL", "PL", "AR", "PR"}),
    "Laterality": frozenset({"L", "R"}),
    "ImageLaterality": frozenset({"L", "R", "U", "B"}),
    "RescaleType": frozenset({"HU", "US"}),
    "VOILUTFunction": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
    "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
    "PixelIntensityRelationship": frozenset({"LIN", "LOG"}),
    "LossyImageCompression": frozenset({"00", "01"}),
}
#: Sequences that say where the frames of an enhanced image lie, built by the same lists (PS3.3 C.7.6.16).
_SEQUENCES = frozenset(
    {
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence"),
        *("PlanePositionSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence"),
        "FrameVOILUTSequence",
    }
)
_METHOD = "Scanside: rebuilt from an allow-list; PS3.15 Annex E Basic Profile"


class HeldBackError(ApplianceError):
    """That the image is free of its patient cannot be proven; the message says why, without a value of its header."""


class Deidentifier:
    """Makes images of one export. Equal identifiers become equal new ones; nothing leads back once it is gone."""

    def __init__(self, key: bytes | None = None) -> None:
        """Use a fresh key; tests give one."""
        self._key = key or secrets.token_bytes(32)

    def uid(self, uid: str) -> str:
        """The new UID of a UID (PS3.5 §B.2)."""
        digest = hmac.new(self._key, uid.encode(), hashlib.sha256).digest()
        return f"2.25.{int.from_bytes(digest[:16], 'big') >> 2}"

    def name(self, kind: str, identifier: str) -> str:
        """A short name for what an identifier stands for, as ``S-3f9ac2b1``."""
        return f"{kind}-{hmac.new(self._key, f'{kind}/{identifier}'.encode(), hashlib.sha256).hexdigest()[:8]}"

    def image(self, path: Path, subject: str) -> Dataset:
        """The image of a Part 10 file as one that may leave.

        Args:
            path: The file.
            subject: What stands for the patient.

        Raises:
            HeldBackError: It cannot be proven that nothing of the patient is left.
        """
        try:
            source = dcmread(path)
        except (OSError, InvalidDicomError, ValueError, NotImplementedError) as error:
            raise HeldBackError(f"the file cannot be read ({type(error).__name__})") from error
        _refuse(source)
        ds = self._rebuilt(source)
        ds.SOPClassUID = source.SOPClassUID
        ds.PatientID = ds.PatientName = subject
        for empty in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
            setattr(ds, empty, "")
        ds.ReferringPhysicianName = ds.Manufacturer = ""
        ds.BurnedInAnnotation, ds.PatientIdentityRemoved = "NO", "YES"
        ds.LongitudinalTemporalInformationModified = "REMOVED"
        ds.DeidentificationMethod = _METHOD[:64]
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
        code.CodeMeaning = "Basic Application Confidentiality Profile"
        ds.DeidentificationMethodCodeSequence = [code]
        ds.PixelData = _pixels(source)
        ds["PixelData"].VR = "OW" if source.BitsAllocated > 8 else "OB"
        return ds

    def write(self, ds: Dataset, path: Path) -> None:
        """Write it as Explicit VR Little Endian, with a file meta of our own."""
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = ds.SOPClassUID
        meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        ds.file_meta = meta
        ds.save_as(path, enforce_file_format=True)

    def _rebuilt(self, source: Dataset) -> Dataset:
        ds = Dataset()
        for keywords, read in ((_WHOLE, _whole), (_NUMBERS, _numbers), (_UIDS, self._new_uid)):
            for keyword in keywords:
                _copy(ds, source, keyword, read)
        for keyword, allowed in _WORDS.items():
            _copy(ds, source, keyword, functools.partial(_words, allowed))
        for keyword in _SEQUENCES:
            if keyword in source:
                setattr(ds, keyword, [self._rebuilt(item) for item in source[keyword].value])
        return ds

    def _new_uid(self, value: Any) -> str:
        return self.uid(str(value))


def _refuse(source: Dataset) -> None:
    """Raises HeldBackError for what is no plain grey image without text."""
    if str(source.get("SOPClassUID", "")) not in IMAGES:
        raise HeldBackError("it is not an image of a kind that is known to hold nothing but pixels")
    burned = str(source.get("BurnedInAnnotation", "")).strip().upper()
    if burned != "NO":
        said = "says that it may be" if burned else "does not say that it is not"
        raise HeldBackError(f"text may be burned into the pixels: the header {said} (0028,0301)")
    if str(source.get("RecognizableVisualFeatures", "")).strip().upper() == "YES":
        raise HeldBackError("the header says that the patient can be recognised (0028,0302)")
    if str(source.file_meta.get("TransferSyntaxUID", "")) not in _PLAIN:
        raise HeldBackError("its pixels are compressed, and such a stream has room for comments")
    if (
        source.get("SamplesPerPixel") != 1
        or source.get("PhotometricInterpretation") not in _WORDS["PhotometricInterpretation"]
    ):
        raise HeldBackError("it is not a grey image; screens and reports are saved in colour")
    if "PixelData" not in source:
        raise HeldBackError("it has no pixels")


def _pixels(source: Dataset) -> bytes:
    """The pixels that rows, columns and frames count, and no byte that follows them or that they do not use."""
    stored, allocated = int(source.BitsStored), int(source.BitsAllocated)
    if allocated not in {8, 16} or source.get("HighBit") != stored - 1:
        raise HeldBackError("its pixels are packed in an unusual way")
    size = int(source.Rows) * int(source.Columns) * int(source.get("NumberOfFrames") or 1) * allocated // 8
    data = bytes(source.PixelData)
    if len(data) < size:
        raise HeldBackError("it has fewer pixels than its header says")
    kept = data[:size]
    if stored < allocated and source.get("PixelRepresentation") == 0:
        high = kept[1::2] if allocated == 16 else kept
        spare = 0xFF & ~((1 << max(stored - (8 if allocated == 16 else 0), 0)) - 1)
        if any(byte & spare for byte in set(high)):
            raise HeldBackError("bits beside its pixels are used, as for an overlay")
    return kept + b"\0" * (size % 2)


def _copy(ds: Dataset, source: Dataset, keyword: str, read: Callable[[Any], Any]) -> None:
    """One attribute, if its value is what ``read`` takes; anything else is left out."""
    try:
        value = source.get(keyword)
        kept = read(value) if value is not None and value != "" else None
    except (ValueError, TypeError, OverflowError):
        kept = None
    if kept is not None:
        setattr(ds, keyword, kept)


def _whole(value: Any) -> int:
    return int(value)


def _numbers(value: Any) -> Any:
    several = [value] if isinstance(value, str | int | float) or not isinstance(value, Sequence) else list(value)
    read = [float(one) for one in several]
    if not read or len(read) > 6 or not all(map(math.isfinite, read)):
        return None
    # Twelve digits are more than any of these is known to, and fit a DS.
    shown = [float(f"{one:.9g}") for one in read]
    return shown if len(shown) > 1 else shown[0]


def _words(allowed: frozenset[str], value: Any) -> Any:
    several = [str(one).strip().upper() for one in ([value] if isinstance(value, str) else value)]
    kept = [one for one in several if one in allowed]
    if not kept or (len(kept) < len(several) and len(several) < 3):
        return None
    return kept if len(kept) > 1 else kept[0]
