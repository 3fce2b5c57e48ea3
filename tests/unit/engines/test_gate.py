"""The rules that one graph must obey, in this process; whole packages and the child are in test_gate_package.py."""

from __future__ import annotations

import head_ct
import numpy as np
import onnx
import pytest
import toy_packages
from onnx import TensorProto, helper, numpy_helper

from engines.errors import PackageError
from engines.gate import check_graph, parse_graph
from engines.manifest import Profile

NODE = helper.make_node


def _graph(
    *nodes, weights=(), shape=(1, 4), kind=TensorProto.FLOAT, domain="", opset=17, out=(None, TensorProto.FLOAT)
):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", out[1], out[0])],
        list(weights),
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _relu(**changes):
    return _graph(NODE("Relu", ["x"], ["y"]), **changes)


def _refused(model, memory_mb=100, **profiles):
    with pytest.raises(PackageError) as caught:
        check_graph(model, memory_mb=memory_mb, profiles=profiles)
    return str(caught.value)


def _profile(*largest):
    return Profile(min=(1, *largest[1:]), opt=largest, max=largest)


def _constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype), name)


def test_graphs_of_our_own_packages_pass():
    largest = (12, 1, 256, 256)
    assert check_graph(head_ct.build(), memory_mb=600, profiles={"hu": _profile(*largest)}).peak_mb > 3
    check_graph(toy_packages._blob_graph(), memory_mb=256)


@pytest.mark.fault("T39")
def test_control_flow_is_refused():
    assert "Loop" in _refused(toy_packages._loop_graph(3))


@pytest.mark.fault("T39")
@pytest.mark.parametrize("kind", ["NonZero", "Scan", "If", "RandomNormal", "ConstantOfShape", "StringNormalizer"])
def test_operators_that_are_not_listed_are_refused(kind):
    assert f"operator {kind} is not allowed" in _refused(_graph(NODE(kind, ["x"], ["y"])))


@pytest.mark.fault("T39")
def test_operators_of_other_domains_are_refused():
    shown = _refused(_graph(NODE("Relu", ["x"], ["y"], domain="com.example"), domain="com.example"))
    assert "operators of domain 'com.example'" in shown
    assert "operator com.example.Relu is not allowed" in shown


@pytest.mark.fault("T39")
@pytest.mark.parametrize("where", ["weights.bin", "../../etc/passwd", "/etc/passwd"])
def test_external_data_is_refused(where):
    weight = _constant("w", np.ones(4))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=where)
    assert "'w' lies in another file" in _refused(_graph(NODE("Add", ["x", "w"], ["y"]), weights=[weight]))


@pytest.mark.fault("T39")
@pytest.mark.parametrize("dims", [[5], [4, 1 << 40], [-4], [2, 3]])
def test_weight_that_says_another_size_than_it_holds_is_refused(dims):
    weight = _constant("w", np.ones(4))
    weight.ClearField("dims")
    weight.dims.extend(dims)
    assert "but holds 4 values" in _refused(_graph(NODE("Add", ["x", "w"], ["y"]), weights=[weight]))


def test_weight_hidden_in_an_attribute_is_checked_too():
    value = _constant("hidden", np.ones(4))
    value.dims[0] = 9
    assert "'hidden' says [9]" in _refused(_graph(NODE("Constant", [], ["y"], value=value)))


def test_weight_that_stores_its_values_twice_is_refused():
    weight = _constant("w", np.ones(4))
    weight.float_data.extend([2, 2, 2, 2])
    assert "twice" in _refused(_graph(NODE("Add", ["x", "w"], ["y"]), weights=[weight]))


@pytest.mark.req("R-SIGN-06")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("raw", [True, False])
def test_weights_that_are_no_numbers_are_refused(value, dtype, raw):
    weight = _constant("w", [1, 1, value, 1], dtype)
    if not raw:
        values = [1, 1, value, 1]
        if dtype == np.float16:
            values = np.array(values, np.float16).view(np.uint16).tolist()
        field = {np.float32: "float_data", np.float16: "int32_data", np.float64: "double_data"}[dtype]
        weight.ClearField("raw_data")
        getattr(weight, field).extend(values)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = _graph(NODE("Add", ["x", "w"], ["y"]), weights=[weight], kind=kind, out=(None, kind))
    assert "'w' holds NaN or infinity" in _refused(model)
    assert "'alpha' is not finite" in _refused(_graph(NODE("Elu", ["x"], ["y"], alpha=float(value))))


