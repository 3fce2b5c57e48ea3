"""The tensors of an engine and the memory that holds them, taken once at their largest shapes."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.backends.cuda import ByteArray, CudaApi, DeviceAddress, HostBuffer
from engines.errors import SessionError
from engines.session import TensorSpec

Shape = tuple[int, ...]
#: ``copy``: pinned host memory and device memory. ``mapped``: pinned host memory that the GPU reads and writes itself,
#: where both share one memory (Jetson).
MemoryStrategy = Literal["copy", "mapped"]
#: Every byte of an output before a run: a NaN that no arithmetic gives, or -1.
POISON = 0xFF


@dataclass(frozen=True, slots=True)
class Description:
    """One tensor of an engine; the shapes of an output follow from the inputs'."""

    spec: TensorSpec
    is_input: bool
    smallest: Shape = ()
    usual: Shape = ()
    largest: Shape = ()


class Binding:
    """One tensor with its memory."""

    def __init__(
        self, told: Description, largest: Shape, host: HostBuffer, address: DeviceAddress, *, copied: bool
    ) -> None:
        """Put a tensor into its memory.

        Args:
            told: What the engine says of it.
            largest: The shape that the memory is for.
            host: Pinned memory.
            address: Where the GPU finds the tensor.
            copied: Whether the two are apart, so that bytes are copied between them.
        """
        self.spec, self.is_input = told.spec, told.is_input
        self.smallest, self.usual, self.largest = told.smallest, told.usual, largest
        self.address = address
        self.copied = copied
        self._host = host
        self._dtype = np.dtype(told.spec.dtype)
        self.set_shape(largest)

    @property
    def bytes(self) -> ByteArray:
        """The host bytes of the tensor in its shape of now."""
        return self._bytes

    @property
    def view(self) -> NDArray[Any]:
        """The host memory as the tensor in its shape of now."""
        return self._view

    def set_shape(self, shape: Shape) -> None:
        """Use as much of the memory as this shape needs.

        Raises:
            SessionError: It needs more than there is.
        """
        size = math.prod(shape) * self._dtype.itemsize
        if size > self._host.array.nbytes:
            raise SessionError(f"{self.spec.name!r} in shape {shape} is larger than in its largest, {self.largest}")
        self._bytes = self._host.array[:size]
        self._view = self._bytes.view(self._dtype).reshape(shape)

    def poison(self) -> None:
        """Make what is there unmistakable, so that an output of an earlier run cannot pass for a new one."""
        self._bytes[...] = POISON

    def take(self, name: str) -> NDArray[Any]:
        """A copy of the output.

        Raises:
            SessionError: The engine has not written it, or has written a part of a float tensor.
        """
        if self._view.size:
            bits = self._bytes.view(f"u{self._dtype.itemsize}")
            poisoned = bits == np.iinfo(bits.dtype).max
            # -1 may be a number of an integer output, the poisoned NaN is none of a float's.
            if poisoned.any() if self._dtype.kind == "f" else poisoned.all():
                raise SessionError(f"{name} has not written the whole of output {self.spec.name!r}")
        return np.array(self._view)


def bind(cuda: CudaApi, told: Description, largest: Shape, strategy: MemoryStrategy, held: ExitStack) -> Binding:
    """Take the memory of one tensor.

    Args:
        cuda: Where.
        told: Which tensor.
        largest: For which shape.
        strategy: Of which kind.
        held: Gives it back.

    Raises:
        CudaError: There is not enough.
    """
    size = max(1, math.prod(largest) * np.dtype(told.spec.dtype).itemsize)
    host = cuda.host_alloc(size, mapped=strategy == "mapped")
    held.callback(cuda.host_free, host)
    if host.device_address is not None:
        return Binding(told, largest, host, host.device_address, copied=False)
    address = cuda.device_alloc(size)
    held.callback(cuda.device_free, address)
    return Binding(told, largest, host, address, copied=True)
