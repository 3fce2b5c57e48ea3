"""A graph on a KServe v2 server, with the same graph here for when the server does not do.

The server is asked first. Whatever it does wrong (silence, delay, another graph, garbage), ONNX Runtime on this box
computes the very same tensors, within the other half of the time that the study has left; ``backend`` and ``digest``
tell which of the two it was, ``degraded`` why. The module loads without grpcio; opening a session needs it.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING

from engines.backends.breaker import Breaker
from engines.errors import SessionError
from engines.session import Closing, Session, TensorSpec, all_or_none, check_inputs, open_session, smallest_inputs
from engines.types import Tensors

if TYPE_CHECKING:
    from engines.backends.kserve_client import RemoteModel
    from engines.package import Package

log = logging.getLogger(__name__)

BACKEND = "kserve"
#: Stands in a result of which the server computed nothing, or not all.
FALLBACK = "kserve+onnxruntime"


@dataclass(frozen=True, slots=True, kw_only=True)
class KServeServer:
    """Where the server is and how long it may take.

    Attributes:
        address: IP address and port, an IPv6 address in brackets; never a name to be looked up.
        timeout_s: Longest time for one run, also where the study has more left.
        ca: PEM of who signs the server's certificate; empty: no TLS.
        certificate: PEM of our own certificate, for a server that asks for one.
        key: PEM of its private key.
        server_name: What the server's certificate is made out to, where that is not its address.
    """

    address: str
    timeout_s: float = 10.0
    ca: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)
    server_name: str = ""


class KServeSession(Closing):
    """One stage's graph on a server, and here. One thread uses it."""

    def __init__(
        self, remote: RemoteModel, local: Session, sha256: str, *, timeout_s: float, breaker: Breaker | None = None
    ) -> None:
        """Put the two together; both are closed with it.

        Args:
            remote: The model on the server.
            local: The same graph here.
            sha256: Of its ONNX file.
            timeout_s: Longest time for one run on the server, also where the study has more left.
            breaker: Decides when the server is asked.
        """
        self._remote, self._local, self._sha256 = remote, local, sha256
        self._breaker = breaker or Breaker()
        self._timeout_s = timeout_s
        self._left_s: Callable[[], float] = lambda: math.inf
        self._server = ""
        self._checked = False
        self._fell_back = False
        self._closed = False
        self.degraded = ""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` takes."""
        return self._local.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` gives."""
        return self._local.outputs

    @property
    def backend(self) -> str:
        """``kserve``, or ``kserve+onnxruntime`` when a run since ``begin_study`` was not the server's."""
        return FALLBACK if self._fell_back else BACKEND

    @property
    def precision(self) -> str:
        """Of the package's graph: the server proves that it runs that one."""
        return self._local.precision

    @property
    def digest(self) -> str:
        """Tells graph, backend and server; of a study that fell back, the local engine too."""
        facts = {"onnx": self._sha256, "backend": self.backend, "server": self._server}
        if self._fell_back:
            facts["local"] = self._local.digest
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def begin_study(self, left_s: Callable[[], float]) -> None:
        """A study begins: ``backend`` tells of its runs alone.

        Args:
            left_s: How long the study still has. The server gets at most half of it, so that the other half is
                there for computing here.
        """
        self._left_s, self._fell_back = left_s, False

    def warmup(self) -> None:
        """Make ready here, then ask the server once; a server that does not do is no error, but ``degraded``."""
        self._local.warmup()
        self.run(smallest_inputs(self.inputs))

    def run(self, tensors: Tensors) -> Tensors:
        """Turn inputs into outputs, on the server or here.

        Raises:
            SessionError: An input does not fit, the session is closed, or computing here failed as well.
        """
        if self._closed:
            raise SessionError("run after close")
        check_inputs(self.inputs, tensors)
        if self._breaker.allows():
            try:
                outputs = self._ask(tensors)
            except SessionError as error:
                self._breaker.failed(for_good=getattr(error, "for_good", True))
                self._checked = False
                self.degraded = f"{error}; ONNX Runtime on this box computes instead"
                log.warning("%s", self.degraded)
            else:
                self._breaker.succeeded()
                self.degraded = ""
                return outputs
        self._fell_back = True
        return self._local.run(tensors)

    def close(self) -> None:
        """Close the connection and free the graph."""
        self._closed = True
        self._remote.close()
        self._local.close()

    def _ask(self, tensors: Tensors) -> Tensors:
        half_s = self._left_s() / 2
        if not self._checked:
            # Before tensors leave the box: is it the right model? After a failure again.
            self._server = self._remote.check(half_s / 2)
            self._checked = True
            half_s = min(half_s, self._left_s() / 2)
        return self._remote.infer(tensors, min(half_s, self._timeout_s))


def open_kserve(package: Package, index: int, server: KServeServer, *, threads: int = 1) -> KServeSession:
    """Open one stage's graph on a server and here; the server need not be there yet.

    The model is called there as the package here, with ``-<number>`` behind it from the second stage on.

    Raises:
        SessionError: grpcio is not installed, or the graph cannot be opened here.
    """
    client = _client()
    local = open_session(package, index, threads=threads)
    sha256 = package.files[package.manifest.stages[index].onnx]
    try:
        remote = client.RemoteModel(server, model_name(package, index), sha256, local.inputs, local.outputs)
        return KServeSession(remote, local, sha256, timeout_s=server.timeout_s)
    except BaseException:
        local.close()
        raise


def open_all(package: Package, server: KServeServer, *, threads: int = 1) -> tuple[KServeSession, ...]:
    """A session for each stage of a package, as ``Pipeline`` takes them; none stays open if one cannot be opened.

    Raises:
        SessionError: As ``open_kserve``.
    """
    stages = range(len(package.manifest.stages))
    return all_or_none(open_kserve(package, index, server, threads=threads) for index in stages)


def model_name(package: Package, index: int) -> str:
    """What a server must call the graph of one stage: the package's name, with ``-1``, ``-2`` for further stages."""
    return package.name if index == 0 else f"{package.name}-{index}"


def ask_server(server: KServeServer, within_s: float = 2.0) -> str:
    """Name and version of a server that is ready.

    Raises:
        SessionError: It is not, or grpcio is not installed.
    """
    told: str = _client().ask_server(server, within_s)
    return told


def _client() -> ModuleType:
    try:
        return importlib.import_module("engines.backends.kserve_client")
    except ImportError as error:
        raise SessionError(
            f"a KServe server is configured, but {error.name or 'grpcio'} is not installed; "
            "install the extra: pip install 'scanside[kserve]', or take 'kserve' out of the configuration"
        ) from error
