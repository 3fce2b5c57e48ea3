"""What doctor says of GPU, driver, CUDA layer and TensorRT, for machines that we have and machines that we have not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engines.backends.probe import Hardware, Line, _boards, _driver, judge, probe

pytestmark = pytest.mark.req("R-KSERVE-08")

NOTHING = Hardware(flavours={}, missing={"tensorrt": "tensorrt cannot be loaded", "tensorrt_rtx": "no rtx"})
WHOLE = Hardware(
    boards=("NVIDIA GPU at 0000:01:00.0",),
    driver="570.86.15",
    adapter="cuda-bindings 13.5.0",
    device="NVIDIA RTX 2000, compute capability 8.9, 16 GB",
    flavours={"tensorrt": "10.13.3", "tensorrt_rtx": "1.7.1"},
    missing={},
)
NO_DRIVER = Hardware(
    boards=("NVIDIA GPU at 0000:01:00.0",),
    adapter="cuda-bindings 13.5.0",
    unreachable="no NVIDIA driver runs on this machine",
    flavours={"tensorrt": "10.13.3"},
    missing={},
)


def states(found, backend):
    return {line.what: line.state for line in judge(found, backend)}


def test_a_machine_without_a_gpu_is_warned_of_and_nothing_is_asked_of_the_person():
    lines = judge(NOTHING, "onnxruntime")
    assert [line.what for line in lines] == ["GPU", "NVIDIA driver", "CUDA layer", "TensorRT"]
    assert {line.state for line in lines} == {"warn"}
    assert lines[0] == Line("GPU", "warn", "no NVIDIA GPU: ONNX Runtime on the CPU serves")
    assert {line.mend for line in lines} == {""}


def test_a_whole_machine_is_well():
    for backend in ("onnxruntime", "tensorrt", "tensorrt_rtx"):
        assert set(states(WHOLE, backend).values()) == {"ok"}


def test_what_the_configuration_asks_for_and_the_machine_has_not_fails_with_the_mending_line():
    lines = judge(NOTHING, "tensorrt")
    assert states(NOTHING, "tensorrt") == {
        "GPU": "fail",
        "NVIDIA driver": "warn",
        "CUDA layer": "fail",
        "TensorRT": "fail",
    }
    for line in lines:
        assert line.state != "fail" or line.mend.endswith("or set engines.backend: onnxruntime")


def test_a_gpu_without_its_driver_fails_even_where_no_engine_is_asked_for():
    lines = {line.what: line for line in judge(NO_DRIVER, "onnxruntime")}
    assert lines["GPU"].state == lines["NVIDIA driver"].state == "fail"
    assert "0000:01:00.0, but CUDA does not reach it: no NVIDIA driver" in lines["GPU"].found
    assert "install the NVIDIA driver" in lines["NVIDIA driver"].mend
    assert lines["TensorRT"].state == "ok"


def test_the_sibling_is_not_taken_for_the_tensorrt_that_is_asked_for():
    only_rtx = Hardware(flavours={"tensorrt_rtx": "1.7.1"}, missing={"tensorrt": "no module named tensorrt"})
    line = judge(only_rtx, "tensorrt")[-1]
    assert (line.state, line.found) == ("fail", "no module named tensorrt; tensorrt_rtx 1.7.1 is there")
    assert states(only_rtx, "tensorrt_rtx")["TensorRT"] == "ok"


def test_boards_and_drivers_are_read_from_the_kernel(tmp_path):
    assert (_boards(tmp_path), _driver(tmp_path)) == ((), "")
    for name, vendor, kind in (
        ("0000:00:02.0", "0x8086", "0x030000"),
        ("0000:01:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),
    ):
        device = tmp_path / "sys/bus/pci/devices" / name
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    module = tmp_path / "sys/module/nvidia"
    module.mkdir(parents=True)
    (module / "version").write_text("570.86.15\n")
    assert _boards(tmp_path) == ("NVIDIA GPU at 0000:01:00.0",)
    assert _driver(tmp_path) == "570.86.15"


def test_a_jetson_is_known_by_its_device_tree(tmp_path):
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0")
    (tree / "model").write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081\n")
    assert _boards(tmp_path) == ("NVIDIA Jetson AGX Orin Developer Kit",)
    assert _driver(tmp_path) == "Jetson Linux 36.4.3"


def test_looking_at_this_machine_loads_no_driver_into_this_process():
    code = (
        "import sys\nfrom engines.backends.probe import judge, probe\n"
        "assert len(judge(probe(), 'onnxruntime')) == 4\n"
        "print([m for m in ('cuda', 'cuda.bindings', 'pycuda', 'tensorrt', 'tensorrt_rtx') if m in sys.modules])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_child_that_dies_of_a_driver_is_a_finding_not_an_end(monkeypatch):
    from engines.backends import probe as module
    from engines.errors import ChildError

    def dies(*_):
        raise ChildError("crash", "engines.backends.probe was ended by signal 11")

    monkeypatch.setattr(module, "run_limited", dies)
    monkeypatch.setattr(module, "_boards", lambda: ("NVIDIA GPU at 0000:01:00.0",))
    line = judge(probe(), "onnxruntime")[0]
    assert (line.state, "signal 11" in line.found) == ("fail", True)
