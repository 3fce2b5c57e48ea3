"""What a graph takes and gives, as far as the file says so itself: for makers who begin with nothing but a file.

``read_ports`` looks in a limited child, because parsing foreign bytes is foreign code. The copy that it leaves holds
its weights inside: exporters like to put them into a second file, which no package may have.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.child import Progress, run_limited
from engines.errors import ChildError, PackageError
from engines.gate import GATE_LIMITS, check_graph, parse_graph
from engines.graph_rules import rule_faults
from engines.manifest import Profile

if TYPE_CHECKING:
    import onnx

#: No file of a package is larger, and whoever parses it needs some of it twice.
_ENOUGH_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output.

    Attributes:
        name: Of the tensor.
        shape: None where a dimension varies.
        dtype: As ONNX calls it (``FLOAT``).
        made_by: Operator that makes an output; empty for an input.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    made_by: str = ""


@dataclass(frozen=True, slots=True)
class Ports:
    """Inputs and outputs of one graph, and the least memory of a run where no dimension but the first varies."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    peak_mb: float | None = None


def read_ports(source: Path, target: Path) -> Ports:
    """Look into an ONNX file, and leave a copy of it with all weights inside.

    Args:
        source: The file; weights that lie in files beside it are read too.
        target: Is written.

    Raises:
        PackageError: It is no graph that a package may hold; one line per fault.
    """
    try:
        answer = run_limited("engines.ports", {"source": str(source), "target": str(target)}, GATE_LIMITS)
    except ChildError as error:
        raise PackageError(f"{source}: reading it ends the reader; ask for a plain export ({error})") from error
    if "refused" in answer:
        raise PackageError("\n".join(f"{source}: {line}" for line in answer["refused"]))
    ports = {
        what: tuple(Port(**{**port, "shape": tuple(port["shape"])}) for port in answer[what])
        for what in ("inputs", "outputs")
    }
    return Ports(**ports, peak_mb=answer["peak_mb"])


def handle(request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
    """Be the child: ``{source, target}`` becomes ``Ports`` as data, or ``{refused: [line]}``."""
    import onnx

    source, target = Path(request["source"]), Path(request["target"])
    try:
        model = onnx.load(source)
    except Exception as error:  # noqa: BLE001 - parsing foreign bytes is foreign code
        return {"refused": [f"is no ONNX file, is cut off, or lacks its file of weights: {str(error)[:200]}"]}
    if any(
        tensor.data_location == onnx.TensorProto.EXTERNAL
        for tensor in onnx.load(source, load_external_data=False).graph.initializer
    ):
        onnx.save(model, target)
    else:
        shutil.copyfile(source, target)
    try:
        model = parse_graph(target.read_bytes())
    except PackageError as error:
        return {"refused": [str(error)]}
    if faults := list(rule_faults(model))[:20]:
        return {"refused": faults}
    weights = {tensor.name for tensor in model.graph.initializer}
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    inputs = [_port(value) for value in model.graph.input if value.name not in weights]
    return {
        "inputs": [asdict(port) for port in inputs],
        "outputs": [asdict(_port(value, made_by.get(value.name, ""))) for value in model.graph.output],
        "peak_mb": _peak_mb(model, inputs),
    }


def _port(value: onnx.ValueInfoProto, made_by: str = "") -> Port:
    import onnx

    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    names = {number: name for name, number in onnx.TensorProto.DataType.items()}
    return Port(value.name, shape, names.get(tensor.elem_type, str(tensor.elem_type)), made_by)


def _peak_mb(model: onnx.ModelProto, inputs: Sequence[Port]) -> float | None:
    """The least memory of a run on a batch of one."""
    profiles = {}
    for port in inputs:
        if None in port.shape[1:]:
            return None
        if port.shape[:1] == (None,):
            one = (1, *(size for size in port.shape[1:] if size is not None))
            profiles[port.name] = Profile(min=one, opt=one, max=one)
    try:
        return check_graph(model, memory_mb=_ENOUGH_MB, profiles=profiles).peak_mb
    except PackageError:
        return None
