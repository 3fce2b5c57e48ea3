"""The lines of ``scanside doctor`` about the GPU and a KServe server."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from appliance.cli import main
from engines.backends.probe import Hardware

pytestmark = pytest.mark.req("R-KSERVE-08")


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    """``doctor("engines: {...}")``: the lines by what they are about, on a machine without a GPU."""
    monkeypatch.setattr(
        "engines.backends.probe.probe", lambda: Hardware(flavours={}, missing={"tensorrt": "tensorrt is not here"})
    )

    def run(text):
        path = tmp_path / "appliance.yaml"
        path.write_text(f"state_path: {tmp_path}\ndicom: {{port: 0}}\nscreen: {{port: 0}}\n{text}\n", "utf-8")
        done = CliRunner().invoke(main, ["doctor", "--json", "--config", str(path)])
        return done.exit_code, {line["what"]: line for line in json.loads(done.output)["checks"]}

    return run


def test_a_machine_without_a_gpu_may_be_a_box(doctor):
    code, lines = doctor("")
    assert code == 0
    assert lines["GPU"] == {
        "what": "GPU",
        "state": "warn",
        "found": "no NVIDIA GPU: ONNX Runtime on the CPU serves",
        "mend": "",
    }
    assert {"NVIDIA driver", "CUDA layer", "TensorRT"} <= set(lines)
    assert not [what for what in lines if "KServe" in what]


def test_an_engine_that_is_asked_for_and_cannot_be_fails_with_7(doctor):
    code, lines = doctor("engines: {backend: tensorrt}")
    assert code == 7
    assert lines["TensorRT"]["state"] == "fail"
    assert lines["TensorRT"]["mend"]


def test_a_kserve_server_that_does_not_answer_is_named_with_the_mending_line(doctor, free_port):
    address = f"127.0.0.1:{free_port()}"
    code, lines = doctor(f"kserve: {{address: '{address}'}}")
    line = lines[f"KServe server {address}"]
    assert (code, line["state"]) == (7, "fail")
    assert "UNAVAILABLE" in line["found"]
    assert "this box computes by itself" in line["mend"]


def test_under_systemd_the_worker_must_be_let_out_to_that_very_address(doctor, free_port, tmp_path, monkeypatch):
    from appliance.health.worker_network import worker_drop_in

    path = tmp_path / "kserve.conf"
    monkeypatch.setattr("appliance.health.worker_network.DROP_IN_PATH", str(path))
    address = f"127.0.0.1:{free_port()}"
    text = f"kserve: {{address: '{address}'}}\ntriage: {{spawn_worker: false}}"
    closed = doctor(text)[1]["worker's network"]
    assert (closed["state"], closed["mend"].startswith("scanside config worker-network > ")) == ("fail", True)
    path.write_text(worker_drop_in("10.9.9.9:1"), "utf-8")
    assert "another address" in doctor(text)[1]["worker's network"]["found"]
    path.write_text(worker_drop_in(address), "utf-8")
    assert doctor(text)[1]["worker's network"]["state"] == "ok"
    assert "worker's network" not in doctor(f"kserve: {{address: '{address}'}}")[1]
