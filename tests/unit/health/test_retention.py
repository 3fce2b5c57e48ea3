"""The stage that removes what may go: files, rows, and what no row names any more."""

from __future__ import annotations

import os

import pytest
from built_kit import say_built
from plan_kit import plan_for

from appliance.config import Config
from appliance.health.retention import RetentionStage
from appliance.records import AnalysisResult, DeliveryKind, Outcome
from appliance.store.destinations import forget, tell_gone
from appliance.store.ending import OwedResult
from appliance.store.facts import Kind
from appliance.store.rebuild import recover
from appliance.store.reissue import reissue_for_review
from appliance.store.spool import PICTURES, RESULTS

HOUR, DAY = 3600, 86400


@pytest.fixture
def study(store, make_header, receive):
    """A study of a parallel source with one analysis that has a picture and an SR, all sent; returns the analysis."""

    def make(n=1):
        stored = store.studies.add_new(
            receive(make_header(n, study_instance_uid=f"1.2.{n}", series_instance_uid=f"1.2.{n}.1")), ()
        )
        series = store.revisions.open_series()[-1]
        revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
        plan = plan_for(revision_id)
        (analysis_id,) = store.analyses.route(stored.study_id, (revision_id,), (plan,), (), lambda *_: ())
        picture = store.spool.write_blob(PICTURES, b"png", suffix=".png")
        result = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, pictures=(picture,))
        store.analyses.finish(analysis_id, result, (OwedResult(destination="pacs", kind=DeliveryKind.SR),))
        say_built(store, analysis_id, path=store.spool.write_blob(RESULTS, b"sr"))
        for delivery in store.deliveries.next_owed("pacs", store.db.clock.now(), 10):
            store.deliveries.sent(delivery.id, 0)
        return analysis_id

    return make


def stage(store, clock, **retention):
    return RetentionStage(store, Config.model_validate({"retention": retention}), clock)


def run(stage, clock, hours):
    clock.advance(hours * HOUR)
    while stage.step():
        pass


def files(store):
    return {kind: len(list(store.spool.iter_files(kind))) for kind in ("store", RESULTS, PICTURES)}


@pytest.mark.req("R-RETAIN-01")
@pytest.mark.req("R-RETAIN-04")
def test_images_go_after_three_days_and_results_after_a_year(store, study, clock):
    study(1)
    keeping = stage(store, clock)
    run(keeping, clock, 71)
    assert files(store) == {"store": 1, RESULTS: 1, PICTURES: 1}
    run(keeping, clock, 2)
    assert files(store) == {"store": 0, RESULTS: 1, PICTURES: 1}
    assert recover(store, None) == {}
    run(keeping, clock, 24 * 366)
    assert files(store) == {"store": 0, RESULTS: 0, PICTURES: 0}
    assert store.issues.open() == []
    kinds = [fact.kind for fact in store.journal.after(0)]
    assert (kinds.count(Kind.IMAGES_REMOVED), kinds.count(Kind.RESULTS_REMOVED)) == (1, 1)


def test_several_studies_go_one_in_a_step_and_the_times_are_settings(store, study, clock):
    for n in (1, 2, 3):
        study(n)
    keeping = stage(store, clock, images_h=1)
    clock.advance(2 * HOUR)
    assert [keeping.step() for _ in range(4)] == [True, True, True, False]
    assert files(store)["store"] == 0


def test_a_file_that_is_lost_or_cannot_be_read_keeps_nothing_back(store, study, clock):
    study(1)
    (path,) = store.spool.iter_files()
    store.spool.path(path).unlink()
    keeping = stage(store, clock)
    run(keeping, clock, 73)
    assert store.db.one("SELECT pixel_sha256 FROM version")["pixel_sha256"] == "unreadable"


@pytest.mark.req("R-RETAIN-04")
def test_files_that_no_row_names_go_after_a_day_and_what_is_named_or_young_or_older_than_the_database_stays(
    store, study, clock
):
    study(1)
    now = clock.now().timestamp()
    for path in [*store.spool.iter_files(RESULTS), *store.spool.iter_files(PICTURES)]:
        os.utime(store.spool.path(path), (now, now))

    def leave(kind, suffix, age_s):
        path = store.spool.path(store.spool.write_blob(kind, b"left over", suffix=suffix))
        at = clock.now().timestamp() - age_s
        os.utime(path, (at, at))
        return path

    keeping = stage(store, clock)
    clock.advance(3 * DAY + 1)
    old = [leave(RESULTS, ".dcm", 2 * DAY), leave(PICTURES, ".png", 2 * DAY), leave(PICTURES, ".npz", 2 * DAY)]
    stay = [leave(RESULTS, ".dcm", HOUR), leave(PICTURES, ".png", HOUR), leave(RESULTS, ".dcm", 30 * DAY)]
    while keeping.step():
        pass
    assert [path.exists() for path in old] == [False] * 3
    assert [path.exists() for path in stay] == [True] * 3
    assert files(store) == {"store": 0, RESULTS: 3, PICTURES: 2}
    (fact,) = [fact for fact in store.journal.after(0) if fact.kind == Kind.LEFTOVERS_REMOVED]
    assert fact.body["files"] == 3


@pytest.mark.req("R-RETAIN-02")
def test_a_destination_that_is_gone_from_the_configuration_or_renamed_lets_nothing_go_and_is_told_of(
    store, study, clock
):
    study(1)
    pacs = {"kind": "dicom", "name": "pacs", "host": "127.0.0.1", "port": 104, "ae_title": "PACS", "commitment": True}

    def configured(**changes):
        return Config.model_validate({"destinations": [{**pacs, **changes}]})

    def keeps(config):
        tell_gone(store.db, [one.name for one in config.destinations])
        run(RetentionStage(store, config, clock), clock, 100)
        return files(store)["store"], [(issue.code, issue.subject) for issue in store.issues.open()]

    asked = [row["id"] for row in store.db.all("SELECT id FROM delivery")]
    store.commitments.asked(store.commitments.begin("pacs", "9.1", asked))
    assert keeps(configured()) == (1, [])
    assert keeps(configured(name="pacs-2")) == (1, [("DESTINATION_GONE", "pacs")])
    assert "1 that it got are not committed to" in store.issues.open()[0].detail["why"]
    assert keeps(configured()) == (1, [])
    assert keeps(configured(commitment=False)) == (0, [])


def test_what_is_owed_to_a_destination_that_is_gone_is_told_of(store, study, clock):
    study(1)
    with store.db.write() as tx:
        tx.execute("UPDATE delivery SET state = 'owed'")
    tell_gone(store.db, ["other"])
    (issue,) = store.issues.open()
    assert (issue.code, issue.subject) == ("DESTINATION_GONE", "pacs")
    assert "1 objects are owed to it" in issue.detail["why"]


def test_what_is_owed_anew_to_a_destination_that_is_gone_is_told_without_a_restart(store, study, clock):
    analysis_id = study(1)
    keeping = stage(store, clock)
    tell_gone(store.db, [])
    assert store.issues.open() == []
    with store.db.write() as tx:
        reissue_for_review(tx, tx.all("SELECT * FROM delivery WHERE analysis_id = ?", (analysis_id,)), 1, 1)
    run(keeping, clock, 1)
    (issue,) = store.issues.open()
    assert (issue.code, issue.subject) == ("DESTINATION_GONE", "pacs")
    forget(store.db, "pacs", [], "replaced")
    run(keeping, clock, 1)
    assert store.issues.open() == []
