"""Debian's Orthanc as the PACS: started in a folder of its own, on loopback, asked by REST, stopped again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, final

from appliance.ports import held_port


def find_orthanc() -> Path | None:
    """The Orthanc program, or ``None`` when it is not installed (``apt-get install orthanc``)."""
    found = shutil.which("Orthanc", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    return Path(found) if found else None


@final
class Orthanc:
    """A running Orthanc; a context manager. Takes any storage class it knows or does not know, from anybody."""

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ORTHANC",
        settings: Mapping[str, Any] | None = None,
        wait_for_http: bool = True,
    ) -> None:
        """Prepare an Orthanc that keeps everything under ``folder``.

        Args:
            folder: Its own.
            ae_title: Its own.
            settings: Of its configuration file, beside ours.
            wait_for_http: False where ``settings`` ask for a password, which we do not give here: then ``start`` waits
                until both ports are open.

        Raises:
            FileNotFoundError: Orthanc is not installed.
        """
        program = find_orthanc()
        if program is None:
            raise FileNotFoundError("Orthanc is not installed: apt-get install orthanc")
        self._program, self.folder, self.ae_title = program, folder, ae_title
        self._more = dict(settings or {})
        self._wait_for_http = wait_for_http
        self.dicom_port = self.http_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Orthanc:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Killed: an orderly stop takes Orthanc 3 s, and nobody reads its index again.
        self._end(kill=True)

    @property
    def url(self) -> str:
        """Root of the REST interface."""
        return f"http://127.0.0.1:{self.http_port}"

    def start(self, timeout_s: float = 60.0) -> None:
        """Start it and wait until both ports answer.

        Raises:
            TimeoutError: It does not answer in time.
            RuntimeError: It ended at once; the message has its last lines.
        """
        with ExitStack() as held:
            if not self.dicom_port:
                self.dicom_port, self.http_port = held_port(held), held_port(held)
            self._start(timeout_s)

    def _start(self, timeout_s: float) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "orthanc.json"
        settings.write_text(json.dumps({**self._settings(), **self._more}, indent=1))
        with (self.folder / "orthanc.log").open("wb") as log:
            # TCP_NODELAY: DCMTK's network layer reads it from the environment; without it each answer waits 40 ms.
            self._process = subprocess.Popen(
                [str(self._program), str(settings)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "TCP_NODELAY": "1"},
            )
        until = time.monotonic() + timeout_s
        while not self._answers():
            if self._process.poll() is not None:
                raise RuntimeError(f"Orthanc ended with {self._process.returncode}: {self._last_lines()}")
            if time.monotonic() > until:
                self.stop()
                raise TimeoutError(f"Orthanc did not answer within {timeout_s:g} s: {self._last_lines()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it in order; what it stored stays in the folder, and ``start`` brings it back on the same ports."""
        self._end(kill=False)

    def _end(self, *, kill: bool) -> None:
        if self._process is None:
            return
        if not kill:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
        self._process.kill()
        self._process.wait(15)
        self._process = None

    # -- REST ----------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The JSON answer to a GET.

        Raises:
            urllib.error.URLError: Orthanc does not answer, or not with success.
        """
        return json.loads(self._fetch(path))

    def instances(self) -> dict[str, str]:
        """SOP Instance UID > Orthanc's id of everything it holds."""
        listed = self.get("/instances?expand")
        return {entry["MainDicomTags"]["SOPInstanceUID"]: entry["ID"] for entry in listed}

    def fetch(self, orthanc_id: str) -> bytes:
        """The Part 10 file of an instance; its data set is as received."""
        return self._fetch(f"/instances/{orthanc_id}/file")

    def save_all(self, folder: Path) -> list[Path]:
        """Write every instance as a file under ``folder``; the paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, orthanc_id in enumerate(sorted(self.instances().values()), 1):
            path = folder / f"{number:06d}.dcm"
            path.write_bytes(self.fetch(orthanc_id))
            paths.append(path)
        return paths

    # -- inside --------------------------------------------------------------------------------------------------

    def _fetch(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:  # noqa: S310 - our own http address
            body: bytes = answer.read()
            return body

    def _answers(self) -> bool:
        try:
            if self._wait_for_http:
                self.get("/system")
            with socket.create_connection(("127.0.0.1", self.http_port), 1):
                pass
            with socket.create_connection(("127.0.0.1", self.dicom_port), 1):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def _last_lines(self) -> str:
        log = (self.folder / "orthanc.log").read_text(errors="replace").splitlines()
        return " | ".join(log[-3:])

    def _settings(self) -> dict[str, Any]:
        store = str(self.folder / "storage")
        return {
            "Name": "Scanside test PACS",
            "StorageDirectory": store,
            "IndexDirectory": store,
            "Plugins": [],
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "UnknownSopClassAccepted": True,
            "DeflatedTransferSyntaxAccepted": True,
            "JpegTransferSyntaxAccepted": True,
            "Jpeg2000TransferSyntaxAccepted": True,
            "JpegLosslessTransferSyntaxAccepted": True,
            "JpipTransferSyntaxAccepted": True,
            "Mpeg2TransferSyntaxAccepted": True,
            "RleTransferSyntaxAccepted": True,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "SaveJobs": False,
            "StoreDicom": True,
            "OverwriteInstances": True,
        }
