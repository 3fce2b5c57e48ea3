"""A TensorRT that is none: computes with ONNX Runtime, on the memory of ``cuda_fake``, and keeps the real rules.

Returns false or None where the real one does, and raises where its bindings do. Label what it shows "fake".
"""

# ruff: noqa: N802 - the names are those of TensorRT
from __future__ import annotations

import base64
import json
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from cuda_fake import FakeGpu, Fault

from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.backends.trt_api import Flavour

_MAGIC = b"fake plan\n"


def fake_plan(onnx: bytes, profiles=None, **odd) -> bytes:
    """A plan: the graph and its profile. ``odd``: what is unusual in it (``dtype``, ``location``, ``dynamic``)."""
    told = {"onnx": base64.b64encode(onnx).decode(), "profiles": profiles or {}, "odd": odd}
    return _MAGIC + json.dumps(told).encode()


def fake_flavour(gpu: FakeGpu, *, rtx=False, lie=None, host_code=False, graphs=True) -> Flavour:
    """The module as ``load_flavour`` gives it.

    ``lie``: what a run does though it says that all is well: ``skip`` (nothing), ``half`` (writes half an output).
    ``graphs``: whether TensorRT-RTX must be told to record them, or must not.
    """
    module = FakeTrt(gpu, rtx=rtx, lie=lie, host_code=host_code, graphs=graphs)
    return Flavour("tensorrt_rtx" if rtx else "tensorrt", module, "0.0-fake", module.logger, rtx, rtx)


class FakeLogger:
    def __init__(self):
        self.lines = []

    def take(self):
        taken, self.lines = self.lines, []
        return taken


class FakeTrt:
    """``tensorrt``, as much of it as runs."""

    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    TensorLocation = SimpleNamespace(DEVICE="device", HOST="host")
    DataType = SimpleNamespace(
        FLOAT="float32", HALF="float16", INT8="int8", UINT8="uint8", INT32="int32", INT64="int64", BOOL="bool"
    )
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    def __init__(self, gpu, *, rtx, lie, host_code, graphs):
        self.gpu, self.rtx, self.lie, self.host_code, self.graphs = gpu, rtx, lie, host_code, graphs
        self.logger = FakeLogger()

    def Runtime(self, logger):
        if logger is not self.logger:
            self.gpu.misuse("a second logger")
        return _Runtime(self)

    def fails(self, name):
        """Whether the chosen fault strikes here: the bindings then say false or None, and only the logger why."""
        try:
            self.gpu.step(name)
        except Fault as fault:
            self.logger.lines.append(f"fake {name}: {fault}")
            return True
        return False


class _Live:
    """Counts as taken from birth to death, and must not die while its work is on the way."""

    kind = ""

    def __init__(self, trt):
        self.trt = trt
        trt.gpu.take(self.kind)

    def __del__(self):
        gpu = self.trt.gpu
        if gpu.busy() and not gpu.lost:
            gpu.misuses.append(f"the {self.kind} dies while work is on its way")
        gpu.live[self.kind] -= 1
        gpu.live = +gpu.live


class _Runtime(_Live):
    kind = "runtime"

    @property
    def engine_host_code_allowed(self):
        return self.trt.host_code

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, value):
        self.trt.gpu.misuse("host code is allowed")

    def deserialize_cuda_engine(self, plan):
        if self.trt.fails("deserialize"):
            return None
        if not plan.startswith(_MAGIC):
            self.trt.logger.lines.append("fake: this is no plan")
            return None
        return _Engine(self, json.loads(plan[len(_MAGIC) :]))


@lru_cache(maxsize=4)
def _graph(onnx: str) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(base64.b64decode(onnx), name="fake engine")


