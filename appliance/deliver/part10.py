"""Where the data set of a spooled file begins, and whether it is still what it was."""

from __future__ import annotations

import errno
import hashlib
import struct
from typing import IO

from appliance.errors import ApplianceError, StoreError
from appliance.store.spool import Spool

#: Preamble, "DICM", and (0002,0000) with its value (PS3.10 §7.1); our own files always begin so.
_HEAD = 128 + 4 + 12
_CHUNK = 1024 * 1024


class SpoolCorrupt(ApplianceError):  # noqa: N818 - the code of the issue that it becomes
    """A file of the spool is missing or is no longer what was written; it must not leave the box."""


def data_offset(stream: IO[bytes]) -> int:
    """Where the data set begins: after preamble and file meta information.

    Raises:
        SpoolCorrupt: The file does not begin as a Part 10 file of ours.
    """
    stream.seek(0)
    head = stream.read(_HEAD)
    if len(head) < _HEAD or head[128:132] != b"DICM" or head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise SpoolCorrupt("the file does not begin as it was written")
    return int(_HEAD + struct.unpack("<L", head[140:144])[0])


def data_digest(stream: IO[bytes]) -> tuple[str, int, int]:
    """Read the whole data set.

    Returns:
        Its SHA-256 in lower-case hex, where it begins, and its bytes.

    Raises:
        SpoolCorrupt: The file does not begin as a Part 10 file of ours.
    """
    offset = data_offset(stream)
    sha256, size = file_digest(stream, offset)
    return sha256, offset, size


def file_digest(stream: IO[bytes], offset: int = 0) -> tuple[str, int]:
    """SHA-256 in lower-case hex, and bytes, of a file from ``offset`` to its end."""
    stream.seek(offset)
    digest = hashlib.sha256()
    size = 0
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def open_intact(spool: Spool, relative: str, sha256: str, *, is_dicom: bool = True) -> tuple[IO[bytes], int]:
    """Open a file for sending, but only if its data set, or all of what is no DICOM object, still has this digest.

    Returns:
        The stream, at the data set, and the bytes of the data set. The caller closes it.

    Raises:
        SpoolCorrupt: The file is missing, unreadable, or has changed on disk.
        StoreError: It cannot be opened now (file descriptors, rights); it may be sound.
    """
    try:
        stream = spool.path(relative).open("rb")
    except OSError as error:
        raise _judged(relative, error) from error
    try:
        offset = data_offset(stream) if is_dicom else 0
        found, size = file_digest(stream, offset)
        stream.seek(offset)
    except OSError as error:
        stream.close()
        raise _judged(relative, error) from error
    except SpoolCorrupt:
        stream.close()
        raise
    if found != sha256:
        stream.close()
        raise SpoolCorrupt("the file has changed on disk since it was written")
    return stream, size


def _judged(relative: str, error: OSError) -> ApplianceError:
    if error.errno in {errno.ENOENT, errno.EIO}:
        return SpoolCorrupt(f"the file cannot be read: {error.strerror}")
    return StoreError(f"{relative}: {error.strerror}")
