"""What the gates say of numbers, and what follows."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.fleet.server.rollout.gates import Facts, Seen, Times, is_settled, judge, verdict_of_wave
from appliance.fleet.server.rollout.plan import BoxWord, Gate, Gates, Pause, Plan, Verdict
from appliance.fleet.server.rollout.sequential import Stratum
from appliance.fleet.server.rollout.watch import word_of
from appliance.fleet.wire_jobs import JobState

pytestmark = pytest.mark.req("R-FLEET-75")

W = BoxWord
NOW = dt.datetime(2026, 3, 2, 9, 30, tzinfo=dt.timezone.utc)


def seen(**counts):
    return [Seen(BoxWord[word]) for word, n in counts.items() for _ in range(n)]


def words(facts, gates=None):
    return {one.gate: one.word for one in judge(facts, gates or Gates()).verdicts}


def good(boxes=10, n=4000, rate=0.08):
    """A wave of which everything is known, and nothing has changed."""
    k = round(n * rate)
    return Facts(
        boxes=seen(SUCCEEDED=boxes),
        strata=[Stratum(8000, round(8000 * rate), n, k)],
        times=[Times(2 * n, 800.0, n, 820.0)],
        engines=boxes,
    )


def test_a_wave_like_the_weeks_before_passes_every_gate():
    judged = judge(good(), Gates())
    assert {one.word for one in judged.verdicts} == {"passed"}
    assert verdict_of_wave(judged.verdicts, settled=True, patient=True) is True


def test_a_verdict_names_alpha_power_the_smallest_change_and_both_n():
    alerts = next(one for one in judge(good(n=60), Gates()).verdicts if one.gate is Gate.ALERTS)
    assert alerts.word == "not_judged"
    assert (alerts.figures["alpha"], alerts.figures["power"], alerts.figures["factor"]) == (0.02, 0.9, 2.0)
    assert alerts.n == 60 < alerts.needed


@pytest.mark.parametrize("factor", [2.2, 0.4, 0.0], ids=["doubled", "halved", "vanished"])
def test_alerts_that_come_more_often_or_more_rarely_stop_it(factor):
    facts = dataclasses.replace(good(), strata=[Stratum(8000, 640, 4000, round(320 * factor))])
    judged = judge(facts, Gates())
    assert words(facts)[Gate.ALERTS] == "failed"
    assert verdict_of_wave(judged.verdicts, settled=True, patient=True) is Pause.ALERTS
    assert verdict_of_wave(judged.verdicts, settled=False, patient=True) is Pause.ALERTS


def test_a_look_is_taken_once_so_that_looking_often_costs_nothing():
    facts = dataclasses.replace(good(), strata=[Stratum(8000, 640, 100, 8)])
    first = judge(facts, Gates())
    assert list(first.looks) == ["1"]
    # The same look again, whatever came since: it is not taken anew before n has doubled.
    worse = dataclasses.replace(facts, looks=first.looks, strata=[Stratum(8000, 640, 150, 120)])
    assert judge(worse, Gates()).looks == first.looks
    assert words(worse)[Gate.ALERTS] == "not_judged"
    later = dataclasses.replace(worse, strata=[Stratum(8000, 640, 200, 120)])
    assert words(later)[Gate.ALERTS] == "failed"


def test_a_look_that_stopped_it_is_not_forgotten():
    stopped = judge(dataclasses.replace(good(), strata=[Stratum(8000, 640, 100, 60)]), Gates())
    facts = dataclasses.replace(good(), looks=stopped.looks)
    assert words(facts)[Gate.ALERTS] == "failed"


def test_a_first_installation_has_nothing_to_be_held_against():
    facts = dataclasses.replace(good(), strata=[Stratum(0, 0, 4000, 320)], times=[])
    assert words(facts)[Gate.ALERTS] == "not_judged"
    assert words(facts)[Gate.LATENCY] == "not_judged"


def test_slower_by_half_and_by_more_than_the_slack_stops_it():
    assert words(dataclasses.replace(good(), times=[Times(400, 800, 400, 1600)]))[Gate.LATENCY] == "failed"
    assert words(dataclasses.replace(good(), times=[Times(400, 80, 400, 160)]))[Gate.LATENCY] == "passed"
    assert words(dataclasses.replace(good(), times=[Times(400, 800, 199, 1600)]))[Gate.LATENCY] == "not_judged"


def test_a_slow_box_that_sees_more_now_is_no_slower_version():
    mixed = [Times(1000, 300.0, 100, 300.0), Times(100, 3000.0, 1000, 3000.0)]
    assert words(dataclasses.replace(good(), times=mixed))[Gate.LATENCY] == "passed"


@pytest.mark.parametrize("code", Gates().safety_codes)
def test_one_box_with_a_code_of_clinical_safety_is_enough_at_once(code):
    facts = dataclasses.replace(good(), boxes=[*seen(WORKING=200), Seen(W.ROLLED_BACK, code)])
    judged = judge(facts, Gates())
    assert verdict_of_wave(judged.verdicts, settled=False, patient=True) is Pause.SAFETY


def test_one_of_forty_stops_it_and_one_of_sixty_does_not():
    at_40 = dataclasses.replace(good(), boxes=[*seen(SUCCEEDED=39, WORKING=100), Seen(W.FAILED, "DISK_FULL")])
    at_60 = dataclasses.replace(good(), boxes=[*seen(SUCCEEDED=59, WORKING=100), Seen(W.FAILED, "DISK_FULL")])
    assert words(at_40)[Gate.FAILURES] == "failed"
    assert words(at_60)[Gate.FAILURES] == "passed"


def test_one_of_the_first_four_ends_says_nothing_yet_but_the_only_box_of_a_wave_does():
    early = dataclasses.replace(good(), boxes=[*seen(SUCCEEDED=3, WORKING=100), Seen(W.FAILED, "DISK_FULL")])
    assert words(early)[Gate.FAILURES] == "not_judged"
    assert words(Facts(boxes=[Seen(W.FAILED, "DISK_FULL")]))[Gate.FAILURES] == "failed"


def test_declined_held_and_late_boxes_are_no_failures_and_no_successes():
    facts = Facts(boxes=seen(DECLINED=3, LEFT_OUT=4, TIMED_OUT=5, SOAK_NOT_JUDGED=6, PENDING=7, CANCELED=2))
    failures = judge(facts, Gates()).verdicts[0]
    assert (failures.word, failures.n, failures.value) == ("not_judged", 0, None)


def test_engines_that_fell_back_stop_it():
    assert words(dataclasses.replace(good(), not_ready=1))[Gate.ACCEPTANCE] == "failed"


def test_what_a_person_accepted_holds_up_no_more_and_is_still_not_called_passed():
    facts = dataclasses.replace(good(n=60), accepted=frozenset({Gate.ALERTS, Gate.LATENCY}))
    judged = judge(facts, Gates())
    assert words(facts)[Gate.ALERTS] == "not_judged"
    assert verdict_of_wave(judged.verdicts, settled=True, patient=True) is True
    other = judge(dataclasses.replace(facts, accepted=frozenset({Gate.LATENCY})), Gates())
    assert verdict_of_wave(other.verdicts, settled=True, patient=True) is False
    assert verdict_of_wave(other.verdicts, settled=True, patient=False) is Pause.NOT_JUDGED


@given(
    st.lists(st.builds(lambda w, a: (w, a), st.sampled_from(["passed", "failed", "not_judged"]), st.booleans())),
    st.booleans(),
    st.booleans(),
)
def test_no_next_wave_while_a_gate_failed_or_was_not_judged_without_a_person(found, settled, patient):
    verdicts = [
        Verdict(gate=gate, word=word, accepted=accepted and word == "not_judged")
        for gate, (word, accepted) in zip(Gate, found, strict=False)
    ]
    follows = verdict_of_wave(verdicts, settled=settled, patient=patient)
    if follows is True:
        assert settled
        assert all(one.word == "passed" or (one.word == "not_judged" and one.accepted) for one in verdicts)
    if any(one.word == "failed" for one in verdicts):
        assert isinstance(follows, Pause)


def test_boxes_that_are_away_do_not_hold_a_wave_up_and_boxes_that_are_there_do():
    gates = Gates()
    away, there = Seen(W.PENDING, is_there=False), Seen(W.PENDING)
    assert is_settled([*seen(SUCCEEDED=9), away, away], gates)
    assert not is_settled([*seen(SUCCEEDED=9), there], gates)
    assert not is_settled([*seen(SUCCEEDED=9, WAITING=1)], gates)
    assert not is_settled([*seen(SUCCEEDED=9, SOAKING=1)], gates)
    assert is_settled([*seen(SUCCEEDED=19, SOAKING=1)], gates)
    assert is_settled([*seen(SUCCEEDED=9, SOAK_NOT_JUDGED=3, DECLINED=1, ASKED_SITE=1, LEFT_OUT=2)], gates)
    assert not is_settled([away, away], gates)


@pytest.mark.parametrize(
    ("state", "code", "hours", "word"),
    [
        ("", "", 0, W.WAITING),
        ("QUEUED", "", 1, W.PENDING),
        ("QUEUED", "", 169, W.TIMED_OUT),
        ("WAIT_APPROVAL", "", 1, W.ASKED_SITE),
        ("DOWNLOADING", "", 1, W.WORKING),
        ("SOAKING", "", 24, W.SOAKING),
        ("SOAKING", "", 121, W.SOAK_NOT_JUDGED),
        ("SUCCEEDED", "", 400, W.SUCCEEDED),
        ("ALREADY_INSTALLED", "", 1, W.HAD_IT),
        ("FAILED", "DISK_FULL", 1, W.FAILED),
        ("ROLLED_BACK", "CRASHES", 1, W.ROLLED_BACK),
        ("REJECTED", "REFUSED_BY_SITE", 1, W.DECLINED),
        ("REJECTED", "WINDOW", 1, W.TIMED_OUT),
        ("REJECTED", "HELD", 1, W.TIMED_OUT),
        ("REJECTED", "EXPIRED", 1, W.TIMED_OUT),
        ("REJECTED", "NO_CLOCK", 1, W.TIMED_OUT),
        ("REJECTED", "GRANT_FORGED", 1, W.FAILED),
        ("TIMED_OUT", "EXPIRED", 1, W.TIMED_OUT),
        ("CANCELED", "", 1, W.CANCELED),
    ],
)
def test_what_a_box_says_of_its_job_is_counted_as(state, code, hours, word):
    made = NOW - dt.timedelta(hours=hours)
    assert word_of(state, code, "", made, made, Plan(), NOW) is word


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_of_a_job_has_a_word(state):
    assert word_of(str(state), "", "", NOW, NOW, Plan(), NOW) in W
