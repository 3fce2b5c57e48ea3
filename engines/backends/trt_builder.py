"""ONNX to a TensorRT plan: one path for TensorRT 10.x, 11.x and TensorRT-RTX, strongly typed.

Precision lies in the graph. TF32 is off: the reference is FP32. Two builds of one graph may differ in bytes, so
nothing may be keyed by a plan's content. The caller runs this in a limited child: parser and builder are native code
over bytes that came from elsewhere, and a GPU that fails takes its process with it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from engines.backends.trt_api import Flavour, TrtConfig, TrtModule, TrtMonitor, TrtNetwork, TrtParser
from engines.errors import BuildError
from engines.lowering import read_graph
from engines.manifest import Profile

if TYPE_CHECKING:
    import onnx

#: Goes into the key of every engine: raised when another plan comes of the same inputs.
BUILDER = "scanside-1"
_MB = 1024 * 1024
_TELL_S = 0.2
_SHOWN_LINES = 3

#: What to do about an operator or a message that some flavour refuses; the first match is shown.
_MENDING = (
    (r"\bTopK\b", "TopK takes at most 3840 elements: take fewer, or sort in the head"),
    (r"\bNonMaxSuppression\b", "leave NonMaxSuppression to the head detect, which does it on the host"),
    (r"\b(NonZero|Unique)\b", "its size depends on the data: leave it to the head"),
    (r"\b(DFT|STFT)\b", "do the transform in the preprocessor"),
    (r"zero.?point", "quantise symmetrically, with zero points of 0"),
    (r"SM75|Turing", "FP32 matrix products do not exist for compute capability 7.5: lower to fp16 or leave 7.5 out"),
    (r"No importer registered|Plugin not found|plugin", "use standard ONNX operators only"),
    (r"type .*\bHalf\b|type .*\bFloat\b", "the graph mixes precisions: cast before this node"),
    (r"bad_alloc|memory", "give the build more memory, or a smaller largest shape in profiles"),
    (r"dynamic|shape", "check this node's shapes, and the profiles in model.yaml"),
)
_ELSE = "check that this node is a standard operator of opset 13 to 21 with shapes that the profiles allow"

#: Smallest, usual and largest shape of one input.
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
#: (phase, share of it that is done).
OnPhase = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A plan and what is known of it."""

    plan: bytes
    layers: int
    seconds: float


def check_profiles(model: onnx.ModelProto, profiles: Mapping[str, Profile]) -> dict[str, Shapes]:
    """The shapes of every input that varies; TensorRT itself reports a wrong profile badly or not at all.

    Args:
        model: A parsed graph.
        profiles: The package's, by tensor name; those of other stages' tensors are passed over.

    Raises:
        BuildError: An input that varies has no profile, or a profile does not fit its tensor.
    """
    wrong: list[str] = []
    found: dict[str, Shapes] = {}
    weights = {t.name for t in model.graph.initializer}
    for value in model.graph.input:
        if value.name in weights:
            continue
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
        profile = profiles.get(value.name)
        if profile is None:
            if -1 in dims:
                wrong.append(f"input {value.name!r} of shape {dims} varies: say under profiles how much")
            continue
        shapes = (profile.min, profile.opt, profile.max)
        if any(len(shape) != len(dims) for shape in shapes):
            wrong.append(f"the profile of {value.name!r} has not {len(dims)} dimensions")
        elif not all(1 <= a <= b <= c for a, b, c in zip(*shapes, strict=True)):
            wrong.append(f"the profile of {value.name!r} does not rise from min to opt to max")
        elif any(dim > 0 and {dim} != set(sizes) for dim, *sizes in zip(dims, *shapes, strict=True)):
            wrong.append(f"the profile of {value.name!r} changes a dimension that is fixed in {dims}")
        elif -1 in dims:
            found[value.name] = shapes
    if wrong:
        raise BuildError("; ".join(wrong) + " (model.yaml)", "build")
    return found


def build_plan(
    flavour: Flavour,
    graph: bytes,
    *,
    name: str,
    profiles: Mapping[str, Profile],
    compute_capabilities: Sequence[str] = (),
    workspace_mb: int = 1024,
    threads: int = 2,
    on_phase: OnPhase | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Built:
    """Parse and build.

    Args:
        flavour: A loaded TensorRT.
        graph: The lowered graph.
        name: What errors call it.
        profiles: By tensor name.
        compute_capabilities: Such as ``8.6``: build for GPUs that are not here. Empty: for the GPU that is.
        workspace_mb: What kernels may use as scratch.
        threads: Of the builder.
        on_phase: Told how far it is, some times a second.
        cancelled: Asked at every step of the builder.

    Raises:
        BuildError: With its kind and, where the parser or the log tells them, the nodes at fault.
    """
    begun = time.monotonic()
    model = read_graph(graph)
    _check_types(model, name)
    shapes = check_profiles(model, profiles)
    trt, logger = flavour.module, flavour.logger
    logger.take()
    # The binding does not keep these alive for one another: each has a name until the plan is copied out.
    builder = trt.Builder(logger)
    builder.max_threads = threads
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise _refused(parser, name, logger.take())
    if network.num_inputs < 1 or network.num_outputs < 1 or network.num_layers < 1:
        raise BuildError(f"{name}: TensorRT found no graph in it; export the model again", "parse")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb * _MB)
    config.clear_flag(trt.BuilderFlag.TF32)
    _aim(flavour, config, compute_capabilities)
    monitor = _make_monitor(trt, on_phase, cancelled)
    config.progress_monitor = monitor
    profile = builder.create_optimization_profile()
    for tensor, (low, usual, high) in shapes.items():
        profile.set_shape(tensor, low, usual, high)
    if shapes and config.add_optimization_profile(profile) < 0:
        raise BuildError(f"{name}: TensorRT refuses the profiles {shapes}; check them in model.yaml", "build")
    layers = network.num_layers
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        if cancelled is not None and cancelled():
            raise BuildError(f"{name}: the build was cancelled", "cancelled")
        raise _failed(model, network, name, logger.take())
    return Built(plan=bytes(plan), layers=layers, seconds=time.monotonic() - begun)


