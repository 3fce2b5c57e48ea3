"""What a graph from elsewhere must not hold. Pure functions over the parsed model; they change nothing.

ONNX Runtime itself refuses external data outside the folder, lying dimensions and unknown domains, but not an endless
loop or a tensor of 640 GB; so operators are an allow-list, types are those that every builder takes, and each value
has one name and is made before it is used. Parsing foreign bytes is foreign code: the caller sits in a limited child.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

MAX_NODES = 20_000
MAX_WEIGHTS = 50_000
OPSETS = range(13, 22)
IR_VERSIONS = range(4, 11)
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

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
#: Types that ONNX Runtime and both TensorRTs take; 16 bit integers are refused by TensorRT's parser.
INPUT_TYPES = frozenset({"FLOAT", "FLOAT16", "DOUBLE", "UINT8", "INT32", "INT64"})
WEIGHT_TYPES = INPUT_TYPES | {"INT8", "BOOL"}


def weight_bytes(tensor: onnx.TensorProto) -> int:
    """How many bytes a weight takes in memory, by its own account (checked by ``rule_faults``)."""
    import onnx

    return int(math.prod(tensor.dims)) * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize


def rule_faults(model: onnx.ModelProto) -> Iterator[str]:
    """Everything that the graph must not hold, a line each, naming node or tensor and what to do."""
    yield from _frame(model)
    yield from _nodes(model)
    yield from _weights(model)
    yield from _ports(model)
    yield from _order(model)


def _frame(model: onnx.ModelProto) -> Iterator[str]:
    if model.ir_version not in IR_VERSIONS:
        yield f"IR version {model.ir_version}, allowed are {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}; set model.ir_version"
    standard = [opset.version for opset in model.opset_import if opset.domain in STANDARD_DOMAINS]
    for opset in model.opset_import:
        if opset.domain not in STANDARD_DOMAINS:
            yield f"operators of domain {opset.domain[:60]!r}; export with standard operators only"
    if len(standard) != 1:
        yield f"names {len(standard)} versions of the standard operators; name one"
    yield from (
        f"opset {version}, allowed are {OPSETS[0]} to {OPSETS[-1]}; export again with such an opset"
        for version in standard
        if version not in OPSETS
    )
    if model.functions:
        yield "local functions; inline them"
    if model.training_info:
        yield "training information; export the graph for inference"
    if model.graph.sparse_initializer:
        yield "sparse weights; make them dense"
    if not model.graph.node:
        yield "no node; this is no model"
    if len(model.graph.node) > MAX_NODES:
        yield f"{len(model.graph.node)} nodes, at most {MAX_NODES}"
    if len(model.graph.initializer) > MAX_WEIGHTS:
        yield f"{len(model.graph.initializer)} weights, at most {MAX_WEIGHTS}"


def _nodes(model: onnx.ModelProto) -> Iterator[str]:
    for node in model.graph.node[: MAX_NODES + 1]:
        shown = f"node {(node.name or node.op_type)[:80]!r}"
        if node.domain not in STANDARD_DOMAINS or node.op_type not in OPERATORS:
            told = f"{node.domain + '.' if node.domain else ''}{node.op_type}"[:80]
            yield f"{shown}: operator {told} is not allowed; export without it (post-processing belongs to the head)"
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                yield f"{shown} holds a graph of its own; export without control flow"
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                yield f"{shown} holds a sparse tensor; make it dense"
            if attribute.ref_attr_name or attribute.HasField("tp") or attribute.type_protos:
                yield f"{shown}: attribute {attribute.name[:80]!r} is of a kind that only functions have"
            if not all(map(math.isfinite, (attribute.f, *attribute.floats))):
                yield f"{shown}: attribute {attribute.name[:80]!r} is not finite"


def held_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that the graph holds: its weights, and those in attributes of nodes."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _weights(model: onnx.ModelProto) -> Iterator[str]:
    import onnx

    for tensor in held_tensors(model):
        shown = f"weight {tensor.name[:80]!r}"
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            yield f"{shown} lies in another file; store it in the ONNX file"
            continue
        kind = _type_name(tensor.data_type)
        if kind not in WEIGHT_TYPES:
            yield f"{shown} is of type {kind}; allowed are {', '.join(sorted(WEIGHT_TYPES))}"
            continue
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        count = math.prod(tensor.dims) if all(d >= 0 for d in tensor.dims) else -1
        fields: list[Any] = [
            *(tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
        ]
        listed = max(fields, key=len)
        stored = len(tensor.raw_data) / dtype.itemsize if tensor.HasField("raw_data") else len(listed)
        if sum(map(len, [*fields, tensor.string_data])) > len(listed) or (listed and tensor.HasField("raw_data")):
            yield f"{shown} stores its values twice; save it again with onnx.save"
        elif tensor.HasField("segment") or stored != count:
            yield f"{shown} says {list(tensor.dims)[:8]} but holds {stored:g} values"
        elif dtype.kind == "f" and not _finite(tensor, dtype, listed):
            yield f"{shown} holds NaN or infinity; train again, or put a large finite number in its place"


def _finite(tensor: onnx.TensorProto, dtype: np.dtype[Any], listed: Any) -> bool:
    if tensor.HasField("raw_data"):
        return bool(np.isfinite(np.frombuffer(tensor.raw_data, dtype.newbyteorder("<"))).all())
    if dtype == np.float16:  # listed as bit patterns
        listed = np.array(listed, np.int32).astype(np.uint16).view(np.float16)
    return bool(np.isfinite(np.asarray(listed, dtype)).all())


def _ports(model: onnx.ModelProto) -> Iterator[str]:
    """Inputs and outputs: tensors of a rank and a type that every builder takes."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for what, values, types in (("input", inputs, INPUT_TYPES), ("output", model.graph.output, WEIGHT_TYPES)):
        if not values:
            yield f"no {what}"
        for value in values:
            kind = _type_name(value.type.tensor_type.elem_type) if value.type.HasField("tensor_type") else "no tensor"
            if kind not in types:
                yield (
                    f"{what} {value.name[:80]!r} is of type {kind}; allowed are {', '.join(sorted(types))} "
                    "(give CT values as FLOAT)"
                )
            elif what == "input" and not value.type.tensor_type.HasField("shape"):
                yield f"input {value.name[:80]!r} has no shape"
            elif any(d.HasField("dim_value") and d.dim_value < 1 for d in value.type.tensor_type.shape.dim):
                yield f"{what} {value.name[:80]!r} has a dimension below 1"


def _order(model: onnx.ModelProto) -> Iterator[str]:
    """Every value has one maker, which comes before its users; nothing else can be counted or built."""
    made = {tensor.name for tensor in model.graph.initializer}
    if len(made) != len(model.graph.initializer):
        yield "two weights have the same name"
    inputs = [value.name for value in model.graph.input]
    if len(set(inputs)) != len(inputs):
        yield "two inputs have the same name"
    made |= set(inputs)
    for node in model.graph.node[: MAX_NODES + 1]:
        shown = f"node {(node.name or node.op_type)[:80]!r}"
        yield from (f"{shown} uses {n[:80]!r}, which nothing made before" for n in node.input if n and n not in made)
        for name in filter(None, node.output):
            if name in made:
                yield f"{shown} makes {name[:80]!r} a second time"
            made.add(name)
    yield from (f"output {v.name[:80]!r} is made by nothing" for v in model.graph.output if v.name not in made)


def _type_name(number: int) -> str:
    import onnx

    names: dict[int, str] = {value: name for name, value in onnx.TensorProto.DataType.items()}
    return names.get(number, str(number))
