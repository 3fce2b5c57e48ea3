"""The whole box as a process, ``scanside run``, to be killed, stopped and started again on the same state folder."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
_PORTS = re.compile(r"receiving on port (\d+), screens on port (\d+)")


class BoxProcess:
    """Starts and ends ``scanside run``; the state outlives every process."""

    def __init__(
        self, folder, *, dicom_port=0, packages=(), destinations=(), mode="parallel", state=None, environment=None
    ):
        self.folder = folder
        self.state = state or folder / "state"
        self.log = folder / "box.log"
        self._environment = {**os.environ, **(environment or {})}
        self.config_path = folder / "box.yaml"
        self.config_path.write_text(
            yaml.safe_dump(
                {
                    "state_path": str(self.state),
                    "dicom": {"port": dicom_port},
                    "sources": [{"name": n, "ae_title": n, "mode": mode} for n in ("CT-1", "DX-1")],
                    "destinations": list(destinations),
                    "packages": [{"name": name, "role": "live"} for name in packages],
                    "disk": {"reserve_bytes": 0, "reserve_fraction": 0},
                    "screen": {"port": 0},
                }
            ),
            encoding="utf-8",
        )
        self.process = None
        self.dicom_port = self.screen_port = 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self, timeout_s=60.0):
        """Start; returns the seconds until the box said that it receives."""
        begin = time.monotonic()
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "appliance.cli", "run", "--config", str(self.config_path)],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        pause = threading.Event()
        while True:
            said = self.log.read_bytes()[offset:].decode(errors="replace")
            found = _PORTS.search(said)
            if found:
                self.dicom_port, self.screen_port = int(found[1]), int(found[2])
                return time.monotonic() - begin
            if self.process.poll() is not None or time.monotonic() - begin > timeout_s:
                raise AssertionError(f"the box did not start:\n{said[-3000:]}")
            pause.wait(0.02)

    def kill(self):
        """SIGKILL, as a power cut of the process; its worker dies with it."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def terminate(self, timeout_s=60.0):
        """SIGTERM; returns the exit status and the seconds that it took."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout_s)
        return status, time.monotonic() - begin