def _check_types(model: onnx.ModelProto, name: str) -> None:
    """TensorRT has no 16-bit integers, and says so only on standard error."""
    import onnx

    for value in model.graph.input:
        kind = str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        if kind in {"int16", "uint16"}:
            raise BuildError(
                f"{name}: input {value.name!r} is {kind}; cast it to float32 or int32 in the preprocessor", "parse"
            )


def _aim(flavour: Flavour, config: TrtConfig, compute_capabilities: Sequence[str]) -> None:
    """Say for which GPU; only TensorRT-RTX needs to be told."""
    if not flavour.has_compute_capability:
        if compute_capabilities:
            raise BuildError(
                f"{flavour.name} builds for the GPU that is here; name no compute capability, or take tensorrt_rtx",
                "unsupported",
            )
        return
    known = flavour.module.ComputeCapability
    targets: list[Any] = []
    for wanted in compute_capabilities:
        target = getattr(known, "SM" + wanted.replace(".", ""), None)
        if target is None:
            have = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in dir(known) if re.fullmatch(r"SM\d+", n))
            raise BuildError(
                f"{flavour.name} {flavour.version} knows no compute capability {wanted!r}; it has {have}", "unsupported"
            )
        targets.append(target)
    targets = targets or [known.CURRENT]
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(target, index)


def _make_monitor(trt: TrtModule, on_phase: OnPhase | None, cancelled: Callable[[], bool] | None) -> TrtMonitor:
    base: Any = trt.IProgressMonitor
    steps: dict[str, int] = {}
    told = [0.0]

    def start(self: Any) -> None:
        base.__init__(self)

    def tell(phase: str, share: float) -> None:
        now = time.monotonic()
        if on_phase is not None and now - told[0] >= _TELL_S:
            told[0] = now
            on_phase(phase, share)

    def phase_start(_self: Any, phase: str, _parent: str | None, count: int) -> None:
        steps[phase] = count
        tell(phase, 0.0)

    def step_complete(_self: Any, phase: str, step: int) -> bool:
        tell(phase, min(1.0, (step + 1) / max(1, steps.get(phase, 1))))
        return not (cancelled is not None and cancelled())

    def phase_finish(_self: Any, phase: str) -> None:
        steps.pop(phase, None)

    functions = {f.__name__: f for f in (phase_start, step_complete, phase_finish)}
    return cast("TrtMonitor", type("Monitor", (base,), {"__init__": start, **functions})())


def _refused(parser: TrtParser, name: str, log: Sequence[str]) -> BuildError:
    """What the parser says, in one line per node."""
    lines, nodes, told = [], [], ""
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = ""
        if error.node() >= 0:
            where = f"node {error.node_name() or error.node()!r} ({error.node_operator()}): "
            nodes.append(error.node_name() or str(error.node()))
            told += f" {error.node_operator()}"
        lines.append(where + _tidy(error.desc()))
        told += f" {error.desc()}"
    lines = lines or [_tidy(line) for line in log] or ["no reason given"]
    said = "; ".join(lines[:_SHOWN_LINES])
    return BuildError(f"{name}: TensorRT cannot read it: {said}. {_mending(told)}", "parse", nodes)


def _failed(model: onnx.ModelProto, network: TrtNetwork, name: str, log: Sequence[str]) -> BuildError:
    """What the log says, with the nodes of the graph that it names."""
    text = "\n".join(log)
    if "bad_alloc" in text or "OutOfMemory" in text or "out of memory" in text.lower():
        return BuildError(f"{name}: the build ran out of memory. {_mending('bad_alloc')}", "memory")
    if "cudaError" in text or "CUDA initialization" in text or "no CUDA-capable device" in text:
        return BuildError(
            f"{name}: there is no usable GPU here ({_tidy(log[0])}); check the driver with scanside doctor, or name a "
            "compute capability (tensorrt_rtx)",
            "unsupported",
        )
    # Longest first, so that of /block/conv and /block/conv_1 the right one is found.
    named = sorted((n for n in model.graph.node if n.name), key=lambda n: -len(n.name))
    at_fault = [n for n in named if re.search(rf"(?<![\w/]){re.escape(n.name)}(?![\w/])", text)]
    where = ", ".join(f"node {n.name!r} ({n.op_type})" for n in at_fault[:_SHOWN_LINES])
    said = "; ".join(_tidy(line) for line in log[-_SHOWN_LINES:]) or f"no reason given ({network.num_layers} layers)"
    told = " ".join(n.op_type for n in at_fault) + " " + text
    at = f" at {where}" if where else ""
    return BuildError(
        f"{name}: TensorRT cannot build it{at}: {said}. {_mending(told)}", "build", [n.name for n in at_fault]
    )


def _tidy(text: str) -> str:
    """One line without the place in TensorRT's own source."""
    line = " ".join(text.split())
    line = re.sub(r"^(IBuilder::\w+: )?Error Code \d+: ", "", line)
    return line[:400]


def _mending(told: str) -> str:
    return next((text for pattern, text in _MENDING if re.search(pattern, told, re.IGNORECASE)), _ELSE)
