"""One analysis of a head CT, or of a chest X-ray, as a request for a report."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from appliance.dicom import codes
from appliance.records import (
    AnalysisResult,
    DeliveryKind,
    Detail,
    FindingResult,
    Identity,
    Measurement,
    Outcome,
    Reason,
    Region,
)
from appliance.report.request import (
    ReportCode,
    ReportFinding,
    ReportImage,
    ReportMeasurement,
    ReportPackage,
    ReportRequest,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
DX = "1.2.840.10008.5.1.4.1.1.1.1"


@pytest.fixture(scope="session")
def table():
    """The table of coded concepts, as the daemon hands it to the child."""
    return {
        name: ReportCode(value=code.code, scheme=code.scheme, meaning=code.meaning)
        for name, code in codes.table().items()
    }


def _concept(table, name):
    return table[name]


@pytest.fixture(scope="session")
def package(table):
    return ReportPackage(
        name="head-ct-hyperdensity",
        title="Head CT: hyperdense areas",
        status="demonstrator",
        intended_use="detection",
        looked_for="Hyperdense areas inside the skull, as of fresh bleeding.",
        not_looked_for="Anything else: fractures, infarcts, masses, bleeds under 1 ml.",
        findings=(
            ReportFinding(
                id="hyperdensity",
                code=table["intracranial_hemorrhage"],
                title="Suspected hyperdense area inside the skull",
                category=1,
                site=table["brain"],
                score_unit="ml",
                measurements=(ReportMeasurement(name="volume", code=table["volume"]),),
            ),
            ReportFinding(id="other", code=table["opacity"], title="Suspected opacity", category=3),
        ),
    )


@pytest.fixture
def make_finding():
    def make(**changes):
        fields = {
            "id": "hyperdensity",
            "score": 12.5,
            "operating_point": "default",
            "threshold": 1.0,
            "flagged": True,
            "category": 1,
            "measurements": (Measurement(name="volume", value=12.512345678, unit="ml", sd=0.4),),
            "key_instances": ("1.2.3.4.2", "1.2.3.4.1"),
            "regions": (
                Region(sop_instance_uid="1.2.3.4.2", kind="box", points=((10.0, 20.0), (30.0, 45.0))),
                Region(sop_instance_uid="1.2.3.4.1", kind="box", points=((0.0, 0.0), (511.0, 511.0))),
            ),
        }
        return FindingResult(**{**fields, **changes})

    return make


@pytest.fixture
def make_result(make_finding):
    def make(outcome=Outcome.FINDING, *findings, **changes):
        fields = {
            "outcome": outcome,
            "findings": findings or (make_finding(flagged=outcome is Outcome.FINDING),),
            "package_digest": "ab" * 32,
            "engine_digest": "cd" * 32,
            "backend": "onnxruntime",
            "precision": "fp32",
        }
        if outcome is Outcome.NOT_ANALYSED:
            fields |= {"reason": Reason.INCOMPLETE, "details": (Detail("slices 12 to 19 are missing"),), "findings": ()}
        return AnalysisResult(**{**fields, **changes})

    return make


@pytest.fixture
def make_request(package, make_result, tmp_path):
    def make(result=None, *, images=3, **changes):
        fields = {
            "kind": DeliveryKind.SR,
            "sop_instance_uid": "2.25.123456789",
            "predecessors": (),
            "output_path": str(tmp_path / "out.dcm"),
            "package": package,
            "package_version": "1.0.0",
            "box_version": "0.1.0",
            "picture_path": "",
            "masks_path": "",
            "result": result or make_result(),
            "late": False,
            "evaluation": False,
            "done_at": datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc),
            "identity": Identity(
                study_instance_uid="1.2.3",
                patient_id="P1",
                patient_name="Doe^Jane",
                patient_birth_date="19700102",
                patient_sex="F",
                accession_number="A1",
                study_id="S1",
                referring_physician_name="Roe^Richard",
            ),
            "study_description": "CT Head",
            "study_date": "20260304",
            "study_time": "050000",
            "patient_age": "056Y",
            "modality": "CT",
            "images": tuple(
                ReportImage(sop_instance_uid=f"1.2.3.4.{n}", series_instance_uid="1.2.3.4", path="")
                for n in range(1, images + 1)
            ),
        }
        return ReportRequest(**{**fields, **changes})

    return make


@pytest.fixture
def with_identity():
    """``with_identity(request, patient_name=...)``: the same request of somebody else."""

    def change(request, **changes):
        return dataclasses.replace(request, identity=dataclasses.replace(request.identity, **changes))

    return change


@pytest.fixture
def classes():
    """``classes(request)``: every image of the request is a CT image."""
    return lambda request, uid=CT: SimpleNamespace(
        sop_classes={image.sop_instance_uid: uid for image in request.images}, overlays={}
    )
