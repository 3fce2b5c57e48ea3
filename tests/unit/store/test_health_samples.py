"""Samples by the minute and by the hour."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from appliance.health.nvml import Gpu, read_gpu
from appliance.health.sampling import SamplingStage
from appliance.store.health_samples import Sample

pytestmark = pytest.mark.req("R-ADMIN-02")


@pytest.fixture
def minutes(store, clock):
    """``minutes(n, step)``: a row every ``step`` minutes, written at once; then one through the front door."""

    def write(n, step=1):
        now = clock.now().replace(second=0, microsecond=0)
        from appliance.store.database import iso

        with store.db.write() as tx:
            for ago in range(n, 0, -step):
                body = json.dumps({"studies": 1, "cpu_percent": 11.0 if ago % 60 == 0 else 10.0, "disk_percent": 50.0})
                tx.execute(
                    "INSERT INTO health_sample VALUES ('minute', ?, ?)", (iso(now - timedelta(minutes=ago)), body)
                )
        store.health.add(now, Sample(studies=1, cpu_percent=10.0, disk_percent=50.0))

    return write


def test_thirty_days_are_at_most_720_points_and_lose_no_study(store, clock, minutes):
    minutes(30 * 24 * 60, step=10)
    now = clock.now()
    points = store.health.between(now - timedelta(days=30), now)
    assert 715 <= len(points) <= 720
    assert points == sorted(points, key=lambda point: point.at)
    assert {point.sample.studies for point in points[1:-1]} == {6}
    assert {point.sample.cpu_percent for point in points[1:-1]} == {11.0}  # the highest of each hour


def test_minutes_become_hours_after_two_days_and_go_after_a_month(store, clock, minutes):
    minutes(4 * 24 * 60, step=5)
    (rows,) = store.db.all("SELECT count(*) AS n FROM health_sample WHERE span = 'minute'")
    assert rows["n"] <= 49 * 12
    clock.advance(timedelta(days=32).total_seconds())
    store.health.add(clock.now(), Sample(studies=0))
    (rows,) = store.db.all("SELECT count(*) AS n FROM health_sample")
    assert rows["n"] <= 2


def test_a_day_is_drawn_in_at_most_720_points(store, clock, minutes):
    minutes(24 * 60)
    now = clock.now()
    points = store.health.between(now - timedelta(days=1), now)
    assert 700 <= len(points) <= 720
    assert sum(point.sample.studies for point in points) >= 1400


def test_the_stage_writes_one_row_a_minute(store, clock):
    looked = []

    def machine(folder):
        looked.append(folder)
        return Sample(cpu_percent=3.0)

    stage = SamplingStage(store, clock, machine=machine)
    for _ in range(10):
        stage.step()
        clock.advance(30)
    now = clock.now()
    points = store.health.between(now - timedelta(hours=1), now + timedelta(minutes=1))
    assert len(points) == len(looked) == 4
    assert points[-1].sample.cpu_percent == 3.0
    assert points[-1].sample.queue_age_s == 0.0


def test_the_network_is_told_in_bytes_a_second_and_a_counter_that_begins_anew_tells_nothing(store, clock):
    counters = [(1_000, 500), (601_000, 60_500), None, (10, 10), (5, 20), (605, 20)]
    stage = SamplingStage(store, clock, machine=lambda _: Sample(), traffic=lambda: counters.pop(0))
    for _ in range(5):
        clock.advance(60)
        stage.step()
    points = store.health.between(clock.now() - timedelta(hours=1), clock.now() + timedelta(minutes=1))
    told = [(point.sample.network_in_bytes_s, point.sample.network_out_bytes_s) for point in points]
    assert told == [(10_000.0, 1_000.0), (None, None), (None, None), (None, None), (10.0, 0.0)]


def test_a_machine_without_an_nvidia_driver_says_nothing_of_a_gpu():
    assert read_gpu("libnot-here.so.1") == Gpu()
