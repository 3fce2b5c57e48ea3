from __future__ import annotations

import json
import re
import shutil

import click
import package_kit
import pytest
import toy_packages
from click.testing import CliRunner

from appliance.cli import model_golden, model_new, model_package, phantom
from appliance.clock import SystemClock
from appliance.commands import Exit, Group
from appliance.records import Actor, ActorKind
from appliance.store import Store
from appliance.store.installing import Site, install_package
from engines.archive import unpack
from engines.package import load_package
from engines.signing import load_public


@pytest.fixture
def model(tmp_path, monkeypatch):
    """``model("verify", ...)``: one call of the command group in an empty folder."""
    monkeypatch.chdir(tmp_path)

    @click.group(cls=Group)
    def group():
        pass

    made = (model_new.new, model_golden.golden, phantom.phantom)
    for command in (*made, model_package.verify, model_package.sign, model_package.export):
        group.add_command(command)
    return lambda *words: CliRunner().invoke(group, list(words))


def fill(folder):
    """Say what ``model new`` asked for."""
    said = {"body_parts": "[CHEST]", "view_positions": "[PA]", "age_years": "{min: 18}", "mean": "[0.0]", "sd": "[1.0]"}
    said["threshold"] = "0.5"
    for file in ("model.yaml", "CARD.md"):
        path = folder / file
        text = re.sub(r'(\w+): "fill in:[^"]*"', lambda m: f"{m[1]}: {said.get(m[1], 'A test.')}", path.read_text())
        path.write_text(re.sub(r"^fill in:.*$", "A test.", text, flags=re.MULTILINE))


@pytest.mark.req("R-SIGN-10")
def test_a_maker_comes_from_nothing_to_an_archive_that_sites_can_trust(model, tmp_path):
    (tmp_path / "my.onnx").write_bytes(toy_packages._blob_graph().SerializeToString())
    words = ("new", "my-model", "--from", "my.onnx", "--kind", "classifier", "--findings", "bright-blob")
    assert model(*words).exit_code == Exit.OK
    fill(tmp_path / "my-model")
    empty = model("verify", "--unsigned", "my-model")
    assert empty.exit_code == Exit.CHECK_FAILED
    assert "golden/golden.json: is missing" in empty.stderr

    assert model("phantom", "chest-xray", "phantoms/plain").exit_code == Exit.OK
    recorded = model("golden", "my-model", "--dicom", "phantoms", "--origin", "phantom")
    assert recorded.exit_code == Exit.OK, recorded.output
    assert "plain.npz: bright-blob" in recorded.stdout
    unsigned = model("verify", "--unsigned", "my-model")
    assert unsigned.exit_code == Exit.OK
    assert "THE SIGNATURE WAS NOT CHECKED" in unsigned.stdout

    assert model("sign", "my-model", "--new-key", "maker.pem").exit_code == Exit.OK
    assert (tmp_path / "maker.pem").stat().st_mode & 0o777 == 0o600
    assert model("export", "my-model", "-o", "my-model.zip").exit_code == Exit.OK
    shutil.rmtree(tmp_path / "my-model")

    checked = model("verify", "my-model.zip", "--trust", "maker.pem.pub", "--json")
    assert checked.exit_code == Exit.OK
    told = json.loads(checked.stdout)
    assert told["valid"] is True
    assert told["signed_by"] == [load_public(tmp_path / "maker.pem.pub").keyid]
    assert told["trial"]["p95_ms"] > 0
    assert [stage["onnx"] for stage in told["stages"]] == ["model.onnx"]


@pytest.mark.req("R-SIGN-10")
def test_every_fault_is_a_line_with_its_file_and_json_has_them_all(model, tmp_path):
    package_kit.make_signed_package(tmp_path / "toy")
    (tmp_path / "other.pub").write_text(package_kit.make_signed_package(tmp_path / "other").pem())
    plain = model("verify", "toy", "--trust", "other.pub")
    assert plain.exit_code == Exit.CHECK_FAILED
    assert "needed signatures hold" in plain.stderr
    assert plain.stdout == ""
    told = json.loads(model("verify", "toy", "--trust", "other.pub", "--json").stdout)
    assert told["valid"] is False
    assert told["exit"] == Exit.CHECK_FAILED
    (line,) = told["faults"]
    assert "SIGNATURE.json" in line

    (tmp_path / "toy.zip").write_bytes(b"no archive")
    archive = model("verify", "toy.zip", "--unsigned")
    assert archive.exit_code == Exit.CHECK_FAILED
    assert "toy.zip: " in archive.stderr


