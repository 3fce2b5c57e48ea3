"""The folders of installed packages: ``state/packages/NAME/VERSION-DIGEST``. A folder is whole or it has no such name.

A package is brought together in ``.incoming-*``, put on disk for good, and only then renamed to its place; one that
goes is renamed to ``.gone-*`` first. What an interruption leaves has one of these names, or belongs to no row, and is
removed at the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from appliance.errors import ConflictError, StoreError
from engines.durable import sync_file, sync_folder

_INCOMING, _GONE = ".incoming-", ".gone-"


class PackageFiles:
    """The folder tree below ``root``; whoever changes it holds ``locked``."""

    def __init__(self, state_path: Path) -> None:
        """Use ``state_path / "packages"``; nothing is made yet."""
        self.root = state_path / "packages"

    def path(self, folder: str) -> Path:
        """Where a version's folder lies."""
        return self.root / folder

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who installs or tidies, among all processes.

        Raises:
            ConflictError: Another process does.
            StoreError: The folder cannot be made.
        """
        try:
            # 0700, as everything of the box; the worker sees it through its unit.
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("ab")
        except OSError as error:
            raise StoreError(
                f"{self.root} cannot be written: {error.strerror}; give it to the service's user"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(f"{self.root}: another package is being installed; try again when it is") from None
            yield

    def incoming(self) -> Path:
        """A new folder to bring a package together in."""
        path = self.root / f"{_INCOMING}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        return path

    def place(self, package: Path, name: str, version: str, digest: str) -> str:
        """Put a whole package on disk for good, under its name.

        Args:
            package: Its folder, below one of ``incoming``.
            name: The package.
            version: Its version.
            digest: Its digest; a part of it stands in the name.

        Returns:
            The folder, relative to the root.
        """
        folder = f"{name}/{version}-{digest[:12]}"
        final = self.path(folder)
        for where, _, names in os.walk(package):
            for one in names:
                sync_file(Path(where) / one)
            sync_folder(Path(where))
        final.parent.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.root)
        if final.exists():  # belongs to no row, else it would not be installed again
            self.remove(folder)
        package.rename(final)
        sync_folder(final.parent)
        return folder

    def remove(self, folder: str) -> None:
        """Delete a version's folder; it has lost its name before its first file goes."""
        path = self.path(folder)
        gone = self.root / f"{_GONE}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            path.rename(gone)
            sync_folder(path.parent)
            shutil.rmtree(gone, ignore_errors=True)

    def discard(self, incoming: Path) -> None:
        """Delete a folder of ``incoming`` with what is in it."""
        shutil.rmtree(incoming, ignore_errors=True)

    def recover(self, known: set[str]) -> int:
        """Delete what an interruption left: halves, and folders that belong to no version. Returns how many."""
        count = 0
        for path in sorted(self.root.iterdir()):
            if path.name.startswith((_INCOMING, _GONE)):
                shutil.rmtree(path, ignore_errors=True)
                count += 1
            elif path.is_dir():
                for folder in sorted(path.iterdir()):
                    if f"{path.name}/{folder.name}" not in known:
                        self.remove(f"{path.name}/{folder.name}")
                        count += 1
                with contextlib.suppress(OSError):
                    path.rmdir()
        return count
