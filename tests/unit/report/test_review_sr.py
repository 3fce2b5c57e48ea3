"""What a radiologist signed, in report and statement: coded, attested, and absent only here."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone

import pytest
import report_kit
from pydicom import config, dcmread

from appliance.records import (
    Outcome,
    Presence,
    Region,
    ReviewDecision,
    ReviewedFinding,
    ReviewReason,
    Side,
    SignedReview,
)
from appliance.report.request import ReportPredecessor
from appliance.report.sr import build_sr
from appliance.report.statement import build_statement

ABSENT, PRESENT, UNDETERMINED = "272519000", "52101004", "373068000"


def said(presence=Presence.PRESENT, **more):
    fields = {"analysis_id": 1, "finding": "hyperdensity", "flagged": True, "is_right": presence is Presence.PRESENT}
    return ReviewedFinding(**{**fields, "presence": presence, **more})


def review(decision, *findings, reason=None, note="", reviewer="Li Wei", version=2):
    return SignedReview(
        version=version,
        decision=decision,
        reason=reason,
        note=note,
        reviewer=reviewer,
        role="radiologist",
        organization="市立医院 Radiology",
        signed_at=datetime(2026, 3, 4, 6, 7, 8, tzinfo=timezone.utc),
        findings=findings,
    )


BOX = Region(sop_instance_uid="1.2.3.4.3", kind="box", points=((5.0, 6.0), (25.0, 30.0)))
CASES = {
    "agree": review(ReviewDecision.AGREE, said()),
    "disagree": review(
        ReviewDecision.DISAGREE, said(Presence.ABSENT), reason=ReviewReason.ARTEFACT, note="Beam hardening"
    ),
    "old": review(ReviewDecision.DISAGREE, said(is_right=False), reason=ReviewReason.OLD_FINDING),
    "side and category": review(ReviewDecision.AMEND, said(side=Side.LEFT, category=2)),
    "region": review(ReviewDecision.AMEND, said(region=BOX)),
    "code": review(
        ReviewDecision.AMEND,
        said(Presence.ABSENT, is_right=False),
        said(finding="", code="nodule", added=True, flagged=False, is_right=None, side=Side.BOTH, region=BOX),
    ),
    "missed": review(
        ReviewDecision.AMEND, said(), said(finding="other", added=True, flagged=False, is_right=False, side=Side.RIGHT)
    ),
    "cannot judge": review(ReviewDecision.CANNOT_JUDGE, said(Presence.UNDETERMINED, is_right=None), reviewer="李伟"),
}


@pytest.fixture
def build(classes, table, tmp_path):
    def make(request):
        with config.disable_value_validation():
            report = build_sr(request, classes(request), table)
            path = tmp_path / "report.dcm"
            report.save_as(path, enforce_file_format=True)
        return dcmread(path), path

    return make


def walk(item):
    for child in item.get("ContentSequence", []):
        yield child
        yield from walk(child)


def concept(item):
    return item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""


def values(report, name):
    found = [item for item in walk(report) if concept(item) == name]
    return [
        item.ConceptCodeSequence[0].CodeValue if item.ValueType == "CODE" else item.get("TextValue") for item in found
    ]


@pytest.mark.req("R-REVIEW-03")
@pytest.mark.parametrize("case", CASES)
def test_every_decision_makes_a_report_that_dciodvfy_finds_nothing_wrong_with(build, make_request, case):
    before = ReportPredecessor(sop_instance_uid="2.25.1", study_instance_uid="1.2.3")
    report, path = build(make_request(review=CASES[case], predecessors=(before,)))
    assert report_kit.dciodvfy_errors(path) == []
    (named,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == "2.25.1"
    assert ", version 2." in values(report, "Human review")[0]


@pytest.mark.long  # some 5 s of processor time each
@pytest.mark.req("R-REVIEW-03", "R-REPORT-01")
@pytest.mark.parametrize("case", CASES)
def test_pixelmed_finds_no_error_in_the_report_of_any_decision(build, make_request, case):
    before = ReportPredecessor(sop_instance_uid="2.25.1", study_instance_uid="1.2.3")
    _, path = build(make_request(review=CASES[case], predecessors=(before,)))
    assert report_kit.pixelmed_errors(path) == []


def test_an_agreement_keeps_place_and_volume_and_is_verified_by_name(build, make_request):
    report, _ = build(make_request(review=CASES["agree"]))
    assert values(report, "Presence of property") == [PRESENT] * 2
    assert len([item for item in walk(report) if item.ValueType == "SCOORD"]) == 2
    assert [item for item in walk(report) if concept(item) == "Volume"]
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("VERIFIED", "FINAL")
    (observer,) = report.VerifyingObserverSequence
    assert observer.VerifyingObserverName == "Li Wei^"
    assert observer.VerifyingOrganization == "市立医院 Radiology"
    signed = CASES["agree"].signed_at.astimezone().strftime("%Y%m%d%H%M%S%z")
    assert str(observer.VerificationDateTime) == signed
    persons = [str(item.PersonName) for item in walk(report) if item.ValueType == "PNAME"]
    assert persons == ["Li Wei^"]


@pytest.mark.req("R-REVIEW-02")
def test_absent_is_written_where_a_person_signed_it_without_place_urgency_or_numbers(build, make_request):
    report, _ = build(make_request(review=CASES["disagree"]))
    assert values(report, "Presence of property") == [ABSENT]
    assert not [item for item in walk(report) if item.ValueType in {"SCOORD", "IMAGE", "NUM"}]
    assert values(report, "Actionable finding classification") == []
    assert values(report, "Human review")[0].startswith("Rejected by Li Wei (radiologist), 2026-03-04")
    assert "Artefact. Beam hardening" in values(report, "Human review")[0]


@pytest.mark.req("R-REVIEW-02")
def test_without_a_review_no_report_speaks_of_presence(build, make_request, make_result):
    for outcome in (Outcome.FINDING, Outcome.NOTHING_FLAGGED, Outcome.NOT_ANALYSED):
        report, _ = build(make_request(make_result(outcome)))
        assert values(report, "Presence of property") == []
        assert ABSENT not in str(report)
        assert report.VerificationFlag == "UNVERIFIED"


def test_nothing_flagged_and_signed_is_absent_and_the_packages_own_summary_stays(build, make_request, make_result):
    nothing = review(ReviewDecision.AGREE, said(Presence.ABSENT, flagged=False, is_right=True))
    report, path = build(make_request(make_result(Outcome.NOTHING_FLAGGED), review=nothing))
    assert values(report, "Presence of property") == [ABSENT]
    assert values(report, "CAD Processing and Findings Summary") == ["111241"]
    assert report_kit.dciodvfy_errors(path) == []


def test_an_old_finding_is_there_all_the_same(build, make_request):
    report, _ = build(make_request(review=CASES["old"]))
    assert values(report, "Presence of property") == [PRESENT] * 2
    assert "Old finding." in values(report, "Human review")[0]


def test_who_cannot_judge_verifies_nothing(build, make_request):
    report, _ = build(make_request(review=CASES["cannot judge"]))
    assert values(report, "Presence of property") == [UNDETERMINED]
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert "VerifyingObserverSequence" not in report


def test_a_persons_box_takes_the_place_of_the_packages_and_its_numbers(build, make_request):
    report, _ = build(make_request(review=CASES["region"]))
    (region,) = [item for item in walk(report) if item.ValueType == "SCOORD"]
    assert list(region.GraphicData) == [5, 6, 26, 6, 26, 31, 5, 31, 5, 6]
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.3"
    assert not [item for item in walk(report) if item.ValueType == "NUM"]


def test_side_and_category_are_coded_where_the_person_changed_them(build, make_request):
    report, _ = build(make_request(review=CASES["side and category"]))
    assert set(values(report, "Actionable finding classification")) == {"RID49481"}
    sites = [item for item in walk(report) if concept(item) == "Finding Site"]
    assert {item.ContentSequence[0].ConceptCodeSequence[0].CodeValue for item in sites} == {"7771000"}


def test_another_code_says_what_is_there_and_what_is_not(build, make_request):
    report, _ = build(make_request(review=CASES["code"]))
    assert values(report, "Finding") == ["1386000", "27925004"]
    assert values(report, "Presence of property") == [ABSENT, PRESENT]
    # The person's finding has no algorithm.
    assert values(report, "Algorithm Name") == ["head-ct-hyperdensity"]
    assert values(report, "Laterality") == ["51440002"]


def test_a_triage_packages_place_stays_untold_and_a_persons_is_told(build, make_request, package):
    triage = dataclasses.replace(package, intended_use="triage")
    agreed, _ = build(make_request(package=triage, review=CASES["agree"]))
    assert not [item for item in walk(agreed) if item.ValueType in {"SCOORD", "IMAGE"}]
    marked, _ = build(make_request(package=triage, review=CASES["region"]))
    assert len([item for item in walk(marked) if item.ValueType == "SCOORD"]) == 1


def test_a_cleared_package_is_no_longer_called_unverified(build, make_request, package):
    cleared = dataclasses.replace(package, status="cleared")
    (use,) = values(build(make_request(package=cleared, review=CASES["agree"]))[0], "Permitted use of this result")
    assert "that a person has reviewed" in use


def test_built_twice_it_is_the_same_object_and_it_passes_as_json(build, make_request):
    request = make_request(review=CASES["code"])
    assert json.loads(json.dumps(request.to_json()))["review"]["signed_at"] == "2026-03-04T06:07:08+00:00"
    _, path = build(request)
    data = path.read_bytes()
    build(request)
    assert path.read_bytes() == data


@pytest.mark.req("R-REVIEW-03")
def test_the_statement_tells_the_review_and_a_refuted_finding_calls_nobody(make_request):
    told = build_statement(make_request(review=CASES["disagree"]))
    assert told["findings"][0]["flagged"]
    assert told["findings"][0]["refuted"]
    assert told["summary"].startswith("Rejected by Li Wei")
    assert told["review"]["findings"][0]["presence"] == "absent"
    assert told["review"]["note"] == "Beam hardening"
    assert build_statement(make_request())["review"] is None
    assert not build_statement(make_request(review=CASES["agree"]))["findings"][0]["refuted"]


def test_a_reviewers_words_with_control_letters_are_text(build, make_request):
    hostile = review(ReviewDecision.AGREE, said(), note="a\x00b\nc", reviewer="Li=^Wei\x1b")
    report, path = build(make_request(review=hostile))
    assert report_kit.dciodvfy_errors(path) == []
    assert "\x1b" not in str(report)
    assert str(report.VerifyingObserverSequence[0].VerifyingObserverName) == "Li  Wei^"
