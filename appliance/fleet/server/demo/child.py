"""A child process that is told a line of JSON and answers with one; it ends with its input."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from appliance.errors import ApplianceError

_END_S = 20.0


class ChildFault(ApplianceError):  # noqa: N818 - a state of a neighbour
    """It ended, or does not answer; its log says why."""


class Child:
    """``python -m MODULE ...``; a context manager."""

    def __init__(self, module: str, *arguments: str, log: Path) -> None:
        """Start it.

        Args:
            module: What runs.
            arguments: Of it.
            log: Where its warnings go.
        """
        self._name, self._log = module, log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # Ctrl-C is for the demo, which lets its boxes say goodbye.
                start_new_session=True,
            )
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=module, daemon=True)
        self._reader.start()

    def __enter__(self) -> Child:  # noqa: PYI034 - typing.Self came with Python 3.11
        """As it is."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; killed where it does not."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_END_S)
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def tell(self, line: str = "?\n") -> None:
        """Say a line.

        Raises:
            ChildFault: It has ended.
        """
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        except (OSError, ValueError) as error:  # its input is closed
            raise self._fault() from error

    def hear(self, limit_s: float) -> dict[str, Any]:
        """Its next answer.

        Raises:
            ChildFault: There is none.
        """
        try:
            told = json.loads(self._said.get(timeout=limit_s))
        except (queue.Empty, ValueError) as error:
            raise self._fault() from error
        if not isinstance(told, dict):
            raise self._fault()
        return told

    def ask(self, limit_s: float) -> dict[str, Any]:
        """How its boxes stand.

        Raises:
            ChildFault: It does not answer.
        """
        self.tell()
        return self.hear(limit_s)

    def _read(self) -> None:
        with contextlib.suppress(ValueError):
            for line in self._process.stdout or ():
                self._said.put(line)
        self._said.put("")

    def _fault(self) -> ChildFault:
        lines = self._log.read_text("utf-8", errors="replace").strip().splitlines()
        return ChildFault(f"{self._name} does not answer: {lines[-1] if lines else 'it said nothing'}")
