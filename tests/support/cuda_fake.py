"""One GPU that is none: memory, streams and graphs with the real rules, behind ``cuda.bindings`` and ``pycuda``.

What the real one punishes with a crash or, worse, with old numbers is a ``Misuse`` here. Work put on a stream is done
when the stream is synchronised, not before. Everything taken is counted until it is given back. The fault is chosen
by the number of the call. This shows that our code keeps the rules; it is no evidence of what a GPU does.
"""

# ruff: noqa: A001, N802, N815, N818 - the names are those of CUDA and pycuda
from __future__ import annotations

import enum
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np

DEVICE_BASE, MAPPED_BASE = 0x7_0000_0000, 0x9_0000_0000
SCRIBBLE = 0xAB


class Misuse(AssertionError):
    """A rule of CUDA or TensorRT was broken. No session may ever raise it."""


class Code(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureInvalidated = 901


class Fault(Exception):
    """The chosen call fails."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


class Stream:
    def __init__(self) -> None:
        self.pending = []
        self.recorded = None


class FakeGpu:
    """The machine that both fake libraries and the fake TensorRT share."""

    def __init__(self, *, integrated=False, fail_at=None, code=Code.cudaErrorInvalidValue, driver=12060):
        """``fail_at``: the number, from 0, of the call that fails with ``code``; None: none does."""
        self.integrated, self.fail_at, self.code, self.driver = integrated, fail_at, code, driver
        self.calls = []
        self.misuses = []
        self.live = Counter()
        self.lost = False
        self.struck_a_recording = False
        self._thread = threading.get_ident()
        self._device, self._host, self._mapped, self._dead = {}, {}, {}, set()
        #: Freed host memory: whoever still looks at it sees the scribble instead of a crash.
        self._freed_host = []
        self._streams, self._graphs = {}, {}
        self._next = 1

    # --- rules

    def misuse(self, text):
        self.misuses.append(text)
        raise Misuse(text)

    def step(self, name):
        """Every call passes here; the chosen one fails, and after a sticky fault all do."""
        if threading.get_ident() != self._thread:
            self.misuse(f"{name} from another thread than the owner's")
        self.calls.append(name)
        if self.lost:
            raise Fault(Code.cudaErrorIllegalAddress)
        if len(self.calls) - 1 == self.fail_at:
            self.lost = self.code is Code.cudaErrorIllegalAddress
            self.struck_a_recording = any(stream.recorded is not None for stream in self._streams.values())
            raise Fault(self.code)

    def take(self, kind):
        self.live[kind] += 1

    def give_back(self, kind):
        self.live[kind] -= 1
        if self.live[kind] < 0:
            self.misuse(f"{kind} was given back twice")
        self.live += Counter()

    def memory(self, address):
        """The bytes at a device address."""
        address = int(address)
        if address in self._device:
            return self._device[address]
        if address in self._mapped:
            return self._mapped[address]
        if address in self._dead:
            return self.misuse("device memory is used after it was freed")
        if address in self._host:
            return self.misuse("a host address stands where the device looks")
        return self.misuse(f"{address:#x} is no address of device memory")

    def pinned(self, address, size):
        """The pinned host memory that begins there."""
        held = self._host.get(int(address))
        if held is None:
            known = int(address) in self._device or int(address) in self._dead
            self.misuse("a device address stands where the host looks" if known else "the host memory is not pinned")
        if size > held.nbytes:
            self.misuse("a copy is longer than the pinned memory")
        return held[:size]

    def stream(self, handle):
        if int(handle) == 0:
            self.misuse("the default stream is used")
        found = self._streams.get(int(handle))
        return found if found is not None else self.misuse("a stream is used after it was destroyed")

    def put(self, handle, act):
        """Do it later, or record it."""
        stream = self.stream(handle)
        (stream.pending if stream.recorded is None else stream.recorded).append(act)

    def busy(self):
        return any(stream.pending for stream in self._streams.values())

    def _idle(self, what):
        if any(stream.recorded is not None for stream in self._streams.values()):
            self.misuse(f"{what} while a graph is recorded")
        if self.busy():
            self.misuse(f"{what} while work is on its way")

    def _new(self):
        self._next += 1
        return self._next

    # --- what both libraries do

    def alloc(self, size):
        self.step("alloc")
        self._idle("memory is taken")
        address = DEVICE_BASE + self._new() * 0x10_0000
        self._device[address] = np.full(size, SCRIBBLE, np.uint8)
        self.take("device memory")
        return address

    def free(self, address):
        # Given back even where the call fails: the real one then tells of an earlier fault.
        self._idle("memory is freed")
        self.memory(address)
        self._dead.add(int(address))
        del self._device[int(address)]
        self.give_back("device memory")
        self.step("free")

    def host_alloc(self, size):
        self.step("host_alloc")
        self._idle("host memory is taken")
        array = np.full(size, SCRIBBLE, np.uint8)
        self._host[array.ctypes.data] = array
        self.take("host memory")
        return array

    def host_device_pointer(self, address):
        self.step("host_device_pointer")
        mapped = MAPPED_BASE + self._new() * 0x10_0000
        self._mapped[mapped] = self._host[int(address)]
        return mapped

    def host_free(self, address):
        self._idle("host memory is freed")
        array = self._host.pop(int(address), None)
        if array is None:
            self.misuse("host memory is freed that is none, or twice")
        array[...] = SCRIBBLE
        self._freed_host.append(array)
        for mapped in [m for m, a in self._mapped.items() if a is array]:
            del self._mapped[mapped]
            self._dead.add(mapped)
        self.give_back("host memory")
        self.step("host_free")

    def stream_create(self):
        self.step("stream_create")
        handle = self._new()
        self._streams[handle] = Stream()
        self.take("stream")
        return handle

    def stream_destroy(self, handle):
        stream = self.stream(handle)
        if stream.pending and not self.lost:
            self.misuse("a stream is destroyed while work is on its way")
        del self._streams[int(handle)]
        self.give_back("stream")

    def synchronize(self, handle):
        stream = self.stream(handle)
        if stream.recorded is not None:
            self.misuse("a stream is waited for while a graph is recorded")
        try:
            self.step("synchronize")
        except Fault:
            if self.lost:
                stream.pending.clear()
            raise
        while stream.pending:
            stream.pending.pop(0)()

    def to_device(self, address, source, size, stream):
        self.step("to_device")
        held, target = self.pinned(source, size), self.memory(address)
        if size > target.nbytes:
            self.misuse("a copy is longer than the device memory")

        def copy():
            self.memory(address)[:size] = held

        self.put(stream, copy)

    def to_host(self, target, address, size, stream):
        self.step("to_host")
        held, source = self.pinned(target, size), self.memory(address)
        if size > source.nbytes:
            self.misuse("a copy is longer than the device memory")

        def copy():
            held[...] = self.memory(address)[:size]

        self.put(stream, copy)

    def fill(self, address, value, size, stream):
        self.step("fill")
        if size > self.memory(address).nbytes:
            self.misuse("more is filled than the device memory has")

        def fill():
            self.memory(address)[:size] = value

        self.put(stream, fill)

    def capture_begin(self, handle):
        self.step("capture_begin")
        self.stream(handle).recorded = []

    def capture_end(self, handle):
        stream = self.stream(handle)
        recorded, stream.recorded = stream.recorded, None
        if recorded is None:
            self.misuse("a recording ends that never began")
        self.step("capture_end")
        graph = self._new()
        self._graphs[graph] = recorded
        self.take("recording")
        return graph

    def instantiate(self, graph):
        self.step("instantiate")
        made = self._new()
        self._graphs[made] = list(self._graphs[int(graph)])
        self.take("graph")
        return made

    def graph_destroy(self, graph, kind):
        if self.busy():
            self.misuse("a graph is destroyed while work is on its way")
        if self._graphs.pop(int(graph), None) is None:
            self.misuse("a graph is destroyed that is none, or twice")
        self.give_back(kind)
        self.step("graph_destroy")

    def launch(self, graph, stream):
        self.step("launch")
        if int(graph) not in self._graphs:
            self.misuse("a graph is launched after it was destroyed")
        for act in self._graphs[int(graph)]:
            self.put(stream, act)


class FakeCudart:
    """``cuda.bindings.runtime``: tuples, the code first."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread")

    def __init__(self, gpu):
        self.gpu = gpu

    def _do(self, act, *arguments):
        try:
            return (Code.cudaSuccess, act(*arguments))
        except Fault as fault:
            return (fault.code, None)

    def _only(self, act, *arguments):
        return self._do(act, *arguments)[:1]

    def cudaGetErrorString(self, code):
        return (Code.cudaSuccess, b"a fault that a test chose")

    def cudaDriverGetVersion(self):
        return (Code.cudaSuccess, self.gpu.driver)

    def cudaGetDeviceCount(self):
        code, _ = self._do(self.gpu.step, "count")
        return (code, 1)

    def cudaSetDevice(self, device):
        return self._only(self.gpu.step, "set_device")

    def cudaGetDeviceProperties(self, device):
        code, _ = self._do(self.gpu.step, "properties")
        flag = int(self.gpu.integrated)
        told = {"name": b"fake", "major": 8, "minor": 7, "totalGlobalMem": 1 << 30}
        return (code, SimpleNamespace(**told, integrated=flag, canMapHostMemory=flag))

    def cudaMemGetInfo(self):
        code, _ = self._do(self.gpu.step, "mem_info")
        return (code, 1 << 29, 1 << 30)

    def cudaStreamCreateWithFlags(self, flags):
        if flags != 1:
            self.gpu.misuse("a stream waits for the default stream")
        return self._do(self.gpu.stream_create)

    def cudaStreamSynchronize(self, stream):
        return self._only(self.gpu.synchronize, stream)

    def cudaStreamDestroy(self, stream):
        self.gpu.stream_destroy(stream)
        return self._only(self.gpu.step, "stream_destroy")

    def cudaMalloc(self, size):
        return self._do(self.gpu.alloc, size)

    def cudaFree(self, address):
        return self._only(self.gpu.free, address)

    def cudaMemsetAsync(self, address, value, size, stream):
        return self._only(self.gpu.fill, address, value, size, stream)

    def cudaHostAlloc(self, size, flags):
        code, array = self._do(self.gpu.host_alloc, size)
        return (code, array.ctypes.data if array is not None else None)

    def cudaHostGetDevicePointer(self, pointer, flags):
        return self._do(self.gpu.host_device_pointer, pointer)

    def cudaFreeHost(self, pointer):
        return self._only(self.gpu.host_free, pointer)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        act = self.gpu.to_device if kind == "in" else self.gpu.to_host
        return self._only(act, to, source, size, stream)

    def cudaStreamBeginCapture(self, stream, mode):
        return self._only(self.gpu.capture_begin, stream)

    def cudaStreamEndCapture(self, stream):
        return self._do(self.gpu.capture_end, stream)

    def cudaGraphInstantiate(self, graph, flags):
        return self._do(self.gpu.instantiate, graph)

    def cudaGraphDestroy(self, graph):
        return self._only(self.gpu.graph_destroy, graph, "recording")

    def cudaGraphLaunch(self, graph, stream):
        return self._only(self.gpu.launch, graph, stream)

    def cudaGraphExecDestroy(self, graph):
        return self._only(self.gpu.graph_destroy, graph, "graph")


