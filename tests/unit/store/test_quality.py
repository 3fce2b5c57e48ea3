"""What a technologist did about a quality warning: one act by name, in the journal, by analysis."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from appliance.errors import ConflictError, NotFoundError
from appliance.records import Actor, ActorKind, Outcome, QualityChoice, QualityReason
from appliance.store.facts import Kind

LI = Actor(kind=ActorKind.PERSON, name="Li Wei")
ZHAO = Actor(kind=ActorKind.PERSON, name="Zhao Lei")
AS_IS, ADDED = QualityChoice.ACCEPTED_AS_IS, QualityChoice.IMAGE_ADDED
CUTOFF, NO_FAULT = QualityReason.ANATOMY_CUTOFF, QualityReason.NO_FAULT_SEEN


@pytest.fixture
def facts(store):
    return lambda: store.journal.after(0, 100, (Kind.QUALITY_DECIDED,))


@pytest.fixture
def opened(store, clock):
    return lambda: store.views.open_warnings(clock.now() - timedelta(hours=12))


@pytest.mark.req("R-SCREEN-09")
def test_choice_and_reason_stand_in_state_and_journal_with_the_name(store, write, scenes, facts, opened):
    study = write(scenes.warned)
    assert opened() == [study]
    (analysis,) = store.quality.decide(study, ADDED, CUTOFF, LI)
    assert opened() == []
    (view,) = store.views.study(study).study.live
    assert [finding.id for finding in view.quality_warnings] == ["bases"]
    assert (view.id, view.outcome) == (analysis, Outcome.NOTHING_FLAGGED)
    assert (view.choice.choice, view.choice.reason, view.choice.decided_by) == (ADDED, CUTOFF, "Li Wei")
    assert view.choice.decided_at == store.db.clock.now()
    (fact,) = facts()
    assert fact.body == {"analyses": [analysis], "choice": "image_added", "reason": "anatomy_cutoff"}
    assert (fact.actor["name"], fact.study_id) == ("Li Wei", study)
    assert store.journal.verify() == 0


@pytest.mark.req("R-HOUSE-22")
def test_the_fact_of_a_choice_holds_nothing_of_the_patient(store, write, scenes, facts):
    study = write(scenes.warned)
    store.quality.decide(study, AS_IS, NO_FAULT, LI)
    (fact,) = facts()
    told = json.dumps([fact.body, fact.subject, fact.actor], default=str)
    for private in (scenes.WANG.patient_id, scenes.WANG.accession_number, "WANG", "晓明", "1.2.826"):
        assert private not in told


def test_the_same_choice_twice_is_one_fact_and_keeps_the_first_name(store, write, scenes, facts):
    study = write(scenes.warned)
    store.quality.decide(study, AS_IS, NO_FAULT, LI)
    store.quality.decide(study, AS_IS, NO_FAULT, ZHAO)
    assert len(facts()) == 1
    assert store.views.study(study).study.live[0].choice.decided_by == "Li Wei"


def test_another_choice_corrects_the_first_and_both_stand_in_the_journal(store, write, scenes, facts):
    study = write(scenes.warned)
    store.quality.decide(study, AS_IS, CUTOFF, LI)
    store.quality.decide(study, ADDED, CUTOFF, ZHAO)
    assert [fact.body["choice"] for fact in facts()] == ["accepted_as_is", "image_added"]
    assert store.views.study(study).study.live[0].choice.choice is ADDED
    assert store.views.deciders() == ["Zhao Lei"]


def test_an_unknown_study_nobody_and_no_warning_are_refused_and_leave_nothing(store, write, scenes, facts):
    with pytest.raises(NotFoundError, match="study 77"):
        store.quality.decide(77, AS_IS, CUTOFF, LI)
    with pytest.raises(ConflictError, match="name"):
        store.quality.decide(write(scenes.warned), AS_IS, CUTOFF, Actor(kind=ActorKind.PERSON, name=" "))
    with pytest.raises(ConflictError, match="no quality warning"):
        store.quality.decide(write(scenes.warned, flagged=False), AS_IS, CUTOFF, LI)
    with pytest.raises(ConflictError, match="no quality warning"):
        store.quality.decide(write(scenes.nothing_flagged), AS_IS, CUTOFF, LI)
    assert not facts()


def test_a_newer_analysis_that_warns_again_is_open_again_and_the_old_one_warns_no_more(store, write, scenes, opened):
    study = write(scenes.warned)
    (first,) = store.quality.decide(study, ADDED, CUTOFF, LI)
    second = write(scenes.warn_again, study, findings=("rotated",), predecessor=first)
    write(lambda tx: tx.execute("UPDATE analysis SET superseded_by = ? WHERE id = ?", (second, first)))
    assert opened() == [study]
    old, new = store.views.study(study).study.analyses
    assert (old.quality_warnings, old.choice.choice) == ((), ADDED)
    assert (new.id, new.choice) == (second, None)
    with pytest.raises(ConflictError, match="analysed again"):
        store.quality.decide(study, AS_IS, CUTOFF, LI, seen=[first])
    assert store.quality.decide(study, AS_IS, CUTOFF, LI, seen=[second]) == (second,)


@pytest.mark.parametrize("change", [{"role": "silent"}, {"role": "shadow"}, {"intended_use": "detection"}])
def test_only_live_quality_packages_warn(store, write, scenes, opened, change):
    study = write(scenes.warned, flagged=False)
    write(scenes.warn_again, study, **change)
    assert opened() == []
    assert not any(analysis.quality_warnings for analysis in store.views.study(study).study.analyses)


def test_warnings_of_the_last_hours_alone_are_asked_for_and_no_whole_table_is_read(store, write, scenes, clock):
    write(scenes.warned, ago_s=3600.0)
    new = write(scenes.warned)
    since = clock.now() - timedelta(minutes=30)
    assert store.views.open_warnings(since) == [new]
    asked = []
    explain = store.db.all
    store.db.all = lambda sql, parameters=(): asked.append((sql, parameters)) or []
    store.views.open_warnings(since)
    del store.db.all
    plan = [row["detail"] for sql, values in asked for row in explain(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert any("study_last" in line for line in plan)
    assert not [line for line in plan if line.startswith(("SCAN st", "SCAN a", "SCAN c"))]


@pytest.mark.req("R-SCREEN-08")
def test_exposure_is_told_of_the_very_images_that_were_analysed(store, make_header, receive, write, scenes):
    """A second image of the series has an exposure of its own; the header of the first says nothing about it."""
    numbers = {"modality": "DX", "target_exposure_index": 400.0}
    first = make_header(1, exposure_index=325.0, deviation_index=-0.9, **numbers)
    stored = store.studies.add_new(receive(first), ())
    store.studies.add_new(receive(make_header(2, deviation_index=0.0, **numbers)), ())
    store.studies.add_new(receive(make_header(3, modality="DX")), ())
    (series,) = store.revisions.open_series()
    store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
    write(scenes.warn_again, stored.study_id)
    detail = store.views.study(stored.study_id)
    (analysis,) = detail.study.live
    told = [
        (e.instance_number, e.exposure_index, e.target_exposure_index, e.deviation_index) for e in analysis.exposures
    ]
    assert told == [(1, 325.0, 400.0, -0.9), (2, None, 400.0, 0.0)]
    assert detail.series[0].exposures == analysis.exposures
    assert [round(e.percent_of_target) for e in analysis.exposures] == [81, 100]


def test_a_package_that_is_not_for_quality_tells_no_exposure(store, write, scenes):
    study = write(scenes.add_study, exposure=(325.0, 400.0, -0.9), outcome=Outcome.NOTHING_FLAGGED)
    write(scenes.add_analysis, study, scenes.AnalysisResult(outcome=Outcome.NOTHING_FLAGGED))
    assert store.views.study(study).study.live[0].exposures == ()
