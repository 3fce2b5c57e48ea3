"""How far the wall clock is to be trusted."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from appliance.clock import clock_quality, has_rtc, kept_error_us

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


@pytest.mark.req("R-FLEET-37")
@pytest.mark.parametrize(
    ("now", "error_us", "rtc", "quality"),
    [
        (NOW, 2_000, True, "ntp"),
        (NOW, 15_999_999, False, "ntp"),
        (NOW, 16_000_000, True, "rtc"),
        (NOW, 16_000_000, False, "none"),
        (NOW, None, True, "rtc"),
        (NOW, None, False, "none"),
        (datetime(1970, 1, 1, 0, 5, tzinfo=timezone.utc), 2_000, True, "none"),
    ],
)
def test_a_clock_is_kept_by_a_time_server_or_by_the_machine_or_by_nobody(now, error_us, rtc, quality):
    assert clock_quality(now, error_us=lambda: error_us, rtc=lambda: rtc) == quality


def test_the_kernel_answers_in_microseconds_and_a_machine_without_rtc_has_none(tmp_path):
    error = kept_error_us()
    assert error is None or 0 <= error <= 2**40
    assert not has_rtc(tmp_path)
    assert not has_rtc(tmp_path / "none")
    (tmp_path / "rtc0").touch()
    assert has_rtc(tmp_path)
