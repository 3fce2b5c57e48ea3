"""Small valid objects, made with pydicom, and the folder they are written to."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_CLASS = "1.2.840.10008.5.1.4.1.1.2.1"


def ct_dataset(pixels=None, **changes):
    """One axial CT slice, 16 x 12, signed 16 bit, slope 1 and intercept -1024 unless changed."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CT_CLASS
    ds.SOPInstanceUID = "1.2.3.4.5"
    ds.StudyInstanceUID = "1.2.3.1"
    ds.SeriesInstanceUID = "1.2.3.2"
    ds.FrameOfReferenceUID = "1.2.3.3"
    ds.StudyDate = "20260101"
    ds.StudyTime = "101500"
    ds.AccessionNumber = "A1"
    ds.Modality = "CT"
    ds.Manufacturer = "Maker"
    ds.PatientName = "Wang^XiaoDong=王^小东"
    ds.PatientID = "P1"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "M"
    ds.BodyPartExamined = "HEAD"
    ds.SliceThickness = "5.0"
    ds.InstanceNumber = "7"
    ds.ImagePositionPatient = [-100, -100, 35.5]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [0.5, 0.6]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = 16, 12
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = "-1024", "1"
    if pixels is None:
        pixels = np.arange(16 * 12, dtype=np.int16).reshape(16, 12)
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def enhanced_ct_dataset(frames, positions, intercepts):
    """A multi-frame CT: slope, orientation and spacing are shared, position and intercept are of each frame."""
    ds = ct_dataset(frames, SOPClassUID=ENHANCED_CT_CLASS, NumberOfFrames=str(len(frames)))
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, keyword)
    del ds.RescaleIntercept, ds.RescaleSlope
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    shared.PixelMeasuresSequence = Sequence([_item(SliceThickness="2.5", PixelSpacing=[0.5, 0.6])])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for position, intercept in zip(positions, intercepts, strict=True):
        group = Dataset()
        group.PlanePositionSequence = Sequence([_item(ImagePositionPatient=list(position))])
        rescale = _item(RescaleIntercept=str(intercept), RescaleSlope="1", RescaleType="HU")
        group.PixelValueTransformationSequence = Sequence([rescale])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return ds


def _item(**attributes):
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


@pytest.fixture
def overwrite():
    """``overwrite(path, data)``, many times over: truncating to nothing first would make ext4 flush each time."""

    def overwrite(path, data):
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(data)
            file.truncate()

    return overwrite


@pytest.fixture
def write(tmp_path):
    """``write(ds, syntax)``: the path of a Part 10 file."""
    count = iter(range(1_000_000))

    def write(ds, syntax=ExplicitVRLittleEndian):
        path = tmp_path / f"{next(count)}.dcm"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID") or "1.2"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "1.2"
        dcmwrite(path, ds, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def ct():
    """``ct(pixels=None, **changes)``: one CT slice; ``None`` takes an attribute away."""
    return ct_dataset


@pytest.fixture
def enhanced_ct():
    """``enhanced_ct(frames, positions, intercepts)``: a multi-frame CT."""
    return enhanced_ct_dataset
