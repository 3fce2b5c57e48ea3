"""From a package to an engine in the store, through the real limited child; with ONNX Runtime and TensorRT-RTX."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import onnx
import psutil
import pytest
import toy_packages

from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.build import build_engine, build_limits, engine_key
from engines.errors import BuildError
from engines.package import load_package
from engines.store import EngineStore

ALL = ["fp32", "fp16", "int8"]
CALIBRATION = {"file": "calibration.npz", "origin": "synthesised"}


@pytest.fixture
def store(tmp_path):
    return EngineStore(tmp_path / "engines")


@pytest.fixture
def make(tmp_path):
    """``make(...)``: a toy package with a calibration file, in all precisions."""

    def run(samples=3, name="package", graph=None, **changes):
        folder = toy_packages.make_toy_xray_package(tmp_path / name, precisions=ALL, calibration=CALIBRATION, **changes)
        pictures = np.random.default_rng(samples).random((samples, 1, 1, 256, 256)).astype(np.float32)
        np.savez(folder / "calibration.npz", image=pictures)
        if graph is not None:
            (folder / "model.onnx").write_bytes(graph)
        return load_package(folder, trusted=True)

    return run


@pytest.fixture
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)", exc_type=ImportError)
    return {"flavour": "tensorrt_rtx", "compute_capabilities": ["8.6", "8.9"]}


CPU = {"flavour": "onnxruntime"}


def refused(package, store, **more):
    with pytest.raises(BuildError) as caught:
        build_engine(package, store=store, **{"precision": "fp32", **CPU, **more})
    assert store.entries() == []
    assert list((store.root / "work").iterdir()) == []
    assert store.in_progress() is None
    return caught.value


def fancy():
    graph = toy_packages._blob_graph()
    graph.graph.node[-1].op_type, graph.graph.node[-1].name = "FancyOp", "/head/fancy"
    return graph.SerializeToString()


# -- what comes of it --


@pytest.mark.req("R-BUILD-01", "R-BUILD-05")
@pytest.mark.parametrize("precision", ALL)
def test_the_engine_for_the_cpu_is_the_lowered_graph_and_runs(make, store, precision):
    package, told = make(), []
    entry = build_engine(package, precision=precision, store=store, on_progress=told.append, **CPU)
    assert (entry.state, entry.precision, entry.flavour) == ("verifying", precision, "onnxruntime")
    assert (entry.package, entry.version) == ("toy-bright-blob", "1.0.0")
    (plan,) = store.plans(entry)
    image = {"image": np.random.default_rng(9).random((1, 1, 256, 256)).astype(np.float32)}
    with OnnxRuntimeSession(plan, name="plan") as lowered, OnnxRuntimeSession(package.read_onnx(), name="own") as own:
        assert np.abs(lowered.run(image)["scores"] - own.run(image)["scores"]).max() < 0.02
    (facts,) = entry.facts["stages"]
    assert (facts["changed"] > 0) == (precision != "fp32")
    if precision != "fp32":
        assert facts["loss_measured_on"] == "calibration"
        assert 0 < facts["loss"]["max_abs"]["scores"] < 0.02
    assert [t["step"] for t in told] == ["lower", "build"]
    assert store.accept(entry.digest, {}) == store.ready(package.digest, "onnxruntime", precision)
    assert entry.key == engine_key(package, precision=precision, **CPU)


@pytest.mark.req("R-BUILD-02")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_rtx_builds_the_package_in_the_child_and_tells_how_far_it_is(make, store, rtx, precision):
    package, told = make(), []
    entry = build_engine(package, precision=precision, store=store, on_progress=told.append, **rtx)
    (plan,) = store.plans(entry)
    assert plan[:4] == b"vtrt"
    assert entry.facts["stages"][0]["layers"] > 0
    assert entry.key.gpu == "compute capability 8.6 8.9"
    assert entry.key.driver == "none"
    assert {"lower", "build"} == {t["step"] for t in told}
    assert any(t["phase"] for t in told)


@pytest.mark.req("R-BUILD-05")
def test_a_changed_calibration_graph_or_manifest_changes_the_key(make):
    def key(precision="int8", **changes):
        return engine_key(make(**changes), precision=precision, **CPU)

    changes = [{}, {"samples": 4}, {"version": "1.0.1"}, {"precision": "fp16"}, {}]
    seen = [key(name=f"p{number}", **change).digest for number, change in enumerate(changes)]
    assert len(set(seen)) == 4
    assert seen[-1] == seen[0]


def test_noise_measures_the_loss_where_there_is_no_calibration(tmp_path, store):
    folder = toy_packages.make_toy_xray_package(tmp_path / "p", precisions=["fp32", "fp16"])
    entry = build_engine(load_package(folder, trusted=True), precision="fp16", store=store, **CPU)
    assert entry.facts["stages"][0]["loss_measured_on"] == "noise"


def test_the_child_leaves_nothing_in_the_home_folder(make, store, tmp_path, monkeypatch):
    """ONNX Runtime's builds since 1.29 keep a device id there and report over the internet unless told before."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    build_engine(make(), precision="int8", store=store, **CPU)
    assert list(home.rglob("*")) == []


# -- what is refused --


