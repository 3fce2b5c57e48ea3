"""Once a minute: how busy the machine was, how many studies ended and how long they took. Shown on the health page."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from appliance.clock import Clock
from appliance.health.machine import (
    ask_tegrastats,
    disk_wear_percent,
    hottest_zone_c,
    is_throttled,
    jetson_gpu_percent,
)
from appliance.health.nvml import Gpu, read_gpu
from appliance.store import Store
from appliance.store.health_samples import Sample

_EVERY_S = 60.0
_MINUTE = timedelta(minutes=1)

#: Bytes received and sent, counted up.
Traffic = tuple[int, int]


class SamplingStage:
    """Writes one row a minute; a minute in which the box was too busy to look is missing, not invented."""

    name = "samples"
    max_step_s = 30.0

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        machine: Callable[[Path], Sample] | None = None,
        traffic: Callable[[], Traffic | None] | None = None,
    ) -> None:
        """Look at this machine.

        Args:
            store: Keeps the samples.
            clock: Monotonic for the minutes, wall for their names.
            machine: Reads the machine; tests give another.
            traffic: Reads the counters of its network; the same.
        """
        self._store = store
        self._clock = clock
        self._machine = machine or read_machine
        self._next = clock.monotonic() + _EVERY_S
        self._traffic = traffic or read_traffic
        self._before = (clock.monotonic(), self._traffic())
        psutil.cpu_percent()  # it measures from call to call

    def step(self) -> bool:
        """Take a sample if a minute has passed."""
        if self._clock.monotonic() < self._next:
            return False
        self._next = self._clock.monotonic() + _EVERY_S
        now = self._clock.now()
        measured: dict[str, Any] = self._store.health.measured(now - _MINUTE, now)
        machine = self._machine(self._store.spool.root)
        self._store.health.add(now - _MINUTE, replace(machine, **self._rates(), **measured))
        return False

    def _rates(self) -> dict[str, Any]:
        """Bytes a second since the last look; nothing where an interface went or a counter began anew."""
        (then, before), now = self._before, self._clock.monotonic()
        after = self._traffic()
        self._before = (now, after)
        if before is None or after is None or now <= then:
            return {}
        received, sent = ((new - old) / (now - then) for new, old in zip(after, before, strict=True))
        if received < 0 or sent < 0:
            return {}
        return {"network_in_bytes_s": round(received, 1), "network_out_bytes_s": round(sent, 1)}


def read_traffic() -> Traffic | None:
    """What went over all interfaces but loopback since the machine started; None where it does not count."""
    try:
        counted = psutil.net_io_counters(pernic=True)
    except OSError:
        return None
    outside = [one for name, one in counted.items() if name != "lo"]
    return (sum(one.bytes_recv for one in outside), sum(one.bytes_sent for one in outside)) if outside else None


def read_machine(folder: Path) -> Sample:
    """What the machine says of itself; None for what it does not have."""
    disk = shutil.disk_usage(folder)
    temperature = None
    sensors = getattr(psutil, "sensors_temperatures", None)  # Linux and FreeBSD alone have it
    if sensors is not None:
        with contextlib.suppress(OSError):
            readings = [one.current for group in sensors().values() for one in group if one.current]
            temperature = max(readings, default=None)
    zone, gpu_zone = hottest_zone_c()
    gpu = _read_gpu(gpu_zone)
    throttled = [one for one in (is_throttled(), gpu.is_throttled) if one is not None]
    return Sample(
        cpu_percent=psutil.cpu_percent(),
        memory_percent=psutil.virtual_memory().percent,
        disk_percent=round(100 * disk.used / disk.total, 1),
        disk_wear_percent=disk_wear_percent(),
        temperature_c=temperature if temperature is not None else zone,
        throttled=float(any(throttled)) if throttled else None,
        gpu_percent=gpu.percent,
        gpu_memory_percent=gpu.memory_percent,
        gpu_temperature_c=gpu.temperature_c,
    )


def _read_gpu(gpu_zone: float | None) -> Gpu:
    """A card by NVML, else a Jetson's by what its kernel says, else by tegrastats."""
    gpu = read_gpu()
    if gpu.percent is not None:
        return gpu
    busy = jetson_gpu_percent()
    if busy is None and gpu_zone is not None:
        told = ask_tegrastats()
        return Gpu(percent=told.gpu_percent, temperature_c=told.gpu_temperature_c or gpu_zone)
    return Gpu(percent=busy, temperature_c=gpu_zone)
