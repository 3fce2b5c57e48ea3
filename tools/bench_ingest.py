"""Durable ingest, images per second: our SCP, DCMTK's storescp and Orthanc, in turn, in the same run.

    python tools/bench_ingest.py [--images 400] [--rounds 3] [--json FILE]

The sender is DCMTK's storescu with TCP_NODELAY=1 on both sides: without it receivers built on DCMTK take some 46 ms an
image, which says nothing about them. Every round starts every server afresh on empty folders, because a UID that is
already there is cheaper.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SYSTEM_PATH = os.pathsep.join(("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"))
OURS, STORESCP, ORTHANC = "scanside", "storescp", "orthanc"
PDU_BYTES = 131_072
START_S = 30


def run(images: int = 400, rounds: int = 3) -> dict[str, Any]:
    """Measure every server with 1 and 4 associations.

    Returns:
        ``images``, ``rounds``, and under ``servers`` per server and number of associations the median seconds, the
        images per second and the factor over Orthanc's; servers that are not installed are left out.
    """
    if not _tool("storescu"):
        raise SystemExit("DCMTK's storescu is not installed: apt-get install dcmtk")
    seconds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="scanside-bench-") as name:
        folder = Path(name)
        _make_images(folder / "images", images)
        for _ in range(rounds):
            for associations in (1, 4):
                for server, start in _installed().items():
                    state = folder / "state"
                    with start(state) as port:
                        took = _send(folder / "images", port, associations)
                    if server == OURS:
                        kept = sum(1 for _ in (state / "spool" / "store").rglob("*.dcm"))
                        if kept != images:
                            raise SystemExit(f"{kept} of {images} images were kept")
                    shutil.rmtree(state)
                    seconds.setdefault((server, associations), []).append(took)
    servers: dict[str, dict[str, dict[str, float]]] = {}
    for (server, associations), values in seconds.items():
        median = statistics.median(values)
        base = seconds.get((ORTHANC, associations))
        servers.setdefault(server, {})[str(associations)] = {
            "seconds": round(median, 3),
            "images_per_s": round(images / median, 1),
            **({"factor_over_orthanc": round(statistics.median(base) / median, 2)} if base else {}),
        }
    return {"images": images, "image_bytes": 512 * 1024, "rounds": rounds, "servers": servers}


def table(result: dict[str, Any]) -> str:
    """The result for a person."""
    lines = [f"{result['images']} images of 512 KB, median of {result['rounds']} rounds", ""]
    lines.append(f"{'server':<10} {'associations':>12} {'seconds':>8} {'images/s':>9} {'x Orthanc':>9}")
    for server, rows in result["servers"].items():
        for associations, row in rows.items():
            factor = row.get("factor_over_orthanc", "-")
            lines.append(f"{server:<10} {associations:>12} {row['seconds']:>8} {row['images_per_s']:>9} {factor:>9}")
    return "\n".join(lines)


def _installed() -> dict[str, Any]:
    servers = {OURS: _ours, STORESCP: _storescp, ORTHANC: _orthanc}
    programs = {STORESCP: "storescp", ORTHANC: "Orthanc"}
    return {name: start for name, start in servers.items() if name == OURS or _tool(programs[name])}


def _tool(name: str) -> str:
    return shutil.which(name, path=SYSTEM_PATH) or ""


def _make_images(folder: Path, count: int) -> None:
    """CT slices of 512 x 512 with noise, also linked into four folders for four senders."""
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    rng = np.random.default_rng(1)
    study_uid, series_uid, frame_uid = generate_uid(), generate_uid(), generate_uid()
    for part in range(4):
        (folder / str(part)).mkdir(parents=True)
    for number in range(count):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study_uid, series_uid, frame_uid
        ds.PatientName, ds.PatientID, ds.Modality, ds.InstanceNumber = "Bench^Phantom", "BENCH", "CT", number + 1
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.RescaleSlope, ds.RescaleIntercept = [0.5, 0.5], 1, 1, -1024
        ds.Rows = ds.Columns = 512
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelData = rng.integers(0, 2000, (512, 512), dtype=np.uint16).tobytes()
        ds.save_as(folder / str(number % 4) / f"{number:05}.dcm", enforce_file_format=True)


def _send(folder: Path, port: int, associations: int) -> float:
    folders = [folder] if associations == 1 else [folder / str(part) for part in range(associations)]
    base = [_tool("storescu"), "-pdu", str(PDU_BYTES), "+sd", "+r", "-aec", "BENCH", "127.0.0.1", str(port)]
    began = time.perf_counter()
    senders = [subprocess.Popen([*base, str(one)], env=_environment(), stdout=subprocess.DEVNULL) for one in folders]
    if any(sender.wait(timeout=600) for sender in senders):
        raise SystemExit("storescu failed")
    return time.perf_counter() - began


def _environment() -> dict[str, str]:
    return {**os.environ, "TCP_NODELAY": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[int]:
    """A server that listens; ended by its own process id."""
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} does not listen") from None
                time.sleep(0.05)
        try:
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


def _ours(state: Path) -> contextlib.AbstractContextManager[int]:
    port = _free_port()
    return _running([sys.executable, __file__, "--serve", str(state), str(port)], port)


def _storescp(state: Path) -> contextlib.AbstractContextManager[int]:
    state.mkdir()
    port = _free_port()
    return _running([_tool("storescp"), "--fork", "-pdu", str(PDU_BYTES), "-od", str(state), str(port)], port)


def _orthanc(state: Path) -> contextlib.AbstractContextManager[int]:
    state.mkdir()
    port = _free_port()
    config = {
        "StorageDirectory": str(state),
        "IndexDirectory": str(state),
        "HttpServerEnabled": False,
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    (state / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    return _running([_tool("Orthanc"), str(state / "orthanc.json")], port)


class _RowSink:
    """One durable row an image: the least that any sink must do before 0x0000."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE received (path TEXT, size INTEGER, sha256 TEXT)")
        self._associations = 0

    def association_opened(self, **_: Any) -> int:
        self._associations += 1
        return self._associations

    def association_closed(self, association_id: int, **_: Any) -> None:
        pass

    def refused(self, **fact: Any) -> None:
        print(fact, file=sys.stderr)

    def store(self, received: Any) -> None:
        with self._lock:
            row = (received.path, received.size, received.data_sha256)
            self._db.execute("INSERT INTO received VALUES (?, ?, ?)", row)


def serve(state: Path, port: int) -> None:
    """Our SCP on its own, until SIGTERM."""
    from appliance.clock import SystemClock
    from appliance.intake.peers import Peers
    from appliance.intake.scp import ScpSettings, StorageScp
    from appliance.store.spool import Spool

    spool = Spool(state / "spool", reserve_bytes=0)
    settings = ScpSettings(port=port, max_pdu_bytes=PDU_BYTES)
    scp = StorageScp(settings, _RowSink(state / "bench.db"), Peers(unknown_sources="accept"), spool, SystemClock())
    scp.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    scp.stop()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--serve", nargs=2, metavar=("STATE", "PORT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(Path(given.serve[0]), int(given.serve[1]))
        return
    result = run(given.images, given.rounds)
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
