"""Bringing one large file here: resumed over restarts, no faster than is wished, and whole only where its hash holds.

A file is kept under its hash, so no version continues another's. It is synced block by block: after a power cut only
the last block can be other than it was written, and that one is fetched again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from appliance.clock import Clock
from appliance.errors import StoreError, TransientError
from appliance.fleet.device.acts import ActRefused, Unfinished
from appliance.fleet.device.files import Source, Stream
from appliance.fleet.device.pace import Bucket
from engines.durable import sync_folder, write_private

BLOCK_BYTES = 256 * 1024
_CHUNK = 64 * 1024
#: Beside twice the file (it and what is unpacked from it): the box's own work goes on.
_ROOM_BYTES = 1024**3
#: How often the wished pace is looked up, and how long one piece of work takes at most.
_LOOK_S, _SLICE_S = 0.2, 300.0
_WHOLE, _PART, _CLEAN = "whole", "part", "clean"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file as verified metadata describe it. ``name``: in the repository."""

    name: str
    length: int
    sha256: str

    def is_this(self, data: bytes) -> bool:
        """Whether these bytes are it."""
        return len(data) == self.length and hashlib.sha256(data).hexdigest() == self.sha256


@dataclass
class Pace:
    """So many bytes a second, as is wished now.

    Attributes:
        clock: The monotonic one counts.
        bytes_per_s: What is wished; asked anew all the time.
        wait: Waits so many seconds; True where the box ends.
    """

    clock: Clock
    bytes_per_s: Callable[[], int]
    wait: Callable[[float], bool]
    _bucket: Bucket = field(init=False)
    _rate: int = field(default=0, init=False)
    _asked: float = field(default=float("-inf"), init=False)
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin now."""
        self._began = self.clock.monotonic()
        self._bucket = Bucket(self._began)

    def room(self) -> int:
        """Wait until something may be fetched. Returns how many bytes at most.

        Raises:
            Unfinished: Enough for now, or the box ends.
        """
        wait_s = 0.0
        while True:
            if self.wait(wait_s):
                raise Unfinished("the box ends")
            now = self.clock.monotonic()
            if now - self._began > _SLICE_S:
                raise Unfinished("other jobs have their turn")
            if now - self._asked >= _LOOK_S:
                self._rate, self._asked = self.bytes_per_s(), now
                self._bucket.debt = min(self._bucket.debt, 2.0 * self._rate)  # a slower wish is no fine
            if self._bucket.is_open(now, self._rate):
                return min(_CHUNK, self._rate)
            wait_s = _LOOK_S

    def take(self, size: int) -> None:
        """So many came."""
        self._bucket.take(size)


def disk_free(folder: Path) -> int:
    """How many bytes the disk of a folder has left."""
    return shutil.disk_usage(folder).free


@dataclass
class Download:
    """One file.

    Attributes:
        folder: Its own; made and removed by the caller.
        wanted: Which.
        free: How many bytes a disk has left.
    """

    folder: Path
    wanted: Wanted
    free: Callable[[Path], int] = disk_free

    @property
    def whole(self) -> Path:
        """The file, where it is here."""
        return self.folder / _WHOLE

    def is_here(self) -> bool:
        """Whether it is, and is what it should be."""
        try:
            return self.whole.stat().st_size == self.wanted.length and self._hash(self.whole) == self.wanted.sha256
        except OSError:
            return False

    def bring(self, source: Source, pace: Pace, told: Callable[[float], None]) -> Path:
        """Fetch what is missing.

        Args:
            source: Where from.
            pace: Of a source that is far.
            told: Called with the percent that are here.

        Raises:
            ActRefused: The disk is too full, or what comes is another file.
            TransientError: The line is gone; what is here stays. ``Unfinished``: enough for now.
            StoreError: The disk refuses.
        """
        try:
            return self._bring(source, pace, told)
        except OSError as error:
            if error.errno == 28:  # ENOSPC
                raise ActRefused("DISK_FULL", f"{self.folder}: {error.strerror}") from error
            raise StoreError(f"{self.folder}: {error.strerror}") from error

    def _bring(self, source: Source, pace: Pace, told: Callable[[float], None]) -> Path:
        part = self.folder / _PART
        begin = self._kept(part)
        free = self.free(self.folder)
        if free + begin < 2 * self.wanted.length + _ROOM_BYTES:
            raise ActRefused("DISK_FULL", f"{free} bytes are free for a package of {self.wanted.length}")
        seen = hashlib.sha256()
        with part.open("r+b" if part.exists() else "x+b") as file:
            if begin < self.wanted.length:
                with source.open(self.wanted.name, begin) as stream:
                    if stream.total not in {None, self.wanted.length}:
                        self._drop(f"has {stream.total} bytes at its source, its metadata say {self.wanted.length}")
                    file.truncate(stream.begin)
                    self._append(file, stream, seen, source, pace, told)
            else:
                _hash_on(file, seen)
        if seen.hexdigest() != self.wanted.sha256:
            if begin:
                part.unlink()
                raise TransientError(f"{self.wanted.name}: what was here was damaged; it is fetched from its start")
            self._drop("is another file than its metadata say")
        part.rename(self.whole)
        sync_folder(self.folder)
        told(100.0)
        return self.whole

    def _append(
        self,
        file: IO[bytes],
        stream: Stream,
        seen: hashlib._Hash,
        source: Source,
        pace: Pace,
        told: Callable[[float], None],
    ) -> None:
        """Write what comes behind what is here, which is hashed first."""
        at, length = stream.begin, self.wanted.length
        _hash_on(file, seen)
        try:
            while True:
                most = pace.room() if source.is_far else _CHUNK
                chunk = stream.read(min(most, BLOCK_BYTES - at % BLOCK_BYTES))
                if source.is_far:
                    pace.take(len(chunk))
                if not chunk:
                    break
                if at + len(chunk) > length:
                    self._drop("goes on behind its end")
                file.write(chunk)
                seen.update(chunk)
                at += len(chunk)
                if at % BLOCK_BYTES == 0:
                    file.flush()
                    os.fsync(file.fileno())
                told(100.0 * at / length)
            if at < length:
                raise TransientError(f"{self.wanted.name} ends after {at} of {length} bytes")
        finally:
            file.flush()
            os.fsync(file.fileno())
            write_private(self.folder / _CLEAN, str(file.tell()).encode())

    def _kept(self, part: Path) -> int:
        """How much of it is here for sure; what may have been lost in a power cut is fetched again."""
        try:
            size = part.stat().st_size
            clean = int((self.folder / _CLEAN).read_bytes()) if (self.folder / _CLEAN).exists() else 0
        except (FileNotFoundError, ValueError):
            return 0
        if size > self.wanted.length:
            return 0
        if size == clean:
            return size
        return max(0, size - 1) // BLOCK_BYTES * BLOCK_BYTES

    def _drop(self, why: str) -> None:
        (self.folder / _PART).unlink(missing_ok=True)
        raise ActRefused("TUF_DAMAGED", f"{self.wanted.name} {why}")

    @staticmethod
    def _hash(path: Path) -> str:
        seen = hashlib.sha256()
        with path.open("rb") as file:
            _hash_on(file, seen)
        return seen.hexdigest()


def _hash_on(file: IO[bytes], seen: hashlib._Hash) -> None:
    """From where the file stands to its end."""
    while chunk := file.read(BLOCK_BYTES):
        seen.update(chunk)
