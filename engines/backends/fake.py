"""A strict fake for tests of whoever uses a session: gives outputs of the right shape, or fails in a chosen way.

The mode stands in ``fake.json`` in the package's folder (``{"mode": "crash"}``), beside the real ONNX file whose
inputs and outputs it takes over. Nothing that a site can set opens this backend.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from typing import Any, Literal, get_args

import numpy as np

from engines.backends.onnxruntime import OnnxRuntimeSession
from engines.errors import SessionError
from engines.package import Package
from engines.session import Closing, TensorSpec, check_inputs, smallest_inputs
from engines.types import Tensors

Mode = Literal["ok", "nan", "inf", "constant", "crash", "hang", "memory", "error", "slow"]
_HOG_BYTES = 64 * 1024 * 1024


class FakeSession(Closing):
    """Checks its use as strictly as a GPU would: inputs, one thread, no run after close."""

    backend = "fake"
    precision = "fp32"

    def __init__(
        self,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        mode: Mode = "ok",
        sizes: dict[str, int] | None = None,
        value: float = 0.5,
        seconds: float = 0.0,
    ) -> None:
        """Make a fake with given tensors.

        Args:
            inputs: What it takes.
            outputs: What it gives; a named dimension takes its size from the input that names it, else from
                ``sizes``, else 1.
            mode: How ``run`` behaves. ``hang`` never returns, ``memory`` takes memory until it is stopped.
            sizes: Of dimensions that no input names.
            value: Fills the outputs of modes ``ok``, ``slow`` and ``constant``.
            seconds: How long ``slow`` takes.
        """
        if mode not in get_args(Mode):
            raise SessionError(f"unknown mode {mode!r} of the fake backend; known are {get_args(Mode)}")
        self.inputs, self.outputs = inputs, outputs
        self._mode, self._sizes, self._value, self._seconds = mode, sizes or {}, value, seconds
        self._thread = threading.get_ident()
        self._closed = False
        self.runs = 0
        self.digest = hashlib.sha256(json.dumps(["fake", mode, value]).encode()).hexdigest()

    def warmup(self) -> None:
        """Check that zeros of the smallest shape would be taken; never misbehaves, so that loading succeeds."""
        self._check(smallest_inputs(self.inputs))

    def run(self, tensors: Tensors) -> Tensors:
        """Behave as the mode says.

        Raises:
            SessionError: In mode ``error``, and for every wrong use.
        """
        self._check(tensors)
        self.runs += 1
        misbehave(self._mode, self._seconds)
        value = {"nan": np.nan, "inf": np.inf}.get(self._mode, self._value)
        sizes = dict(self._sizes)
        for spec in self.inputs:
            given = zip(spec.shape, tensors[spec.name].shape, strict=True)
            sizes |= {named: size for named, size in given if isinstance(named, str)}
        outputs = {}
        for spec in self.outputs:
            shape = [d if isinstance(d, int) else sizes.get(d or "", 1) for d in spec.shape]
            kind = np.dtype(spec.dtype)
            outputs[spec.name] = np.full(shape, value if kind.kind == "f" else 1, kind)
        return outputs

    def close(self) -> None:
        """From now on every run is refused."""
        self._closed = True

    def _check(self, tensors: Tensors) -> None:
        if self._closed:
            raise SessionError("run after close")
        if threading.get_ident() != self._thread:
            raise SessionError("run from another thread than the one that opened the session")
        check_inputs(self.inputs, tensors)


def misbehave(mode: str, seconds: float = 0.0) -> None:
    """Do to this process what a broken engine does; returns for modes that only give bad numbers.

    Raises:
        SessionError: In mode ``error``.
        MemoryError: In mode ``memory``, where a limit stops it.
    """
    if mode == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif mode == "hang":
        threading.Event().wait()
    elif mode == "slow":
        threading.Event().wait(seconds)
    elif mode == "memory":
        held = []
        while True:
            held.append(np.ones(_HOG_BYTES, np.uint8))
    elif mode == "error":
        raise SessionError("the fake backend was told to fail")


def open_fake(package: Package, index: int) -> FakeSession:
    """Open a fake in place of one stage's graph, with the graph's own inputs and outputs."""
    path = package.path / "fake.json"
    told: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    with OnnxRuntimeSession(package.read_onnx(index), name=package.name) as real:
        return FakeSession(real.inputs, real.outputs, **told)
