"""What the simulated PACS holds of one DIMSE message while its fragments come in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO


class Incoming:
    """A DIMSE message while it comes in: the command in memory, the data set on disk."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.command = bytearray()
        self.values: dict[int, int | str] = {}
        self.syntax = ""
        self.digest = hashlib.sha256()
        self.size = 0
        self._file: IO[bytes] | None = None
        self._part: Path | None = None

    def text(self, element: int) -> str:
        """A value of the command set; empty when absent."""
        return str(self.values.get(element, ""))

    def open(self, part: Path, head: bytes) -> None:
        """Begin the file ``part`` with preamble and meta information ``head``."""
        self._part = part
        self._file = part.open("wb")
        self._file.write(head)

    def add(self, data: memoryview) -> None:
        """Take one fragment of the data set."""
        self.digest.update(data)
        self.size += len(data)
        if self._file is not None:
            self._file.write(data)

    def close(self, path: Path | None) -> None:
        """Give the finished file its name, or remove it."""
        if self._file is None or self._part is None:
            return
        self._file.close()
        self._file = None
        if path is None:
            self._part.unlink()
        else:
            self._part.replace(path)

    def drop(self) -> None:
        """The association ended within a message: nothing of it stays."""
        self.close(None)
