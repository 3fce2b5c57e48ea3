"""Deliveries: order, retry, parking, building, and what the journal and the issues tell of them."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import pytest
from built_kit import say_built

from appliance.errors import NotFoundError
from appliance.records import Actor, ActorKind, AnalysisResult, DeliveryKind, Header, Identity, Outcome, Severity
from appliance.store.deliveries import HOLDS_ORDER_FOR
from appliance.store.facts import Kind
from appliance.store.jsonable import dump

PERSON = Actor(kind=ActorKind.PERSON, name="Kim", role="technologist")
CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def owe(store, clock):
    """``owe(study=1, n=3)``: ids of n originals owed to one destination; keywords set columns."""

    def insert(study=1, n=1, destination="pacs", **columns):
        ids = []
        with store.db.write() as tx:
            if tx.one("SELECT 1 FROM study WHERE id = ?", (study,)) is None:
                _insert_study(tx, study)
            for _ in range(n):
                count = tx.one("SELECT count(*) AS n FROM delivery")["n"]
                fields = {
                    "destination": destination,
                    "kind": "original",
                    "study_id": study,
                    "sop_instance_uid": f"1.2.{study}.{count}",
                    "sop_class_uid": CT,
                    "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                    "path": f"store/00/{count:032x}.dcm",
                    "sha256": "aa",
                    "calling_ae": "CT1",
                    "state": "owed",
                    "next_at": tx.at,
                    "owed_at": tx.at,
                }
                ids.append(tx.insert("delivery", **{**fields, **columns}))
        return ids

    return insert


def _insert_study(tx, study):
    identity = Identity(study_instance_uid=f"1.2.{study}", patient_name="Wang^XiaoDong=王^小东")
    tx.insert(
        "study",
        id=study,
        study_instance_uid=f"1.2.{study}",
        source="CT-1",
        patient_key="[]",
        identity=dump(identity),
        description="CT Head",
        study_date="20260101",
        study_time="0800",
        first_at=tx.at,
        last_at=tx.at,
    )


def _ids(store, clock, destination="pacs", batch=100):
    return [item.id for item in store.deliveries.next_owed(destination, clock.now(), batch)]


def _state(store, delivery_id):
    return store.db.one("SELECT * FROM delivery WHERE id = ?", (delivery_id,))


def _kinds(store):
    return [fact.kind for fact in store.journal.after(0)]


def test_what_is_owed_comes_in_the_order_in_which_it_was_owed(store, clock, owe):
    first, second = owe(1, n=2), owe(2, n=2)
    assert _ids(store, clock) == first + second
    assert _ids(store, clock, batch=3) == (first + second)[:3]
    assert _ids(store, clock, "elsewhere") == []


def test_later_images_of_a_study_wait_for_the_one_that_failed_and_other_studies_do_not(store, clock, owe):
    first, second = owe(1, n=3), owe(2, n=2)
    store.deliveries.failed(first[0], "out of resources", clock.now() + timedelta(seconds=60))
    assert _ids(store, clock) == second
    clock.advance(61)
    assert _ids(store, clock) == first + second


def test_an_image_that_keeps_failing_stops_holding_the_rest_of_its_study_but_is_still_owed(store, clock, owe):
    ids = owe(1, n=3)
    for _ in range(HOLDS_ORDER_FOR):
        assert _ids(store, clock)[0] == ids[0]
        store.deliveries.failed(ids[0], "aborted", clock.now() + timedelta(seconds=1))
        clock.advance(2)
    store.deliveries.failed(ids[0], "aborted", clock.now() + timedelta(seconds=60))
    assert _ids(store, clock) == ids[1:]
    clock.advance(61)
    assert _ids(store, clock) == ids


def test_parked_and_held_deliveries_hold_nobody_back(store, clock, owe):
    parked, held, free = owe(1), owe(1, state="held"), owe(1)
    store.deliveries.parked(parked[0], 0xC000, "cannot understand")
    assert _ids(store, clock) == free
    assert _state(store, held[0])["state"] == "held"


def test_a_clock_set_back_by_a_day_does_not_stop_deliveries(store, clock, owe):
    ids = owe(1, n=2)
    store.deliveries.failed(ids[0], "busy", clock.now() + timedelta(seconds=60))
    clock.jump(-86400)
    assert _ids(store, clock) == ids


def test_sent_is_told_once_and_never_undone(store, clock, owe):
    (one,) = owe()
    store.deliveries.sent(one, 0xB000)
    store.deliveries.sent(one, 0x0000)
    store.deliveries.failed(one, "late answer", clock.now())
    store.deliveries.parked(one, 0xC000, "late answer")
    row = _state(store, one)
    assert (row["state"], row["status"], row["attempt"]) == ("sent", 0xB000, 1)
    assert _kinds(store).count(Kind.DELIVERY_SENT) == 1
    assert _ids(store, clock) == []


def test_only_the_first_and_every_tenth_failure_are_journalled(store, clock, owe):
    (one,) = owe()
    for _ in range(21):
        store.deliveries.failed(one, "busy", clock.now(), 0xA700)
    failures = store.journal.after(0, kinds=(Kind.DELIVERY_FAILED,))
    assert [fact.body["attempt"] for fact in failures] == [1, 10, 20]
    assert _state(store, one)["attempt"] == 21


def test_a_parked_object_raises_one_issue_per_destination_and_a_retry_clears_it(store, clock, owe):
    one, two = owe(n=2)
    store.deliveries.parked(one, 0xA900, "does not match its class")
    store.deliveries.parked(two, 0xA900, "does not match its class")
    (issue,) = store.issues.open()
    assert (issue.code, issue.subject, issue.severity) == ("DELIVERY_PARKED", "pacs", Severity.FAULT)
    assert store.deliveries.retry("pacs", PERSON) == 2
    assert store.issues.open() == []
    assert _ids(store, clock) == [one, two]
    assert _state(store, one)["attempt"] == 0
    (fact,) = store.journal.after(0, kinds=(Kind.DELIVERY_RETRIED,))
    assert (fact.actor["name"], fact.body) == ("Kim", {"destination": "pacs", "deliveries": 2})


def test_a_retry_ends_every_wait_and_can_be_noticed_by_another_process(store, clock, owe):
    ids = owe(n=2)
    store.deliveries.failed(ids[0], "busy", clock.now() + timedelta(seconds=200))
    before = store.deliveries.retry_mark()
    assert store.deliveries.retry() == 2
    assert store.deliveries.retry_mark() != before
    assert _ids(store, clock) == ids


def test_a_retry_of_an_unknown_destination_says_what_to_do(store, owe):
    owe()
    with pytest.raises(NotFoundError, match="scanside dest list"):
        store.deliveries.retry("pcas")


def test_a_corrupt_file_is_a_fault_of_its_own(store, owe):
    (one,) = owe()
    store.deliveries.parked(one, None, "the file has changed on disk", corrupt=True)
    codes = {(issue.code, issue.severity, issue.study_id) for issue in store.issues.open()}
    assert ("SPOOL_CORRUPT", Severity.FAULT, 1) in codes


def test_an_unreachable_destination_is_told_once_and_becomes_an_issue_when_it_lasts(store, owe):
    (one,) = owe()
    for is_long in (False, False, True, True):
        store.deliveries.unreachable(one, "nothing listens", raise_issue_too=is_long)
    assert _kinds(store).count(Kind.DELIVERY_FAILED) == 1
    assert _state(store, one)["attempt"] == 0
    assert [(issue.code, issue.subject) for issue in store.issues.open()] == [("DESTINATION_UNREACHABLE", "pacs")]
    store.deliveries.reached("pacs")
    store.deliveries.reached("pacs")
    assert store.issues.open() == []


def test_the_backlog_counts_per_destination_with_age_and_last_error(store, clock, owe):
    first = owe(1, n=2)
    clock.advance(60)
    owe(1, destination="second", state="held", path=None)
    parked = owe(1)
    store.deliveries.failed(first[0], "busy", clock.now())
    store.deliveries.parked(parked[0], 0xC000, "cannot understand")
    sent = owe(1, destination="done")
    store.deliveries.sent(sent[0], 0)
    one, two = store.deliveries.backlog()
    assert (one.destination, one.owed, one.held, one.parked, one.last_error) == ("pacs", 2, 0, 1, "cannot understand")
    assert one.oldest_at == clock.now() - timedelta(seconds=60)
    assert (two.destination, two.owed, two.held, two.oldest_at) == ("second", 0, 1, None)


def test_reading_what_is_owed_does_not_search_what_was_sent(store):
    plan = store.db.all(
        "EXPLAIN QUERY PLAN SELECT * FROM delivery d WHERE d.destination = 'pacs' AND d.state = 'owed'"
        " AND d.state <> 'sent' ORDER BY d.id"
    )
    assert "delivery_open" in " ".join(row["detail"] for row in plan)


@pytest.fixture
def analysed(store, owe):
    """``analysed(predecessor=None)``: an analysis of one series of two images that owes an SR to two destinations."""

    def insert(study=1, predecessor=None, result=None, images=2):
        header = Header(
            sop_class_uid=CT,
            sop_instance_uid="x",
            transfer_syntax_uid="y",
            series_instance_uid="1.2.9",
            identity=Identity(study_instance_uid="1.2.1"),
            modality="CT",
            patient_age="030Y",
        )
        with store.db.write() as tx:
            if tx.one("SELECT 1 FROM study WHERE id = ?", (study,)) is None:
                _insert_study(tx, study)
            number = tx.one("SELECT count(*) AS n FROM analysis")["n"] + 1
            series = tx.insert(
                "series",
                study_id=study,
                series_instance_uid=f"1.2.9.{number}",
                sop_class_uid=CT,
                modality="CT",
                header=dump(header),
                changed_at=tx.at,
                changed_mono=0.0,
                boot=tx.boot,
            )
            revision = tx.insert(
                "revision",
                series_id=series,
                n=1,
                images=images,
                evidence="{}",
                ready_at=tx.at,
                ready_mono=0.0,
                last_image_mono=0.0,
                boot=tx.boot,
            )
            for n in range(images):
                _insert_image(tx, series, revision, number * 100 + n)
            analysis = tx.insert(
                "analysis",
                study_id=study,
                package="head-ct-hyperdensity",
                package_version="1.0.0",
                role="live",
                state="done",
                category=1,
                notify="active",
                intended_use="detection",
                ready_at=tx.at,
                ready_mono=0.0,
                boot=tx.boot,
                deadline_s=180.0,
                done_at=tx.at,
                result=result or dump(AnalysisResult(outcome=Outcome.NOTHING_FLAGGED)),
                predecessor=predecessor,
            )
            tx.execute("INSERT INTO analysis_input VALUES (?, 'ct', ?)", (analysis, revision))
        for destination in ("pacs", "test"):
            owe(
                study,
                destination=destination,
                kind="sr",
                state="held",
                path=None,
                sha256=None,
                analysis_id=analysis,
                sop_instance_uid=f"2.25.{analysis}",
                sop_class_uid="",
                transfer_syntax_uid="",
            )
        return analysis

    return insert


def _insert_image(tx, series, revision, n):
    instance = tx.insert("instance", sop_instance_uid=f"1.2.9.{n}", series_id=series)
    version = tx.insert(
        "version",
        instance_id=instance,
        n=1,
        state="current",
        path=f"store/00/{n + 10**9:032x}.dcm",
        size=1,
        data_sha256="aa",
        transfer_syntax_uid="y",
        meaning_digest="m",
        identity="{}",
        association_id=1,
        source="CT-1",
        received_at=tx.at,
        received_mono=0.0,
    )
    tx.execute("INSERT INTO revision_version VALUES (?, ?)", (revision, version))


def _built(store, analysis, kind=DeliveryKind.SR, identity_revision=1):
    path = "results/00/" + "0" * 32 + ".dcm"
    say_built(store, analysis, kind, identity_revision=identity_revision, path=path, sha256="bb")


def test_an_analysis_to_build_brings_all_that_its_report_tells(store, analysed):
    analysis = analysed()
    assert store.deliveries.analyses_to_build() == [analysis]
    owed = store.deliveries.to_build(analysis)
    assert owed.identity.patient_name == "Wang^XiaoDong=王^小东"
    assert (owed.package, owed.package_version, owed.header.patient_age) == ("head-ct-hyperdensity", "1.0.0", "030Y")
    assert owed.result.outcome is Outcome.NOTHING_FLAGGED
    assert [file.sop_instance_uid for file in owed.files] == ["1.2.9.100", "1.2.9.101"]
    assert owed.objects == {DeliveryKind.SR: f"2.25.{analysis}"}
    assert owed.predecessors == {DeliveryKind.SR: ()}


def test_a_built_object_is_owed_to_each_of_its_destinations(store, clock, analysed):
    analysis = analysed()
    _built(store, analysis)
    for destination in ("pacs", "test"):
        (item,) = store.deliveries.next_owed(destination, clock.now(), 10)
        assert (item.kind, item.sha256, item.sop_instance_uid) == (DeliveryKind.SR, "bb", f"2.25.{analysis}")
    assert store.deliveries.analyses_to_build() == []
    (fact,) = store.journal.after(0, kinds=(Kind.DELIVERY_BUILT,))
    assert fact.body == {"analysis": analysis, "object": "sr", "size": 5000, "ms": 12.0}


def test_an_object_that_cannot_be_built_is_an_issue_and_the_others_go_on_and_a_retry_builds_it_again(store, analysed):
    bad, good = analysed(), analysed(2)
    store.deliveries.build_failed(bad, DeliveryKind.SR, "package is not installed")
    assert store.deliveries.analyses_to_build() == [good]
    (issue,) = store.issues.open()
    assert (issue.code, issue.subject) == ("RESULT_NOT_BUILT", f"sr of analysis {bad}")
    assert issue.detail == {"reason": "package is not installed"}
    assert store.deliveries.retry("pacs") == 1
    assert store.deliveries.analyses_to_build() == [bad, good]
    _built(store, bad)
    assert store.issues.open() == []


def test_a_result_whose_file_has_rotted_is_built_again_at_a_retry_and_an_image_is_not(store, clock, analysed, owe):
    analysis = analysed()
    _built(store, analysis)
    (item,) = store.deliveries.next_owed("pacs", clock.now(), 10)
    store.deliveries.parked(item.id, None, "the file has changed on disk", corrupt=True)
    assert store.deliveries.analyses_to_build() == [], "not before somebody has looked"
    store.deliveries.retry("pacs")
    assert store.deliveries.analyses_to_build() == [analysis]
    _built(store, analysis)
    assert [one.id for one in store.deliveries.next_owed("pacs", clock.now(), 10)] == [item.id]
    (image,) = owe(2)
    store.deliveries.parked(image, None, "the file has changed on disk", corrupt=True)
    store.deliveries.retry("pacs")
    assert store.db.one("SELECT path FROM delivery WHERE id = ?", (image,))["path"]


def test_a_revision_names_the_reports_before_it_that_were_built(store, analysed):
    first = analysed()
    second = analysed(predecessor=first)
    third = analysed(predecessor=second)
    _built(store, first)
    assert _named(store, third) == [f"2.25.{first}"]
    _built(store, second)
    assert _named(store, third) == [f"2.25.{second}", f"2.25.{first}"]


def _named(store, analysis):
    return [one.sop_instance_uid for one in store.deliveries.to_build(analysis).predecessors[DeliveryKind.SR]]


def test_no_row_of_the_journal_names_a_uid_or_a_patient(store, clock, analysed, owe):
    analysis = analysed()
    _built(store, analysis)
    store.deliveries.build_failed(analysed(2), None, "no reason")
    one, two, three = owe(1, n=3)
    store.deliveries.sent(one, 0)
    store.deliveries.failed(two, "busy", clock.now())
    store.deliveries.parked(three, 0xC000, "cannot understand", corrupt=True)
    store.deliveries.retry()
    told = json.dumps([dataclasses.asdict(fact) for fact in store.journal.after(0)], default=str)
    for secret in ("2.25.", "1.2.9.", "1.2.1.", "XiaoDong"):
        assert secret not in told
