"""The real parser and builder of TensorRT-RTX, without a GPU: what builds, what is refused and in which words.

This proves parsing and building there, for the same code that runs with TensorRT on a Jetson; neither Jetson's kernels
nor speed nor results.
"""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
import toy_packages
from onnx import TensorProto, helper
from trt_graphs import bytes_of, model_of, unet3d

from engines.backends.trt_api import load_flavour
from engines.backends.trt_builder import build_plan, check_profiles
from engines.errors import BuildError
from engines.lowering import lower
from engines.manifest import Profile
from engines.package import bundled_packages, load_package

node = helper.make_node
MAGIC = (0x74727476).to_bytes(4, "little")
AMPERE, AMPERE_AND_ADA = ("8.6",), ("8.6", "8.9")
PROFILE = {"hu": Profile(min=(1, 1, 16, 16, 16), opt=(1, 1, 16, 32, 32), max=(1, 1, 32, 64, 64))}


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)", exc_type=ImportError)
    return load_flavour("tensorrt_rtx")


@pytest.fixture
def build(rtx):
    def run(graph, profiles=None, targets=AMPERE, **more):
        return build_plan(
            rtx, graph, name="toy/model.onnx", profiles=profiles or {}, compute_capabilities=targets, **more
        )

    return run


@pytest.fixture
def refusal(build):
    def run(graph, profiles=None, **more):
        with pytest.raises(BuildError) as caught:
            build(graph, profiles, **more)
        return caught.value

    return run


def simple(kind, inputs=("x",), *, shape=(1, 8), outputs=None, weights=None, dtype=TensorProto.FLOAT, opset=17, **more):
    """A graph of one node called ``/block/fault``."""
    made = node(kind, list(inputs), ["y"] if outputs is None else list(outputs), "/block/fault", **more)
    told = {n: [None] * len(shape) for n in (outputs or ["y"])}
    return bytes_of(model_of([made], {"x": (list(shape), dtype)}, told, weights or {}, opset))


def hu(count=2):
    rng = np.random.default_rng(5)
    return [{"hu": rng.normal(0, 300, (1, 1, 16, 16, 16)).astype(np.float32)} for _ in range(count)]


# -- what builds --


def calibration_of(package, index):
    """One dict of tensors per sample, for one stage."""
    with np.load(io.BytesIO(package.data(package.manifest.calibration.file)), allow_pickle=False) as held:
        arrays = dict(held)
    inputs = [i.name for i in onnx.load_model_from_string(package.read_onnx(index)).graph.input]
    return [{name: arrays[name][k] for name in inputs} for k in range(len(arrays[inputs[0]]))]


@pytest.mark.req("R-BUILD-02")
@pytest.mark.parametrize("folder", bundled_packages().values(), ids=bundled_packages().keys())
def test_every_bundled_package_builds_in_every_precision_of_its_manifest(build, folder):
    package = load_package(folder)
    for precision in package.manifest.precisions:
        for index in range(len(package.manifest.stages)):
            samples = calibration_of(package, index) if precision == "int8" else []
            lowered = lower(package.read_onnx(index), precision, samples)
            built = build(lowered.graph, package.manifest.profiles, AMPERE_AND_ADA)
            assert built.plan[:4] == MAGIC, (precision, index)
            assert built.layers > 0


@pytest.mark.req("R-BUILD-02")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("targets", [AMPERE, AMPERE_AND_ADA], ids=["8.6", "8.6+8.9"])
@pytest.mark.parametrize("kind", ["toy", "unet"])
def test_every_recipe_builds_for_one_and_for_several_gpus(build, kind, precision, targets):
    if kind == "toy":
        graph, profiles, samples = bytes_of(toy_packages._blob_graph()), {}, []
        samples = [{"image": np.random.default_rng(1).random((1, 1, 256, 256)).astype(np.float32)}]
    else:
        graph, profiles, samples = unet3d(), PROFILE, hu()
    built = build(lower(graph, precision, samples).graph, profiles, targets)
    assert len(built.plan) > 100_000
    assert built.layers >= len(onnx.load_model_from_string(graph).graph.node)


def test_dense_layers_in_int8_build(build):
    rng = np.random.default_rng(0)
    weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in {"w": (64, 32), "v": (16, 32)}.items()}
    nodes = [node("MatMul", ["x", "w"], ["h"], "/one"), node("Gemm", ["h", "v"], ["y"], "/two", transB=1)]
    graph = bytes_of(model_of(nodes, {"x": [8, 64]}, {"y": [8, 16]}, weights))
    sample = {"x": rng.standard_normal((8, 64)).astype(np.float32)}
    assert build(lower(graph, "int8", [sample]).graph).layers > 2


# -- progress and cancelling --


def test_progress_is_told_in_shares(build, monkeypatch):
    monkeypatch.setattr("engines.backends.trt_builder._TELL_S", 0.0)
    told = []
    build(unet3d(), PROFILE, on_phase=lambda phase, share: told.append((phase, share)))
    assert len(told) > 10
    assert all(phase and 0 <= share <= 1 for phase, share in told)
    assert any(share == 1 for _, share in told)


