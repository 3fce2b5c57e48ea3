"""How the first NVIDIA GPU fares, asked of the driver's own library (NVML) where it is there. Loads nothing else.

Under systemd the daemon's unit has no GPU, so there it knows nothing; a box run by hand or in a container does.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

#: Why clocks are lower than they should be (nvml.h, nvmlClocksThrottleReasons): slowed down by the hardware, heat seen
#: by driver or chip, power brake. Idle, what a person set and the card's own power limit are its ordinary work.
_HELD_BACK = 0x08 | 0x20 | 0x40 | 0x80
_TEMPERATURE_GPU = 0


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


@dataclass(frozen=True, slots=True)
class Gpu:
    """Per cent of time busy and of memory used, °C, whether it is held back; None where NVML does not say."""

    percent: float | None = None
    memory_percent: float | None = None
    temperature_c: float | None = None
    is_throttled: bool | None = None


def read_gpu(library: str = "libnvidia-ml.so.1") -> Gpu:
    """Ask NVML."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return Gpu()
    if nvml.nvmlInit_v2() != 0:
        return Gpu()
    try:
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) != 0:
            return Gpu()
        load, memory = _Utilization(), _Memory()
        has_load = nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(load)) == 0
        has_memory = nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0 and memory.total
        celsius, reasons = ctypes.c_uint(), ctypes.c_ulonglong()
        has_heat = nvml.nvmlDeviceGetTemperature(device, _TEMPERATURE_GPU, ctypes.byref(celsius)) == 0
        has_reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device, ctypes.byref(reasons)) == 0
        return Gpu(
            percent=float(load.gpu) if has_load else None,
            memory_percent=round(100 * memory.used / memory.total, 1) if has_memory else None,
            temperature_c=float(celsius.value) if has_heat else None,
            is_throttled=bool(reasons.value & _HELD_BACK) if has_reasons else None,
        )
    finally:
        nvml.nvmlShutdown()
