"""What may leave the box and what may not, and how it behaves where its images are gone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from plan_kit import plan_for

from appliance.errors import ConflictError, NotFoundError
from appliance.intake.record import change_of
from appliance.records import Actor, ActorKind, AnalysisResult, DeliveryKind, FindingResult, Outcome, Reason
from appliance.store.ending import OwedResult
from appliance.store.facts import Kind
from appliance.store.receiving import Original
from appliance.store.retention import note_clock_jump
from appliance.store.settle import withdraw_alert
from appliance.store.studies import Change

H72 = timedelta(hours=72)
NOTHING = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)
FLAGGED = FindingResult(id="bleed", score=9.0, operating_point="d", threshold=1.0, flagged=True, category=1)
FINDING = AnalysisResult(outcome=Outcome.FINDING, findings=(FLAGGED,))
PERSON = Actor(kind=ActorKind.PERSON, name="Kim", role="technologist")


@pytest.fixture
def study(store, make_header, receive):
    """A study of two images that are owed to the PACS, analysed, with an SR owed; everything else is the test's."""

    def make(result=NOTHING, *, originals=True, notify="active"):
        owed = (Original(destination="pacs", calling_ae="CT1"),) if originals else ()
        stored = [store.studies.add_new(receive(make_header(n)), owed) for n in (1, 2)]
        (series,) = store.revisions.open_series()
        revision_id = store.revisions.make_ready(store.revisions.evidence(series), "quiet", {})
        plan = plan_for(revision_id, notify=notify)
        study_id = stored[0].study_id
        (analysis_id,) = store.analyses.route(study_id, (revision_id,), (plan,), (), lambda *_: ())
        store.analyses.start(analysis_id)
        store.analyses.finish(analysis_id, result, (OwedResult(destination="pacs", kind=DeliveryKind.SR),))
        return study_id, analysis_id

    return make


def send_all(store, *, committed=True):
    at = store.db.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    with store.db.write() as tx:
        tx.execute(
            "UPDATE delivery SET state = 'sent', sent_at = ?, committed_at = ?, sha256 = 'x',"
            " path = coalesce(path, 'results/00/' || printf('%032x', id) || '.dcm')",
            (at, at if committed else None),
        )


def due(store, committing=("pacs",)):
    return store.retention.studies_due(store.db.clock.now() - H72, committing)


def remove(store, study_id, committing=("pacs",)):
    files = store.retention.image_files(study_id)
    before = store.db.clock.now() - H72
    paths = store.retention.remove_images(study_id, before, committing, {one.version_id: "pixels" for one in files})
    for path in paths:
        store.spool.remove(path)
    return paths


def facts(store, kind):
    return [fact for fact in store.journal.after(0) if fact.kind == kind]


@pytest.mark.req("R-RETAIN-01")
def test_images_go_so_long_after_the_last_owed_thing_was_committed_and_the_rows_stay(store, study, clock):
    study_id, _ = study()
    clock.advance(3600)
    send_all(store)
    clock.advance(72 * 3600 - 1)
    assert due(store) == []
    clock.advance(2)
    assert due(store) == [study_id]
    assert len(remove(store, study_id)) == 2
    assert list(store.spool.iter_files()) == []
    assert due(store) == []
    view = store.views.study(study_id).study
    assert (view.images, view.images_removed_at) == (2, clock.now())
    (fact,) = facts(store, Kind.IMAGES_REMOVED)
    assert (fact.study_id, fact.body["images"]) == (study_id, 2)


@pytest.mark.req("R-RETAIN-02")
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE delivery SET state = 'owed' WHERE id = 1",
        "UPDATE delivery SET state = 'held' WHERE kind = 'sr'",
        "UPDATE delivery SET state = 'parked' WHERE id = 1",
        "UPDATE delivery SET committed_at = NULL WHERE id = 1",
        "UPDATE delivery SET committed_at = NULL WHERE kind = 'sr'",
        "UPDATE series SET open = 1",
        "UPDATE revision SET routed = 0",
        "UPDATE analysis SET state = 'queued'",
        "UPDATE version SET state = 'comparing' WHERE id = 1",
    ],
)
def test_nothing_goes_while_something_of_the_study_is_open(store, study, clock, sql):
    study_id, _ = study()
    send_all(store)
    clock.advance(1000 * 3600)
    assert due(store) == [study_id]
    with store.db.write() as tx:
        assert tx.execute(sql).rowcount
    assert due(store) == []
    assert remove(store, study_id) == []


