"""CUDA by ``pycuda``, for boxes that have it built: the primary context, pushed and popped by the owning thread.

Never ``pycuda.autoinit`` and never ``make_context``: those make a private context, which TensorRT does not see, and
which aborts the process when it is left on the stack. This adapter has been shown against a fake of pycuda and by the
type checker only; it has not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from engines.backends.cuda import (
    ByteArray,
    CudaError,
    CudaGraphs,
    DeviceAddress,
    DeviceFacts,
    HostBuffer,
    StreamHandle,
)
from engines.errors import SessionError

_NON_BLOCKING = 1


class _Context(Protocol):
    def push(self) -> None: ...
    def pop(self) -> None: ...


class _Allocation(Protocol):
    def free(self) -> None: ...
    def __int__(self) -> int: ...


class _HostAllocation(Protocol):
    def free(self) -> None: ...
    def get_device_pointer(self) -> int: ...


class _Stream(Protocol):
    handle: int

    def synchronize(self) -> None: ...


class _Device(Protocol):
    def name(self) -> str: ...
    def compute_capability(self) -> tuple[int, int]: ...
    def total_memory(self) -> int: ...
    def get_attribute(self, attribute: Any) -> int: ...
    def retain_primary_context(self) -> _Context: ...


class _Driver(Protocol):
    """As much of ``pycuda.driver`` as is used here."""

    Error: type[Exception]
    MemoryError: type[Exception]
    device_attribute: Any
    host_alloc_flags: Any

    def init(self, flags: int = 0) -> None: ...
    def get_driver_version(self) -> int: ...
    def Device(self, number: int) -> _Device: ...  # noqa: N802 - pycuda's name
    def Stream(self, flags: int = 0) -> _Stream: ...  # noqa: N802
    def mem_get_info(self) -> tuple[int, int]: ...
    def mem_alloc(self, size: int) -> _Allocation: ...
    def pagelocked_empty(self, shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> ByteArray: ...
    def memset_d8_async(self, dest: int, data: int, size: int, stream: _Stream) -> None: ...
    def memcpy_htod_async(self, dest: int, src: ByteArray, stream: _Stream) -> None: ...
    def memcpy_dtoh_async(self, dest: ByteArray, src: int, stream: _Stream) -> None: ...


class PycudaApi:
    """See ``CudaApi``. Without graphs: pycuda got them late, and enqueueing plainly gives the same numbers."""

    graphs: CudaGraphs | None = None

    def __init__(self, module: Any, device: int = 0) -> None:
        """Push the device's primary context in this thread.

        Args:
            module: ``pycuda.driver``.
            device: The GPU's number.

        Raises:
            SessionError: There is no driver or no such GPU.
        """
        self._driver: _Driver = module
        self._streams: dict[StreamHandle, _Stream] = {}
        self._memory: dict[DeviceAddress, _Allocation] = {}
        try:
            module.init()
            self._device = self._driver.Device(device)
            self._context: _Context | None = self._device.retain_primary_context()
            self._context.push()
        except self._driver.Error as error:
            raise SessionError(f"pycuda finds no GPU {device}: {error}; nvidia-smi must list it") from error

    def facts(self) -> DeviceFacts:
        """See ``CudaApi``."""
        with self._checked("Device.get_attribute"):
            attribute = self._driver.device_attribute
            major, minor = self._device.compute_capability()
            can_map = self._device.get_attribute(attribute.CAN_MAP_HOST_MEMORY)
            return DeviceFacts(
                name=self._device.name(),
                compute_capability=(major, minor),
                total_bytes=self._device.total_memory(),
                integrated=bool(self._device.get_attribute(attribute.INTEGRATED)) and bool(can_map),
                driver_version=self._driver.get_driver_version(),
            )

    def free_bytes(self) -> int:
        """See ``CudaApi``."""
        with self._checked("mem_get_info"):
            return self._driver.mem_get_info()[0]

    def stream_create(self) -> StreamHandle:
        """See ``CudaApi``."""
        with self._checked("Stream"):
            stream = self._driver.Stream(_NON_BLOCKING)
        handle = StreamHandle(stream.handle)
        self._streams[handle] = stream
        return handle

    def stream_synchronize(self, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        with self._checked("Stream.synchronize"):
            self._streams[stream].synchronize()

    def stream_destroy(self, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        # pycuda destroys a stream with its last reference.
        del self._streams[stream]

    def device_alloc(self, size: int) -> DeviceAddress:
        """See ``CudaApi``."""
        with self._checked("mem_alloc"):
            allocation = self._driver.mem_alloc(size)
        address = DeviceAddress(int(allocation))
        self._memory[address] = allocation
        return address

    def device_free(self, address: DeviceAddress) -> None:
        """See ``CudaApi``."""
        with self._checked("DeviceAllocation.free"):
            self._memory.pop(address).free()

    def device_fill(self, address: DeviceAddress, value: int, size: int, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        with self._checked("memset_d8_async"):
            self._driver.memset_d8_async(address, value, size, self._streams[stream])

    def host_alloc(self, size: int, *, mapped: bool) -> HostBuffer:
        """See ``CudaApi``."""
        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        with self._checked("pagelocked_empty"):
            array = self._driver.pagelocked_empty(size, "uint8", mem_flags=flags)
        if not mapped:
            return HostBuffer(array)
        held = _allocation_of(array)
        try:
            with self._checked("HostAllocation.get_device_pointer"):
                return HostBuffer(array, DeviceAddress(int(held.get_device_pointer())))
        except CudaError:
            held.free()
            raise

    def host_free(self, buffer: HostBuffer) -> None:
        """See ``CudaApi``."""
        with self._checked("HostAllocation.free"):
            _allocation_of(buffer.array).free()

    def copy_to_device(self, to: DeviceAddress, source: ByteArray, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        with self._checked("memcpy_htod_async"):
            self._driver.memcpy_htod_async(to, source, self._streams[stream])

    def copy_to_host(self, to: ByteArray, source: DeviceAddress, stream: StreamHandle) -> None:
        """See ``CudaApi``."""
        with self._checked("memcpy_dtoh_async"):
            self._driver.memcpy_dtoh_async(to, source, self._streams[stream])

    def close(self) -> None:
        """See ``CudaApi``."""
        context, self._context = self._context, None
        if context is not None:
            with self._checked("Context.pop"):
                context.pop()

    @contextmanager
    def _checked(self, call: str) -> Iterator[None]:
        """Turn pycuda's exceptions into ours."""
        try:
            yield
        except self._driver.Error as error:
            # pycuda gives no code: all but a lack of memory counts as the worst, so that no lost context serves on.
            kind = type(error)
            sticky = not issubclass(kind, self._driver.MemoryError)
            raise CudaError(call, kind.__name__, str(error), sticky=sticky) from error


def _allocation_of(array: ByteArray) -> _HostAllocation:
    """What pycuda keeps beneath an array that it made: its own object, not another array."""
    return cast("_HostAllocation", array.base)
