"""FP16: everything between the first and the last layer with weights computes in halves.

What stands before the first such layer stays in FP32, because raw HU (to +-32768) and sums of them leave the range
or the resolution of halves until they are scaled; what stands after the last one stays in FP32, because scores and
masks are decided there. In between, operators whose halves lose much (norms, softmax, means, divisions) stay too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engines.onnx_tools import Names, float_constants, replace_nodes, value_types

if TYPE_CHECKING:
    import onnx

#: The layers that are worth it: they hold nearly all weights and work.
HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
#: What may follow them in halves: it moves, compares with zero, adds or scales.
LIGHT = frozenset(
    """
    Add AveragePool BatchNormalization Clip Concat DepthToSpace Elu Expand Flatten Gather HardSigmoid HardSwish Identity
    LeakyRelu Max MaxPool Min Mul Neg PRelu Pad Relu Reshape Resize Slice SpaceToDepth Split Squeeze Sub Tile Transpose
    Unsqueeze Where
    """.split()  # noqa: SIM905 - forty lines otherwise
)
#: Input slots that stay FP32 by the operator's definition.
_KEPT_SLOTS = {"Resize": (1, 2)}
_LARGEST = float(np.finfo(np.float16).max)
#: Below this a half has lost more than half of its digits.
_SMALLEST = float(np.finfo(np.float16).tiny) / 32


def to_half(model: onnx.ModelProto) -> int:
    """Rewrite a graph in place.

    Returns:
        How many nodes compute in halves now.
    """
    import onnx

    types = value_types(model)
    weights = float_constants(model)
    halved = _choose(model, types, set(weights), _fitting(weights))
    if not halved:
        return 0
    float_needed = {o.name for o in model.graph.output}
    half_needed: set[str] = set()
    for index, node in enumerate(model.graph.node):
        for slot, name in enumerate(node.input):
            wants_half = index in halved and _is_data(node, slot, name, types)
            (half_needed if wants_half else float_needed).add(name)
    produced_half = {name for index in halved for name in model.graph.node[index].output}
    names = Names(model)
    rename = {name: names.new(f"{name}_half") for name in sorted(half_needed | produced_half) if _is_float(name, types)}

    def cast(source: str, target: str, to: int) -> onnx.NodeProto:
        return onnx.helper.make_node("Cast", [source], [target], name=names.new(f"cast_{target}"), to=to)

    nodes: list[onnx.NodeProto] = [
        cast(i.name, rename[i.name], onnx.TensorProto.FLOAT16)
        for i in model.graph.input
        if i.name in half_needed and i.name not in weights
    ]
    for name in sorted(half_needed & set(weights)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights[name].astype(np.float16), rename[name]))
    for index, node in enumerate(model.graph.node):
        outputs = list(node.output)
        if index in halved:
            for slot, name in enumerate(node.input):
                if _is_data(node, slot, name, types):
                    node.input[slot] = rename[name]
            for slot, name in enumerate(outputs):
                if _is_float(name, types):
                    node.output[slot] = rename[name]
        nodes.append(node)
        for name in outputs:
            if not _is_float(name, types) or name in weights:
                continue
            if index in halved and name in float_needed:
                nodes.append(cast(rename[name], name, onnx.TensorProto.FLOAT))
            elif index not in halved and name in half_needed:
                nodes.append(cast(name, rename[name], onnx.TensorProto.FLOAT16))
    replace_nodes(model, nodes)
    for held in [t for t in model.graph.initializer if t.name in weights and t.name not in float_needed]:
        model.graph.initializer.remove(held)
    return len(halved)


def _choose(model: onnx.ModelProto, types: dict[str, int], constant: set[str], fitting: set[str]) -> set[int]:
    """Indices of the nodes that compute in halves."""
    nodes = model.graph.node
    before = {i.name for i in model.graph.input} | constant | {t.name for t in model.graph.initializer} | {""}
    early: set[int] = set()
    for index, node in enumerate(nodes):
        if node.op_type not in HEAVY and all(name in before for name in node.input):
            early.add(index)
            before.update(node.output)
    leads_on: set[str] = set()
    late: set[int] = set()
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        if node.op_type in HEAVY or any(name in leads_on for name in node.output):
            leads_on.update(node.input)
        else:
            late.add(index)
    return {
        index
        for index, node in enumerate(nodes)
        if (node.op_type in HEAVY or (node.op_type in LIGHT and index not in early and index not in late))
        and _is_float(node.output[0], types)
        and all(not name or name in types for name in node.input)
        and all(
            name not in constant or name in fitting
            for slot, name in enumerate(node.input)
            if _is_data(node, slot, name, types)
        )
    }


def _fitting(weights: dict[str, np.ndarray]) -> set[str]:
    """Names of the weights that keep their meaning as halves."""
    fit = set()
    for name, values in weights.items():
        size = np.abs(values)
        largest = float(size.max(initial=0.0))
        # Single weights may vanish beside large ones; a tensor of tiny ones may not.
        if largest <= _LARGEST and (largest == 0.0 or largest >= _SMALLEST):
            fit.add(name)
    return fit


def _is_float(name: str, types: dict[str, int]) -> bool:
    return types.get(name) == 1  # TensorProto.FLOAT


def _is_data(node: onnx.NodeProto, slot: int, name: str, types: dict[str, int]) -> bool:
    return _is_float(name, types) and slot not in _KEPT_SLOTS.get(node.op_type, ())