@pytest.mark.req("R-RETAIN-06")
def test_images_under_an_alert_stay_until_somebody_has_acknowledged_it_and_a_while_longer(store, study, clock):
    study_id, _ = study(FINDING)
    send_all(store)
    (alert,) = store.views.open_alerts()
    clock.advance(30 * 24 * 3600)
    assert due(store) == []
    assert remove(store, study_id) == []
    store.alerts.presented(alert.id)
    assert due(store) == [], "a screen has painted it, nobody has said that it was seen"
    store.alerts.acknowledge(alert.id, PERSON)
    clock.advance(72 * 3600 - 1)
    assert due(store) == [], "who acknowledges wants to look"
    clock.advance(2)
    assert due(store) == [study_id]
    assert len(remove(store, study_id)) == 2


@pytest.mark.req("R-RETAIN-06")
@pytest.mark.parametrize("why", ["passive", "withdrawn", "its result is gone"])
def test_an_alert_that_asks_nobody_any_more_keeps_no_images(store, study, clock, why):
    study_id, analysis_id = study(FINDING, notify="passive" if why == "passive" else "active")
    send_all(store)
    if why == "withdrawn":
        with store.db.write() as tx:
            withdraw_alert(tx, study_id, 1, "superseded")
    if why == "its result is gone":
        store.retention.results_removed(analysis_id, 1)
    clock.advance(72 * 3600 + 1)
    assert len(store.views.open_alerts()) == (why != "withdrawn")
    assert due(store) == [study_id]


@pytest.mark.req("R-RETAIN-02")
def test_a_conflict_and_a_scanners_open_request_keep_the_images(store, study, make_header, receive, clock):
    study_id, _ = study()
    send_all(store)
    known = store.studies.versions("1.2.3.4.1")
    store.studies.add_version(receive(make_header(1)), known, Change.PIXELS, ())
    clock.advance(1000 * 3600)
    assert due(store) == []
    store.studies.choose(known[0].id, lambda _: ())
    assert due(store) == [study_id]
    store.commitment_requests.add(
        source="CT-1",
        transaction_uid="9.1",
        calling_ae="CT1",
        called_ae="BOX",
        association_id=1,
        wanted={"1.2.3.4.2": "1.2.840.10008.5.1.4.1.1.2"},
    )
    assert due(store) == []
    store.commitment_requests.decide("CT-1", lambda _: ("pacs",))
    assert due(store) == []
    store.commitment_requests.reported(store.commitment_requests.next_report("CT-1"))
    assert due(store) == [study_id]
    assert len(remove(store, study_id)) == 3


@pytest.mark.req("R-RETAIN-02")
def test_what_a_destination_without_commitment_was_sent_goes_and_a_later_commitment_does_not_ask_for_it(
    store, study, clock
):
    study_id, _ = study()
    send_all(store, committed=False)
    clock.advance(1000 * 3600)
    assert due(store) == []
    assert due(store, ()) == [study_id]
    remove(store, study_id, ())
    asked = store.commitments.due("pacs", clock.now(), 10)
    assert [one.sop_instance_uid for one in asked if one.sop_instance_uid.startswith("1.2.3")] == []


def test_images_of_a_parallel_source_go_after_the_last_image(store, study, clock, make_header, receive):
    study_id, _ = study(originals=False)
    with store.db.write() as tx:
        tx.execute("DELETE FROM delivery")
    clock.advance(72 * 3600 + 1)
    assert due(store) == [study_id]
    store.studies.add_new(receive(make_header(3)), ())
    assert due(store) == []


@pytest.mark.req("R-RETAIN-02")
def test_a_clock_that_was_set_ahead_takes_nothing_with_it_and_stops_nothing_for_good(store, study, clock):
    study_id, analysis_id = study()
    year = timedelta(days=366)

    def may_go():
        images = store.retention.studies_due(store.retention.before(H72), ("pacs",))
        return images == [study_id], store.retention.results_due(store.retention.before(year), ("pacs",)) == [
            analysis_id
        ]

    def jump(by_s):
        clock.jump(by_s)
        with store.db.write() as tx:
            note_clock_jump(tx, by_s)

    send_all(store)
    clock.advance(3600)
    jump(400 * 86400.0)
    jump(3.0)  # the work of NTP
    assert may_go() == (False, False)
    # A restart in between changes nothing.
    store.db.boot = "another"
    clock.advance(70 * 3600)
    assert may_go() == (False, False)
    clock.advance(3 * 3600)
    assert may_go() == (True, False)
    clock.advance(365 * 86400)
    assert may_go() == (True, True)


