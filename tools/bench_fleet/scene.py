"""A broker, a database with its registry, an ingest process that can be killed, and the boxes: one run's neighbours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import psutil
from fleet_kit import HOSPITAL, NOW, SITE, Mosquitto, add_tree
from sqlalchemy import func, insert, select

from appliance.fleet.keys import DeviceKey
from appliance.fleet.server import db
from appliance.fleet.server import tables as t
from appliance.fleet.simulate.boxes import Figures, SimulatedBox
from appliance.fleet.simulate.swarm import Place
from engines.signing import generate

_ROOT = Path(__file__).resolve().parents[2]
_SERVER = _ROOT / "tests" / "support" / "fleet_server_process.py"
_SOURCES = tuple(f"127.0.0.{n}" for n in range(1, 6))


class Scene:
    """A context manager; ``boxes`` are registered, and share one key."""

    def __init__(self, boxes: int, *, tls: bool) -> None:
        """Prepare so many."""
        self.is_tls = tls
        self.figures = Figures()
        self.folder = Path(tempfile.mkdtemp(prefix="scanside-bench-fleet-"))
        self.broker = Mosquitto(plain=not tls)
        key = DeviceKey.generate()
        self.boxes = [SimulatedBox(f"box-{n:07d}", HOSPITAL, key, n, self.figures) for n in range(1, boxes + 1)]
        self._contexts = {}
        self.url = f"sqlite:///{self.folder}/fleet.db"
        self.engine = db.open_engine(self.url)
        self._server: subprocess.Popen[bytes] | None = None
        self._register(key)

    def __enter__(self) -> Scene:  # noqa: PYI034 - typing.Self came with Python 3.11
        """Start broker and ingest."""
        self.broker.start()
        self.start_server()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them and leave nothing."""
        if self._server is not None:
            self._server.stdin.close()
            self._server.wait(60)
        self.broker.close()
        self.engine.dispose()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def place(self) -> Place:
        """Where the boxes connect to."""
        return Place("127.0.0.1", self.broker.port, _SOURCES, self._contexts.__getitem__ if self.is_tls else None)

    def start_server(self) -> None:
        """The ingest; returns once it listens."""
        command = [sys.executable, str(_SERVER), self.url, str(self.broker.port), "fleet.server", str(self.folder)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT)
        if self._server.stdout.readline() != b"ready\n":
            raise RuntimeError("the ingest did not start")

    def kill_server(self) -> None:
        """Kill -9."""
        self._server.kill()
        self._server.wait()

    def restart_broker(self) -> None:
        """Kill -9, and again with what it had kept: nothing."""
        self.broker.kill()
        self.broker.start()

    def records(self) -> int:
        """How many the database has."""
        with db.read(self.engine) as connection:
            return connection.scalar(select(func.count()).select_from(t.record))

    def loads(self) -> dict[str, dict[str, float]]:
        """Memory and processor time of each process so far."""
        found = {}
        for name, pid in (("ingest", self._server.pid), ("broker", self.broker.process.pid), ("boxes", None)):
            process = psutil.Process(pid)
            times = process.cpu_times()
            found[name] = {"rss_mb": process.memory_info().rss / 1e6, "cpu_s": times.user + times.system}
        return found

    def _register(self, key: DeviceKey) -> None:
        db.migrate(self.engine)
        online = generate("online")
        pem = self.folder / "online.pem"
        pem.write_text(online.pem())
        pem.chmod(0o600)
        ca = self.broker.ca
        shared = ca.issue("shared", key=key).pem
        if self.is_tls:
            shutil.copy(ca.path, self.folder / "ca.pem")
            for end in ("crt", "key"):
                shutil.copy(ca.folder / f"fleet.server.{end}", self.folder / f"server.{end}")
            self._contexts = {box.device: ca.context(ca.issue(box.device, key=key)) for box in self.boxes}
        with db.write(self.engine) as connection:
            add_tree(connection)
            row = {"tenant": HOSPITAL, "site": SITE, "state": "enrolled", "made_at": NOW}
            connection.execute(
                insert(t.device),
                [{"id": box.device, "number": box.number, "serial": f"SN-{box.number}", **row} for box in self.boxes],
            )
            row = {"pem": shared, "not_before": NOW, "not_after": NOW, "state": "current", "made_at": NOW}
            connection.execute(
                insert(t.certificate),
                [
                    {"fingerprint": f"{box.number:064x}", "device": box.device, "serial": "1", **row}
                    for box in self.boxes
                ],
            )
