"""What we use of TensorRT, as protocols: one description for TensorRT 10.x, 11.x and TensorRT-RTX.

None of them ships types that mypy can read, so these protocols are the types, and ``TRT_API_USED`` is made of them:
a name that no protocol has cannot be used (mypy), and a test looks for every name on the live module.

The flavours differ in two things that we use, found by looking, never by version: TensorRT-RTX is told for which
compute capability it builds, and its runtime keeps a cache of kernels. Precision lives in the graph (strongly typed
networks), so no precision flag, calibrator or binding index is used. ``VERSION_COMPATIBLE`` is not used: a plan of
that kind holds host code, which ``Runtime.engine_host_code_allowed`` (off by default, left off) refuses.
"""

from __future__ import annotations

import importlib
import inspect
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, Protocol, SupportsInt, cast, get_args

from engines.errors import EngineError

FlavourName = Literal["tensorrt", "tensorrt_rtx"]
#: The oldest version whose names are those below.
OLDEST = (10, 0)

_MENDING = {
    "tensorrt": "it comes with JetPack (apt, for the system's own Python) or from NVIDIA as the package tensorrt",
    "tensorrt_rtx": "it comes from NVIDIA as the package tensorrt-rtx-cu12 (x86-64 only)",
}
_KEPT_LINES = 50


class TrtLogger(Protocol):
    """Our ``ILogger``: the only place where TensorRT says why it gave ``None``."""

    def take(self) -> list[str]:
        """The errors since the last call, oldest first; forgets them."""


class TrtMonitor(Protocol):
    """Our ``IProgressMonitor``; made by ``trt_builder``."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase begins."""

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Whether to go on."""

    def phase_finish(self, phase_name: str) -> None:
        """A phase ended."""


class TrtDims(Protocol):
    """A shape; -1 varies."""

    def __iter__(self) -> Any:
        """The sizes."""


# --- building ---------------------------------------------------------------------------------------------------------


class TrtNetwork(Protocol):
    """``INetworkDefinition``."""

    num_inputs: int
    num_outputs: int
    num_layers: int


class TrtProfile(Protocol):
    """``IOptimizationProfile``."""

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:  # noqa: A002 - TensorRT's own names
        """Say which shapes one input has."""


class TrtConfig(Protocol):
    """``IBuilderConfig``."""

    progress_monitor: TrtMonitor
    #: TensorRT-RTX only.
    num_compute_capabilities: int

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        """Bound what kernels may use as scratch, in bytes."""

    def clear_flag(self, flag: Any) -> None:
        """Turn a flag off."""

    def add_optimization_profile(self, profile: TrtProfile) -> int:
        """The profile's index; negative where it is refused, which raises nothing."""

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        """TensorRT-RTX only."""


class TrtPlan(Protocol):
    """``IHostMemory``: a buffer; ``bytes(plan)`` copies it."""

    def __buffer__(self, flags: int, /) -> memoryview:
        """The bytes."""


class TrtBuilder(Protocol):
    """``Builder``."""

    max_threads: int

    def create_network(self, flags: int) -> TrtNetwork:
        """An empty network."""

    def create_builder_config(self) -> TrtConfig:
        """A configuration."""

    def create_optimization_profile(self) -> TrtProfile:
        """An empty profile; it lives as long as the builder."""

    def build_serialized_network(self, network: TrtNetwork, config: TrtConfig) -> TrtPlan | None:
        """The plan, or ``None``: then only the logger knows why."""


class TrtParserError(Protocol):
    """``ParserError``; the node is -1 and its name empty where the fault is not one node's."""

    def desc(self) -> str:
        """What is wrong."""

    def node(self) -> int:
        """Index of the ONNX node."""

    def node_name(self) -> str:
        """Name of the ONNX node."""

    def node_operator(self) -> str:
        """Operator of the ONNX node."""


class TrtParser(Protocol):
    """``OnnxParser``."""

    num_errors: int

    def parse(self, model: bytes, path: str | None = None) -> bool:
        """Fill the network; true also for an empty file."""

    def get_error(self, index: int) -> TrtParserError:
        """One error."""


class TrtCreationFlags(Protocol):
    """``NetworkDefinitionCreationFlag``."""

    STRONGLY_TYPED: SupportsInt


class TrtBuilderFlags(Protocol):
    """``BuilderFlag``."""

    TF32: object


