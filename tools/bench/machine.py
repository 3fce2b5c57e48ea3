"""On what the figures were measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.rows import SYSTEM_PATH

_LIBRARIES = ("numpy", "scipy", "opencv-python-headless", "onnxruntime", "pydicom", "scanside")


def machine() -> dict[str, Any]:
    """CPU, cores, memory, kernel, versions and the load when the run began."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "neighbours": {
            "orthanc": _version("Orthanc", "--version"),
            "dcmtk": _version("storescp", "--version"),
        },
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def line(facts: dict[str, Any]) -> str:
    """The same as one line."""
    versions = ", ".join(f"{name} {version}" for name, version in {**facts["libraries"], **facts["neighbours"]}.items())
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']:g} GB, Linux {facts['kernel']}, "
        f"Python {facts['python']}, {versions}; load before: {facts['load_before'][0]:g}"
    )


def tool(name: str) -> str | None:
    """A program of the distribution; never pynetdicom's script of the same name."""
    return shutil.which(name, path=SYSTEM_PATH)


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^(?:model name|Hardware|CPU part)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(program: str, argument: str) -> str:
    path = tool(program)
    if path is None:
        return "not installed"
    said = subprocess.run([path, argument], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"\d+\.\d+(?:\.\d+)?", said.stdout + said.stderr)
    return found[0] if found else "unknown"
