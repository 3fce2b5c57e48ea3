"""What an analysis rests on and left behind, read from the spool as far as an object needs it; each file once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info
from pydicom.tag import Tag

from appliance.report.identity import empty_identity
from appliance.report.request import NotBuildable, ReportImage
from engines.overlay import Overlay, unpack

#: Where an image lies, how its pixels are to be shown and what must not be lost: nothing that names anybody, and
#: hardly a text, so that no character set of a scanner comes near an object of ours.
_TAGS = [
    Tag(keyword)
    for keyword in (
        *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "ImageType", "Modality"),
        *("FrameOfReferenceUID", "PositionReferenceIndicator", "ImagePositionPatient", "ImageOrientationPatient"),
        *("PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices", "PatientOrientation"),
        *("NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
        *("DimensionOrganizationSequence", "DimensionIndexSequence"),
        *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
        *("PixelRepresentation", "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
        *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape"),
        *("BodyPartExamined", "Laterality", "BurnedInAnnotation"),
        *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
    )
]


class Sources:
    """The analysed images by SOP Instance UID, in the order of the request, and the masks beside the result."""

    def __init__(self, images: Iterable[ReportImage], masks_path: str = "") -> None:
        """Nothing is read yet."""
        self._images = {image.sop_instance_uid: image for image in images}
        self._masks_path = masks_path
        self._headers: dict[str, Dataset] = {}

    @cached_property
    def sop_classes(self) -> dict[str, str]:
        """SOP Instance UID: SOP Class UID.

        Raises:
            NotBuildable: One of them cannot be read from the spool.
        """
        return {uid: _sop_class(image.path) for uid, image in self._images.items()}

    @cached_property
    def overlays(self) -> Mapping[str, Overlay]:
        """The masks by finding id; empty where the analysis left none.

        Raises:
            NotBuildable: They cannot be read from the spool.
        """
        if not self._masks_path:
            return {}
        try:
            return unpack(Path(self._masks_path).read_bytes())
        except OSError as error:
            raise NotBuildable(f"the masks of the result cannot be read from the spool: {error.strerror}") from error
        except ValueError as error:
            raise NotBuildable(f"the masks of the result are damaged: {error}") from error

    def header(self, sop_instance_uid: str) -> Dataset:
        """What of an image is no pixel and no name; raises as ``sop_classes``, and KeyError for another image."""
        if sop_instance_uid not in self._headers:
            path = self._images[sop_instance_uid].path
            try:
                ds = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            except (OSError, InvalidDicomError) as error:
                raise _unreadable(error) from error
            self._headers[sop_instance_uid] = ds
        return self._headers[sop_instance_uid]

    def image(self, sop_instance_uid: str) -> Dataset:
        """A header of one's own, as highdicom wants a source image: without anybody's identity.

        Raises:
            NotBuildable: As ``sop_classes``, or it is none of the analysed images.
        """
        if sop_instance_uid not in self._images:
            raise NotBuildable("a finding lies in an image that the analysis does not name")
        image = Dataset()
        image.update(self.header(sop_instance_uid))
        empty_identity(image)
        return image


def orientation(header: Dataset) -> list[str]:
    """Which way rows and columns run (PS3.3 C.7.6.1.1.1), as far as it is known; empty otherwise."""
    cosines = header.get("ImageOrientationPatient")
    if not cosines:
        return list(header.get("PatientOrientation") or [])
    directions = np.asarray(cosines, np.float64).reshape(2, 3)
    return [("LPH" if one.max() >= -one.min() else "RAF")[int(np.abs(one).argmax())] for one in directions]


def _sop_class(path: str) -> str:
    try:
        return str(read_file_meta_info(Path(path)).MediaStorageSOPClassUID)
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> NotBuildable:
    return NotBuildable(f"an image that was analysed cannot be read from the spool: {type(error).__name__}")
