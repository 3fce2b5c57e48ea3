"""What this machine has for running engines: GPU, driver, CUDA layer, TensorRT; and what a person should mend.

Looking loads the drivers' own libraries, so it is done in a limited child, which may die of them; judging is pure.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engines.backends.cuda import probe_cuda
from engines.backends.trt_api import FlavourError, load_flavour
from engines.child import Limits, Progress, run_limited
from engines.errors import ChildError

State = Literal["ok", "warn", "fail"]

_LIMITS = Limits(wall_s=60, cpu_s=60, memory_mb=4096, address_space=False, open_files=256)
_NVIDIA = "0x10de"
#: PCI class of display controllers, 3D ones included.
_DISPLAY = "0x03"
_INSTALL_CUDA = "install the extra scanside[gpu] (cuda-bindings)"
_NO_GPU_FOUND = "no NVIDIA GPU: ONNX Runtime on the CPU serves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What was found; texts are empty where nothing was.

    Attributes:
        boards: NVIDIA GPUs that the kernel lists, whether or not a driver runs them.
        driver: Version of the kernel's driver.
        adapter: The CUDA layer that is installed, with its version.
        device: The GPU as CUDA describes it.
        unreachable: Why CUDA reaches no GPU.
        flavours: Version by TensorRT that can be loaded.
        missing: Why another cannot, by its name.
    """

    boards: tuple[str, ...] = ()
    driver: str = ""
    adapter: str = ""
    device: str = ""
    unreachable: str = ""
    flavours: dict[str, str]
    missing: dict[str, str]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing looked at, how it stands, and the line that mends it."""

    what: str
    state: State
    found: str
    mend: str = ""


def probe() -> Hardware:
    """Look, in a child: a driver that hangs or crashes ends that child alone."""
    try:
        told = run_limited("engines.backends.probe", {}, _LIMITS)
    except ChildError as error:
        return Hardware(boards=_boards(), driver=_driver(), unreachable=str(error), flavours={}, missing={})
    return Hardware(**{**told, "boards": tuple(told["boards"])})


def handle(_request: dict[str, Any], _progress: Progress) -> dict[str, Any]:
    """Look, being the child."""
    cuda = probe_cuda()
    device = ""
    if cuda.device is not None:
        major, minor = cuda.device.compute_capability
        device = f"{cuda.device.name}, compute capability {major}.{minor}, {cuda.device.total_bytes / 2**30:.0f} GB"
    flavours, missing = {}, {}
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            flavours[name] = load_flavour(name).version
        except FlavourError as error:
            missing[name] = str(error)
    hardware = Hardware(
        boards=_boards(),
        driver=_driver(),
        adapter=f"{cuda.adapter} {cuda.adapter_version}" if cuda.adapter is not None else "",
        device=device,
        unreachable=cuda.reason or "",
        flavours=flavours,
        missing=missing,
    )
    return asdict(hardware)


def judge(found: Hardware, backend: str) -> list[Line]:
    """What is well and what is not, in the order in which a person would mend it.

    Args:
        found: From ``probe``.
        backend: What the configuration asks for: ``onnxruntime``, ``tensorrt`` or ``tensorrt_rtx``. What it needs and
            has not is a fault; what it could use is a warning.
    """
    wanted = backend != "onnxruntime"
    lack: State = "fail" if wanted else "warn"
    back = "or set engines.backend: onnxruntime" if wanted else ""
    has_board = bool(found.boards or found.device)
    return [
        _gpu(found, lack, back, has_board=has_board),
        _of_driver(found, has_board=has_board),
        _layer(found, lack, back, has_board=has_board),
        _tensorrt(found, backend, lack, back, has_board=has_board),
    ]


def _mend(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _gpu(found: Hardware, lack: State, back: str, *, has_board: bool) -> Line:
    if found.device:
        return Line("GPU", "ok", found.device)
    if not has_board:
        return Line("GPU", lack, _NO_GPU_FOUND, _mend("put in an NVIDIA GPU", back) if back else "")
    boards = ", ".join(found.boards)
    return Line("GPU", "fail", f"{boards}, but CUDA does not reach it: {found.unreachable}", "see the lines below")


def _of_driver(found: Hardware, *, has_board: bool) -> Line:
    if found.driver:
        return Line("NVIDIA driver", "ok", found.driver)
    if found.device:
        return Line("NVIDIA driver", "warn", "runs, but does not tell its version")
    if has_board:
        mending = "install the NVIDIA driver (on a Jetson: JetPack) and restart; nvidia-smi must list the GPU"
        return Line("NVIDIA driver", "fail", "none is loaded", mending)
    return Line("NVIDIA driver", "warn", "none is loaded; none is needed without a GPU")


def _layer(found: Hardware, lack: State, back: str, *, has_board: bool) -> Line:
    if found.adapter:
        return Line("CUDA layer", "ok", found.adapter)
    return Line("CUDA layer", lack, "none is installed", _mend(_INSTALL_CUDA, back) if has_board or back else "")


def _tensorrt(found: Hardware, backend: str, lack: State, back: str, *, has_board: bool) -> Line:
    there = ", ".join(f"{name} {version}" for name, version in sorted(found.flavours.items()))
    if backend in found.flavours or (there and backend == "onnxruntime"):
        return Line("TensorRT", "ok", there)
    why = found.missing.get(backend) or "none is installed"
    mending = "it comes with JetPack, or from NVIDIA (packages tensorrt, tensorrt-rtx-cu12)"
    return Line(
        "TensorRT",
        lack,
        f"{why}; {there} is there" if there else why,
        _mend(mending, back) if has_board or back else "",
    )


def _boards(root: Path = Path("/")) -> tuple[str, ...]:
    boards = [
        f"NVIDIA GPU at {device.name}"
        for device in sorted((root / "sys/bus/pci/devices").glob("*"))
        if _read(device / "vendor") == _NVIDIA and _read(device / "class").startswith(_DISPLAY)
    ]
    compatible = _read(root / "proc/device-tree/compatible").replace("\0", " ")
    if "nvidia,tegra" in compatible:
        boards.append(_read(root / "proc/device-tree/model").strip("\0") or "NVIDIA Jetson")
    return tuple(boards)


def _driver(root: Path = Path("/")) -> str:
    version = _read(root / "sys/module/nvidia/version")
    if version:
        return version
    l4t = re.search(r"R(\d+).*?REVISION: ([\d.]+)", _read(root / "etc/nv_tegra_release"))
    return f"Jetson Linux {l4t[1]}.{l4t[2]}" if l4t else ""


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
