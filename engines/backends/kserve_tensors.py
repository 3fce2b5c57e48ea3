"""Tensors as KServe v2 carries them, and whether a server's words about them are those of our graph. Pure.

``told`` and ``response`` are protobuf messages of ``kserve_messages``; anything with the same attributes will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.errors import SessionError
from engines.session import TensorSpec
from engines.types import Tensors

#: numpy dtype name to the protocol's (raw contents are little endian, row by row, without padding).
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
_MAX_WORDS = 200


def read_outputs(specs: Sequence[TensorSpec], response: Any, sizes: dict[str, int]) -> Tensors:
    """The tensors of a ``ModelInferResponse``, each the caller's own.

    Args:
        specs: What must be there; more is refused too.
        response: From the server.
        sizes: Of the named dimensions of the inputs.

    Raises:
        SessionError: A tensor is missing, unknown, doubled, or of another type, shape or length.
    """
    names = [output.name for output in response.outputs]
    if sorted(names) != sorted(spec.name for spec in specs):
        raise SessionError(f"outputs {[short(name) for name in names][:10]} came, {[s.name for s in specs]} are due")
    if len(response.raw_output_contents) != len(names):
        raise SessionError(f"{len(response.raw_output_contents)} raw contents came for {len(names)} outputs")
    known = {spec.name: spec for spec in specs}
    found: Tensors = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        spec, shape = known[output.name], tuple(output.shape)
        if output.datatype != DATATYPES[spec.dtype]:
            raise SessionError(f"output {spec.name!r} is {short(output.datatype)}, {DATATYPES[spec.dtype]} is due")
        if not _fits(shape, spec.shape, sizes):
            raise SessionError(f"output {spec.name!r} has shape {shape}, {spec.shape} is due")
        kind = np.dtype(spec.dtype).newbyteorder("<")
        if len(raw) != math.prod(shape) * kind.itemsize:
            raise SessionError(f"output {spec.name!r} of shape {shape} has {len(raw)} bytes")
        found[spec.name] = np.frombuffer(raw, kind).astype(spec.dtype).reshape(shape)
    return {spec.name: found[spec.name] for spec in specs}


def _fits(shape: tuple[int, ...], wanted: tuple[int | str | None, ...], sizes: dict[str, int]) -> bool:
    if len(shape) != len(wanted):
        return False
    for size, want in zip(shape, wanted, strict=True):
        due = sizes.get(want) if isinstance(want, str) else want
        if size < 0 or (due is not None and size != due):
            return False
    return True


def differences(what: str, specs: Sequence[TensorSpec], told: Any) -> list[str]:
    """Where a server's metadata disagree with the graph, one sentence each; -1 there is a size that varies."""
    theirs = {one.name: (one.datatype, tuple(one.shape)) for one in told}
    if len(theirs) != len(told) or sorted(theirs) != sorted(spec.name for spec in specs):
        names = [short(one.name) for one in told][:10]
        return [f"it has the {what}s {names}, the package {[spec.name for spec in specs]}"]
    wrong = []
    for spec in specs:
        datatype, shape = theirs[spec.name]
        if datatype != DATATYPES[spec.dtype]:
            wrong.append(f"{what} {spec.name!r} is {short(datatype)} there, {DATATYPES[spec.dtype]} here")
        fits = len(shape) == len(spec.shape) and all(
            size in {-1, want} for size, want in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            wrong.append(f"{what} {spec.name!r} has shape {shape} there, {spec.shape} here")
    return wrong


def short(text: str) -> str:
    """Foreign words, cut to what a log line bears."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_WORDS])
