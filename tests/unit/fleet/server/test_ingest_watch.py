"""A dead ingest is loud, begun anew so many times with longer waits, and then it ends the server."""

from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from appliance.clock import FakeClock
from appliance.fleet.server.ingest_watch import MOST_RESTARTS, IngestDead, IngestWatch

pytestmark = pytest.mark.req("R-FLEET-86")


class Mortal:
    """A worker that dies when told."""

    def __init__(self):
        self.is_alive, self.stopped = False, []

    def start(self):
        self.is_alive = True

    def stop(self, wait_s=60.0):
        self.is_alive = False
        self.stopped.append(wait_s)


class Ward:
    """The watch and all its workers."""

    def __init__(self):
        self.clock, self.figures, self.made = FakeClock(), CollectorRegistry(), []
        self.watch = IngestWatch(self._make, self.clock, self.figures)
        self.watch.start()

    def _make(self):
        self.made.append(Mortal())
        return self.made[-1]

    def kill(self):
        self.made[-1].is_alive = False

    def wait(self):
        """Seconds until another lives."""
        seconds = 0
        while self.watch.look() is None:
            self.clock.advance(1)
            seconds += 1
        return seconds

    def figure(self, name):
        return self.figures.get_sample_value(name)


@pytest.fixture
def ward():
    return Ward()


def test_another_takes_the_place_of_a_dead_one_which_is_ended_and_told_loudly(ward, caplog):
    assert (ward.watch.look(), ward.figure("scanside_fleet_ingest_alive")) == (ward.made[0], 1)
    ward.kill()
    assert ward.watch.look() is None
    assert ward.figure("scanside_fleet_ingest_alive") == 0
    assert ward.made[0].stopped == [0.0]  # one that hangs is not waited for
    assert [(one.levelno, "DEAD" in one.message) for one in caplog.records] == [(logging.CRITICAL, True)]
    ward.wait()
    assert ward.watch.look() is ward.made[1]
    assert ward.figure("scanside_fleet_ingest_alive") == ward.figure("scanside_fleet_ingest_restarts_total") == 1


def test_the_waits_grow_and_after_so_many_deaths_the_server_ends(ward):
    waits = []
    for _ in range(MOST_RESTARTS):
        ward.kill()
        waits.append(ward.wait())
    assert waits == [1, 2, 4, 8, 16]
    ward.kill()
    with pytest.raises(IngestDead, match="its unit starts it again"):
        ward.watch.look()
    assert ward.made[-1].stopped


def test_deaths_that_are_far_apart_do_not_add_up(ward):
    for _ in range(3 * MOST_RESTARTS):
        ward.kill()
        assert ward.wait() == 1
        ward.clock.advance(3600)


def test_the_end_of_the_server_ends_the_worker_in_order(ward):
    ward.watch.stop()
    assert ward.made[0].stopped == [60.0]