@pytest.mark.req("R-BUILD-03")
def test_a_cancelled_build_ends_at_the_next_step_and_the_builder_can_be_used_again(build, refusal):
    asked = []

    def cancelled():
        asked.append(1)
        return len(asked) > 5

    error = refusal(unet3d(), PROFILE, cancelled=cancelled)
    assert error.kind == "cancelled"
    assert len(asked) < 12
    assert build(unet3d(), PROFILE).layers


# -- what is refused, in which words --


@pytest.mark.req("R-BUILD-04")
def test_an_unknown_operator_is_named_with_its_node_and_what_to_do(refusal):
    error = refusal(simple("FancyOp"))
    assert error.kind == "parse"
    assert error.nodes == ("/block/fault",)
    assert "node '/block/fault' (FancyOp)" in str(error)
    assert "use standard ONNX operators only" in str(error)


@pytest.mark.req("R-BUILD-04")
@pytest.mark.parametrize(
    ("graph", "mending"),
    [
        pytest.param(
            simple("TopK", ["x", "k"], shape=(1, 5000), outputs=["v", "i"], weights={"k": np.array([4000])}),
            "TopK takes at most 3840 elements: take fewer, or sort in the head",
            id="TopK",
        ),
        pytest.param(simple("NonZero", shape=(4, 4)), "leave it to the head", id="NonZero"),
        pytest.param(
            simple("DFT", shape=(1, 8, 1), onesided=0, axis=1), "do the transform in the preprocessor", id="DFT"
        ),
        pytest.param(
            simple("Cast", shape=(1, 4), dtype=TensorProto.INT16, to=1),
            "input 'x' is int16; cast it to float32",
            id="int16",
        ),
        pytest.param(
            simple("QuantizeLinear", ["x", "s", "z"], weights={"s": np.float32(0.1), "z": np.uint8(3)}),
            "quantise symmetrically",
            id="zero point",
        ),
        pytest.param(
            simple("MatMul", ["x", "w"], weights={"w": np.ones((8, 2), np.float16)}),
            "cast before this node",
            id="types",
        ),
    ],
)
def test_what_tensorrt_cannot_do_comes_with_what_to_do(refusal, graph, mending):
    assert mending in str(refusal(graph))


@pytest.mark.req("R-BUILD-04")
def test_a_fault_of_the_builder_names_the_node_that_its_log_names(refusal):
    rng = np.random.default_rng(0)
    graph = simple("MatMul", ["x", "w"], shape=(64, 64), weights={"w": rng.random((64, 64)).astype(np.float32)})
    error = refusal(graph, targets=("7.5",))
    assert error.kind == "build"
    assert "/block/fault" in error.nodes
    assert "7.5" in str(error)


@pytest.mark.parametrize(
    "damage",
    [lambda g: b"", lambda g: b"\0" * 1000, lambda g: b"no model", lambda g: g[: len(g) // 2], lambda g: g[:-20]],
    ids=["empty", "zeros", "text", "half", "nearly all"],
)
def test_hostile_files_are_refused_without_a_crash(refusal, damage):
    assert refusal(damage(unet3d()), PROFILE).kind == "parse"


def test_weights_in_another_file_are_refused_before_the_parser_sees_them(refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = toy_packages._blob_graph()
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    error = refusal((tmp_path / "m.onnx").read_bytes())
    assert error.kind == "parse"
    assert "store all weights in the ONNX file" in str(error)


def test_a_compute_capability_that_the_builder_lacks_lists_those_it_has(refusal):
    error = refusal(bytes_of(toy_packages._blob_graph()), targets=("5.0",))
    assert error.kind == "unsupported"
    assert "8.6" in str(error)


def test_without_gpu_and_without_compute_capability_it_says_what_is_missing(refusal):
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        error = refusal(bytes_of(toy_packages._blob_graph()), targets=())
        assert error.kind == "unsupported"
        assert "name a compute capability" in str(error)
    else:
        pytest.skip("there is an NVIDIA driver here")


# -- profiles --


@pytest.mark.parametrize(
    ("profile", "complaint"),
    [
        (None, "'hu' of shape .* varies: say under profiles how much"),
        (Profile(min=(1, 1, 8, 8, 8), opt=(1, 1, 4, 8, 8), max=(1, 1, 8, 8, 8)), "does not rise"),
        (Profile(min=(0, 1, 8, 8, 8), opt=(1, 1, 8, 8, 8), max=(1, 1, 8, 8, 8)), "does not rise"),
        (Profile(min=(1, 8, 8, 8), opt=(1, 8, 8, 8), max=(1, 8, 8, 8)), "has not 5 dimensions"),
        (Profile(min=(1, 2, 8, 8, 8), opt=(1, 2, 8, 8, 8), max=(1, 2, 8, 8, 8)), "changes a dimension that is fixed"),
    ],
)
def test_a_wrong_profile_is_refused_before_tensorrt_sees_it(profile, complaint):
    model = onnx.load_model_from_string(unet3d())
    with pytest.raises(BuildError, match=complaint):
        check_profiles(model, {"hu": profile} if profile else {})


def test_profiles_of_other_stages_and_of_fixed_inputs_are_passed_over():
    model = toy_packages._blob_graph()
    shape = (1, 1, 256, 256)
    assert check_profiles(model, {"image": Profile(min=shape, opt=shape, max=shape), **PROFILE}) == {}
