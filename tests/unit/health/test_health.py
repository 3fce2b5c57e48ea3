"""Checks and the watchdog: progress, not life."""

from __future__ import annotations

import threading

import pytest

from appliance.config import Retention
from appliance.health.checks import ClockJumpCheck, DiskCheck, StagesCheck
from appliance.health.housekeeping import HousekeepingStage
from appliance.health.stage import HealthStage
from appliance.stage import Beat, run_stage
from appliance.store.facts import Kind


class Idle:
    name = "idle"
    max_step_s = 10.0

    def step(self):
        return False


@pytest.mark.fault("T48")
@pytest.mark.req("R-STORE-13")
def test_watchdog_is_fed_only_while_every_stage_ends_its_steps_in_time(clock):
    told = []
    quick, stuck = Beat(Idle(), clock), Beat(Idle(), clock)
    health = HealthStage([], [quick, stuck], tell=told.append)
    health.step()
    assert told == ["WATCHDOG=1"]
    clock.advance(15.1)
    quick.mark()
    health.step()
    assert told == ["WATCHDOG=1"], "one stage is stuck: silence"
    stuck.mark()
    health.step()
    assert told == ["WATCHDOG=1"] * 2


def test_wall_clock_jump_does_not_make_a_stage_late_and_is_journalled(store, clock):
    beat = Beat(Idle(), clock)
    check = ClockJumpCheck(store, clock)
    for by_s in (3600, -86400, 12 * 365 * 86400):
        clock.jump(by_s)
        check.run()
        assert not beat.is_late(0)
    jumps = [fact.body["by_s"] for fact in store.journal.after(0) if fact.kind is Kind.CLOCK_JUMPED]
    assert jumps == [3600, -86400, 12 * 365 * 86400]


def test_reserve_that_is_reached_is_an_issue_until_there_is_room_again(store):
    check = DiskCheck(store)
    store.spool.reserve_bytes = 1 << 60
    check.run()
    check.run()
    assert [issue.code for issue in store.issues.open()] == ["DISK_RESERVE"]
    store.spool.reserve_bytes = 0
    check.run()
    assert store.issues.open() == []


def test_bug_in_a_stage_is_tried_again_and_becomes_an_issue_when_it_stays(store, clock, caplog):
    stop, steps = threading.Event(), []

    class Broken(Idle):
        name = "broken"

        def step(self):
            steps.append(1)
            if len(steps) == 3:
                stop.set()
            raise ZeroDivisionError

    beat = Beat(Broken(), clock)
    check = StagesCheck(store, [beat])
    run_stage(Broken(), beat, stop, threading.Event(), idle_s=0.001)
    check.run()
    assert [(issue.code, issue.subject) for issue in store.issues.open()] == [("STAGE_FAILING", "broken")]
    assert "a bug in this step" in caplog.text
    beat.failures = 0
    check.run()
    assert store.issues.open() == []


@pytest.mark.req("R-STORE-14")
def test_journal_older_than_its_days_goes_an_hour_after_the_start_and_no_sooner(store, clock):
    store.studies.refused(association_id=None, source="CT-1", status=0, message="no")
    first = store.journal.after(0)[0].seq
    clock.jump(400 * 86400)
    store.studies.refused(association_id=None, source="CT-1", status=1, message="no")
    stage = HousekeepingStage(store, Retention(), clock)

    stage.step()
    assert store.journal.after(0)[0].seq == first
    clock.advance(3601)
    stage.step()

    assert store.journal.after(0)[0].seq > first
    assert [fact.body["status"] for fact in store.journal.after(0) if fact.kind is Kind.REFUSED] == [1]
