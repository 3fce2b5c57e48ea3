"""The rejection note of ours: which objects it names, under which title, of whom."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import report_kit
from built_kit import CLASSES
from highdicom import ko
from pydicom import dcmread

from appliance.dicom.headers import read_header
from appliance.records import DeliveryKind, RejectionTitle
from appliance.report.request import ReportObject
from appliance.report.sr import build_sr

NOTE = DeliveryKind.REJECTION_NOTE
ALL = (DeliveryKind.SR, DeliveryKind.SEG, DeliveryKind.GSPS, DeliveryKind.KO, DeliveryKind.SC)


@pytest.fixture
def make_note(make_request):
    def make(*kinds, **changes):
        rejected = tuple(
            ReportObject(kind=kind, sop_class_uid=CLASSES[kind], sop_instance_uid=f"2.25.88{n}")
            for n, kind in enumerate(kinds)
        )
        return make_request(kind=NOTE, images=0, modality="", patient_age="", rejected=rejected, **changes)

    return make


def objects_named(ds):
    """SOP Instance UID: how the content tree refers to it."""
    return {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID): item.ValueType
        for item in ds.ContentSequence
        if item.ValueType in {"IMAGE", "COMPOSITE"}
    }


@pytest.mark.req("R-REPORT-11")
def test_note_names_each_object_in_tree_and_evidence_under_the_title_that_hides_it(make_note):
    request = make_note(*ALL)
    ds = report_kit.built({NOTE: request})[NOTE]
    title = ds.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == (str(RejectionTitle.PATIENT_SAFETY), "DCM")
    assert objects_named(ds) == {
        "2.25.880": "COMPOSITE",
        "2.25.881": "IMAGE",
        "2.25.882": "COMPOSITE",
        "2.25.883": "COMPOSITE",
        "2.25.884": "IMAGE",
    }
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == ds.StudyInstanceUID == request.identity.study_instance_uid
    listed = [one for series in study.ReferencedSeriesSequence for one in series.ReferencedSOPSequence]
    assert {one.ReferencedSOPInstanceUID: one.ReferencedSOPClassUID for one in listed} == {
        one.sop_instance_uid: one.sop_class_uid for one in request.rejected
    }
    words = [item.TextValue for item in ds.ContentSequence if item.ValueType == "TEXT"][-1]
    told = "Demonstration. Not for clinical use. These objects tell a result that holds no longer. Do not use them."
    assert words == told


@pytest.mark.req("R-REPORT-11")
def test_note_names_objects_in_the_series_that_they_were_sent_in_and_stands_in_another(
    make_note, make_request, classes, table
):
    request = make_request()
    sent = build_sr(request, classes(request), table)
    ds = report_kit.built({NOTE: make_note(DeliveryKind.SR)})[NOTE]
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == sent.SeriesInstanceUID != ds.SeriesInstanceUID
    assert (ds.Modality, ds.SeriesNumber, ds.InstanceNumber) == ("KO", 9906, 1)
    assert ds.SeriesDescription == "Scanside: rejects head-ct-hyperdensity"
    other = dataclasses.replace(make_note(DeliveryKind.SR), sop_instance_uid="2.25.5")
    assert report_kit.built({NOTE: other})[NOTE].SeriesInstanceUID != ds.SeriesInstanceUID


@pytest.mark.req("R-REPORT-11")
@pytest.mark.parametrize("kinds", [ALL, (DeliveryKind.GSPS,), (DeliveryKind.SEG,)])
def test_note_is_valid_and_is_read_by_others_and_by_us(make_note, dcmtk, kinds):
    request = make_note(*kinds)
    report_kit.built({NOTE: request})
    assert report_kit.dciodvfy_errors(request.output_path) == []
    assert report_kit.dsrdump_complaints(dcmtk("dsrdump"), request.output_path) == []
    read = ko.KeyObjectSelectionDocument.from_dataset(dcmread(request.output_path))
    named = [one.referenced_sop_instance_uid for one in read.content.get_references()]
    assert named == [one.sop_instance_uid for one in request.rejected]
    rejection = read_header(Path(request.output_path)).rejection
    assert (rejection.title, list(rejection.sop_instance_uids)) == (RejectionTitle.PATIENT_SAFETY, named)


@pytest.mark.req("R-REPORT-11", "R-REPORT-01")
def test_pixelmed_finds_no_error_in_a_note(make_note):
    request = make_note(*ALL)
    report_kit.built({NOTE: request})
    assert report_kit.pixelmed_errors(request.output_path) == []
