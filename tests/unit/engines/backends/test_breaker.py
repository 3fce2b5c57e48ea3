"""The circuit breaker, in time that a test moves by hand."""

from __future__ import annotations

import pytest

from engines.backends.breaker import Breaker

pytestmark = pytest.mark.req("R-KSERVE-03")


class Hand:
    at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def breaker(hand):
    return Breaker(failures=3, rest_s=10, longest_rest_s=35, now=hand)


def test_it_opens_after_so_many_failures_in_a_row_and_not_before(breaker):
    breaker.failed()
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()
    assert breaker.rest_left_s == 10


def test_a_success_in_between_starts_the_count_again(breaker):
    for _ in range(5):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.allows()


def test_what_will_not_mend_itself_opens_it_at_once(breaker):
    breaker.failed(for_good=True)
    assert not breaker.allows()


def test_after_the_rest_one_question_decides(breaker, hand):
    breaker.failed(for_good=True)
    hand.at = 9.9
    assert not breaker.allows()
    hand.at = 10.0
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()
    hand.at = 10.0 + 20.0
    assert breaker.allows()
    breaker.succeeded()
    breaker.failed()
    breaker.failed()
    assert breaker.allows()


def test_rests_grow_to_a_bound_so_that_a_mended_server_is_found_again(breaker, hand):
    breaker.failed(for_good=True)
    rests = []
    for _ in range(5):
        rests.append(breaker.rest_left_s)
        hand.at += breaker.rest_left_s
        breaker.failed()
    assert rests == [10, 20, 35, 35, 35]
