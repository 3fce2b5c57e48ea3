"""INT8: symmetric Q/DQ around every layer with constant weights; nothing else changes.

TensorRT takes zero points of zero only, weights per output channel, activations per tensor, and biases that are not
quantised. Q/DQ stand at the inputs of a layer, where all flavours fuse them. Scales are the largest absolute values
seen while the calibration samples run in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import BuildError, SessionError
from engines.onnx_tools import Names, float_constants, largest_values, replace_nodes, value_types
from engines.types import Tensors

if TYPE_CHECKING:
    import onnx

_LEVELS = 127


def to_int8(model: onnx.ModelProto, calibration: Sequence[Tensors]) -> int:
    """Rewrite a graph in place.

    Returns:
        How many layers compute in INT8 now.

    Raises:
        BuildError: There is no calibration, or the graph does not run on it.
    """
    import onnx

    types = value_types(model)
    weights = float_constants(model)
    axes = {
        index: axis
        for index, node in enumerate(model.graph.node)
        if (axis := _channel_axis(node, weights)) is not None
        and node.input[0] not in weights
        and types.get(node.input[0]) == onnx.TensorProto.FLOAT
    }
    if not axes:
        return 0
    if not calibration:
        raise BuildError(
            "int8 needs calibration samples; name their file under calibration in model.yaml", "unsupported"
        )
    activations = dict.fromkeys(model.graph.node[index].input[0] for index in axes)
    try:
        largest = largest_values(model, list(activations), calibration)
    except SessionError as error:
        raise BuildError(f"calibration: {error}") from error
    wild = [name for name, value in largest.items() if not np.isfinite(value)]
    if wild:
        raise BuildError(f"calibration: {', '.join(wild[:5])} is not finite; the samples do not fit the graph")
    names = Names(model)
    made: list[onnx.NodeProto] = []

    def constant(name: str, values: NDArray[Any]) -> str:
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        made.append(onnx.helper.make_node(kind, inputs, [output], name=names.new(f"{output}_node"), **attributes))

    def quantise_activation(name: str) -> str:
        scale = constant(names.new(f"{name}_scale"), np.array(_scale(largest[name]), np.float32))
        zero = constant(names.new(f"{name}_zero"), np.array(0, np.int8))
        whole, back = names.new(f"{name}_int8"), names.new(f"{name}_dq")
        node("QuantizeLinear", [name, scale, zero], whole)
        node("DequantizeLinear", [whole, scale, zero], back)
        return back

    def quantise_weight(name: str, axis: int) -> str:
        values = weights[name]
        others = tuple(a for a in range(values.ndim) if a != axis)
        scales = _scale(np.abs(values).max(axis=others)).astype(np.float32)
        shape = [-1 if a == axis else 1 for a in range(values.ndim)]
        levels = np.clip(np.rint(values / scales.reshape(shape)), -_LEVELS, _LEVELS).astype(np.int8)
        held = constant(names.new(f"{name}_int8"), levels)
        scale = constant(names.new(f"{name}_scale"), scales)
        zero = constant(names.new(f"{name}_zero"), np.zeros(len(scales), np.int8))
        back = names.new(f"{name}_dq")
        node("DequantizeLinear", [held, scale, zero], back, axis=axis)
        return back

    done: dict[tuple[str, int], str] = {}
    for index, old in enumerate(model.graph.node):
        if index in axes:
            for slot, axis in ((0, -1), (1, axes[index])):
                name = old.input[slot]
                if (name, axis) not in done:
                    done[name, axis] = quantise_activation(name) if slot == 0 else quantise_weight(name, axis)
                old.input[slot] = done[name, axis]
        made.append(old)
    replace_nodes(model, made)
    used = {name for n in model.graph.node for name in n.input}
    for held in [t for t in model.graph.initializer if t.name in weights and t.name not in used]:
        model.graph.initializer.remove(held)
    return len(axes)


def _channel_axis(node: onnx.NodeProto, weights: dict[str, NDArray[Any]]) -> int | None:
    """The axis of the output channels in a layer's weights; ``None`` for what is no layer with constant weights."""
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or node.input[1] not in weights:
        return None
    if node.op_type == "Conv":
        return 0
    if weights[node.input[1]].ndim != 2:
        return None
    attributes = {a.name: a.i for a in node.attribute}
    if attributes.get("transA"):
        return None
    return 0 if attributes.get("transB") else 1


def _scale(largest: Any) -> Any:
    """Of one level; whatever is zero everywhere may have any scale."""
    return np.where(np.asarray(largest) > 0, np.asarray(largest) / _LEVELS, 1.0)
