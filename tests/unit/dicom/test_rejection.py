"""Rejection notes are read from header bytes: title and references, and nothing from any other object."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from appliance.dicom.headers import read_header
from appliance.records import RejectionTitle

KO = "1.2.840.10008.5.1.4.1.1.88.59"
CT = "1.2.840.10008.5.1.4.1.1.2"


def note(title="113001", scheme="DCM", uids=("1.2.1", "1.2.2"), sop_class=KO):
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, "1.2.9"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2", "1.3", "KO"
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = title, scheme, "Rejected"
    ds.ConceptNameCodeSequence = [name]
    ds.ContentSequence = []
    words = Dataset()
    words.RelationshipType, words.ValueType, words.TextValue = "CONTAINS", "TEXT", "by the technologist"
    ds.ContentSequence.append(words)
    for uid in uids:
        item, reference = Dataset(), Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, uid
        item.ReferencedSOPSequence = [reference]
        ds.ContentSequence.append(item)
    return ds


def written(path, ds, syntax=ExplicitVRLittleEndian):
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    return read_header(path)


@pytest.mark.req("R-REJECT-01")
@pytest.mark.parametrize("title", list(RejectionTitle))
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_note_names_its_title_and_every_instance_once(tmp_path, title, syntax):
    header = written(tmp_path / "a.dcm", note(str(title), uids=("1.2.1", "1.2.2", "1.2.1")), syntax)
    assert header.rejection.title is title
    assert header.rejection.sop_instance_uids == ("1.2.1", "1.2.2")


@pytest.mark.req("R-REJECT-01")
@pytest.mark.parametrize(
    "changes",
    [{"title": "113000"}, {"scheme": "99HOUSE"}, {"uids": ()}, {"sop_class": "1.2.840.10008.5.1.4.1.1.88.33"}],
)
def test_another_title_scheme_or_class_or_a_note_that_names_nothing_rejects_nothing(tmp_path, changes):
    assert written(tmp_path / "a.dcm", note(**changes)).rejection is None


def test_note_without_title_or_content_and_with_what_is_no_uid_is_read_all_the_same(tmp_path):
    bare = note()
    del bare.ConceptNameCodeSequence
    assert written(tmp_path / "a.dcm", bare).rejection is None
    empty = note()
    del empty.ContentSequence
    assert written(tmp_path / "b.dcm", empty).rejection is None
    with pytest.warns(UserWarning, match="Invalid value for VR UI"):
        odd = note(uids=("1.2.1", "../../etc"))
    assert written(tmp_path / "c.dcm", odd).rejection.sop_instance_uids == ("1.2.1",)
