"""A built engine on the GPU, by TensorRT or TensorRT-RTX. Nothing of this has run on a GPU yet.

- One thread owns a session: the one that opened it. Everything is taken once, at the largest shapes of the profile.
- A result is never an older one: outputs are poisoned before each run, on the device too, every return value is
  checked, and an output that was not written is refused.
- A CUDA error that loses the device is raised with ``sticky`` set; the worker that sees it ends.
- The plan is native code as far as trust goes: only what ``EngineStore.plans`` gave is handed in here.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack

import numpy as np

from engines.backends.cuda import CudaApi, CudaError, open_cuda
from engines.backends.trt_api import Flavour, FlavourError, load_flavour
from engines.backends.trt_engine import LoadedEngine
from engines.backends.trt_enqueue import Enqueuer
from engines.backends.trt_tensors import Binding, MemoryStrategy, Shape, bind
from engines.errors import SessionError
from engines.session import Closing, TensorSpec, check_inputs
from engines.types import Tensors

#: The first run of a shape is a plain one; the second is recorded as a graph.
_WARM_RUNS = 2


class TensorRtSession(Closing):
    """See ``engines.session.Session``."""

    def __init__(
        self,
        plan: bytes,
        *,
        flavour: Flavour,
        cuda: CudaApi,
        name: str,
        precision: str,
        digest: str,
        memory: MemoryStrategy | None = None,
        graphs: bool = True,
    ) -> None:
        """Load a plan in this thread.

        Args:
            plan: Its bytes, whose MAC has been checked.
            flavour: The TensorRT that built it.
            cuda: The GPU; the session owns it from now on, even if this raises.
            name: What error messages call it.
            precision: Of the graph that it was built from.
            digest: Of the engine.
            memory: How tensors reach the GPU; by default what suits it.
            graphs: Whether runs are recorded as graphs, by us or by the library.

        Raises:
            SessionError: TensorRT refuses the plan, or memory ended. Nothing is left behind.
        """
        self.backend: str = flavour.name
        self.precision = precision
        self.digest = digest
        self._flavour, self._cuda, self._name = flavour, cuda, name
        self._thread = threading.get_ident()
        self._lost: SessionError | None = None
        self._closed = False
        self._shapes: dict[str, Shape] = {}
        self._held = ExitStack()
        self._held.callback(cuda.close)
        with ExitStack() as failed:
            failed.callback(self._held.close)
            self._open(plan, memory, graphs=graphs)
            failed.pop_all()
        self.inputs: tuple[TensorSpec, ...] = tuple(b.spec for b in self._bindings if b.is_input)
        self.outputs: tuple[TensorSpec, ...] = tuple(b.spec for b in self._bindings if not b.is_input)

    @property
    def graph(self) -> str:
        """How runs are enqueued now: ``graph``, ``plain``, ``internal`` (by TensorRT-RTX), or why a graph failed."""
        return self._enqueuer.mode

    def warmup(self) -> None:
        """Run on zeros of the usual shape until a graph of it stands, so that the first study does not pay for it."""
        self._check_usable()
        for _ in range(_WARM_RUNS):
            self.run({b.spec.name: np.zeros(b.usual, b.spec.dtype) for b in self._bindings if b.is_input})

    def run(self, tensors: Tensors) -> Tensors:
        """Turn inputs into outputs; see ``Session``.

        Raises:
            SessionError: An input does not fit or lies outside of the profile, the session is closed or belongs to
                another thread, TensorRT or CUDA failed (``sticky`` where the device is lost).
        """
        self._check_usable()
        check_inputs(self.inputs, tensors)
        self._check_profile(tensors)
        try:
            self._reshape({spec.name: tensors[spec.name].shape for spec in self.inputs})
            for binding in self._bindings:
                if binding.is_input:
                    np.copyto(binding.view, tensors[binding.spec.name], casting="no")
                else:
                    binding.poison()
            self._enqueuer.run()
            self._cuda.stream_synchronize(self._stream)
            return {b.spec.name: b.take(self._name) for b in self._bindings if not b.is_input}
        except BaseException as error:
            self._recover(error)
            raise

    def close(self) -> None:
        """Free everything in reverse order, whatever fails on the way; a second call does nothing.

        Raises:
            SessionError: Another thread calls, or the device did not take something back.
        """
        if self._closed:
            return
        self._check_thread()
        self._closed = True
        self._held.close()

    def _open(self, plan: bytes, memory: MemoryStrategy | None, *, graphs: bool) -> None:
        """Stream, engine, memory, in this order; each is given back as soon as a later one fails."""
        cuda, held = self._cuda, self._held
        strategy: MemoryStrategy = memory or ("mapped" if cuda.facts().integrated else "copy")
        self._stream = cuda.stream_create()
        held.callback(cuda.stream_destroy, self._stream)
        # TensorRT-RTX records graphs itself; one of ours around it would be in its way.
        internal = graphs and self._flavour.has_runtime_cache
        self._engine = LoadedEngine(plan, self._flavour, self._name, self._stream, graphs=internal)
        held.callback(self._engine.close)
        described = self._engine.describe()
        self._engine.set_shapes({told.spec.name: told.largest for told in described if told.is_input})
        self._bindings: list[Binding] = []
        for told in described:
            largest = told.largest if told.is_input else self._engine.shape_of(told.spec.name)
            self._bindings.append(bind(cuda, told, largest, strategy, held))
            self._engine.set_address(told.spec.name, self._bindings[-1].address)
        self._enqueuer = Enqueuer(
            cuda,
            self._stream,
            self._bindings,
            self._engine.execute,
            graphs=cuda.graphs if graphs and not internal else None,
            internal=internal,
        )
        held.callback(self._enqueuer.drop)
        # Work may still be on its way when a session closes after a failure: memory is given back only after it.
        held.callback(cuda.stream_synchronize, self._stream)

    def _reshape(self, shapes: dict[str, Shape]) -> None:
        """Choose the inputs' shapes, where they are new; a graph of the old ones is no longer valid."""
        if shapes == self._shapes:
            return
        self._enqueuer.drop()
        self._shapes = {}
        self._engine.set_shapes(shapes)
        for binding in self._bindings:
            name = binding.spec.name
            binding.set_shape(shapes[name] if binding.is_input else self._engine.shape_of(name))
        self._shapes = shapes

    def _recover(self, error: BaseException) -> None:
        """After a failed run nothing may be in flight, and nothing recorded is trusted."""
        self._shapes = {}
        if isinstance(error, SessionError) and error.sticky:
            self._lost = error
            return
        try:
            self._cuda.stream_synchronize(self._stream)
            self._enqueuer.drop()
        except CudaError as worse:
            self._lost = worse
            raise worse from error

    def _check_profile(self, tensors: Tensors) -> None:
        for binding in self._bindings:
            if not binding.is_input:
                continue
            shape = tensors[binding.spec.name].shape
            limits = zip(binding.smallest, shape, binding.largest, strict=True)
            if not all(low <= size <= high for low, size, high in limits):
                raise SessionError(
                    f"input {binding.spec.name!r} has shape {shape}; {self._name} was built for {binding.smallest} "
                    f"to {binding.largest}"
                )

    def _check_usable(self) -> None:
        if self._closed:
            raise SessionError(f"the session of {self._name} is closed")
        self._check_thread()
        if self._lost is not None:
            again = SessionError(f"{self._name} cannot run any more: {self._lost}")
            again.sticky = self._lost.sticky
            raise again from self._lost

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise SessionError(f"{self._name} is used from another thread than the one that opened the session")


def open_tensorrt(
    plan: bytes, *, flavour: str, name: str, precision: str, digest: str, graphs: bool = True
) -> TensorRtSession:
    """Load a plan with the TensorRT and the GPU of this machine; see ``TensorRtSession``.

    Raises:
        SessionError: There is no such TensorRT, no CUDA layer, no driver or no GPU, or the plan is refused; the
            message says which and how to mend it.
    """
    try:
        loaded = load_flavour(flavour)
    except FlavourError as error:
        raise SessionError(str(error)) from error
    return TensorRtSession(
        plan, flavour=loaded, cuda=open_cuda(), name=name, precision=precision, digest=digest, graphs=graphs
    )