class _Engine(_Live):
    kind = "engine"

    def __init__(self, runtime, told):
        super().__init__(runtime.trt)
        self._runtime = runtime
        self.real = _graph(told["onnx"])
        self.profiles, self.odd = told["profiles"], told["odd"]
        self.specs = {spec.name: spec for spec in (*self.real.inputs, *self.real.outputs)}
        self.num_io_tensors = len(self.specs)

    def get_tensor_name(self, index):
        return list(self.specs)[index]

    def get_tensor_mode(self, name):
        return "in" if any(spec.name == name for spec in self.real.inputs) else "out"

    def get_tensor_dtype(self, name):
        return self.odd.get("dtype", {}).get(name, self.specs[name].dtype)

    def get_tensor_location(self, name):
        return self.odd.get("location", {}).get(name, "device")

    def get_tensor_shape(self, name):
        return [size if isinstance(size, int) else -1 for size in self.specs[name].shape]

    def get_tensor_profile_shape(self, name, profile_index):
        if profile_index != 0 or self.get_tensor_mode(name) == "out":
            self.trt.gpu.misuse("the profile of an output is asked for, which crashes")
        return self.profiles[name]

    def create_runtime_config(self):
        if not self.trt.rtx:
            self.trt.gpu.misuse("a runtime configuration outside of TensorRT-RTX")
        return SimpleNamespace(cuda_graph_strategy="disabled")

    def create_execution_context(self, runtime_config=None):
        if self.trt.fails("create_context"):
            return None
        records = runtime_config is not None and runtime_config.cuda_graph_strategy == "whole"
        if self.trt.rtx and records != self.trt.graphs:
            self.trt.gpu.misuse(f"TensorRT-RTX {'records' if records else 'does not record'} graphs")
        return _Context(self)


class _Context(_Live):
    kind = "context"

    def __init__(self, engine):
        super().__init__(engine.trt)
        self._engine = engine
        self._shapes, self._addresses = {}, {}
        self._ran = None

    def set_optimization_profile_async(self, profile_index, stream_handle):
        self.trt.gpu.stream(stream_handle)
        return not self.trt.fails("set_profile")

    def set_input_shape(self, name, shape):
        if self.trt.gpu.busy():
            self.trt.gpu.misuse("shapes change while work is on its way")
        if self.trt.fails("set_shape"):
            return False
        spec = self._engine.specs[name]
        low, _, high = self._engine.profiles.get(name, [spec.shape] * 3)
        if len(shape) != len(low) or not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            self.trt.logger.lines.append(f"fake: {shape} of {name} lies outside of the profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self):
        trt, missing = self.trt, [spec.name for spec in self._engine.real.inputs if spec.name not in self._shapes]
        # The real bindings have no frame that an error's traceback could keep alive.
        del self
        if trt.fails("infer_shapes"):
            raise RuntimeError("fake infer_shapes")
        return missing

    def get_tensor_shape(self, name):
        if name in self._shapes:
            return self._shapes[name]
        sizes = {}
        for spec in self._engine.real.inputs:
            sizes |= dict(zip(spec.shape, self._shapes.get(spec.name, [-1] * len(spec.shape)), strict=True))
        shape = self._engine.specs[name].shape
        if name in self._engine.odd.get("dynamic", []):
            return [-1] * len(shape)
        return [size if isinstance(size, int) else sizes[size] for size in shape]

    def set_tensor_address(self, name, memory):
        self.trt.gpu.memory(memory)
        if self.trt.fails("set_address"):
            return False
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle):
        gpu = self.trt.gpu
        recording = gpu.stream(stream_handle).recorded is not None
        if self.trt.fails("execute"):
            return False
        unset = [name for name in self._engine.specs if name not in self._addresses]
        if unset or len(self._shapes) < len(self._engine.real.inputs):
            self.trt.logger.lines.append(f"fake: no address or shape of {unset}")
            return False
        if recording and self.trt.rtx:
            gpu.misuse("a graph is recorded around TensorRT-RTX, which records itself")
        if recording and self._ran != self._shapes:
            gpu.misuse("a graph is recorded before one plain run of that shape")
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        gpu.put(stream_handle, lambda: self._compute(shapes, addresses))
        return True

    def _compute(self, shapes, addresses):
        gpu = self.trt.gpu
        if (shapes, addresses) != (self._shapes, self._addresses):
            gpu.misuse("a graph of other shapes or addresses is launched")
        self._ran = shapes
        if self.trt.lie == "skip":
            return
        tensors = {}
        for name, shape in shapes.items():
            dtype = np.dtype(self._engine.specs[name].dtype)
            size = int(np.prod(shape)) * dtype.itemsize
            raw = gpu.memory(addresses[name])
            if raw.nbytes < size:
                gpu.misuse(f"the memory of {name} is too small")
            tensors[name] = raw[:size].view(dtype).reshape(shape).copy()
        for name, array in self._engine.real.run(tensors).items():
            raw, given = gpu.memory(addresses[name]), np.ascontiguousarray(array).view(np.uint8).ravel()
            if raw.nbytes < given.nbytes:
                gpu.misuse(f"the memory of {name} is too small")
            end = given.nbytes // 2 if self.trt.lie == "half" else given.nbytes
            raw[:end] = given[:end]
