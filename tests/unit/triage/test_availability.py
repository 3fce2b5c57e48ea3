"""When AI_UNAVAILABLE is raised, how long the worker is left alone, what clears it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.triage.availability import FIRST_WAIT_S, LONGEST_WAIT_S, WorkerPolicy


def ready_policy(now=0.0):
    policy = WorkerPolicy(now)
    policy.started(now)
    policy.ready(now)
    return policy


def die(policy, now, study=None, *, back=True):
    policy.ended(now, study)
    if back and policy.wants_worker(now):
        policy.started(now)
        policy.ready(now)


@pytest.mark.fault("T29")
@pytest.mark.req("R-TRIAGE-04")
def test_three_different_studies_within_a_minute_make_the_ai_unavailable():
    policy = ready_policy()
    die(policy, 1, "a")
    die(policy, 20, "b")
    assert policy.unavailable(20) is None
    die(policy, 60, "c")
    assert "3 different studies" in policy.unavailable(60).why


def test_one_poison_study_that_dies_twice_does_not_take_the_ai_from_the_others():
    policy = ready_policy()
    for at in (1, 2, 3, 4):
        die(policy, at, "poison")
    assert policy.unavailable(4) is None
    die(policy, 5)
    assert "5 times" in policy.unavailable(5).why


def test_deaths_spread_over_more_than_a_minute_do_not_count_together():
    policy = ready_policy()
    for n, at in enumerate((0, 40, 80, 120, 160, 200)):
        die(policy, at, str(n))
        assert policy.unavailable(at) is None


@pytest.mark.req("R-TRIAGE-04")
def test_a_box_without_a_worker_for_ten_seconds_says_so_and_still_waits_for_one():
    policy = WorkerPolicy(100)
    assert policy.unavailable(110) is None
    assert "10 s" in policy.unavailable(110.1).why
    assert policy.wants_worker(5000), "nobody came; whoever comes now is welcome"
    policy.started(5000)
    policy.ready(5001)
    assert policy.unavailable(5001) is None


@pytest.mark.req("R-TRIAGE-05")
def test_the_wait_doubles_to_ten_minutes_and_a_ready_worker_ends_it():
    policy = ready_policy()
    for study in "abc":
        die(policy, 0, study, back=False)
    at, waits = 0.0, []
    for _ in range(6):
        step = next(s for s in range(1, 2000) if policy.wants_worker(at + s))
        waits.append(step)
        at += step
        policy.started(at)
        policy.ended(at)
    assert waits == [60, 120, 240, 480, 600, 600]
    at += LONGEST_WAIT_S
    policy.started(at)
    policy.ready(at + 1)
    assert policy.unavailable(at + 1) is None


def test_a_worker_that_hangs_while_it_loads_is_given_up_after_a_minute():
    policy = WorkerPolicy(0)
    policy.started(0)
    assert policy.wants_worker(60)
    assert not policy.wants_worker(60.1)
    policy.ended(60.2)  # the one that was given up
    assert not policy.wants_worker(60 + FIRST_WAIT_S)
    assert policy.wants_worker(60.1 + FIRST_WAIT_S)


def test_trouble_soon_after_it_was_cleared_waits_longer_and_later_trouble_does_not():
    policy = ready_policy()
    for study in "abc":
        die(policy, 0, study, back=False)
    policy.started(60)
    policy.ready(61)
    for study in "def":
        die(policy, 62, study)
    assert not policy.wants_worker(62 + 119)
    assert policy.wants_worker(62 + 120)
    policy.ready(183)
    for study in "ghi":
        die(policy, 184 + LONGEST_WAIT_S, study)
    assert policy.wants_worker(184 + LONGEST_WAIT_S + FIRST_WAIT_S)


steps = st.lists(
    st.tuples(
        st.floats(0, 90, allow_nan=False),
        st.sampled_from(["started", "ready", "ended", "look"]),
        st.sampled_from([None, "a", "b", "c", "d"]),
    ),
    max_size=60,
)


@pytest.mark.req("R-TRIAGE-04", "R-TRIAGE-05")
@given(steps)
def test_whatever_happens_the_silence_is_loud_and_a_worker_is_asked_for_again(events):
    """At any moment: not ready for 10 s => unavailable; unwanted => unavailable; never unwanted for over 10 min."""
    now, policy = 0.0, WorkerPolicy(0.0)
    ready, since = False, 0.0
    for gap, what, study in events:
        now += gap
        if what == "started":
            policy.started(now)
        elif what == "ready" and policy.wants_worker(now):
            policy.ready(now)
            ready = True
            assert policy.unavailable(now) is None
        elif what == "ended":
            policy.ended(now, study)
            ready, since = False, now if ready else since
        if not policy.wants_worker(now):
            assert policy.unavailable(now) is not None
            assert policy.unavailable(now).since_mono <= now
        if not ready and now - since > 10:
            assert policy.unavailable(now) is not None
    assert any(policy.wants_worker(now + s) for s in range(0, int(LONGEST_WAIT_S) + 1, 20))