@pytest.mark.req("R-SIGN-06")
@pytest.mark.parametrize("kind", ["INT16", "UINT16", "BFLOAT16", "STRING", "BOOL", "COMPLEX64"])
def test_inputs_that_the_builders_refuse_are_refused(kind):
    number = TensorProto.DataType.Value(kind)
    shown = _refused(_graph(NODE("Cast", ["x"], ["y"], to=TensorProto.FLOAT), kind=number))
    assert f"input 'x' is of type {kind}" in shown
    assert "FLOAT" in shown


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.complex64, np.str_])
def test_weights_of_types_that_the_builders_refuse_are_refused(dtype):
    weight = numpy_helper.from_array(np.array(["a", "b"], object) if dtype is np.str_ else np.ones(4, dtype), "w")
    shown = _refused(_graph(NODE("Cast", ["w"], ["c"], to=1), NODE("Add", ["x", "c"], ["y"]), weights=[weight]))
    assert "weight 'w' is of type" in shown


@pytest.mark.req("R-SIGN-07")
@pytest.mark.fault("T39")
def test_tensor_larger_than_the_packages_memory_is_refused():
    shape = _constant("shape", [100_000, 100_000], np.int64)
    one = _constant("one", np.ones((1, 1)))
    shown = _refused(_graph(NODE("Expand", ["one", "shape"], ["y"]), weights=[shape, one]))
    assert "more than limits.memory_mb (100)" in shown


@pytest.mark.req("R-SIGN-07")
@pytest.mark.fault("T39")
def test_doubling_is_refused_where_each_step_is_small():
    nodes = [NODE("Concat", [f"x{k}" if k else "x"] * 2, [f"x{k + 1}"], axis=1) for k in range(60)]
    refusal = _refused(_graph(*nodes, NODE("ReduceMax", ["x60"], ["y"])))
    # Older ONNX gives up on the sizes where they leave 64 bits, before our sum is made.
    assert "limits.memory_mb" in refusal or "cannot be known beforehand" in refusal


@pytest.mark.req("R-SIGN-07")
@pytest.mark.fault("T39")
def test_constants_that_unfold_when_a_graph_is_loaded_are_counted_together():
    """ONNX Runtime folds them all at once: 100 x 4 MB, though no two live at the same time in the graph."""
    side = _constant("side", [1024, 1024], np.int64)
    one = _constant("one", np.ones((1, 1)))
    nodes = []
    for k in range(100):
        nodes.append(NODE("Expand", ["one", "side"], [f"big{k}"]))
        nodes.append(NODE("ReduceMax", [f"big{k}"], [f"small{k}"], keepdims=0))
    nodes += [NODE("Sum", ["x", *(f"small{k}" for k in range(100))], ["y"])]
    model = _graph(*nodes, weights=[side, one])
    assert "needs 400 MB" in _refused(model, memory_mb=399)
    check_graph(model, memory_mb=401)


@pytest.mark.req("R-SIGN-07")
def test_what_lives_at_the_same_time_counts_and_what_is_used_up_does_not():
    """Of a chain of 1 MB tensors two live at once; what a later node needs stays alive beside them."""
    chain = [NODE("Relu", [f"t{k}" if k else "x"], [f"t{k + 1}"]) for k in range(8)]
    shape = (1, 262_144)
    needs = check_graph(_graph(*chain, NODE("Sigmoid", ["t8"], ["y"]), shape=shape), memory_mb=100)
    assert needs.peak_mb == pytest.approx(3)  # the input too, which is the caller's for the whole run
    held = [*chain, NODE("Add", ["t1", "t8"], ["y"])]
    assert check_graph(_graph(*held, shape=shape), memory_mb=100).peak_mb == pytest.approx(4)
    weight = _constant("w", np.ones(shape))
    model = _graph(NODE("Add", ["x", "w"], ["y"]), weights=[weight], shape=shape)
    assert check_graph(model, memory_mb=100).weights_mb == pytest.approx(1)


@pytest.mark.req("R-SIGN-07")
def test_dimensions_that_vary_are_counted_at_the_largest_of_the_profile():
    model = _relu(shape=("n", 1024))
    assert "has dimensions that vary and no profile" in _refused(model)
    assert check_graph(model, memory_mb=100, profiles={"x": _profile(1024, 1024)}).peak_mb == pytest.approx(8)
    assert "needs 200 MB" in _refused(model, x=_profile(25_600, 1024))


@pytest.mark.parametrize(
    ("profile", "complaint"),
    [
        (_profile(4), "does not fit"),
        (_profile(4, 8), "does not fit"),
        (Profile(min=(5, 4), opt=(4, 4), max=(9, 4)), "min <= opt <= max"),
        (Profile(min=(0, 4), opt=(4, 4), max=(9, 4)), "min <= opt <= max"),
    ],
)
def test_a_profile_that_does_not_fit_its_graph_is_refused(profile, complaint):
    assert complaint in _refused(_relu(shape=("n", 4)), x=profile)


def test_a_size_that_cannot_be_known_is_refused():
    model = _graph(
        NODE("Cast", ["x"], ["shape"], to=TensorProto.INT64), NODE("Expand", ["one", "shape"], ["y"]),
        weights=[_constant("one", np.ones((1, 1, 1, 1)))], shape=(4,),
    )  # fmt: skip
    assert "cannot be known beforehand" in _refused(model)


