"""Putting on disk for good: the bytes of a file, the names in a folder, a whole small file."""

from __future__ import annotations

import os
from pathlib import Path


def sync_file(path: Path) -> None:
    """Make the bytes of a plain file survive a power cut; a link is refused.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    _sync(path, os.O_NOFOLLOW)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut (``fsync`` of the folder itself).

    Raises:
        OSError: It is no folder, or the disk fails.
    """
    _sync(folder, os.O_DIRECTORY)


def write_private(path: Path, data: bytes, *, owner: tuple[int, int] | None = None) -> None:
    """Write a file that its owner alone reads; a power cut leaves the old one or the new one.

    Args:
        path: Replaced; ``<name>.part`` beside it is ours.
        data: All of it.
        owner: User and group that it is given to; ours where None.

    Raises:
        OSError: It cannot be written, or the disk fails.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if owner is not None:
        os.chown(part, *owner)
    part.replace(path)
    sync_folder(path.parent)


def _sync(path: Path, flags: int) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
