"""The main job on the real daemon, worker and associations: from C-STORE to outcome, alert and delivery."""

from __future__ import annotations

import copy

import numpy as np
import pydicom
import pytest
from box_kit import Box, box_config, box_with_pacs

from appliance.records import Actor, ActorKind, AlertState, Outcome, Reason, VersionState
from appliance.simulate.scenarios import SCENARIOS
from appliance.simulate.syntaxes import encode
from appliance.store.facts import Kind


def scenario(name, run="main"):
    return next(one for one in SCENARIOS if one.name == name).build(run)


@pytest.fixture(scope="module")
def bleed():
    return scenario("head_ct_bleed")


@pytest.fixture
def box(tmp_path):
    with box_with_pacs(tmp_path) as (running, pacs):
        running.pacs = pacs
        yield running


@pytest.mark.req("R-TRIAGE-15", "R-STORE-06")
@pytest.mark.req("R-DEMO-01")
def test_bleed_ends_in_an_alert_that_a_person_acknowledges_and_a_report_in_the_pacs(box, bleed):
    box.send(bleed)
    view = box.ended(bleed[0].StudyInstanceUID)
    assert (view.outcome, view.alert.state) == (Outcome.FINDING, AlertState.RAISED)
    assert view.alert.chime
    box.store.alerts.acknowledge(view.alert.id, Actor(kind=ActorKind.PERSON, name="Li", role="technologist"))
    assert box.store.views.alert(view.alert.id).acknowledged_by == "Li"
    (arrival,) = box.pacs.wait_for(1, 90)
    report = pydicom.dcmread(arrival.path)
    assert report.Modality == "SR"
    assert report.StudyInstanceUID == bleed[0].StudyInstanceUID


@pytest.mark.req("R-COMPLETE-07")
def test_late_image_makes_a_new_revision_and_supersedes_visibly(box, bleed):
    series = [ds for ds in bleed if "LOCALIZER" not in ds.ImageType]
    box.send(series[:-1])
    uid = bleed[0].StudyInstanceUID
    first = box.ended(uid)
    box.send(series[-1:])
    view = box.wait(
        lambda: next(
            (one for one in [box.study(uid)] if len(one.analyses) == 2 and one.analyses[-1].outcome is not None), None
        ),
        "second analysis",
    )
    assert view.analyses[0].superseded_by == view.analyses[1].id
    assert view.alert.id == first.alert.id, "the same finding on more images is no second alert"
    assert Kind.ANALYSIS_SUPERSEDED in box.kinds()


@pytest.mark.req("R-INTAKE-11")
def test_identity_correction_reissues_the_alert_without_inference(box, bleed):
    box.send(bleed)
    uid = bleed[0].StudyInstanceUID
    box.ended(uid)
    corrected = copy.deepcopy(bleed)
    for ds in corrected:
        ds.PatientID = "CORRECTED-1"
    box.send(corrected)
    view = box.study(uid)
    assert view.identity.patient_id == "CORRECTED-1"
    assert (view.alert.state, view.alert.identity_revision) == (AlertState.RAISED, 2)
    assert len(view.analyses) == 1
    withdrawn = [one for one in box.store.views.alerts() if one.withdrawn_why == "identity_corrected"]
    assert len(withdrawn) == 1


def test_same_pixels_in_another_syntax_are_kept_without_conflict_and_other_pixels_are_one(box, bleed):
    original = next(ds for ds in bleed if "LOCALIZER" not in ds.ImageType)
    box.send([original])
    compressed = encode(copy.deepcopy(original), "1.2.840.10008.1.2.4.90")
    changed = copy.deepcopy(original)
    pixels = changed.pixel_array.copy()
    pixels[100, 100] += np.array(1, pixels.dtype)
    changed.PixelData = pixels.tobytes()
    other = encode(changed, "1.2.840.10008.1.2.5")
    box.send([compressed])
    box.send([other])

    def states():
        return [version.state for version in box.store.studies.versions(original.SOPInstanceUID)]

    box.wait(lambda: VersionState.COMPARING not in states(), "comparison")
    assert states() == [VersionState.CURRENT, VersionState.KEPT, VersionState.CONFLICT]
    assert [issue.code for issue in box.store.issues.open()] == ["VERSION_CONFLICT"]


