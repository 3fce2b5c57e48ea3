"""Copies in, engine, copies out: put on a stream one by one, or, once a shape is warm, as one recorded graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from engines.backends.cuda import CudaApi, CudaError, CudaGraphs, GraphHandle, StreamHandle
from engines.backends.trt_tensors import POISON, Binding
from engines.errors import SessionError


class Enqueuer:
    """Puts runs of one engine on one stream. Nothing is done before the stream is synchronised."""

    def __init__(
        self,
        cuda: CudaApi,
        stream: StreamHandle,
        bindings: Sequence[Binding],
        execute: Callable[[], None],
        *,
        graphs: CudaGraphs | None,
        internal: bool,
    ) -> None:
        """Begin without a graph.

        Args:
            cuda: The GPU.
            stream: Where runs go.
            bindings: All tensors.
            execute: Puts the engine itself on the stream.
            graphs: Records them; None: none is recorded here.
            internal: The engine records graphs itself.
        """
        self._cuda, self._stream, self._bindings, self._execute = cuda, stream, bindings, execute
        self._internal = internal
        self._graphs = graphs
        self._graph: GraphHandle | None = None
        self._warm = False
        self._failure: str | None = None

    @property
    def mode(self) -> str:
        """``graph``, ``plain``, ``internal``, or why no graph could be made."""
        if self._graph is not None:
            return "graph"
        return self._failure or ("internal" if self._internal else "plain")

    def run(self) -> None:
        """Put one run on the stream.

        Raises:
            SessionError: TensorRT or CUDA refused.
        """
        if self._warm and self._graph is None and self._failure is None:
            self._record()
        if self._graph is not None and self._graphs is not None:
            self._graphs.graph_launch(self._graph, self._stream)
        else:
            self._enqueue()
        # A graph may be recorded only after one plain run of the same shape: the first one initialises lazily.
        self._warm = True

    def drop(self) -> None:
        """Forget the graph: shapes change, a run failed, or all ends."""
        graph, self._graph = self._graph, None
        self._warm = False
        if graph is not None and self._graphs is not None:
            self._graphs.graph_destroy(graph)

    def _enqueue(self) -> None:
        for binding in self._bindings:
            if binding.copied and binding.is_input:
                self._cuda.copy_to_device(binding.address, binding.bytes, self._stream)
            elif binding.copied:
                self._cuda.device_fill(binding.address, POISON, binding.bytes.nbytes, self._stream)
        self._execute()
        for binding in self._bindings:
            if binding.copied and not binding.is_input:
                self._cuda.copy_to_host(binding.bytes, binding.address, self._stream)

    def _record(self) -> None:
        """Make a graph of what ``_enqueue`` does; where that fails, runs stay plain."""
        graphs = self._graphs
        if graphs is None:
            return
        try:
            graphs.capture_begin(self._stream)
            try:
                self._enqueue()
            except BaseException:
                with suppress(CudaError):
                    # Only this makes the stream work again.
                    graphs.graph_destroy(graphs.capture_end(self._stream))
                raise
            self._graph = graphs.capture_end(self._stream)
        except SessionError as error:
            # Where the device is lost, the plain run that follows says so.
            self._failure = f"no graph: {error}"
