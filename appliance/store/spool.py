"""The files of the box: received objects, results and pictures, each on disk for good before anybody is told so.

Layout below the root: ``incoming/`` (half-received), ``store/`` (received), ``results/`` and ``pictures/`` (ours), the
latter three with 256 folders by the first byte of a random name, and ``quarantine/`` (refused objects, for the service
team). No name ever comes from the wire. The order write, fdatasync, rename, fsync of the folder is what keeps the last
acknowledged image over a power cut: without the last step it was lost in 6 of 6 simulated cuts.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from appliance.errors import StoreError
from appliance.store.part import INCOMING, PartFile
from engines.durable import sync_folder

#: Kinds of files that stay; each is a folder.
STORE, RESULTS, PICTURES = "store", "results", "pictures"
_KINDS = (STORE, RESULTS, PICTURES)
_QUARANTINE = "quarantine"
_RELATIVE = re.compile(r"(?:(?:store|results|pictures)/[0-9a-f]{2}|quarantine)/[0-9a-f]{32}\.[a-z0-9]{1,8}\Z")
_COPY_CHUNK = 1024**2


class Spool:
    """The folder tree below one root on one file system.

    Safe for use by many threads: every file has one writer, and names are random.
    """

    def __init__(
        self,
        root: Path,
        *,
        reserve_bytes: int | None = None,
        quarantine_objects: int = 1000,
        quarantine_bytes: int = 5 * 10**9,
    ) -> None:
        """Make the folders, durable, where they are missing.

        Args:
            root: Where everything lies; made if need be.
            reserve_bytes: What stays free; default max(2 GB, 5 % of the file system).
            quarantine_objects: How many refused objects are kept at most.
            quarantine_bytes: How many bytes of refused objects are kept at most.

        Raises:
            StoreError: The folders cannot be made.
        """
        self.root = root
        #: What the disk last refused, for the health check; None again after the next file that was kept.
        self.fault: str | None = None
        self._quarantine_limits = (quarantine_objects, quarantine_bytes)
        self._lock = threading.Lock()
        try:
            for kind in _KINDS:
                for number in range(256):
                    (root / kind / f"{number:02x}").mkdir(parents=True, exist_ok=True)
                sync_folder(root / kind)
            for name in (INCOMING, _QUARANTINE):
                (root / name).mkdir(exist_ok=True)
            sync_folder(root)
            sync_folder(root.parent)
            kept = [entry.stat().st_size for entry in os.scandir(root / _QUARANTINE)]
            self._quarantined = (len(kept), sum(kept))
            disk = os.statvfs(root)
        except OSError as error:
            raise StoreError(f"{root}: the spool cannot be used: {error.strerror}") from error
        size = disk.f_blocks * disk.f_frsize
        self.reserve_bytes = max(2 * 10**9, size // 20) if reserve_bytes is None else reserve_bytes

    def free_bytes(self) -> int:
        """Bytes that an unprivileged process may still write.

        Raises:
            StoreError: The file system does not answer.
        """
        try:
            disk = os.statvfs(self.root)
        except OSError as error:
            raise StoreError(f"{self.root}: {error.strerror}") from error
        return disk.f_bavail * disk.f_frsize

    def check_reserve(self) -> None:
        """Refuse new work before the disk is full.

        Raises:
            StoreError: Less than ``reserve_bytes`` is free.
        """
        free = self.free_bytes()
        if free < self.reserve_bytes:
            self.fault = f"disk full: less than the reserve of {self.reserve_bytes} bytes is free"
            raise StoreError(f"{self.root}: {self.fault}; free space or enlarge the disk")

    def open_part(self, prefix: bytes = b"") -> PartFile:
        """Begin a received object.

        Args:
            prefix: Preamble and file meta information; not part of the digest.

        Raises:
            StoreError: The reserve is reached or the file cannot be opened.
        """
        return self._open(STORE, ".dcm", prefix)

    def _open(self, kind: str, suffix: str, prefix: bytes = b"") -> PartFile:
        self.check_reserve()
        part = PartFile(self, kind, suffix)
        if prefix:
            part.write(memoryview(prefix), count=False)
        return part

    def write_blob(self, kind: str, source: bytes | Path, *, suffix: str = ".dcm") -> str:
        """Keep a result object or a picture for good.

        Args:
            kind: ``RESULTS`` or ``PICTURES``.
            source: The bytes, or a file of any file system to copy from.
            suffix: Ending of the new name.

        Returns:
            Path relative to the root.

        Raises:
            StoreError: It cannot be written, or the source cannot be read.
        """
        part = self._open(kind, suffix)
        try:
            if isinstance(source, bytes):
                part.write(memoryview(source))
            else:
                with source.open("rb") as stream:
                    while chunk := stream.read(_COPY_CHUNK):
                        part.write(memoryview(chunk))
        except OSError as error:
            raise part.failed("read of the source", error) from error
        except BaseException:
            part.abort()
            raise
        return part.commit()

    def scratch(self) -> Path:
        """A new name for a file that a child writes before it is kept; ``recover`` removes what is left over."""
        return self.root / INCOMING / f"{secrets.token_hex(16)}.part"

    def path(self, relative: str) -> Path:
        """The absolute path of a file of the spool.

        Raises:
            StoreError: ``relative`` is not of the form that the spool gives out.
        """
        if not _RELATIVE.match(relative):
            raise StoreError(f"{relative!r} is not a path of the spool")
        return self.root / relative

    def iter_files(self, kind: str = STORE) -> Iterator[str]:
        """Relative paths of all files of one kind, in no order that means anything."""
        for folder in sorted((self.root / kind).iterdir()):
            for entry in os.scandir(folder):
                relative = f"{kind}/{folder.name}/{entry.name}"
                if _RELATIVE.match(relative):
                    yield relative

    def remove(self, relative: str) -> None:
        """Remove a file that nobody is owed; silent if it is gone already.

        Raises:
            StoreError: The file system refuses.
        """
        try:
            self.path(relative).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{relative}: cannot be removed: {error.strerror}") from error

    def recover(self) -> int:
        """Remove what was half-received when the box last stopped; nothing of it was acknowledged.

        Returns:
            How many files were removed.
        """
        parts = list((self.root / INCOMING).iterdir())
        for part in parts:
            part.unlink(missing_ok=True)
        return len(parts)

    def take_quarantine(self, part: Path, size: int) -> str | None:
        """Move a refused part file to the quarantine; None where that is full. Use ``PartFile.quarantine``."""
        objects, total = self._quarantine_limits
        with self._lock:
            kept, used = self._quarantined
            if kept >= objects or used + size > total:
                return None
            relative = f"{_QUARANTINE}/{secrets.token_hex(16)}.dcm"
            part.rename(self.root / relative)
            self._quarantined = (kept + 1, used + size)
        return relative
