"""``make bench-fleet`` at a small scale: 300 simulated boxes on a real mosquitto, both killed; nothing is lost.

How fast it was is not judged here.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from box_process import ROOT

from appliance.errors import ConfigError
from appliance.fleet.server.broker import find_mosquitto

#: Half a minute of both cores.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    try:
        find_mosquitto()
    except ConfigError as error:
        pytest.skip(str(error))
    figures = tmp_path_factory.mktemp("bench") / "figures.json"
    command = [sys.executable, ROOT / "tools" / "bench_fleet", "--quick", "--json", figures]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(figures.read_text())["rows"]}


@pytest.mark.req("R-FLEET-63")
def test_hundreds_of_boxes_lose_nothing_over_a_killed_broker_and_a_killed_server(measured):
    told = measured["fleet-ingest"]["details"]
    assert (told["boxes"], told["records"], told["lost"]) == (300, 1500, 0)
    assert told["kept"] == told["records"]
    assert told["lines_lost"] >= 300, "the broker was never killed"
    assert told["sent_again"] > 0
    assert (told["refused"], told["nonsense"]) == (0, 0)
    assert len(told["kills"]["back_s"]) == 1


@pytest.mark.req("R-FLEET-63")
def test_the_same_boxes_speak_tls_with_a_certificate_each(measured):
    told = measured["fleet-ingest-tls"]["details"]
    assert (told["records"], told["lost"], told["refused"], told["nonsense"]) == (200, 0, 0, 0)


@pytest.mark.req("R-FLEET-64")
def test_every_figure_of_the_fleet_is_measured(measured):
    assert set(measured) == {
        *("fleet-connected", "fleet-ingest", "fleet-lost", "fleet-back", "fleet-ingest-tls", "fleet-lost-tls"),
        *("fleet-page", "fleet-filter"),
    }
