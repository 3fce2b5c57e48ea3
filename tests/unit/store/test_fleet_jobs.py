"""Rows of the fleet's jobs: once by id and counter, moved by whoever saw them last, and never half."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from package_rows_kit import PERSON

from appliance.errors import ConflictError, NotFoundError, StoreError
from appliance.store.facts.admin import RestartAsked
from appliance.store.fleet_jobs import JobMoved, NewJob, Taken


def new(n, **changes):
    return NewJob(**{"id": f"{n:026d}", "ctr": n, "op": "ping", "envelope": b"{}", **changes})


def facts(store):
    return [f.body for f in store.journal.after(0, 1000) if f.kind == "fleet_job_step"]


@pytest.mark.req("R-FLEET-40")
def test_job_is_found_by_its_id_and_by_its_number(store):
    jobs = store.fleet_jobs
    assert jobs.take(new(7), "ACCEPTED") is Taken.NEW
    assert jobs.get("7") == jobs.get(f"{7:026d}")
    for ref in ("8", "", "x" * 26, "7' OR 1=1", "9" * 30, "７"):
        with pytest.raises(NotFoundError):
            jobs.get(ref)


@pytest.mark.req("R-FLEET-40")
def test_id_counts_once_whatever_its_counter_says(store):
    jobs = store.fleet_jobs
    jobs.take(new(1), "ACCEPTED")
    assert jobs.take(new(1, ctr=2), "ACCEPTED") is Taken.KNOWN
    assert jobs.ctr == 1


@pytest.mark.req("R-FLEET-40")
def test_two_readers_of_one_message_make_one_job(store):
    """The link and a stick may bring the same one at the same moment."""
    got = []
    threads = [threading.Thread(target=lambda: got.append(store.fleet_jobs.take(new(1), "ACCEPTED"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == [Taken.KNOWN] * 3 + [Taken.NEW]
    assert len(facts(store)) == 1


@pytest.mark.req("R-FLEET-42")
def test_step_and_fact_are_one(store):
    jobs = store.fleet_jobs
    jobs.take(new(1), "ACCEPTED")
    with store.db.write() as tx:
        tx.execute("CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT raise(ABORT, 'full'); END")
    with pytest.raises(StoreError):
        jobs.step(jobs.get("1"), "SUCCEEDED")
    assert (jobs.get("1").state, jobs.get("1").version) == ("ACCEPTED", 1)


@pytest.mark.req("R-FLEET-42")
def test_who_saw_an_older_row_moves_nothing(store):
    jobs = store.fleet_jobs
    jobs.take(new(1), "ACCEPTED")
    old = jobs.get("1")
    now = jobs.step(old, "DOWNLOADING", work={"tries": 1}, percent=10.0)
    assert (now.version, now.work) == (2, {"tries": 1})
    for act in (
        lambda: jobs.step(old, "SUCCEEDED"),
        lambda: jobs.note(old, {}),
        lambda: jobs.note(old, {}, RestartAsked()),
    ):
        with pytest.raises(JobMoved):
            act()
    assert jobs.get("1") == now
    assert [f["state"] for f in facts(store)] == ["ACCEPTED", "DOWNLOADING"]
    assert not [f for f in store.journal.after(0, 1000) if f.kind == "restart_asked"]


@pytest.mark.req("R-FLEET-42")
def test_job_that_has_ended_never_moves_again(store):
    jobs = store.fleet_jobs
    jobs.take(new(1), "ACCEPTED")
    ended = jobs.step(jobs.get("1"), "FAILED", code="BUG")
    with pytest.raises(JobMoved):
        jobs.step(ended, "SUCCEEDED")
    assert jobs.open() == []


@pytest.mark.req("R-FLEET-42")
def test_note_and_its_fact_are_one(store):
    jobs = store.fleet_jobs
    jobs.take(new(1), "ACCEPTED")
    row = jobs.note(jobs.get("1"), {"a": 1}, RestartAsked(), seq_as="asked")
    (fact,) = [f for f in store.journal.after(0, 1000) if f.kind == "restart_asked"]
    assert row.work == {"a": 1, "asked": fact.seq}
    assert len(facts(store)) == 1, "the server hears nothing of a note"


@pytest.mark.req("R-FLEET-40")
def test_open_jobs_are_never_forgotten_and_counters_stay(store, clock):
    jobs = store.fleet_jobs
    for n in (1, 2, 3):
        jobs.take(new(n), "ACCEPTED")
    jobs.step(jobs.get("2"), "SUCCEEDED")
    clock.advance(86_400)
    assert jobs.forget(clock.now() - timedelta(days=2)) == 0
    assert jobs.forget(clock.now()) == 1
    assert [row.ctr for row in jobs.open()] == [1, 3]
    assert jobs.ctr == 3
    assert jobs.take(new(2), "ACCEPTED") is Taken.REPLAYED


@pytest.mark.req("R-FLEET-47")
def test_answer_of_the_site_needs_a_job_that_waits_and_a_reason(store):
    jobs = store.fleet_jobs
    jobs.take(new(1), "ACCEPTED")
    for answer in (jobs.approve, jobs.refuse):
        with pytest.raises(ConflictError):
            answer("1", PERSON, "because")
    jobs.step(jobs.get("1"), "WAIT_APPROVAL", work={"kept": 1})
    with pytest.raises(ConflictError):
        jobs.refuse("1", PERSON, " ")
    row = jobs.approve("1", PERSON, "because")
    assert (row.state, row.approved_by, row.work) == ("WAIT_APPROVAL", "Kim", {"kept": 1})
    assert facts(store)[-1]["why"] == "because"


@pytest.mark.req("R-FLEET-45")
def test_open_jobs_are_read_by_their_index(store):
    plan = store.db.all(
        "EXPLAIN QUERY PLAN SELECT * FROM fleet_job WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'ROLLED_BACK',"
        " 'REJECTED', 'CANCELED', 'TIMED_OUT', 'REMOVED', 'ALREADY_INSTALLED') ORDER BY ctr"
    )
    assert any("fleet_job_open" in row["detail"] for row in plan)
