"""The whole box under kill -9, SIGTERM and power cuts while scanners send: nothing acknowledged is lost."""

from __future__ import annotations

import random
import threading

import pytest
from box_process import BoxProcess
from checker import check
from sender import Sender


@pytest.mark.fault("T01")
@pytest.mark.req("R-INTAKE-01")
def test_kill_at_random_times_under_eight_senders_loses_no_acknowledged_image(tmp_path, scale, wait_until):
    rng = random.Random(20261121)
    with BoxProcess(tmp_path) as box:
        senders = [Sender(box, seed + 1) for seed in range(8)]
        for _ in range(100 if scale == 1 else 4):
            threading.Event().wait(rng.uniform(0.1, 1.5))
            box.kill()
            box.start()
        # However little a busy machine has got done between two kills.
        wait_until(lambda: sum(len(sender.acknowledged) for sender in senders) > 50, 60)
        acknowledged = {}
        for sender in senders:
            acknowledged |= sender.end()
        assert box.terminate()[0] == 0
        box.start()  # the recovery of a clean stop changes nothing, and the last studies end
        threading.Event().wait(3.0)
        assert box.terminate()[0] == 0
    assert len(acknowledged) > 50
    assert check(tmp_path / "state", acknowledged, expect_outcomes=False) == []


@pytest.mark.fault("T49")
def test_sigterm_under_load_ends_in_time_and_loses_nothing(tmp_path, wait_until):
    with BoxProcess(tmp_path) as box:
        senders = [Sender(box, seed + 1) for seed in range(4)]
        wait_until(lambda: all(len(sender.acknowledged) > 5 for sender in senders))
        status, took_s = box.terminate()
        acknowledged = {}
        for sender in senders:
            acknowledged |= sender.end()
    assert status == 0
    assert took_s <= 30, "systemd's TimeoutStopSec"
    assert check(tmp_path / "state", acknowledged, expect_outcomes=False) == []