@pytest.mark.req("R-BUILD-04")
def test_a_graph_that_tensorrt_cannot_read_names_file_node_and_remedy_through_the_child(make, store, rtx):
    error = refused(make(graph=fancy()), store, **rtx)
    assert error.kind == "parse"
    assert error.nodes == ("/head/fancy",)
    assert "toy-bright-blob/model.onnx" in str(error)
    assert "use standard ONNX operators only" in str(error)


def test_a_precision_that_the_manifest_lacks_is_refused(tmp_path, store):
    package = load_package(toy_packages.make_toy_xray_package(tmp_path / "p"), trusted=True)
    error = refused(package, store, precision="fp16")
    assert error.kind == "unsupported"
    assert "its manifest allows fp32" in str(error)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"other": np.zeros((2, 1))}, r"no array 'image'; it has \['other'\]"),
        ({"image": np.zeros((2, 1, 1, 8, 8), np.float32)}, r"calibration: input 'image' has shape"),
        ({"image": np.float32(1)}, "hold .* samples"),
        (None, "cannot be read"),
    ],
)
def test_a_calibration_file_that_does_not_fit_says_how(make, store, arrays, complaint):
    package = make()
    path = package.path / "calibration.npz"
    if arrays is None:
        path.write_bytes(b"no archive")
    else:
        np.savez(path, **arrays)
    with pytest.raises(BuildError, match=complaint):
        build_engine(load_package(package.path, trusted=True), precision="int8", store=store, **CPU)


@pytest.mark.req("R-BUILD-03")
def test_a_missing_library_says_where_it_comes_from(make, store, monkeypatch):
    from engines.backends.trt_api import load_flavour

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    load_flavour.cache_clear()
    error = refused(make(), store, flavour="tensorrt")
    assert error.kind == "unsupported"
    assert "JetPack" in str(error)


def test_without_a_gpu_the_missing_part_is_named(make, store, rtx):
    from engines.backends.cuda import probe_cuda

    if probe_cuda().device:
        pytest.skip("there is a GPU here")
    error = refused(make(), store, flavour="tensorrt_rtx")
    assert error.kind == "unsupported"
    assert "no GPU to build for" in str(error)


# -- limits, cancelling, killing --


@pytest.mark.req("R-BUILD-03")
def test_a_build_that_takes_too_long_is_ended(make, store):
    error = refused(make(), store, limits=build_limits(wall_s=0.1))
    assert error.kind == "timeout"
    assert "allow it more time" in str(error)


@pytest.mark.req("R-BUILD-03")
def test_a_build_that_takes_too_much_memory_is_ended(make, store):
    error = refused(make(), store, precision="int8", limits=build_limits(memory_mb=10))
    assert error.kind == "memory"
    assert "of 10 MB" in str(error)


@pytest.mark.req("R-BUILD-03")
def test_a_cancelled_build_leaves_nothing_and_the_next_one_builds(make, store, rtx):
    package, begun = make(), threading.Event()
    error = refused(package, store, on_progress=lambda _: begun.set(), cancelled=begun.is_set, **rtx)
    assert error.kind == "cancelled"
    assert build_engine(package, precision="fp32", store=store, **CPU).state == "verifying"


def builder_below(pid):
    """The builder's child of a process; None where there is none, or it has ended."""
    for one in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "engines.build_child" in one.cmdline():
                return one
    return None


@pytest.mark.req("R-BUILD-03")
def test_a_builder_that_is_killed_is_a_crash_and_leaves_nothing(make, store, rtx):
    def kill(_):
        if builder := builder_below(os.getpid()):  # what it said before it died is still heard
            builder.kill()

    error = refused(make(), store, on_progress=kill, **rtx)
    assert error.kind == "crash"
    assert "signal 9" in str(error)


def builders_of(store):
    """Living processes that were started for this store, however they lost their parent."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("BUILDER_OF") == str(store.root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


SCRIPT = """
import os, signal, sys
from pathlib import Path
from engines.build import build_engine
from engines.package import load_package
from engines.store import EngineStore
step, flavour = sys.argv[3:5]
def told(progress):
    if progress["step"] == step:
        print("now", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
store = EngineStore(Path(sys.argv[1]))
more = {"compute_capabilities": ["8.6"]} if flavour == "tensorrt_rtx" else {}
build_engine(load_package(Path(sys.argv[2]), trusted=True), precision="fp16", flavour=flavour, store=store,
             on_progress=told, **more)
"""


@pytest.mark.req("R-BUILD-07")
@pytest.mark.parametrize("step", ["lower", "build"])
def test_a_worker_killed_while_it_builds_leaves_nothing_and_takes_its_builder_with_it(make, store, step, wait_until):
    package = make()
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(store.root), str(package.path), step, "onnxruntime"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "BUILDER_OF": str(store.root)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, b"now\n"), ran.stderr

    wait_until(lambda: not builders_of(store), 30)
    again = EngineStore(store.root)
    assert again.entries() == again.aside() == []
    assert again.in_progress() is None
    entry = build_engine(package, precision="fp16", store=again, **CPU)
    assert [p.name for p in (store.root / "work").iterdir()] == []
    assert onnx.load_model_from_string(again.plans(entry)[0]).graph.node