def test_a_box_whose_clock_stands_still_every_night_still_removes_images(store, study, clock):
    study_id, _ = study()
    send_all(store)
    for _ in range(7):
        clock.advance(12 * 3600)
        clock.jump(12 * 3600)
        with store.db.write() as tx:
            note_clock_jump(tx, 12 * 3600.0)
    assert store.retention.studies_due(store.retention.before(H72), ("pacs",)) == [study_id]


@pytest.mark.req("R-RETAIN-03")
def test_without_its_images_a_study_is_not_processed_again_and_the_word_says_why(store, study, clock):
    study_id, analysis_id = study()
    send_all(store)
    clock.advance(1000 * 3600)
    remove(store, study_id)
    with pytest.raises(ConflictError, match="images removed: 2 images of study 1 left this box"):
        store.analyses.reprocess(study_id)
    with store.db.write() as tx:
        tx.execute("UPDATE analysis SET reason = ?", (str(Reason.AI_UNAVAILABLE),))
    assert store.analyses.requeue_unanalysed() == 0
    with pytest.raises(NotFoundError, match="images removed: 2 images of analysis 1"):
        store.deliveries.to_build(analysis_id)


@pytest.mark.req("R-RETAIN-03")
def test_an_image_that_comes_again_is_here_again_and_nothing_else_follows(store, study, clock, make_header, receive):
    study_id, analysis_id = study()
    send_all(store)
    clock.advance(1000 * 3600)
    remove(store, study_id)
    for n in (1, 2):
        again = receive(make_header(n))
        (version,) = store.studies.versions(f"1.2.3.4.{n}")
        assert store.studies.add_repeat(again, version.id)
        assert store.studies.versions(f"1.2.3.4.{n}")[0].path == again.path
    assert store.deliveries.next_owed("pacs", clock.now(), 10) == []
    assert len(facts(store, Kind.IMAGE_RESTORED)) == 2
    store.analyses.reprocess(study_id)
    assert len(store.deliveries.to_build(analysis_id).files) == 2
    assert not store.studies.add_repeat(receive(make_header(1)), version.id)


@pytest.mark.req("R-RETAIN-03")
def test_a_correction_is_told_from_other_pixels_after_the_images_have_gone(store, study, clock, make_header, receive):
    study_id, _ = study()
    send_all(store)
    clock.advance(1000 * 3600)
    remove(store, study_id)
    (version,) = store.studies.versions("1.2.3.4.1")
    corrected = make_header(1, patient_name="Roe^Jane")
    assert version.removed_pixels == "pixels"
    assert change_of(version, corrected, same_pixel_bytes=version.removed_pixels == "pixels") is Change.IDENTITY
    other_syntax = make_header(1, transfer_syntax_uid="1.2.840.10008.1.2.4.90")
    assert change_of(version, other_syntax, same_pixel_bytes=False) is Change.PIXELS  # nobody can compare
    store.studies.add_version(receive(corrected), [version], Change.IDENTITY, ())
    assert store.views.study(study_id).study.identity.patient_name == "Roe^Jane"
    reissued = store.deliveries.analyses_to_build()
    with pytest.raises(NotFoundError, match="images removed: 1 images"):
        store.deliveries.to_build(reissued[0])
    (second,) = store.studies.versions("1.2.3.4.2")
    store.studies.add_version(receive(make_header(2, patient_name="Roe^Jane")), [second], Change.IDENTITY, ())
    assert len(store.deliveries.to_build(reissued[0]).files) == 2


@pytest.mark.req("R-RETAIN-04")
def test_results_stay_a_year_and_go_only_when_nothing_of_them_is_owed(store, study, clock):
    _, analysis_id = study()
    send_all(store)
    year = timedelta(days=366)
    clock.advance(366 * 86400)
    before = clock.now() - year
    assert store.retention.results_due(before, ("pacs",)) == []
    clock.advance(1)
    before = clock.now() - year
    with store.db.write() as tx:
        tx.execute("UPDATE delivery SET state = 'parked' WHERE kind = 'sr'")
    assert store.retention.results_due(before, ("pacs",)) == []
    with store.db.write() as tx:
        tx.execute("UPDATE delivery SET state = 'sent' WHERE kind = 'sr'")
    assert store.retention.results_due(before, ("pacs",)) == [analysis_id]
    files = store.retention.result_files(analysis_id)
    assert len(files) == 1
    assert store.retention.named_results(files[0][:10]) == set(files)
    store.retention.results_removed(analysis_id, len(files))
    assert store.retention.results_due(before, ("pacs",)) == []
    assert store.retention.named_results(files[0][:10]) == set()
    assert store.views.study(1).study.analyses[0].files_removed
    assert store.views.study(1).study.outcome is Outcome.NOTHING_FLAGGED