class TrtMemoryPools(Protocol):
    """``MemoryPoolType``."""

    WORKSPACE: object


class TrtComputeCapabilities(Protocol):
    """``ComputeCapability``, TensorRT-RTX only; ``SM86`` and its like are looked up by name."""

    CURRENT: object


class TrtSeverities(Protocol):
    """``ILogger.Severity``; smaller is worse."""

    ERROR: SupportsInt
    INTERNAL_ERROR: SupportsInt


class TrtLoggerClass(Protocol):
    """``ILogger``, to be derived from."""

    Severity: TrtSeverities


# --- running ----------------------------------------------------------------------------------------------------------


class TrtRuntimeConfig(Protocol):
    """``IRuntimeConfig``; used for TensorRT-RTX only."""

    cuda_graph_strategy: object


class TrtContext(Protocol):
    """``IExecutionContext``. One thread uses it."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose a profile."""

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """False where the shape lies outside of the profile."""

    def infer_shapes(self) -> list[str]:
        """Names of tensors whose shapes are still unknown."""

    def get_tensor_shape(self, name: str) -> TrtDims:
        """The shape now."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Device memory of one tensor."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue one run."""


class TrtEngine(Protocol):
    """``ICudaEngine``."""

    num_io_tensors: int

    def get_tensor_name(self, index: int) -> str:
        """Name of a tensor."""

    def get_tensor_mode(self, name: str) -> object:
        """Input or output."""

    def get_tensor_dtype(self, name: str) -> object:
        """Its ``DataType``."""

    def get_tensor_location(self, name: str) -> object:
        """Where its bytes are looked for: ``TensorLocation``."""

    def get_tensor_shape(self, name: str) -> TrtDims:
        """Its shape."""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[TrtDims]:
        """Smallest, usual and largest shape; inputs only."""

    def create_runtime_config(self) -> TrtRuntimeConfig:
        """TensorRT-RTX."""

    def create_execution_context(self, runtime_config: TrtRuntimeConfig | None = None) -> TrtContext | None:
        """A context, or ``None``."""


class TrtRuntime(Protocol):
    """``Runtime``."""

    #: Off by default, left off: only read.
    engine_host_code_allowed: bool

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> TrtEngine | None:
        """Run foreign code unless the bytes are ours: call it with what ``EngineStore.plans`` gave, nothing else."""


class TrtIOModes(Protocol):
    """``TensorIOMode``."""

    INPUT: object


class TrtLocations(Protocol):
    """``TensorLocation``."""

    DEVICE: object


class TrtDataTypes(Protocol):
    """``DataType``."""

    FLOAT: object
    HALF: object
    INT8: object
    UINT8: object
    INT32: object
    INT64: object
    BOOL: object


class TrtCudaGraphStrategies(Protocol):
    """``CudaGraphStrategy``, TensorRT-RTX only."""

    WHOLE_GRAPH_CAPTURE: object


# --- the module -------------------------------------------------------------------------------------------------------


class TrtModule(Protocol):
    """``tensorrt`` or ``tensorrt_rtx``."""

    Builder: Callable[[TrtLogger], TrtBuilder]
    OnnxParser: Callable[[TrtNetwork, TrtLogger], TrtParser]
    NetworkDefinitionCreationFlag: TrtCreationFlags
    BuilderFlag: TrtBuilderFlags
    MemoryPoolType: TrtMemoryPools
    #: TensorRT-RTX only.
    ComputeCapability: TrtComputeCapabilities
    ILogger: TrtLoggerClass
    IProgressMonitor: type
    IBuilderConfig: type
    #: TensorRT-RTX only.
    IRuntimeCache: type
    Runtime: Callable[[TrtLogger], TrtRuntime]
    TensorIOMode: TrtIOModes
    TensorLocation: TrtLocations
    DataType: TrtDataTypes
    #: TensorRT-RTX only.
    CudaGraphStrategy: TrtCudaGraphStrategies


