"""The images that an analysis rests on, read from the spool as far as an object needs them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread, read_file_meta_info

from appliance.report.request import NotBuildable, ReportImage


class Sources:
    """The analysed images by SOP Instance UID, in the order of the request."""

    def __init__(self, images: Iterable[ReportImage]) -> None:
        """Nothing is read yet."""
        self._images = {image.sop_instance_uid: image for image in images}
        self._headers: dict[str, Dataset] = {}

    @cached_property
    def sop_classes(self) -> dict[str, str]:
        """SOP Instance UID: SOP Class UID.

        Raises:
            NotBuildable: One of them cannot be read from the spool.
        """
        return {uid: _sop_class(image.path) for uid, image in self._images.items()}

    def header(self, sop_instance_uid: str) -> Dataset:
        """The data set of one image without its pixels; raises as ``sop_classes``, and KeyError for another image."""
        if sop_instance_uid not in self._headers:
            path = self._images[sop_instance_uid].path
            try:
                self._headers[sop_instance_uid] = dcmread(path, stop_before_pixels=True)
            except (OSError, InvalidDicomError) as error:
                raise _unreadable(error) from error
        return self._headers[sop_instance_uid]


def _sop_class(path: str) -> str:
    try:
        return str(read_file_meta_info(Path(path)).MediaStorageSOPClassUID)
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> NotBuildable:
    return NotBuildable(f"an image that was analysed cannot be read from the spool: {type(error).__name__}")
