"""Durable ingest, images per second: the whole box, DCMTK's storescp and Orthanc as Debian ships it, in turn.

The sender is DCMTK's storescu. Every round starts every server afresh on an empty folder, because a UID that is already
there is cheaper. The box runs its head CT package; the images are of a chest, which no package claims.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from appliance.simulate.dicomize import ct_series
from appliance.simulate.phantom import Phantom
from appliance.simulate.study import Study
from bench.box import HEAD_CT, START_S, Box, environment, free_port
from bench.images import Template
from bench.machine import tool
from bench.rows import Bench, Row
from bench.watch import Watch

OURS, STORESCP, ORTHANC = "scanside", "storescp", "orthanc"
PDU_BYTES = 131_072
#: Associations at once, and the least share of Orthanc's rate.
_BOUNDS = {1: 0.9, 4: 0.6}
_Server = Callable[[Path], AbstractContextManager[int]]


def measure(bench: Bench) -> list[Row]:
    """Every server with one and with four associations, several rounds, medians."""
    images, rounds = bench.size(400), 1 if bench.quick else 5
    if tool("storescu") is None:
        return [_row(count, images, rounds, {}, 0) for count in _BOUNDS]
    folder = bench.new_folder("ingest")
    _make_images(folder / "images", images)
    seconds: dict[tuple[str, int], list[float]] = {}
    lost = dict.fromkeys(_BOUNDS, 0)
    for _ in range(rounds):
        for associations in _BOUNDS:
            for server, start in _installed().items():
                work = folder / "server"
                work.mkdir()
                with start(work) as port:
                    took = _send(folder / "images", port, associations)
                if server == OURS:
                    lost[associations] += images - _kept(work)
                shutil.rmtree(work)
                seconds.setdefault((server, associations), []).append(took)
    rows = []
    for count in _BOUNDS:
        taken = {server: values for (server, n), values in seconds.items() if n == count}
        rows.append(_row(count, images, rounds, taken, lost[count]))
    return rows


def _row(associations: int, images: int, rounds: int, seconds: dict[str, list[float]], lost: int) -> Row:
    share = _BOUNDS[associations]
    rates = {server: images / statistics.median(values) for server, values in seconds.items()}
    told = ", ".join(f"{server} {rate:.0f}/s" for server, rate in rates.items())
    # Round by round: what else the machine does changes from one minute to the next.
    pairs = zip(seconds.get(ORTHANC, ()), seconds.get(OURS, ()), strict=False)
    factors = [orthanc / ours for orthanc, ours in pairs]
    factor = statistics.median(factors) if factors else None
    words = "association" if associations == 1 else "associations"
    return Row(
        name=f"ingest-{associations}",
        figure=f"{images} CT images of 512 KB, {associations} {words}, durable",
        measured=f"{factor:.2f} x Orthanc, {lost} lost ({told})" if factor else f"{told}; DCMTK or Orthanc is missing",
        bound=f">= {share:g} x Orthanc, 0 lost",
        ok=factor >= share and not lost if factor else None,
        details={
            "images_per_s": {server: round(rate, 1) for server, rate in rates.items()},
            "factor_over_orthanc": round(factor, 2) if factor else None,
            "factors": [round(one, 2) for one in factors],
            "lost": lost,
            "images": images,
            "rounds": rounds,
        },
    )


def _make_images(folder: Path, count: int) -> None:
    """CT slices of 512 x 512 with noise, in four folders for four senders."""
    rng = np.random.default_rng(1)
    phantom = Phantom(
        kind="chest_ct",
        pixels=rng.integers(-1000, 1000, (count, 512, 512), dtype=np.int16),
        spacing_mm=(0.7, 0.7),
        positions_mm=tuple((0.0, 0.0, float(k)) for k in range(count)),
        thickness_mm=1.0,
        instance_numbers=tuple(range(1, count + 1)),
    )
    for number, image in enumerate(Template(ct_series(phantom, Study(seed="bench/ingest"))).study(0).images):
        part = folder / str(number % max(_BOUNDS))
        part.mkdir(parents=True, exist_ok=True)
        (part / f"{number:05}.dcm").write_bytes(image.file)


def _send(folder: Path, port: int, associations: int) -> float:
    folders = [folder] if associations == 1 else [folder / str(part) for part in range(associations)]
    base = [str(tool("storescu")), "-pdu", str(PDU_BYTES), "+sd", "+r", "-aet", "CT-1", "-aec", "SCANSIDE"]
    base += ["127.0.0.1", str(port)]
    began = time.perf_counter()
    senders = [subprocess.Popen([*base, str(one)], env=environment(), stdout=subprocess.DEVNULL) for one in folders]
    if any(sender.wait(timeout=600) for sender in senders):
        raise SystemExit("storescu failed")
    return time.perf_counter() - began


def _kept(work: Path) -> int:
    """Images that have both a row and a file."""
    with Watch(work / "state") as watch:
        rows = watch.count("version")
    return min(rows, sum(1 for _ in (work / "state" / "spool" / "store").rglob("*.dcm")))


def _installed() -> dict[str, _Server]:
    programs = {STORESCP: ("storescp", _storescp), ORTHANC: ("Orthanc", _orthanc)}
    return {OURS: _ours} | {name: start for name, (program, start) in programs.items() if tool(program)}


@contextlib.contextmanager
def _ours(work: Path) -> Iterator[int]:
    with Box(work, packages=[HEAD_CT]) as box:
        yield box.port


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[int]:
    """A server that listens; ended by its own process id."""
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + START_S
        while not _listens(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} does not listen")
            time.sleep(0.05)
        try:
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _storescp(work: Path) -> AbstractContextManager[int]:
    port = free_port()
    return _running([str(tool("storescp")), "--fork", "-pdu", str(PDU_BYTES), "-od", str(work), str(port)], port)


def _orthanc(work: Path) -> AbstractContextManager[int]:
    port = free_port()
    config = {
        "StorageDirectory": str(work),
        "IndexDirectory": str(work),
        "HttpServerEnabled": False,
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    (work / "orthanc.json").write_text(json.dumps(config), encoding="utf-8")
    return _running([str(tool("Orthanc")), str(work / "orthanc.json")], port)
