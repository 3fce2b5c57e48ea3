"""Which series of a study a package with several inputs takes."""

from __future__ import annotations

import pytest
from pair_kit import pair_manifest

from appliance.records import Header, Identity, Role
from appliance.store.revisions import Revision
from appliance.triage.routing import Candidate, plan_study
from engines.manifest import Manifest

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def revision(number, view, images=1):
    header = Header(
        sop_class_uid=DX,
        sop_instance_uid=f"1.2.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_instance_uid=f"1.3.{number}",
        identity=Identity(study_instance_uid="1.1"),
        modality="DX",
        body_part_examined="CHEST",
        view_position=view,
        has_pixels=True,
    )
    return Revision(
        id=number,
        series_id=number,
        study_id=1,
        n=1,
        images=images,
        header=header,
        ready_mono=0.0,
        last_image_mono=0.0,
        is_newest=True,
        routed=False,
        is_rebuilt=False,
    )


def inputs(revisions, *, optional=False):
    manifest = Manifest.model_validate(pair_manifest(optional=optional))
    candidates = [Candidate(manifest=manifest, role=Role.LIVE)]
    plans, _ = plan_study(revisions, candidates, (), ct_deadline_s=180, xray_deadline_s=30)
    assert all(plan.ended is None for plan in plans)
    return [plan.inputs for plan in plans]


@pytest.mark.req("R-PIPE-08")
def test_each_view_goes_to_its_role_whatever_series_came_first():
    assert inputs([revision(1, "LL"), revision(2, "PA")]) == [{"frontal": 2, "lateral": 1}]


@pytest.mark.req("R-PIPE-08")
def test_one_series_with_both_views_serves_both_roles():
    assert inputs([revision(1, "LL", images=2)]) == [{"frontal": 1, "lateral": 1}]


@pytest.mark.parametrize("view", ["PA", "LL", ""])
def test_half_a_pair_is_not_claimed_and_ends_in_no_refusal(view):
    assert inputs([revision(1, view)]) == []
    assert inputs([revision(1, view), revision(2, view)]) == []


def test_an_input_that_may_be_missing_is_taken_when_it_is_there():
    assert inputs([revision(1, "PA")], optional=True) == [{"frontal": 1}]
    assert inputs([revision(1, "PA"), revision(2, "LL")], optional=True) == [{"frontal": 1, "lateral": 2}]
    assert inputs([revision(2, "LL")], optional=True) == []
