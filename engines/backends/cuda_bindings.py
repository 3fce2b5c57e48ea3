"""CUDA by NVIDIA's ``cuda-bindings``: its runtime API, hence the device's primary context.

Which functions exist and what they take has been shown on the library itself; what they do, on a fake of it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from engines.backends.cuda import (
    STICKY,
    ByteArray,
    CudaError,
    CudaGraphs,
    DeviceAddress,
    DeviceFacts,
    GraphHandle,
    HostBuffer,
    StreamHandle,
)
from engines.errors import SessionError

# Values of enumerations that CUDA never changes; the bindings take plain integers for flags.
_NON_BLOCKING = 1
_HOST_ALLOC_DEFAULT = 0
_HOST_ALLOC_MAPPED = 2


class CudaBindingsApi:
    """See ``CudaApi``."""

    def __init__(self, module: Any, device: int = 0) -> None:
        """Make a device current in this thread.

        Args:
            module: ``cuda.bindings.runtime``.
            device: The GPU's number.

        Raises:
            SessionError: There is no driver or no such GPU.
        """
        self._cudart = module
        self._device = device
        self._driver: int = self._call("cudaDriverGetVersion")
        if self._driver == 0:
            # The code that CUDA itself gives here speaks of an old driver.
            raise SessionError("no NVIDIA driver runs on this machine; install it (nvidia-smi must list the GPU)")
        try:
            found: int = self._call("cudaGetDeviceCount")
            if device >= found:
                raise SessionError(f"there is no GPU {device}; CUDA sees {found}")
            self._call("cudaSetDevice", device)
        except CudaError as error:
            # Never sticky: nothing is lost that was never reached, and a new process would meet the same.
            raise SessionError(f"GPU {device} cannot be used: {error.name} ({error.text}); see nvidia-smi") from error

    @property
    def graphs(self) -> CudaGraphs:
        """See ``CudaApi``."""
        return self

    def facts(self) -> DeviceFacts:
        """See ``CudaApi``."""
        seen = self._call("cudaGetDeviceProperties", self._device)
        return DeviceFacts(
            name=seen.name.decode("ascii", "replace") if isinstance(seen.name, bytes) else str(seen.name),
            compute_capability=(int(seen.major), int(seen.minor)),
            total_bytes=int(seen.totalGlobalMem),
            integrated=bool(seen.integrated) and bool(seen.canMapHostMemory),
            driver_version=self._driver,
        )

    def free_bytes(self) -> int:
        """See ``CudaApi``."""
        free, _total = self._values("cudaMemGetInfo")
        return int(free)

    def stream_create(self) -> StreamHandle:
        """See ``CudaApi``."""
        return StreamHandle(int(self._call("cudaStreamCreateWithFlags", _NON_BLOCKING)))

    def stream_synchronize(self, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        self._call("cudaStreamSynchronize", stream)

    def stream_destroy(self, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        self._call("cudaStreamDestroy", stream)

    def device_alloc(self, size: int) -> DeviceAddress:
        """See ``CudaApi``."""
        return DeviceAddress(int(self._call("cudaMalloc", size)))

    def device_free(self, address: DeviceAddress) -> None:
        """See ``CudaApi``."""
        self._call("cudaFree", address)

    def device_fill(self, address: DeviceAddress, value: int, size: int, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        self._call("cudaMemsetAsync", address, value, size, stream)

    def host_alloc(self, size: int, *, mapped: bool) -> HostBuffer:
        """See ``CudaApi``."""
        pointer = int(self._call("cudaHostAlloc", size, _HOST_ALLOC_MAPPED if mapped else _HOST_ALLOC_DEFAULT))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
        if not mapped:
            return HostBuffer(array)
        try:
            seen = int(self._call("cudaHostGetDevicePointer", pointer, 0))
        except CudaError:
            self._call("cudaFreeHost", pointer)
            raise
        return HostBuffer(array, DeviceAddress(seen))

    def host_free(self, buffer: HostBuffer) -> None:
        """See ``CudaApi``."""
        self._call("cudaFreeHost", buffer.array.ctypes.data)

    def copy_to_device(self, to: DeviceAddress, source: ByteArray, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", to, source.ctypes.data, source.nbytes, kind, stream)

    def copy_to_host(self, to: ByteArray, source: DeviceAddress, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", to.ctypes.data, source, to.nbytes, kind, stream)

    def capture_begin(self, stream: StreamHandle) -> None:
        """See ``CudaGraphs``."""
        # Thread-local: what another session's thread does meanwhile cannot spoil this capture.
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def capture_end(self, stream: StreamHandle) -> GraphHandle:
        """See ``CudaGraphs``."""
        recorded = self._call("cudaStreamEndCapture", stream)
        try:
            graph = GraphHandle(int(self._call("cudaGraphInstantiate", recorded, 0)))
        except CudaError:
            self._call("cudaGraphDestroy", recorded)
            raise
        try:
            # What can be launched is a copy.
            self._call("cudaGraphDestroy", recorded)
        except CudaError:
            self.graph_destroy(graph)
            raise
        return graph

    def graph_launch(self, graph: GraphHandle, stream: StreamHandle) -> None:
        """See ``CudaGraphs``."""
        self._call("cudaGraphLaunch", graph, stream)

    def graph_destroy(self, graph: GraphHandle) -> None:
        """See ``CudaGraphs``."""
        self._call("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """The primary context belongs to the process; there is nothing to leave."""

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime API and give its one value, if it has one."""
        values = self._values(name, *arguments)
        return values[0] if values else None

    def _values(self, name: str, *arguments: Any) -> list[Any]:
        """The one place that sees a return code: each function gives a tuple, the code first."""
        values: list[Any]
        code, *values = getattr(self._cudart, name)(*arguments)
        if int(code) != 0:
            text = self._cudart.cudaGetErrorString(code)[1]
            shown = text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
            raise CudaError(name, code.name, shown, sticky=code.name in STICKY)
        return values
