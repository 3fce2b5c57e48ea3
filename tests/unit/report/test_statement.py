"""The result as plain values: it says what the SR says, and is built beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.records import DeliveryKind, Outcome
from appliance.report import child
from appliance.report.request import NotBuildable, ReportPredecessor
from appliance.report.statement import build_statement

pytestmark = pytest.mark.req("R-DELIVER-02")


def test_a_finding_is_told_with_its_code_its_urgency_and_its_measurements(make_request):
    told = build_statement(make_request())
    assert (told["schema"], told["outcome"], told["id"]) == (1, "FINDING", "2.25.123456789")
    assert told["patient"] == {
        "id": "P1",
        "issuer": "",
        "name": "Doe^Jane",
        "birth_date": "19700102",
        "sex": "F",
    }
    assert told["order"]["accession_number"] == "A1"
    assert told["study"]["study_instance_uid"] == "1.2.3"
    (finding,) = told["findings"]
    assert (finding["flagged"], finding["category"], finding["score"]) == (True, 1, 12.5)
    (volume,) = finding["measurements"]
    assert (volume["code"]["meaning"], volume["unit"], volume["value"]) == ("Volume", "ml", 12.512345678)
    assert "Suspected hyperdense area inside the skull" in told["summary"]
    assert told["looked_for"].startswith("Hyperdense")
    assert told["not_looked_for"].startswith("Anything else")
    assert told["permitted_use"] == ["Demonstration. Not for clinical use."]
    json.dumps(told)


def test_what_was_not_analysed_says_its_reason_and_nothing_is_called_absent(make_request, make_result):
    told = build_statement(make_request(make_result(Outcome.NOT_ANALYSED), evaluation=True, late=True))
    assert (told["outcome"], told["reason"]) == ("NOT_ANALYSED", "incomplete")
    assert told["reason_text"] == "The series is incomplete. slices 12 to 19 are missing"
    assert told["permitted_use"][0] == "Evaluation, not for patient care."
    assert "This result came late." in told["caveats"]
    quiet = json.dumps(build_statement(make_request(make_result(Outcome.NOTHING_FLAGGED)))).lower()
    for word in ("normal", "negative", "absent"):
        assert word not in quiet
    assert "not excluded" in quiet


def test_a_revision_names_what_it_replaces(make_request):
    earlier = ReportPredecessor(sop_instance_uid="2.25.1", study_instance_uid="1.2.3")
    assert build_statement(make_request(predecessors=(earlier,)))["predecessors"] == ["2.25.1"]


def test_a_finding_that_the_package_does_not_declare_is_not_told_by_guess(make_request, make_result, make_finding):
    with pytest.raises(NotBuildable, match="does not declare"):
        build_statement(make_request(make_result(Outcome.FINDING, make_finding(id="unknown"))))


def test_the_child_writes_it_without_reading_an_image(make_request):
    request = make_request(kind=DeliveryKind.STATEMENT)
    assert not any(Path(image.path).exists() for image in request.images if image.path)
    answer = child.handle({"jobs": [request.to_json()], "codes": {}}, lambda _: None)
    assert "error" not in answer["objects"][0]
    told = json.loads(Path(request.output_path).read_text("utf-8"))
    assert told == json.loads(json.dumps(build_statement(request)))
