"""Which packages apply, which series each prefers, what the declared envelope refuses."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.records import Header, Identity, Outcome, Reason, RejectionTitle, Role
from appliance.store.analyses import Queued
from appliance.store.revisions import Owed, Revision
from appliance.triage.order import is_overdue, next_analysis
from appliance.triage.routing import Candidate, plan_study
from engines.manifest import Manifest

CT = "1.2.840.10008.5.1.4.1.1.2"
DOSE = "1.2.840.10008.5.1.4.1.1.88.67"
TEXT = {"en": "x", "zh_Hans": "x"}


def package(name="head", envelope=None, preference=(), category=1):
    return Manifest.model_validate(
        {
            "schema": 1,
            "name": name,
            "version": "1.0.0",
            "title": TEXT,
            "status": "demonstrator",
            "licence": "Apache-2.0",
            "intended_use": "detection",
            "notify": "active",
            "looked_for": TEXT,
            "not_looked_for": TEXT,
            "stages": [
                {
                    "onnx": "model.onnx",
                    "input": {
                        "role": "ct",
                        "modality": ["CT"],
                        "sop_classes": [CT],
                        "envelope": {"body_parts": ["HEAD"], **(envelope or {})},
                        "series_preference": list(preference),
                    },
                    "preprocess": {"name": "p1"},
                    "head": {"name": "h1"},
                }
            ],
            "findings": [
                {
                    "id": "bleed",
                    "code": {"value": "1", "scheme": "99X", "meaning": "x"},
                    "title": TEXT,
                    "advice": TEXT,
                    "category": category,
                    "operating_points": [{"name": "only", "threshold": 1}],
                }
            ],
            "limits": {"time_s": 10, "memory_mb": 500},
        }
    )


def header(**changes):
    fields = {
        "sop_class_uid": CT,
        "sop_instance_uid": "1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "series_instance_uid": "1.3",
        "identity": Identity(study_instance_uid="1.1"),
        "modality": "CT",
        "body_part_examined": "HEAD",
        "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "image_orientation_patient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        "slice_thickness_mm": 5.0,
        "has_pixels": True,
    }
    return Header(**{**fields, **changes})


def revision(number=1, routed=False, images=30, **changes):
    return Revision(
        id=number,
        series_id=number,
        study_id=1,
        n=1,
        images=images,
        header=header(**changes),
        ready_mono=0.0,
        last_image_mono=0.0,
        is_newest=True,
        routed=routed,
        is_rebuilt=False,
    )


def plan(revisions, manifest=None, owed=()):
    candidates = [Candidate(manifest=manifest or package(), role=Role.LIVE)]
    return plan_study(revisions, candidates, owed, ct_deadline_s=180, xray_deadline_s=30)


@pytest.mark.fault("T32")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer"),
        ({"image_type": ("DERIVED", "SECONDARY", "REFORMATTED")}, "reformat"),
        ({"sop_class_uid": DOSE, "modality": "SR", "has_pixels": False}, "dose report"),
        ({"body_part_examined": "KNEE"}, "other body part"),
        ({"modality": "MR"}, "other modality"),
        ({"has_pixels": False}, "no image"),
    ],
)
def test_series_that_no_package_claims_is_left_out_with_its_reason(changes, why):
    plans, left_out = plan([revision(**changes)])
    assert plans == ()
    assert [out.why for out in left_out] == [why]


@pytest.mark.req("R-TRIAGE-09")
def test_missing_body_part_is_claimed_so_that_content_decides():
    plans, _ = plan([revision(body_part_examined="")])
    assert [one.inputs for one in plans] == [{"ct": 1}]


def test_missing_body_part_with_a_protocol_of_another_region_is_not_claimed():
    manifest = package(envelope={"refuse_protocol_patterns": ["abdomen"]})
    plans, left_out = plan([revision(body_part_examined="", protocol_name="Abdomen routine")], manifest)
    assert (plans, left_out[0].why) == ((), "other body part")


@pytest.mark.req("R-TRIAGE-09")
@pytest.mark.parametrize(
    "head",
    [{"protocol_name": "Schädel nativ"}, {"series_description": "BRAIN 5mm"}, {"body_part_examined": "HEAD"}],
    ids=lambda header: next(iter(header)),
)
def test_of_series_without_a_body_part_the_one_whose_protocol_speaks_for_it_is_taken(head):
    manifest = package(envelope={"protocol_patterns": ["head|brain|schädel"]})
    chest = revision(1, images=300, body_part_examined="", protocol_name="Thorax routine")
    plans, left_out = plan([chest, revision(2, images=30, **{"body_part_examined": "", **head})], manifest)
    assert [one.inputs for one in plans] == [{"ct": 2}]
    assert [(out.series_id, out.why) for out in left_out] == [(1, "not selected")]


@pytest.mark.req("R-TRIAGE-09")
def test_words_that_speak_for_no_body_part_do_not_keep_a_series_from_being_looked_at():
    manifest = package(envelope={"protocol_patterns": ["head|brain"]})
    ((one,), _) = plan([revision(body_part_examined="", protocol_name="5/5mm Plain")], manifest)
    assert one.ended is None


@pytest.mark.req("R-TRIAGE-09")
@pytest.mark.parametrize(
    ("envelope", "changes", "said"),
    [
        ({"manufacturers": ["Siemens"]}, {"manufacturer": "ACME"}, "make of scanner"),
        ({"slice_thickness_mm": {"max": 6}}, {"slice_thickness_mm": 10.0}, "slices of 10 mm"),
        ({"age_years": {"min": 18}}, {"patient_age": "006M"}, "age"),
        ({"refuse_kernels": ["^B[67]"]}, {"convolution_kernel": "B70f"}, "kernel"),
        ({"allow_contrast": False}, {"contrast_bolus_agent": "Iohexol"}, "contrast"),
        ({"allow_lossy": False}, {"lossy_image_compression": "01"}, "loss"),
        ({"allow_derived": False}, {"image_type": ("DERIVED", "SECONDARY")}, "derived"),
        (
            {"orientation": "axial"},
            {"image_orientation_patient": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)},
            "coronal",
        ),
        ({"slices": {"min": 10}}, {"images": 4}, "4 slices"),
    ],
)
def test_claimed_series_outside_the_declared_envelope_ends_not_analysed_with_the_reason(envelope, changes, said):
    ((one,), _) = plan([revision(**changes)], package(envelope=envelope))
    assert (one.ended.outcome, one.ended.reason) == (Outcome.NOT_ANALYSED, Reason.OUT_OF_ENVELOPE)
    assert said in one.ended.detail


def test_values_that_the_header_does_not_give_speak_against_nothing():
    strict = {"manufacturers": ["Siemens"], "age_years": {"min": 18}, "slice_thickness_mm": {"max": 6}}
    ((one,), _) = plan([revision(slice_thickness_mm=None)], package(envelope=strict))
    assert one.ended is None


@pytest.mark.req("R-TRIAGE-09")
def test_package_takes_its_preferred_series_and_the_other_is_told_not_selected():
    rules = [{"by": "kernel", "patterns": ["^H[34]"]}, {"by": "thickness", "target_mm": 5}]
    bone = revision(1, convolution_kernel="H70h", slice_thickness_mm=5.0)
    thin = revision(2, convolution_kernel="H31s", slice_thickness_mm=1.0)
    soft = revision(3, convolution_kernel="H31s", slice_thickness_mm=5.0)
    plans, left_out = plan([bone, thin, soft], package(preference=rules))
    assert [one.inputs for one in plans] == [{"ct": 3}]
    assert {out.series_id: out.why for out in left_out} == {1: "not selected", 2: "not selected"}


def test_series_inside_the_envelope_goes_before_a_preferred_one_outside():
    rules = [{"by": "thickness", "target_mm": 10}]
    manifest = package(envelope={"slice_thickness_mm": {"max": 6}}, preference=rules)
    plans, _ = plan([revision(1, slice_thickness_mm=10.0), revision(2, slice_thickness_mm=5.0)], manifest)
    assert (plans[0].inputs, plans[0].ended) == ({"ct": 2}, None)


def test_equal_choice_is_not_made_twice_and_a_better_series_is_a_new_analysis():
    owed = [Owed(package="head", role=Role.LIVE, inputs={"ct": 1})]
    rules = [{"by": "thickness", "target_mm": 5}]
    known = revision(1, routed=True)
    assert plan([known, revision(2, slice_thickness_mm=8.0)], package(preference=rules), owed)[0] == ()
    better = [revision(1, routed=True, slice_thickness_mm=8.0), revision(2)]
    assert [one.inputs for one in plan(better, package(preference=rules), owed)[0]] == [{"ct": 2}]


def queued(number, **changes):
    fields = {
        "id": number,
        "study_id": number,
        "package": "head",
        "role": Role.LIVE,
        "category": 2,
        "stat": False,
        "late": False,
        "attempt": 0,
        "ready_mono": 100.0 + number,
        "deadline_s": 180.0,
        "inputs": {},
        "worker_deaths": 0,
    }
    return Queued(**{**fields, **changes})


def order(rows, now=110.0):
    rows, ids = list(rows), []
    while rows:
        ids.append(next_analysis(rows, now).id)
        rows = [row for row in rows if row.id != ids[-1]]
    return ids


@pytest.mark.req("R-TRIAGE-11", "R-TRIAGE-06")
def test_most_urgent_category_first_then_stat_then_arrival_then_backlog_newest_first():
    rows = [
        queued(1),
        queued(2, stat=True),
        queued(3, category=1),
        queued(4, late=True, category=1),
        queued(5, late=True),
        queued(6),
    ]
    assert order(rows) == [3, 2, 1, 6, 5, 4]


@pytest.mark.req("R-TRIAGE-11")
@given(st.integers(1, 200))
def test_nobody_starves_behind_newer_more_urgent_studies(newer):
    old = queued(0, category=3, ready_mono=0.0)
    rows = [old, *(queued(n, category=1, ready_mono=150.0 + n / 1000) for n in range(1, newer + 1))]
    assert next_analysis(rows, 151.0) is old


@pytest.mark.req("R-TRIAGE-12")
def test_backlog_has_no_deadline_and_the_rest_has():
    assert is_overdue(queued(1, ready_mono=0.0), 180.0)
    assert not is_overdue(queued(1, ready_mono=0.0), 179.9)
    assert not is_overdue(dataclasses.replace(queued(1, ready_mono=0.0), late=True), 999.0)


@pytest.mark.req("R-REJECT-01")
def test_rejected_images_are_never_analysed_and_their_study_ends_with_the_reason():
    gone = dataclasses.replace(revision(1), rejected=RejectionTitle.PATIENT_SAFETY)
    (only,), _ = plan([gone])
    assert (only.ended.reason, only.ended.detail) == (
        Reason.WITHDRAWN,
        "the images were rejected for reasons of patient safety",
    )
    (other,), _ = plan([gone, revision(2, images=3)])
    assert other.inputs == {"ct": 2}
    assert other.ended is None


@pytest.mark.req("R-MPPS-01")
def test_series_that_lacks_what_the_scanner_lists_is_not_analysed_as_incomplete():
    (one,), _ = plan([dataclasses.replace(revision(), missing=2)])
    assert one.ended.reason is Reason.INCOMPLETE
    assert one.ended.detail == "the scanner lists 2 more images than the 30 that came"
