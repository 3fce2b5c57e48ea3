"""kill -9 of the server while a roll-out goes on: no box is told twice, none is forgotten, and it comes to its end."""

from __future__ import annotations

import pytest
from forked_death import deaths_of, folder_in_memory

BOXES = [f"box-{n:07}" for n in range(1, 7)]


@pytest.mark.long
@pytest.mark.req("R-FLEET-72")
def test_killed_before_any_change_a_roll_out_tells_each_box_once_and_takes_it_back_once():
    with folder_in_memory() as folder:
        deaths = deaths_of("fleet_rollout_killer.py", folder / "server")
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
