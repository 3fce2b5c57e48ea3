"""One protocol for whatever runs a graph: ONNX Runtime, TensorRT, a KServe server, a strict fake in tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from engines.errors import SessionError
from engines.types import Tensors

if TYPE_CHECKING:
    from engines.package import Package
    from engines.store import Entry


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, numpy dtype name and shape of one input or output; a dimension that varies is its name or ``None``."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class Session(Protocol):
    """A loaded graph that turns tensors into tensors. One thread uses it; it is closed once."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` gives."""

    @property
    def backend(self) -> str:
        """Name of the backend, as it stands in the analysis row."""

    @property
    def precision(self) -> str:
        """``fp32``, ``fp16`` or ``int8``."""

    @property
    def digest(self) -> str:
        """SHA-256 that tells this engine from every other: graph, backend and its version, settings."""

    def warmup(self) -> None:
        """Run on zeros, so that the first study does not pay for what is done once."""

    def run(self, tensors: Tensors) -> Tensors:
        """Turn inputs into outputs; the outputs are the caller's own.

        Raises:
            SessionError: An input has the wrong name, dtype or shape, or the backend failed; with ``sticky`` set the
                device is lost, and the process must end.
        """

    def close(self) -> None:
        """Free everything; a second call does nothing."""

    def __enter__(self) -> Session:  # noqa: PYI034 - Self came with Python 3.11
        """Use as a context manager."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


_Closes = TypeVar("_Closes", bound="Closing")
_Opened = TypeVar("_Opened", bound=Session)


class Closing(ABC):
    """What is closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Free everything; a second call does nothing."""

    def __enter__(self: _Closes) -> _Closes:  # noqa: PYI019 - Self came with Python 3.11
        """Use as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def check_inputs(specs: tuple[TensorSpec, ...], tensors: Tensors) -> None:
    """Refuse tensors that do not fit, by name, dtype and shape, before native code sees them.

    Raises:
        SessionError: Naming every tensor that does not fit and what was expected.
    """
    known = [spec.name for spec in specs]
    wrong = [f"input {name!r} is not one of {known}" for name in tensors if name not in known]
    named: dict[str, int] = {}
    for spec in specs:
        tensor = tensors.get(spec.name)
        if tensor is None:
            wrong.append(f"input {spec.name!r} is missing")
        elif tensor.dtype != np.dtype(spec.dtype):
            wrong.append(f"input {spec.name!r} is {tensor.dtype}, expected {spec.dtype}")
        elif not _fits(tensor.shape, spec.shape, named):
            wrong.append(f"input {spec.name!r} has shape {tensor.shape}, expected {spec.shape}")
    if wrong:
        raise SessionError("; ".join(wrong))


def smallest_inputs(specs: tuple[TensorSpec, ...]) -> Tensors:
    """Zeros of the smallest shape that the specs allow: every varying dimension is 1."""
    return {s.name: np.zeros([d if isinstance(d, int) else 1 for d in s.shape], s.dtype) for s in specs}


def _fits(shape: tuple[int, ...], expected: tuple[int | str | None, ...], named: dict[str, int]) -> bool:
    """Whether a shape is as expected; ``named`` remembers the size of each named dimension between tensors."""
    if len(shape) != len(expected):
        return False
    for size, want in zip(shape, expected, strict=True):
        if isinstance(want, int):
            if size != want:
                return False
        elif size < 1 or (want is not None and named.setdefault(want, size) != size):
            return False
    return True


def open_session(package: Package, index: int = 0, *, backend: str = "onnxruntime", threads: int = 1) -> Session:
    """Open the graph of one stage of a package.

    Args:
        package: A loaded package.
        index: Which of its stages.
        backend: ``onnxruntime`` (on the CPU), ``onnxruntime:NAME`` with the name of another execution provider, which
            must then take the whole graph, or ``fake`` in tests.
        threads: Threads within one operator.

    Raises:
        SessionError: The backend is unknown, or it refused the graph.
    """
    kind, _, provider = backend.partition(":")
    if kind == "onnxruntime" and (provider or backend == kind):
        from engines.backends.onnxruntime import CPU, open_onnxruntime

        return open_onnxruntime(package, index, threads, provider or CPU)
    if backend == "fake":
        from engines.backends.fake import open_fake

        return open_fake(package, index)
    raise SessionError(f"unknown backend {backend!r}; use onnxruntime")


def all_or_none(opening: Iterable[_Opened]) -> tuple[_Opened, ...]:
    """Sessions as they are opened one by one; where one cannot be, those before it are closed."""
    with ExitStack() as failed:
        opened = []
        for session in opening:
            failed.callback(session.close)
            opened.append(session)
        failed.pop_all()
    return tuple(opened)


def open_sessions(package: Package, *, backend: str = "onnxruntime", threads: int = 1) -> tuple[Session, ...]:
    """Open the graphs of all stages of a package, in the manifest's order; see ``open_session``.

    Raises:
        SessionError: The backend is unknown, or it refused a graph; nothing stays open.
    """
    stages = range(len(package.manifest.stages))
    return all_or_none(open_session(package, index, backend=backend, threads=threads) for index in stages)


def open_engine(
    entry: Entry, plans: Sequence[bytes], package: Package, *, threads: int = 1, graphs: bool = True
) -> tuple[Session, ...]:
    """Open a built engine: all stages of its package, in the manifest's order. The calling thread owns them.

    Args:
        entry: Of the engine store.
        plans: What ``EngineStore.plans`` gave for it, whose MACs it has checked; nothing else may be handed in.
        package: Whose engine it is.
        threads: Threads within one operator, where the CPU computes.
        graphs: Whether runs are recorded as graphs, where a GPU computes; only a measurement does without.

    Raises:
        SessionError: A plan is refused, or this machine lacks the library, the driver or the GPU; the message says
            which, and nothing stays open.
    """
    stages = package.manifest.stages
    if len(plans) != len(stages):
        raise SessionError(f"engine {entry.digest[:12]} has {len(plans)} plans for {len(stages)} stages; build it anew")
    told: dict[str, str] = {"precision": entry.precision, "digest": entry.digest}

    def opened(plan: bytes, name: str) -> Session:
        if entry.flavour == "onnxruntime":
            from engines.backends.onnxruntime import OnnxRuntimeSession

            return OnnxRuntimeSession(plan, name=name, threads=threads, **told)
        from engines.backends.tensorrt import open_tensorrt

        return open_tensorrt(plan, flavour=entry.flavour, name=name, graphs=graphs, **told)

    return all_or_none(opened(p, f"{package.name}/{s.onnx}") for p, s in zip(plans, stages, strict=True))
