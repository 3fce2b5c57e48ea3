"""The units of systemd and what installs them, checked without a running systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from appliance.store.spool import RESULTS, STORE

ROOT = Path(__file__).resolve().parents[1]
UNITS = ROOT / "systemd"
SYSTEM_UNITS = Path("/usr/lib/systemd/system")

pytestmark = pytest.mark.req("R-HOUSE-20")


@pytest.fixture(scope="module")
def analyze(system_tool):
    tool = system_tool("systemd-analyze")
    shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    version = int(re.search(r"systemd (\d+)", shown.stdout)[1])
    if version < 250:
        pytest.skip(f"systemd {version} cannot judge units offline (250 or later, Ubuntu 22.04 has 249)")
    return tool


@pytest.fixture
def installed(tmp_path):
    """A root folder as tools/install.sh lays it, with stand-ins for the two programs."""
    done = subprocess.run(
        [ROOT / "tools" / "install.sh"],
        env={**os.environ, "DESTDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for program in ("scanside", "python"):
        stub = tmp_path / "opt" / "scanside" / "bin" / program
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text("#!/bin/sh\n", "utf-8")
        stub.chmod(0o755)
    return tmp_path


def setting(unit, key):
    return re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text("utf-8"), flags=re.MULTILINE)


def test_systemd_finds_no_fault_in_the_units(analyze, installed):
    if not SYSTEM_UNITS.is_dir():
        pytest.skip(f"systemd's own units are not in {SYSTEM_UNITS}")
    place = installed / "usr" / "lib" / "systemd" / "system"
    place.mkdir(parents=True)
    for target in SYSTEM_UNITS.glob("*.target"):
        shutil.copy(target, place / target.name)
    done = subprocess.run(
        [analyze, "verify", f"--root={installed}", "scanside.service", "scanside-worker.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "scanside" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.req("R-ACCESS-04")
def test_the_kiosk_is_a_unit_without_fault_that_always_comes_back_and_may_sound(analyze, tmp_path):
    text = (UNITS / "scanside-kiosk.service").read_text("utf-8")
    # Units of users cannot be judged below another root; the browser need not be on this machine.
    unit = tmp_path / "scanside-kiosk.service"
    unit.write_text(text.replace("/usr/bin/chromium", "/bin/true"), "utf-8")
    done = subprocess.run(
        [analyze, "--user", "verify", unit],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    ours = [line for line in done.stderr.splitlines() if "scanside" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
    assert setting("scanside-kiosk.service", "Restart") == ["always"]
    for option in ("--kiosk", "--noerrdialogs", "--disable-session-crashed-bubble"):
        assert option in text
    assert "--autoplay-policy=no-user-gesture-required" in text


@pytest.mark.parametrize(
    ("unit", "bound"), [("scanside.service", 12), ("scanside-worker.service", 10), ("scanside-fleet.service", 12)]
)
def test_the_exposure_of_the_units_is_within_bounds(analyze, unit, bound):
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", f"--threshold={bound}", UNITS / unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


def test_only_the_worker_has_a_gpu_and_executable_memory_and_it_has_no_network():
    assert setting("scanside.service", "MemoryDenyWriteExecute") == ["yes"]
    assert setting("scanside.service", "PrivateDevices") == ["yes"]
    assert setting("scanside-worker.service", "PrivateNetwork") == ["yes"]
    assert setting("scanside-worker.service", "RestrictAddressFamilies") == ["AF_UNIX"]
    assert "/dev/nvidiactl rw" in setting("scanside-worker.service", "DeviceAllow")


def test_the_worker_sees_neither_database_nor_configuration_and_cannot_change_what_was_received():
    unit = "scanside-worker.service"
    assert setting(unit, "TemporaryFileSystem") == ["/var/lib/scanside:ro"]
    assert setting(unit, "BindPaths") == ["/var/lib/scanside/spool", "/var/lib/scanside/engines"]
    assert setting(unit, "BindReadOnlyPaths") == ["-/var/lib/scanside/packages"]
    assert setting(unit, "InaccessiblePaths") == ["/etc/scanside"]
    (protected,) = setting(unit, "ReadOnlyPaths")
    assert protected.split() == [f"-/var/lib/scanside/spool/{name}" for name in (STORE, RESULTS, "quarantine")]


def test_no_unit_leaves_a_core_with_pixels():
    for unit in ("scanside.service", "scanside-worker.service", "scanside-kiosk.service", "scanside-fleet.service"):
        assert setting(unit, "LimitCORE") == ["0"]


@pytest.mark.req("R-HOUSE-23")
def test_a_configuration_error_is_not_restarted_and_anything_else_is():
    assert setting("scanside.service", "RestartPreventExitStatus") == ["78"]
    assert setting("scanside.service", "Restart") == ["on-failure"]
    assert setting("scanside.service", "StartLimitIntervalSec") == ["0"]
    assert setting("scanside.service", "Type") == ["notify"]
    assert setting("scanside-fleet.service", "RestartPreventExitStatus") == ["78"]
    assert setting("scanside-fleet.service", "Restart") == ["on-failure"]


def test_systemd_waits_longer_than_our_own_stop_budget():
    assert int(setting("scanside.service", "TimeoutStopSec")[0]) > 20


def test_the_user_and_the_folders_are_made(system_tool, installed):
    made = subprocess.run(
        [system_tool("systemd-sysusers"), f"--root={installed}", "scanside.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode and os.geteuid():
        pytest.skip("making users below another root needs root")
    assert made.returncode == 0, made.stderr
    users = (installed / "etc" / "passwd").read_text("utf-8")
    assert re.search(r"^scanside:.*:/var/lib/scanside:.*nologin$", users, flags=re.MULTILINE)
    if os.geteuid():
        pytest.skip("giving folders away needs root")
    subprocess.run(
        [system_tool("systemd-tmpfiles"), "--create", f"--root={installed}", "scanside.conf"],
        check=True,
        capture_output=True,
    )
    state = installed / "var" / "lib" / "scanside" / "spool"
    assert state.stat().st_mode & 0o777 == 0o700
    assert state.stat().st_uid != 0


@pytest.mark.req("R-HOUSE-21")
def test_install_lays_everything_and_keeps_a_configuration(installed):
    laid = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert laid >= {
        "etc/systemd/system/scanside.service",
        "etc/systemd/system/scanside-worker.service",
        "etc/systemd/user/scanside-kiosk.service",
        "etc/sysusers.d/scanside.conf",
        "etc/tmpfiles.d/scanside.conf",
        "etc/scanside/appliance.yaml",
    }
    mine = installed / "etc" / "scanside" / "appliance.yaml"
    mine.write_text("# mine\n", "utf-8")
    subprocess.run(
        [ROOT / "tools" / "install.sh"], env={**os.environ, "DESTDIR": str(installed)}, check=True, capture_output=True
    )
    assert mine.read_text("utf-8") == "# mine\n"


def test_the_units_start_what_the_wheel_brings():
    (start,) = setting("scanside.service", "ExecStart")
    assert start == "/opt/scanside/bin/scanside run --config /etc/scanside/appliance.yaml"
    (start,) = setting("scanside-worker.service", "ExecStart")
    module = start.split()[2]
    place = ROOT / Path(*module.split("."))
    shipped = yaml.safe_load((ROOT / "config" / "appliance.yaml").read_text("utf-8"))
    assert f"--socket {shipped['runtime_path']}/worker.sock" in start
    assert shipped["triage"]["spawn_worker"] is False
    assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), f"the worker's unit starts {module}"
