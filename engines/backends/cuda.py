"""Memory, streams and graphs of one GPU, as few calls as a session needs, whichever library reaches them.

Two adapters stand behind ``CudaApi``: ``cuda-bindings`` (NVIDIA's own; the default) and ``pycuda``. Both work in the
device's primary context, which TensorRT shares, and neither makes one of its own. Every return code is checked.

A session owns one ``CudaApi``, in one thread, from ``open_cuda`` to ``close``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NewType, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.errors import SessionError

DeviceAddress = NewType("DeviceAddress", int)
StreamHandle = NewType("StreamHandle", int)
GraphHandle = NewType("GraphHandle", int)
ByteArray = NDArray[np.uint8]

Adapter = Literal["cuda-bindings", "pycuda"]
#: Distribution and the module that is imported of it; the first that is installed is taken.
ADAPTERS: tuple[tuple[Adapter, str], ...] = (
    ("cuda-bindings", "cuda.bindings.runtime"),
    ("pycuda", "pycuda.driver"),
)
#: After these the context is lost: every later call of the process fails too (CUDA runtime API, "cudaError_t").
STICKY = frozenset(
    {
        "cudaErrorAssert",
        "cudaErrorContained",
        "cudaErrorContextIsDestroyed",
        "cudaErrorCudartUnloading",
        "cudaErrorECCUncorrectable",
        "cudaErrorExternalDevice",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalAddress",
        "cudaErrorIllegalInstruction",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorMisalignedAddress",
        "cudaErrorMpsClientTerminated",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorTensorMemoryLeak",
        "cudaErrorUnknown",
    }
)


class CudaError(SessionError):
    """A CUDA call failed. ``sticky``: the context is lost, the process must end before the GPU serves again."""

    def __init__(self, call: str, name: str, text: str = "", *, sticky: bool = False) -> None:
        """Tell which call failed and how.

        Args:
            call: The function.
            name: The error's name, or its class where the library gives no more.
            text: What the library says of it.
            sticky: Whether every later call fails too.
        """
        mend = "; the worker must start anew" if sticky else ""
        super().__init__(f"{call} failed: {name}{f' ({text})' if text else ''}{mend}")
        self.call, self.name, self.text = call, name, text
        self.sticky = sticky


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What tells one GPU from another; part of an engine's key and of doctor's lines."""

    name: str
    compute_capability: tuple[int, int]
    total_bytes: int
    #: Shares its memory with the CPU (Jetson), and can map pinned memory into its own addresses.
    integrated: bool
    driver_version: int


@dataclass(frozen=True, slots=True, eq=False)
class HostBuffer:
    """Pinned host memory.

    Attributes:
        array: Its bytes.
        device_address: Where the GPU sees the same bytes; ``None`` where it was not mapped.
    """

    array: ByteArray
    device_address: DeviceAddress | None = None


class CudaGraphs(Protocol):
    """What was put on a stream once, to be put there again by one call. Every method raises ``CudaError``."""

    def capture_begin(self, stream: StreamHandle) -> None:
        """From now on the stream records instead of working."""

    def capture_end(self, stream: StreamHandle) -> GraphHandle:
        """Make what was recorded into a graph. The stream works again, even if this fails."""

    def graph_launch(self, graph: GraphHandle, stream: StreamHandle) -> None:
        """Put a whole graph on the stream."""

    def graph_destroy(self, graph: GraphHandle) -> None:
        """Give a graph back."""


class CudaApi(Protocol):
    """One GPU for one thread. Every method raises ``CudaError``; sizes are bytes; host arrays are pinned."""

    @property
    def graphs(self) -> CudaGraphs | None:
        """Where the library has graphs."""

    def facts(self) -> DeviceFacts:
        """What GPU this is."""

    def free_bytes(self) -> int:
        """Device memory that nobody uses."""

    def stream_create(self) -> StreamHandle:
        """A stream of our own that never waits for the default stream."""

    def stream_synchronize(self, stream: StreamHandle) -> None:
        """Wait for all that was put on the stream; errors of that work surface here."""

    def stream_destroy(self, stream: StreamHandle) -> None:
        """Give a stream back."""

    def device_alloc(self, size: int) -> DeviceAddress:
        """Take device memory."""

    def device_free(self, address: DeviceAddress) -> None:
        """Give it back."""

    def device_fill(self, address: DeviceAddress, value: int, size: int, stream: StreamHandle) -> None:
        """Set every byte to ``value``, in the stream's order."""

    def host_alloc(self, size: int, *, mapped: bool) -> HostBuffer:
        """Take pinned host memory; ``mapped`` also gives the address at which the GPU sees it."""

    def host_free(self, buffer: HostBuffer) -> None:
        """Give it back; its array must not be touched any more."""

    def copy_to_device(self, to: DeviceAddress, source: ByteArray, stream: StreamHandle) -> None:
        """Copy the whole of a pinned array, in the stream's order."""

    def copy_to_host(self, to: ByteArray, source: DeviceAddress, stream: StreamHandle) -> None:
        """Fill a pinned array; its bytes are there after ``stream_synchronize``."""

    def close(self) -> None:
        """Leave the device in this thread; all that was taken must have been given back before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaProbe:
    """Whether a GPU can be used from here, and if not why, in words that say how to mend it."""

    adapter: Adapter | None
    adapter_version: str | None
    device: DeviceFacts | None
    reason: str | None


def installed_adapter() -> Adapter | None:
    """The adapter that ``open_cuda`` takes, by what is installed; nothing is loaded."""
    for name, _ in ADAPTERS:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return name
    return None


def open_cuda(device: int = 0, *, adapter: Adapter | None = None) -> CudaApi:
    """Reach one GPU in this thread.

    Args:
        device: Its number.
        adapter: Whose calls to use; by default what is installed, ``cuda-bindings`` first.

    Raises:
        SessionError: No adapter is installed, or there is no driver or no GPU; the message says which and what to do.
    """
    wanted = adapter or installed_adapter()
    if wanted is None:
        raise SessionError("no CUDA layer is installed; install the extra scanside[gpu] (cuda-bindings) or pycuda")
    try:
        module = import_module(dict(ADAPTERS)[wanted])
    except ImportError as error:
        # pycuda is linked against the driver's library, so that without a driver it cannot even be imported.
        raise SessionError(f"{wanted} cannot be loaded: {error}; install it and the NVIDIA driver") from error
    if wanted == "pycuda":
        from engines.backends.cuda_pycuda import PycudaApi

        return PycudaApi(module, device)
    from engines.backends.cuda_bindings import CudaBindingsApi

    return CudaBindingsApi(module, device)


def probe_cuda(device: int = 0) -> CudaProbe:
    """Look whether there is a GPU; never raises, and keeps nothing."""
    adapter = installed_adapter()
    shown = version(adapter) if adapter is not None else None
    try:
        cuda = open_cuda(device)
        try:
            facts = cuda.facts()
        finally:
            cuda.close()
    except SessionError as error:
        return CudaProbe(adapter=adapter, adapter_version=shown, device=None, reason=str(error))
    return CudaProbe(adapter=adapter, adapter_version=shown, device=facts, reason=None)
