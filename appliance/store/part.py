"""One file on its way into the spool: write, fdatasync, rename, fsync of the folder, or nothing at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from typing import TYPE_CHECKING

from appliance.errors import StoreError
from engines.durable import sync_folder

if TYPE_CHECKING:
    from appliance.store.spool import Spool

INCOMING = "incoming"
#: While an object streams in, free space is looked at again after this many bytes.
_CHECK_EVERY = 16 * 1024**2


class PartFile:
    """One file on its way into the spool. Any error of the file system removes it; it is never tried again."""

    def __init__(self, spool: Spool, kind: str, suffix: str) -> None:
        """Use ``Spool.open_part``."""
        self._spool = spool
        self._relative_suffix = suffix
        self._kind = kind
        self._digest = hashlib.sha256()
        self._unchecked = 0
        self._ours = True
        #: Bytes of the whole file, and of the data set in it.
        self.file_size = 0
        self.size = 0
        self.path = spool.root / INCOMING / f"{secrets.token_hex(16)}.part"
        try:
            # 0600: images are readable by the service's own user alone.
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            spool.fault = f"open: {error.strerror}"
            raise StoreError(f"{spool.root}: {spool.fault}") from error

    @property
    def data_sha256(self) -> str:
        """SHA-256 of what was written, the prefix left out; lower-case hex."""
        return self._digest.hexdigest()

    def write(self, data: memoryview, *, count: bool = True) -> None:
        """Append all of ``data``; a short write is continued, as a full disk or a limit shows only on the next one.

        Args:
            data: Bytes of the data set as they came.
            count: False for the prefix, which is not part of size and digest.

        Raises:
            StoreError: The disk refuses or the reserve is reached; the part file is gone.
        """
        if count:
            self._digest.update(data)
            self.size += len(data)
        try:
            rest = data
            while len(rest):
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise self.failed("write", error) from error
        self.file_size += len(data)
        self._unchecked += len(data)
        if self._unchecked >= _CHECK_EVERY:
            self._unchecked = 0
            try:
                self._spool.check_reserve()
            except StoreError:
                self.abort()
                raise

    def commit(self) -> str:
        """Put the file on disk for good, under its final name.

        Returns:
            Path relative to the root of the spool.

        Raises:
            StoreError: The disk refuses; the file is gone. After a failed fdatasync the kernel has forgotten what it
                could not write, so a second one on the same file would lie.
        """
        name = secrets.token_hex(16)
        relative = f"{self._kind}/{name[:2]}/{name}{self._relative_suffix}"
        final = self._spool.root / relative
        step = "fdatasync"
        try:
            os.fdatasync(self._fd)
            step = "rename"
            self.path.rename(final)
            self.path = final
            step = "fsync of the folder"
            sync_folder(final.parent)
            step = "close"
            self._close()
        except OSError as error:
            raise self.failed(step, error) from error
        self._ours = False
        self._spool.fault = None
        return relative

    def quarantine(self) -> str | None:
        """Keep a refused object for the service team.

        Returns:
            Its path relative to the root; None where the quarantine is full, and then the object is gone.
        """
        kept = None
        with contextlib.suppress(OSError):
            kept = self._spool.take_quarantine(self.path, self.file_size)
        self.abort()
        return kept

    def abort(self) -> None:
        """Close and remove the file; harmless twice, and after ``commit``, when the file is the spool's."""
        with contextlib.suppress(OSError):
            self._close()
        if self._ours:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def failed(self, step: str, error: OSError) -> StoreError:
        """Remove the file and say why; the caller raises what is returned."""
        self.abort()
        self._spool.fault = f"{step}: {error.strerror}"
        return StoreError(f"{self._spool.root}: {self._spool.fault}")

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
