"""Putting on disk for good what is written already: the bytes of a file, the names in a folder."""

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


def _sync(path: Path, flags: int) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
