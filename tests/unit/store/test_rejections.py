"""Rejection notes: what rests on the images that they name is withdrawn at once, visibly, and once."""

from __future__ import annotations

import pytest
from plan_kit import plan_for

from appliance.intake.completeness import decide
from appliance.records import (
    AnalysisResult,
    DeliveryKind,
    FindingResult,
    Outcome,
    Reason,
    Rejection,
    RejectionTitle,
    Role,
    VersionState,
)
from appliance.store.ending import OwedResult
from appliance.store.facts import Kind
from appliance.store.studies import Change, current_of

KO = "1.2.840.10008.5.1.4.1.1.88.59"
TOLD = (OwedResult(destination="PACS", kind=DeliveryKind.SR),)
pytestmark = pytest.mark.req("R-REJECT-01")


def finding():
    flagged = FindingResult(id="bleed", score=9.0, operating_point="d", threshold=1.0, flagged=True, category=1)
    return AnalysisResult(outcome=Outcome.FINDING, findings=(flagged,))


def ready(store):
    """Make a revision of every open series; the ids of those that were made."""
    made = [
        store.revisions.make_ready(store.revisions.evidence(one), "quiet", {}) for one in store.revisions.open_series()
    ]
    return [revision for revision in made if revision is not None]


def queue(store, study_id, revision_id, role=Role.LIVE):
    plan = plan_for(revision_id, role=role)
    (analysis_id,) = store.analyses.route(study_id, (revision_id,), (plan,), (), lambda package, result: ())
    return analysis_id


@pytest.fixture
def images(store, make_header, receive):
    """``images(3)``: three images of one series, in a revision of their own; returns (study id, revision id)."""

    def make(count):
        for n in range(1, count + 1):
            stored = store.studies.add_new(receive(make_header(n)), ())
        (revision,) = ready(store)
        return stored.study_id, revision

    return make


@pytest.fixture
def note(store, make_header, receive):
    """``note(1, 2)``: a rejection note that names images 1 and 2 arrives."""

    def arrive(*numbers, title=RejectionTitle.QUALITY, uid="1.2.9.1", source="PACS"):
        header = make_header(
            1,
            sop_class_uid=KO,
            sop_instance_uid=uid,
            series_instance_uid="1.2.9",
            modality="KO",
            has_pixels=False,
            rejection=Rejection(title=title, sop_instance_uids=tuple(f"1.2.3.4.{n}" for n in numbers)),
        )
        return store.studies.add_new(receive(header, source=source), ())

    return arrive


def analyses(store):
    return store.db.all("SELECT * FROM analysis ORDER BY id")


def alert(store):
    return store.db.one("SELECT * FROM alert ORDER BY id DESC LIMIT 1")


def test_note_withdraws_the_finding_its_alert_and_tells_whoever_was_told(store, images, note):
    study_id, revision_id = images(2)
    analysis_id = queue(store, study_id, revision_id)
    store.analyses.start(analysis_id)
    store.analyses.finish(analysis_id, finding(), TOLD)
    assert alert(store)["state"] == "raised"

    note(1)

    told, instead = analyses(store)
    assert told["superseded_by"] == instead["id"]
    assert (instead["outcome"], instead["reason"]) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN)
    assert "rejected for quality reasons" in store.views.study(study_id).study.live[0].detail
    assert (alert(store)["state"], alert(store)["withdrawn_why"]) == ("withdrawn", "rejected")
    again = store.db.one("SELECT * FROM delivery WHERE analysis_id = ?", (instead["id"],))
    assert (again["destination"], again["kind"], again["state"]) == ("PACS", "sr", "held")
    assert store.views.study(study_id).study.outcome is Outcome.NOT_ANALYSED
    fact = store.journal.after(0, kinds=(Kind.IMAGES_REJECTED,))[0]
    assert (fact.body["images"], fact.body["title"], fact.body["source"]) == (1, "113001", "PACS")
    assert "1.2.3.4" not in str(fact.body)


def test_what_is_left_of_the_series_becomes_a_revision_without_the_rejected_images(store, images, note):
    study_id, first = images(3)
    queue(store, study_id, first)
    note(2)
    (second,) = [one for one in ready(store) if store.revisions.get(one).header.sop_class_uid != KO]
    assert [uid for _, _, uid in store.studies.paths(second)] == ["1.2.3.4.1", "1.2.3.4.3"]
    assert store.revisions.get(second).rejected is None
    assert store.revisions.get(first).rejected is RejectionTitle.QUALITY
    last = queue(store, study_id, second)
    assert analyses(store)[-1]["predecessor"] is not None
    assert store.db.one("SELECT superseded_by AS s FROM analysis WHERE id = ?", (last,))["s"] is None


def test_series_without_any_image_left_is_closed_and_gets_no_revision(store, images, note):
    _, first = images(2)
    note(1, 2)
    made = [one for one in ready(store) if store.revisions.get(one).header.sop_class_uid != KO]
    assert made == []
    assert store.revisions.open_series() == []
    assert store.revisions.get(first).is_newest


