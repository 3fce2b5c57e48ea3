"""How much memory one run of a graph needs at the least, and the refusal of graphs whose sizes cannot be known.

Every input is taken at the largest shape of its profile; ONNX's own shape inference (strict, with data propagation)
gives the rest. Counted are the weights, everything that can be computed from weights alone (ONNX Runtime folds that
when it loads the graph and keeps it), the inputs, and of the other values those that are alive at the same time, from
the node that makes them to the last that uses them. Work space of single operators is not counted: it is a lower
bound, which stops bombs before they are loaded; what a package really takes is measured by ``engines.trial``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.graph_rules import weight_bytes
from engines.manifest import Profile

if TYPE_CHECKING:
    import onnx

_MB = 1024 * 1024
#: Weights up to this size may be shapes, axes or scales, whose values shape inference reads.
_SHAPE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Needs:
    """Megabytes of weights (with what folds from them) and of all that lives at the worst moment, weights included."""

    weights_mb: float
    peak_mb: float


def profile_faults(model: onnx.ModelProto, profiles: Mapping[str, Profile]) -> Iterator[str]:
    """How the graph's inputs and the manifest's profiles contradict each other, a line each."""
    for value in _inputs(model):
        dims = [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
        profile = profiles.get(value.name)
        if profile is None:
            if None in dims:
                yield (
                    f"input {value.name!r} has dimensions that vary and no profile; give it one under profiles in "
                    "model.yaml, or export with fixed dimensions"
                )
            continue
        for name, shape in (("min", profile.min), ("opt", profile.opt), ("max", profile.max)):
            if len(shape) != len(dims) or any(d not in {None, s} for d, s in zip(dims, shape, strict=False)):
                yield f"input {value.name!r} is {dims}, which profile {name} {list(shape)} does not fit"
        if not all(1 <= a <= b <= c for a, b, c in zip(profile.min, profile.opt, profile.max, strict=False)) or not len(
            profile.min
        ) == len(profile.opt) == len(profile.max):
            yield f"profile of {value.name!r}: 1 <= min <= opt <= max must hold in every dimension"


def memory_needs(model: onnx.ModelProto, profiles: Mapping[str, Profile]) -> tuple[Needs, list[str]]:
    """What a run takes at the least; for a graph that passed ``rule_faults`` and ``profile_faults``.

    Returns:
        The needs, and a line for each size that contradicts another or cannot be known (then the needs are 0).
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(
            _outline(model, profiles), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:  # noqa: BLE001 - the inference is foreign code over foreign bytes
        told = str(error).strip().splitlines() or [type(error).__name__]
        return Needs(0, 0), [f"its shapes contradict one another: {told[0][:200]}"]
    sizes: dict[str, int] = {}
    faults = []
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        size = _bytes(value)
        if size is None:
            faults.append(
                f"the size of {value.name[:80]!r} cannot be known beforehand; export with fixed dimensions, or fold "
                "constants"
            )
        sizes[value.name] = size or 0
    made = [name for node in model.graph.node for name in node.output if name]
    faults += [f"the size of {name[:80]!r} cannot be known beforehand" for name in made if name not in sizes]
    if faults:
        return Needs(0, 0), faults
    return _count(model, sizes), []


def _count(model: onnx.ModelProto, sizes: Mapping[str, int]) -> Needs:
    nodes = model.graph.node
    fixed = {tensor.name for tensor in model.graph.initializer}
    kept = sum(weight_bytes(tensor) for tensor in model.graph.initializer)
    last = {name: index for index, node in enumerate(nodes) for name in node.input}
    last |= {value.name: len(nodes) for value in model.graph.output}
    alive = sum(sizes[value.name] for value in _inputs(model))
    worst = alive
    ends: dict[int, int] = {}
    for index, node in enumerate(nodes):
        made = {name: sizes[name] for name in node.output if name}
        if all(name in fixed for name in node.input if name):
            fixed |= made.keys()
            kept += sum(made.values())
            continue
        alive += sum(made.values())
        worst = max(worst, alive)
        for name, size in made.items():
            end = last.get(name, index)
            ends[end] = ends.get(end, 0) + size
        alive -= ends.pop(index, 0)
    return Needs(kept / _MB, (kept + worst) / _MB)


def _outline(model: onnx.ModelProto, profiles: Mapping[str, Profile]) -> onnx.ModelProto:
    """The graph with its inputs at their largest, nothing else that varies, and without the bulk of its weights."""
    import onnx

    outline = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = outline.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for value in _inputs(outline):
        profile = profiles.get(value.name)
        for dim, size in zip(value.type.tensor_type.shape.dim, profile.max if profile else (), strict=False):
            dim.dim_value = size
    for value in (*graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
    for tensor in model.graph.initializer:
        if weight_bytes(tensor) <= _SHAPE_BYTES:
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return outline


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that a caller must give."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _bytes(value: onnx.ValueInfoProto) -> int | None:
    import onnx

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    if not all(d.HasField("dim_value") and d.dim_value >= 0 for d in tensor.shape.dim):
        return None
    try:
        width = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize
    except (KeyError, ValueError):
        return None
    return int(math.prod(d.dim_value for d in tensor.shape.dim)) * width
