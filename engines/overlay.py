"""A mask with the way back to the pictures that it lies over, small enough to be kept beside a result."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What one file may unfold to; a volume of 512 x 512 x 1000 bits is 33 MB.
_MAX_BYTES = 64 << 20
#: Rows and columns are unsigned short in DICOM (PS3.3 C.7.6.3).
_MAX_SIDE = 1 << 16
#: What zipfile, numpy and json make of damaged bytes, besides ValueError.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError, RuntimeError, MemoryError),
    *(LookupError, TypeError, AttributeError, ArithmeticError, SyntaxError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laying:
    """How one picture lies over the grid of a mask.

    Attributes:
        slice_id: Of the picture.
        shape: (rows, columns) of the original picture.
        index: Which plane of the mask it takes.
        row: Where the centre of its first row lies in the grid's rows, and how far each row goes on.
        column: The same for columns.
    """

    slice_id: str
    shape: tuple[int, int]
    index: int
    row: tuple[float, float]
    column: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A mask [D, H, W] and the pictures over which it lies, in the order of the stack."""

    mask: NDArray[np.bool_]
    slices: tuple[Laying, ...]

    def on_slices(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """The pictures that the mask meets: id, and [rows, columns] of the original picture.

        Each pixel takes the voxel that its centre lies in; a slice takes the voxels at its own height.
        """
        _, height, width = self.mask.shape
        for one in self.slices:
            plane = self.mask[one.index]
            if not plane.any():
                continue
            row, column = _voxels(one.row, one.shape[0]), _voxels(one.column, one.shape[1])
            rows, columns = (row >= 0) & (row < height), (column >= 0) & (column < width)
            laid = np.zeros(one.shape, np.bool_)
            laid[np.ix_(rows, columns)] = plane[np.ix_(row[rows], column[columns])]
            if laid.any():
                yield one.slice_id, laid


def _voxels(way: tuple[float, float], count: int) -> NDArray[np.intp]:
    first, step = way
    return np.asarray(np.floor(first + step * np.arange(count) + 0.5), np.intp)


def pack(overlays: Mapping[str, Overlay]) -> bytes:
    """Overlays by finding id as one file (``.npz`` without pickles)."""
    arrays: dict[str, NDArray[Any]] = {}
    table: dict[str, Any] = {}
    for n, (finding, overlay) in enumerate(overlays.items()):
        arrays[f"mask{n}"] = np.packbits(overlay.mask)
        table[finding] = {"shape": overlay.mask.shape, "slices": [asdict(one) for one in overlay.slices]}
    arrays["table"] = np.frombuffer(json.dumps(table).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def unpack(data: bytes) -> dict[str, Overlay]:
    """What ``pack`` wrote.

    Raises:
        ValueError: It is no such file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MAX_BYTES:
                raise ValueError("the masks are larger than any that are made here")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            table = json.loads(bytes(arrays["table"]))
            return {
                str(finding): _overlay(arrays[f"mask{n}"], entry) for n, (finding, entry) in enumerate(table.items())
            }
    except _DAMAGE as error:
        raise ValueError(f"this is no file of masks: {type(error).__name__}") from error


def _overlay(bits: NDArray[Any], entry: Mapping[str, Any]) -> Overlay:
    depth, height, width = (int(size) for size in entry["shape"])
    count = depth * height * width
    if min(depth, height, width) < 1 or bits.dtype != np.uint8 or bits.shape != ((count + 7) // 8,):
        raise ValueError("a mask has not the size that is said of it")
    mask = np.unpackbits(bits, count=count).view(np.bool_).reshape(depth, height, width)
    return Overlay(mask=mask, slices=tuple(_laying(one, depth) for one in entry["slices"]))


def _laying(entry: Mapping[str, Any], depth: int) -> Laying:
    index = int(entry["index"])
    if not 0 <= index < depth:
        raise ValueError("a picture takes a plane that the mask does not have")
    rows, columns = (int(size) for size in entry["shape"])
    (row, down), (column, along) = entry["row"], entry["column"]
    if not (0 < rows <= _MAX_SIDE and 0 < columns <= _MAX_SIDE):
        raise ValueError("a picture has a size that no image has")
    if not np.all(np.abs(np.array([row, down, column, along], np.float64)) < _MAX_SIDE):
        raise ValueError("a picture lies nowhere near the mask")
    return Laying(
        slice_id=str(entry["slice_id"]),
        shape=(rows, columns),
        index=index,
        row=(float(row), float(down)),
        column=(float(column), float(along)),
    )