class FakePycuda:
    """``pycuda.driver``: objects and exceptions without a code.

    Its functions let go of streams before they raise: the real ones have no frames that a traceback could keep.
    """

    class Error(Exception):
        pass

    class LogicError(Error):
        pass

    class MemoryError(Error):
        pass

    device_attribute = SimpleNamespace(INTEGRATED="integrated", CAN_MAP_HOST_MEMORY="map")
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)

    def __init__(self, gpu):
        self.gpu = gpu
        self._begun = False

    def do(self, act, *arguments):
        try:
            return act(*arguments)
        except Fault as fault:
            kind = self.MemoryError if fault.code is Code.cudaErrorMemoryAllocation else self.LogicError
            raise kind(f"cuSomething failed: {fault.code.name}") from None

    def init(self, flags=0):
        self.do(self.gpu.step, "init")
        self._begun = True

    def get_driver_version(self):
        return self.gpu.driver

    def Device(self, number):
        if not self._begun:
            self.gpu.misuse("a device is asked for before init")
        return _PycudaDevice(self)

    def Stream(self, flags=0):
        if flags != 1:
            self.gpu.misuse("a stream waits for the default stream")
        return _PycudaStream(self, self.do(self.gpu.stream_create))

    def mem_get_info(self):
        self.do(self.gpu.step, "mem_info")
        return (1 << 29, 1 << 30)

    def mem_alloc(self, size):
        self._pushed()
        return _PycudaAllocation(self, self.do(self.gpu.alloc, size))

    def pagelocked_empty(self, shape, dtype, order="C", mem_flags=0):
        self._pushed()
        return np.asarray(_PycudaHost(self, self.do(self.gpu.host_alloc, shape)))

    def memset_d8_async(self, dest, data, size, stream):
        handle = stream.handle
        del stream
        self.do(self.gpu.fill, dest, data, size, handle)

    def memcpy_htod_async(self, dest, src, stream):
        handle = stream.handle
        del stream
        self.do(self.gpu.to_device, dest, src.ctypes.data, src.nbytes, handle)

    def memcpy_dtoh_async(self, dest, src, stream):
        handle = stream.handle
        del stream
        self.do(self.gpu.to_host, dest.ctypes.data, src, dest.nbytes, handle)

    def _pushed(self):
        if not self.gpu.live["pushed context"]:
            self.gpu.misuse("no context is current")


