"""A plan as TensorRT loads it: every call's answer is checked, and what a ``None`` or a false meant is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from engines.backends.cuda import DeviceAddress, StreamHandle
from engines.backends.trt_api import Flavour, TrtContext, TrtEngine, TrtRuntime, TrtRuntimeConfig
from engines.backends.trt_tensors import Description, Shape
from engines.errors import SessionError
from engines.session import TensorSpec


class LoadedEngine:
    """Runtime, engine and execution context of one plan.

    They live in attributes alone, never in local names: the traceback of an error would keep those alive, and they
    must be gone before the stream and the device are.
    """

    def __init__(self, plan: bytes, flavour: Flavour, name: str, stream: StreamHandle, *, graphs: bool) -> None:
        """Load a plan.

        Args:
            plan: Its bytes.
            flavour: The TensorRT that built it.
            name: What error messages call it.
            stream: On which it will run.
            graphs: Whether the library records graphs itself; only TensorRT-RTX can.

        Raises:
            SessionError: TensorRT refuses it.
        """
        self._flavour, self._name, self._stream = flavour, name, stream
        self._runtime: TrtRuntime
        self._engine: TrtEngine
        self._config: TrtRuntimeConfig
        self._context: TrtContext
        try:
            with self._native("load"):
                self._load(plan, graphs=graphs)
        except BaseException:
            self.close()
            raise

    def describe(self) -> list[Description]:
        """What the engine takes and gives.

        Raises:
            SessionError: A tensor is of a kind that no session serves.
        """
        with self._native("describe itself"):
            names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
            return [self._describe(name) for name in names]

    def set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        """Choose the shapes of all inputs.

        Raises:
            SessionError: One lies outside of the profile.
        """
        with self._native("set shapes"):
            for name, shape in shapes.items():
                if not self._context.set_input_shape(name, shape):
                    raise self._refusal(f"does not take {shape} for {name!r}")
            if missing := self._context.infer_shapes():
                raise self._refusal(f"cannot tell the shapes of {', '.join(missing)}")

    def shape_of(self, output: str) -> Shape:
        """The shape of an output, now that the inputs' are chosen.

        Raises:
            SessionError: It depends on data.
        """
        with self._native("tell a shape"):
            shape = tuple(int(size) for size in self._context.get_tensor_shape(output))
        if any(size < 0 for size in shape):
            raise SessionError(f"{self._name}: the shape of output {output!r} depends on data, which no engine may do")
        return shape

    def set_address(self, name: str, address: DeviceAddress) -> None:
        """Tell where a tensor lies on the device.

        Raises:
            SessionError: TensorRT does not take it.
        """
        with self._native("set an address"):
            if not self._context.set_tensor_address(name, address):
                raise self._refusal(f"does not take the address of {name!r}")

    def execute(self) -> None:
        """Put one run on the stream.

        Raises:
            SessionError: TensorRT did not enqueue it. It gives no code; where the device is lost, the stream knows.
        """
        with self._native("run"):
            if not self._context.execute_async_v3(self._stream):
                raise self._refusal("did not run")

    def close(self) -> None:
        """Free all, in reverse order; also what was loaded in part."""
        for name in ("_context", "_config", "_engine", "_runtime"):
            vars(self).pop(name, None)

    def _load(self, plan: bytes, *, graphs: bool) -> None:
        module = self._flavour.module
        self._runtime = module.Runtime(self._flavour.logger)
        if self._runtime.engine_host_code_allowed:
            raise SessionError(f"{self._flavour.name} would run host code of a plan; that is never allowed")
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self._refusal("refuses the plan", "build the engine again")
        self._engine = engine
        del engine
        if graphs:
            self._config = self._engine.create_runtime_config()
            self._config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(self._config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise self._refusal("makes no execution context", "the GPU may lack memory")
        self._context = context
        del context
        if not self._context.set_optimization_profile_async(0, self._stream):
            raise self._refusal("does not take profile 0")

    def _describe(self, name: str) -> Description:
        module = self._flavour.module
        kinds = {
            # Our own table: bfloat16 and narrower floats have no numpy type.
            module.DataType.FLOAT: "float32",
            module.DataType.HALF: "float16",
            module.DataType.INT8: "int8",
            module.DataType.UINT8: "uint8",
            module.DataType.INT32: "int32",
            module.DataType.INT64: "int64",
            module.DataType.BOOL: "bool",
        }
        given = self._engine.get_tensor_dtype(name)
        if given not in kinds:
            raise SessionError(f"{self._name}: tensor {name!r} is {given}; a graph must give it as float32")
        if self._engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
            raise SessionError(f"{self._name}: tensor {name!r} is a shape; a graph must not take or give shapes")
        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        spec = TensorSpec(name, kinds[given], tuple(size if size >= 0 else None for size in shape))
        if self._engine.get_tensor_mode(name) != module.TensorIOMode.INPUT:
            return Description(spec, is_input=False)
        if None not in spec.shape:
            return Description(spec, is_input=True, smallest=shape, usual=shape, largest=shape)
        profile = self._engine.get_tensor_profile_shape(name, 0)
        smallest, usual, largest = (tuple(int(size) for size in dims) for dims in profile)
        return Description(spec, is_input=True, smallest=smallest, usual=usual, largest=largest)

    def _refusal(self, what: str, mend: str = "") -> SessionError:
        said = "; ".join(self._flavour.logger.take())
        parts = (f"{self._flavour.name} {self._flavour.version} {what} ({self._name})", said, mend)
        return SessionError(": ".join(part for part in parts if part))

    @contextmanager
    def _native(self, what: str) -> Iterator[None]:
        """TensorRT's bindings raise Python's own types for what C++ threw."""
        try:
            yield
        except (RuntimeError, MemoryError, TypeError, ValueError) as error:
            raise self._refusal(f"failed to {what}: {error}") from error