def test_sizes_made_of_the_inputs_own_shape_are_known():
    """What exporters write for a resize to the input's size."""
    model = _graph(
        NODE("MaxPool", ["x"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        NODE("Shape", ["x"], ["size"]),
        NODE("Resize", ["small", "", "", "size"], ["y"]),
        shape=(1, 1, "h", "w"),
    )
    needs = check_graph(
        model, memory_mb=100, profiles={"x": Profile(min=(1, 1, 2, 2), opt=(1, 1, 512, 512), max=(1, 1, 512, 512))}
    )
    assert needs.peak_mb == pytest.approx(2.25, rel=0.001)


@pytest.mark.fault("T39")
def test_shapes_that_contradict_one_another_are_refused():
    weight = _constant("w", np.ones((5, 5)))
    assert "contradict" in _refused(_graph(NODE("MatMul", ["x", "w"], ["y"]), weights=[weight]))
    assert "contradict" in _refused(_relu(out=((1, 5), TensorProto.FLOAT)))


@pytest.mark.parametrize("opset", [9, 12, 22, 30])
def test_opset_outside_the_range_is_refused(opset):
    assert f"opset {opset}" in _refused(_relu(opset=opset))


def test_the_versions_that_a_graph_names_are_one_and_known():
    none, two, new = _relu(), _relu(), _relu()
    none.ClearField("opset_import")
    assert "names 0 versions" in _refused(none)
    two.opset_import.append(helper.make_opsetid("ai.onnx", 18))
    assert "names 2 versions" in _refused(two)
    new.ir_version = 13
    assert "IR version 13" in _refused(new)


def test_local_functions_and_training_are_refused():
    model = _relu()
    model.functions.append(
        helper.make_function("", "Mine", ["a"], ["b"], [NODE("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)])
    )
    model.training_info.add()
    shown = _refused(model)
    assert "local functions" in shown
    assert "training information" in shown


@pytest.mark.fault("T39")
def test_graph_hidden_in_a_permitted_operator_is_refused():
    inner = toy_packages._blob_graph().graph
    for held in (inner, [inner, inner]):
        node = NODE("Relu", ["x"], ["y"])
        node.attribute.append(helper.make_attribute("body", held))
        assert "holds a graph of its own" in _refused(_graph(node))


def test_sparse_weights_are_refused_wherever_they_lie():
    sparse = helper.make_sparse_tensor(_constant("v", [1.0]), _constant("i", [0], np.int64), [4])
    assert "sparse" in _refused(_graph(NODE("Constant", [], ["y"], sparse_value=sparse)))
    model = _relu()
    model.graph.sparse_initializer.append(sparse)
    assert "sparse" in _refused(model)


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        ([("Relu", "x", "a"), ("Relu", "x", "a"), ("Relu", "a", "y")], "makes 'a' a second time"),
        ([("Relu", "a", "y"), ("Relu", "x", "a")], "uses 'a', which nothing made before"),
        ([("Relu", "y", "y")], "uses 'y', which nothing made before"),
        ([("Relu", "x", "x"), ("Relu", "x", "y")], "makes 'x' a second time"),
        ([("Relu", "x", "z")], "output 'y' is made by nothing"),
    ],
)
def test_every_value_has_one_maker_that_comes_before_its_users(nodes, complaint):
    assert complaint in _refused(_graph(*(NODE(kind, [taken], [made]) for kind, taken, made in nodes)))


@pytest.mark.fault("T39")
def test_huge_numbers_of_nodes_and_weights_are_refused():
    chain = [NODE("Relu", [f"t{k}" if k else "x"], [f"t{k + 1}"]) for k in range(20_001)]
    assert "20001 nodes, at most 20000" in _refused(_graph(*chain))


@pytest.mark.fault("T39")
@pytest.mark.parametrize("kind", ["empty", "cut off", "random", "text", "zeros", "twice", "unknown", "padded"])
def test_files_that_are_no_plain_onnx_are_refused(kind):
    good = toy_packages._blob_graph().SerializeToString()
    data = {
        "empty": b"",
        "cut off": good[: len(good) // 2],
        "random": np.random.default_rng(1).bytes(5000),
        "text": b"this is no graph",
        "zeros": bytes(1000),
        "twice": good + toy_packages._nan_graph().SerializeToString(),
        "unknown": good + b"\xfa\x3f\x03abc",
        "padded": good.replace(b"\x08\x08", b"\x08\x88\x00", 1),
    }[kind]
    with pytest.raises(PackageError):
        check_graph(parse_graph(data), memory_mb=256)


def test_all_faults_are_told_at_once_a_line_each():
    model = _graph(NODE("NonZero", ["x"], ["a"]), NODE("Loop", ["a"], ["y"]), opset=30)
    assert len(_refused(model).splitlines()) == 3


def test_gate_changes_nothing():
    model = toy_packages._blob_graph()
    before = model.SerializeToString(deterministic=True)
    check_graph(model, memory_mb=256)
    assert onnx.ModelProto.FromString(before) == model
