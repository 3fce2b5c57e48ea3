"""A signed package on a running box: installed, silent beside the old one, live, back again, withdrawn. By the CLI."""

from __future__ import annotations

import json

import pytest
import yaml
from box_kit import Box, box_config
from click.testing import CliRunner
from package_kit import make_signed_package
from toy_packages import make_toy_xray_package

from appliance.cli import main
from appliance.records import Outcome, Reason, Role
from appliance.simulate.scenarios import SCENARIOS
from engines.signing import generate

NAME = "toy-bright-blob"


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """A box that runs version 1 of the toy package live, its configuration on disk, and a signed version 2."""
    root = tmp_path_factory.mktemp("life")
    key = generate("maker")
    (root / "maker.pub").write_text(key.public.pem())
    make_signed_package(root / "two", key, version="2.0.0")
    make_signed_package(root / "stranger", generate(), version="3.0.0")
    make_toy_xray_package(root / "one")
    config = box_config(root / "state", packages=(NAME,), trusted_keys=[str(root / "maker.pub")])
    # The toy came with no software, so the file that the commands read names no package.
    told = {"state_path": str(root / "state"), "trusted_keys": [str(root / "maker.pub")]}
    (root / "box.yaml").write_text(yaml.safe_dump(told))
    with Box(config, [root / "one"]) as box:
        box.root = root
        yield box


@pytest.fixture
def call(life):
    """``call("activate", ...)``: a command on the running box; its JSON, or the status and what it said."""

    def run(group, *arguments, ok=True):
        given = [group, *map(str, arguments), "--config", str(life.root / "box.yaml"), *(["--json"] if ok else [])]
        done = CliRunner().invoke(main, given)
        if not ok:
            return done.exit_code, done.output
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


def send(life, seed):
    """One chest X-ray; the study once it has ended, and with the analyses of whatever runs."""
    items = list(next(one for one in SCENARIOS if one.name == "chest_xray").build(seed))
    life.send(items, "DX-1")
    uid = items[0].StudyInstanceUID
    life.ended(uid)
    life.wait(lambda: all(one.done_at for one in life.study(uid).analyses), "end of every analysis")
    return life.study(uid)


def versions(study):
    return {(one.package_version, one.role) for one in study.analyses}


@pytest.mark.req("R-OPERATE-12")
def test_life_of_a_package_on_a_running_box(life, call):
    assert versions(send(life, "1")) == {("1.0.0", Role.LIVE)}

    code, said = call("model", "install", life.root / "stranger", ok=False)
    assert (code, "trusted are" in said) == (1, True), said
    installed = call("model", "install", life.root / "two")
    assert installed["version"] == "2.0.0"
    assert installed["p95_ms"] > 0

    call("model", "activate", NAME, "--days", 0, "--studies", 1)
    life.wait(lambda: f"{NAME}@2.0.0" in life.daemon.link.loaded, "the second version in the worker")
    beside = send(life, "2")
    assert versions(beside) == {("1.0.0", Role.LIVE), ("2.0.0", Role.SILENT)}
    assert [one.package_version for one in beside.live] == ["1.0.0"]

    life.wait(lambda: call("model", "show", NAME)["version"] == "2.0.0", "the second version live")
    assert versions(send(life, "3")) == {("2.0.0", Role.LIVE)}
    assert life.daemon.texts[f"{NAME}@1.0.0"].title

    assert call("model", "rollback", NAME, "--why", "a test") == {"package": NAME, "from": "2.0.0", "version": "1.0.0"}
    life.wait(lambda: NAME in life.daemon.link.loaded and not life.daemon.link.is_loading, "the first version again")
    assert versions(send(life, "4")) == {("1.0.0", Role.LIVE)}

    assert call("model", "withdraw", NAME, "--why", "a test")["version"] == "1.0.0"
    ended = send(life, "5")
    assert (ended.outcome, ended.reason) == (Outcome.NOT_ANALYSED, Reason.WITHDRAWN)

    listed = {row["version"]: row["state"] for row in call("model", "list")["packages"]}
    assert listed == {"1.0.0": "withdrawn", "2.0.0": "retired"}
    found = call("study", "affected", "--package", NAME, "--from", "2020-01-01", "--to", "2100-01-01")["studies"]
    assert [(one["version"], one["role"]) for one in found] == [
        ("1.0.0", "live"),
        ("1.0.0", "live"),
        ("2.0.0", "silent"),
        ("2.0.0", "live"),
        ("1.0.0", "live"),
        ("1.0.0", "live"),
    ]
    assert life.store.journal.verify() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("model", "activate", "nothing"), 4, "scanside model list"),
        (("model", "withdraw", NAME, "--version", "9.9.9", "--why", "x"), 4, "has no version 9.9.9"),
        (("model", "point", NAME, "bright-blob", "none", "--reason", "x"), 4, "it has"),
        (("model", "withdraw", NAME), 2, "--why"),
        (("model", "install", "/nowhere"), 2, "does not exist"),
        (("study", "affected", "--package", NAME, "--from", "yesterday", "--to", "2026-01-01"), 2, "is no date"),
        (("study", "affected", "--package", "other", "--from", "2026-01-01", "--to", "2026-01-02"), 4, "was ever here"),
    ],
)
def test_errors_say_what_and_the_next_step(call, arguments, code, said):
    status, output = call(*arguments, ok=False)
    assert (status, said in output) == (code, True), output


def test_every_command_of_the_group_is_there():
    done = CliRunner().invoke(main, ["model", "--help"])
    output = done.output
    assert done.exit_code == 0, output
    for name in ("install", "list", "show", "activate", "withdraw", "rollback", "point", "new", "verify", "sign"):
        assert f"  {name} " in output
