"""The command line as a person and a script meet it: real processes, exit codes, JSON alone on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pydicom
import pytest
import yaml
from box_process import ROOT, BoxProcess
from forked_cli import scanside_program

from appliance.cli.common import opened
from appliance.config import load_config
from appliance.records import Severity
from appliance.simulate.dicomize import save
from appliance.simulate.scenarios import SCENARIOS


@pytest.fixture(scope="module")
def scanside(tmp_path_factory):
    """``scanside("status", ...)``: in a process of its own; ``anew=True`` in one that Python starts for it."""
    with scanside_program(tmp_path_factory.mktemp("program")) as folder:

        def call(*arguments, environment=None, timeout=150, anew=False):
            program = [sys.executable, "-m", "appliance.cli"] if anew else [folder / "scanside"]
            return subprocess.run(
                [*program, *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )

        yield call


def document(done):
    """stdout as JSON; anything else on it fails here."""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def box(tmp_path_factory, scanside):
    """A running box that has received one chest X-ray from its files."""
    folder = tmp_path_factory.mktemp("cli")
    destination = {"kind": "dicom", "name": "PACS", "host": "127.0.0.1", "port": 9, "ae_title": "PACS", "timeout_s": 2}
    with BoxProcess(folder, destinations=[destination]) as running:
        running.images = save(
            next(one for one in SCENARIOS if one.name == "chest_xray").build("cli"), folder / "images"
        )
        document_ = yaml.safe_load(running.config_path.read_text())
        document_["dicom"]["port"] = running.dicom_port
        document_["screen"]["port"] = running.screen_port
        running.config_path.write_text(yaml.safe_dump(document_))
        sent = scanside("send", folder / "images", "--config", running.config_path, "--json", anew=True)
        assert document(sent) == {"sent": 1, "refused": 0, "not_dicom": 0}
        running.accession = str(pydicom.dcmread(running.images[0], stop_before_pixels=True).AccessionNumber)
        yield running


@pytest.mark.req("R-CLI-01")
@pytest.mark.req("R-CLI-02")
@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["doctor"],
        ["config", "validate"],
        ["study", "list"],
        ["study", "show", "1"],
        ["study", "reprocess", "1"],
        ["study", "versions", "1"],
        ["alert", "list"],
        ["dest", "list"],
        ["dest", "test", "PACS"],
        ["dest", "retry"],
    ],
    ids=" ".join,
)
def test_json_of_every_command_is_one_document_and_nothing_else(box, arguments, scanside):
    assert isinstance(document(scanside(*arguments, "--config", box.config_path, "--json")), dict)


def test_study_is_found_by_its_accession_number(box, scanside):
    shown = document(scanside("study", "show", box.accession, "--config", box.config_path, "--json"))
    assert shown["study"]["identity"]["accession_number"] == box.accession


def test_status_of_a_running_box_is_success_and_of_none_is_not_running(box, tmp_path, scanside):
    assert scanside("status", "--config", box.config_path, anew=True).returncode == 0
    idle = tmp_path / "idle.yaml"
    idle.write_text(f"state_path: {tmp_path}\n")
    done = scanside("status", "--config", idle)
    assert done.returncode == 3
    assert "systemctl start scanside" in done.stderr


def test_status_tells_why_an_issue_stands(box, scanside):
    with opened(load_config(box.config_path)) as store:
        store.issues.raise_("ENGINE_FALLBACK", "a package", Severity.WARNING, {"why": "no driver; install it"})
        try:
            assert "    no driver; install it" in scanside("status", "--config", box.config_path).stdout.splitlines()
        finally:
            store.issues.clear("ENGINE_FALLBACK", "a package")


@pytest.mark.req("R-CLI-03")
@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["study", "show", "999"], 4, "study list"),
        (["alert", "ack", "999"], 4, "999"),
        (["dest", "test", "NOWHERE"], 4, "configured are: PACS"),
        (["study", "versions", "1", "--choose", "77"], 2, "no version 77"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_errors_say_what_and_the_next_step_with_their_exit_status(box, arguments, status, said, scanside):
    done = scanside(*arguments, *(["--config", box.config_path] if arguments[0] != "nonsense" else []))
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr


def test_error_of_a_json_command_is_json_too(box, scanside):
    done = scanside("study", "show", "999", "--config", box.config_path, "--json", anew=True)
    assert (done.returncode, document(done)["exit"]) == (4, 4)


def test_unreachable_destination_is_told_in_plain_words(box, scanside):
    done = scanside("dest", "test", "PACS", "--config", box.config_path)
    assert done.returncode == 1
    assert "does not answer" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sit: {}\n", "line 1: sit"),
        ("site:\n  mode: clinicl\n", "line 2: site.mode"),
        ("screen: {host: 0.0.0.0}\n", "add screen.tls"),
        ("packages: [{name: nothing}]\n", "installed are bone-age, chest-ct-nodule,"),
        ("site: {mode: clinical}\npackages: [{name: head-ct-hyperdensity}]\n", "evaluation"),
        ("site: {}\nsite: {}\n", "stands twice"),
        ("- a\n", "key: value"),
    ],
)
def test_configuration_errors_name_the_line_and_end_with_78(tmp_path, text, said, scanside):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    done = scanside("config", "validate", "--config", path)
    assert (done.returncode, said in done.stderr) == (78, True), done.stderr
    assert "Traceback" not in done.stderr


def test_shipped_configuration_loads_and_its_packages_run_in_evaluation(tmp_path, scanside):
    done = scanside("config", "validate", "--config", ROOT / "config" / "appliance.yaml", "--json")
    assert {"cxr-triage", "head-ct-hyperdensity"} <= set(document(done)["packages"])


@pytest.mark.req("R-CLI-04")
def test_doctor_fails_with_7_and_a_mending_line_for_each_seeded_fault(tmp_path, scanside):
    path = tmp_path / "faulty.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "state_path": str(tmp_path / "state"),
                "destinations": [
                    {"kind": "dicom", "name": "P", "host": "127.0.0.1", "port": 9, "ae_title": "P", "timeout_s": 2}
                ],
                "packages": [{"name": "nothing"}],
                "disk": {"reserve_bytes": 10**18},
            }
        )
    )
    done = scanside("doctor", "--config", path, "--json")
    assert done.returncode == 7
    failed = {line["what"]: line["mend"] for line in document(done)["checks"] if line["state"] == "fail"}
    assert {"disk", "packages", "destination P"} <= failed.keys()
    assert all(failed.values())


def test_second_box_on_one_state_folder_is_refused(box, scanside):
    done = scanside("run", "--config", box.config_path)
    assert done.returncode == 78
    assert "another box runs" in done.stderr


@pytest.mark.req("R-STORE-07")
def test_store_of_another_user_is_refused_with_the_line_that_works(box, drop_user, scanside):
    done = subprocess.run(
        [sys.executable, "-m", "appliance.cli", "study", "list", "--config", "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 78  # an empty file is no configuration: it says so instead of guessing
    if os.geteuid() != 0:
        pytest.skip("only root can make a store of another user")
    os.chown(box.state / "scanside.db", 65534, 65534)
    try:
        done = scanside("study", "list", "--config", box.config_path)
    finally:
        os.chown(box.state / "scanside.db", 0, 0)
    assert done.returncode == 5
    assert "sudo -u nobody scanside" in done.stderr


def test_text_output_has_no_colour_codes_when_it_is_no_terminal(box, scanside):
    for environment in ({}, {"NO_COLOR": "1"}):
        done = scanside("study", "list", "--config", box.config_path, environment=environment, anew=True)
        assert "\x1b[" not in done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_made(shell, scanside):
    assert "_SCANSIDE_COMPLETE" in scanside("completion", shell).stdout


def test_help_begins_with_what_it_is_and_shows_examples(scanside):
    said = scanside("--help", anew=True).stdout
    assert "Not for clinical use" in said
    assert "scanside demo" in said
