"""A box as its own processes, as it runs at a site: daemon, worker, state folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, final

import psutil
import yaml

from appliance.ports import held_port
from bench.rows import ROOT
from bench.watch import Watch

START_S = 60.0
SOURCES = ("CT-1", "CT-2", "DX-1", "DX-2")
HEAD_CT = "head-ct-hyperdensity"
TOY_XRAY = "toy-bright-blob"


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with ExitStack() as held:
        return held_port(held)


def environment(**more: str) -> dict[str, str]:
    """Of every peer: without TCP_NODELAY receivers built on DCMTK take some 46 ms an image, which says nothing."""
    return {**os.environ, "TCP_NODELAY": "1", **more}


@final
class Box:
    """``scanside run`` on a folder; a context manager. The toy X-ray package, if any, only the bench can hand in."""

    def __init__(
        self, folder: Path, *, packages: Sequence[str] = (), toy: Path | None = None, pacs_port: int | None = None
    ) -> None:
        """Write the configuration; nothing runs yet."""
        self.folder, self.state = folder, folder / "state"
        self.port = free_port()
        self._packages = packages
        self._log = folder / "box.log"
        self._config = folder / "box.yaml"
        destination = {"kind": "dicom", "name": "PACS", "purpose": "test", "host": "127.0.0.1", "ae_title": "PACS"}
        document = {
            "state_path": str(self.state),
            "dicom": {"port": self.port},
            "sources": [{"name": name, "ae_title": name} for name in SOURCES],
            "destinations": [{**destination, "port": pacs_port, "send": ["sr"]}] if pacs_port else [],
            "packages": [{"name": name, "role": "live"} for name in packages],
            "disk": {"reserve_bytes": 0, "reserve_fraction": 0},
            "screen": {"port": 0},
        }
        self._config.write_text(yaml.safe_dump(document), encoding="utf-8")
        cli = [sys.executable, "-m", "appliance.cli", "run", "--config", str(self._config)]
        own = [sys.executable, str(Path(__file__).with_name("toy_box.py")), str(self._config), str(toy)]
        self._command = own if toy else cli
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Box:
        self.start()
        self.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> float:
        """Start the daemon; returns the monotonic time at which it was asked to."""
        begun = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=environment(), stdout=log, stderr=log, start_new_session=True
            )
        return begun

    def wait_ready(self) -> None:
        """Until it accepts connections and its worker, if it needs one, is ready."""
        self.wait(self._accepts, "listens")
        if self._packages:
            with Watch(self.state) as watch:
                self.wait(lambda: "worker_started" in watch.kinds(), "has a ready worker")

    def wait(self, predicate: Any, what: str, timeout_s: float = START_S) -> None:
        """Poll every 5 ms.

        Raises:
            SystemExit: Not within ``timeout_s``, or the box has ended; with its last lines.
        """
        deadline = time.monotonic() + timeout_s
        while not predicate():
            if time.monotonic() > deadline or (self._process is not None and self._process.poll() is not None):
                said = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise SystemExit(f"the box never {what}:\n{said}")
            time.sleep(0.005)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def processes(self) -> list[psutil.Process]:
        """The daemon and all that it has started."""
        if self._process is None:
            return []
        daemon = psutil.Process(self._process.pid)
        return [daemon, *daemon.children(recursive=True)]

    def stop(self) -> None:
        """SIGTERM, as systemd does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to daemon and worker: a power cut as far as a process can have one."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
        self._process = None
