"""ONNX Runtime on the CPU: the reference that every other backend is checked against.

The memory arena is off: it would keep the peak of the largest CT for ever (1.2 GB against 0.12 GB).

Since version 1.29 the official Linux builds report model names, hashes and run times to their maker over the
internet and keep what they could not send in a database below the user's cache folder. Off before the library is
loaded, which is the only moment that it listens: nothing leaves the box that the site did not ask for.
"""

from __future__ import annotations

import hashlib
import json
import os
from types import TracebackType
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from engines.errors import SessionError
from engines.package import Package
from engines.session import TensorSpec, check_inputs, smallest_inputs
from engines.types import Tensors

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_ERRORS_ONLY = 3


class OnnxRuntimeSession:
    """A graph in ONNX Runtime's CPU provider."""

    backend = "onnxruntime"
    precision = "fp32"

    def __init__(self, graph: bytes, *, name: str, threads: int = 1) -> None:
        """Load a graph.

        Args:
            graph: The ONNX file's bytes; external data is never read.
            name: What error messages call it.
            threads: Threads within one operator.

        Raises:
            SessionError: ONNX Runtime refuses the graph.
        """
        options = ort.SessionOptions()
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Idle threads must sleep: the daemon and its neighbours share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._name = name
        try:
            self._session: Any = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            self.inputs = tuple(_spec(i) for i in self._session.get_inputs())
            self.outputs = tuple(_spec(o) for o in self._session.get_outputs())
        except Exception as error:
            msg = f"ONNX Runtime {ort.__version__} refuses {name}: {error}"
            raise SessionError(msg) from error
        facts = {"onnx": hashlib.sha256(graph).hexdigest(), "backend": self.backend, "version": ort.__version__}
        self.digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def warmup(self) -> None:
        """Run once on zeros of the smallest shape."""
        self.run(smallest_inputs(self.inputs))

    def run(self, tensors: Tensors) -> Tensors:
        """Turn inputs into outputs.

        Raises:
            SessionError: An input does not fit, the session is closed, or ONNX Runtime failed.
        """
        check_inputs(self.inputs, tensors)
        if self._session is None:
            msg = f"the session of {self._name} is closed"
            raise SessionError(msg)
        names = [o.name for o in self.outputs]
        try:
            arrays = self._session.run(names, tensors)
        except Exception as error:
            msg = f"{self._name} failed in ONNX Runtime: {error}"
            raise SessionError(msg) from error
        return dict(zip(names, arrays, strict=True))

    def close(self) -> None:
        """Free the graph."""
        self._session = None

    def __enter__(self) -> OnnxRuntimeSession:  # noqa: PYI034 - Self came with Python 3.11
        """Use as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def open_onnxruntime(package: Package, index: int, threads: int) -> OnnxRuntimeSession:
    """Open one stage's graph, having checked that its bytes are those the package was loaded with."""
    stage = package.manifest.stages[index]
    return OnnxRuntimeSession(package.read_onnx(index), name=f"{package.manifest.name}/{stage.onnx}", threads=threads)


def _spec(node: Any) -> TensorSpec:
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), tuple(node.shape))
