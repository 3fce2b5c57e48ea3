"""Real test data (never part of the repository) in the shapes that tests need: wrapped, minted, or as it is.

Every function takes the folder of the fixture ``test_data``.
"""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from pydicom import dcmread

from appliance.simulate.dicomize import ct_series, save, xray
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Order, Patient, Study


def dicom_files(test_data):
    """Every DICOM file there is, odd ones too, sorted; what is no DICOM (tables, NIfTI, JPEG) is left out."""
    folders = sorted(folder for folder in test_data.iterdir() if folder.name.startswith("dicom_"))
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if path.suffix not in {".csv", ".md", ".txt", ".gz"}]


def siemens_series(test_data, folder):
    """The real Siemens body series (20 slices, J2K lossless) with the UIDs that its files lack; paths in order."""
    study = Study(seed="siemens_body_j2k")
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted((test_data / "dicom_ct" / "siemens_body_j2k").glob("*.dcm")):
        ds = dcmread(source)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID
        ds.SOPInstanceUID = study.uid("instance", source.name)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.StudyInstanceUID = study.study_instance_uid
        ds.SeriesInstanceUID = study.uid("series", 1)
        path = folder / source.name
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def ct1_under_one_uid(test_data, folder):
    """The CT1 slice in five syntaxes, three without loss, given one SOP Instance UID: as archives convert; paths."""
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(seed="ct1_under_one_uid")
    paths = []
    for name in ("JLSL", "JPLL", "RLE", "J2KI", "JLSN"):
        ds = dcmread(test_data / "dicom_ct" / "single" / f"CT1_{name}.dcm")
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = study.uid("instance")
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study.study_instance_uid, study.uid("series")
        paths.append(folder / f"CT1_{name}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def nifti_series(test_data, folder):
    """The real thorax-abdomen CT (NIfTI, 3 mm) as a CT series; paths from the pelvis to the lung bases."""
    import nibabel

    image = nibabel.load(test_data / "dicom_ct" / "totalseg_example_ct.nii.gz")
    columns, rows, _ = image.shape
    # NIfTI's axes point right and forwards, DICOM's left and backwards (LPS): both are turned round.
    hu = np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    step = np.diag(image.affine)[:3]
    far = image.affine @ (columns - 1, rows - 1, 0, 1)
    phantom = Phantom(
        kind="chest_ct",
        pixels=np.ascontiguousarray(hu).astype(np.int16),
        spacing_mm=(float(step[1]), float(step[0])),
        positions_mm=tuple((-float(far[0]), -float(far[1]), float(far[2] + k * step[2])) for k in range(len(hu))),
        thickness_mm=float(step[2]),
        instance_numbers=tuple(range(1, len(hu) + 1)),
    )
    study = Study(seed="totalseg_example_ct", order=Order(study_description="CT abdomen"))
    series = ct_series(phantom, study, bits_stored=16, series_description="Abdomen 3mm", protocol_name="Abdomen")
    for ds in series:
        ds.BodyPartExamined = "ABDOMEN"
    return save(series, folder)


def nih_labels(test_data):
    """The rows of cxr_nih/labels.csv as dicts (text-mined findings: no ground truth)."""
    with (test_data / "cxr_nih" / "labels.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def nih_xray(test_data, row, folder, **options):
    """One NIH chest X-ray as DX; ``row`` is one of ``nih_labels``, ``options`` go to ``dicomize.xray``."""
    grey = cv2.imread(str(test_data / "cxr_nih" / row["file"]), cv2.IMREAD_GRAYSCALE)
    phantom = Phantom(kind="chest_xray", pixels=grey.astype(np.uint16) * 16, spacing_mm=(0.7, 0.7))
    patient = Patient(
        name=f"NIH^{row['patient_id']}",
        patient_id=f"NIH-{row['patient_id']}",
        birth_date="",
        sex=row["sex"],
        age=f"{int(float(row['age'])):03d}Y",
    )
    study = Study(seed=f"nih/{Path(row['file']).stem}", patient=patient)
    ds = xray(phantom, study, view_position=row["view"], **options)
    return save([ds], folder, stem=Path(row["file"]).stem)[0]
