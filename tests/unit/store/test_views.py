"""What screens and commands are told of the store."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from appliance.errors import NotFoundError
from appliance.records import Outcome, Reason
from appliance.store.readmodels import to_json


@pytest.mark.req("R-STORE-04")
def test_a_study_is_told_with_findings_volume_and_key_slices(store, write, scenes):
    write(scenes.urgent)
    (study,) = store.views.studies()
    assert (study.outcome, study.reason, study.source) == (Outcome.FINDING, None, "CT-1")
    (analysis,) = study.live
    (finding,) = analysis.findings
    assert (finding.volume.value, finding.volume.unit) == (12.4, "ml")
    assert [s.instance_number for s in finding.key_slices] == [14]
    assert (finding.operating_point, finding.threshold, finding.flagged) == ("standard", 1.5, True)
    assert study.alert.is_open


@pytest.mark.req("R-STORE-04")
def test_the_time_of_every_hop_is_told(store, write, scenes):
    write(scenes.urgent)
    hops = store.views.studies()[0].live[0].hops_ms
    assert hops["completeness"] == pytest.approx(40)
    assert hops["worker"] == pytest.approx(3100)
    assert hops["total"] == pytest.approx(8040)


def test_the_workers_own_times_stand_beside_them(store, write, scenes):
    study = write(scenes.add_study, outcome=Outcome.NOTHING_FLAGGED)
    result = scenes.AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, hops_ms={"session": 812.5})
    write(scenes.add_analysis, study, result)
    assert store.views.studies()[0].live[0].hops_ms["session"] == pytest.approx(812.5)


def test_studies_come_newest_first_and_can_be_chosen_by_outcome_and_time(store, write, clock, scenes):
    old = write(scenes.nothing_flagged, ago_s=7200.0)
    missed = write(scenes.not_analysed, ago_s=60.0)
    assert [s.id for s in store.views.studies()] == [missed, old]
    assert [s.id for s in store.views.studies(outcomes=[Outcome.NOT_ANALYSED])] == [missed]
    assert [s.id for s in store.views.studies(since=clock.now() - timedelta(hours=1))] == [missed]
    assert [s.id for s in store.views.studies(limit=1)] == [missed]
    assert store.views.studies()[0].reason is Reason.INCOMPLETE


@pytest.mark.req("R-STORE-12")
def test_superseded_and_silent_analyses_are_told_but_do_not_count(store, write, scenes):
    study = write(scenes.add_study)
    first = write(scenes.add_analysis, study, write(scenes.finding_result, study))
    second = write(scenes.add_analysis, study, None, predecessor=first)
    write(scenes.add_analysis, study, None, role="silent")
    write(lambda tx: tx.execute("UPDATE analysis SET superseded_by = ? WHERE id = ?", (second, first)))
    view = store.views.studies()[0]
    assert len(view.analyses) == 3
    assert [analysis.id for analysis in view.live] == [second]


def test_deliveries_are_counted_per_destination_kind_and_state(store, write, scenes):
    study = write(scenes.add_study)

    def owe(tx):
        for n in range(3):
            tx.insert(
                "delivery", destination="pacs", kind="original", study_id=study, sop_instance_uid=f"1.{n}",
                state="sent" if n else "owed", owed_at=tx.at, next_at=tx.at,
            )  # fmt: skip

    write(owe)
    deliveries = store.views.studies()[0].deliveries
    assert {(d.destination, str(d.kind), str(d.state), d.count) for d in deliveries} == {
        ("pacs", "original", "owed", 1),
        ("pacs", "original", "sent", 2),
    }
    assert store.views.studies(deliveries=False)[0].deliveries == ()


def test_one_study_is_told_whole(store, write, scenes):
    alert = write(scenes.urgent)
    detail = store.views.study(1)
    assert detail.study.id == 1
    assert detail.series[0].revisions[0].evidence == {"rule": "released"}
    assert detail.series[0].images == 1
    assert detail.series[0].versions == ()
    assert [a.id for a in detail.alerts] == [alert]
    assert [fact.kind for fact in detail.facts] == ["study_outcome", "alert_raised"]


def test_several_versions_of_an_instance_are_told(store, write, scenes):
    write(scenes.add_study)
    write(
        lambda tx: tx.execute(
            "INSERT INTO version (instance_id, n, state, path, size, data_sha256, transfer_syntax_uid, meaning_digest,"
            " identity, association_id, source, received_at, received_mono) SELECT instance_id, 2, 'conflict',"
            " 'store/zz', size, data_sha256, transfer_syntax_uid, meaning_digest, identity, association_id, source,"
            " received_at, received_mono FROM version"
        )
    )
    assert [(v.n, v.state) for v in store.views.study(1).series[0].versions] == [(1, "current"), (2, "conflict")]


def test_an_unknown_study_or_alert_is_named(store):
    with pytest.raises(NotFoundError, match="study 9"):
        store.views.study(9)
    with pytest.raises(NotFoundError, match="alert 9"):
        store.views.alert(9)


def test_a_study_is_found_by_what_a_person_has_at_hand(store, write, scenes):
    study = write(scenes.add_study, scenes.WANG)
    write(scenes.add_study, scenes.DOE)
    uid = store.views.study(study).study.study_instance_uid
    for text in (str(study), uid, "ACC20260100474711"):
        assert store.views.find(text) == [study]
    assert store.views.find("' OR 1=1 --") == []


def test_open_alerts_stand_by_category_and_then_newest_first(store, write, scenes):
    second = write(scenes.priority)
    older = write(scenes.urgent)
    newer = write(scenes.urgent)
    passive = write(scenes.priority, category=1, active=0)
    assert [alert.id for alert in store.views.open_alerts()] == [newer, older, second, passive]


def test_closed_alerts_are_told_for_a_while(store, write, clock, scenes):
    at = clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    alert = write(scenes.urgent, state="withdrawn", withdrawn_at=at, withdrawn_why="superseded")
    write(scenes.urgent)
    since = timedelta(minutes=10)
    assert [a.id for a in store.views.closed_alerts(clock.now() - since)] == [alert]
    clock.advance(601)
    assert store.views.closed_alerts(clock.now() - since) == []


def test_the_last_names_come_first_each_once(store, write, clock, scenes):
    for name in ("Li Wei", "Zhao Lei", "Li Wei"):
        clock.advance(1)
        at = clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        write(scenes.urgent, state="acknowledged", acknowledged_by=name, acknowledged_at=at)
    assert store.views.acknowledgers() == ["Li Wei", "Zhao Lei"]


def test_the_box_says_what_arrives_what_is_analysed_and_what_is_wrong(store, write, scenes):
    write(scenes.nothing_flagged)
    arriving = write(scenes.add_study, is_open=True, images=7)
    working = write(scenes.add_study)
    write(scenes.add_analysis, working, None)
    write(scenes.add_analysis, working, None, state="queued", started_at=None)
    box = store.views.box()
    assert [(r.study_id, r.images, r.source) for r in box.receiving] == [(arriving, 7, "CT-1")]
    assert [(a.study_id, a.package) for a in box.analysing] == [(working, scenes.HEAD)]
    assert box.analysing[0].usual_s == pytest.approx(3.1)
    assert (box.queued, box.ai_down_since) == (1, None)
    store.issues.raise_("AI_UNAVAILABLE", "worker", scenes.Severity.FAULT)
    assert store.views.box().ai_down_since == store.db.clock.now()


def test_counts_are_by_outcome(store, write, clock, scenes):
    write(scenes.not_analysed)
    write(scenes.nothing_flagged)
    write(scenes.nothing_flagged)
    write(scenes.add_study)
    assert store.views.counts(clock.now() - timedelta(hours=1)) == {"": 1, "NOTHING_FLAGGED": 2, "NOT_ANALYSED": 1}


@pytest.mark.parametrize("scene", ["urgent", "several", "not-analysed", "backlog"])
def test_every_view_is_json(store, scenes, scene):
    scenes.fill(store, scene)
    views = store.views
    told = [views.studies(), views.open_alerts(), views.box(), *[views.study(s.id) for s in views.studies()]]
    study = json.loads(json.dumps(to_json(told)))[0][0]
    assert study["outcome"] in {"FINDING", "NOT_ANALYSED", "NOTHING_FLAGGED"}
    assert study["last_at"].endswith("+00:00")
