"""ONNX Runtime on the CPU: the reference that every other backend is checked against.

Another execution provider is used only where it is named, and then for the whole graph: what it does not take is an
error, never run on the CPU in silence.

The memory arena is off: it would keep the peak of the largest CT for ever (1.2 GB against 0.12 GB).

Since version 1.29 the official Linux builds report model names, hashes and run times to their maker over the
internet and keep what they could not send in a database below the user's cache folder. Off before the library is
loaded, which is the only moment that it listens: nothing leaves the box that the site did not ask for.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

from engines.errors import SessionError
from engines.package import Package
from engines.session import Closing, TensorSpec, check_inputs, smallest_inputs
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
CPU = "CPUExecutionProvider"


class OnnxRuntimeSession(Closing):
    """A graph in one of ONNX Runtime's execution providers."""

    def __init__(
        self,
        graph: bytes,
        *,
        name: str,
        threads: int = 1,
        provider: str = CPU,
        precision: str = "fp32",
        digest: str | None = None,
    ) -> None:
        """Load a graph.

        Args:
            graph: The ONNX file's bytes; external data is never read.
            name: What error messages call it.
            threads: Threads within one operator.
            provider: Which execution provider runs all of it.
            precision: Of the graph.
            digest: Of the engine, where the graph is one; by default made of graph, version and provider.

        Raises:
            SessionError: This ONNX Runtime has no such provider, the provider does not take the whole graph, or ONNX
                Runtime refuses the graph.
        """
        known = ort.get_available_providers()
        if provider not in known:
            raise SessionError(
                f"ONNX Runtime {ort.__version__} has no provider {provider!r} on this machine; it has "
                f"{', '.join(known)}. Install the ONNX Runtime that brings it, or use backend onnxruntime"
            )
        options = ort.SessionOptions()
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # Idle threads must sleep: the daemon and its neighbours share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._name = name
        self.backend = "onnxruntime" if provider == CPU else f"onnxruntime:{provider}"
        self.precision = precision
        try:
            # enable_fallback is the second way to the CPU: the Python layer tries again there when a provider fails.
            self._session: Any = ort.InferenceSession(graph, options, providers=[provider], enable_fallback=0)
            self.inputs = tuple(_spec(i) for i in self._session.get_inputs())
            self.outputs = tuple(_spec(o) for o in self._session.get_outputs())
        except Exception as error:
            mend = "" if provider == CPU else f" with {provider}, which must take the whole graph"
            raise SessionError(f"ONNX Runtime {ort.__version__} refuses {name}{mend}: {error}") from error
        if provider != CPU:
            check_assigned(self._session, provider, name)
        facts = {"onnx": hashlib.sha256(graph).hexdigest(), "backend": self.backend, "version": ort.__version__}
        self.digest = digest or hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

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


def check_assigned(session: Any, provider: str, name: str) -> None:
    """Look where the nodes of a loaded graph really run.

    Raises:
        SessionError: Some run elsewhere than in ``provider``.
    """
    used = set(session.get_providers()[:1])
    # Came after 1.23, the version of JetPack 6; there the option that forbids the CPU stands alone.
    if hasattr(session, "get_provider_graph_assignment_info"):
        used |= {part.ep_name for part in session.get_provider_graph_assignment_info()}
    if used != {provider}:
        raise SessionError(f"{name} would run on {', '.join(sorted(used))}, not on {provider} alone; it is not used")


def open_onnxruntime(package: Package, index: int, threads: int, provider: str = CPU) -> OnnxRuntimeSession:
    """Open one stage's graph, having checked that its bytes are those the package was loaded with."""
    name = f"{package.manifest.name}/{package.manifest.stages[index].onnx}"
    return OnnxRuntimeSession(package.read_onnx(index), name=name, threads=threads, provider=provider)


def _spec(node: Any) -> TensorSpec:
    return TensorSpec(node.name, _DTYPES.get(node.type, node.type), tuple(node.shape))