def test_images_that_a_note_named_before_they_came_arrive_rejected_and_their_study_still_ends(
    store, note, make_header, receive
):
    note(1, title=RejectionTitle.WORKLIST_ENTRY)
    stored = store.studies.add_new(receive(make_header(1)), ())
    assert current_of(store.studies.versions("1.2.3.4.1")).state is VersionState.REJECTED
    (revision,) = [one for one in ready(store) if store.revisions.get(one).header.sop_class_uid != KO]
    assert store.revisions.get(revision).rejected is RejectionTitle.WORKLIST_ENTRY
    assert stored.study_id in store.revisions.studies_to_route()
    facts = store.journal.after(0, kinds=(Kind.INSTANCE_STORED,))
    assert facts[-1].body["rejected"] == "113038"


def test_late_image_that_a_note_named_does_not_reopen_what_stands(store, images, note, make_header, receive):
    study_id, revision_id = images(2)
    note(3)
    ready(store)
    analysis_id = queue(store, study_id, revision_id)
    store.studies.add_new(receive(make_header(3)), ())
    assert ready(store) == []
    assert [row["id"] for row in analyses(store) if row["superseded_by"] is None] == [analysis_id]


def test_the_same_note_twice_withdraws_once(store, images, note):
    study_id, revision_id = images(1)
    queue(store, study_id, revision_id)
    note(1)
    before = len(analyses(store))
    note(1, uid="1.2.9.2")
    assert len(analyses(store)) == before == 2
    facts = store.journal.after(0, kinds=(Kind.IMAGES_REJECTED,))
    assert [fact.body["images"] for fact in facts] == [1, 0]


def test_who_was_told_of_the_finding_hears_of_it_also_when_a_newer_analysis_was_running(
    store, images, note, make_header, receive
):
    study_id, revision_id = images(2)
    told = queue(store, study_id, revision_id)
    store.analyses.start(told)
    store.analyses.finish(told, finding(), TOLD)
    store.studies.add_new(receive(make_header(3)), ())
    (second,) = ready(store)
    running = queue(store, study_id, second)
    store.analyses.start(running)

    note(1, 2, 3)

    last = analyses(store)[-1]
    assert last["reason"] == Reason.WITHDRAWN
    assert alert(store)["withdrawn_why"] == "rejected"
    again = store.db.one("SELECT destination FROM delivery WHERE analysis_id = ?", (last["id"],))
    assert again["destination"] == "PACS"
    # What the worker says of it afterwards changes nothing.
    store.analyses.finish(running, finding(), TOLD)
    assert store.views.open_alerts() == []
    assert store.views.study(study_id).study.outcome is Outcome.NOT_ANALYSED


def test_alert_of_other_images_of_the_study_goes_on(store, images, note, make_header, receive):
    study_id, revision_id = images(1)
    analysis_id = queue(store, study_id, revision_id)
    store.analyses.start(analysis_id)
    store.analyses.finish(analysis_id, finding(), TOLD)
    store.studies.add_new(receive(make_header(7, series_instance_uid="1.2.3.5")), ())
    ready(store)
    note(7)
    assert alert(store)["state"] == "raised"
    assert store.views.study(study_id).study.outcome is Outcome.FINDING


def test_queued_analysis_of_rejected_images_never_runs(store, images, note):
    study_id, revision_id = images(1)
    analysis_id = queue(store, study_id, revision_id)
    note(1)
    assert store.analyses.open() == []
    assert not store.analyses.start(analysis_id)


def test_silent_analyses_of_rejected_images_are_superseded_without_anybody_being_told(store, images, note):
    study_id, revision_id = images(1)
    queue(store, study_id, revision_id, role=Role.SILENT)
    note(1)
    assert analyses(store)[0]["superseded_by"] is not None
    assert store.db.all("SELECT * FROM delivery") == []


def test_correction_of_the_identity_does_not_bring_a_rejected_image_back(store, images, note, make_header, receive):
    images(1)
    note(1)
    known = store.studies.versions("1.2.3.4.1")
    store.studies.add_version(receive(make_header(1, patient_name="Roe^Jane")), known, Change.IDENTITY, ())
    states = [version.state for version in store.studies.versions("1.2.3.4.1")]
    assert states == [VersionState.KEPT, VersionState.REJECTED]


def test_note_is_stored_and_owed_like_any_object_and_no_header_column_holds_its_list(store, images, note):
    images(1)
    stored = note(1)
    assert current_of(store.studies.versions("1.2.9.1")).state is VersionState.CURRENT
    assert store.revisions.header(stored.series_id).rejection is None


def test_finding_is_withdrawn_also_when_the_identity_was_corrected_since(store, images, note, make_header, receive):
    study_id, revision_id = images(2)
    analysis_id = queue(store, study_id, revision_id)
    store.analyses.start(analysis_id)
    store.analyses.finish(analysis_id, finding(), TOLD)
    for n in (1, 2):
        known = store.studies.versions(f"1.2.3.4.{n}")
        store.studies.add_version(receive(make_header(n, patient_id="P9")), known, Change.IDENTITY, ())
    note(1, 2)
    assert alert(store)["withdrawn_why"] == "rejected"
    assert store.views.study(study_id).study.reason is Reason.WITHDRAWN
    for series in store.revisions.open_series():
        evidence = store.revisions.evidence(series)
        decide(evidence, now_mono=1e9, quiet=2.0)
        store.revisions.make_ready(evidence, "rejected", {})
    assert store.revisions.open_series() == []