class _PycudaDevice:
    def __init__(self, driver):
        self._driver = driver

    def name(self):
        return "fake"

    def compute_capability(self):
        return (8, 7)

    def total_memory(self):
        return 1 << 30

    def get_attribute(self, attribute):
        self._driver.do(self._driver.gpu.step, "attribute")
        return int(self._driver.gpu.integrated)

    def retain_primary_context(self):
        self._driver.do(self._driver.gpu.step, "retain")
        return _PycudaContext(self._driver)

    def make_context(self, flags=0):
        self._driver.gpu.misuse("a private context is made")


class _PycudaContext:
    def __init__(self, driver):
        self._driver = driver

    def push(self):
        self._driver.do(self._driver.gpu.step, "push")
        self._driver.gpu.take("pushed context")

    def pop(self):
        gpu = self._driver.gpu
        if set(gpu.live) - {"pushed context"}:
            gpu.misuse(f"the context is popped while {dict(gpu.live)} live")
        gpu.give_back("pushed context")
        self._driver.do(gpu.step, "pop")


class _PycudaStream:
    def __init__(self, driver, handle):
        self._driver, self.handle = driver, handle

    def synchronize(self):
        driver, handle = self._driver, self.handle
        del self
        driver.do(driver.gpu.synchronize, handle)

    def __del__(self):
        self._driver.gpu.stream_destroy(self.handle)


class _PycudaAllocation:
    def __init__(self, driver, address):
        self._driver, self._address = driver, address

    def __int__(self):
        return self._address

    def free(self):
        self._driver.do(self._driver.gpu.free, self._address)


class _PycudaHost:
    def __init__(self, driver, array):
        self._driver, self._array = driver, array
        self.__array_interface__ = array.__array_interface__

    def free(self):
        self._driver.do(self._driver.gpu.host_free, self._array.ctypes.data)

    def get_device_pointer(self):
        return self._driver.do(self._driver.gpu.host_device_pointer, self._array.ctypes.data)
