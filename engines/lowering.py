"""Precision as a rewrite of the graph: FP16 by casts, INT8 by symmetric Q/DQ. The result runs in ONNX Runtime too.

So one lowered graph serves every TensorRT (all build it strongly typed, without precision flags) and the loss can be
measured on a machine without a GPU. Recipes are named; a changed recipe gets a new name, and engines built with the
old one are stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from engines.errors import BuildError, SessionError
from engines.graph_rules import held_tensors
from engines.types import Tensors

if TYPE_CHECKING:
    import onnx

Precision = Literal["fp32", "fp16", "int8"]

_RECIPES: Mapping[str, str] = {"fp32": "fp32-1", "fp16": "fp16-1", "int8": "int8-1"}


@dataclass(frozen=True, slots=True)
class Lowered:
    """A graph in another precision.

    Attributes:
        graph: ONNX bytes; inputs and outputs have the names, types and shapes of the original.
        recipe: See ``recipe_id``.
        changed: Nodes that compute in the lower precision now.
    """

    graph: bytes
    recipe: str
    changed: int


@dataclass(frozen=True, slots=True)
class Loss:
    """How far the lowered graph is from the original in ONNX Runtime; of yes/no outputs, the share that differs.

    On the CPU each operator computes in FP32 and its result is rounded: what a GPU shows may be somewhat more.
    """

    samples: int
    max_abs: dict[str, float]
    mean_abs: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def recipe_id(precision: str, calibration: bytes | None = None) -> str:
    """What tells one way of lowering from every other: the recipe's name and, for INT8, the calibration file.

    Raises:
        BuildError: There is no such precision.
    """
    if precision not in _RECIPES:
        raise BuildError(f"unknown precision {precision!r}; known are {', '.join(get_args(Precision))}", "unsupported")
    if precision != "int8" or calibration is None:
        return _RECIPES[precision]
    return f"{_RECIPES[precision]}:{hashlib.sha256(calibration).hexdigest()[:16]}"


def read_graph(graph: bytes) -> onnx.ModelProto:
    """Parse ONNX bytes.

    Raises:
        BuildError: They are no ONNX graph, the graph is empty, or weights lie in another file.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(graph)
    except Exception as error:
        raise BuildError(f"no ONNX graph: {error}; export the model again", "parse") from error
    if not model.graph.node or not model.graph.output:
        raise BuildError("the ONNX file holds no graph; export the model again", "parse")
    for tensor in held_tensors(model):
        # TensorRT's parser would look for the file relative to the working folder of the process.
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise BuildError(
                f"weight {tensor.name!r} lies in another file; store all weights in the ONNX file", "parse"
            )
    return model


def lower(graph: bytes, precision: str, calibration: Sequence[Tensors] = ()) -> Lowered:
    """Rewrite a graph to compute in a precision.

    Args:
        graph: ONNX bytes of the original.
        precision: ``fp32`` (the graph as it is), ``fp16`` or ``int8``.
        calibration: For ``int8``: inputs from which the scales are taken, one run each.

    Raises:
        BuildError: The precision would change no node, or INT8 has no calibration.
    """
    recipe = recipe_id(precision)
    model = read_graph(graph)
    if precision == "fp32":
        return Lowered(graph, recipe, 0)
    if precision == "fp16":
        from engines.lowering_fp16 import to_half

        changed = to_half(model)
    else:
        from engines.lowering_int8 import to_int8

        changed = to_int8(model, calibration)
    if not changed:
        raise BuildError(
            f"{precision} would change no node of the graph; take {precision} out of the package's precisions",
            "unsupported",
        )
    return Lowered(model.SerializeToString(deterministic=True), recipe, changed)


def measure_loss(original: bytes, lowered: bytes, samples: Sequence[Tensors]) -> Loss:
    """Run both graphs in ONNX Runtime and compare their outputs.

    Raises:
        BuildError: The lowered graph gives NaN or infinity where the original gives numbers; it names the first node
            whose values leave the precision's range. Or one of the graphs does not run.
    """
    from engines.backends.onnxruntime import OnnxRuntimeSession

    rounded, made_by = _keep_rounding(lowered)
    max_abs: dict[str, float] = {}
    means: dict[str, list[float]] = {}
    try:
        with (
            OnnxRuntimeSession(original, name="the original graph") as reference,
            OnnxRuntimeSession(rounded.SerializeToString(), name="the lowered graph") as other,
        ):
            for sample in samples:
                wanted, given = reference.run(sample), other.run(sample)
                for name, want in wanted.items():
                    is_number = np.isfinite(want.astype(np.float64))
                    gap = np.abs(want.astype(np.float64) - given[name].astype(np.float64))[is_number]
                    if not np.isfinite(gap).all():
                        raise _overflow(rounded, made_by, name, sample)
                    max_abs[name] = max(max_abs.get(name, 0.0), float(gap.max(initial=0.0)))
                    means.setdefault(name, []).append(float(gap.mean()) if gap.size else 0.0)
    except SessionError as error:
        raise BuildError(str(error)) from error
    return Loss(len(samples), max_abs, {name: float(np.mean(each)) for name, each in means.items()})


def _keep_rounding(lowered: bytes) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A graph to measure with: ONNX Runtime drops pairs of casts, and with them the rounding that shall be seen.

    A ``Concat`` of one tensor, which it runs on halves and does not optimise away, keeps the pairs apart.

    Returns:
        The graph, and by name of each half the node that makes it, in order.
    """
    import onnx

    from engines.onnx_tools import Names, replace_nodes

    model = read_graph(lowered)
    known = {v.name: v.type.tensor_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    # Scalars cannot be concatenated.
    halves = {n for n, kind in known.items() if kind.elem_type == onnx.TensorProto.FLOAT16 and kind.shape.dim}
    names = Names(model)
    nodes: list[onnx.NodeProto] = []
    made_by: dict[str, str] = {}
    for node in model.graph.node:
        nodes.append(node)
        for slot, name in enumerate(node.output):
            if name in halves:
                node.output[slot] = names.new(f"{name}_unrounded")
                nodes.append(onnx.helper.make_node("Concat", [node.output[slot]], [name], axis=0))
                made_by[name] = node.name or node.op_type
    replace_nodes(model, nodes)
    return model, made_by


def _overflow(rounded: onnx.ModelProto, made_by: Mapping[str, str], output: str, sample: Tensors) -> BuildError:
    from engines.onnx_tools import largest_values

    largest = largest_values(rounded, list(made_by), [sample])
    nodes = [made_by[name] for name, value in largest.items() if not np.isfinite(value)][:1]
    where = f" from node {nodes[0]!r} on" if nodes else ""
    return BuildError(
        f"output {output!r} of the lowered graph is not finite{where}: values leave the range of this precision. Scale "
        "the inputs in the graph before its first layer, or stay at fp32",
        "build",
        nodes,
    )
