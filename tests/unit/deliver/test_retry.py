"""The rules of trying again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.deliver.retry import (
    AssociationLost,
    ContextRefused,
    NoAssociation,
    Verdict,
    judge,
    next_try,
)


@given(attempt=st.integers(1, 10**6), seed=st.integers())
def test_every_wait_lies_between_a_second_and_five_minutes(attempt, seed):
    assert 1.0 <= next_try(attempt, random.Random(seed)) <= 300.0


def test_waits_grow_to_five_minutes_and_two_boxes_do_not_knock_in_step():
    waits = [next_try(n, random.Random(n)) for n in range(1, 12)]
    assert waits[0] <= 2.0
    assert waits[9] >= 150.0
    assert next_try(8, random.Random(1)) != next_try(8, random.Random(2))


@pytest.mark.req("R-FORWARD-02")
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.STORED),
        (0xB000, Verdict.STORED),
        (0xB006, Verdict.STORED),
        (0xB007, Verdict.STORED),
        (0x0107, Verdict.STORED),
        (0x0111, Verdict.STORED),
        (0xA700, Verdict.RETRY),
        (0xA7FF, Verdict.RETRY),
        (0x0110, Verdict.RETRY),
        (0x0124, Verdict.RETRY),
        (0x0213, Verdict.RETRY),
        (0xFE00, Verdict.RETRY),
        (0x4242, Verdict.RETRY),
        (0x0117, Verdict.PARK),
        (0x0122, Verdict.PARK),
        (0xA900, Verdict.PARK),
        (0xA9FF, Verdict.PARK),
        (0xC000, Verdict.PARK),
        (0xCFFF, Verdict.PARK),
    ],
)
def test_each_status_of_the_standard_has_one_consequence(status, verdict):
    judgement = judge(status)
    assert judgement.verdict is verdict
    if verdict is not Verdict.STORED:
        assert f"0x{status:04X}" in judgement.words


def test_a_corrected_image_that_the_pacs_calls_a_duplicate_is_not_taken_for_stored():
    judgement = judge(0x0111, version_n=2)
    assert judgement.verdict is Verdict.PARK
    assert "earlier version" in judgement.words


def test_a_refused_class_is_parked_and_a_lost_association_is_tried_again():
    assert judge(ContextRefused("no", for_good=True)).verdict is Verdict.PARK
    assert judge(ContextRefused("not now", for_good=False)).verdict is Verdict.RETRY
    assert judge(AssociationLost("gone")).verdict is Verdict.RETRY
    assert judge(NoAssociation("away")).words == "away"
