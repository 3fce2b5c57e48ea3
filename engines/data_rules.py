"""What the files beside the graphs must be: arrays that are only numbers, texts, and golden cases of declared origin.

An ``.npz`` file is a zip archive of ``.npy`` arrays; each array's header is read before its numbers, so that neither
a pickle nor a header that claims terabytes nor a zip bomb gets further than that.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from engines.contents import MAX_TEXT_BYTES, SIGNATURE_NAME, read_file
from engines.errors import PackageError
from engines.package import FILL_IN, Package
from engines.signing import parse_strict

GOLDEN_FOLDER = "golden"
GOLDEN_LIST = f"{GOLDEN_FOLDER}/golden.json"
#: Where the input of a golden case comes from; said by the maker, who signs it. Never a patient.
ORIGINS = ("phantom", "synthesised")
MAX_ARRAY_BYTES = 256 * 1024 * 1024
MAX_ARRAYS = 64
#: Of all arrays of a package together.
MAX_ARRAYS_BYTES = 1024 * 1024 * 1024
_CHUNK = 1024 * 1024

Shapes = dict[str, tuple[tuple[int, ...], str]]


def data_faults(package: Package, inputs: dict[str, int]) -> Iterator[str]:
    """Everything that is wrong with the files beside the graphs, a line each, naming the file.

    Args:
        package: A loaded package.
        inputs: Rank of every graph input of every stage, by name.
    """
    manifest = package.manifest
    named = {stage.onnx for stage in manifest.stages}
    for name in sorted(package.files):
        if name.endswith(".onnx") and name not in named:
            yield f"{name}: no stage names this graph; take it out"
        elif not name.endswith((".onnx", ".npz")):
            yield from _text_faults(package, name)
    if manifest.metrics is not None and manifest.metrics not in package.files:
        yield f"{manifest.metrics}: model.yaml names it under metrics, and it is missing"
    if "CARD.md" not in package.files:
        yield "CARD.md: is missing; say in it what the package was made from, what it finds and what it misses"
    else:
        yield from _card_faults(package)
    cases = _golden_cases(package)
    yield from _golden_faults(package, cases)
    files = [case["file"] for case in cases if isinstance(case, dict) and isinstance(case.get("file"), str)]
    used = {f"{GOLDEN_FOLDER}/{file}" for file in files}
    calibration = manifest.calibration.file if manifest.calibration is not None else None
    yield from (f"{name}: a golden case names it, and it is missing" for name in sorted(used - package.files.keys()))
    if calibration is not None and calibration not in package.files:
        yield f"{calibration}: model.yaml names it under calibration, and it is missing"
    left = MAX_ARRAYS_BYTES
    for name in sorted(n for n in package.files if n.endswith(".npz")):
        if name not in used and name != calibration:
            yield f"{name}: neither a golden case nor calibration names it; take it out"
            continue
        try:
            shapes, taken = _arrays(package.data(name), left)
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            yield f"{name}: cannot be read as arrays of numbers: {error}; write it with numpy.savez_compressed"
            continue
        left -= taken
        if name == calibration:
            yield from _calibration_faults(name, shapes, inputs)


def _text_faults(package: Package, name: str) -> Iterator[str]:
    try:
        text = read_file(package.path / name, MAX_TEXT_BYTES)
        if name.endswith(".json") and name != SIGNATURE_NAME:
            parse_strict(text)
        text.decode("utf-8")
    except PackageError as error:
        yield f"{name}: {error}"
    except ValueError as error:
        yield f"{name}: is no {'JSON' if name.endswith('.json') else 'UTF-8 text'}: {error}"


def _card_faults(package: Package) -> Iterator[str]:
    try:
        lines = package.data("CARD.md").decode("utf-8").splitlines()
    except (PackageError, UnicodeDecodeError):
        return  # told above
    for number, line in enumerate(lines, start=1):
        if FILL_IN in line:
            yield f"CARD.md:{number}: {line[line.index(FILL_IN) :].strip()}"


def _golden_cases(package: Package) -> list[Any]:
    try:
        cases = parse_strict(package.data(GOLDEN_LIST))
    except (PackageError, ValueError):
        return []
    return cases if isinstance(cases, list) else []


def _golden_faults(package: Package, cases: list[Any]) -> Iterator[str]:
    if GOLDEN_LIST not in package.files:
        yield (
            f"{GOLDEN_LIST}: is missing; a package brings at least one case with which this box can try it"
            " ('scanside model golden' makes them)"
        )
    elif not cases:
        yield f"{GOLDEN_LIST}: is a list of at least one case"
    for index, case in enumerate(cases):
        if not isinstance(case, dict) or not isinstance(case.get("file"), str):
            yield f"{GOLDEN_LIST}: case {index}: file: names the .npz file beside it"
        elif case.get("origin") not in ORIGINS:
            yield f"{GOLDEN_LIST}: case {index}: origin: says phantom or synthesised; data of patients is refused"


def _calibration_faults(name: str, shapes: Shapes, inputs: dict[str, int]) -> Iterator[str]:
    if not shapes:
        yield f"{name}: holds no samples"
    for tensor, (shape, _) in shapes.items():
        if tensor not in inputs:
            yield f"{name}: {tensor[:80]!r} is no input of a graph; known are {sorted(inputs)}"
        elif len(shape) != inputs[tensor] + 1 or shape[0] < 1:
            yield f"{name}: {tensor!r} has shape {shape}; expected are samples of {inputs[tensor]} dimensions each"


def _arrays(data: bytes, left: int) -> tuple[Shapes, int]:
    """Shape and dtype of every array, each read whole once; and how many bytes they take.

    Raises:
        ValueError: Something is no array of finite numbers, or too large, with what and which.
    """
    shapes: Shapes = {}
    taken = 0
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > MAX_ARRAYS or len({m.filename for m in members}) != len(members):
            raise ValueError(f"{len(members)} arrays, at most {MAX_ARRAYS}, each once")
        for member in members:
            key = member.filename.removesuffix(".npy")
            with archive.open(member) as held:
                shape, dtype = _header(held)
                size = math.prod(shape) * dtype.itemsize
                if size > MAX_ARRAY_BYTES or taken + size > left:
                    raise ValueError(f"array {key[:80]!r} of shape {shape} takes {size} bytes, more than is allowed")
                _check_numbers(held, key, size, dtype)
            shapes[key] = (shape, dtype.name)
            taken += size
    return shapes, taken


def _header(held: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(held)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array format {version}")
    shape, _, dtype = read(held)
    if dtype.hasobject or dtype.kind not in "biuf" or any(d < 0 for d in shape):
        raise ValueError(f"an array of {dtype}; only plain numbers are read")
    return shape, dtype


def _check_numbers(held: Any, key: str, size: int, dtype: np.dtype[Any]) -> None:
    """Read the numbers piece by piece: exactly as many as the header said, and finite."""
    left = size
    chunk = _CHUNK - _CHUNK % dtype.itemsize
    while left:
        piece = held.read(min(left, chunk))
        if not piece or len(piece) % dtype.itemsize:
            raise ValueError(f"array {key[:80]!r} is cut off")
        if dtype.kind == "f" and not np.isfinite(np.frombuffer(piece, dtype)).all():
            raise ValueError(f"array {key[:80]!r} holds NaN or infinity")
        left -= len(piece)
    if held.read(1):
        raise ValueError(f"array {key[:80]!r} holds more than it says")
