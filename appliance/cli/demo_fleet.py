"""The demo's fleet: a fleet server on loopback beside the box, which the box enrols with and reports to.

It is an extra: where it cannot be had, or fails, the demo says so in one line and goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from appliance.errors import ApplianceError

log = logging.getLogger(__name__)

#: What runs as the server.
SERVER = "appliance.cli.demo_fleet_server"
_SERIAL = "DEMO-1"
#: How long the demo waits for the server, which starts while the PACS does; after that it goes on without.
_READY_S = 30.0
_ANSWER_S = 5.0
_END_S = 15.0


class DemoFleet:
    """A server process and the box's part of it; a context manager."""

    def __init__(self, log_path: Path) -> None:
        """Prepare.

        Args:
            log_path: Where the server's warnings go.
        """
        self._log_path = log_path
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last: dict[str, Any] = {}
        #: Why it is left out; empty where it is not.
        self.why = ""
        self.device = ""
        #: Address of the server's console, where it has one.
        self.console: str | None = None

    def __enter__(self) -> DemoFleet:  # noqa: PYI034 - typing.Self came with Python 3.11
        """Begin to start the server; returns at once."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See ``close``."""
        self.close()

    def start(self) -> None:
        """Begin to start the server; returns at once."""
        # Not in the demo's own folder, which nobody else may enter: started by root, the broker is somebody else.
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="scanside-fleet-")))
        errors = self._stack.enter_context(self._log_path.open("ab"))
        command = [sys.executable, "-m", SERVER, str(folder), _SERIAL]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # Ctrl-C is for the demo, which says goodbye to the server before it ends.
                start_new_session=True,
            )
        except OSError as error:
            self._leave_out(f"it cannot be started: {error.strerror}")
            return
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        reader = threading.Thread(target=self._read, args=(self._process.stdout,), name="demo-fleet", daemon=True)
        self._stack.callback(self._process.stdout.close)
        self._stack.callback(reader.join, _END_S)
        reader.start()

    def join(self, folder: Path) -> bool:
        """Wait for the server and enrol the box; returns whether it is in the fleet.

        Args:
            folder: The identity's (``state_path/fleet``).
        """
        if self.why:
            return False
        told = self._next(_READY_S)
        if told is None or "why" in told:
            self._leave_out("its server did not start; see the log" if told is None else told["why"])
            return False
        try:
            from appliance.fleet.device.enrolment import enrol

            enrol(folder, told["url"], told["token"], serial=_SERIAL, hardware="demo")
        except (ApplianceError, OSError) as error:
            self._leave_out(f"the box did not get in: {error}")
            return False
        self.device, self.console = told["device"], told["console"]
        return True

    def state(self) -> dict[str, Any]:
        """What the server knows of the box now (state, records, results, health, packages); empty without a fleet."""
        if self.why or self._process is None or self._process.stdin is None:
            return {}
        try:
            self._process.stdin.write("?\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            told = None
        else:
            told = self._next(_ANSWER_S)
        if told is not None:
            self._last = told
        elif self._process.poll() is not None:
            self._leave_out("its server has ended; see the log")
        return self._last

    def settle(self, is_told: Callable[[], bool], limit_s: float) -> dict[str, Any]:
        """Wait until the server has all that the box owes it and its health, or for ``limit_s``; what it knows."""
        until = time.monotonic() + limit_s
        pause = threading.Event()
        while True:
            is_last = is_told()
            told = self.state()
            if self.why or (is_last and told.get("health")) or time.monotonic() > until:
                return told
            pause.wait(0.2)

    def close(self) -> None:
        """End the server and remove what it kept."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                if self._process.stdin is not None:
                    self._process.stdin.close()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._stack.close()

    def _leave_out(self, why: str) -> None:
        self.why = why
        log.warning("the fleet is left out: %s", why)

    def _read(self, lines: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in lines:
                self._said.put(line)
        self._said.put("")

    def _next(self, limit_s: float) -> dict[str, Any] | None:
        try:
            line = self._said.get(timeout=limit_s)
            told = json.loads(line)
        except (queue.Empty, ValueError):
            return None
        return told if isinstance(told, dict) else None
