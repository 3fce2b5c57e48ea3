"""What a machine says of heat, throttling, wear and a Jetson's GPU, read where Linux keeps it; None where it does not.

``root`` is ``/`` but in tests. What a sensor says that is switched off, or that always says the same, is nothing.
"""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
#: A fan that turns is no throttling; everything else that cools makes something slower.
_FANS = re.compile(r"fan", re.IGNORECASE)
#: PMIC of a Jetson always says 100 °C; a sensor whose part is off says -256 °C.
_FIXED = re.compile(r"pmic", re.IGNORECASE)
_COLDEST_C, _HOTTEST_C = -40.0, 130.0
_TEGRASTATS_S = 10.0


@dataclass(frozen=True, slots=True)
class Tegra:
    """What tegrastats says in one line."""

    gpu_percent: float | None = None
    gpu_temperature_c: float | None = None
    temperature_c: float | None = None


def parse_tegrastats(line: str) -> Tegra:
    """Read one line of NVIDIA's tegrastats, of any JetPack: fields come and go, names change their case."""
    busy = re.search(r"\bGR3D(?:_FREQ)? (\d+(?:\.\d+)?)%", line)
    heat = {name.lower(): float(value) for name, value in re.findall(r"\b([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C\b", line)}
    sound = {name: value for name, value in heat.items() if _is_sound(name, value)}
    return Tegra(
        gpu_percent=min(float(busy[1]), 100.0) if busy else None,
        gpu_temperature_c=sound.get("gpu"),
        temperature_c=max(sound.values(), default=None),
    )


def ask_tegrastats() -> Tegra:
    """One line of the program where it is there."""
    program = shutil.which("tegrastats")
    if program is None:
        return Tegra()
    line = b""
    with (
        contextlib.suppress(OSError),
        subprocess.Popen([program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
    ):
        # It says a line a second and never ends: one is enough, and none within its time is none.
        if process.stdout is not None and select.select([process.stdout], [], [], _TEGRASTATS_S)[0]:
            line = process.stdout.readline()
        process.kill()
    return parse_tegrastats(line.decode("ascii", errors="replace"))


def jetson_gpu_percent(root: Path = ROOT) -> float | None:
    """How busy the GPU of a Jetson is: its driver counts in tenths of a per cent."""
    for place in ("sys/devices/platform/gpu.0/load", "sys/devices/gpu.0/load", "sys/devices/platform/*.gpu/load"):
        for path in sorted(root.glob(place)):
            value = _number(path)
            if value is not None:
                return min(value / 10, 100.0)
    return None


def hottest_zone_c(root: Path = ROOT) -> tuple[float | None, float | None]:
    """The hottest thermal zone, and the GPU's own where there is one."""
    zones = {}
    for folder in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        name, value = _text(folder / "type"), _number(folder / "temp")
        if value is not None and _is_sound(name, value / 1000):
            zones[name.lower()] = value / 1000
    gpu = next((value for name, value in zones.items() if name.startswith("gpu")), None)
    return max(zones.values(), default=None), gpu


def is_throttled(root: Path = ROOT) -> bool | None:
    """Whether the kernel holds processor or GPU back because of heat or power."""
    known = False
    for folder in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind, state = _text(folder / "type"), _number(folder / "cur_state")
        if not kind or state is None or _FANS.search(kind):
            continue
        known = True
        if state > 0:
            return True
    return False if known else None


def disk_wear_percent(root: Path = ROOT) -> float | None:
    """How much of its life the most worn disk has behind it, where that can be read without asking the disk.

    eMMC says so to everybody (EXT_CSD 268 and 269: 1 = up to 10 %, ... 10 = up to 100 %, 11 = over, 0 = not told). NVMe
    and SATA answer to root alone, which this box is not.
    """
    steps = []
    for path in sorted(root.glob("sys/class/block/*/device/life_time")):
        for word in _text(path).split():
            with contextlib.suppress(ValueError):
                steps.append(int(word, 16))
    return max((min(step * 10.0, 100.0) for step in steps if 0 < step <= 11), default=None)


def _is_sound(name: str, celsius: float) -> bool:
    return bool(name) and not _FIXED.search(name) and _COLDEST_C < celsius < _HOTTEST_C


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
