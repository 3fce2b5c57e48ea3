"""``scanside fleet jobs|approve|refuse|export|import``: the site's word, and a box without any network."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner
from fleet_jobs_kit import ALWAYS, JobBox
from package_rows_kit import NAME

from appliance.cli import main
from appliance.clock import SystemClock
from appliance.fleet.keys import public_of
from appliance.fleet.wire import Op
from appliance.fleet.wire_stick import pack_stick, unseal


class Commands:
    """A box whose file lies on disk, and the commands on it."""

    def __init__(self, root):
        self.box = JobBox(root, clock=SystemClock(), approval="site")
        self.file = root / "box.yaml"
        self.file.write_text(yaml.safe_dump({"state_path": str(root / "state"), "fleet": {"approval": "site"}}))

    def call(self, *words, code=0):
        done = CliRunner().invoke(main, ["fleet", *map(str, words), "--config", str(self.file), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if done.stdout.startswith("{") else done.output

    def said(self, *words):
        done = CliRunner().invoke(main, ["fleet", *map(str, words), "--config", str(self.file)])
        return done.exit_code, done.output


@pytest.fixture
def commands(tmp_path):
    made = Commands(tmp_path)
    yield made
    made.box.close()


@pytest.mark.req("R-FLEET-47")
def test_administrator_sees_what_waits_and_says_yes_or_no(commands):
    box = commands.box
    box.inbox.take_twin(box.twin(1, window=ALWAYS))
    yes, no = box.install_job("2.0.0"), box.install_job("3.0.0")
    box.run()
    assert [(job["job"], job["what"], job["state"]) for job in commands.call("jobs")["jobs"]] == [
        (2, f"{NAME} 3.0.0", "WAIT_APPROVAL"),
        (1, f"{NAME} 2.0.0", "WAIT_APPROVAL"),
    ]
    assert "waits for approval" in commands.said("jobs")[1]
    assert commands.said("approve", 1)[0] == 2, "never without a reason"
    told = commands.call("approve", yes.ctr, "--why", "reviewed")
    assert (told["state"], bool(told["approved_by"])) == ("WAIT_APPROVAL", True)
    commands.call("refuse", no.ctr, "--why", "not now")
    box.run()
    assert (box.state(yes), box.state(no)) == ("SOAKING", ("REJECTED", "REFUSED_BY_SITE"))
    commands.call("approve", no.ctr, "--why", "after all", code=6)
    commands.call("approve", 99, "--why", "which", code=4)
    assert [job["job"] for job in commands.call("jobs")["jobs"]] == [1]
    assert [job["job"] for job in commands.call("jobs", "--all")["jobs"]] == [2, 1]


@pytest.mark.req("R-FLEET-49")
def test_file_goes_to_the_server_and_its_answer_comes_back_by_a_file(commands, tmp_path):
    box = commands.box
    box.give(Op.PING)
    box.run()
    told = commands.call("export", tmp_path / "out.json")
    read = unseal((tmp_path / "out.json").read_bytes(), public_of(box.inbox.identity.certificate_path.read_bytes()))
    assert (told["more"], read.device) == (False, box.inbox.identity.enrolment.device)
    assert told["records"] >= 2
    assert commands.call("export", tmp_path / "more.json")["records"] == 0
    box.serve("1.0.0")
    (tmp_path / "in.json").write_bytes(box.job(Op.MODEL_WITHDRAW, package=NAME, version="1.0.0", nonce=read.nonce))
    assert commands.call("import", tmp_path / "in.json")["envelopes"] == [
        {"kind": "job", "ref": "2", "result": "ACCEPTED", "code": ""}
    ]
    box.run()
    assert box.packages() == {"1.0.0": "withdrawn"}


@pytest.mark.req("R-FLEET-49")
def test_file_that_does_not_do_what_it_should_ends_with_a_status_of_its_own(commands, tmp_path):
    (tmp_path / "forged.json").write_bytes(commands.box.job(Op.RESTART, sign=("stranger",)))
    assert commands.call("import", tmp_path / "forged.json", code=7)["envelopes"][0]["result"] == "FORGED"
    (tmp_path / "odd.txt").write_text("hello")
    code, said = commands.said("import", tmp_path / "odd.txt")
    assert (code, "damaged" in said) == (1, True)
    code, said = commands.said("export", tmp_path / "nowhere" / "out.json")
    assert (code, "cannot be written" in said) == (78, True)


@pytest.mark.req("R-FLEET-68")
def test_zip_file_brings_models_to_where_jobs_look_and_a_damaged_one_nothing(commands, tmp_path):
    (tmp_path / "data").write_bytes(b"{}")
    files = {"metadata/timestamp.json": tmp_path / "data", "targets/models/toy/1.zip": tmp_path / "data"}
    pack_stick(tmp_path / "in.zip", [commands.box.job(Op.PING)], files)
    told = commands.call("import", tmp_path / "in.zip")
    assert (told["files"], [one["result"] for one in told["envelopes"]]) == (2, ["ACCEPTED"])
    assert (commands.box.folder / "stick" / "targets" / "models" / "toy" / "1.zip").read_bytes() == b"{}"
    (tmp_path / "bad.zip").write_bytes((tmp_path / "in.zip").read_bytes()[:-30])
    assert commands.said("import", tmp_path / "bad.zip")[0] != 0
    assert "2 files for models" in commands.said("import", tmp_path / "in.zip")[1]
