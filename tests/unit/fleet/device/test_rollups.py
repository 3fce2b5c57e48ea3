"""What is drawn together is told once: over kill -9 at any point, over clock jumps, small cells later than others."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.fleet.device.ledger import Hours, Ledger
from appliance.fleet.device.rollups import RollupStage
from appliance.records import (
    SELF_TEST_SOURCE,
    Actor,
    ActorKind,
    AnalysisResult,
    FindingResult,
    Outcome,
    Reason,
    UserRole,
)
from appliance.store.database import Transaction
from appliance.store.facts import Kind
from appliance.store.facts.access import AccessDenied, AccountChanged, SignedIn, SignInFailed
from appliance.store.facts.alerts import AlertUpdated
from appliance.store.facts.analyses import AnalysisDone
from appliance.store.facts.reviews import ReviewSigned
from appliance.store.fleet_counts import Counts, Drawn, Which
from appliance.store.health_samples import Sample

pytestmark = pytest.mark.req("R-FLEET-31")
BLEED = FindingResult(id="bleed", score=0.9, operating_point="d", threshold=0.5, flagged=True, category=1)
NOTHING = AnalysisResult(outcome=Outcome.NOTHING_FLAGGED, hops_ms={"total": 900.0})
FOUND = AnalysisResult(outcome=Outcome.FINDING, findings=(BLEED,), hops_ms={"total": 1100.0})
MISSED = AnalysisResult(outcome=Outcome.NOT_ANALYSED, reason=Reason.QUALITY)


@pytest.fixture
def stage(store, clock):
    """The stage after its first look, at half past eight."""
    clock.advance(8.5 * 3600)
    made = RollupStage(store, clock)
    made.step()
    return made


@pytest.fixture
def ended(store, scenes):
    """``ended(result, ...)``: so many analyses end now; returns the last study and analysis."""

    def make(*results, source="CT-1", **more):
        with store.db.write() as tx:
            for result in results:
                study = scenes.add_study(tx, outcome=result.outcome, source=source)
                analysis = scenes.add_analysis(tx, study, result, **more)
                row = tx.one("SELECT * FROM analysis WHERE id = ?", (analysis,))
                tx.journal(
                    AnalysisDone(
                        analysis=analysis, package=row["package"], version=row["package_version"], role=row["role"],
                        outcome=str(result.outcome), reason=result.reason and str(result.reason),
                    ),
                    study_id=study,
                )  # fmt: skip
        return study, analysis

    return make


def told(store, k="results"):
    rows = (fact.body["record"] for fact in store.journal.after(0, 10_000, (Kind.FLEET_TOLD,)))
    return [row for row in rows if row["k"] == k]


def go(stage, clock, hours):
    """Time passes, in quarters of an hour."""
    for _ in range(int(hours * 4)):
        clock.advance(900)
        stage.step()


def test_an_hour_is_told_when_it_has_ended_with_everything_that_was_said_in_it(store, clock, stage, ended, scenes):
    ended(FOUND, NOTHING, NOTHING, MISSED, NOTHING)
    study, analysis = ended(FOUND, source="CT-2")
    ended(FOUND, source=SELF_TEST_SOURCE)
    ended(NOTHING, superseded_by=analysis)
    with store.db.write() as tx:
        tx.journal(AlertUpdated(alert=1, analysis=analysis), study_id=study)
    stage.step()
    assert told(store) == []
    go(stage, clock, 1)
    (row,) = told(store)
    assert row == {
        "k": "results", "package": scenes.HEAD, "version": "0.1.0", "role": "live", "hour": "2026-01-01T08Z",
        "hours": 1, "n": 6, "flagged": {"bleed": 2}, "nothing_flagged": 3, "not_analysed": {"quality": 1},
        "suppressed": 1, "reviewed": 0, "agreed": 0, "psi": {}, "ms": {"p50": 900.0, "p95": 1100.0, "p99": 1100.0},
    }  # fmt: skip
    go(stage, clock, 30)
    assert len(told(store)) == 1, "hours without anything are no rows"


def test_what_ended_in_the_new_hour_before_anybody_looked_is_told_with_that_hour(store, clock, stage, ended):
    clock.advance(1799)
    stage.step()
    ended(*[NOTHING] * 5)
    clock.advance(5)
    ended(*[FOUND] * 6)
    clock.advance(10)
    stage.step()
    go(stage, clock, 1)
    assert [(row["hour"][-3:], row["n"]) for row in told(store)] == [("08Z", 5), ("09Z", 6)]


def test_what_happened_between_two_fleets_is_none_of_their_business(store, clock, stage, ended):
    store.fleet.pass_over(0, 1)
    ended(*[NOTHING] * 5)
    store.fleet.leave()
    go(stage, clock, 1)
    ended(*[FOUND] * 6)
    go(stage, clock, 1)
    assert [row["n"] for row in told(store)] == [6]


def test_versions_and_roles_are_counted_apart(store, clock, stage, ended):
    ended(*[NOTHING] * 5)
    ended(*[NOTHING] * 6, role="shadow")
    ended(*[FOUND] * 7, package_version="0.2.0", role="silent")
    go(stage, clock, 1)
    found = {(row["version"], row["role"]): row["n"] for row in told(store)}
    assert found == {("0.1.0", "live"): 5, ("0.1.0", "shadow"): 6, ("0.2.0", "silent"): 7}


def test_a_small_hour_waits_for_the_next_and_a_small_day_is_told_as_a_day(store, clock, stage, ended):
    ended(FOUND, NOTHING)
    go(stage, clock, 1)
    assert told(store) == []
    go(stage, clock, 1)
    ended(NOTHING, NOTHING, NOTHING)
    go(stage, clock, 1)
    (row,) = told(store)
    assert (row["hour"], row["hours"], row["n"]) == ("2026-01-01T08Z", 3, 5)
    ended(FOUND)
    go(stage, clock, 24)
    _, day = told(store)
    assert (day["hour"], day["hours"], day["n"], day["flagged"]) == ("2026-01-01T11Z", 13, 1, {"bleed": 1})
    ended(NOTHING)
    go(stage, clock, 24)
    assert [(row["hour"], row["hours"]) for row in told(store)[2:]] == [("2026-01-02T00Z", 24)]


def test_what_a_radiologist_signed_is_counted_by_the_package_that_was_judged(store, clock, stage, ended):
    ended(*[FOUND] * 5)
    with store.db.write() as tx:
        ids = [row["id"] for row in tx.all("SELECT id FROM analysis")]
        for n, (analysis, is_right) in enumerate(zip(ids, (1, 1, 0, None, 1), strict=True)):
            study = tx.one("SELECT study_id FROM analysis WHERE id = ?", (analysis,))["study_id"]
            review = tx.insert(
                "review", study_id=study, version=1, decision="agree", note="of Mr Wang", basis="[]", seen="{}",
                opinion="", signed_at=tx.at, signed_by="Li", role="radiologist", organization="", counts=int(n < 4),
            )  # fmt: skip
            tx.execute(
                "INSERT INTO review_finding (review_id, n, analysis_id, finding, presence, flagged, is_right, added,"
                " code) VALUES (?, 1, ?, 'bleed', 'present', 1, ?, 0, '')",
                (review, analysis, is_right),
            )
            signed = ReviewSigned(
                review=review, version=1, predecessor=None, decision="agree", reason=None, findings=1, seen={}
            )
            tx.journal(signed, study_id=study)
    go(stage, clock, 1)
    (row,) = told(store)
    assert (row["reviewed"], row["agreed"]) == (3, 2), "test accounts and undetermined ones are not counted"


def test_access_is_counted_by_the_hour_and_names_nobody(store, clock, stage):
    li = Actor(kind=ActorKind.PERSON, name="Li Wei", role="radiologist")
    with store.db.write() as tx:
        for body in (
            *[SignedIn(how="password")] * 3,
            SignInFailed(how="password", account="li"),
            AccessDenied(route="/users"),
            AccountChanged(account="li", change="role", role=UserRole.RADIOLOGIST),
        ):
            tx.journal(body, actor=li)
    store.audit.accessed("audit export", li)
    store.audit.accessed("study", li, study_id=3)
    go(stage, clock, 2)
    (row,) = told(store, "access")
    assert row == {
        "k": "access", "hour": "2026-01-01T08Z", "signed_in": 3, "sign_in_failed": 1, "denied": 1,
        "accounts_changed": 1, "settings_changed": 0, "exports": 1,
    }  # fmt: skip


def test_a_day_tells_the_chain_and_what_sources_are_once(store, clock, stage):
    with store.db.write() as tx:
        for make, series, days in (("SIEMENS", 30, 4), ("GE", 19, 9), ("PHILIPS", 90, 2)):
            tx.execute(
                "INSERT INTO equipment VALUES (?, 'CT', ?, 'X', 'B30s', ?, ?, ?)",
                (f"CT-{make}", make, series, days, tx.at),
            )
    (anchor,) = told(store, "anchor")
    assert store.db.one("SELECT hash FROM journal WHERE seq = ?", (anchor["seq"],))["hash"] == anchor["hash"]
    go(stage, clock, 48)
    assert len(told(store, "anchor")) == 3
    first, second = told(store, "equipment")
    assert first == second
    assert first == {
        "k": "equipment",
        "source": 1,
        "modality": "CT",
        "make": "SIEMENS",
        "model": "X",
        "kernels": ["B30s"],
    }


def test_five_minutes_of_health_are_means_and_the_highest_of_heat_and_waits(store, clock, stage, ended):
    for n in range(5):
        ended(NOTHING)
        clock.advance(60)
        store.health.add(
            clock.now() - timedelta(minutes=1),
            Sample(cpu_percent=10.0 * n, temperature_c=50.0 + n, queue_age_s=n, analyses_waiting=n, throttled=n == 2),
        )
        stage.step()
    assert told(store, "health") == [], "the last minute may not be written yet"
    clock.advance(120)
    stage.step()
    (row,) = told(store, "health")
    assert row["minutes"] == 5
    assert row["machine"] == {"cpu": 20.0, "temperature_c": 54.0, "throttled": True}
    assert (row["studies"], row["waiting"], row["oldest_owed_s"], row["ms"]["p99"]) == (5, 4, 4.0, 900.0)
    go(stage, clock, 3)
    assert len(told(store, "health")) == 1


# Kill and clock ------------------------------------------------------------------------------------------------------


@pytest.mark.fault("T35")
@pytest.mark.parametrize("by_s", [365 * 86_400, 12 * 365 * 86_400, 3600, -1800, -3600, -86_400, -400 * 86_400])
def test_whatever_the_clock_does_each_result_is_told_once_under_an_hour_of_its_own(store, clock, stage, ended, by_s):
    minute = Sample(cpu_percent=1.0)
    total = 0
    for n in range(60):
        if n == 20:
            clock.jump(by_s)
        if n == 40:
            clock.jump(-by_s)
        for _ in range(6):
            store.health.add(clock.now() - timedelta(minutes=1), minute)
            ended(NOTHING if n % 3 else FOUND)
            total += 1
            clock.advance(300)
            stage.step()
    go(stage, clock, 50)
    rows = told(store)
    assert sum(row["n"] for row in rows) == total
    assert sum(row["flagged"].get("bleed", 0) for row in rows) == total / 3
    assert len({row["hour"] for row in rows}) == len(rows), "the server would take one for a correction of the other"
    assert all(row["n"] >= 5 or row["hours"] > 1 for row in rows)
    assert len(rows) <= 70
    assert len(told(store, "health")) <= total
    assert sum(row["minutes"] for row in told(store, "health")) <= total


def test_a_clock_that_is_set_back_tells_no_minute_twice(store, clock, stage):
    for _ in range(30):
        store.health.add(clock.now() - timedelta(minutes=1), Sample(cpu_percent=1.0))
        clock.advance(60)
        stage.step()
    before = sum(row["minutes"] for row in told(store, "health"))
    clock.jump(-1500)
    go(stage, clock, 1)
    assert sum(row["minutes"] for row in told(store, "health")) == before


@pytest.mark.fault("T36")
def test_a_kill_at_any_point_neither_loses_an_hour_nor_tells_it_twice(store, clock, stage, ended, monkeypatch):
    """The transaction is the only thing that is kept: it is broken off after each of its statements in turn."""
    ended(*[FOUND] * 5)
    ended(*[NOTHING] * 5, role="silent")
    with store.db.write() as tx:
        tx.journal(SignedIn(how="password"))
    clock.advance(3600)
    whole = {name: getattr(Transaction, name) for name in ("insert", "execute")}
    for allowed in range(4):
        left = [allowed]

        def dies(name, left=left):
            def write(self, *values, **more):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return whole[name](self, *values, **more)

            return write

        with monkeypatch.context() as patched:
            for name in whole:
                patched.setattr(Transaction, name, dies(name))
            with pytest.raises(KeyboardInterrupt):
                RollupStage(store, clock).step()
        assert told(store) == []
    RollupStage(store, clock).step()
    RollupStage(store, clock).step()
    assert sorted((row["role"], row["n"]) for row in told(store)) == [("live", 5), ("silent", 5)]
    assert len(told(store, "access")) == 1


WHICH = Which("p", "1", "live")


@settings(max_examples=settings.default.max_examples, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(-60, 60),  # the clock's next hour, from now
            st.lists(st.tuples(st.integers(-80, 80), st.integers(1, 7)), max_size=4),  # hours of rows, and how many
            st.booleans(),  # whether the box is started anew
        ),
        max_size=25,
    )
)
def test_however_hours_come_every_analysis_is_in_one_row_and_rows_never_share_an_hour(steps):
    now, seq, total = 490_000, 0, 0
    ledger = Ledger(now, 0)
    rows = []
    for by, found, restart in [*steps, (100, [], False), (100, [], False)]:
        now += by
        drawn = Drawn(seq := seq + 1)
        for hour, n in found:
            drawn.results.setdefault((now + hour, WHICH), Counts()).add(Counts(n=n, flagged=Counter(x=n)))
            total += n
        ledger.take(drawn, now)
        rows += ledger.close()
        if restart:
            ledger = Ledger.from_json(json.loads(json.dumps(ledger.to_json())))
    assert sum(row.counts.n for row in rows) == total == sum(row.counts.flagged["x"] for row in rows)
    assert len({row.hour for row in rows}) == len(rows)
    assert all(row.counts.n >= 5 or row.hours > 1 or len(rows) > 1 for row in rows)
    assert all(1 <= row.hours <= 24 for row in rows)


def test_told_hours_are_ranges_and_the_nearest_free_one_lies_before():
    hours = Hours()
    for begin in (3, 5, 4):
        hours.add(begin, begin + 1)
    assert hours.ranges == [(3, 6)]
    assert (hours.free(4), hours.free(7), hours.free(5)) == (2, 7, 2)
    hours.forget(5)
    assert hours.ranges == [(5, 6)]


def test_a_count_that_does_not_fit_stays_here_with_an_issue_and_the_rest_goes_on(store, clock, stage, ended, scenes):
    ended(*[NOTHING] * 5, package="Not A Name")
    ended(*[NOTHING] * 5)
    go(stage, clock, 2)
    assert [row["package"] for row in told(store)] == [scenes.HEAD]
    assert "FLEET_ROW_UNFIT" in {issue.code for issue in store.issues.open()}
    go(stage, clock, 2)
    assert len(told(store)) == 1
