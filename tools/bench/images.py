"""The images that are sent: phantoms made once, then given new UIDs as often as needed without encoding them again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from appliance.simulate.bleed import Bleed
from appliance.simulate.chest_xray import chest_xray
from appliance.simulate.dicomize import ct_series, xray
from appliance.simulate.head import HeadScan, head_ct
from appliance.simulate.part10 import meta_information
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Patient, Study

#: As many digits as are changed at the end of a UID; its length stays, so that no other byte moves.
_DIGITS = 8
#: As a chest X-ray from a detector of today, in pixels.
XRAY_MATRIX = 2048
SLICE_MM = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One object to send: the bytes of its data set in Explicit VR Little Endian."""

    sop_class_uid: str
    sop_instance_uid: str
    head: bytes
    #: The pixel data element, shared by all copies.
    pixels: bytes

    @property
    def data(self) -> bytes:
        """The whole data set."""
        return self.head + self.pixels

    @property
    def file(self) -> bytes:
        """As a Part 10 file."""
        return meta_information(self.sop_class_uid, self.sop_instance_uid, "1.2.840.10008.1.2.1") + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One study to send."""

    study_instance_uid: str
    images: tuple[Image, ...]


class Template:
    """A study of which any number can be made."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        """Encode every data set once."""
        self._study_uid = str(datasets[0].StudyInstanceUID)
        self._shared = {str(ds.SeriesInstanceUID) for ds in datasets} | {self._study_uid}
        self._images = [_encoded(ds) for ds in datasets]

    def study(self, number: int) -> Sample:
        """Study ``number``: the same pixels under UIDs of their own."""
        images = []
        for image in self._images:
            head = image.head
            for uid in (*self._shared, image.sop_instance_uid):
                head = head.replace(uid.encode(), _changed(uid, number).encode())
            sop_instance_uid = _changed(image.sop_instance_uid, number)
            images.append(dataclasses.replace(image, head=head, sop_instance_uid=sop_instance_uid))
        return Sample(study_instance_uid=_changed(self._study_uid, number), images=tuple(images))


@functools.lru_cache(maxsize=1)
def xray_template() -> Template:
    """A chest X-ray with the bright blob that the toy package looks for."""
    matrix = XRAY_MATRIX
    phantom = chest_xray(1, matrix=matrix)
    pixels = phantom.pixels.copy()
    rows, columns = np.ogrid[:matrix, :matrix]
    pixels[(rows - matrix * 0.4) ** 2 + (columns - matrix * 0.3) ** 2 < (matrix * 0.03) ** 2] = 4095
    study = Study(seed="bench/xray", patient=Patient(name="BENCH^Xray", patient_id="BENCH-X"))
    return Template([xray(dataclasses.replace(phantom, pixels=pixels), study)])


@functools.lru_cache(maxsize=1)
def ct_template(slices: int) -> Template:
    """A head CT of 512 x 512 with a bleed that the head package looks for."""
    scan = HeadScan(slices=slices, thickness_mm=SLICE_MM * 300 / slices, noise_hu=4, calcified_plexus=True)
    bleeds = [Bleed(kind="IPH", volume_ml=22, place="left basal ganglia")]
    phantom = head_ct(3, bleeds=bleeds, scan=scan)
    study = Study(seed="bench/ct", patient=Patient(name="BENCH^Head", patient_id="BENCH-CT"))
    return Template(ct_series(phantom, study))


def small_ct_template(slices: int) -> Template:
    """A chest CT of 16 x 16 that no package claims: for what depends on the number of objects alone."""
    phantom = Phantom(
        kind="chest_ct",
        pixels=np.zeros((slices, 16, 16), np.int16),
        spacing_mm=(20.0, 20.0),
        positions_mm=tuple((0.0, 0.0, float(k)) for k in range(slices)),
        thickness_mm=1.0,
        instance_numbers=tuple(range(1, slices + 1)),
    )
    return Template(ct_series(phantom, Study(seed="bench/small")))


def _encoded(ds: Dataset) -> Image:
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = False, True
    write_dataset(out, ds)
    data = out.getvalue()
    # Pixel data is the last element: tag, VR, two reserved bytes and length stand before its value.
    start = len(data) - len(ds.PixelData) - 12
    if data[start : start + 4] != b"\xe0\x7f\x10\x00":
        raise ValueError("pixel data is not the last element")
    return Image(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        head=data[:start],
        pixels=data[start:],
    )


def _changed(uid: str, number: int) -> str:
    return f"{uid[:-_DIGITS]}{number:0{_DIGITS}d}"
