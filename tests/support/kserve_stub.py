"""A KServe v2 server of a hundred lines that does whatever a test wants it to do wrong, next to a real one's right.

Every question is noted, so that a test can tell what was sent, and that nothing was. The next answers to
``ModelInfer`` go through ``faults``: one function each, from the good response to what is sent instead (a message or
bytes), or which raises ``Abort``.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np

from engines.backends.kserve_messages import MESSAGES, SERVICE
from engines.backends.kserve_tensors import DATATYPES
from engines.backends.onnxruntime import OnnxRuntimeSession

NUMPY = {theirs: ours for ours, theirs in DATATYPES.items()}


def metadata(session):
    """Inputs and outputs of a graph as the protocol tells them: a size that varies is -1."""
    return {
        what: [
            {
                "name": spec.name,
                "datatype": DATATYPES[spec.dtype],
                "shape": [size if isinstance(size, int) else -1 for size in spec.shape],
            }
            for spec in specs
        ]
        for what, specs in (("inputs", session.inputs), ("outputs", session.outputs))
    }


class Abort(Exception):  # noqa: N818 - an answer
    def __init__(self, code, words="told to"):
        super().__init__(words)
        self.code = code


class Stub(grpc.GenericRpcHandler):
    """``Stub(graph, "toy")``: serves one graph until ``stop``.

    ``stop`` and ``start`` again keep the port; a test that does both gives one of ``free_port``, which stays its own.
    """

    def __init__(self, graph, name, *, port=0, credentials=None):
        self.sha256 = hashlib.sha256(graph).hexdigest()
        self.name, self.credentials = name, credentials
        self.calls, self.requests, self.faults = [], [], []
        self.live = self.ready = self.model_ready = True
        self.go_on = threading.Event()
        with OnnxRuntimeSession(graph, name=name) as session:
            self.tensors = metadata(session)
        self._graph = graph
        self.port = port
        self.start()

    def start(self):
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[self], options=[("grpc.so_reuseport", 0)])
        if self.credentials is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", self.credentials)
        self._server.start()

    def stop(self):
        self.go_on.set()
        self._server.stop(None).wait(60)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def count(self, call):
        return self.calls.count(call)

    # -- what grpc asks ----------------------------------------------------------------------------------------------

    def service(self, details):
        call = details.method.removeprefix(SERVICE)
        request, _ = MESSAGES.pair(call)
        return grpc.unary_unary_rpc_method_handler(
            lambda asked, context: self._answer(call, asked, context),
            request_deserializer=request.FromString,
            response_serializer=lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString(),
        )

    def _answer(self, call, asked, context):
        self.calls.append(call)
        try:
            return getattr(self, call)(asked)
        except Abort as told:
            return context.abort(told.code, str(told))

    def ServerLive(self, _):  # noqa: N802 - the protocol's names
        return MESSAGES.ServerLiveResponse(live=self.live)

    def ServerReady(self, _):  # noqa: N802
        return MESSAGES.ServerReadyResponse(ready=self.ready)

    def ServerMetadata(self, _):  # noqa: N802
        return MESSAGES.ServerMetadataResponse(name="stub", version="1")

    def ModelReady(self, asked):  # noqa: N802
        self._known(asked.name)
        return MESSAGES.ModelReadyResponse(ready=self.model_ready)

    def ModelMetadata(self, asked):  # noqa: N802
        self._known(asked.name)
        return MESSAGES.ModelMetadataResponse(name=asked.name, platform="onnx", **self.tensors)

    def ModelInfer(self, asked):  # noqa: N802
        self._known(asked.model_name)
        self.requests.append(asked)
        given = {
            one.name: np.frombuffer(raw, NUMPY[one.datatype]).reshape(one.shape)
            for one, raw in zip(asked.inputs, asked.raw_input_contents, strict=True)
        }
        # A session belongs to one thread; grpc has several.
        with OnnxRuntimeSession(self._graph, name=self.name) as session:
            made = session.run(given)
        response = MESSAGES.ModelInferResponse(model_name=asked.model_name, model_version="1", id=asked.id)
        response.parameters["model_sha256"].string_param = self.sha256
        for name, tensor in made.items():
            response.outputs.add(name=name, datatype=DATATYPES[tensor.dtype.name], shape=tensor.shape)
            response.raw_output_contents.append(tensor.tobytes())
        return self.faults.pop(0)(response) if self.faults else response

    def _known(self, name):
        if name != self.name:
            raise Abort(grpc.StatusCode.NOT_FOUND, f"no model {name}")
