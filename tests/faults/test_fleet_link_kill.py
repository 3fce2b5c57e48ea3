"""kill -9 at the lines of the link: between publication, commit, acknowledgement and cursor nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fleet_link_kit import Authority, enrol, rows_only
from forked_death import folder_in_memory

from appliance.clock import FakeClock
from appliance.fleet.wire_records import DaemonChange
from appliance.store.facts.box import WorkerEnded
from appliance.store.facts.fleet import FleetTold
from engines import signing

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.mark.req("R-FLEET-03")
@pytest.mark.fault("T36")
def test_a_box_that_is_killed_at_any_line_of_its_link_loses_no_row_and_skips_none(scale):
    with folder_in_memory() as folder:
        box = folder / "box"
        key = signing.generate("online")
        enrol(box / "fleet", Authority(), key)
        (box / "online.pem").touch(mode=0o600)
        (box / "online.pem").write_text(key.pem())
        store = rows_only(box / "state", FakeClock())
        record = DaemonChange(state="started").model_dump(mode="json", exclude_none=True)
        with store.db.write() as tx:
            for n in range(11):
                tx.journal(WorkerEnded(pid=n, why="exit") if n % 4 == 3 else FleetTold(record=record))
        last = store.journal.last_seq()
        store.close()
        done = subprocess.run(
            [sys.executable, SUPPORT / "fleet_link_killer.py", folder, str(1 if scale == 1.0 else 29)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    assert len([one for one in found if one["after"]["died"]]) >= 20
    for one in found:
        assert one["after"]["passed_unacknowledged"] == [], one
        assert one["end"]["lost"] == [], one
        assert (one["end"]["left"], one["said_two_things"]) == (0, 0), one
        assert one["end"]["cursor"] >= last, one
    # Deaths came before the first row was sent, and after some were acknowledged and others not.
    assert any(one["after"]["lost"] for one in found)
    assert any(one["after"]["left"] and not one["after"]["lost"] for one in found)
