"""How busy the first NVIDIA GPU is, asked of the driver's own library (NVML) where it is there. Loads nothing else.

Under systemd the daemon's unit has no GPU, so there it knows nothing; a box run by hand or in a container does.
"""

from __future__ import annotations

import ctypes


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def gpu_load(library: str = "libnvidia-ml.so.1") -> tuple[float | None, float | None]:
    """Per cent of time busy and of memory used; None where NVML does not say."""
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        return None, None
    if nvml.nvmlInit_v2() != 0:
        return None, None
    try:
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) != 0:
            return None, None
        load, memory = _Utilization(), _Memory()
        has_load = nvml.nvmlDeviceGetUtilizationRates(device, ctypes.byref(load)) == 0
        busy = float(load.gpu) if has_load else None
        if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0 or not memory.total:
            return busy, None
        return busy, round(100 * memory.used / memory.total, 1)
    finally:
        nvml.nvmlShutdown()
