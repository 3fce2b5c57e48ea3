"""One model on a KServe v2 server over gRPC: is it ready, is it ours, and what does it make of these tensors.

What the server says is believed no more than any other foreign bytes: every name, type, shape and length is checked.
Nothing but tensors, their names and a counter is ever sent.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from typing import Any

# Read when the library is loaded: it tells of every lost connection on standard error, and so do we, in a log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc

from engines.backends.kserve import KServeServer
from engines.backends.kserve_messages import MESSAGES, SERVICE
from engines.backends.kserve_tensors import DATATYPES, differences, read_outputs, short
from engines.errors import SessionError
from engines.session import TensorSpec
from engines.types import Tensors

#: In a response: the SHA-256 of the ONNX file that the server ran.
DIGEST_PARAMETER = "model_sha256"
#: One question about readiness or metadata; those are small.
ASK_S = 2.0
_MAX_MESSAGE_BYTES = 1 << 30
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # The worker may reach one address; a proxy of the environment is not it.
    ("grpc.enable_http_proxy", 0),
    # Once, by our own rule, within our own deadline.
    ("grpc.enable_retries", 0),
)
#: What may be over in a moment; anything else stays wrong until a person mends it.
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


class RemoteError(SessionError):
    """The server gave no usable answer. ``for_good``: it will not before a person mends it."""

    def __init__(self, message: str, *, for_good: bool) -> None:
        """Tell what was wrong."""
        super().__init__(message)
        self.for_good = for_good


class Connection:
    """Calls to one server. One thread uses it."""

    def __init__(self, server: KServeServer) -> None:
        """Nothing is sent yet."""
        self.address = server.address
        self._server = server
        self._channel = _open(server)

    def call(self, name: str, until: float, /, **fields: str) -> Any:
        """A small call, as ``ServerReady``, made once.

        Raises:
            RemoteError: It was not answered by the monotonic moment ``until``.
        """
        return self.send(name, MESSAGES.pair(name)[0](**fields), until)

    def send(self, name: str, request: Any, until: float, *, tries: int = 1) -> Any:
        """Make a call; after UNAVAILABLE, and nothing else, again while there are tries and time.

        Raises:
            RemoteError: It was not answered by the monotonic moment ``until``.
        """
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise RemoteError(f"no time is left to ask {self.address}", for_good=False)
        ask = self._channel.unary_unary(
            SERVICE + name,
            request_serializer=type(request).SerializeToString,
            response_deserializer=MESSAGES.pair(name)[1].FromString,
        )
        try:
            return ask(request, timeout=left_s)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.UNAVAILABLE:
                # A new connection: the old one waits longer and longer before it tries again.
                self._channel.close()
                self._channel = _open(self._server)
                if tries > 1:
                    return self.send(name, request, until, tries=tries - 1)
            raise RemoteError(
                f"{name} on {self.address}: {code.name}: {short(error.details() or '')}", for_good=code not in _PASSING
            ) from error

    def about(self, until: float) -> str:
        """Name and version of the server, once it is ready.

        Raises:
            RemoteError: It is not.
        """
        if not self.call("ServerLive", until).live or not self.call("ServerReady", until).ready:
            raise RemoteError(f"the server at {self.address} is not ready", for_good=False)
        told = self.call("ServerMetadata", until)
        return short(f"{told.name} {told.version}".strip())

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        self._channel.close()


class RemoteModel:
    """One model of one server. One thread uses it."""

    def __init__(
        self, server: KServeServer, name: str, sha256: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        """Name the model; nothing is sent yet.

        Args:
            server: Where it is.
            name: Its name there.
            sha256: Of the ONNX file that it must run.
            inputs: What the graph takes.
            outputs: What the graph gives.

        Raises:
            SessionError: A tensor has a type that the protocol cannot carry raw.
        """
        for spec in (*inputs, *outputs):
            if spec.dtype not in DATATYPES:
                raise SessionError(f"tensor {spec.name!r} is {spec.dtype}, which KServe v2 cannot carry")
        self._connection, self._name, self._sha256 = Connection(server), name, sha256
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._ids = itertools.count(1)

    def check(self, within_s: float = ASK_S) -> str:
        """Make sure that the server is ready and has a model of our tensors.

        Returns:
            Name and version of the server.

        Raises:
            RemoteError: It is not, or has another.
        """
        ask, until = self._connection, time.monotonic() + min(within_s, ASK_S)
        about = ask.about(until)
        if not ask.call("ModelReady", until, name=self._name).ready:
            raise RemoteError(f"model {self._name!r} is not ready on {ask.address}", for_good=False)
        metadata = ask.call("ModelMetadata", until, name=self._name)
        wrong = [
            *differences("input", self._inputs, metadata.inputs),
            *differences("output", self._outputs, metadata.outputs),
        ]
        if wrong:
            raise RemoteError(
                f"model {self._name!r} on {ask.address} is not the package's: {'; '.join(wrong)}; "
                "serve the ONNX file of the package there",
                for_good=True,
            )
        return about

    def infer(self, tensors: Tensors, within_s: float) -> Tensors:
        """Run the model; asked a second time where the server could not be reached the first time, never else.

        Raises:
            RemoteError: No answer within the time, or one that must not be used.
        """
        request = MESSAGES.ModelInferRequest(model_name=self._name, id=str(next(self._ids)))
        for spec in self._inputs:
            tensor = tensors[spec.name]
            request.inputs.add(name=spec.name, datatype=DATATYPES[spec.dtype], shape=tensor.shape)
            request.raw_input_contents.append(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
        for spec in self._outputs:
            request.outputs.add(name=spec.name)
        response = self._connection.send("ModelInfer", request, time.monotonic() + within_s, tries=2)
        sizes: dict[str, int] = {}
        for spec in self._inputs:
            named = zip(spec.shape, tensors[spec.name].shape, strict=True)
            sizes |= {name: size for name, size in named if isinstance(name, str)}
        try:
            self._is_ours(request, response)
            return read_outputs(self._outputs, response, sizes)
        except SessionError as error:
            raise RemoteError(f"{self._connection.address}: {error}", for_good=True) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _is_ours(self, request: Any, response: Any) -> None:
        """Refuse an answer to another question, or of another graph."""
        if response.id != request.id or response.model_name != self._name:
            raise SessionError(f"an answer of model {short(response.model_name)!r} to another request came")
        echoed = response.parameters[DIGEST_PARAMETER].string_param if DIGEST_PARAMETER in response.parameters else ""
        if not echoed:
            raise SessionError(
                f"model {self._name!r} does not say which graph it ran; it must answer the parameter "
                f"{DIGEST_PARAMETER} with the SHA-256 of its ONNX file"
            )
        if echoed != self._sha256:
            raise SessionError(
                f"model {self._name!r} ran a graph of SHA-256 {short(echoed)}, the package's has {self._sha256}; "
                "serve the ONNX file of the package"
            )


def ask_server(server: KServeServer, within_s: float = ASK_S) -> str:
    """Name and version of a server that is ready.

    Raises:
        RemoteError: It is not.
    """
    connection = Connection(server)
    try:
        return connection.about(time.monotonic() + within_s)
    finally:
        connection.close()


def _open(server: KServeServer) -> Any:
    host, _, port = server.address.rpartition(":")
    # Said to be an address, so that nothing is looked up.
    target = f"{'ipv6' if host.startswith('[') else 'ipv4'}:{host}:{port}"
    if not server.ca:
        return grpc.insecure_channel(target, _OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=server.ca.encode(),
        private_key=server.key.encode() or None,
        certificate_chain=server.certificate.encode() or None,
    )
    named = server.server_name or host.strip("[]")
    return grpc.secure_channel(target, credentials, (*_OPTIONS, ("grpc.ssl_target_name_override", named)))
