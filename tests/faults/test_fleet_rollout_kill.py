"""kill -9 of the server while a roll-out goes on: no box is told twice, none is forgotten, and it comes to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
BOXES = [f"box-{n:07}" for n in range(1, 7)]


@pytest.mark.long
@pytest.mark.req("R-FLEET-72")
def test_killed_before_any_change_a_roll_out_tells_each_box_once_and_takes_it_back_once():
    shared = Path("/dev/shm")  # a killed process, unlike a power cut, loses nothing that it has written
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        told = subprocess.run(
            [sys.executable, str(SUPPORT / "fleet_rollout_killer.py"), f"{folder}/server"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
    assert told.returncode == 0, told.stderr[-2000:]
    deaths = [json.loads(line) for line in told.stdout.splitlines()]
    assert [death["killed"] for death in deaths] == [True] * (len(deaths) - 1) + [False]
    assert len(deaths) > 80
    for death in deaths:
        ended = death["ended"]
        assert ended["state"] == "REVERTED", death
        assert ended["told"] == BOXES, death
        assert ended["unknown"] == [], death
        assert ended["back"] == BOXES, death
        assert ended["counters"], death
        once = {name: ended["audit"][name] for name in ("rollout.finish", "rollout.revert", "rollout.reverted")}
        assert set(once.values()) == {1}, death
