"""Waits after failed attempts: they grow, end, take little memory, and cannot keep an account's owner out."""

from __future__ import annotations

import pytest

from appliance.clock import FakeClock
from appliance.web.throttle import _KEYS, Rate, SignInThrottle, Throttle, address_key

pytestmark = pytest.mark.req("R-ACCESS-06")


@pytest.fixture
def clock():
    return FakeClock()


def test_five_attempts_are_free_and_then_waits_double_up_to_a_quarter_of_an_hour(clock):
    throttle = Throttle(clock)
    assert [throttle.attempt("li") for _ in range(5)] == [0.0] * 5
    waits = []
    for _ in range(8):
        waits.append(throttle.attempt("li"))
        clock.advance(waits[-1])
        assert throttle.attempt("li") == 0
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]
    assert throttle.attempt("another") == 0


def test_who_waits_does_not_lengthen_the_wait(clock):
    throttle = Throttle(clock)
    for _ in range(5):
        throttle.attempt("li")
    assert [throttle.attempt("li") for _ in range(50)] == [30.0] * 50


def test_an_hour_later_nothing_is_held_against_anybody(clock):
    throttle = Throttle(clock)
    for _ in range(5):
        throttle.attempt("li")
    clock.advance(3601)
    assert [throttle.attempt("li") for _ in range(5)] == [0.0] * 5


def test_memory_is_bounded_whatever_names_are_tried(clock):
    throttle, rate = Throttle(clock), Rate(clock, 1, 60)
    for n in range(_KEYS + 500):
        throttle.attempt(str(n))
        rate.take(str(n))
    assert len(throttle._failures) == len(rate._times) == _KEYS


def test_who_fails_on_purpose_elsewhere_cannot_keep_the_owner_out(clock):
    throttle = SignInThrottle(clock)
    assert throttle.attempt("li", "10.0.0.1") == 0
    throttle.succeeded("li", "10.0.0.1")
    for n in range(5):
        assert throttle.attempt("Li", f"10.6.6.{n}") == 0
    assert throttle.attempt("li", "10.6.6.9") == 30
    assert throttle.attempt("LI", "10.0.0.1") == 0


def test_signing_in_oneself_does_not_clear_what_one_tried_on_others(clock):
    throttle = SignInThrottle(clock)
    for n in range(10):
        assert throttle.attempt(f"victim {n}", "10.6.6.6") == 0
        clock.advance(1)
        if n < 9:
            throttle.attempt("mallory", "10.6.6.6")
            throttle.succeeded("mallory", "10.6.6.6")
    assert throttle.attempt("victim 10", "10.6.6.6") > 0
    assert throttle.attempt("victim 10", "10.0.0.1") == 0


def test_a_rate_lets_so_many_through_in_any_such_time(clock):
    rate = Rate(clock, 2, 60)
    assert [rate.take("a"), rate.take("a")] == [0, 0]
    clock.advance(20)
    assert rate.take("a") == 40
    assert rate.take("b") == 0
    clock.advance(40)
    assert rate.take("a") == 0
    rate.give_back("a")
    assert rate.take("a") == 0


def test_a_machine_with_many_ipv6_addresses_is_one_caller():
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") != address_key("2001:db8:0:1::1")
    assert address_key("10.0.0.1") == "10.0.0.1" != address_key("10.0.0.2")
    assert address_key("::1") == "::1"
    assert address_key("") == ""
