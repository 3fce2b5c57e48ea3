"""Names from real files in every character set, through our header reader, into a report that validators accept."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
import report_kit
from pydicom import config, dcmread

from appliance.dicom import codes
from appliance.dicom.headers import read_header
from appliance.errors import RejectedInstance
from appliance.records import AnalysisResult, DeliveryKind, Outcome, Reason
from appliance.report.request import ReportCode, ReportImage, ReportPackage, ReportRequest
from appliance.report.sr import build_sr

PACKAGE = ReportPackage(
    name="head",
    title="Head",
    status="demonstrator",
    intended_use="detection",
    looked_for="Blood.",
    not_looked_for="Else.",
    findings=(),
)


def request_for(header, output):
    return ReportRequest(
        picture_path="",
        masks_path="",
        kind=DeliveryKind.SR,
        sop_instance_uid="2.25.5",
        predecessors=(),
        output_path=str(output),
        package=PACKAGE,
        package_version="1.0.0",
        box_version="0.1.0",
        result=AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.OUT_OF_ENVELOPE),
        late=False,
        evaluation=True,
        done_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        identity=header.identity,
        study_description=header.study_description,
        study_date=header.study_date,
        study_time=header.study_time,
        patient_age=header.patient_age,
        modality=header.modality,
        images=(
            ReportImage(
                sop_instance_uid=header.sop_instance_uid, series_instance_uid=header.series_instance_uid, path=""
            ),
        ),
    )


@pytest.mark.req("R-RESULT-01", "R-INTAKE-09")
def test_a_name_in_any_character_set_comes_out_right_and_the_report_is_valid(test_data, tmp_path):
    table = {
        name: ReportCode(value=code.code, scheme=code.scheme, meaning=code.meaning)
        for name, code in codes.table().items()
    }
    named = 0
    for path in sorted((test_data / "dicom_odd" / "charset").glob("*.dcm")):
        try:
            header = read_header(path)
        except RejectedInstance:
            continue
        # The sample files name no image; a report must name one.
        header = dataclasses.replace(
            header,
            sop_class_uid=header.sop_class_uid or "1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=header.sop_instance_uid or "1.2.3",
            series_instance_uid=header.series_instance_uid or "1.2.4",
            identity=dataclasses.replace(
                header.identity, study_instance_uid=header.identity.study_instance_uid or "1.2.5"
            ),
        )
        output = tmp_path / f"{path.stem}.dcm"
        request = request_for(header, output)
        sources = SimpleNamespace(sop_classes={header.sop_instance_uid: header.sop_class_uid})
        with config.disable_value_validation():
            build_sr(request, sources, table).save_as(output, enforce_file_format=True)
            report = dcmread(output)
            assert str(report.PatientName) == header.identity.patient_name, path.name
        named += any(ord(letter) > 127 for letter in header.identity.patient_name)
        assert report_kit.dciodvfy_errors(output) == [], path.name
    assert named >= 8