def test_a_package_that_a_box_would_refuse_is_not_signed_and_leaves_no_key(model, tmp_path):
    package_kit.make_unsigned_package(tmp_path / "toy")
    (tmp_path / "toy" / "model.onnx").write_bytes(toy_packages._loop_graph(3).SerializeToString())
    refused = model("sign", "toy", "--new-key", "maker.pem")
    assert refused.exit_code == Exit.CHECK_FAILED
    assert "operator Loop is not allowed" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy"]
    assert not (tmp_path / "toy" / "SIGNATURE.json").exists()


def test_a_key_is_never_replaced_and_never_put_into_the_package(model, tmp_path):
    package_kit.make_unsigned_package(tmp_path / "toy")
    inside = model("sign", "toy", "--new-key", "toy/maker.pem")
    assert inside.exit_code == Exit.CONFLICT
    (tmp_path / "maker.pem").write_text("precious")
    assert model("sign", "toy", "--new-key", "maker.pem").exit_code == Exit.CONFLICT
    assert (tmp_path / "maker.pem").read_text() == "precious"
    assert not (tmp_path / "toy" / "SIGNATURE.json").exists()


def test_a_key_that_others_can_read_signs_nothing(model, tmp_path):
    package_kit.make_unsigned_package(tmp_path / "toy")
    model("sign", "toy", "--new-key", "maker.pem")
    (tmp_path / "maker.pem").chmod(0o644)
    refused = model("sign", "toy", "--key", "maker.pem")
    assert refused.exit_code == Exit.CHECK_FAILED
    assert "chmod 600" in refused.stderr
    (tmp_path / "maker.pem").chmod(0o600)
    assert model("sign", "toy", "--key", "maker.pem").exit_code == Exit.OK
    assert load_package(tmp_path / "toy", keys=[load_public(tmp_path / "maker.pem.pub")]).signed_by


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("verify", "nowhere", "--unsigned"), Exit.NOT_FOUND),
        (("verify", "."), Exit.USAGE),
        (("verify", ".", "--unsigned", "--trust", "a.pub"), Exit.USAGE),
        (("sign", "."), Exit.USAGE),
        (("sign", "nowhere", "--new-key", "a.pem"), Exit.NOT_FOUND),
        (("golden", "nowhere", "--dicom", "here", "--origin", "phantom"), Exit.USAGE),
        (("golden", "here", "--dicom", "here", "--origin", "patient"), Exit.USAGE),
        (("golden", "here", "--dicom", "here", "--origin", "phantom"), Exit.CHECK_FAILED),
        (("export", "nowhere", "-o", "a.zip", "--config", "nowhere.yaml"), Exit.CONFIG),
        (("export", "here", "-o", "a.zip"), Exit.CHECK_FAILED),
        (("export", "head-ct-hyperdensity", "-o", "nowhere/a.zip"), Exit.CHECK_FAILED),
    ],
)
def test_exit_status_tells_what_went_wrong(model, tmp_path, words, code):
    (tmp_path / "here").mkdir()
    assert model(*words).exit_code == code
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_an_installed_package_is_exported_by_name_and_version(model, tmp_path):
    for version in ("1.0.0", "1.1.0"):
        key = package_kit.make_signed_package(tmp_path / version, version=version)
        site = Site(keys=[key], ct_deadline_s=180, xray_deadline_s=30, threads=1)
        store = Store.open(tmp_path / "state", SystemClock())
        install_package(store, tmp_path / version, site, Actor(kind=ActorKind.PERSON, name="test", role="service"))
        store.close()
    (tmp_path / "box.yaml").write_text(f"state_path: {tmp_path / 'state'}\n")
    for name, version in (("toy-bright-blob", "1.1.0"), ("toy-bright-blob@1.0.0", "1.0.0")):
        told = model("export", name, "-o", f"{version}.zip", "--config", "box.yaml", "--json")
        assert json.loads(told.stdout)["signed"] is True, told.output
        assert (
            load_package(unpack(tmp_path / f"{version}.zip", tmp_path / f"out-{version}"), trusted=True).version
            == version
        )
    assert model("export", "other", "-o", "a.zip", "--config", "box.yaml").exit_code == Exit.NOT_FOUND


def test_a_bundled_package_is_exported_by_name_and_says_that_it_is_not_signed(model, tmp_path):
    told = json.loads(model("export", "head-ct-hyperdensity", "-o", "a.zip", "--json").stdout)
    assert told["signed"] is False
    assert "NOT SIGNED" in model("export", "head-ct-hyperdensity", "-o", "a.zip").stdout
