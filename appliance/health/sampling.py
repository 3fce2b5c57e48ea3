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
from appliance.health.nvml import gpu_load
from appliance.store import Store
from appliance.store.health_samples import Sample

_EVERY_S = 60.0
_MINUTE = timedelta(minutes=1)


class SamplingStage:
    """Writes one row a minute; a minute in which the box was too busy to look is missing, not invented."""

    name = "samples"
    max_step_s = 30.0

    def __init__(self, store: Store, clock: Clock, *, machine: Callable[[Path], Sample] | None = None) -> None:
        """Look at this machine.

        Args:
            store: Keeps the samples.
            clock: Monotonic for the minutes, wall for their names.
            machine: Reads the machine; tests give another.
        """
        self._store = store
        self._clock = clock
        self._machine = machine or read_machine
        self._next = clock.monotonic() + _EVERY_S
        psutil.cpu_percent()  # it measures from call to call

    def step(self) -> bool:
        """Take a sample if a minute has passed."""
        if self._clock.monotonic() < self._next:
            return False
        self._next = self._clock.monotonic() + _EVERY_S
        now = self._clock.now()
        measured: dict[str, Any] = self._store.health.measured(now - _MINUTE, now)
        self._store.health.add(now - _MINUTE, replace(self._machine(self._store.spool.root), **measured))
        return False


def read_machine(folder: Path) -> Sample:
    """What the machine says of itself; None for what it does not have."""
    disk = shutil.disk_usage(folder)
    temperature = None
    sensors = getattr(psutil, "sensors_temperatures", None)  # Linux and FreeBSD alone have it
    if sensors is not None:
        with contextlib.suppress(OSError):
            readings = [one.current for group in sensors().values() for one in group if one.current]
            temperature = max(readings, default=None)
    gpu, gpu_memory = gpu_load()
    return Sample(
        cpu_percent=psutil.cpu_percent(),
        memory_percent=psutil.virtual_memory().percent,
        disk_percent=round(100 * disk.used / disk.total, 1),
        temperature_c=temperature,
        gpu_percent=gpu,
        gpu_memory_percent=gpu_memory,
    )
