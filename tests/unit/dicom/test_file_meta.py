"""File meta information, held against pydicom's reader."""

from __future__ import annotations

from pydicom import dcmread
from pydicom.uid import CTImageStorage, JPEG2000Lossless

from appliance.dicom.file_meta import file_meta


def test_file_meta_information_makes_a_file_that_pydicom_reads(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(
        file_meta(
            sop_class_uid=CTImageStorage,
            sop_instance_uid="1.2.3",
            transfer_syntax=JPEG2000Lossless,
            calling_ae="CT",
            called_ae="SCANSIDE",
        )
        + b"\x08\0\x60\0CS\2\0CT"
    )

    ds = dcmread(path)

    assert ds.Modality == "CT"
    meta = ds.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CTImageStorage, "1.2.3")
    assert meta.TransferSyntaxUID == JPEG2000Lossless
    assert (meta.SourceApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == ("CT", "SCANSIDE")
    assert meta.FileMetaInformationGroupLength == path.stat().st_size - 132 - 12 - 10
    assert meta.ImplementationClassUID.is_valid
