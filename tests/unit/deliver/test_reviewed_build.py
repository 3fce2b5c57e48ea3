"""From a signature to the object in the spool: built anew, it says what was signed and names what it replaces."""

from __future__ import annotations

import io

import pytest
import report_kit
from plan_kit import plan_for
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset

from appliance.deliver.build import ReportStage
from appliance.dicom.headers import read_header
from appliance.records import (
    Actor,
    ActorKind,
    AnalysisResult,
    DeliveryKind,
    FindingResult,
    Outcome,
    ReviewDecision,
    ReviewReason,
)
from appliance.report import child
from appliance.report.request import ReportCode, ReportFinding, ReportPackage
from appliance.store.ending import OwedResult
from appliance.store.review_rules import Draft
from appliance.store.reviews import ELSEWHERE, Reading

CT = "1.2.840.10008.5.1.4.1.1.2"
LI = Actor(kind=ActorKind.PERSON, name="李伟", role="radiologist")
BLEED = ReportFinding(
    id="bleed",
    code=ReportCode(value="50960005", scheme="SCT", meaning="Hemorrhage"),
    title="Suspected bleed",
    category=1,
)
PACKAGE = ReportPackage(
    name="head",
    title="Head",
    status="demonstrator",
    intended_use="detection",
    looked_for="Blood.",
    not_looked_for="Else.",
    findings=(BLEED,),
)


@pytest.fixture
def analysed(store, receive, tmp_path):
    """A study of one image with a finding; an SR is owed."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "1.2.3.4.1"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3", "1.2.3.4", "CT"
    ds.PatientName, ds.PatientID, ds.Rows, ds.Columns, ds.BitsAllocated = "Doe^Jane", "P1", 2, 2, 8
    ds.PixelData = b"\0" * 4
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    held = io.BytesIO()
    ds.save_as(held, enforce_file_format=True)
    (tmp_path / "in.dcm").write_bytes(held.getvalue())
    stored = store.studies.add_new(receive(read_header(tmp_path / "in.dcm"), data=held.getvalue()), ())
    (series,) = store.revisions.open_series()
    revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
    (analysis,) = store.analyses.route(stored.study_id, (revision_id,), (plan_for(revision_id),), (), lambda *_: ())
    finding = FindingResult(id="bleed", score=9.0, operating_point="d", threshold=1.0, flagged=True, category=1)
    owed = (OwedResult(destination="PACS", kind=DeliveryKind.SR),)
    store.analyses.finish(analysis, AnalysisResult(outcome=Outcome.FINDING, findings=(finding,)), owed)
    return stored.study_id


@pytest.fixture
def built(store):
    """``built()``: build and send what is owed; returns the newest report and its path."""

    def run_child(_module, document, _limits):
        return child.handle(document, lambda _: None)

    stage = ReportStage(
        store.deliveries, store.spool, {"head": PACKAGE}, evaluation=True, box_version="1", run_child=run_child
    )

    def make():
        assert stage.step()
        row = store.db.all("SELECT * FROM delivery WHERE kind = 'sr' ORDER BY id")[-1]
        assert (row["state"], row["error"]) == ("owed", "")
        store.deliveries.sent(row["id"], 0)
        path = store.spool.path(row["path"])
        return dcmread(path), path

    return make


@pytest.mark.req("R-REVIEW-03")
def test_each_signature_becomes_a_report_that_names_all_before_it(store, analysed, built, clock):
    first, _ = built()
    assert first.VerificationFlag == "UNVERIFIED"
    uids = [first.SOPInstanceUID]
    for draft in (
        Draft(decision=ReviewDecision.DISAGREE, reason=ReviewReason.ARTEFACT),
        Draft(decision=ReviewDecision.CANNOT_JUDGE),
        Draft(decision=ReviewDecision.AGREE),
    ):
        clock.advance(60)
        etag, reading = store.reviews.case(analysed).etag, Reading(seen={ELSEWHERE: 1})
        store.reviews.sign(analysed, draft, etag, LI, reading, organization="City Hospital")
        report, path = built()
        assert report_kit.dciodvfy_errors(path) == []
        assert report.VerificationFlag == (
            "UNVERIFIED" if draft.decision is ReviewDecision.CANNOT_JUDGE else "VERIFIED"
        )
        named = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert [item.ReferencedSOPInstanceUID for item in named] == uids[::-1]
        uids.append(report.SOPInstanceUID)
    assert len(set(uids)) == 4
    assert "李伟" in str(report.VerifyingObserverSequence[0].VerifyingObserverName)
