"""A running box that no network reaches: a signed file takes a model out of service, and another one tells of it."""

from __future__ import annotations

import json

import pytest
import yaml
from box_kit import Box, box_config
from click.testing import CliRunner
from fleet_jobs_kit import JobBox, enrol
from toy_packages import make_toy_xray_package

from appliance.cli import main
from appliance.clock import SystemClock
from appliance.fleet.keys import public_of
from appliance.fleet.wire import Batch, Op, inflate
from appliance.fleet.wire_stick import unseal
from appliance.records import Outcome, Reason
from appliance.simulate.scenarios import SCENARIOS

NAME = "toy-bright-blob"


class Server(JobBox):
    """Only its part of a server: it signs."""

    def __init__(self):
        self.clock, self.ctr = SystemClock(), 0


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """A box whose fleet server cannot be reached, with one package and none before it."""
    root = tmp_path_factory.mktemp("stick")
    make_toy_xray_package(root / "one")
    enrol(root / "state" / "fleet")
    config = box_config(root / "state", packages=(NAME,), fleet={})
    (root / "box.yaml").write_text(yaml.safe_dump({"state_path": str(root / "state"), "fleet": {}}))
    with Box(config, [root / "one"]) as box:
        box.root = root
        yield box


def call(life, *words):
    done = CliRunner().invoke(main, ["fleet", *map(str, words), "--config", str(life.root / "box.yaml"), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def exported(life, name):
    call(life, "export", life.root / name)
    certificate = (life.root / "state" / "fleet" / "device.crt").read_bytes()
    return unseal((life.root / name).read_bytes(), public_of(certificate))


def send(life, seed):
    items = list(next(one for one in SCENARIOS if one.name == "chest_xray").build(seed))
    life.send(items, "DX-1")
    return life.ended(items[0].StudyInstanceUID)


@pytest.mark.req("R-FLEET-44", "R-FLEET-49")
def test_signed_file_takes_the_only_version_out_of_a_box_without_network_and_the_next_one_tells_of_it(life):
    assert send(life, "1").outcome in {Outcome.FINDING, Outcome.NOTHING_FLAGGED}
    nonce = exported(life, "before.json").nonce
    file = life.root / "in.json"
    file.write_bytes(Server().job(Op.MODEL_WITHDRAW, package=NAME, version="1.0.0", nonce=nonce))
    assert call(life, "import", file)["envelopes"][0]["result"] == "ACCEPTED"
    life.wait(lambda: life.store.fleet_jobs.get("1").state == "SUCCEEDED", "end of the job")
    ended = send(life, "2")
    assert (ended.outcome, ended.reason) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN)
    letters = [one for one in exported(life, "after.json").letters if one.topic.endswith("/up/rec")]
    data = [inflate(one.data) if one.properties.get("ce") == "gzip" else one.data for one in letters]
    told = [record.d for one in data for record in Batch.unpack(one).recs]
    assert [one.state for one in told if one.k == "job"] == ["ACCEPTED", "SUCCEEDED"]
    assert ("withdrawn", "1.0.0") in [(one.state, one.version) for one in told if one.k == "package"]
    assert life.store.journal.verify() == 0
