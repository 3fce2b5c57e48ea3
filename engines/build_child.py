"""The builder's child: lowers and builds every stage of a package, from files into files of one work folder."""

from __future__ import annotations

import hashlib
import os
import signal
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.child import Progress
from engines.errors import BuildError, SessionError
from engines.lowering import Lowered, lower, measure_loss, read_graph
from engines.manifest import Profile
from engines.types import Tensors

if TYPE_CHECKING:
    import onnx

#: What the parent puts beside the graphs where there is one.
CALIBRATION = "calibration.npz"
#: What kernels may use as scratch; part of an engine's key.
WORKSPACE_MB = 1024
MAX_PLAN_BYTES = 4096 * 1024 * 1024
_LOSS_SAMPLES = 4
_NICE = 10


def handle(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """In the child: lower and build every stage; the plans lie in the work folder afterwards.

    Returns:
        ``{"stages": [{file, sha256, size, ...}]}``, or ``{"failed": {kind, message, nodes}}``.
    """
    os.nice(_NICE)  # images and alerts come first
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    try:
        stages = [
            _build_stage(request, index, progress, lambda: bool(ended)) for index in range(len(request["stages"]))
        ]
    except BuildError as error:
        return {"failed": {"kind": error.kind, "message": str(error), "nodes": list(error.nodes)}}
    return {"stages": stages}


def _build_stage(
    request: Mapping[str, Any], index: int, progress: Progress, cancelled: Callable[[], bool]
) -> dict[str, Any]:
    work = Path(request["work"])
    name = f"{request['package']}/{request['stages'][index]}"
    profiles = {n: Profile.model_validate(p) for n, p in request["profiles"].items()}
    place = {"stage": index, "stages": len(request["stages"])}

    def tell(step: str, phase: str = "", share: float | None = None) -> None:
        progress({**place, "step": step, "phase": phase, "share": share})

    tell("lower")
    graph = (work / f"stage-{index}.onnx").read_bytes()
    try:
        lowered, loss = _lower(graph, request["precision"], profiles, work / CALIBRATION)
    except BuildError as error:
        raise BuildError(f"{name}: {error}", error.kind, error.nodes) from error
    facts: dict[str, Any] = {"recipe": lowered.recipe, "changed": lowered.changed, **loss}
    tell("build")
    plan = lowered.graph
    if request["flavour"] == "onnxruntime":
        _check_opens(lowered.graph, name)
    else:
        from engines.backends.trt_api import load_flavour
        from engines.backends.trt_builder import build_plan

        built = build_plan(
            load_flavour(request["flavour"]),
            lowered.graph,
            name=name,
            profiles=profiles,
            compute_capabilities=request["compute_capabilities"],
            workspace_mb=WORKSPACE_MB,
            on_phase=lambda phase, share: tell("build", phase, share),
            cancelled=cancelled,
        )
        plan = built.plan
        facts |= {"layers": built.layers, "build_s": round(built.seconds, 3)}
    file = f"stage-{index}.plan"
    (work / file).write_bytes(plan)
    return {"file": file, "sha256": hashlib.sha256(plan).hexdigest(), "size": len(plan), **facts}


def _check_opens(graph: bytes, name: str) -> None:
    from engines.backends.onnxruntime import OnnxRuntimeSession

    try:
        OnnxRuntimeSession(graph, name=name).close()
    except SessionError as error:
        raise BuildError(str(error)) from error


def _lower(
    graph: bytes, precision: str, profiles: Mapping[str, Profile], calibration: Path
) -> tuple[Lowered, dict[str, Any]]:
    """The lowered graph, and what lowering lost on calibration samples, or on noise where there are none."""
    if precision == "fp32":
        return lower(graph, precision), {}
    model = read_graph(graph)
    samples = _read_samples(calibration, model) if calibration.is_file() else []
    lowered = lower(graph, precision, samples)
    measured_on = "calibration" if samples else "noise"
    loss = measure_loss(graph, lowered.graph, samples[:_LOSS_SAMPLES] or [_noise(model, profiles)])
    return lowered, {"loss": loss.as_dict(), "loss_measured_on": measured_on}


def _read_samples(path: Path, model: onnx.ModelProto) -> list[Tensors]:
    names = _inputs(model)
    try:
        with np.load(path, allow_pickle=False) as held:
            missing = [name for name in names if name not in held.files]
            if missing:
                raise BuildError(f"the calibration file has no array {missing[0]!r}; it has {held.files}")
            arrays = {name: held[name] for name in names}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BuildError(f"the calibration file cannot be read: {error}") from error
    counts = {len(a) if a.ndim else 0 for a in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise BuildError(f"the calibration arrays hold {sorted(counts)} samples; give all the same number")
    return [{name: array[k] for name, array in arrays.items()} for k in range(counts.pop())]


def _noise(model: onnx.ModelProto, profiles: Mapping[str, Profile]) -> Tensors:
    """Seeded noise of the usual shapes."""
    import onnx

    from engines.backends.trt_builder import check_profiles

    shapes = check_profiles(model, profiles)
    rng = np.random.default_rng(0)
    weights = {t.name for t in model.graph.initializer}
    made: Tensors = {}
    for value in model.graph.input:
        if value.name not in weights:
            tensor = value.type.tensor_type
            dims = shapes[value.name][1] if value.name in shapes else tuple(d.dim_value for d in tensor.shape.dim)
            kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            noise = rng.standard_normal(dims) if kind.kind == "f" else rng.integers(0, 2, dims)
            made[value.name] = noise.astype(kind)
    return made


def _inputs(model: onnx.ModelProto) -> list[str]:
    weights = {t.name for t in model.graph.initializer}
    return [i.name for i in model.graph.input if i.name not in weights]
