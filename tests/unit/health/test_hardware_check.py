"""Heat, wear and a clock that is off are issues, of their own code, until they are over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from appliance.health.checks import HardwareCheck
from appliance.store.health_samples import Sample

pytestmark = pytest.mark.req("R-FLEET-91")


@pytest.fixture
def minutes(store, clock):
    """``minutes(n, **sample)``: so many pass like that, and the check looks; what stands then."""
    check = HardwareCheck(store, clock)

    def pass_by(n, **sample):
        for _ in range(n):
            clock.advance(60)
            store.health.add(clock.now() - timedelta(minutes=1), Sample(**sample))
            check.run()
        return [(one.code, str(one.severity)) for one in store.issues.open()]

    return pass_by


def test_a_box_that_heat_holds_back_is_told_and_a_peak_of_minutes_is_not(minutes):
    assert minutes(4, throttled=1.0) == []
    assert minutes(10, throttled=0.0) == []
    assert minutes(5, throttled=1.0) == [("MACHINE_THROTTLED", "warning")]
    assert minutes(8, throttled=0.0) == [("MACHINE_THROTTLED", "warning")]
    assert minutes(3, throttled=0.0) == []
    assert minutes(20) == [], "a machine that tells nothing is not held back"


def test_a_disk_at_the_end_of_its_life_is_told_until_there_is_another(minutes):
    assert minutes(2, disk_wear_percent=89.0) == []
    assert minutes(2, disk_wear_percent=90.0) == [("DISK_WORN", "warning")]
    assert minutes(11, disk_wear_percent=10.0) == []


def test_a_clock_that_is_off_is_told_louder_when_certificates_may_fail(minutes, store):
    for skew, standing in (
        ("", []),
        ("-4900", []),
        ("5100", [("CLOCK_OFF", "warning")]),
        ("-5100", [("CLOCK_OFF", "warning")]),
        ("301000", [("CLOCK_OFF", "fault")]),
        ("6000", [("CLOCK_OFF", "warning")]),
        ("1000", []),
    ):
        store.fleet.set_state("skew_ms", skew)
        assert minutes(1) == standing, skew


@pytest.mark.req("R-FLEET-88")
def test_a_box_that_left_its_fleet_has_nobody_s_clock_to_be_off_from(minutes, store):
    store.fleet.pass_over(0, 1)
    store.fleet.set_state("skew_ms", "6000")
    assert minutes(1) == [("CLOCK_OFF", "warning")]
    store.fleet.leave()
    assert minutes(1) == []
