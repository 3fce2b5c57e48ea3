"""``scanside-fleet demo``: real agents and simulated boxes on a whole server; a bad canary stops a roll-out."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from box_process import ROOT

from appliance.errors import ConfigError
from appliance.fleet.server.broker import find_mosquitto
from appliance.fleet.server.cli.demo import memory_folder
from appliance.fleet.server.demo.demo import Demo
from appliance.fleet.server.rollout.plan import BoxWord, RollOutState

#: What each part of the demo may take where other tests run beside it; how fast it is is not judged here.
SLOW_S = 240.0


@pytest.fixture(scope="module", autouse=True)
def _mosquitto():
    try:
        find_mosquitto()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture
def folder():
    """Where the user that the broker is may pass, and in memory where there is room."""
    with tempfile.TemporaryDirectory(prefix="scanside-demo-", dir=memory_folder()) as name:
        yield Path(name)


def said_by(demo):
    return {name: check for name, check in demo.document()["checks"].items() if not check["ok"]}


@pytest.mark.timeout(900)
@pytest.mark.req("R-FLEET-92")
def test_a_bad_canary_stops_the_roll_out_and_no_other_box_is_touched(folder):
    lines = []
    with Demo(folder, lines.append, real=3, simulated=12, limit_s=SLOW_S) as demo:
        went_well = demo.run()
    assert went_well, (said_by(demo), lines)
    checks = demo.document()["checks"]
    assert checks["all_online"]["online"] == 15
    assert (checks["bad_canary_stopped_it"]["wave"], checks["bad_canary_stopped_it"]["code"]) == ("canaries", "GOLDEN")
    assert checks["only_canaries_touched"]["spared"] == 7
    assert checks["reverted"]["serves"] == {"1.0.0": 15}
    assert any("a real agent, KONICA MINOLTA REGIUS 110" in line for line in lines), "the bad one was no real agent"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.req("R-FLEET-92")
def test_a_version_that_is_good_everywhere_reaches_every_box_through_all_waves(folder):
    with Demo(folder, print, real=3, simulated=60, limit_s=SLOW_S) as demo:
        assert demo.run(), said_by(demo)
        told = demo.let_good_out(400.0)
        assert told.page.row.state is RollOutState.FINISHED, told.page
        assert len(told.of(BoxWord.SUCCEEDED)) == 63
        for wave in told.page.waves:
            assert {one.word for one in wave.verdicts} == {"passed"}, wave


@pytest.mark.long
@pytest.mark.req("R-FLEET-92")
def test_the_whole_demo_ends_by_itself_and_says_so_in_json():
    command = [sys.executable, "-c", "from appliance.fleet.server.cli import main; main()", "demo", "--once", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["boxes"] == {"real": 20, "simulated": 300}
    assert told["checks"]["all_online"]["online"] == 320
    assert told["checks"]["only_canaries_touched"]["outside"] == 0
    assert told["checks"]["nothing_lost"]["lost"] == {}
