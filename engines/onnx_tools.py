"""Small helpers over parsed ONNX graphs that the rewrites share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.types import Tensors

if TYPE_CHECKING:
    import onnx


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value that inference can tell, by name."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    types = {v.name: v.type.tensor_type.elem_type for v in values if v.type.HasField("tensor_type")}
    return types | {t.name: t.data_type for t in model.graph.initializer}


def float_constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Every FP32 weight by name. Weights in ``Constant`` nodes are moved to the initialisers first, in place."""
    import onnx

    constants = [n for n in model.graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"]
    for node in constants:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
        model.graph.node.remove(node)
    return {
        t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT
    }


class Names:
    """The names that a graph uses, so that new ones do not meet them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._taken = {n for node in model.graph.node for n in (*node.output, *node.input, node.name)}
        self._taken |= {t.name for t in model.graph.initializer} | {i.name for i in model.graph.input}

    def new(self, wanted: str) -> str:
        """``wanted``, or with underscores behind it until it is new; taken from now on."""
        while wanted in self._taken:
            wanted += "_"
        self._taken.add(wanted)
        return wanted


def replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Give the graph other nodes, which may be its own; what was inferred of values before no longer holds."""
    kept = [type(n).FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    del model.graph.value_info[:]


def largest_values(model: onnx.ModelProto, values: Sequence[str], samples: Sequence[Tensors]) -> dict[str, float]:
    """The largest absolute value that each of ``values`` takes while the graph runs on the samples, in the same order.

    Raises:
        SessionError: The graph does not run on them.
    """
    import onnx

    from engines.backends.onnxruntime import OnnxRuntimeSession

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    names = Names(model)
    tops = {}
    for value in values:
        whole, size, top = (names.new(f"{value}_{part}") for part in ("whole", "size", "top"))
        watched.graph.node.append(onnx.helper.make_node("Cast", [value], [whole], to=onnx.TensorProto.FLOAT))
        watched.graph.node.append(onnx.helper.make_node("Abs", [whole], [size]))
        watched.graph.node.append(onnx.helper.make_node("ReduceMax", [size], [top], keepdims=0))
        watched.graph.output.append(onnx.helper.make_tensor_value_info(top, onnx.TensorProto.FLOAT, []))
        tops[top] = value
    largest = dict.fromkeys(values, 0.0)
    with OnnxRuntimeSession(watched.SerializeToString(), name="the graph on its samples") as session:
        for sample in samples:
            for top, found in session.run(sample).items():
                # As numpy does it, so that NaN stays.
                largest[tops[top]] = float(np.maximum(largest[tops[top]], found))
    return largest
