"""The one hole in the worker's wall: the drop-in for a KServe server, judged by systemd itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import main
from appliance.health.worker_network import DROP_IN_PATH, worker_drop_in

ROOT = Path(__file__).resolve().parents[3]
SYSTEM_UNITS = Path("/usr/lib/systemd/system")
pytestmark = pytest.mark.req("R-KSERVE-07")


def settings(text):
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_the_drop_in_opens_one_address_and_no_way_in():
    assert settings(worker_drop_in("10.1.2.20:8001")) == {
        "PrivateNetwork": "no",
        "RestrictAddressFamilies": "AF_INET",
        "IPAddressAllow": "10.1.2.20",
        "SocketBindDeny": "any",
    }
    v6 = settings(worker_drop_in("[fd00::5]:8001"))
    assert (v6["RestrictAddressFamilies"], v6["IPAddressAllow"]) == ("AF_INET6", "fd00::5")
    # What it leans on.
    unit = (ROOT / "systemd" / "scanside-worker.service").read_text("utf-8")
    assert re.search(r"^IPAddressDeny=any$", unit, flags=re.MULTILINE)


def test_the_command_writes_it_from_the_configuration(tmp_path):
    path = tmp_path / "appliance.yaml"
    path.write_text("kserve: {address: '10.1.2.20:8001'}\n", "utf-8")
    done = CliRunner().invoke(main, ["config", "worker-network", "--config", str(path)])
    assert (done.exit_code, done.output) == (0, worker_drop_in("10.1.2.20:8001"))
    path.write_text("{}\n", "utf-8")
    done = CliRunner().invoke(main, ["config", "worker-network", "--config", str(path)])
    assert done.exit_code == 78
    assert "the worker needs no network" in done.output


@pytest.fixture
def root(tmp_path):
    """Units and drop-in as they lie on a box."""
    place = tmp_path / "etc" / "systemd" / "system"
    place.mkdir(parents=True)
    for unit in (ROOT / "systemd").glob("*.service"):
        shutil.copy(unit, place / unit.name)
    drop_in = tmp_path / DROP_IN_PATH.lstrip("/")
    drop_in.parent.mkdir()
    drop_in.write_text(worker_drop_in("10.1.2.20:8001"), "utf-8")
    for program in ("scanside", "python"):
        stub = tmp_path / "opt" / "scanside" / "bin" / program
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text("#!/bin/sh\n", "utf-8")
        stub.chmod(0o755)
    return tmp_path


def analyze(system_tool, *arguments):
    tool = system_tool("systemd-analyze")
    shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    if int(re.search(r"systemd (\d+)", shown.stdout)[1]) < 250:
        pytest.skip("this systemd cannot judge units offline (250 or later)")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_no_fault_in_it(system_tool, root):
    if not SYSTEM_UNITS.is_dir():
        pytest.skip(f"systemd's own units are not in {SYSTEM_UNITS}")
    place = root / "usr" / "lib" / "systemd" / "system"
    place.mkdir(parents=True)
    for target in SYSTEM_UNITS.glob("*.target"):
        shutil.copy(target, place / target.name)
    done = analyze(system_tool, "verify", f"--root={root}", "scanside-worker.service")
    assert (done.returncode, [line for line in done.stderr.splitlines() if "scanside" in line]) == (0, [])
    # Proof that systemd has read it.
    (root / DROP_IN_PATH.lstrip("/")).write_text("[Service]\nIPAddressAllow=nonsense\n", "utf-8")
    done = analyze(system_tool, "verify", f"--root={root}", "scanside-worker.service")
    assert "kserve.conf" in done.stderr


def test_the_worker_stays_nearly_as_closed_as_it_was(system_tool, root):
    common = ("security", "--offline=yes", "--no-pager", f"--root={root}")
    done = analyze(system_tool, *common, "--threshold=15", "scanside-worker.service")
    assert done.returncode == 0, done.stdout + done.stderr
    # It was judged with the drop-in.
    assert "Service has access to the host" in done.stdout
