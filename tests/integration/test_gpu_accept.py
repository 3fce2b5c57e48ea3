"""The acceptance command as it runs on a machine with a GPU, here with ONNX Runtime in the engine's place."""

from __future__ import annotations

import hashlib
import json

import pytest
import toy_packages
from click.testing import CliRunner

from appliance.cli import main


def gpu_accept(folder, out, *arguments):
    command = ["gpu-accept", "--out", str(out), "--only", "--package", str(folder), "--runs", "3", "--soak-s", "0.2"]
    done = CliRunner().invoke(main, [*command, *arguments])
    return done, json.loads(out.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("package") / "toy"
    return toy_packages.add_golden(toy_packages.make_toy_xray_package(made, precisions=["fp16"]))


@pytest.mark.req("R-SERVE-08")
def test_one_command_builds_proves_times_soaks_and_drills_and_its_exit_status_is_the_verdict(folder, tmp_path):
    done, report = gpu_accept(folder, tmp_path / "report.json", "--backend", "onnxruntime")
    assert done.exit_code == 0, report["faults"]
    assert report["passed"]
    (engine,) = report["engines"]
    assert engine["parity"]["passed"]
    times = engine["times"]
    assert 0 < times["plain"]["p50_ms"] <= times["plain"]["p95_ms"] <= times["plain"]["p99_ms"]
    assert times["open_ms"] > 0
    assert times["graph"] is None, "ONNX Runtime records no graph, and the report does not pretend"
    assert times["soak"]["passed"]
    assert {drill["name"] for drill in report["drills"]} == {
        "a session is used from a second thread",
        "the builder is killed",
        "the driver is another than the engine's",
        "one bit of a plan is flipped",
        "the store's key is another",
    }
    assert all(drill["passed"] for drill in report["drills"])
    assert report["environment"]["versions"]["onnxruntime"]
    body = {key: value for key, value in report.items() if key != "sha256"}
    assert report["sha256"] == hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@pytest.mark.req("R-SERVE-08")
def test_a_machine_without_the_library_or_a_gpu_fails_and_says_what_is_missing(folder, tmp_path):
    done, report = gpu_accept(folder, tmp_path / "report.json", "--backend", "tensorrt")
    assert done.exit_code == 7
    assert not report["passed"]
    assert any("tensorrt" in fault or "GPU" in fault for fault in report["faults"])