#: The protocols by the name of the TensorRT class that they describe; "" is the module.
PROTOCOLS = MappingProxyType(
    {
        "": TrtModule,
        "Builder": TrtBuilder,
        "INetworkDefinition": TrtNetwork,
        "IOptimizationProfile": TrtProfile,
        "IBuilderConfig": TrtConfig,
        "IHostMemory": TrtPlan,
        "OnnxParser": TrtParser,
        "ParserError": TrtParserError,
        "IProgressMonitor": TrtMonitor,
        "NetworkDefinitionCreationFlag": TrtCreationFlags,
        "BuilderFlag": TrtBuilderFlags,
        "MemoryPoolType": TrtMemoryPools,
        "ComputeCapability": TrtComputeCapabilities,
        "ILogger": TrtLoggerClass,
        "ILogger.Severity": TrtSeverities,
        # The runtime.
        "Runtime": TrtRuntime,
        "ICudaEngine": TrtEngine,
        "IExecutionContext": TrtContext,
        "IRuntimeConfig": TrtRuntimeConfig,
        "TensorIOMode": TrtIOModes,
        "TensorLocation": TrtLocations,
        "DataType": TrtDataTypes,
        "CudaGraphStrategy": TrtCudaGraphStrategies,
    }
)

#: Every name that we use, by TensorRT's class.
TRT_API_USED = MappingProxyType(
    {
        name: frozenset(n for n in (*vars(p), *inspect.get_annotations(p)) if not n.startswith("_"))
        for name, p in PROTOCOLS.items()
    }
)

#: What TensorRT itself lacks; used only where the flavour says that it is there.
RTX_ONLY = MappingProxyType(
    {
        "": frozenset({"ComputeCapability", "CudaGraphStrategy", "IRuntimeCache"}),
        "IBuilderConfig": frozenset({"num_compute_capabilities", "set_compute_capability"}),
        "ComputeCapability": TRT_API_USED["ComputeCapability"],
        "IRuntimeConfig": TRT_API_USED["IRuntimeConfig"],
        "ICudaEngine": frozenset({"create_runtime_config"}),
        "CudaGraphStrategy": TRT_API_USED["CudaGraphStrategy"],
    }
)


# --- loading ----------------------------------------------------------------------------------------------------------


class FlavourError(EngineError):
    """This machine has not that TensorRT, or one that is too old."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """One TensorRT, loaded.

    Attributes:
        name: ``tensorrt`` or ``tensorrt_rtx``.
        module: The module.
        version: Its full version.
        logger: The one logger of this process: TensorRT keeps the first that it is given and ignores any other.
        has_compute_capability: It can build for a GPU that is not here.
        has_runtime_cache: Its runtime compiles kernels on the device and can keep them.
    """

    name: FlavourName
    module: TrtModule
    version: str
    logger: TrtLogger
    has_compute_capability: bool
    has_runtime_cache: bool


@cache
def load_flavour(name: str) -> Flavour:
    """Import a TensorRT; once in a process.

    Raises:
        FlavourError: It is not installed, cannot be loaded, or is older than 10.0.
    """
    if name not in get_args(FlavourName):
        raise FlavourError(f"unknown flavour {name!r}; known are {', '.join(get_args(FlavourName))}")
    try:
        loaded: Any = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise FlavourError(f"{name} cannot be loaded ({error}); {_MENDING[name]}") from error
    version = str(loaded.__version__)
    # TensorRT-RTX counts its versions anew, and its first one had these names.
    if name == "tensorrt" and tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise FlavourError(f"{name} {version} is too old; {OLDEST[0]}.{OLDEST[1]} is the oldest. Update JetPack")
    module = cast("TrtModule", loaded)
    return Flavour(
        name=cast("FlavourName", name),
        module=module,
        version=version,
        logger=_make_logger(module),
        has_compute_capability=hasattr(module.IBuilderConfig, "set_compute_capability"),
        has_runtime_cache=hasattr(module, "IRuntimeCache"),
    )


def _make_logger(module: TrtModule) -> TrtLogger:
    base: Any = module.ILogger
    worst = {int(module.ILogger.Severity.ERROR), int(module.ILogger.Severity.INTERNAL_ERROR)}
    lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def start(self: Any) -> None:
        base.__init__(self)

    def log(_self: Any, severity: SupportsInt, message: str) -> None:
        # Called from TensorRT's own threads as well; a deque's append is atomic.
        if int(severity) in worst:
            lines.append(message)

    def take(_self: Any) -> list[str]:
        taken = list(lines)
        lines.clear()
        return taken

    made = type("Logger", (base,), {"__init__": start, "log": log, "take": take})
    return cast("TrtLogger", made())
