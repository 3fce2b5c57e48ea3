"""Where the time of a study went, and what is usual."""

from __future__ import annotations

from datetime import timedelta

import pytest

from appliance.records import AnalysisResult, Outcome, Reason
from appliance.store import timings as module
from appliance.store.database import iso
from appliance.store.facts.deliveries import DeliveryBuilt
from appliance.store.timings import TO_RESULT, Hop


def timed(tx, scenes, *, ago_s=100.0, inference=1000.0, package=None, **more):
    """A study with a quiet analysis that began 200 ms after its revision was whole."""
    study = scenes.add_study(tx, outcome=Outcome.NOTHING_FLAGGED, ago_s=ago_s)
    hops = {"decode": 100.0, "prepare": 40.0, "assemble": 10.0, "inference": inference, "head": 30.0, "picture": 20.0}
    hops |= {"worker": inference + 250.0, "total": inference + 500.0, "ahead": 700.0}
    values = {
        "started_at": iso(tx.now - timedelta(seconds=ago_s - 0.2)),
        "done_at": iso(tx.now - timedelta(seconds=ago_s - 2)),
        "package": package or scenes.HEAD,
    } | more
    result = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, hops_ms=hops)
    return study, scenes.add_analysis(tx, study, result, **values)


@pytest.mark.req("R-STUDIES-05")
def test_every_hop_from_the_last_image_to_the_result_is_told(store, scenes):
    with store.db.write() as tx:
        study, analysis = timed(tx, scenes)
        tx.execute("UPDATE revision SET ready_mono = last_image_mono + 0.9")
        at = iso(tx.now - timedelta(seconds=99.4))
        tx.insert(
            "association", id=1, source="CT-1", calling_ae="A", called_ae="B", address="", opened_at=at, closed_at=at
        )
    told = store.timings.of_study(study)[analysis]
    assert told.hops_ms == {
        Hop.CLOSED: 600.0,
        Hop.DECIDED: 300.0,
        Hop.QUEUED: 200.0,
        Hop.DECODE: 100.0,
        Hop.PREPARE: 50.0,
        Hop.INFERENCE: 1000.0,
        # Head and picture, and the 50 ms of the worker that nobody named.
        Hop.FINISH: 100.0,
    }
    assert (told.ahead_ms, told.total_ms) == (700.0, 1500.0)
    assert set(told.hops_ms) == set(TO_RESULT)


def test_an_association_that_nothing_waited_for_is_no_hop(store, scenes):
    with store.db.write() as tx:
        study, analysis = timed(tx, scenes)
        tx.insert(
            "association",
            id=1,
            source="CT-1",
            calling_ae="A",
            called_ae="B",
            address="",
            opened_at=tx.at,
            closed_at=tx.at,
        )
    hops = store.timings.of_study(study)[analysis].hops_ms
    assert Hop.CLOSED not in hops
    assert hops[Hop.DECIDED] == 40.0


@pytest.mark.req("R-STUDIES-05")
def test_after_the_result_pacs_and_people_are_told_beside_one_another(store, scenes):
    with store.db.write() as tx:
        study, analysis = timed(tx, scenes)
        after = lambda s: iso(tx.now - timedelta(seconds=98 - s))  # noqa: E731
        for ms in (30.0, 45.0):
            tx.journal(DeliveryBuilt(analysis=analysis, object="sr", size=1, ms=ms), study_id=study)
        tx.journal(DeliveryBuilt(analysis=analysis + 1, object="sr", size=1, ms=9000.0), study_id=study)
        scenes.add_delivery(tx, study, analysis_id=analysis, sent_at=after(1.2))
        scenes.add_delivery(tx, study, kind="seg", analysis_id=analysis, sent_at=after(1.5))
        scenes.add_delivery(tx, study, kind="statement", analysis_id=analysis, sent_at=after(60))
        scenes.add_alert(
            tx, study, analysis, raised_at=after(0), presented_at=after(0.1), acknowledged_at=after(20),
            communicated_at=after(80),
        )  # fmt: skip
    hops = store.timings.of_study(study)[analysis].hops_ms
    assert {hop: ms for hop, ms in hops.items() if hop not in TO_RESULT} == {
        Hop.ENCODE: 75.0,
        Hop.ACCEPTED: 1500.0,
        Hop.PRESENTED: 100.0,
        Hop.SEEN: 19_900.0,
        Hop.TOLD: 60_000.0,
    }


def test_silent_and_running_analyses_have_no_time_to_tell(store, scenes):
    with store.db.write() as tx:
        study, _ = timed(tx, scenes, role="silent")
        scenes.add_analysis(tx, study, None)
    assert store.timings.of_study(study) == {}


@pytest.mark.req("R-STUDIES-05")
def test_usual_is_of_the_last_30_days_of_this_package_and_not_of_what_was_late_or_failed(store, scenes, clock):
    day = 86_400.0
    with store.db.write() as tx:
        for n in range(1, 101):
            timed(tx, scenes, inference=float(n), ago_s=n * 1000.0)
        timed(tx, scenes, inference=1e6, late=1)
        timed(tx, scenes, inference=1e6, ago_s=31 * day)
        timed(tx, scenes, inference=1e6, package=scenes.CHEST)
        study = scenes.add_study(tx)
        missed = AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.FAILED, hops_ms={"inference": 1e6})
        scenes.add_analysis(tx, study, missed)
    usual = store.timings.usual(scenes.HEAD)
    assert usual.analyses == 100
    spread = usual.hops[Hop.INFERENCE]
    assert (spread.p50_ms, spread.p95_ms, spread.n) == (50.0, 95.0, 100)
    assert (usual.total.p50_ms, usual.total.p95_ms) == (550.0, 595.0)
    assert Hop.TOLD not in usual.hops
    assert store.timings.usual("never seen").analyses == 0


@pytest.mark.req("R-STUDIES-04")
def test_usual_rests_on_the_newest_and_is_found_anew_once_a_minute(store, scenes, clock, monkeypatch):
    monkeypatch.setattr(module, "LOOKED_AT", 5)
    with store.db.write() as tx:
        for n in range(20):
            timed(tx, scenes, inference=1.0 if n < 5 else 1e6, ago_s=100.0 + n)
    assert store.timings.usual(scenes.HEAD).hops[Hop.INFERENCE].p95_ms == 1.0
    with store.db.write() as tx:
        for _ in range(5):
            timed(tx, scenes, inference=2.0, ago_s=10.0)
    assert store.timings.usual(scenes.HEAD).hops[Hop.INFERENCE].p95_ms == 1.0
    clock.advance(61)
    assert store.timings.usual(scenes.HEAD).hops[Hop.INFERENCE].p95_ms == 2.0


def test_a_measured_hop_is_never_below_nothing_though_the_clock_was_set_back(store, scenes):
    with store.db.write() as tx:
        study, analysis = timed(tx, scenes)
        later = iso(tx.now)
        tx.execute("UPDATE analysis SET ready_at = ?", (later,))
    assert store.timings.of_study(study)[analysis].hops_ms[Hop.QUEUED] == 0.0
