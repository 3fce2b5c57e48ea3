"""The demo's fleet: a fleet server on loopback beside the box, which the box enrols with and reports to.

It is an extra: where it cannot be had, or fails, the demo says so in one line and goes on.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from appliance.errors import ApplianceError
from appliance.fleet.server.demo.child import Child, ChildFault

log = logging.getLogger(__name__)

#: What runs as the server.
SERVER = "appliance.cli.demo_fleet_server"
_SERIAL = "DEMO-1"
#: How long the demo waits for the server, which starts while the PACS does; after that it goes on without.
_READY_S = 30.0
_ANSWER_S = 5.0


class DemoFleet:
    """A server process and the box's part of it; a context manager."""

    def __init__(self, log_path: Path) -> None:
        """Prepare.

        Args:
            log_path: Where the server's warnings go.
        """
        self._log_path = log_path
        self._stack = contextlib.ExitStack()
        self._server: Child | None = None
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
        try:
            self._server = self._stack.enter_context(Child(SERVER, str(folder), _SERIAL, log=self._log_path))
        except OSError as error:
            self._leave_out(f"it cannot be started: {error.strerror}")

    def join(self, folder: Path) -> bool:
        """Wait for the server and enrol the box; returns whether it is in the fleet.

        Args:
            folder: The identity's (``state_path/fleet``).
        """
        if self.why or self._server is None:
            return False
        try:
            told = self._server.hear(_READY_S)
        except ChildFault:
            told = {"why": "its server did not start; see the log"}
        if "why" in told:
            self._leave_out(told["why"])
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
        if self.why or self._server is None:
            return {}
        try:
            self._last = self._server.ask(_ANSWER_S)
        except ChildFault:
            if self._server.has_ended:
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
        self._stack.close()

    def _leave_out(self, why: str) -> None:
        self.why = why
        log.warning("the fleet is left out: %s", why)