@pytest.mark.req("R-FORWARD-01")
def test_inline_images_reach_the_pacs_byte_identical_under_the_scanners_name(tmp_path, bleed):
    with box_with_pacs(tmp_path, mode="inline") as (box, pacs):
        box.send(bleed)
        uids = {ds.SOPInstanceUID for ds in bleed}
        box.wait(lambda: uids <= pacs.stored().keys(), "forwarded images")
        rows = box.store.db.all(
            "SELECT i.sop_instance_uid, v.data_sha256 FROM version v JOIN instance i ON i.id = v.instance_id"
        )
        received = {row["sop_instance_uid"]: row["data_sha256"] for row in rows}
        forwarded = {uid: arrival.sha256 for uid, arrival in pacs.stored().items() if uid in uids}
        assert forwarded == received
        assert {pacs.stored()[uid].calling for uid in uids} == {"CT-1"}


@pytest.mark.req("R-INTAKE-14", "R-INTAKE-10")
def test_same_data_set_by_two_ways_is_no_conflict_and_no_second_analysis(box, bleed):
    box.send(bleed, "CT-1")
    uid = bleed[0].StudyInstanceUID
    box.ended(uid)
    box.send(bleed, "CT-2")
    assert len(box.study(uid).analyses) == 1
    assert box.store.issues.open() == []


@pytest.mark.fault("T33")
def test_two_patients_under_one_study_uid_never_cross(box, bleed):
    other = scenario("head_ct_no_bleed")
    for ds in other:
        ds.StudyInstanceUID = bleed[0].StudyInstanceUID
    box.send(bleed, "CT-1")
    box.send(other, "CT-2")

    def both():
        views = [one for one in box.store.views.studies() if one.outcome is not None]
        return views if len(views) == 2 and not box.store.revisions.open_series() else None

    views = {one.identity.patient_id: one for one in box.wait(both, "two outcomes")}
    assert views["SIM-0001"].outcome is Outcome.FINDING
    assert views["SIM-0002"].outcome is Outcome.NOTHING_FLAGGED
    assert views["SIM-0002"].alert is None
    assert "STUDY_UID_SHARED" in [issue.code for issue in box.store.issues.open()]


@pytest.mark.req("R-COMPLETE-08")
def test_aborted_association_keeps_what_was_acknowledged_and_its_study_ends(box, bleed):
    series = [ds for ds in bleed if "LOCALIZER" not in ds.ImageType]
    with box.scanner().open(series) as association:
        for ds in series[:20]:
            assert association.send(ds).status == 0
        association.abort()
    view = box.ended(series[0].StudyInstanceUID)
    assert view.images == 20
    assert view.outcome is not None


@pytest.mark.req("R-FORWARD-03", "R-TRIAGE-15")
def test_box_without_packages_receives_and_calls_every_study_not_applicable(tmp_path, bleed):
    with Box(box_config(tmp_path / "state", packages=())) as box:
        box.send(bleed)
        assert box.ended(bleed[0].StudyInstanceUID).outcome is Outcome.NOT_APPLICABLE


@pytest.mark.req("R-STORE-08", "R-STORE-02")
@pytest.mark.fault("T10")
def test_damaged_database_is_set_aside_and_rebuilt_without_losing_an_image_or_sounding(tmp_path, bleed):
    with box_with_pacs(tmp_path, mode="inline") as (box, pacs):
        box.send(bleed)
        box.ended(bleed[0].StudyInstanceUID)
        box.wait(lambda: not any(one.owed for one in box.store.deliveries.backlog()), "drained deliveries")
        config, sent_before = box.config, len(pacs.arrivals)
        with box.store.db.write() as tx:  # everything into the main file, so that damage cannot hide in the WAL
            tx.execute("SELECT 1")
        box.store.db.one("PRAGMA wal_checkpoint(TRUNCATE)")
    database = config.state_path / "scanside.db"
    content = bytearray(database.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\xff" * (4096 * 3)
    database.write_bytes(content)
    with Box(config) as again:
        assert len(again.store.db.all("SELECT 1 FROM version")) == len(bleed)
        assert "DATABASE_REBUILT" in [issue.code for issue in again.store.issues.open()]
        view = again.ended(bleed[0].StudyInstanceUID)
        assert view.outcome is Outcome.FINDING
        assert view.alert is None or not view.alert.chime
        assert list(config.state_path.glob("damaged-*/scanside.db"))
        assert again.store.journal.verify() == 0
    assert sent_before >= len(bleed)


def test_not_analysed_series_names_what_is_missing(box):
    series = scenario("head_ct_missing_block")
    box.send(series)
    view = box.ended(series[0].StudyInstanceUID)
    assert (view.outcome, view.reason) == (Outcome.NOT_ANALYSED, Reason.INCOMPLETE)
    assert "5 slices are missing" in view.live[0].detail
