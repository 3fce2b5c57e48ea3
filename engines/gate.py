"""What a graph from elsewhere must not hold. A pure function over the parsed model, for packages that are not ours.

ONNX Runtime itself refuses external data outside the folder, lying dimensions and unknown domains, but not an endless
Loop or a tensor of 640 GB; so operators are an allow-list and static shapes are added up here. The caller runs it in
a limited child: parsing foreign bytes is foreign code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engines.errors import PackageError

if TYPE_CHECKING:
    import onnx

MAX_GRAPH_BYTES = 512 * 1024 * 1024
MAX_NODES = 20_000
OPSETS = range(13, 22)

#: Operators without control flow, strings, random numbers or sizes that only data decide.
OPERATORS = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant Conv ConvTranspose Cos
    CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear
    Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round ScatterElements
    ScatterND Shape Sigmoid Sign Sin Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile
    TopK Transpose Unsqueeze Where Xor
    """.split()  # noqa: SIM905 - ninety lines otherwise
)


def check_graph(model: onnx.ModelProto, *, memory_mb: float) -> None:
    """Refuse a graph that could do more than turn arrays into arrays within its memory.

    Args:
        model: The parsed model.
        memory_mb: The package's own limit; no tensor of a static shape may be larger.

    Raises:
        PackageError: Every complaint, naming node or tensor.
    """
    wrong = [*_frame(model), *_nodes(model), *_weights(model)]
    if not wrong:  # inference would walk into what was just refused
        wrong = list(_sizes(model, memory_mb * 1024 * 1024))
    if wrong:
        raise PackageError("the graph is refused: " + "; ".join(wrong[:10]))


def _frame(model: onnx.ModelProto) -> list[str]:
    wrong = []
    if model.ByteSize() > MAX_GRAPH_BYTES:
        wrong.append(f"{model.ByteSize()} bytes, at most {MAX_GRAPH_BYTES}")
    for opset in model.opset_import:
        if opset.domain not in {"", "ai.onnx"}:
            wrong.append(f"operators of domain {opset.domain!r}; export with standard operators only")
        elif opset.version not in OPSETS:
            wrong.append(f"opset {opset.version}, allowed are {OPSETS.start} to {OPSETS.stop - 1}")
    if model.functions:
        wrong.append("local functions; inline them")
    if model.graph.sparse_initializer:
        wrong.append("sparse weights; make them dense")
    if len(model.graph.node) > MAX_NODES:
        wrong.append(f"{len(model.graph.node)} nodes, at most {MAX_NODES}")
    return wrong


def _nodes(model: onnx.ModelProto) -> list[str]:
    wrong = []
    for node in model.graph.node:
        if node.domain not in {"", "ai.onnx"} or node.op_type not in OPERATORS:
            wrong.append(f"node {node.name or node.op_type!r}: operator {node.domain}{node.op_type} is not allowed")
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            wrong.append(f"node {node.name or node.op_type!r} holds a graph of its own")
    return wrong


def _weights(model: onnx.ModelProto) -> list[str]:
    import numpy as np
    import onnx

    wrong = []
    held = list(model.graph.initializer)
    held += [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    held += [t for node in model.graph.node for a in node.attribute for t in a.tensors]
    for tensor in held:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            wrong.append(f"weight {tensor.name!r} lies in another file; store it in the ONNX file")
            continue
        try:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        except (KeyError, ValueError):
            wrong.append(f"weight {tensor.name!r} has an unknown type {tensor.data_type}")
            continue
        count = math.prod(tensor.dims) if all(d >= 0 for d in tensor.dims) else -1
        if tensor.HasField("raw_data"):
            stored = len(tensor.raw_data) / np.dtype(kind).itemsize
        else:
            fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
            stored = max(len(field) for field in fields)
        if tensor.data_type == onnx.TensorProto.STRING or stored != count:
            wrong.append(f"weight {tensor.name!r} says {list(tensor.dims)} but holds {stored:g} values")
    return wrong


def _sizes(model: onnx.ModelProto, limit: float) -> list[str]:
    import numpy as np
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # noqa: BLE001 - the inference is foreign code over foreign bytes
        return [f"its shapes contradict one another: {str(error).splitlines()[0]}"]
    wrong = []
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            wrong.append(f"{value.name!r} is no tensor of known rank")
            continue
        sizes = [d.dim_value if d.HasField("dim_value") else 1 for d in tensor.shape.dim]
        if any(size < 1 for size in sizes):
            wrong.append(f"{value.name!r} has a dimension below 1: {sizes}")
        elif math.prod(sizes) * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize > limit:
            wrong.append(f"{value.name!r} of shape {sizes} is larger than the package's memory limit")
    return wrong
