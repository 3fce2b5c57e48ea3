from __future__ import annotations

import head_ct
import numpy as np
import onnx
import pytest
import toy_packages
from onnx import TensorProto, helper, numpy_helper

from engines.errors import PackageError
from engines.gate import check_graph


def _graph(*nodes, weights=(), shape=(1, 4), domain="", opset=17):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(weights),
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _refused(model, memory_mb=100):
    with pytest.raises(PackageError, match="the graph is refused") as caught:
        check_graph(model, memory_mb=memory_mb)
    return str(caught.value)


def test_graphs_of_our_own_packages_pass():
    check_graph(head_ct.build(), memory_mb=600)
    check_graph(toy_packages._blob_graph(), memory_mb=256)


def test_control_flow_is_refused():
    assert "Loop" in _refused(toy_packages._loop_graph(3))


@pytest.mark.parametrize("kind", ["NonZero", "Scan", "If", "RandomNormal", "ConstantOfShape", "StringNormalizer"])
def test_operators_that_are_not_listed_are_refused(kind):
    assert f"operator {kind} is not allowed" in _refused(_graph(helper.make_node(kind, ["x"], ["y"])))


def test_operators_of_other_domains_are_refused():
    node = helper.make_node("Relu", ["x"], ["y"], domain="com.example")
    shown = _refused(_graph(node, domain="com.example"))
    assert "operators of domain 'com.example'" in shown


def test_external_data_is_refused():
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../etc/passwd")
    assert "'w' lies in another file" in _refused(_graph(helper.make_node("Add", ["x", "w"], ["y"]), weights=[weight]))


@pytest.mark.parametrize("dims", [[5], [4, 1 << 40], [-4], [2, 3]])
def test_weight_that_says_another_size_than_it_holds_is_refused(dims):
    weight = numpy_helper.from_array(np.ones(4, np.float32), "w")
    weight.ClearField("dims")
    weight.dims.extend(dims)
    assert "but holds 4 values" in _refused(_graph(helper.make_node("Add", ["x", "w"], ["y"]), weights=[weight]))


def test_weight_hidden_in_an_attribute_is_checked_too():
    value = numpy_helper.from_array(np.ones(4, np.float32), "hidden")
    value.dims[0] = 9
    assert "'hidden' says [9]" in _refused(_graph(helper.make_node("Constant", [], ["y"], value=value)))


def test_tensor_larger_than_the_packages_memory_is_refused():
    shape = numpy_helper.from_array(np.array([100_000, 100_000], np.int64), "shape")
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    shown = _refused(_graph(helper.make_node("Expand", ["one", "shape"], ["y"]), weights=[shape, one]))
    assert "larger than the package's memory limit" in shown


def test_shapes_that_contradict_one_another_are_refused():
    weight = numpy_helper.from_array(np.ones((5, 5), np.float32), "w")
    shown = _refused(_graph(helper.make_node("MatMul", ["x", "w"], ["y"]), weights=[weight]))
    assert "contradict" in shown


@pytest.mark.parametrize("opset", [9, 30])
def test_opset_outside_the_range_is_refused(opset):
    assert f"opset {opset}" in _refused(_graph(helper.make_node("Relu", ["x"], ["y"]), opset=opset))


def test_local_functions_are_refused():
    model = _graph(helper.make_node("Relu", ["x"], ["y"]))
    model.functions.append(
        helper.make_function(
            "", "Mine", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
        )
    )
    assert "local functions" in _refused(model)


def test_gate_changes_nothing():
    model = toy_packages._blob_graph()
    before = model.SerializeToString(deterministic=True)
    check_graph(model, memory_mb=256)
    assert onnx.ModelProto.FromString(before) == model


def test_graph_hidden_in_a_permitted_operator_is_refused():
    node = helper.make_node("Relu", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("body", toy_packages._blob_graph().graph))
    assert "holds a graph of its own" in _refused(_graph(node))
