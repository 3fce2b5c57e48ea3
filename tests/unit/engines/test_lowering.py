"""Precision as a rewrite of the graph: what changes, what does not, what it costs, what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import toy_packages
from onnx import TensorProto, helper, numpy_helper
from trt_graphs import bytes_of, model_of, unet3d

from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.errors import BuildError
from engines.lowering import lower, measure_loss, read_graph, recipe_id

node = helper.make_node
RNG = np.random.default_rng(3)


def weight(*shape, scale=1.0):
    return (RNG.standard_normal(shape) * scale / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def volumes(count=3, level=300.0):
    rng = np.random.default_rng(5)
    return [{"hu": rng.normal(0, level, (1, 1, 16, 16, 16)).astype(np.float32)} for _ in range(count)]


def parsed(lowered):
    model = onnx.load_model_from_string(lowered.graph)
    onnx.checker.check_model(model)
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    types |= {t.name: t.data_type for t in model.graph.initializer}
    return model, {n.name: n for n in model.graph.node}, types


def conv_graph(opset=17, *, kernel=None, extra=(), outputs=None, **weights):
    """``x``: [1,2,8,8] through one convolution and then ``extra`` from its output ``c``."""
    kernel = weight(3, 2, 3, 3) if kernel is None else kernel
    nodes = [node("Conv", ["x", "k"], ["c"], "/conv", pads=[1] * 4), *extra]
    return bytes_of(
        model_of(nodes, {"x": [1, 2, 8, 8]}, outputs or {"c": [1, 3, 8, 8]}, {"k": kernel, **weights}, opset)
    )


def pictures(count=2, level=1.0):
    return [{"x": (RNG.standard_normal((1, 2, 8, 8)) * level).astype(np.float32)} for _ in range(count)]


# -- all precisions --


@pytest.mark.req("R-BUILD-01")
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.0), ("fp16", 2e-3), ("int8", 8e-2)])
def test_lowered_graph_takes_and_gives_the_same_tensors_and_loses_little(precision, bound):
    graph, samples = unet3d(), volumes()
    lowered = lower(graph, precision, samples)
    with (
        OnnxRuntimeSession(graph, name="original") as before,
        OnnxRuntimeSession(lowered.graph, name="lowered") as after,
    ):
        assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    loss = measure_loss(graph, lowered.graph, samples)
    assert loss.samples == 3
    assert loss.max_abs["mask"] <= bound
    assert loss.mean_abs["mask"] <= bound / 5
    if precision != "fp32":
        # Where nothing is lost, nothing was lowered.
        assert loss.max_abs["mask"] > 0
        assert lowered.changed > 0
        assert len(lowered.graph) < len(graph)


@pytest.mark.req("R-BUILD-01")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_precision_that_would_change_no_node_is_refused(precision):
    graph = bytes_of(model_of([node("Sigmoid", ["x"], ["y"], "/s")], {"x": [1, 4]}, {"y": [1, 4]}, {}))
    with pytest.raises(BuildError, match=f"take {precision} out of the package's precisions") as caught:
        lower(graph, precision, [{"x": np.ones((1, 4), np.float32)}])
    assert caught.value.kind == "unsupported"


@pytest.mark.req("R-BUILD-01")
def test_a_weight_in_another_file_is_refused_also_in_a_list_of_an_attribute():
    model = model_of([node("Relu", ["x"], ["y"], "/r")], {"x": [1]}, {"y": [1]}, {})
    elsewhere = onnx.TensorProto(name="w", data_location=onnx.TensorProto.EXTERNAL)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("weights", [elsewhere]))
    with pytest.raises(BuildError, match="weight 'w' lies in another file"):
        read_graph(bytes_of(model))


def test_unknown_precision_names_the_known_ones():
    with pytest.raises(BuildError, match="'fp8'; known are fp32, fp16, int8"):
        lower(unet3d(), "fp8")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("opset", [13, 15, 17, 19, 21])
def test_every_opset_that_the_gate_allows_can_be_lowered(precision, opset):
    extra = [node("Relu", ["c"], ["r"], "/relu"), node("GlobalAveragePool", ["r"], ["y"], "/pool")]
    graph, samples = conv_graph(opset, extra=extra, outputs={"y": [1, 3, 1, 1]}), pictures()
    assert measure_loss(graph, lower(graph, precision, samples).graph, samples).max_abs["y"] < 0.05


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lowering_the_same_twice_gives_the_same_bytes(precision):
    assert lower(unet3d(), precision, volumes()).graph == lower(unet3d(), precision, volumes()).graph


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_names_that_the_rewrite_would_give_may_be_taken_already(precision):
    extra = [node("Relu", ["c"], ["x_half"], "x_dq_node"), node("Relu", ["x_half"], ["k_int8"], "cast_c")]
    graph = conv_graph(extra=extra, outputs={"k_int8": [1, 3, 8, 8]})
    parsed(lower(graph, precision, pictures()))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_weights_in_constant_nodes_are_lowered_too(precision):
    kernel = weight(3, 2, 3, 3)
    nodes = [
        node("Constant", [], ["k"], "/k", value=numpy_helper.from_array(kernel)),
        node("Conv", ["x", "k"], ["c"], "/conv", pads=[1] * 4),
    ]
    graph, samples = bytes_of(model_of(nodes, {"x": [1, 2, 8, 8]}, {"c": [1, 3, 8, 8]}, {})), pictures()
    lowered = lower(graph, precision, samples)
    assert lowered.changed == 1
    assert measure_loss(graph, lowered.graph, samples).max_abs["c"] < 0.05


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_original_that_computes_in_halves_already_is_refused(precision):
    kernel = weight(3, 2, 3, 3).astype(np.float16)
    graph = bytes_of(
        model_of(
            [node("Conv", ["x", "k"], ["c"], "/conv")],
            {"x": ([1, 2, 8, 8], TensorProto.FLOAT16)},
            {"c": ([1, 3, 6, 6], TensorProto.FLOAT16)},
            {"k": kernel},
        )
    )
    with pytest.raises(BuildError, match="would change no node"):
        lower(graph, precision, [{"x": np.zeros((1, 2, 8, 8), np.float16)}])


# -- FP16 --


@pytest.mark.req("R-BUILD-01")
def test_halves_begin_at_the_first_layer_and_end_at_the_last():
    _, nodes, types = parsed(lower(unet3d(), "fp16"))
    for name in ("/scale/sub", "/scale/div", "/head/softmax"):
        assert {types.get(i, 1) for i in nodes[name].input} == {TensorProto.FLOAT}, name
    for name in ("/down0/conv", "/down1/relu", "/up0/transpose", "/up0/concat", "/head/conv"):
        assert {types[i] for i in nodes[name].input} == {TensorProto.FLOAT16}, name
    assert {types[i] for i in nodes["/down0/norm"].input} == {TensorProto.FLOAT}


def test_what_follows_the_last_layer_decides_and_stays_whole():
    extra = [
        node("Relu", ["c"], ["r"], "/relu"),
        node("Resize", ["r", "", "scales"], ["y"], "/resize", mode="linear"),
    ]
    graph = conv_graph(extra=extra, outputs={"y": [1, 3, 16, 16]}, scales=np.array([1, 1, 2, 2], np.float32))
    lowered = lower(graph, "fp16")
    _, nodes, types = parsed(lowered)
    assert lowered.changed == 1
    assert types[nodes["/relu"].input[0]] == TensorProto.FLOAT


@pytest.mark.req("R-BUILD-01")
def test_the_whole_range_of_hu_passes_the_halves():
    graph = unet3d()
    whole = [{"hu": np.linspace(-32768, 32767, 16**3, dtype=np.float32).reshape(1, 1, 16, 16, 16)}]
    assert measure_loss(graph, lower(graph, "fp16").graph, whole).max_abs["mask"] < 0.05


@pytest.mark.req("R-BUILD-01")
def test_values_that_leave_the_range_of_halves_are_found_by_measuring():
    graph = conv_graph(kernel=np.full((3, 2, 3, 3), 30.0, np.float32))
    with pytest.raises(BuildError, match=r"'c' of the lowered .* from node '/conv' on: .*[Ss]cale the inputs"):
        measure_loss(graph, lower(graph, "fp16").graph, pictures(level=3000))


@pytest.mark.parametrize("value", [1e6, 1e-9])
def test_weights_that_halves_cannot_hold_stay_whole(value):
    graph = conv_graph(
        kernel=np.full((3, 2, 3, 3), value, np.float32),
        extra=[node("Conv", ["c", "second"], ["y"], "/second")],
        outputs={"y": [1, 1, 8, 8]},
        second=weight(1, 3, 1, 1),
    )
    lowered = lower(graph, "fp16")
    _, nodes, types = parsed(lowered)
    assert lowered.changed == 1
    assert types[nodes["/conv"].input[1]] == TensorProto.FLOAT
    assert types[nodes["/second"].input[1]] == TensorProto.FLOAT16


def test_one_value_may_be_needed_whole_and_halved():
    extra = [
        node("Conv", ["c", "second"], ["d"], "/second"),
        node("ReduceMean", ["c"], ["m"], "/mean", axes=[1], keepdims=1),
        node("Add", ["d", "m"], ["y"], "/add"),
    ]
    graph = conv_graph(extra=extra, outputs={"y": [1, 1, 8, 8], "c": [1, 3, 8, 8]}, second=weight(1, 3, 1, 1))
    loss = measure_loss(graph, lower(graph, "fp16").graph, pictures())
    assert max(loss.max_abs.values()) < 0.01


def test_scales_of_resize_stay_whole_as_its_definition_says():
    extra = [
        node("Resize", ["c", "", "scales"], ["r"], "/resize", mode="linear"),
        node("Conv", ["r", "second"], ["y"], "/second"),
    ]
    graph = conv_graph(
        extra=extra,
        outputs={"y": [1, 1, 16, 16]},
        scales=np.array([1, 1, 2, 2], np.float32),
        second=weight(1, 3, 1, 1),
    )
    _, nodes, types = parsed(lower(graph, "fp16"))
    assert types[nodes["/resize"].input[0]] == TensorProto.FLOAT16
    assert types[nodes["/resize"].input[2]] == TensorProto.FLOAT
    assert measure_loss(graph, lower(graph, "fp16").graph, pictures()).max_abs["y"] < 0.01


# -- INT8 --


@pytest.mark.req("R-BUILD-01")
def test_int8_is_symmetric_per_channel_and_leaves_biases_whole():
    model, nodes, types = parsed(lower(unet3d(), "int8", volumes()))
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert pairs
    assert all(not held[n.input[2]].any() for n in pairs)
    conv = nodes["/down1/conv"]
    kernel = next(n for n in pairs if conv.input[1] in n.output)
    assert held[kernel.input[0]].dtype == np.int8
    assert held[kernel.input[1]].shape == (8,)
    assert types[conv.input[2]] == TensorProto.FLOAT


@pytest.mark.parametrize("kind", ["MatMul", "Gemm", "Gemm transposed"])
def test_dense_layers_are_quantised_along_their_outputs(kind):
    weights = weight(5, 7, scale=3.0) * np.linspace(0.01, 3, 7, dtype=np.float32)
    transposed = kind.endswith("transposed")
    layer = (
        node("MatMul", ["x", "w"], ["y"], "/dense")
        if kind == "MatMul"
        else node("Gemm", ["x", "w", "b"], ["y"], "/dense", transB=int(transposed))
    )
    graph = bytes_of(
        model_of(
            [layer],
            {"x": [4, 5]},
            {"y": [4, 7]},
            {"w": weights.T.copy() if transposed else weights, "b": np.ones(7, np.float32)},
        )
    )
    samples = [{"x": RNG.standard_normal((4, 5)).astype(np.float32)} for _ in range(3)]
    lowered = lower(graph, "int8", samples)
    model, nodes, _ = parsed(lowered)
    held = {t.name: t.dims for t in model.graph.initializer}
    made = next(n for n in model.graph.node if nodes["/dense"].input[1] in n.output)
    assert list(held[made.input[1]]) == [7]
    with OnnxRuntimeSession(graph, name="original") as session:
        largest = max(np.abs(session.run(sample)["y"]).max() for sample in samples)
    assert measure_loss(graph, lowered.graph, samples).max_abs["y"] < 0.02 * largest


def test_int8_without_calibration_says_where_to_name_it():
    with pytest.raises(BuildError, match=r"calibration in model\.yaml"):
        lower(unet3d(), "int8")


def test_calibration_that_does_not_fit_the_graph_names_the_tensor():
    with pytest.raises(BuildError, match=r"calibration: input 'hu' has shape \(1, 2\)"):
        lower(unet3d(), "int8", [{"hu": np.zeros((1, 2), np.float32)}])
    with pytest.raises(BuildError, match=r"calibration: scaled, .* not finite"):
        lower(unet3d(), "int8", [{"hu": np.full((1, 1, 16, 16, 16), np.inf, np.float32)}])


def test_a_layer_that_sees_only_zeros_stays_finite():
    graph = conv_graph(kernel=np.zeros((3, 2, 3, 3), np.float32))
    zeros = [{"x": np.zeros((1, 2, 8, 8), np.float32)}]
    assert measure_loss(graph, lower(graph, "int8", zeros).graph, zeros).max_abs["c"] == 0


# -- recipes and refused graphs --


def test_recipe_of_int8_changes_with_the_calibration_and_no_other_does():
    assert recipe_id("int8", b"one") != recipe_id("int8", b"two")
    assert recipe_id("fp16", b"one") == recipe_id("fp16", b"two") == lower(unet3d(), "fp16").recipe


@pytest.mark.parametrize("graph", [b"", b"no model at all", b"\0" * 1000, unet3d()[:-100]])
def test_what_is_no_graph_is_refused(graph):
    with pytest.raises(BuildError, match="export the model again") as caught:
        read_graph(graph)
    assert caught.value.kind == "parse"


def test_weights_in_another_file_are_refused():
    model = toy_packages._blob_graph()
    held = model.graph.initializer[0]
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(BuildError, match="'narrow' lies in another file"):
        read_graph(model.SerializeToString())
